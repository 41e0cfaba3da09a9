"""OpenCV's FileStorage, YAML or XML, as its calibration samples write it.

One camera: `camera_matrix`, `distortion_coefficients`, `image_width`, `image_height`, `fisheye_model`; the
`omnidir` module's `xi`.  A stereo pair: `M1`, `D1`, `M2`, `D2`, and `R`, `T`, which take points of camera 1
into camera 2's frame (of a file with one
camera: of the folder's first camera into its own).  T is in the unit of the board's squares: metres here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from calibration.formats.base import (
    Content,
    Format,
    Options,
    Placed,
    Reading,
    Seen,
    first_camera,
    layout,
    losses,
    not_held,
    numbers,
    renamed,
    rig_of,
    size_of,
    table,
)
from calibration.formats.naming import name_of
from perception.errors import CalibrationError
from perception.files.made import make_folder
from perception.files.writing import write_text
from perception.files.xml import write_xml
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig
from perception.geometry.transforms import Float64, RigidTransform

MARK = "%YAML:1.0"
TAG = re.compile(r"!!opencv-[\w-]+")
_TITLE = "OpenCV"
_MATRIX = ("camera_matrix", "Camera_Matrix", "cameraMatrix", "CameraMat", "K", "M")
_BENT = (
    "distortion_coefficients", "Distortion_Coefficients", "distCoeffs", "dist_coeffs", "DistCoeff", "D",
)  # fmt: skip
_WIDTH = ("image_width", "image_Width", "width")
_HEIGHT = ("image_height", "image_Height", "height")
_SIZE = ("ImageSize", "image_size", "imageSize", "size")
_TURN, _MOVE = ("R",), ("T",)
_OTHERS = ("camera_name", "distortion_model", "fisheye_model", "xi")
_ALL = (*_MATRIX, *_BENT, *_WIDTH, *_HEIGHT, *_SIZE, *_TURN, *_MOVE, *_OTHERS)
_FAR_M = 10.0
_MOST_VALUES = 1000
Fields = dict[str, Any]


def is_opencv(content: Content) -> bool:
    """Whether a file is FileStorage's."""
    return content.marked or (content.root is not None and content.root.tag == "opencv_storage")


def _read(content: Content, options: Options) -> Reading:
    return reading([content], options)


def reading(contents: Sequence[Content], options: Options) -> Reading:
    """The rig of files together: of one camera each, or a pair's intrinsics and extrinsics."""
    remarks, parts = list[str](), dict[Path, Fields]()
    for content in contents:
        parts[content.path] = _fields(content)
    pair = [fields for fields in parts.values() if any(f"{m}2" in fields for m in _MATRIX)]
    seen: list[Seen] = []
    if pair:
        merged = {key: value for fields in parts.values() for key, value in fields.items()}
        where = str(contents[0].path)
        first = _seen(merged, "1", where, options, "left", RigidTransform.identity())
        moved = _moved(merged, where, remarks)
        seen = [first, _seen(merged, "2", where, options, "right", moved)]
        every = [f"{k}{n}" for k in _ALL for n in ("", "1", "2", "_1", "_2")]
        _tell(merged, every, where, remarks)
    else:
        for path, fields in parts.items():
            moved = _moved(fields, str(path), remarks)
            seen.append(_seen(fields, "", str(path), options, path.stem, moved))
            _tell(fields, _ALL, str(path), remarks)
        first_ones = [one for one in seen if one.pose is None]
        if len(seen) > 1 and len(first_ones) == 1:
            seen.sort(key=lambda one: one.pose is not None)
    if seen[0].pose is not None and pair:
        seen[0] = Seen(seen[0].frame, seen[0].camera, None, seen[0].name)
    return rig_of(seen, "", remarks, options)


def _tell(fields: Fields, known: Sequence[str], where: str, remarks: list[str]) -> None:
    names = [key[:40] for key in fields if key not in known]
    if names:
        remarks.append(f"{where}: not read: {', '.join(names[:20])}")


def _seen(
    fields: Fields,
    number: str,
    where: str,
    options: Options,
    name: str,
    moved: RigidTransform | None,
) -> Seen:
    camera = _camera(fields, number, where, options)
    told = _one_of(fields, ("camera_name",), number)
    name = name_of(str(told) if isinstance(told, str) and told else name)
    return Seen(name, camera, None if moved is None else moved.inverse(), name)


