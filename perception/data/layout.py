"""What `dataset.yaml` and `frames.csv` of the folder format say, see docs/data.md."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from perception.adapters.headerless import COLUMNS
from perception.data.base import ClassInfo, first_reference, named_sensors
from perception.data.classes import ClassTable, table_faults
from perception.errors import DataError, names_hint
from perception.files.fields import check_fields
from perception.files.limits import check_pixels
from perception.files.listing import is_file, same_name
from perception.files.text import read_csv, read_yaml
from perception.frame import KINDS, LEAST_RANGE_M
from perception.sensors.kind import Hints
from perception.sensors.names import is_kind, kinds
from perception.sensors.registry import kind_of
from perception.tasks.spec import ClassSpec

DESCRIPTION, FRAMES = "dataset.yaml", "frames.csv"
_LAYOUT = "see docs/data.md for the layout; COCO, YOLO and others: anysense data import"
SCHEMA = 2
BASE = "base"
"""What `boxes3d_frame` calls the rig's base frame."""

_Pixels = Annotated[int, Field(ge=1)]
_Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Unit = Literal["auto", "counts8", "counts16", "centikelvin", "kelvin"]
_Columns = Annotated[int, Field(ge=COLUMNS[0], le=COLUMNS[-1])]
_Range = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _known(kind: str) -> str:
    if not is_kind(kind):
        raise PydanticCustomError("kind", f"expected {names_hint(kind, kinds())}")
    return kind


