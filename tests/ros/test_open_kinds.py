"""Kinds of sensors that other distributions bring: parameters, message types, serialization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anysense_ros.codec import RosCodec, input_form
from distributions import written
from laser_kind import LASER, scan
from sensor_msgs.msg import CompressedImage, Image, LaserScan, PointCloud2
from test_parameters import Declare, _bundle, declare  # noqa: F401

from perception import plugins
from perception.bags.messages import sample_message
from perception.errors import ConfigError
from perception.frame import Sample
from perception.plugins import PluginError
from perception.sensors.registry import KINDS
from perception.sensors.samples import to_sample


@pytest.mark.usefixtures("laser")
def test_parameters_are_those_of_the_kind(declare: Declare) -> None:  # noqa: F811
    bundle = _bundle({"front": "rgb", "nose": "laser"})
    given = {
        "sensors": ["front", "nose"],
        "nose": {"kind": "laser", "unit": "metres", "least_range_m": 0.4},
    }
    for found in (declare(given), declare(given, manifest=bundle)):
        assert found.kinds["nose"] == "laser"
        assert found["nose.unit"] == "metres" and found["nose.least_range_m"] == 0.4
    found = declare({"inputs": ["rgb", "laser"]})
    assert found.kinds == {"rgb": "rgb", "laser": "laser"} and "rgb.unit" not in found.values
    with pytest.raises(ConfigError, match=r"nose\.unit: 'kelvin' is unknown.*auto, metres"):
        declare({**given, "nose": {"kind": "laser", "unit": "kelvin"}})


@pytest.mark.usefixtures("laser")
def test_a_unit_is_checked_when_the_bundle_says_the_kind(declare: Declare) -> None:  # noqa: F811
    bundle = _bundle({"front": "rgb", "nose": "laser"})
    given = {"sensors": ["front", "nose"], "nose.unit": "metres"}
    assert declare(given).kinds["nose"] == ""
    assert declare(given, manifest=bundle)["nose.unit"] == "metres"
    given["nose.unit"] = "kelvin"  # of thermal cameras
    assert declare(given)["nose.unit"] == "kelvin"
    with pytest.raises(ConfigError, match=r"nose\.unit: 'kelvin' is unknown"):
        declare(given, manifest=bundle)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution whose kind cannot be imported."""
    site = tmp_path / "site"
    entries = {"anysense.sensors": {"sonar": "brought_bad:SONAR"}}
    written(site, "bad", entries, "raise RuntimeError('no sonar here')")
    monkeypatch.syspath_prepend(str(site))
    plugins.plugins.cache_clear()
    yield
    plugins.plugins.cache_clear()


@pytest.mark.usefixtures("broken")
def test_a_kind_that_is_broken_stops_only_who_wants_it(declare: Declare) -> None:  # noqa: F811
    found = declare({"sensors": ["front", "low"], "low.kind": "thermal", "low.unit": "kelvin"})
    assert found.kinds == {"front": "", "low": "thermal"}
    with pytest.raises(PluginError, match="'sonar' of bad 1.0: RuntimeError: no sonar here"):
        declare({"inputs": ["rgb", "sonar"]})


@pytest.mark.usefixtures("laser")
def test_types_are_those_of_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        input_form("nose", "laser") == input_form("nose", "laser", "compressed") == (LaserScan, "")
    )
    assert input_form("rgb", "rgb") == (Image, "")
    assert input_form("ir", "thermal", "compressed") == (CompressedImage, "/compressed")
    assert input_form("roof", "lidar", "compressed") == (PointCloud2, "")
    monkeypatch.setitem(KINDS.own, "laser", replace(LASER, ros_types=("radar_msgs/msg/RadarScan",)))
    with pytest.raises(ConfigError, match="nose: this ROS has no type radar_msgs/msg/RadarScan"):
        input_form("nose", "laser")
    monkeypatch.setitem(KINDS.own, "laser", replace(LASER, ros_types=("sensor_msgs/msg/Radar",)))
    with pytest.raises(ConfigError, match="no type sensor_msgs/msg/Radar.*install sensor_msgs"):
        input_form("nose", "laser")
    monkeypatch.setitem(KINDS.own, "laser", replace(LASER, ros_types=()))
    with pytest.raises(ConfigError, match="nose: no laser is read from messages"):
        input_form("nose", "laser")


@pytest.mark.usefixtures("laser")
def test_messages_are_the_same_from_ros_and_from_rosbags() -> None:
    from rclpy.serialization import deserialize_message

    samples: dict[str, Any] = {
        "laser": Sample("laser", scan(), 7),
        "rgb": Sample("rgb", np.arange(36, dtype=np.uint8).reshape(3, 4, 3), 7),
        "depth": Sample("depth", np.arange(1, 13, dtype=np.float32).reshape(3, 4), 7),
        "thermal": Sample("thermal", np.full((3, 4), 300.5, np.float32), 7, unit="kelvin"),
        "lidar": Sample("lidar", np.random.default_rng(0).random((5, 4), np.float32), 7),
    }
    for kind, sample in samples.items():
        ours, theirs = (sample_message("/t", sample, "f", *c) for c in ((RosCodec(),), ()))
        form, _ = input_form(kind, kind)
        one, other = (deserialize_message(m.data, form) for m in (ours, theirs))
        assert one == other and ours.type == theirs.type
        found = to_sample(kind, one)
        assert found.stamp_ns == 7 and found.frame_id == "f"
        np.testing.assert_allclose(found.data, sample.data, atol=1e-4)
