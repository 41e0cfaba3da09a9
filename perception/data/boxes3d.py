"""Boxes in space of the folder format: `boxes3d/ID.yaml`, and where the vehicle was: `poses.csv`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from perception.data.base import TruthBoxes3d
from perception.errors import CalibrationError, DataError
from perception.files.fields import check_fields
from perception.files.text import read_csv, read_yaml
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform

POSES = "poses.csv"
POSE_COLUMNS = ("stamp_ns", "x", "y", "z", "qx", "qy", "qz", "qw")
_MOST = 10_000
_Metres = Annotated[float, Field(ge=-1e5, le=1e5, allow_inf_nan=False)]
_Length = Annotated[float, Field(gt=0, le=1e3, allow_inf_nan=False)]
_Angle = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
_Speed = Annotated[float, Field(ge=-300, le=300, allow_inf_nan=False)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    class_id: int = Field(alias="class")
    center: tuple[_Metres, _Metres, _Metres]
    size: tuple[_Length, _Length, _Length]
    yaw: _Angle
    ignore: bool = False
    velocity: tuple[_Speed, _Speed] | None = None
    points: int = Field(-1, ge=-1)
    occlusion: int = Field(-1, ge=-1, le=3)
    track: int = Field(-1, ge=-1)


class _File(BaseModel):
    rows: list[_Row] = Field(max_length=_MOST)


def read_boxes3d(path: Path, ids: Collection[int], frame: str) -> TruthBoxes3d:
    """The boxes of a frame.

    Args:
        path: a YAML list of boxes.
        ids: of the recording's classes, in their order.
        frame: as in `TruthBoxes3d`.

    Raises:
        DataError: it cannot be read, or a box is wrong.
    """
    rows = _rows(path)
    places = {own: place for place, own in enumerate(ids)}
    for number, row in enumerate(rows):
        if row.class_id not in places:
            known = ", ".join(map(str, places))
            what = f"box {number}: class {row.class_id} is not in dataset.yaml"
            raise DataError(what, where=str(path), hint=f"det_classes have {known}")
    return TruthBoxes3d.of(
        [row.center for row in rows],
        [row.size for row in rows],
        [row.yaw for row in rows],
        [places[row.class_id] for row in rows],
        [row.ignore for row in rows],
        [row.velocity or (np.nan, np.nan) for row in rows],
        [row.points for row in rows],
        [row.occlusion for row in rows],
        [row.track for row in rows],
        frame,
    )


def _rows(path: Path) -> list[_Row]:
    content = read_yaml(path)
    return check_fields(_File, {"rows": content or []}, where=str(path), error=DataError).rows


def largest_turn(path: Path) -> float:
    """The largest angle that a file says, which readers bring to half a turn.

    Raises:
        DataError: see `read_boxes3d`.
    """
    return max((abs(row.yaw) for row in _rows(path)), default=0.0)


def rows_of(boxes: TruthBoxes3d) -> list[dict[str, Any]]:
    """Boxes as a file holds them; classes are positions, and what is not known is left out."""
    found = []
    for i in range(len(boxes)):
        row: dict[str, Any] = {
            "class": int(boxes.class_ids[i]),
            "center": [round(float(v), 4) for v in boxes.center[i]],
            "size": [round(float(v), 4) for v in boxes.size[i]],
            "yaw": round(float(boxes.yaw[i]), 5),
        }
        if boxes.ignore[i]:
            row["ignore"] = True
        if np.isfinite(boxes.velocity[i]).all():
            row["velocity"] = [round(float(v), 4) for v in boxes.velocity[i]]
        for name in ("points", "occlusion", "track"):
            if (value := int(getattr(boxes, name)[i])) >= 0:
                row[name] = value
        found.append(row)
    return found


def read_poses(path: Path) -> Trajectory:
    """`poses.csv`: where the base frame was in a fixed one, see `POSE_COLUMNS`.

    Raises:
        DataError: it cannot be read, or a row is wrong.
    """
    stamps, poses = [], []
    for number, row in read_csv(path, POSE_COLUMNS):
        where = f"{path}:{number}"
        try:
            stamps.append(int(row["stamp_ns"]))
            x, y, z, *quaternion = (float(row[name]) for name in POSE_COLUMNS[1:])
            poses.append(RigidTransform.from_quaternion_xyzw(quaternion, (x, y, z)))
        except (TypeError, ValueError, OverflowError, CalibrationError) as error:
            line = error.message if isinstance(error, CalibrationError) else "no numbers"
            raise DataError(f"pose: {line}", where=where) from error
    try:
        return Trajectory(np.array(stamps, np.int64), tuple(poses))
    except (CalibrationError, OverflowError) as error:
        raise DataError(str(error), where=str(path)) from error


def pose_row(stamp_ns: int, pose: RigidTransform) -> tuple[object, ...]:
    """A row of `poses.csv`."""
    values: Mapping[str, float] = dict(
        zip(POSE_COLUMNS[1:], (*pose.translation, *pose.quaternion_xyzw), strict=True)
    )
    return (stamp_ns, *(f"{value:.9g}" for value in values.values()))
