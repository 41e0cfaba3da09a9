"""Cameras that stand or look otherwise than the reference, in pipelines and streams."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from small_bundles import GRID, SmallBundles

from perception.errors import CalibrationError, ConfigError
from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.runtime.alignment import Alignment
from perception.runtime.arrival import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.networks import Encoded
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result

MS = 10**6
ALL = ("rgb", "depth", "thermal")
CAMERA = CameraModel(GRID[1], GRID[0], 60, 60, 31.5, 15.5)
HOT = CameraModel(80, 60, 64, 64, 40, 28)
BESIDE = RigidTransform(np.eye(3), np.array([0.2, 0.0, 0.0]))
TIMING = SensorTiming(window_ns=20 * MS, timeout_ns=300 * MS)


def picture(kind: str, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng((seed, len(kind)))
    if kind == "rgb":
        return rng.integers(20, 220, (*size, 3), dtype=np.uint8)
    low, high = (2.0, 2.2) if kind == "depth" else (20.0, 220.0)
    return rng.uniform(low, high, size).astype(np.float32)


def sample(
    kind: str, stamp: int = 1, moved: bool = False, seed: int = 0, **about: object
) -> Sample:
    camera = HOT if moved else CAMERA
    found = Sample(
        kind,
        picture(kind, (camera.height, camera.width), seed),
        stamp,
        unit="counts8" if kind == "thermal" else "",
        camera=camera,
        extrinsics=BESIDE if moved else None,
    )
    return replace(found, **about)  # type: ignore[arg-type]


def frame(
    moved: Iterable[str] = ("thermal",), names: Iterable[str] = ALL, **about: object
) -> Frame:
    return Frame({n: sample(n, moved=n in moved, **about) for n in names})  # type: ignore[arg-type]


@pytest.fixture
def load(small: SmallBundles):  # type: ignore[no-untyped-def]
    folder = small(ALL)

    def loaded(**alignment: object) -> Pipeline:
        return Pipeline.load(
            folder,
            "onnxruntime-cpu",
            threads=1,
            alignment=Alignment(**alignment),  # type: ignore[arg-type]
        )

    return loaded


def features(pipeline: Pipeline, given: Frame, name: str = "thermal") -> np.ndarray:
    """What the thermal encoder made of the last frame, by a fuser that adds up: the logits' difference."""
    pipeline.reset()
    encoded = {s: pipeline.encode(given[s], others=[given["depth"]]) for s in given}
    return next(iter(encoded[name].features.values()))  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["aligned", "no calibration", "half the size", "declared aligned"])
def test_aligned_sensors_give_the_same_bits_and_pay_nothing(load, how: str) -> None:  # type: ignore[no-untyped-def]
    given = frame(())
    if how == "no calibration":
        given = Frame({n: replace(s, camera=None) for n, s in given.items()})
    elif how == "half the size":
        half = replace(
            given["thermal"], data=picture("thermal", (16, 32)), camera=CAMERA.scaled(0.5, 0.5)
        )
        given = Frame({**given, "thermal": half})
    elif how == "declared aligned":  # extrinsics that say so, where the one above say nothing
        still = RigidTransform.identity()
        given = Frame(
            {n: replace(s, extrinsics=still if n != "rgb" else None) for n, s in given.items()}
        )
    got, plain = load()(given), load(mode="off")(given)
    assert np.array_equal(got.labels, plain.labels)
    assert np.array_equal(got.confidence, plain.confidence)
    assert got.placed == {} and not got.lines and not any(k.startswith("warp") for k in got.timings)
    assert set(got.timings) == set(plain.timings)


def test_a_camera_elsewhere_is_warped_and_timed(load) -> None:  # type: ignore[no-untyped-def]
    got, plain = load()(frame()), load(mode="off")(frame())
    assert got.placed == {"thermal": "onto rgb by depth"} and plain.placed == {}
    assert got.reference == "rgb" and got.used == ALL and got.lines == ()
    assert 0 < got.timings["warp_thermal"] < got.timings["total"]
    assert "warp_rgb" not in got.timings and "warp_thermal" not in plain.timings
    assert not np.array_equal(got.confidence, plain.confidence)


