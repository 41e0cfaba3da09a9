"""Bundles that see the ground from above, run on any subset of their sensors."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from ground_bundles import (
    CAMERA,
    SURROUND,
    cloud,
    ground_bundle,
    picture,
    placed,
    surround_rig,
)

from perception.errors import CalibrationError
from perception.frame import Frame, Sample
from perception.geometry.live import LiveCalibration
from perception.geometry.motion import Odometry
from perception.geometry.transforms import RigidTransform
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.runtime.settings import StreamSettings

MS = 1_000_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground_bundle(tmp_path_factory.mktemp("ground") / "surround")


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.load(bundle, "cpu")


def frame(*places, stamp_ns: int = 0, without=(), value: int = 20, seed: int = 0) -> Frame:
    rig = surround_rig()
    samples = {n: picture(n, value, stamp_ns, seed) for n, (k, _) in SURROUND.items() if k == "rgb"}
    samples["roof"] = cloud(*places, stamp_ns=stamp_ns)
    return Frame({n: rig.attach(s) for n, s in samples.items() if n not in without}, stamp_ns)


def test_boxes_are_where_the_points_are(pipeline):
    pipeline.reset()
    cameras = [n for n, (k, _) in SURROUND.items() if k == "rgb"]
    result = pipeline(frame((5.0, 3.0), (-4.2, -6.6), without=cameras))
    boxes = result.boxes3d
    assert result.lines == ()
    assert boxes.in_base and boxes.frame_id == "base_link"
    assert len(boxes) == 2
    for x, y in ((5.0, 3.0), (-4.2, -6.6)):
        assert np.abs(boxes.center[:, :2] - [x, y]).max(axis=1).min() <= 0.4 + 0.1
    np.testing.assert_allclose(boxes.size, [[4.0, 1.8, 1.6]] * 2, rtol=1e-5)
    np.testing.assert_allclose(boxes.velocity, [[2, 0]] * 2)
    again = pipeline(frame((5.0, 3.0), (-4.2, -6.6), without=cameras)).boxes3d
    assert again.center.tobytes() == boxes.center.tobytes()
    assert again.scores.tobytes() == boxes.scores.tobytes()


def test_any_subset_answers(pipeline):
    whole = frame((6.0, 0.2))
    for count in range(1, len(SURROUND) + 1):
        for subset in combinations(SURROUND, count):
            pipeline.reset()
            found = pipeline(Frame({n: whole[n] for n in subset}, 0))
            assert set(found.used) == set(subset), found.lines
            assert found.boxes3d is not None
    pipeline.reset()


def test_a_bright_camera_sees_cars_on_its_side_alone(pipeline):
    rig = surround_rig()
    for name, side in (("left", (1, 1)), ("right", (1, -1)), ("front", (0, 1)), ("back", (0, -1))):
        pipeline.reset()
        result = pipeline(Frame({name: rig.attach(picture(name, 230))}, 0))
        axis, sign = side
        assert len(result.boxes3d)
        assert (result.boxes3d.center[:, axis] * sign > 0).all()


def test_pictures_are_not_warped_and_nothing_is_said_of_them(pipeline):
    pipeline.reset()
    result = pipeline(frame((6.0, 0.2)))
    assert result.placed == {}
    assert result.warnings == ()
    assert result.used == ("front", "left", "back", "right", "roof")


@pytest.mark.parametrize(
    ("sensor", "change", "line"),
    [
        ("left", {"pose": None}, "left: its place on the vehicle is not known"),
        ("roof", {"pose": None}, "roof: its place on the vehicle is not known"),
        ("left", {"camera": None}, "left: its intrinsics are not known"),
        ("roof", {"data": np.zeros((0, 4), np.float32)}, "roof: empty cloud"),
        ("roof", {"data": np.full((3, 4), np.nan, np.float32)}, "roof: empty cloud"),
        ("roof", {"data": np.full((3, 4), 900, np.float32)}, "roof: no point lies on the ground"),
        ("roof", {"data": np.ones((3, 2), np.float32)}, "roof: cloud is float32"),
        (
            "left",
            {"pose": RigidTransform(np.eye(3), [0, 0, 5])},
            "left: sees nothing of the ground",
        ),
    ],
)
def test_what_cannot_be_used_is_left_out_and_named(pipeline, sensor, change, line):
    pipeline.reset()
    whole = frame((6.0, 0.2))
    samples = {**whole.samples, sensor: replace(whole[sensor], **change)}
    result = pipeline(Frame(samples, 0))
    assert sensor not in result.used
    assert len(result.used) == 4
    assert [w.text for w in result.warnings if w.text.startswith(line)]
    pipeline.reset()


def test_one_point_is_a_lidar_that_sees_nothing(pipeline):
    pipeline.reset()
    roof = surround_rig().attach(cloud())
    found = pipeline(Frame({"roof": replace(roof, data=roof.data[:1])}, 0))
    assert found.used == () and found.lines == ("roof: sensor is dark",)
    pipeline.reset()


def test_points_that_are_no_numbers_change_nothing_of_the_rest(pipeline):
    pipeline.reset()
    roof = surround_rig().attach(cloud((5.0, 3.0), (-4.2, -6.6)))
    good = pipeline(Frame({"roof": roof}, 0)).boxes3d
    broken = np.insert(
        roof.data, range(0, 300, 3), np.float32([np.nan, np.inf, -np.inf, np.nan]), 0
    )
    pipeline.reset()
    found = pipeline(Frame({"roof": replace(roof, data=broken)}, 0)).boxes3d
    assert len(good) == 2
    assert found.center.tobytes() == good.center.tobytes()
    pipeline.reset()


def test_strict_raises_the_line(bundle):
    strict = Pipeline.load(bundle, "cpu", strict=True)
    with pytest.raises(CalibrationError, match="roof: its place on the vehicle is not known"):
        strict(Frame({"roof": cloud((5, 5))}, 0))


def test_a_stream_goes_on_while_sensors_die(bundle):
    pipeline = Pipeline.load(bundle, "cpu")
    timing = {n: SensorTiming(timeout_ns=250 * MS) for n in pipeline.sensors}
    stream = StreamCore(pipeline, StreamSettings(timing, 50 * MS))
    live = LiveCalibration(
        kinds=pipeline.kinds, ground=pipeline.manifest.inputs.grounded(pipeline.inputs)
    )
    live.rig = surround_rig()
    used = []
    for step in range(60):
        now = step * 100 * MS
        gone = {"left"} if step >= 20 else set()
        gone |= {"roof"} if step >= 35 else set()
        gone |= {"front", "back", "right"} if step >= 48 else set()
        for name in SURROUND:
            if name in gone:
                continue
            one = cloud((5, 3), stamp_ns=now) if name == "roof" else picture(name, 20, now, step)
            moved = one.data.copy()
            moved.ravel()[0] += 1 if step % 2 else 2
            stream.push(live.attach(replace(one, data=moved)), now)
        results = stream.poll(now)
        used += [(step, r.used, r.state, r.boxes3d) for r in results]
    assert not live.unaligned
    assert next(u for s, u, *_ in used if s == 10) == tuple(SURROUND)
    assert next(u for s, u, *_ in used if s == 30) == ("front", "back", "right", "roof")
    assert next(u for s, u, *_ in used if s == 45) == ("front", "back", "right")
    assert {state for s, _, state, _ in used if s >= 56} <= {"hold", "stop"}
    assert all(boxes is not None for _, u, _, boxes in used if u)


def test_a_depth_camera_takes_the_place_of_a_lidar(tmp_path):
    inputs = {"rgb": ("rgb", "rgb"), "depth": ("depth", "depth")}
    pipeline = Pipeline.load(ground_bundle(tmp_path / "depth", inputs), "cpu")
    meters = np.full((64, 96), np.nan, np.float32)
    meters[20:44, 40:56] = 6.0
    sample = Sample("depth", meters, 0, "optical", camera=CAMERA, pose=placed())
    result = pipeline(Frame({"depth": sample}, 0))
    assert result.lines == ()
    boxes = result.boxes3d
    assert len(boxes)
    assert np.abs(boxes.center[:, :2] - [6.0, 0.0]).max() < 1.3
    pipeline.reset()
    color = Sample("rgb", picture("rgb").data, 0, "optical", camera=CAMERA, pose=placed())
    both = pipeline(Frame({"depth": replace(sample, data=meters + 0.01), "rgb": color}, 0))
    assert both.used == ("rgb", "depth")


def test_a_thermal_camera_is_lifted_too(tmp_path):
    inputs = {"thermal": ("thermal", "thermal"), "lidar": ("lidar", "lidar")}
    pipeline = Pipeline.load(ground_bundle(tmp_path / "thermal", inputs), "cpu")
    values = picture("thermal", 120).data[..., 0].astype(np.float32)
    warm = Sample("thermal", values, 0, unit="counts8", camera=CAMERA, pose=placed())
    result = pipeline(Frame({"thermal": warm}, 0))
    assert result.used == ("thermal",)
    assert result.boxes3d is not None


def test_voxels_and_decoding_are_counted_apart(pipeline):
    pipeline.reset()
    result = pipeline(frame((6.0, 0.2)))
    assert {"preprocess_roof", "encode_roof", "fuse", "postprocess"} <= set(result.timings)
    assert result.timings["postprocess"] < 1000


def test_two_million_points_do(pipeline):
    rng = np.random.default_rng(0)
    data = rng.uniform((-30, -30, -2, 0), (30, 30, 2, 1), (2_000_000, 4)).astype(np.float32)
    pipeline.reset()
    roof = replace(surround_rig().attach(cloud()), data=data)
    started = time.monotonic()
    assert pipeline(Frame({"roof": roof}, 0)).used == ("roof",)
    assert time.monotonic() - started < 30


def driving(speed: float = 10.0) -> Odometry:
    """Straight on, since 2 seconds before 0."""
    found = Odometry()
    for ms in range(-2000, 2000, 20):
        at = np.array([speed * ms / 1000, 0, 0])
        found.note(ms * MS, RigidTransform(np.eye(3), at))
    return found


def of_two_times() -> Frame:
    """A LiDAR whose cloud is 200 ms older than the picture that says the output's stamp."""
    rig = surround_rig()
    roof = replace(rig.attach(cloud((7.0, 3.0), (3.0, -3.0))), stamp_ns=-200 * MS)
    # 16 points a place outweigh a picture that says nothing.
    data = np.concatenate([roof.data, roof.data[-16:] + np.float32(0.02)])
    return Frame({"back": rig.attach(picture("back", 20)), "roof": replace(roof, data=data)}, 0)