class HintFields(BaseModel):
    """`Hints` of a sensor whose kind has no fields of its own in `SensorInfo`, as a plug-in's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: str | None = None
    least_range_m: _Range | None = None
    columns: _Columns | None = None
    scale: _Scale | None = None


class SensorInfo(BaseModel):
    """A sensor of `dataset.yaml`, its kind alone or with what is otherwise than the recording says."""

    model_config = ConfigDict(extra="forbid")

    kind: Annotated[str, AfterValidator(_known)]
    height: _Pixels | None = None
    width: _Pixels | None = None
    depth_scale: _Scale | None = None
    thermal_unit: _Unit | None = None
    lidar_columns: _Columns | None = None
    lidar_least_range_m: _Range | None = None
    hints: HintFields | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _of_its_kind(self) -> SensorInfo:
        own = kind_of(self.kind)
        known = {f"{own.name}_{hint}" for hint in own.hints} | {"kind", "hints"}
        known |= {"height", "width"} if own.has_picture else set()
        given = self.hints.model_fields_set if self.hints is not None else set[str]()
        for field in [*sorted(self.model_fields_set - known), *sorted(given - set(own.hints))]:
            raise ValueError(f"a {self.kind} sensor has no {field}")
        return self

    @property
    def raw(self) -> Hints:
        """What its files do not say themselves."""
        names = {f.name for f in fields(Hints)} & set(kind_of(self.kind).hints)
        own = {name: getattr(self, f"{self.kind}_{name}", None) for name in names}
        own |= {} if self.hints is None else self.hints.model_dump()
        return Hints(**{name: value for name, value in own.items() if value is not None})


class FolderInfo(BaseModel):
    """`dataset.yaml`: schema 1 where every sensor is called as its kind, otherwise 2."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_version: Literal[1, 2] = Field(1, alias="schema")
    name: str
    sensors: dict[str, SensorInfo] = Field(min_length=1)
    height: _Pixels
    width: _Pixels
    rate_hz: _Scale = 10.0
    seg_classes: tuple[ClassSpec, ...] = ()
    det_classes: tuple[ClassSpec, ...] = ()
    labels_of: str = ""
    boxes3d_frame: str = ""
    depth_scale: _Scale = 0.001
    thermal_unit: _Unit = "auto"
    lidar_columns: _Columns | None = None
    lidar_least_range_m: _Range = LEAST_RANGE_M
    simulated: bool = False
    licence: str = "unknown"

    @model_validator(mode="before")
    @classmethod
    def _from_modalities(cls, value: Any) -> Any:
        """Schema 1 lists kinds as `modalities`."""
        if not isinstance(value, dict):
            return value
        schema, names = value.get("schema"), value.get("modalities")
        if isinstance(schema, int) and schema > SCHEMA:
            raise ValueError(f"schema {schema} is newer than {SCHEMA}: upgrade anysense")
        if "modalities" not in value or "sensors" in value:
            return value
        if not isinstance(names, list | tuple) or not names or any(n not in KINDS for n in names):
            raise ValueError(f"modalities: expected some of {', '.join(KINDS)}")
        if len(set(names)) < len(names):
            raise ValueError("modalities: one is given twice")
        rest = {k: v for k, v in value.items() if k != "modalities"}
        return {**rest, "sensors": {n: {"kind": n} for n in names}}

    @model_validator(mode="after")
    def _consistent(self) -> FolderInfo:
        kinds = {name: sensor.kind for name, sensor in self.sensors.items()}
        try:
            kinds = named_sensors(kinds, "")
        except DataError as error:
            raise ValueError(f"{error.message}, {error.hint}".rstrip(", ")) from error
        usual = first_reference(kinds)
        self.labels_of = self.labels_of or usual
        if self.labels_of not in kinds:
            hint = names_hint(self.labels_of, kinds)
            raise ValueError(f"labels_of: there is no sensor '{self.labels_of}'; {hint}")
        if self.boxes3d_frame not in ("", BASE, *kinds):
            hint = names_hint(self.boxes3d_frame, (BASE, *kinds))
            raise ValueError(f"boxes3d_frame: there is no sensor '{self.boxes3d_frame}'; {hint}")
        labeled = self.of(self.labels_of)
        if (labeled.height, labeled.width) != (self.height, self.width):
            raise ValueError(f"labels_of: height and width are those of {self.labels_of}")
        bare = all(s.model_fields_set == {"kind"} for s in self.sensors.values())
        short = bare and set(kinds) <= set(KINDS) and self.labels_of == usual
        self.schema_version = 1 if short else 2
        return self

    def of(self, sensor: str) -> SensorInfo:
        """What is so of a sensor, by its own fields or else those of the recording."""
        own = self.sensors[sensor]
        bare = [field for field in SensorInfo.model_fields if getattr(own, field) is None]
        return own.model_copy(update={field: getattr(self, field, None) for field in bare})

    def in_unit(self, kind: str, unit: str) -> FolderInfo:
        """The same with all sensors of a kind in this unit."""
        if f"{kind}_unit" in FolderInfo.model_fields:
            return self.model_copy(update={f"{kind}_unit": unit})
        sensors = {
            name: own.model_copy(
                update={"hints": (own.hints or HintFields()).model_copy(update={"unit": unit})}
            )
            if own.kind == kind
            else own
            for name, own in self.sensors.items()
        }
        return self.model_copy(update={"sensors": sensors, "schema_version": 2})

    @property
    def boxes3d_of(self) -> str:
        """The sensor in whose frame boxes in space are, empty for the rig's base: what is said, else the
        first one that measures points, as a LiDAR does."""
        if self.boxes3d_frame:
            return "" if self.boxes3d_frame == BASE else self.boxes3d_frame
        points = (n for n, own in self.sensors.items() if not kind_of(own.kind).has_picture)
        return next(points, "")

    @property
    def tables(self) -> tuple[ClassTable, ClassTable]:
        """Of the semantic classes and of those of boxes."""
        seg, det = ([c.info() for c in own] for own in (self.seg_classes, self.det_classes))
        return ClassTable.of(seg), ClassTable.of(det)

    def to_dict(self) -> dict[str, Any]:
        """As `dataset.yaml` holds it."""
        # What readers of before refuse is left out where it says nothing
        unsaid = None if self.boxes3d_frame else {"boxes3d_frame"}
        plain = self.model_dump(mode="json", by_alias=True, exclude=unsaid)
        if self.schema_version == 1:
            first = {"schema": 1, "name": self.name, "modalities": list(self.sensors)}
            return first | {k: v for k, v in plain.items() if k not in ("sensors", "labels_of")}
        for name, own in self.sensors.items():
            kept = own.model_dump(mode="json", exclude_none=True)
            plain["sensors"][name] = kept if len(kept) > 1 else own.kind
        return plain


