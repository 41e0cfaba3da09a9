"""Content faults of every kind: what holds for all of them, on samples and on grids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from perception.corruptions import corrupt, corrupt_grid, faults_of, severity_of
from perception.errors import AnySenseError, ConfigError
from perception.frame import Frame, Sample
from perception.geometry.grid import GridMap
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec
from perception.sensors.faults import SEVERITIES
from perception.sensors.kind import Grid
from perception.sensors.names import OURS
from perception.sensors.registry import KINDS, kind_of

OWN = [(kind, fault) for kind in OURS for fault in KINDS[kind].faults]
ALL = [(kind, fault) for kind in OURS for fault in faults_of(kind)]
GRIDS = [
    {"height": 96, "width": 128},  # smaller
    {"height": 128, "width": 96, "fit": "letterbox"},  # smaller, padded
    {"height": 352, "width": 416},  # larger, another aspect ratio
    {"height": 480, "width": 480, "fit": "letterbox"},  # larger, padded
    {"height": 192, "width": 512},  # smaller one way, larger the other
]


def _spec(kind: str, grid: dict[str, Any]) -> InputSpec:
    return InputSpec.model_validate({"kind": kind, "view": dict(grid)})


def _identity(sample: Sample) -> dict[str, Any]:
    height, width = kind_of(sample.kind).source_size(sample) or (0, 0)
    return {"height": height, "width": width}


def _numbered(sample: Sample) -> Sample:
    """A cloud whose last column says which point is which, to tell them apart when some are gone."""
    if sample.kind != "lidar":
        return sample
    number = np.arange(len(sample.data), dtype=np.float32)[:, None]
    return replace(sample, data=np.hstack([sample.data[:, :4], number]))


def _telling(sample: Sample, fault: str) -> list[Sample]:
    """Samples in which all that the fault changes shows: extrinsics to be wrong, slopes to be moved."""
    sample = _numbered(sample)
    if sample.extrinsics is None:
        sample = replace(sample, extrinsics=RigidTransform.identity())
    if fault != "misalignment" or sample.kind == "lidar":
        return [sample]
    slopes = np.mgrid[: sample.data.shape[0], : sample.data.shape[1]].astype(sample.data.dtype)
    pictures = [np.stack([s] * 3, -1) if sample.data.ndim == 3 else s for s in slopes]
    return [replace(sample, data=picture) for picture in pictures]


def _distance(clean: Sample, spoilt: Sample) -> float:
    """How far a sample is from the clean one, in its unit.

    Mean difference of pixels or points; what is lost counts as much as the farthest value there is, and
    for a cloud also the mean difference of intensities.  Stamps, cameras and extrinsics as they are.
    """
    moved = abs((spoilt.stamp_ns or 0) - (clean.stamp_ns or 0)) / 1e9
    if clean.extrinsics is not None and spoilt.extrinsics is not None:
        moved += float(np.abs(clean.extrinsics.rotation - spoilt.extrinsics.rotation).max())
    if clean.camera is not None and spoilt.camera is not None:
        moved += float(
            np.hypot(clean.camera.cx - spoilt.camera.cx, clean.camera.cy - spoilt.camera.cy)
        )
    a, b = clean.data.astype(np.float64), spoilt.data.astype(np.float64)
    if clean.kind == "lidar":
        far = np.linalg.norm(a[:, :3], axis=1)
        apart, faded = far.copy(), np.zeros(len(a))
        rows = b[:, 4].astype(int)
        apart[rows] = np.linalg.norm(a[rows, :3] - b[:, :3], axis=1)
        faded[rows] = np.abs(a[rows, 3] - b[:, 3])
        return moved + float(apart.mean()) + float(faded.mean())
    known = np.isfinite(a)
    most = np.abs(a[known]).max()
    with np.errstate(invalid="ignore"):
        apart = np.where(np.isfinite(b), np.abs(a - b), most)
    return moved + float(apart[known].mean())


@pytest.mark.parametrize(("kind", "fault"), ALL)
def test_the_same_seed_gives_the_same_and_nothing_else_changes(
    kind: str, fault: str, frame: Frame
) -> None:
    clean = frame[kind]
    before = clean.data.copy()
    first, again = (corrupt(clean, fault, 4, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.data, again.data)
    np.testing.assert_array_equal(clean.data, before)
    assert first.stamp_ns == again.stamp_ns
    assert first.data.dtype == before.dtype and first.data.ndim == before.ndim
    assert first.data.shape[1:] == before.shape[1:]
    if kind != "lidar":
        assert first.data.shape == before.shape
    for name in ("kind", "sensor", "unit", "encoding", "frame_id"):
        assert getattr(first, name) == getattr(clean, name)


@pytest.mark.parametrize(("kind", "fault"), ALL)
@pytest.mark.parametrize("seed", range(3))
def test_a_higher_severity_is_farther_from_clean(
    kind: str, fault: str, seed: int, frame: Frame
) -> None:
    found = [
        sum(
            _distance(clean, corrupt(clean, fault, s, seed))
            for clean in _telling(frame[kind], fault)
        )
        for s in SEVERITIES
    ]
    assert found[0] > 0
    severity = severity_of(kind, fault)
    assert severity is not None
    if len(set(severity.amounts)) == 1:
        assert len(set(found)) == 1
    else:
        assert found == sorted(found) and len(set(found)) == len(found)


@pytest.mark.parametrize(("kind", "fault"), ALL)
def test_what_is_spoilt_can_be_read_as_before(kind: str, fault: str, frame: Frame) -> None:
    own, spec = kind_of(kind), _spec(kind, GRIDS[0])
    for severity in SEVERITIES:
        sample = corrupt(frame[kind], fault, severity)
        if fault == "dark" and kind == "lidar":
            continue  # nothing is left to be read
        own.validate(sample)
        grid = own.resample(sample, spec)
        out = {
            n: np.empty(t.shape, t.dtype)
            for n, t in own.tensors(spec.preprocess, spec.view).items()
        }
        own.normalize(grid, spec, out)
        assert all(np.isfinite(array).all() for array in out.values())


def _degenerate(kind: str) -> list[NDArray[Any]]:
    if kind == "rgb":
        return [
            np.full(s, 7, np.uint8) for s in ((1, 1, 3), (1, 5, 3), (3, 1, 3), (0, 0, 3), (0, 4, 3))
        ]
    if kind == "lidar":
        nothing, far = np.zeros((3, 4), np.float32), np.full((2, 4), 1e30, np.float32)
        clouds = [np.zeros((0, 4)), np.full((5, 3), np.nan), nothing, far, far.astype(np.float64)]
        return [*clouds, np.ones((1, 3)), np.full((2, 4), np.inf), np.zeros((0, 3))]
    shapes = ((1, 1), (1, 5), (3, 1), (0, 0), (4, 0), (33, 47))
    return [
        np.full(s, v, np.float32) for s in shapes for v in (np.nan, np.inf, -np.inf, 0.0, 300.0)
    ]


@pytest.mark.parametrize(("kind", "fault"), ALL)
@pytest.mark.parametrize("severity", (1, 5))
@pytest.mark.filterwarnings("error")
def test_degenerate_samples_come_back_as_such(kind: str, fault: str, severity: int) -> None:
    for data in _degenerate(kind):
        for unit in kind_of(kind).units or ("",):
            out = corrupt(Sample(kind, data, unit=unit), fault, severity, seed=1)
            assert out.data.dtype == data.dtype and out.data.shape[1:] == data.shape[1:]
            assert kind == "lidar" or out.data.shape == data.shape


@st.composite
def _any_sample(draw: st.DrawFn) -> Sample:
    """Any values in any layout, as drivers and slices of arrays give them."""
    kind = draw(st.sampled_from(OURS))
    height, width = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = np.uint8 if kind == "rgb" else draw(st.sampled_from([np.float32, np.float64]))
    dtype = np.float32 if kind in ("depth", "thermal") else dtype
    shape = {"rgb": (height, width, 3), "lidar": (height * width, draw(st.integers(3, 6)))}
    data = rng.integers(0, 256, shape.get(kind, (height, width))).astype(dtype)
    if kind != "rgb":
        strange = draw(st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e38, 1e-38]))
        data[rng.random(data.shape) < draw(st.sampled_from([0.0, 0.1, 0.9]))] = strange
    layout = draw(st.sampled_from(["as it is", "turned", "every other", "Fortran", "read-only"]))
    if layout == "turned":
        data = data[::-1]
    elif layout == "every other":
        data = np.repeat(data, 2, axis=0)[::2]
    elif layout == "Fortran":
        data = np.asfortranarray(data)
    elif layout == "read-only":
        data.setflags(write=False)
    return Sample(kind, data, unit="counts8" if kind == "thermal" else "")


@given(_any_sample(), st.data(), st.integers(1, 5), st.integers(0, 2**40))
@settings(max_examples=400)
def test_any_values_in_any_layout(
    sample: Sample, data: st.DataObject, severity: int, seed: int
) -> None:
    fault = data.draw(st.sampled_from(faults_of(sample.kind)))
    before = sample.data.copy()
    with np.errstate(all="ignore"):
        first, again = (corrupt(sample, fault, severity, seed) for _ in range(2))
    np.testing.assert_array_equal(sample.data, before)
    np.testing.assert_array_equal(first.data, again.data)
    assert first.data.dtype == before.dtype and first.data.shape[1:] == before.shape[1:]
    if sample.kind == "thermal" and fault in KINDS["thermal"].faults:
        known = first.data[np.isfinite(first.data)]
        assert not known.size or 0 <= known.min() <= known.max() <= 255


def _degenerate_grids(kind: str) -> list[Grid]:
    """Nothing known, and a picture of one row in a grid that is mostly padding."""
    if kind == "lidar":
        nothing = np.zeros((32, 32), np.float32)
        names = ("range_m", "intensity", "height_m")
        layers = {**dict.fromkeys(names, nothing), "valid": nothing > 0}
        one = {n: layer.copy() for n, layer in layers.items()}
        for layer in one.values():
            layer[3, 4] = 1
        return [Grid(layers), Grid(one)]
    shape, dtype = ((32, 64, 3), np.uint8) if kind == "rgb" else ((32, 64), np.float32)
    values = np.full(shape, 9 if kind == "rgb" else np.nan).astype(dtype)
    maps = (None, GridMap((1, 500), (32, 64), (1, 64)), GridMap((700, 1), (32, 64), (32, 1)))
    return [Grid({"image": values}, "kelvin", own) for own in maps]


@pytest.mark.parametrize(("kind", "fault"), OWN)
@pytest.mark.filterwarnings("error")
def test_degenerate_grids(kind: str, fault: str) -> None:
    for grid in _degenerate_grids(kind):
        for severity in (1, 5):
            out = corrupt_grid(kind, grid, fault, severity)
            assert set(out.layers) == set(grid.layers) and out.unit == grid.unit
            for name, layer in grid.layers.items():
                assert out.layers[name].dtype == layer.dtype
                assert out.layers[name].shape == layer.shape


def test_intensities_stay_in_the_sensors_own_counts() -> None:
    cloud = np.random.default_rng(0).uniform(1, 60, (200, 4)).astype(np.float32)
    cloud[:, 3] = np.arange(200)
    weaker = corrupt(Sample("lidar", cloud), "intensity_gain", 2)
    np.testing.assert_allclose(weaker.data[:, 3], 0.6 * cloud[:, 3], rtol=1e-5)
    cloud[7, 3] = np.nan
    known = np.arange(200) != 7
    weaker = corrupt(Sample("lidar", cloud), "intensity_gain", 2)
    np.testing.assert_allclose(weaker.data[known, 3], 0.6 * cloud[known, 3], rtol=1e-5)


def _both_ways(clean: Sample, fault: str, grid: dict[str, Any]) -> tuple[Grid, Grid, Grid]:
    """On the grid: clean, spoilt as a sample, and spoilt there."""
    own, spec = kind_of(clean.kind), _spec(clean.kind, grid)
    there = own.resample(clean, spec)
    first = own.resample(corrupt(clean, fault, 3, seed=5), spec)
    return there, first, corrupt_grid(clean.kind, there, fault, 3, seed=5)


@pytest.mark.parametrize(("kind", "fault"), [k for k in OWN if k[0] != "lidar"])
@pytest.mark.parametrize("grid", [None, *GRIDS], ids=str)
def test_pictures_are_the_same_whether_spoilt_before_or_after_resampling(
    kind: str, fault: str, grid: dict[str, Any] | None, frame: Frame
) -> None:
    clean = frame[kind]
    there, before, after = _both_ways(clean, fault, grid or _identity(clean))
    a, b, none = (g.image.astype(np.float64) for g in (before, after, there))
    assert before.image.dtype == after.image.dtype
    severity = severity_of(kind, fault)
    assert severity is not None
    if kind == "depth" or grid is None:  # pixels are taken as they are: the same to the last bit
        np.testing.assert_array_equal(before.image, after.image)
        return
    np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b))
    inside = np.isfinite(none) & np.isfinite(a)
    step = 1.0 if kind == "rgb" else 1e-4
    if severity.layers == "equal":  # two roundings of half a step each, the first then scaled
        assert np.abs(a - b)[inside].max() <= 2 * step
        return
    apart, moved = np.abs(a - b)[inside].mean(), np.abs(a - none)[inside].mean()
    assert apart <= 0.2 * moved + step


@pytest.mark.parametrize("fault", KINDS["rgb"].faults)
def test_padding_stays_padding(fault: str, frame: Frame) -> None:
    _, before, after = _both_ways(frame["rgb"], fault, GRIDS[3])
    assert not before.image[361:].any() and not after.image[361:].any()


def _at_one_place(cloud: Sample) -> Sample:
    """The LiDAR sits in the camera: noise along the ray then moves no point to another pixel."""
    assert cloud.extrinsics is not None
    return replace(cloud, extrinsics=RigidTransform(cloud.extrinsics.rotation, np.zeros(3)))


def _one_a_pixel(cloud: Sample, grid: dict[str, Any]) -> Sample:
    index = kind_of(cloud.kind).resample(cloud, _spec(cloud.kind, grid)).own.index
    return replace(cloud, data=cloud.data[np.sort(index[index >= 0])])


@pytest.mark.parametrize("fault", KINDS["lidar"].faults)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_points_fare_the_same_before_and_after_projection(
    fault: str, grid: dict[str, Any], frame: Frame
) -> None:
    """Of a cloud with one point a pixel, seen from where the LiDAR is, everything is equal."""
    if fault == "dark":
        return
    clean = _one_a_pixel(_at_one_place(frame["lidar"]), grid)
    _, before, after = _both_ways(clean, fault, grid)
    same = before.layers["valid"] == after.layers["valid"]
    assert same.mean() > 0.9999  # rounding puts a point in the next beam, or the next pixel
    for name in ("range_m", "intensity", "height_m"):
        np.testing.assert_allclose(
            before.layers[name][same], after.layers[name][same], rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("fault", KINDS["lidar"].faults)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_what_is_gone_from_a_cloud_uncovers_what_is_behind(
    fault: str, grid: dict[str, Any], frame: Frame
) -> None:
    """In general the pixels' returns are the same where they are left; elsewhere a farther one may show."""
    severity = severity_of("lidar", fault)
    assert severity is not None
    if severity.layers == "distribution" or fault == "dark":
        return
    there, before, after = _both_ways(frame["lidar"], fault, grid)
    left = after.layers["valid"]
    assert (before.layers["valid"] | ~left).mean() > 0.9999
    both = left & before.layers["valid"]
    close = np.isclose(before.layers["range_m"][both], after.layers["range_m"][both], rtol=1e-5)
    assert close.mean() > 0.999
    new = before.layers["valid"] & ~left
    farther = before.layers["range_m"][new] >= there.layers["range_m"][new] * (1 - 1e-5)
    assert farther.all()