@pytest.mark.parametrize("in_parts", [False, True], ids=["call", "stream"])
def test_late_sensors_are_brought_to_the_outputs_stamp(pipeline, in_parts):
    """A still car, seen 200 ms ago by a vehicle that has come 2 m closer since."""
    pipeline.reset()

    def found(odometry: Odometry | None) -> Result:
        pipeline.odometry = odometry
        given = of_two_times()
        if not in_parts:
            return pipeline(given)
        encoded = {n: pipeline.encode(s) for n, s in given.items()}
        about = Result(samples=dict(given), source_ns={n: s.stamp_ns for n, s in given.items()})
        return pipeline.fuse(encoded, about)

    try:
        for motion, x in ((None, 7.0), (driving(), 5.0), (driving(0.0), 7.0), (Odometry(), 7.0)):
            pipeline.reset()
            result = found(motion)
            assert result.used == ("back", "roof")
            away = np.abs(result.boxes3d.center[:, :2] - [x, 3.0]).max(axis=1)
            assert away.min() < 0.6, (x, result.boxes3d)
            told = "over 2.00 m that the vehicle moved" if x == 5.0 else None
            assert result.placed.get("roof") in (told, "over 0.00 m that the vehicle moved")
    finally:
        pipeline.odometry = None


def test_points_of_a_turn_are_brought_to_the_stamp(pipeline):
    """Of points that were measured 100 ms after the stamp the vehicle was 0.8 m closer."""
    pipeline.reset()
    roof = surround_rig().attach(cloud((7.0, 3.0)))
    later = np.zeros(len(roof.data), np.float32)
    later[-8:] = 0.1
    pipeline.odometry = driving(8.0)
    try:
        boxes = pipeline(Frame({"roof": replace(roof, times=later)}, 0)).boxes3d
    finally:
        pipeline.odometry = None
    assert np.abs(boxes.center[:, :2] - [7.8, 3.0]).max(axis=1).min() < 0.5
    pipeline.reset()
    plain = pipeline(Frame({"roof": replace(roof, times=later)}, 0)).boxes3d
    assert np.abs(plain.center[:, :2] - [7.0, 3.0]).max(axis=1).min() < 0.5
