"""Counts to kelvin, and what pixels are worth, with known truth; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thermal_scenes import SHAPE, B, F, O, R, Sensor, planck, points, write_table

from calibration.values.correction import BAD, Correction, Curve, PixelMaps
from calibration.values.curves import FORMS, fit_curve
from calibration.values.files import Entry, Kelvin, SensorValues, load_correction, write_values
from calibration.values.flatfield import Flat, FlatField, flat_field, read_counts, read_flat
from calibration.values.points import read_points
from calibration.values.thermal import calibrate_counts
from perception.errors import CalibrationError, ConfigError, InputError
from perception.frame import Sample


def test_the_curve_is_found_with_its_sigma() -> None:
    inside, models = [], []
    for seed in range(25):
        found = calibrate_counts(points(12, seed=seed))
        at = np.linspace(*found.curve.counts, 5)
        off = found.curve.kelvin(at) - B / np.log(R / (at + O) + F)
        inside.append(np.abs(off) < 2 * found.fit.sigma_at(at))
        models.append(found.curve.model)
        assert found.trusted and np.abs(off).max() < 0.5
    assert 0.85 <= np.mean(inside) <= 1.0
    assert models.count("planck") >= 22


def test_a_line_stays_a_line() -> None:
    models = [calibrate_counts(points(12, seed=seed, line=True)).curve.model for seed in range(25)]
    assert models.count("linear") >= 22


@given(
    kelvin=st.floats(200, 800),
    b=st.floats(1200, 4500),
    f=st.floats(0.6, 1.6),
    o=st.floats(-5000, 5000),
)
def test_the_curve_is_the_inverse_of_plancks_law(
    kelvin: float, b: float, f: float, o: float
) -> None:
    curve = Curve("planck-f", {"R": 4e5, "B": b, "O": o, "F": f}, (0.0, 65535.0))
    counts = np.array([4e5 / (np.exp(b / kelvin) - f) - o])
    assert np.isclose(curve.kelvin(counts)[0], kelvin, rtol=1e-5)


def test_no_temperature_is_nan_not_a_number_out_of_the_blue() -> None:
    curve = Curve("planck", {"R": R, "B": B, "O": O, "F": F}, (2000.0, 9000.0))
    assert np.isnan(curve.kelvin(np.array([342.0, 0.0, np.nan]))).all()
    assert np.isnan(
        Curve("linear", {"gain": 1.0, "offset": -10.0}, (0.0, 9.0)).kelvin(np.array([5.0]))
    ).all()


def test_a_point_that_is_wrong_is_left_out_and_named() -> None:
    given_points = points(14, seed=3)
    kelvin = given_points.kelvin.copy()
    kelvin[6] += 15
    found = calibrate_counts(replace(given_points, kelvin=kelvin))
    assert list(found.left_out) == ["line 8"] and found.trusted
    assert abs(found.curve.kelvin(planck(np.array([320.0])))[0] - 320) < 0.5


def test_points_that_do_not_agree_are_not_trusted() -> None:
    found = calibrate_counts(points(12, noise_k=6.0))
    assert not found.trusted and any("not fitted" in doubt for doubt in found.doubts)
    assert calibrate_counts(points(12, noise_k=6.0), tolerance_k=30.0).trusted


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"count": 3}, "3 points, 4 are needed"),
        ({"count": 8, "low": 300.0, "high": 302.0}, "within .* K"),
    ],
)
def test_too_little_is_refused(change: dict, problem: str) -> None:
    with pytest.raises(CalibrationError, match=problem):
        calibrate_counts(points(**change))


def test_counts_that_do_not_follow_are_refused() -> None:
    given_points = points(12)
    mixed = given_points.counts[np.random.default_rng(1).permutation(12)]
    with pytest.raises(CalibrationError, match="do not follow"):
        calibrate_counts(replace(given_points, counts=mixed))
    with pytest.raises(ConfigError, match="did you mean 'planck'"):
        calibrate_counts(given_points, "plank")


def test_every_form_goes_through_its_own_points() -> None:
    exact = points(9, noise_k=0.0)
    for name in ("planck", "planck-f"):
        fit = fit_curve(FORMS[name], exact)
        assert np.abs(fit.residuals).max() < 1e-2, name
    assert (
        np.abs(fit_curve(FORMS["linear"], points(9, noise_k=0.0, line=True)).residuals).max() < 1e-6
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("counts,kelvin\n5000,25\n", ":2: 25 kelvin is no temperature.*celsius"),
        ("counts,kelvin\n5000,warm\n", ":2: kelvin is 'warm'"),
        ("counts,kelvin\nnan,300\n", ":2: counts is 'nan'"),
        ("counts,kelvin\n", "has no points"),
        ("a,b\n1,2\n", "no table of reference points.*header must name counts"),
        ("picture,x,y,width,height,celsius\na.png,0,0,999,2,20\n", ":2: the region ends at 999, 2"),
        ("picture,x,y,width,height,celsius\na.png,-1,0,2,2,20\n", "no region"),
        ("picture,x,y,width,height,celsius\nb.png,0,0,2,2,20\n", "b.png"),
        ("counts,kelvin,sigma_kelvin\n5,300,-1\n", "sigma_kelvin"),
    ],
)
def test_tables_that_cannot_be_used_name_the_line(tmp_path: Path, text: str, problem: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((20, 30), 5000, np.uint16))
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(Exception, match=problem) as caught:
        read_points(path)
    assert "\n" not in str(caught.value)


def test_tables_of_counts_and_of_regions_are_read(tmp_path: Path) -> None:
    image = np.full((20, 30), 5000, np.uint16)
    image[5:10, 5:10] = 7000
    image[6, 6] = 60000
    cv2.imwrite(str(tmp_path / "a.png"), image)
    path = tmp_path / "regions.csv"
    path.write_text("picture;x;y;width;height;celsius\na.png;5;5;5;5;40\na.png;20;12;8;8;20\n")
    found = read_points(path)
    assert found.counts.tolist() == [7000, 5000] and np.allclose(found.kelvin, [313.15, 293.15])
    again = read_points(write_table(tmp_path / "points.csv", points(5)))
    assert np.allclose(again.counts, points(5).counts, atol=1e-3)
    evened = read_points(path, lambda counts: counts.astype(np.float32) + 10)
    assert evened.counts.tolist() == [7010, 5010]


@pytest.fixture(scope="module")
def flats(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sensor, FlatField, FlatField]:
    folder, sensor = tmp_path_factory.mktemp("flats"), Sensor(7)
    cold = read_flat(sensor.write_flat(folder / "cold", 3000.0, seed=1))
    hot = read_flat(sensor.write_flat(folder / "hot", 4000.0, seed=2))
    return sensor, flat_field([hot, cold]), flat_field([cold])


def test_bad_pixels_are_found_and_what_is_wrong_with_them(
    flats: tuple[Sensor, FlatField, FlatField],
) -> None:
    sensor, two, one = flats
    truth, found = sensor.bad > 0, two.maps.bad > 0
    recall, precision = (truth & found).sum() / truth.sum(), (truth & found).sum() / found.sum()
    assert recall >= 0.97 and precision >= 0.95
    same = two.maps.bad[truth] == sensor.bad[truth]
    assert same.mean() > 0.95
    assert not two.doubts and not two.remarks
    assert any("second one" in remark for remark in one.remarks)


def test_a_third_temperature_is_even_down_to_the_noise(
    flats: tuple[Sensor, FlatField, FlatField],
) -> None:
    sensor, two, one = flats
    new = sensor.frame(3600.0, np.random.default_rng(5))
    good = sensor.bad == 0
    before, after = float(new[good].std()), float(two.maps.even(new)[good].std())
    assert before > 100 and after < 1.15 * 3.0
    assert after < float(one.maps.even(new)[good].std()), "offsets alone leave the gains"
    assert np.abs(two.maps.even(new)[~good] - two.maps.even(new)[good].mean()).max() < 5 * 3.0
    assert abs(two.noise - 3.0) < 0.15


def test_drift_is_told(tmp_path: Path) -> None:
    folder = Sensor(8).write_flat(tmp_path / "cold", 3000.0, drift=40.0)
    found = flat_field([read_flat(folder)])
    assert abs(found.drift[0] - 40 * 15 / 16) < 2 and "warm up" in found.remarks[0]
    assert abs(found.noise - 3.0) < 0.15, "drift is no noise"


def test_what_is_no_uniform_surface_is_refused(tmp_path: Path) -> None:
    sensor = Sensor(9)
    y, x = np.indices(SHAPE)
    scene = 3000 + 400.0 * ((x // 30 + y // 30) % 2)
    rng = np.random.default_rng(2)
    (tmp_path / "scene").mkdir()
    for index in range(8):
        cv2.imwrite(str(tmp_path / "scene" / f"{index}.png"), sensor.frame(scene, rng))
    with pytest.raises(CalibrationError, match="scene: does not show a uniform surface"):
        flat_field([read_flat(tmp_path / "scene")])
    cold = read_flat(sensor.write_flat(tmp_path / "cold", 3000.0))
    same = read_flat(sensor.write_flat(tmp_path / "same", 3001.0, seed=3))
    with pytest.raises(CalibrationError, match="differ by .* two temperatures"):
        flat_field([cold, same])
    with pytest.raises(CalibrationError, match="several sizes"):
        flat_field([cold, replace(same, mean=same.mean[:50])])


def test_folders_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    sensor = Sensor(1)
    few = sensor.write_flat(tmp_path / "few", 3000.0, count=3)
    with pytest.raises(CalibrationError, match="3 pictures of a uniform surface, 4 are needed"):
        read_flat(few)
    image = sensor.frame(3000.0, np.random.default_rng(0))
    (tmp_path / "same").mkdir()
    for index in range(5):
        cv2.imwrite(str(tmp_path / "same" / f"{index}.png"), image)
    with pytest.raises(CalibrationError, match="all pictures are the same"):
        read_flat(tmp_path / "same")
    cv2.imwrite(str(tmp_path / "same" / "9.png"), image[:50])
    with pytest.raises(CalibrationError, match="is 160x50, others 160x120"):
        read_flat(tmp_path / "same")


def test_values_are_written_read_and_applied(
    tmp_path: Path, flats: tuple[Sensor, FlatField, FlatField]
) -> None:
    sensor, two, _ = flats
    level = 5000 + 3600.0
    curve = Kelvin(
        model="linear", parameters={"gain": 0.04, "offset": -50.0}, counts=(8000.0, 9000.0)
    )
    path = tmp_path / "values.yaml"
    write_values(path, {"thermal": Entry(SensorValues(kind="thermal", kelvin=curve), two.maps)})
    other = SensorValues(kind="depth", metres={"coefficients": (0.0, 1.1), "range_m": (0.5, 3.0)})
    write_values(path, {"depth": Entry(other)})
    found = load_correction(path, "thermal")
    sample = Sample(
        "thermal",
        sensor.frame(3600.0, np.random.default_rng(6)).astype(np.float32),
        unit="counts16",
    )
    done = found.apply(sample)
    assert done.unit == "kelvin" and abs(float(done.data.mean()) - (0.04 * level - 50)) < 5
    assert float(done.data.std()) < 0.2
    with pytest.raises(InputError, match="applied twice"):
        found.apply(done)
    assert load_correction(path, "depth").polynomial == (0.0, 1.1)
    with pytest.raises(CalibrationError, match="has several sensors"):
        load_correction(path)
    with pytest.raises(CalibrationError, match="no values of 'depht'.*did you mean 'depth'"):
        load_correction(path, "depht")
    (tmp_path / "values.thermal.npz").write_bytes(b"PK")
    with pytest.raises(CalibrationError, match="not the archive"):
        load_correction(path, "thermal")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        ("schema: 2\nsensors: {}\n", "schema"),
        ("schema: 1\nsensors: {a: {kind: lidar}}\n", "no kind 'lidar'"),
        ("schema: 1\nsensors: {a: {kind: thermal, kelvn: 1}}\n", "kelvn: no such field"),
        (
            "schema: 1\nsensors: {a: {kind: thermal, pixels: {file: ../x.npz, sha256: '0'}}}\n",
            "no name of a file beside it",
        ),
        ("schema: 1\nsensors: {a: {kind: thermal, pixels: {file: x.npz, sha256: '0'}}}\n", "x.npz"),
        (
            "schema: 1\nsensors: {a: {kind: thermal, kelvin: {model: cubic, parameters: {}, counts: [0, 1]}}"
            "}",
            "no curve 'cubic'",
        ),
    ],
)
def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(CalibrationError, match=problem) as caught:
        load_correction(path)
    assert "\n" not in str(caught.value)


def test_bad_pixels_in_corners_and_clusters_are_filled_from_good_ones() -> None:
    bad = np.zeros((6, 8), np.uint8)
    bad[0, 0] = bad[0, 1] = bad[1, 0] = bad[1, 1] = 1
    bad[4, 4] = 3
    maps = PixelMaps(np.ones(bad.shape, np.float32), np.zeros(bad.shape, np.float32), bad)
    counts = np.where(bad > 0, 60000, 100 + np.arange(48).reshape(6, 8)).astype(np.uint16)
    done = maps.even(counts)
    assert done.max() < 200 and done[4, 4] == 136 and (done[bad == 0] == counts[bad == 0]).all()
    whole = PixelMaps(maps.gain, maps.offset, np.ones_like(bad))
    assert (whole.even(counts) == counts).all(), "nothing to fill them from"
    with pytest.raises(InputError, match="picture of 3x2"):
        maps.even(counts[:2, :3])
    with pytest.raises(CalibrationError, match="expected one"):
        PixelMaps(maps.gain[:2], maps.offset, bad)
    assert (
        Correction("thermal", None, maps=maps)
        .apply(Sample("thermal", counts.astype(np.float32), unit="counts16"))
        .unit
        == "counts16"
    )
    assert set(BAD.values()) == {"dead", "stuck", "hot", "cold", "noisy"}


@pytest.mark.realdata
def test_real_pictures_are_evened_and_told_from_uniform_surfaces(real_data: Path) -> None:
    """Six scenes of a radiometric camera: none is a uniform surface; a pattern laid on them is taken out."""
    files = sorted((real_data / "thermal_radiometric/thermal").glob("*.tiff"))
    scenes = [read_counts(path).astype(np.float64) for path in files]
    assert len(scenes) == 6 and scenes[0].shape == (512, 640)
    rng = np.random.default_rng(4)
    for scene in scenes:
        frames = scene + rng.normal(0, 3, (6, *scene.shape))
        mean, noise = frames.mean(axis=0), frames.std(axis=0, ddof=1)
        flat = Flat(
            "scene", mean.astype(np.float32), noise.astype(np.float32), mean < 0, np.full(6, 5e3)
        )
        with pytest.raises(CalibrationError, match="does not show a uniform surface"):
            flat_field([flat])
    gain, offset = (
        1 + 0.02 * rng.standard_normal(scene.shape),
        15 * rng.standard_normal(scene.shape),
    )
    bad = (rng.random(scene.shape) < 0.001).astype(np.uint8)
    maps = PixelMaps((1 / gain).astype(np.float32), (-offset / gain).astype(np.float32), bad)
    for scene in scenes:
        raw = np.where(bad > 0, 65535, gain * scene + offset).round().clip(0, 65535)
        even = maps.even(raw.astype(np.uint16))
        assert np.abs(even - scene)[bad == 0].max() < 1 < np.abs(raw - scene)[bad == 0].mean()
        assert np.median(np.abs(even - scene)[bad > 0]) < 10