def _moved(fields: Fields, where: str, remarks: list[str]) -> RigidTransform | None:
    if "R" not in fields or "T" not in fields:
        return None
    turn = numbers(fields["R"], (3, 3), f"{where}: R")
    move = numbers(np.ravel(fields["T"]), (3,), f"{where}: T")
    if np.linalg.norm(move) > _FAR_M:
        remarks.append(f"T is {np.linalg.norm(move):.4g} long, taken for metres")
    return RigidTransform(turn, move)


def _one_of(fields: Fields, names: Sequence[str], number: str) -> Any:
    """The first of these entries that is there; with a number: `M1`, `camera_matrix_1`, else without."""
    given = [f"{n}{s}{number}" for n in names for s in (("", "_") if number else ("",))]
    plain = [] if names in (_MATRIX, _BENT) else list(names)
    return next((fields[key] for key in [*given, *plain] if key in fields), None)


def _camera(fields: Fields, number: str, where: str, options: Options) -> CameraModel:
    matrix = _one_of(fields, _MATRIX, number)
    if matrix is None:
        raise CalibrationError(f"no entry '{_MATRIX[0]}{number}'", where=where)
    k = numbers(matrix, (3, 3), f"{where}: {_MATRIX[0]}")
    bent = np.ravel(
        _one_of(fields, _BENT, number) if _one_of(fields, _BENT, number) is not None else []
    )
    given = numbers(bent, (len(bent),), f"{where}: {_BENT[0]}").tolist()
    size = _one_of(fields, _SIZE, number)
    width, height = _one_of(fields, _WIDTH, number), _one_of(fields, _HEIGHT, number)
    if size is not None and width is None:
        width, height = numbers(np.ravel(size), (2,), f"{where}: {_SIZE[0]}").tolist()
    if width is None or height is None:
        width, height = size_of(options, where)
    width, height = numbers([width, height], (2,), f"{where}: size").tolist()
    model = _model(fields, number, given, where)
    if model == "omni":
        xi = numbers(np.ravel(_one_of(fields, ("xi",), number)), (1,), f"{where}: xi").tolist()
        given = [*xi, *(given or [0.0] * 4)]
    try:
        return CameraModel(width, height, k[0, 0], k[1, 1], k[0, 2], k[1, 2], model, tuple(given))
    except CalibrationError as error:
        raise CalibrationError(error.message, where=where, hint=error.hint) from error


def _model(fields: Fields, number: str, given: list[float], where: str) -> str:
    if _one_of(fields, ("xi",), number) is not None:
        return "omni"
    if str(_one_of(fields, ("fisheye_model",), number) or "0").strip() not in ("0", "false"):
        return "equidistant"
    told = _one_of(fields, ("distortion_model",), number)
    if isinstance(told, str) and told in ("fisheye", "equidistant"):
        return "equidistant"
    models = {0: "none", 4: "plumb_bob", 5: "plumb_bob"}
    model = models.get(len(given), "rational_polynomial")
    if model == "rational_polynomial" and len(given) not in (8, 12, 14):
        raise CalibrationError(f"{len(given)} distortion coefficients", where=where)
    return model


def _fields(content: Content) -> Fields:
    where = str(content.path)
    if content.root is not None:
        return {child.tag: _of_element(child, where) for child in content.root}
    return {
        str(key): _matrix(value, where) if _is_matrix(value) else value
        for key, value in table(content.tree, where).items()
    }


def _is_matrix(value: Any) -> bool:
    if not isinstance(value, dict) or "data" not in value:
        return False
    return {"rows", "cols"} <= value.keys() or "sizes" in value


def _of_element(element: Element, where: str) -> Any:
    children = {child.tag: (child.text or "").strip() for child in element}
    if not _is_matrix(children):
        return (element.text or "").strip().strip('"')
    split: dict[str, Any] = {
        key: children[key].split() for key in ("data", "sizes") if key in children
    }
    return _matrix({**children, **split}, where)


def _matrix(value: Mapping[str, Any], where: str) -> Float64 | None:
    """A matrix; larger ones than cameras have, such as all corners of all views, are passed over."""
    try:
        if "sizes" in value:  # of any number of axes; of more than two cameras have none
            rows, cols = ([int(n) for n in value["sizes"]] + [1, 1])[:2]
        else:
            rows, cols = int(value["rows"]), int(value["cols"])
    except (TypeError, ValueError) as error:
        raise CalibrationError("rows and cols of a matrix are no numbers", where=where) from error
    data = value["data"] if isinstance(value["data"], list) else [value["data"]]
    if not 0 <= rows * cols <= _MOST_VALUES or value.get("dt") not in ("d", "f", "i"):
        return None
    if len(data) != rows * cols:
        raise CalibrationError(f"a matrix of {rows}x{cols} has {len(data)} numbers", where=where)
    return numbers(data, (rows * cols,), f"{where}: matrix").reshape(rows, cols)


