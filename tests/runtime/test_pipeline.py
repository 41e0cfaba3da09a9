"""The pipeline on a real exported bundle: subsets, bad input, faults, threads."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from small_bundles import SmallBundles

import perception
from perception.data import open_recording
from perception.errors import AnySenseError, CalibrationError, InputError
from perception.frame import KINDS, Frame, Sample, subsets_of
from perception.runtime import pipeline as pipelines
from perception.runtime.collector import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.result import Result


@pytest.fixture
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline.load(tiny_bundle, "cpu", threads=1)


@pytest.fixture(scope="module")
def frames(simulated: Path) -> list[Frame]:
    recording = open_recording("folder", simulated)
    return [recording.frame(i) for i in range(len(recording))]


def test_all_fifteen_subsets_give_results(pipeline: Pipeline, frames: list[Frame]) -> None:
    for subset in subsets_of(KINDS):
        pipeline.reset()
        result = pipeline({m: frames[0][m] for m in subset})
        assert result.used == subset
        assert result.state == ("full" if len(subset) == 4 else "degraded")
        assert result.labels.shape == (96, 128)
        assert result.labels.dtype == np.uint8
        assert result.labels.max() < 8
        assert ((result.confidence > 0) & (result.confidence <= 1)).all()
        assert result.boxes is not None


def test_an_absent_modality_is_not_computed(pipeline: Pipeline, frames: list[Frame]) -> None:
    pipeline(frames[0].without("thermal", "lidar"))
    assert [pipeline.engines[m].runs for m in (*KINDS, "fuser")] == [1, 1, 0, 0, 1]


def test_the_same_frame_gives_the_same_result_whatever_came_before(
    tiny_bundle: Path, frames: list[Frame]
) -> None:
    fresh, used = (Pipeline.load(tiny_bundle, threads=1) for _ in range(2))
    used(frames[3])
    one, other = (p(frames[0].without("depth")) for p in (fresh, used))
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.boxes.xyxy, other.boxes.xyxy)


def _fused(pipeline: Pipeline, encoded: dict[str, Encoded], now_ns: int) -> Result:
    return pipeline.fuse(encoded, Result(present=tuple(encoded), stamp_ns=now_ns, **_of(encoded)))


def _of(encoded: dict[str, Encoded]) -> dict[str, dict[str, Any]]:
    stamps = {s: e.stamp_ns for s, e in encoded.items()}
    return {"source_ns": stamps, "samples": dict.fromkeys(stamps)}


def test_encoding_then_fusing_equals_calling(tiny_bundle: Path, frames: list[Frame]) -> None:
    calling, apart = (Pipeline.load(tiny_bundle, threads=1) for _ in range(2))
    encoded = {s: apart.encode(sample) for s, sample in frames[1].items()}
    wanted, got = calling(frames[1]), _fused(apart, encoded, frames[1].stamp_ns)
    assert got.used == wanted.used == KINDS
    assert np.array_equal(got.labels, wanted.labels)
    assert np.array_equal(got.confidence, wanted.confidence)
    assert np.array_equal(got.boxes.xyxy, wanted.boxes.xyxy)
    assert (got.stamp_ns, got.output_ns) == (wanted.stamp_ns, wanted.output_ns)
    assert set(encoded["rgb"].timings) == {"preprocess_rgb", "check_rgb", "encode_rgb"}


def test_encoders_that_run_later_give_the_same_and_run_once(
    tiny_bundle: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    calling, apart = (Pipeline.load(tiny_bundle, threads=1) for _ in range(2))
    runs = 0
    run = apart.engines["rgb"].run_linked

    def counted(*given: Any) -> Any:
        nonlocal runs
        runs += 1
        return run(*given)

    monkeypatch.setattr(apart.engines["rgb"], "run_linked", counted)
    encoded = {s: apart.encode(sample, later=True) for s, sample in frames[1].items()}
    for sample in frames[2].values():  # the buffers hold others by now
        apart.encode(sample, later=True)
    assert runs == 0
    wanted = calling(frames[1])
    for _ in range(2):
        got = _fused(apart, encoded, frames[1].stamp_ns)
        assert got.used == wanted.used == KINDS and got.novelty == wanted.novelty
        assert np.array_equal(got.labels, wanted.labels)
        assert np.array_equal(got.confidence, wanted.confidence)
        assert np.array_equal(got.boxes.xyxy, wanted.boxes.xyxy)
    assert runs == 1


def test_values_that_are_decoded_later_are_the_same_and_made_where_they_are_read(
    tiny_bundle: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    calling, apart = (Pipeline.load(tiny_bundle, threads=1) for _ in range(2))
    apart.decodes_later = True
    threads: list[str] = []
    decode = pipelines.interpret

    def noted(*given: Any, **about: Any) -> Any:
        threads.append(threading.current_thread().name)
        return decode(*given, **about)

    wanted = [calling(frame) for frame in frames[:4]]
    monkeypatch.setattr(pipelines, "interpret", noted)
    found = [apart(frame) for frame in frames[:4]]
    assert threads == []
    with ThreadPoolExecutor(1, "reader") as pool:
        first = pool.submit(lambda: [r.labels for r in found]).result()
    assert len(threads) == 4 and all(name.startswith("reader") for name in threads)
    for one, other, labels in zip(found, wanted, first, strict=True):
        assert labels is one.labels and np.array_equal(labels, other.labels)
        assert np.array_equal(one.confidence, other.confidence)
        assert np.array_equal(one.boxes.xyxy, other.boxes.xyxy)
        assert dict(one.values).keys() == dict(other.values).keys()
        assert (one.used, one.state, one.output_ns) == (other.used, other.state, other.output_ns)
    assert len(threads) == 4


def test_frames_that_nobody_looks_at_leave_all_as_if_somebody_did(
    tiny_bundle: Path, frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Color is frozen from before those that are looked at to within, and depth is missing now and then."""
    calling, passing = (Pipeline.load(tiny_bundle, threads=1) for _ in range(2))
    for engine in passing.engines.values():
        for way in ("run", "run_linked"):
            monkeypatch.setattr(engine, way, None)
    stuck = frames[1]["rgb"]
    for index in range(10):
        frame = frames[index]
        if 1 <= index < 8:
            own = {**frame, "rgb": replace(stuck, stamp_ns=frame.stamp_ns)}
            frame = Frame(own, frame.stamp_ns)
        frame = frame.without("depth") if index % 3 == 2 else frame
        if index == 6:
            monkeypatch.undo()
        wanted, got = calling(frame), passing(frame, answered=index >= 6)
        for name in ("used", "state", "health", "reference", "stamp_ns", "output_ns", "samples"):
            assert getattr(got, name) == getattr(wanted, name), name
        assert (got.labels is None) == (index < 6)
        if index >= 6:
            assert np.array_equal(got.labels, wanted.labels)
            assert np.array_equal(got.confidence, wanted.confidence)