def folder_info(
    *,
    size: tuple[int, int],
    seg_classes: tuple[ClassInfo, ...],
    det_classes: tuple[ClassInfo, ...],
    **fields: Any,
) -> FolderInfo:
    """A `FolderInfo` from `ClassInfo` tables and an image size (height, width)."""
    return FolderInfo.model_validate(
        {
            "height": size[0],
            "width": size[1],
            "seg_classes": list(map(asdict, seg_classes)),
            "det_classes": list(map(asdict, det_classes)),
            **fields,
        }
    )


def read_info(root: Path) -> FolderInfo:
    """Read `dataset.yaml`.

    Raises:
        DataError: it is missing or a field is wrong.
    """
    path = root / DESCRIPTION
    if not is_file(path):
        raise DataError(f"no {DESCRIPTION}", where=str(root), hint=_LAYOUT)
    info = check_fields(FolderInfo, read_yaml(path), where=str(path))
    for own in map(info.of, info.sensors):
        check_pixels(own.width or 0, own.height or 0, where=str(path), error=DataError)
    check_pixels(info.width, info.height, where=str(path), error=DataError)
    for task in ("seg_classes", "det_classes"):
        faults = table_faults([c.info() for c in getattr(info, task)])
        if faults:
            raise DataError(f"{task}: {'; '.join(faults)}", where=str(path))
    return info


class FrameRow(NamedTuple):
    """A row of `frames.csv`: id, stamp in nanoseconds, tags."""

    name: str
    stamp_ns: int
    tags: frozenset[str]


def parse_frames(root: Path) -> tuple[list[FrameRow], list[DataError]]:
    """The rows of `frames.csv` that are right, and what is wrong with the others.

    Raises:
        DataError: it is missing, or no such table at all.
    """
    path = root / FRAMES
    if not is_file(path):
        raise DataError(f"no {FRAMES}", where=str(root), hint=_LAYOUT)
    rows: list[FrameRow] = []
    faults: list[DataError] = []
    lines: dict[str, int] = {}
    for number, row in read_csv(path, ("id", "stamp_ns")):
        where = f"{path}:{number}"
        try:
            name = check_id(row["id"], where)
            first = lines.get(same_name(name))
            if first is not None:
                raise DataError(f"id '{name}' is that of line {first}, too", where=where)
            stamp = _stamp(row["stamp_ns"], where)
        except DataError as fault:
            faults.append(fault)
            continue
        lines[same_name(name)] = number
        rows.append(FrameRow(name, stamp, frozenset((row.get("tags") or "").split())))
    return rows, faults


def check_id(name: str, where: str) -> str:
    """A frame's id, which is the name of its files without their suffix.

    Raises:
        DataError: it can be no file's name, or leads to another folder.
    """
    if not name:
        raise DataError("no id", where=where)
    if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise DataError(f"id '{name}' is no plain file name", where=where)
    return name


def _stamp(text: str, where: str) -> int:
    if not text:
        raise DataError("no stamp_ns", where=where)
    if not re.fullmatch("[+-]?[0-9]{1,19}", text) or abs(int(text)) >= 2**63:
        raise DataError(
            f"stamp_ns '{text}' is no whole number of nanoseconds",
            where=where,
            hint="spreadsheets round long numbers: make the column a text" if "E" in text else "",
        )
    return int(text)


def read_frames(root: Path) -> list[FrameRow]:
    """The rows of `frames.csv`.

    Raises:
        DataError: it is missing or a row is wrong.
    """
    rows, faults = parse_frames(root)
    if faults:
        raise faults[0]
    return rows
