"""Bags with sensors of kinds that other distributions bring: written, found, read and played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from laser_kind import LASER, SCAN, scan

from perception.bags.files import messages_of, read_bag, sensor_topics, topics_of, write_bag
from perception.bags.messages import parse, sample_message
from perception.data.folder import FolderRecording, FolderWriter
from perception.data.layout import FolderInfo
from perception.errors import DataError, EncodingError
from perception.frame import Sample
from perception.sensors.registry import KINDS
from perception.sensors.samples import to_sample

pytestmark = pytest.mark.usefixtures("laser")

SONAR = "sonar_msgs/msg/Ping"
PING = """std_msgs/Header header
float32[] distances
uint8 channel
"""


def recording(root: Path) -> FolderRecording:
    sensors = {"front": "rgb", "bumper": "laser"}
    content = {"name": "r", "sensors": sensors, "height": 12, "width": 16}
    with FolderWriter(root, FolderInfo.model_validate(content)) as writer:
        for index in range(4):
            color = np.random.default_rng(index).integers(0, 255, (12, 16, 3), np.uint8)
            samples = {"front": color, "bumper": scan(index)}
            writer.add(f"{index:03}", samples, stamp_ns=10**9 + index * 10**8)
    return FolderRecording(root)


def test_what_is_written_is_found_and_read(tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    assert write_bag(bag, messages_of(recording(tmp_path / "r"))) == 8
    assert topics_of(bag)["/sensors/bumper/points"] == SCAN
    kinds = {"front": "rgb", "bumper": "laser"}
    topics = sensor_topics(bag, {}, kinds)
    assert topics == {"front": "/sensors/front/image_raw", "bumper": "/sensors/bumper/points"}
    (first, *_) = read_bag(bag, [topics["bumper"]])
    sample = to_sample("laser", parse(first), sensor="bumper")
    assert (sample.sensor, sample.stamp_ns, sample.frame_id) == ("bumper", 10**9, "camera_optical")
    np.testing.assert_allclose(sample.data, scan(0), atol=1e-4)
    with pytest.raises(
        DataError, match=f"image_raw is .*, which is no laser .*could be {topics['bumper']}"
    ):
        sensor_topics(bag, {"bumper": topics["front"]}, kinds)
    with pytest.raises(
        EncodingError, match=rf"bumper: a sensor_msgs/msg/Image is no laser .*{SCAN}"
    ):
        (image, *_) = read_bag(bag, [topics["front"]])
        to_sample("laser", parse(image), sensor="bumper")


def test_types_of_its_own_are_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perception.adapters.outgoing import header_of

    def to_message(sample: Sample, types: Any) -> Any:
        away = sample.data[:, 0].astype(np.float32)
        return types.make(SONAR, header=header_of(types, sample), distances=away, channel=3)

    def from_message(message: Any, hints: Any) -> Sample:
        away = np.asarray(message.distances, np.float32)
        return Sample("laser", np.column_stack([away] + 3 * [np.zeros_like(away)]))

    sonar = replace(
        LASER,
        ros_types=(SONAR,),
        ros_definitions={SONAR: PING},
        to_message=to_message,
        from_message=from_message,
    )
    monkeypatch.setitem(KINDS.own, "laser", sonar)
    bag = tmp_path / "bag"
    write_bag(bag, messages_of(recording(tmp_path / "r")))
    (first, *_) = read_bag(bag, ["/sensors/bumper/points"])
    assert first.type == SONAR
    assert to_sample("laser", parse(first)).data[:, 0].tolist() == scan(0)[:, 0].tolist()


def test_a_kind_that_writes_no_messages_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS.own, "laser", replace(LASER, to_message=None))
    with pytest.raises(DataError, match="/t: no laser is written to messages"):
        sample_message("/t", Sample("laser", scan(), 1), "laser")


def test_a_type_that_nobody_defines_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def to_message(sample: Sample, types: Any) -> Any:
        return types.make("sonar_msgs/msg/Pong")

    monkeypatch.setitem(KINDS.own, "laser", replace(LASER, to_message=to_message))
    with pytest.raises(DataError, match=r"sonar_msgs/msg/Pong is not known.*ros_definitions"):
        sample_message("/t", Sample("laser", scan(), 1), "laser")