@pytest.mark.parametrize("fault", [f for k, f in OWN if k == "lidar"])
def test_faults_that_move_points_agree_in_distribution(fault: str, frame: Frame) -> None:
    severity = severity_of("lidar", fault)
    assert severity is not None
    if severity.layers != "distribution":
        return
    own, spec = kind_of("lidar"), _spec("lidar", GRIDS[2])
    clean = frame["lidar"]
    there = own.resample(clean, spec)
    before = own.resample(corrupt(clean, fault, 2, seed=3), spec)
    after = corrupt_grid("lidar", there, fault, 2, seed=4)
    ranges = [g.layers["range_m"][g.layers["valid"]] for g in (there, before, after)]
    assert len(ranges[1]) == pytest.approx(len(ranges[2]), rel=0.1)
    shares = np.linspace(0.05, 0.95, 19)
    quantiles = [np.quantile(r, shares) for r in ranges]
    np.testing.assert_allclose(quantiles[1], quantiles[2], rtol=0.1)


@pytest.mark.parametrize("kind", OURS)
def test_dark_and_saturated_are_what_health_calls_so(kind: str, frame: Frame) -> None:
    from perception.runtime.health import HealthMonitor

    for fault in {"dark", "saturated"} & set(faults_of(kind)):
        assert HealthMonitor().check(corrupt(frame[kind], fault)) == fault
    assert HealthMonitor().check(frame[kind]) == "ok"


