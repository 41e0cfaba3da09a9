"""Camera calibration files of the ROS `camera_calibration` package (`camera_info_manager` YAML)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.errors import CalibrationError
from perception.files.text import parse_yaml, read_text
from perception.files.writing import write_yaml
from perception.geometry.camera import CameraModel


def load_camera_info(path: Path, *, rectified: bool = False) -> CameraModel:
    """Read a calibration YAML, or a `CameraInfo` message as `ros2 topic echo --once` prints it.

    Args:
        path: the file.
        rectified: the images are already rectified: take the projection matrix, no distortion.

    Raises:
        CalibrationError: the file is missing, no YAML, or lacks an entry.
    """
    text = read_text(path, error=CalibrationError).rstrip().removesuffix("---")  # as `echo` ends
    raw = parse_yaml(text, where=str(path), error=CalibrationError)
    return camera_of_fields(raw, str(path), rectified=rectified)


def camera_of_fields(raw: Any, where: str, *, rectified: bool = False) -> CameraModel:
    """The camera of what such a file holds, see `load_camera_info`; fields of messages in either case.

    Raises:
        CalibrationError: it is no camera calibration, or lacks an entry; `where` is named.
    """
    if not isinstance(raw, dict):
        raise CalibrationError("no camera calibration", where=where)
    try:
        message = "k" in raw or "K" in raw
        fields = _of_message(raw) if message else _of_file(raw, rectified)
        return CameraModel.from_camera_info(fields, rectified=rectified)
    except CalibrationError as error:
        raise CalibrationError(error.message, where=where, hint=error.hint) from error
    except KeyError as error:
        raise CalibrationError(f"no entry {error}", where=where) from error
    except (TypeError, AttributeError) as error:
        raise CalibrationError("no camera calibration", where=where) from error


def _of_message(raw: dict[str, Any]) -> dict[str, Any]:
    header = raw.get("header") or {}
    return {**raw, "frame_id": header.get("frame_id", "")}


def _of_file(raw: dict[str, Any], rectified: bool) -> dict[str, Any]:
    """The fields of a `CameraInfo` from the names that calibration files have for them."""
    fields: dict[str, Any] = {
        name: raw[name] for name in ("binning_x", "binning_y", "roi") if name in raw
    }
    if rectified:
        fields["p"] = raw["projection_matrix"]["data"]
    return {
        **fields,
        "width": raw["image_width"],
        "height": raw["image_height"],
        "k": raw["camera_matrix"]["data"],
        "d": raw["distortion_coefficients"]["data"],
        "distortion_model": raw["distortion_model"],
        "frame_id": raw.get("camera_name", ""),
    }


def save_camera_info(camera: CameraModel, path: Path) -> None:
    """Write a calibration YAML that `camera_info_manager` reads."""
    k = camera.matrix
    p = [*k[0], 0.0, *k[1], 0.0, *k[2], 0.0]
    distortion = list(camera.distortion) or [0.0] * 5
    model = "plumb_bob" if camera.distortion_model == "none" else camera.distortion_model
    content = {
        "image_width": camera.width,
        "image_height": camera.height,
        "camera_name": camera.frame_id,
        "camera_matrix": {"rows": 3, "cols": 3, "data": k.reshape(-1).tolist()},
        "distortion_model": model,
        "distortion_coefficients": {"rows": 1, "cols": len(distortion), "data": distortion},
        "rectification_matrix": {"rows": 3, "cols": 3, "data": [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0]},
        "projection_matrix": {"rows": 3, "cols": 4, "data": [float(v) for v in p]},
    }
    write_yaml(path, content, error=CalibrationError, default_flow_style=None)