def _write(rig: Rig, path: Path) -> tuple[list[Path], list[str]]:
    base, placed = layout(rig)
    cameras = [one for one in placed if one.is_camera and one.own.camera is not None]
    if not cameras:
        raise CalibrationError("the rig has no camera with intrinsics")
    first = first_camera(cameras, rig)
    cameras.sort(key=lambda one: one is not first)
    lines = losses(rig, _TITLE)
    others = [one.name for one in placed if one not in cameras]
    if others:
        lines.append(f"{', '.join(others)} left out: the format has cameras with intrinsics")
    if base:
        lines.append(not_held(f"where the cameras sit in {base}", [], _TITLE))
    if rig.date or rig.source:
        lines.append(not_held("date and source", ["the rig"], _TITLE))
    frames = [one.name for one in cameras if one.frame != one.name]
    if frames:
        lines.append(not_held("the frame's name", frames, _TITLE))
    lines += renamed(cameras, _TITLE, {one.name: one.name for one in cameras})
    lost = [one.name for one in cameras if one.pose is None or cameras[0].pose is None]
    if lost and len(cameras) > 1:
        lines.append(f"where {', '.join(lost)} sit is not in the rig")
    if re.fullmatch(r"\.(ya?ml|xml)", path.suffix.lower()) and not path.is_dir():
        if len(cameras) > 2:
            raise CalibrationError(
                f"the rig has {len(cameras)} cameras, a file one or two",
                where=str(path),
                hint="name a folder, without a suffix",
            )
        _save(path, _of_one(cameras[0]) if len(cameras) == 1 else _of_pair(*cameras))
        return [path], lines
    make_folder(path)
    written = []
    for one in cameras:
        written.append(path / f"{one.name}.yml")
        moved = {} if one is cameras[0] else _step(cameras[0], one)
        _save(written[-1], {**_of_one(one), **moved})
    return written, lines


def _of_one(one: Placed, number: str = "") -> Fields:
    camera = one.own.camera
    assert camera is not None
    bent = list(camera.distortion)
    own: Fields = {
        "camera_name": one.name,
        "image_width": camera.width,
        "image_height": camera.height,
        "distortion_model": camera.distortion_model,
    }
    if camera.distortion_model == "equidistant":
        own["fisheye_model"] = 1
    if camera.distortion_model == "omni":
        own["xi"] = np.array([[bent.pop(0)]])
    own = {f"{key}_{number}" if number else key: value for key, value in own.items()}
    matrix, coefficients = (
        (f"M{number}", f"D{number}") if number else ("camera_matrix", "distortion_coefficients")
    )
    return {**own, matrix: camera.matrix, coefficients: np.array([bent or [0.0] * 5])}


def _of_pair(one: Placed, two: Placed) -> Fields:
    return {**_of_one(one, "1"), **_of_one(two, "2"), **_step(one, two)}


def _step(one: Placed, two: Placed) -> Fields:
    """R and T, from the first camera's frame to the second's."""
    if one.pose is None or two.pose is None:
        return {}
    step = two.pose.inverse() @ one.pose
    return {"R": step.rotation, "T": step.translation[:, None]}


def _save(path: Path, fields: Fields) -> None:
    if path.suffix.lower() == ".xml":
        root = Element("opencv_storage")
        for key, value in fields.items():
            if not isinstance(value, np.ndarray):
                SubElement(root, key).text = str(value)
                continue
            element = SubElement(root, key, {"type_id": "opencv-matrix"})
            parts = {**_sizes(value), "data": " ".join(_shown(value))}
            for tag, text in parts.items():
                SubElement(element, tag).text = str(text)
        write_xml(path, root, error=CalibrationError)
        return
    lines = [MARK, "---"]
    for key, value in fields.items():
        if not isinstance(value, np.ndarray):
            lines.append(f'{key}: "{value}"' if isinstance(value, str) else f"{key}: {value}")
            continue
        lines.append(f"{key}: !!opencv-matrix")
        lines += [f"   {tag}: {text}" for tag, text in _sizes(value).items()]
        lines.append(f"   data: [ {', '.join(_shown(value))} ]")
    write_text(path, "\n".join(lines) + "\n", error=CalibrationError)


def _sizes(value: Float64) -> dict[str, Any]:
    rows, cols = value.shape
    return {"rows": rows, "cols": cols, "dt": "d"}


def _shown(value: Float64) -> list[str]:
    return [f"{v:.17e}" for v in value.ravel().tolist()]


OPENCV = Format("opencv", "OpenCV's FileStorage", is_opencv, _read, _write)