def test_stamps_going_back_between_frames_are_counted(
    pipeline: Pipeline, frames: list[Frame]
) -> None:
    pipeline(frames[5])
    assert pipeline(frames[0]).used == KINDS
    assert pipeline.counters["stamp_jumps_back"] == 1


def test_every_frame_is_counted_by_its_state(pipeline: Pipeline, frames: list[Frame]) -> None:
    pipeline.policy = Policy(hold_ms=400)
    whole, start = frames[0], 10**12
    for index, (names, state) in enumerate(
        [
            (KINDS, "full"),
            (("rgb",), "degraded"),
            (("depth", "lidar"), "degraded"),
            ((), "hold"),
            ((), "hold"),
            ((), "hold"),
        ]
    ):
        stamp = start + index * 100_000_000
        samples = {
            m: replace(whole[m], stamp_ns=stamp - 10_000_000 * (m == "lidar")) for m in names
        }
        result = pipeline(Frame(samples)) if samples else _fused(pipeline, {}, stamp)
        assert result.state == state
        if "lidar" in names:
            ages = result.ages_ns
            assert ages == {m: 10_000_000 if m == "lidar" else 0 for m in names}
    assert _fused(pipeline, {}, start + 10**10).state == "stop"
    counted = {n: c for n, c in pipeline.counters.items() if n.startswith("frames_")}
    assert counted == {"frames_full": 1, "frames_degraded": 2, "frames_hold": 3, "frames_stop": 1}


def test_samples_that_the_bundle_does_not_take_are_left_aside(small: SmallBundles) -> None:
    pipeline = Pipeline.load(small(("rgb",)), "cpu", threads=1)
    image = np.random.default_rng(0).integers(20, 220, (32, 64, 3), np.uint8)
    samples = {
        "rgb": Sample("rgb", image, 5),
        "depth": Sample("depth", np.ones((32, 64), np.float32), 9),
    }
    result = pipeline(samples)
    assert (result.used, result.present, result.state) == (("rgb",), ("rgb", "depth"), "full")
    assert (set(result.health), result.warnings) == ({"rgb"}, ())
    stream = StreamCore(pipeline, StreamSettings({"rgb": SensorTiming()}))
    for count in (1, 2):
        assert stream.push(samples["depth"], count) == "foreign"
        assert stream.counts["depth"]["foreign"] == count


