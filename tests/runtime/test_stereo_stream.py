"""The shipped bundle of two cameras on one encoder, and depth: called, streamed and replayed."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import perception
from perception.cli.main import main
from perception.data.folder import FolderRecording
from perception.frame import Frame, Sample, subsets_of
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import Result
from perception.sim.generate import make_recording

MS = 10**6
PATIENCE_S = 60.0
KINDS: dict[str, Any] = {"depth": "depth", "left": "rgb", "right": "rgb"}
INPUTS = tuple(KINDS)
RENAMED = {"tof": "depth", "port": "left", "starboard": "right"}
AWAY = {"left": range(2, 5), "right": range(7, 10)}
"""Frames of the recorded drive for which a camera gives nothing: long enough to be lost."""


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirteen simulated frames at 10 Hz; the cameras fail one after the other, and come back."""
    out = tmp_path_factory.mktemp("stereo") / "drive"
    make_recording(out, "drive", 13, 3, size=(96, 128), sensors=KINDS, progress=False)
    return out


@pytest.fixture(scope="module")
def frames(drive: Path) -> list[Frame]:
    recording = FolderRecording(drive)
    return [recording.frame(i) for i in range(len(recording))]


@pytest.fixture(scope="module")
def loaded(stereo_bundle: Path) -> Pipeline:
    return Pipeline.load(stereo_bundle, "cpu", threads=1)


@pytest.fixture
def pipeline(loaded: Pipeline) -> Pipeline:
    loaded.reset()
    loaded.counters.clear()
    return loaded


def _same(one: Result, other: Result) -> bool:
    assert one.labels is not None and other.labels is not None
    assert one.boxes is not None and other.boxes is not None
    return np.array_equal(one.labels, other.labels) and np.array_equal(
        one.boxes.xyxy, other.boxes.xyxy
    )


@pytest.mark.parametrize("there", subsets_of(INPUTS), ids="+".join)
def test_every_subset(pipeline: Pipeline, frames: list[Frame], there: tuple[str, ...]) -> None:
    before = {n: pipeline.engines[n].runs for n in INPUTS}
    result = pipeline(Frame({n: frames[0][n] for n in there}))
    assert result.used == result.present == there and not result.warnings
    assert result.state == ("full" if there == INPUTS else "degraded")
    assert result.reference == next(n for n in ("left", "right", "depth") if n in there)
    assert set(result.health) >= set(there) and {result.health[n] for n in there} == {"ok"}
    assert result.labels is not None and result.labels.shape == (96, 128)
    assert len(np.unique(result.labels)) > 2, "a street, not one class"
    assert result.confidence is not None and result.boxes is not None
    # Each encoder ran as often as there were pictures for it, and no more.
    runs = {n: pipeline.engines[n].runs - before[n] for n in INPUTS}
    cameras = len({"left", "right"} & set(there))
    assert runs == {"depth": int("depth" in there), "left": cameras, "right": cameras}


def test_both_cameras_count(pipeline: Pipeline, frames: list[Frame]) -> None:
    """They share an encoder, but not what it gives."""
    left, right = frames[0]["left"], frames[0]["right"]
    results = [
        pipeline(Frame({s.sensor: s for s in x})) for x in ((left,), (right,), (left, right))
    ]
    one, other, both = (r.confidence for r in results)
    assert one is not None and other is not None and both is not None
    assert not np.array_equal(one, other)
    assert not np.array_equal(both, one) and not np.array_equal(both, other)


@pytest.mark.parametrize("dead", ["left", "right"])
def test_a_camera_that_is_covered_is_named(
    pipeline: Pipeline, frames: list[Frame], dead: str
) -> None:
    black = Sample("rgb", np.zeros((96, 128, 3), np.uint8), frames[0].stamp_ns, sensor=dead)
    result = pipeline(Frame({**frames[0].samples, dead: black}))
    assert result.used == tuple(n for n in INPUTS if n != dead) and result.present == INPUTS
    assert [(w.sensor, w.state) for w in result.warnings] == [(dead, "dark")]
    assert result.lines == (f"{dead}: sensor is dark",)
    assert _same(result, pipeline(frames[0].without(dead)))


@pytest.mark.parametrize("dead", ["left", "right"])
def test_core_gives_what_calls_give_while_a_camera_is_away(
    pipeline: Pipeline, frames: list[Frame], dead: str
) -> None:
    settings = StreamSettings({s: SensorTiming(timeout_ns=150 * MS) for s in INPUTS})
    stream, start = StreamCore(pipeline, settings), frames[0].stamp_ns
    assert start is not None
    got: list[tuple[Frame, Result]] = []
    for index, frame in enumerate(frames):
        there = frame.without(dead) if 3 <= index < 8 else frame
        now = start + index * 100 * MS
        for sample in there.values():
            # Of a sensor that was lost the first sample only shows that it is back.
            again = index == 8 and sample.sensor == dead
            assert stream.push(sample, now) == ("unusable" if again else "accepted")
        there = there.without(dead) if index == 8 else there
        got += [(there, r) for r in stream.poll(now + 90 * MS) if r.labels is not None]
    assert len(got) == len(frames)
    for index, (there, result) in enumerate(got):
        away = 3 <= index < 9
        assert result.used == tuple(n for n in INPUTS if n in there), index
        assert result.state == ("degraded" if away else "full")
        assert {w.sensor for w in result.warnings} <= {dead}
        assert (result.health[dead] == "lost") >= (index in (5, 6, 7))
        pipeline.forget_last()
    report = stream.report(start + 1300 * MS)
    assert {s: r.used for s, r in report.items()} == {
        s: len(frames) - 6 * (s == dead) for s in INPUTS
    }
    calls = Pipeline.load(pipeline.bundle.path, "cpu", threads=1)
    assert all(_same(result, calls(there)) for there, result in got)


