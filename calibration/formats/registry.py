"""Calibration files of any format: recognised by what is in them, read as rigs, and written."""

from __future__ import annotations

from pathlib import Path

from calibration.formats import opencv, ros
from calibration.formats.autoware import AUTOWARE
from calibration.formats.base import Content, Format, Options, Reading
from calibration.formats.kalibr import KALIBR
from calibration.formats.kitti import KITTI
from calibration.formats.nuscenes import NUSCENES
from calibration.formats.opencv import OPENCV
from calibration.formats.rigfile import RIG
from calibration.formats.ros import ROS
from calibration.formats.urdf import URDF
from perception.errors import AnySenseError, CalibrationError, names_hint
from perception.files.listing import is_file, is_folder, is_there, visible_files
from perception.files.text import parse_yaml, read_json, read_text
from perception.files.xml import read_xml
from perception.geometry.rig import Rig

FORMATS: dict[str, Format] = {
    one.name: one for one in (KALIBR, ROS, KITTI, OPENCV, URDF, AUTOWARE, NUSCENES, RIG)
}
"""By the names that `--to` has."""

_PARTS = (".yaml", ".yml", ".xml", ".urdf")
_MOST_PARTS = 200
_PROGRAM = "generate_launch_description"


def read_calibration(path: Path, options: Options | None = None) -> tuple[Format, Reading]:
    """Read a file, or a folder of files that belong together, of whatever format.

    Args:
        path: the file or folder.
        options: what the user says beside it.

    Returns:
        The format that was recognised, and what was read.

    Raises:
        CalibrationError: it is missing, of no format that is known, or something in it cannot be.
        ConfigError: the options do not fit.
    """
    options = options or Options()
    if not is_there(path):
        raise CalibrationError("no such file or folder", where=str(path))
    content = Content(path) if is_folder(path) else content_of(path)
    try:
        for known in FORMATS.values():
            if known.is_mine(content):
                return known, _chosen(known, known.read(content, options), options)
        if is_folder(path):
            return _of_parts(path, options)
    except AnySenseError as error:
        if str(path) in error.where or error.where == "--sensor":
            raise
        raise CalibrationError(str(error), where=str(path)) from error
    raise CalibrationError("is of no format that is known", where=str(path), hint=_known())


def write_calibration(rig: Rig, path: Path, name: str) -> tuple[list[Path], list[str]]:
    """Write a rig in a format.

    Args:
        rig: what is written.
        path: the file, or for formats of several files the folder.
        name: a key of `FORMATS`.

    Returns:
        The files that were written, and a line for each thing that the format cannot hold.

    Raises:
        CalibrationError: the format cannot hold the rig at all, or the place cannot be written.
    """
    if name not in FORMATS:
        raise CalibrationError(f"no format '{name}'", hint=names_hint(name, FORMATS))
    try:
        return FORMATS[name].write(rig, path)
    except OSError as error:
        raise CalibrationError(f"cannot be written: {error.strerror}", where=str(path)) from error


def content_of(path: Path) -> Content:
    """A file's content, for the formats to look at.

    Raises:
        CalibrationError: it cannot be read, or is none of text, YAML, JSON and XML.
    """
    if path.suffix.lower() == ".json":
        return Content(path, tree=read_json(path, error=CalibrationError))
    text = read_text(path, error=CalibrationError)
    start = text.lstrip("\ufeff \t\n")
    if start.startswith("<"):
        return Content(path, text, root=read_xml(path, error=CalibrationError))
    if path.suffix == ".py" or _PROGRAM in text:
        raise CalibrationError(
            "is a program, which is not run",
            where=str(path),
            hint="record what it publishes: ros2 topic echo --once /tf_static > tf.yaml",
        )
    if KITTI.is_mine(Content(path, text)):
        return Content(path, text)
    marked = start.startswith(opencv.MARK) or bool(opencv.TAG.search(text))
    if marked:
        text = opencv.TAG.sub("", start.removeprefix(opencv.MARK))
    text = text.rstrip().removesuffix("\n---")  # as `ros2 topic echo` ends
    tree = parse_yaml(text, where=str(path), error=CalibrationError)
    if tree is None:
        raise CalibrationError("is empty", where=str(path))
    return Content(path, text, tree, marked=marked)


def _chosen(known: Format, found: Reading, options: Options) -> Reading:
    """Only the sensors that the user names, of formats that tell all by themselves."""
    if known not in (KITTI, RIG) or not options.sensors:
        return found
    names = list(options.sensors)
    missing = [name for name in names if name not in found.rig.sensors]
    if missing:
        hint = names_hint(missing[0], found.rig.sensors)
        raise CalibrationError(f"there is no sensor '{missing[0][:80]}'", hint=hint)
    rig = found.rig
    kept = {name: own for name, own in rig.sensors.items() if name in names}
    return Reading(Rig(kept, rig.base, rig.reference, rig.date, rig.source), found.remarks)


def _of_parts(folder: Path, options: Options) -> tuple[Format, Reading]:
    """A folder of camera_info files and static transforms, or of OpenCV's files."""
    paths = [p for p in visible_files(folder, error=CalibrationError) if p.suffix.lower() in _PARTS]
    if len(paths) > _MOST_PARTS:
        raise CalibrationError(
            f"holds {len(paths)} files, more than {_MOST_PARTS}", where=str(folder)
        )
    parts = [content_of(path) for path in paths]
    for known, reading in ((ROS, ros.reading), (OPENCV, opencv.reading)):
        own = [part for part in parts if known.is_mine(part)]
        if own:
            found = reading(own, options)
            others = [part.path.name for part in parts if part not in own]
            more = (f"{folder}: not read: {', '.join(others[:12])}",) if others else ()
            return known, Reading(found.rig, (*found.remarks, *more))
    held = any(is_file(path) for path in paths)
    problem = "holds no calibration that is known" if held else "holds no calibration"
    raise CalibrationError(problem, where=str(folder), hint=_known())


def _known() -> str:
    return f"known: {', '.join(one.title for one in FORMATS.values())}"
