"""A kind of sensor that another distribution brings: points with speeds, which no kind of ours has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.adapters.messages import to_sample
from perception.bags.messages import ROSBAGS
from perception.errors import AnySenseError, BlindError, CalibrationError, EncodingError, InputError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.preprocess.sample import preprocess_sample
from perception.sensors.registry import kind_of

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


def hints() -> Any:
    from perception.sensors.kind import Hints

    return Hints()