def test_it_is_as_if_the_picture_had_been_taken_from_there(load) -> None:  # type: ignore[no-untyped-def]
    """A wall at exactly 2 m, whose thermal picture is computed for the other camera, point by point."""
    wall = np.full(GRID, 2.0, np.float32)
    v, u = np.mgrid[: HOT.height, : HOT.width].astype(np.float64)

    def heat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (120 + 40 * np.sin(3 * x) + 30 * np.cos(2 * y)).astype(np.float32)

    points = HOT.unproject(np.column_stack([u.ravel(), v.ravel()]), 2.0) + BESIDE.translation
    seen = heat(points[:, 0], points[:, 1]).reshape(v.shape)
    rv, ru = np.mgrid[: GRID[0], : GRID[1]].astype(np.float64)
    own = CAMERA.unproject(np.column_stack([ru.ravel(), rv.ravel()]), 2.0)
    true = heat(own[:, 0], own[:, 1]).reshape(GRID)
    given = Frame(
        {
            "rgb": sample("rgb"),
            "depth": sample("depth", data=wall),
            "thermal": sample("thermal", moved=True, data=seen),
        }
    )
    aligned = Frame({**given, "thermal": sample("thermal", data=true)})
    wanted = features(load(), aligned)
    for alignment in ({}, {"depth": False, "plane_m": 2.0}):
        pipeline = load(**alignment)
        pipeline(given)
        got = features(pipeline, given)
        # Encoders of the tests look at every eighth pixel: those of the left are not in both pictures.
        assert np.abs(got - wanted)[..., 2:7].max() < 0.02 * np.abs(wanted).max()
    pipeline = load(mode="off")
    assert np.abs(features(pipeline, given) - wanted)[..., 2:7].max() > 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize(
    ("alignment", "line"),
    [
        ({}, "onto rgb, things being far away"),
        ({"plane_m": 4.0}, "onto rgb, things being at 4 m"),
        ({"mode": "off"}, None),
        ({"tolerance_px": 900.0}, None),
    ],
)
def test_without_depth_a_plane_is_taken_and_said(load, alignment, line) -> None:  # type: ignore[no-untyped-def]
    got = load(**alignment)(frame(names=("rgb", "thermal")))
    assert got.placed.get("thermal") == line


def test_depth_that_stands_elsewhere_is_registered_itself(load) -> None:  # type: ignore[no-untyped-def]
    got = load()(frame(("depth", "thermal")))
    assert got.placed == {"depth": "onto rgb by depth", "thermal": "onto rgb by depth"}
    assert got.timings["warp_depth"] > 0


def test_when_the_reference_dies_the_rest_keeps_its_own_pixels(load) -> None:  # type: ignore[no-untyped-def]
    pipeline = load()
    assert pipeline(frame()).labels.shape == GRID
    alone = pipeline(frame(names=("thermal",)))
    assert alone.reference == "thermal" and alone.placed == {} and alone.labels.shape == (60, 80)
    fresh = load()(frame(names=("thermal",)))
    assert np.array_equal(alone.labels, fresh.labels)
    two = pipeline(frame(names=("depth", "thermal")))
    assert two.reference == "depth" and two.placed == {"thermal": "onto depth by depth"}
    assert two.labels.shape == GRID
    assert pipeline(frame()).placed == {"thermal": "onto rgb by depth"}


def test_a_reference_that_is_refused_is_none(load) -> None:  # type: ignore[no-untyped-def]
    black = replace(sample("rgb"), data=np.zeros((*GRID, 3), np.uint8))
    got = load()(Frame({**frame(names=("thermal",)), "rgb": black}))
    assert got.reference == "thermal" and got.health["rgb"] == "dark" and got.placed == {}


