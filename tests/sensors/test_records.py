"""Records of plug-ins that nothing could fit are refused, and the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributions import written
from laser_kind import LASER

from perception import plugins
from perception.plugins import PluginError
from perception.sensors import registry
from perception.sensors.registry import KINDS, kind_of, usable_kinds


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("layout='points of light'", "layout: 'points of light', expected image or points"),
        ("views=('bev',)", "views: 'bev', expected image, projection or birdseye"),
        ("views=()", "views: none is given"),
        ("hints=('range',)", "hints: 'range', expected one of encoding, unit, least_range_m"),
        ("suffixes=('npy',)", "suffixes: 'npy', expected such as .npy"),
        ("suffixes=('.NPY',)", "suffixes: '.NPY'"),
        ("suffixes=('.a/b',)", "suffixes: '.a/b'"),
        ("ros_types=('LaserScan',)", "ros_types: 'LaserScan', expected such as sensor_msgs"),
        ("units=('metres', 'auto')", "units: 'metres', expected auto, then"),
        ("file_unit='feet'", "file_unit: 'feet', expected one of units"),
    ],
)
def test_words_that_nothing_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    code = f"from dataclasses import replace\nfrom laser_kind import LASER\nX = replace(LASER, {change})"
    site = written(tmp_path, "odd", {"anysense.sensors": {"laser": "brought_odd:X"}}, code)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delitem(__import__("sys").modules, "brought_odd", raising=False)
    monkeypatch.setattr(KINDS, "_loaded", {})
    plugins.plugins.cache_clear()
    try:
        with pytest.raises(PluginError) as caught:
            kind_of("laser")
        assert said in str(caught.value) and "'laser' of odd 1.0" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert [kind.name for kind in usable_kinds()] == ["rgb", "depth", "thermal", "lidar"]
    finally:
        plugins.plugins.cache_clear()


@pytest.mark.usefixtures("laser")
def test_ours_and_a_good_one_say_what_fits() -> None:
    assert [kind.name for kind in usable_kinds()][-1] == "laser"
    for kind in (*usable_kinds(), LASER):
        registry._check(kind.name, kind)
        assert not kind.to_file or kind.suffixes
        assert not kind.to_message or kind.ros_types
