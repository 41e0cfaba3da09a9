"""The fault script and what faults do to samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perception.corruptions import corrupt
from perception.data import open_recording
from perception.demo.scenario import Phase, Script, make_scenario
from perception.frame import MODALITIES, subsets_of
from perception.sensors.registry import KINDS, kind_of


@pytest.mark.parametrize("modalities", subsets_of(MODALITIES), ids="+".join)
def test_scripts_cover_every_frame_once_and_end_whole(modalities: tuple[str, ...]) -> None:
    phases = make_scenario(modalities, 60)
    assert [f for p in phases for f in range(p.start, p.stop)] == list(range(60))
    assert not phases[0].faults and not phases[-1].faults
    failing = {m for p in phases for m in p.faults}
    assert failing == set(modalities)
    assert all(set(p.faults) < set(modalities) for p in phases if len(modalities) > 1)


def test_faults_do_what_they_say(simulated: Path) -> None:
    recording = open_recording("folder", simulated)
    phases = [
        Phase("ok", 0, 2),
        Phase("bad", 2, 5, {"rgb": "frozen", "depth": "lost", "lidar": "dark"}),
    ]
    script = Script(phases)
    given = [script.apply(i, recording.frame(i)) for i in range(5)]
    assert set(given[1]) == set(MODALITIES)
    assert "depth" not in given[3]
    assert len(given[3]["lidar"].data) == 0
    for i in (2, 3, 4):
        assert np.array_equal(given[i]["rgb"].data, recording.frame(1)["rgb"].data)
        assert given[i]["rgb"].stamp_ns == recording.frame(i)["rgb"].stamp_ns


def test_four_sensors_fail_as_in_the_picture_of_the_readme() -> None:
    assert [p.name for p in make_scenario(MODALITIES, 80)] == [
        "All sensors",
        "RGB goes dark",
        "Depth is lost",
        "Thermal freezes",
        "LiDAR is lost",
        "Only LiDAR left",
        "Only Thermal left",
        "All sensors back",
    ]


def test_sensors_that_cannot_go_dark_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    radar = replace(kind_of("depth"), name="radar", apply=None, faults=())
    monkeypatch.setitem(KINDS.own, "radar", radar)
    phases = make_scenario(("front", "depth"), 40, {"front": "radar"})
    assert phases[1].name == "front is lost" and phases[1].faults == {"front": "lost"}


def test_dark_sensors_show_nothing(simulated: Path) -> None:
    frame = open_recording("folder", simulated).frame(0)
    assert corrupt(frame["rgb"], "dark").data.max() == 0
    assert np.isnan(corrupt(frame["depth"], "dark").data).all()
    assert np.ptp(corrupt(frame["thermal"], "dark").data) == 0