RANDOM = np.random.default_rng(0)


def _read(kind: str) -> tuple[np.ndarray[Any, Any], str]:
    if kind == "rgb":
        return RANDOM.integers(20, 220, (96, 128, 3), np.uint8), "bgr8"
    return RANDOM.integers(900, 9000, (96, 128), np.uint16), "16UC1"


@contextmanager
def _drivers(stream: perception.Stream, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """A thread for each sensor pushes at 20 Hz; gives what switches each off."""
    alive = {s: threading.Event() for s in names}
    end = threading.Event()

    def run(sensor: str, kind: str) -> None:
        while not end.wait(0.05):
            if alive[sensor].is_set():
                array, encoding = _read(kind)
                stream.push(sensor, array, encoding=encoding)

    threads = [threading.Thread(target=run, args=(s, KINDS[i])) for s, i in names.items()]
    try:
        for one in (*alive.values(),):
            one.set()
        for thread in threads:
            thread.start()
        yield alive
    finally:
        end.set()
        for thread in threads:
            thread.join()


def _until(stream: perception.Stream, wanted: Callable[[Result], bool], what: str) -> Result:
    end, result = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < end:
        result = stream.get(0.2) or result
        if result is not None and wanted(result):
            return result
    raise AssertionError(f"no {what}; last: {result}; {stream.report()}")


@pytest.mark.parametrize(
    "names", [dict(zip(INPUTS, INPUTS, strict=True)), RENAMED], ids=["own", "renamed"]
)
def test_threads_push_and_either_camera_dies_and_returns(
    stereo_bundle: Path, names: dict[str, str]
) -> None:
    timing = SensorTiming(timeout_ns=700 * MS, window_ns=200 * MS)
    wired = None if tuple(names) == INPUTS else names
    with (
        perception.Stream.open(
            stereo_bundle,
            dict.fromkeys(names, timing),
            inputs=wired,
            device="cpu",
            threads=1,
            policy=Policy(max_age_ms=500),
        ) as stream,
        _drivers(stream, names) as alive,
    ):
        tof, *cameras = names
        for dead in (*cameras, tof):
            full = _until(stream, lambda r: r.state == "full" and not r.warnings, "full result")
            assert full.used == tuple(names) and full.reference == cameras[0]
            assert set(full.health) == set(names) == set(full.samples)
            alive[dead].clear()
            gone = _until(
                stream, lambda r, d=dead: r.health[d] == "lost" and bool(r.used), f"{dead} lost"
            )
            rest = tuple(n for n in names if n != dead)
            assert set(gone.used) <= set(rest) and gone.state == "degraded"
            assert (dead, "lost") in [(w.sensor, w.state) for w in gone.warnings]
            assert f"{dead}: no message for more than 700 ms" in gone.lines
            without = _until(stream, lambda r, n=rest: r.used == n, f"result of {rest}")
            assert without.reference == next(c for c in (*cameras, tof) if c != dead)
            assert f"encode_{dead}" not in without.timings
            alive[dead].set()
        _until(stream, lambda r: r.state == "full" and not r.warnings, "full result")
        report = stream.report()
    assert set(report) == set(names) and all(r.used > 3 for r in report.values())


def _record(folder: Path, out: Path) -> Path:
    assert main(["record", "--data", f"folder:{folder}", "--out", str(out)]) == 0
    return out


@pytest.mark.parametrize("names", [None, RENAMED], ids=["own", "renamed"])
def test_a_recorded_drive_is_replayed(
    drive: Path,
    frames: list[Frame],
    stereo_bundle: Path,
    tmp_path: Path,
    names: dict[str, str] | None,
) -> None:
    pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")
    torn = shutil.copytree(drive, tmp_path / "drive")
    for sensor, away in AWAY.items():
        for index in away:
            (file,) = (torn / sensor).glob(f"*{index:03d}.*")
            file.unlink()
    bag = _record(torn, tmp_path / "bag")
    bundle = ["--bundle", str(stereo_bundle), "--device", "cpu", "--threads", "1"]
    called = {i: s for s, i in (names or {}).items()} or {i: i for i in INPUTS}
    given: list[str] = []
    for sensor, name in (names or {}).items():
        given += ["--topic", f"{sensor}=/sensors/{name}/image_raw", "--input", f"{sensor}={name}"]
    out = tmp_path / "out"
    times = ["--timeout-ms", "150", "--max-age-ms", "90"]
    assert main(["replay", str(bag), *bundle, *given, *times, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "status.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["used"]]
    assert len(rows) == len(frames) and len(rows[-1]["used"]) == len(INPUTS)
    for index, row in enumerate(rows):
        # Of a sensor that was lost two samples are awaited, and nobody waits for these.
        back = {called[s] for s, away in AWAY.items() if 0 < index - away[-1] < 3}
        dead = {called[s] for s, away in AWAY.items() if index in away}
        missing = set(called.values()) - set(row["used"])
        assert dead <= missing <= dead | back, (index, row)
        assert row["state"] == ("degraded" if missing else "full")
        assert set(row["health"]) == set(called.values())
        assert {line.split(":")[0] for line in row["warnings"]} == missing, row
    for sensor, away in AWAY.items():
        last = rows[away[-1]]
        assert last["health"][called[sensor]] == "lost"
        assert last["warnings"] == [f"{called[sensor]}: no message for more than 150 ms"]