def _bad_samples(frame: Frame) -> dict[str, Sample]:
    rgb, depth, thermal, lidar = (frame[m] for m in KINDS)
    camera = replace(rgb.camera, width=50)
    return {
        "rgb dtype": replace(rgb, data=rgb.data.astype(np.float32)),
        "rgb shape": replace(rgb, data=rgb.data[..., 0]),
        "rgb empty": replace(rgb, data=rgb.data[:0]),
        "rgb camera of another size": replace(rgb, camera=camera),
        "rgb all zero": replace(rgb, data=np.zeros_like(rgb.data)),
        "rgb saturated": replace(rgb, data=np.full_like(rgb.data, 255)),
        "depth dtype": replace(depth, data=np.ones((96, 128), np.uint16)),
        "depth all NaN": replace(depth, data=np.full_like(depth.data, np.nan)),
        "depth all +Inf": replace(depth, data=np.full_like(depth.data, np.inf)),
        "depth mis-scaled": replace(depth, data=depth.data * 1000),
        "thermal unit": replace(thermal, unit="fahrenheit"),
        "thermal all NaN": replace(thermal, data=np.full_like(thermal.data, np.nan)),
        "thermal constant": replace(thermal, data=np.full_like(thermal.data, 290)),
        "lidar empty": replace(lidar, data=lidar.data[:0]),
        "lidar shape": replace(lidar, data=lidar.data[:, :2]),
        "lidar integers": replace(lidar, data=lidar.data.astype(np.int32)),
        "lidar all Inf": replace(lidar, data=np.full_like(lidar.data, np.inf)),
        "lidar without calibration": replace(lidar, extrinsics=None),
        "lidar behind the camera": replace(lidar, data=lidar.data * [-1, 1, 1, 1]),
    }


def test_a_bad_sample_is_left_out_and_the_rest_goes_on(
    pipeline: Pipeline, frames: list[Frame]
) -> None:
    for what, sample in _bad_samples(frames[0]).items():
        pipeline.reset()
        result = pipeline({**frames[0], sample.sensor: sample})
        assert sample.sensor not in result.used, what
        assert len(result.used) == 3, what
        assert len(result.warnings) == 1, what
        warning = result.warnings[0]
        assert "\n" not in warning.text and warning.sensor == sample.sensor, what
        assert warning.state == result.health[sample.sensor], what
        assert result.lines == (str(warning),) and sample.sensor in warning.text, what
        assert result.health[sample.sensor] in ("malformed", "dark", "saturated"), what
    assert pipeline(frames[1]).labels is not None


def test_strict_pipelines_raise_typed_errors(tiny_bundle: Path, frames: list[Frame]) -> None:
    strict = Pipeline.load(tiny_bundle, threads=1, strict=True)
    bad = _bad_samples(frames[0])
    for what in ("rgb dtype", "depth all NaN", "lidar empty", "thermal unit"):
        with pytest.raises(InputError):
            strict({bad[what].sensor: bad[what]})
    for what in ("rgb camera of another size", "lidar without calibration"):
        with pytest.raises(CalibrationError):
            strict({bad[what].sensor: bad[what]})


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sensor=st.sampled_from(KINDS),
    data=npst.arrays(
        st.sampled_from([np.uint8, np.float32, np.float64, np.int16]),
        npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
    ),
    unit=st.sampled_from(["", "kelvin", "counts8"]),
)
def test_no_array_whatever_stops_the_pipeline(
    pipeline: Pipeline, sensor: str, data: np.ndarray, unit: str
) -> None:
    result = pipeline({sensor: Sample(sensor, data, unit=unit)})
    assert result.state in ("full", "degraded", "hold", "stop")


def test_a_frozen_sensor_is_dropped_and_comes_back(pipeline: Pipeline, frames: list[Frame]) -> None:
    stuck = frames[0]["rgb"]
    states = []
    for index in range(10):
        frame = frames[index]
        rgb = replace(stuck, stamp_ns=frame.stamp_ns) if 2 <= index < 7 else frame["rgb"]
        states.append(pipeline({**frame, "rgb": rgb}).health["rgb"])
    assert "frozen" in states[2:7]
    assert states[-1] == "ok"


def test_all_sensors_gone_holds_then_stops_then_recovers(
    tiny_bundle: Path, frames: list[Frame]
) -> None:
    pipeline = Pipeline.load(tiny_bundle, threads=1, policy=Policy(hold_ms=250))
    first = pipeline(frames[0])
    states = []
    for frame in frames[1:5]:
        result = pipeline(Frame({}, frame.stamp_ns))
        states.append(result.state)
        if result.state == "hold":
            assert np.array_equal(result.labels, first.labels)
        else:
            assert result.labels is None
    assert states == ["hold", "hold", "stop", "stop"]
    assert pipeline(frames[5]).state == "full"


