"""The fault script and what faults do to samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perception.data import open_recording
from perception.demo.scenario import FaultInjector, Phase, darken, make_scenario
from perception.frame import MODALITIES, subsets_of


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
    injector = FaultInjector(phases)
    given = [injector.apply(i, recording.frame(i)) for i in range(5)]
    assert set(given[1]) == set(MODALITIES)
    assert "depth" not in given[3]
    assert len(given[3]["lidar"].data) == 0
    for i in (2, 3, 4):
        assert np.array_equal(given[i]["rgb"].data, recording.frame(1)["rgb"].data)
        assert given[i]["rgb"].stamp_ns == recording.frame(i)["rgb"].stamp_ns


def test_dark_sensors_show_nothing(simulated: Path) -> None:
    frame = open_recording("folder", simulated).frame(0)
    assert darken(frame["rgb"]).data.max() == 0
    assert np.isnan(darken(frame["depth"]).data).all()
    assert np.ptp(darken(frame["thermal"]).data) == 0