def test_another_calibration_is_another_picture(load) -> None:  # type: ignore[no-untyped-def]
    pipeline = load()
    one = pipeline(frame())
    again = pipeline(frame())
    assert np.array_equal(one.confidence, again.confidence)
    turned = RigidTransform.from_quaternion_xyzw([0, 0.05, 0, 1], [0.2, 0, 0])
    for change in ({"extrinsics": turned}, {"camera": replace(HOT, fx=80.0)}):
        given = Frame({**frame(), "thermal": sample("thermal", moved=True, **change)})
        other = pipeline(given)
        assert not np.array_equal(other.confidence, one.confidence)
        assert np.array_equal(other.confidence, load()(given).confidence)
    assert np.array_equal(pipeline(frame()).confidence, one.confidence)
    pipeline.aligner.config = Alignment("off")
    assert pipeline(frame()).placed == {}


def test_what_is_forgotten_places_nothing(load) -> None:  # type: ignore[no-untyped-def]
    """As before another recording without color: thermal is not placed in that of the one before."""
    pipeline, hot = load(), sample("thermal", moved=True)
    assert pipeline(frame()).placed
    pipeline.reset()
    kept = pipeline.encode(hot)
    assert isinstance(kept, Encoded) and kept.view is not None
    pipeline.aligner.forget()
    anew, fresh = pipeline.encode(hot), load().encode(hot)
    assert isinstance(anew, Encoded) and isinstance(fresh, Encoded) and anew.view is None
    for name, value in fresh.features.items():
        assert np.array_equal(anew.features[name], value)


def test_what_is_not_known_is_stretched_and_said_once(load) -> None:  # type: ignore[no-untyped-def]
    pipeline = load()
    bare = sample("thermal", moved=True, extrinsics=None)
    got = pipeline(Frame({**frame(), "thermal": bare}))
    line = (
        "thermal: fx is 0.800 of the width, rgb's 0.938: stretched, as nothing says where it sits"
    )
    assert got.lines == (line,) and got.health["thermal"] == "ok" and got.placed == {}
    assert pipeline(Frame({**frame(), "thermal": bare})).lines == ()
    nothing = replace(bare, camera=None)
    (line,) = pipeline(Frame({**frame(), "thermal": nothing})).lines
    assert (
        line == "thermal: 80x60 pixels, rgb 64x32: stretched, as intrinsics and place are not known"
    )
    assert pipeline(frame()).lines == ()
    assert pipeline(Frame({**frame(), "thermal": nothing})).lines == (line,)


def test_what_looks_elsewhere_is_stretched_and_said(load) -> None:  # type: ignore[no-untyped-def]
    back = RigidTransform(np.diag([-1.0, 1, -1]), np.zeros(3))
    got = load()(Frame({**frame(), "thermal": sample("thermal", moved=True, extrinsics=back)}))
    assert got.lines == ("thermal: looks elsewhere than rgb, and is stretched over its picture",)
    assert got.used == ALL and got.placed == {}


def test_intrinsics_of_another_size_are_refused_as_ever(load) -> None:  # type: ignore[no-untyped-def]
    wrong = sample("thermal", moved=True, camera=CAMERA)
    got = load()(Frame({**frame(), "thermal": wrong}))
    assert got.used == ("rgb", "depth") and got.health["thermal"] == "malformed"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_extrinsics_that_are_none_cannot_be_made(value: float) -> None:
    with pytest.raises(CalibrationError):
        RigidTransform(np.eye(3), np.array([value, 0, 0]))
    with pytest.raises(CalibrationError):
        CameraModel(80, 60, value, 64, 40, 28)


def test_an_empty_picture_is_refused(load) -> None:  # type: ignore[no-untyped-def]
    empty = sample("thermal", moved=True, data=np.zeros((0, 80), np.float32))
    got = load()(Frame({**frame(), "thermal": empty}))
    assert got.used == ("rgb", "depth") and "it is empty" in got.lines[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "on"},
        {"plane_m": 0.0},
        {"plane_m": math.nan},
        {"tolerance_px": 0.0},
        {"tolerance_px": math.inf},
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="alignment"):
        Alignment(**wrong)  # type: ignore[arg-type]


def streamed(pipeline: Pipeline, parallel: bool) -> StreamCore:
    return StreamCore(pipeline, StreamSettings(dict.fromkeys(ALL, TIMING)), parallel=parallel)