def test_required_sensors_and_derating(tiny_bundle: Path, frames: list[Frame]) -> None:
    needs = Pipeline.load(tiny_bundle, threads=1, policy=Policy(required=("lidar",)))
    assert needs(frames[0].without("lidar")).state == "stop"
    plain, derated = (
        Pipeline.load(tiny_bundle, threads=1, policy=Policy(derating=d)) for d in (1.0, 0.5)
    )
    frame = frames[0].without("lidar", "depth")
    assert np.allclose(derated(frame).confidence, 0.25 * plain(frame).confidence, atol=1e-6)


def test_encoding_in_threads_while_fusing(pipeline: Pipeline, frames: list[Frame]) -> None:
    failures: list[Exception] = []
    latest: dict[str, Encoded] = {}

    def feed(sensor: str) -> None:
        try:
            for frame in frames:
                latest[sensor] = pipeline.encode(frame[sensor])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=feed, args=(m,)) for m in KINDS]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads):
        there = {s: latest[s] for s in KINDS if s in latest}
        assert _fused(pipeline, there, frames[-1].stamp_ns).used == tuple(there)
    assert not failures
    assert sum(pipeline.counters[f"encoded_{m}"] for m in KINDS) == 4 * len(frames)


def test_timings_add_up(pipeline: Pipeline, frames: list[Frame]) -> None:
    result = pipeline(frames[0])
    parts = sum(v for k, v in result.timings.items() if k != "total")
    assert parts <= result.total_ms + 1e-6
    assert result.engine_ms + result.overhead_ms == pytest.approx(result.total_ms)


def test_runs_with_neither_torch_nor_ros(tiny_bundle: Path, simulated: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'rclpy', 'onnx', 'mujoco', 'matplotlib', 'PIL'): sys.modules[name] = None\n"
        "import perception\n"
        "from perception.data import open_recording\n"
        "from pathlib import Path\n"
        f"p = perception.Pipeline.load({str(tiny_bundle)!r})\n"
        f"print(p(open_recording('folder', Path({str(simulated)!r})).frame(0)).state)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["full"]


def test_a_zip_of_a_bundle_loads(tiny_bundle: Path, frames: list[Frame], tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "tiny"), "zip", tiny_bundle)
    assert perception.Pipeline.load(archive)(frames[0]).state == "full"


def test_errors_have_one_base() -> None:
    assert issubclass(InputError, AnySenseError)
    assert issubclass(CalibrationError, AnySenseError)


def test_a_sensor_that_says_nothing_is_dark_not_malformed(
    pipeline: Pipeline, frames: list[Frame]
) -> None:
    depth, thermal, lidar = (frames[0][m] for m in ("depth", "thermal", "lidar"))
    nothing = [
        replace(lidar, data=np.zeros((20_000, 4), np.float32)),  # beams without a return
        replace(lidar, data=lidar.data[:0]),
        replace(lidar, data=np.full_like(lidar.data, np.nan)),
        replace(depth, data=np.full_like(depth.data, np.nan)),
        replace(thermal, data=np.full_like(thermal.data, np.nan)),
    ]
    for sample in nothing:
        pipeline.reset()
        result = pipeline({**frames[0], sample.sensor: sample})
        assert result.health[sample.sensor] == "dark", result.warnings
        assert pipeline.counters[f"dark_{sample.sensor}"] > 0
        assert pipeline.counters[f"malformed_{sample.sensor}"] == 0
    padded = np.vstack([np.zeros((500, 4), np.float32), lidar.data])
    pipeline.reset()
    result = pipeline({"lidar": replace(lidar, data=padded)})
    pipeline.reset()
    assert np.array_equal(result.labels, pipeline({"lidar": lidar}).labels)


def test_a_frame_of_no_sensor_of_the_bundle_is_told(
    tiny_bundle: Path, pipeline: Pipeline, frames: list[Frame]
) -> None:
    frame = {"rbg": frames[0]["rgb"]}
    result = pipeline(frame)
    assert result.state in ("hold", "stop") and result.present == ("rbg",)
    (told,) = map(str, result.warnings)
    assert "rbg: no sensor of the bundle" in told and "did you mean 'rgb'?" in told
    assert pipeline({**frames[0], **frame}).warnings == pipeline(frames[0]).warnings
    strict = Pipeline.load(tiny_bundle, "cpu", threads=1, strict=True)
    with pytest.raises(InputError, match="rbg: no sensor of the bundle"):
        strict(frame)