@pytest.mark.parametrize(("kind", "fault"), ALL)
def test_severities_have_a_unit_a_text_and_a_source(kind: str, fault: str) -> None:
    severity = severity_of(kind, fault)
    assert severity is not None and severity.text and severity.source
    amounts = list(severity.amounts)
    assert amounts in (sorted(amounts), sorted(amounts, reverse=True))
    assert severity.unit or len(set(amounts)) == 1


@pytest.mark.parametrize("kind", OURS)
def test_every_kind_of_ours_has_what_benchmarks_of_failing_sensors_ask_for(
    kind: str, frame: Frame
) -> None:
    found = {fault: severity_of(kind, fault) for fault in faults_of(kind)}
    of = {s.scenario: fault for fault, s in found.items() if s is not None and s.scenario}
    assert set(of) == {"missing", "noise"}
    assert sum(s is not None and s.scenario != "" for s in found.values()) == 2
    missing = found[of["missing"]]
    assert missing is not None and {0.1, 0.3, 0.5} <= set(missing.amounts) and not missing.still
    clean = frame[kind]
    for severity in SEVERITIES:
        gone = []
        for seed in range(4):
            spoilt = corrupt(clean, of["missing"], severity, seed)
            if kind == "lidar":
                gone.append(1 - len(spoilt.data) / np.isfinite(clean.data[:, 0]).sum())
                continue
            lost = ~np.isfinite(spoilt.data) if kind != "rgb" else ~spoilt.data.any(axis=2)
            gone.append(lost.mean())
        before = 0.0
        if kind != "lidar":
            before = (~np.isfinite(clean.data) if kind != "rgb" else ~clean.data.any(axis=2)).mean()
        share = missing.at(severity)
        assert np.mean(gone) == pytest.approx(share + (1 - share) * before, abs=0.02)


def test_what_is_refused(frame: Frame) -> None:
    with pytest.raises(ConfigError, match="motion_blur") as caught:
        corrupt(frame["rgb"], "motion_blurr")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="on their way"):
        corrupt(frame["rgb"], "frozen")
    for severity in (0, 6, True, 2.5):
        with pytest.raises(AnySenseError, match="1 to 5"):
            corrupt(frame["rgb"], "noise", severity)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        faults_of("sonar")
    with pytest.raises(ConfigError, match="of samples"):
        corrupt_grid("rgb", Grid({"image": frame["rgb"].data}), "time_skew")
