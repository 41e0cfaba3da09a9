"""A kind of sensor that another distribution brings: points with speeds, which no kind of ours has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_bundles import SmallBundles

from perception import Pipeline, Stream, sample_of
from perception.bags.messages import ROSBAGS
from perception.corruptions import corrupt, faults_of
from perception.data import open_recording
from perception.data.check import check_folder
from perception.data.folder import FolderWriter, folder_info
from perception.errors import AnySenseError, BlindError, CalibrationError, EncodingError, InputError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.preprocess.sample import preprocess_sample
from perception.sensors.registry import kind_of
from perception.sensors.samples import to_sample

pytestmark = pytest.mark.usefixtures("brought")

CAMERA = CameraModel(96, 64, fx=80.0, fy=80.0, cx=47.5, cy=31.5)
AHEAD = RigidTransform(np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]), np.zeros(3))


def sample(points: Any, **changes: Any) -> Sample:
    data = np.array(points, np.float32)
    return Sample("radar", data, **{"camera": CAMERA, "extrinsics": AHEAD, **changes})


def test_an_input_of_the_kind_is_one_of_a_contract() -> None:
    contract = PreprocessContract.model_validate(
        {"modalities": ["rgb", "radar"], "grid": {"height": 64, "width": 96}}
    )
    assert contract.names == ("rgb", "radar")
    assert contract["radar"].view.type == "projection"
    assert contract["radar"].preprocess.max_speed_mps == 20.0
    assert PreprocessContract.model_validate(contract.model_dump()) == contract
    with pytest.raises(ValueError, match="max_speed"):
        PreprocessContract.model_validate(
            {"modalities": ["radar"], "radar": {"max_speed_mps": -1.0}}
        )


def test_the_nearer_of_two_returns_is_seen_where_the_camera_sees_it() -> None:
    spec = InputSpec(kind="radar", view={"height": 64, "width": 96}, preprocess={"spread_px": 0})
    given = sample([[20, 0, 0, -5, 15], [10, 0, 0, 8, 30], [10, -2, 0.5, -20, -3]])
    image = preprocess_sample(given, spec)["image"][0]
    assert image.shape == (4, 64, 96) and image[3].sum() == 2
    assert image[:, 32, 48] == pytest.approx([0.8, 0.4, 1.0, 1.0])
    column, row = round(47.5 + 80 * 2 / 10), round(31.5 - 80 * 0.5 / 10)
    assert image[1, row, column] == -1.0 and image[2, row, column] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("points", "changes", "error"),
    [
        (np.zeros((0, 5)), {}, BlindError),
        (np.full((3, 5), np.nan), {}, BlindError),
        (np.ones((3, 4)), {}, InputError),
        (np.ones((3, 5)), {"camera": None}, CalibrationError),
        ([[-5, 0, 0, 0, 0]], {}, InputError),  # behind the camera
        ([[np.inf, 1, 1, 1, 1]], {}, BlindError),
        ([[1e30, 1, 1, 1e38, np.nan]], {}, InputError),
    ],
)
def test_bad_input_is_one_line(
    points: Any, changes: dict[str, Any], error: type[Exception]
) -> None:
    spec = InputSpec(kind="radar", view={"height": 64, "width": 96})
    with pytest.raises(error) as caught:
        preprocess_sample(sample(points, **changes), spec)
    assert "\n" not in str(caught.value) and "radar" in str(caught.value)


def test_a_message_a_file_and_an_array_are_read_back_as_written(tmp_path: Path) -> None:
    kind = kind_of("radar")
    given = kind.example((64, 96), np.random.default_rng(3))
    kind.to_file(given, tmp_path / "a.radar", None)
    assert np.array_equal(
        kind_of("radar").from_file(tmp_path / "a.radar", hints()).data, given.data
    )
    message = kind.to_message(given.stamped(5), ROSBAGS)
    assert np.array_equal(to_sample("radar", message).data, given.data)
    message.fields.pop()
    with pytest.raises(EncodingError, match="no field rcs"):
        to_sample("radar", message)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"[1, 2]", b"\x93NUMPY\x01\x00" + b"\xff" * 40]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.radar"
    path.write_bytes(content)
    with pytest.raises(AnySenseError) as caught:
        kind_of("radar").from_file(path, hints())
    assert "a.radar" in str(caught.value)


def frame(rng: np.random.Generator) -> dict[str, Sample]:
    picture = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
    return {"rgb": sample_of("rgb", picture), "radar": kind_of("radar").example((64, 96), rng)}


@pytest.fixture
def bundle(small: SmallBundles) -> Path:
    return small.named({"rgb": ("rgb", "rgb"), "radar": ("radar", "radar")})


@pytest.fixture
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1)


@pytest.mark.parametrize("names", [("rgb", "radar"), ("radar",), ("rgb",)])
def test_any_subset_runs_and_each_sensor_counts(pipeline: Pipeline, names: tuple[str, ...]) -> None:
    given = frame(np.random.default_rng(0))
    result = pipeline({name: given[name] for name in names})
    assert result.used == names and not result.warnings
    assert result.labels is not None and result.labels.shape == (64, 96)
    if "radar" in names:
        points = replace(given["radar"], data=given["radar"].data[:5])
        other = pipeline({**{n: given[n] for n in names}, "radar": points})
        assert not np.array_equal(other.confidence, result.confidence)


@given(
    data=arrays(
        np.float32,
        st.tuples(st.integers(0, 6), st.integers(0, 7)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    ),
    calibrated=st.booleans(),
)
@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_whatever_the_radar_says_the_camera_goes_on(
    pipeline: Pipeline, data: np.ndarray, calibrated: bool
) -> None:
    given = frame(np.random.default_rng())  # a camera that repeats itself is frozen
    radar = replace(given["radar"], data=data)
    radar = radar if calibrated else replace(radar, camera=None)
    result = pipeline({**given, "radar": radar})
    assert "rgb" in result.used and result.labels is not None
    assert ("radar" in result.used) is not any(w.sensor == "radar" for w in result.warnings)
    assert all("Error" not in w.text for w in result.warnings), result.warnings


@pytest.mark.parametrize("fault", ["dark", "dropout", "interference"])
def test_its_faults_are_put_on_samples_as_ours_are(fault: str) -> None:
    given = frame(np.random.default_rng(2))["radar"]
    assert fault in faults_of("radar")
    worse = [corrupt(given, fault, severity, seed=3) for severity in (1, 5)]
    assert all(s.kind == "radar" and s.data.shape[1] == 5 for s in worse)
    changed = [s.data.shape != given.data.shape or (s.data != given.data).any() for s in worse]
    assert all(changed)
    assert np.array_equal(corrupt(given, fault, 5, seed=3).data, worse[1].data)


def test_a_folder_recording_holds_it_with_its_own_files(tmp_path: Path) -> None:
    info = folder_info(
        name="drive",
        size=(64, 96),
        rate_hz=10.0,
        sensors={"rgb": "rgb", "radar": "radar"},
        seg_classes=(),
        det_classes=(),
    )
    places = {
        "rgb": SensorCalibration(CAMERA, frame_id="camera"),
        "radar": SensorCalibration(extrinsics=AHEAD, frame_id="radar"),
    }
    rng = np.random.default_rng(4)
    with FolderWriter(tmp_path / "drive", info, Rig(places, reference="rgb")) as writer:
        for number in range(3):
            samples = {name: sample.data for name, sample in frame(rng).items()}
            writer.add(f"{number:03d}", samples, stamp_ns=number * 10**8)
    assert sorted(p.name for p in (tmp_path / "drive/radar").iterdir())[0] == "000.radar"
    assert check_folder(tmp_path / "drive") == []
    read = open_recording("folder", tmp_path / "drive").frame(2)
    assert np.array_equal(read["radar"].data, samples["radar"])
    assert read["radar"].camera == CAMERA and read["radar"].extrinsics is not None
    (tmp_path / "drive/radar/001.radar").write_bytes(b"noise")
    (found,) = check_folder(tmp_path / "drive")
    assert found.severity == "error" and found.where.startswith("radar/001")


def test_a_stream_takes_arrays_of_it(bundle: Path) -> None:
    rng = np.random.default_rng(5)
    with Stream.open(bundle, device="onnxruntime-cpu") as stream:
        for _ in range(100):
            given = frame(rng)
            radar = given["radar"]
            stream.push("radar", radar.data, camera=radar.camera, extrinsics=radar.extrinsics)
            stream.push("rgb", given["rgb"].data)
            result = stream.get(0.5)
            if result is not None and set(result.used) == {"rgb", "radar"}:
                break
        else:
            raise AssertionError(stream.report())


def hints() -> Any:
    from perception.sensors.kind import Hints

    return Hints()