def played(core: StreamCore, order: Iterable[str], at: int, seed: int = 0) -> list[Result]:
    """One group, its samples arriving a millisecond after the other; then its deadline."""
    found: list[Result] = []
    now = at
    for name in order:
        now += MS
        core.push(sample(name, at, moved=name == "thermal", seed=seed), now)
        found += core.poll(now)
    return found + core.poll(at + 90 * MS)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("order", [ALL, ("thermal", "depth", "rgb"), ("depth", "thermal", "rgb")])
def test_a_stream_waits_for_the_depth_of_the_same_moment(load, order, parallel) -> None:  # type: ignore[no-untyped-def]
    core, alone = streamed(load(), parallel), load()
    try:
        for index in range(5):
            (got,) = played(core, order, (1 + index) * 100 * MS, index)
            if index == 0:
                continue  # nobody knew yet what stands where
            assert got.placed == {"thermal": "onto rgb by depth"}, index
            alone.reset()
            wanted = alone(frame(seed=index))
            assert np.array_equal(got.labels, wanted.labels)
            assert np.array_equal(got.confidence, wanted.confidence)
            counts = core.report(0)["thermal"]
            assert (
                counts.received
                == counts.used + counts.superseded + counts.rejected + counts.waiting
            )
    finally:
        core.close()


@pytest.mark.parametrize("parallel", [False, True])
def test_a_stream_goes_on_when_depth_or_the_reference_dies(load, parallel) -> None:  # type: ignore[no-untyped-def]
    core = streamed(load(), parallel)
    at = 0

    def settled(*order: str) -> Result:
        """The last result of some groups, in which those that are not there are lost, others trusted."""
        nonlocal at
        found: list[Result] = []
        for _ in range(4):
            at += 150 * MS
            found += played(core, order, at, at)
        return found[-1]

    try:
        settled(*ALL)
        assert settled("thermal", "depth", "rgb").placed == {"thermal": "onto rgb by depth"}
        got = settled("thermal", "rgb")
        assert got.used == ("rgb", "thermal")
        assert got.placed == {"thermal": "onto rgb, things being far away"}
        got = settled("thermal")
        assert got.used == ("thermal",) and got.placed == {} and got.labels.shape == (60, 80)
        got = settled("thermal", "depth", "rgb")
        assert got.reference == "rgb" and got.labels.shape == GRID
        assert got.placed == {"thermal": "onto rgb by depth"}
        for name, counts in core.report(at).items():
            known = counts.used + counts.superseded + counts.rejected + counts.waiting
            assert counts.received == known, name
    finally:
        core.close()


def test_a_stream_takes_over_other_settings(load) -> None:  # type: ignore[no-untyped-def]
    core = streamed(load(), False)
    played(core, ALL, 100 * MS)
    core.configure(StreamSettings(dict.fromkeys(ALL, TIMING), alignment=Alignment("off")))
    (got,) = played(core, ALL, 200 * MS)
    assert got.placed == {}
    core.configure(
        StreamSettings(dict.fromkeys(ALL, TIMING), alignment=Alignment(plane_m=3.0, depth=False))
    )
    (got,) = played(core, ALL, 300 * MS)
    assert got.placed == {"thermal": "onto rgb, things being at 3 m"}


def test_points_of_a_depth_camera_elsewhere_lie_in_the_pixels_of_the_reference(load) -> None:  # type: ignore[no-untyped-def]
    pipeline = load()
    pipeline.wanted = pipeline.parts
    wall = sample("depth", moved=True, data=np.full((60, 80), 2.0, np.float32))
    points = pipeline(Frame({"rgb": sample("rgb"), "depth": wall})).points
    assert points is not None and len(points.points)
    u, v, _ = CAMERA.project_columns(*(points.points + BESIDE.translation.astype(np.float32)).T)
    assert np.abs(points.column - u).max() <= 0.51 and np.abs(points.row - v).max() <= 0.51
    np.testing.assert_allclose(points.optical, points.points + BESIDE.translation, rtol=1e-5)
