"""The schema of `bundle.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapSerializer,
    model_validator,
)

from perception.data.base import ClassInfo
from perception.errors import BundleError
from perception.files.containers import stays_inside
from perception.files.limits import MAX_ARCHIVE_FILES
from perception.frame import Modality, subset_name
from perception.preprocess.contract import PreprocessContract

SCHEMA_VERSION: Literal[1] = 1

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a bundle may be called: names become parts of paths and of other programs' files."""

_DEEPEST_RECORD = 16
_DIGEST = r"^[0-9a-f]{64}$"

K = TypeVar("K")
V = TypeVar("V")


def _write_plain(value: Any, handler: Any) -> Any:
    return handler(dict(value))


Frozen = Annotated[
    Mapping[K, V],
    AfterValidator(lambda found: MappingProxyType(dict(found))),
    WrapSerializer(_write_plain),
]
"""A mapping that cannot be changed, written as a plain one."""


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without spaces at its ends")
    return text


def _no_control(text: str) -> str:
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise ValueError("must not hold control characters")
    return text


Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
"""A short name for people, of any script."""


def _inside(name: str) -> str:
    if not stays_inside(name):
        raise ValueError(f"'{name[:100]}' leads outside the bundle, or is no plain name")
    return name


FileName = Annotated[str, AfterValidator(_inside)]
"""A path within the bundle, with `/` between its parts."""


def _plain(value: Any, depth: int = 0) -> Any:
    """Numbers, text, lists and mappings by text, which every file that is made of them can hold."""
    if depth > _DEEPEST_RECORD:
        raise ValueError("is nested too deeply")
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | set):
        raise ValueError(f"holds {type(value).__name__}, not numbers and text")
    return str(value)  # dates


Notes = Annotated[Mapping[str, Any], BeforeValidator(_plain)]
"""What is kept for people and tools: numbers, text, lists and mappings."""


_Channel = Annotated[int, Field(ge=0, le=255)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class ClassSpec(_Spec):
    """One class: its id in the output, name and RGB color."""

    id: int = Field(ge=0, le=254)
    name: Label
    color: tuple[_Channel, _Channel, _Channel]

    def info(self) -> ClassInfo:
        """As a `ClassInfo`."""
        return ClassInfo(self.id, self.name, self.color)


def _by_id(classes: tuple[ClassSpec, ...]) -> tuple[ClassSpec, ...]:
    """The classes in the order of the network's outputs, whatever order they are listed in."""
    ordered = tuple(sorted(classes, key=lambda c: c.id))
    for wanted, found in enumerate(ordered):
        if found.id != wanted:
            what = f"id {found.id} is given twice" if found.id < wanted else f"no id {wanted}"
            raise ValueError(f"{what}: ids must be 0 to {len(classes) - 1}, each once")
    return ordered


Classes = Annotated[tuple[ClassSpec, ...], AfterValidator(_by_id)]


class ClassTables(_Spec):
    """The classes of each task in the order of their ids; empty for a task that the bundle lacks."""

    segmentation: Classes = ()
    detection: Classes = ()


class GraphFile(_Spec):
    """A graph: a file inside the bundle."""

    file: FileName


class Graphs(_Spec):
    """The exported graphs.

    Attributes:
        encoders: by modality.
        fuser: takes what the encoders give, and `presence`.
        single: everything in one graph, with `presence`.
        subsets: by name such as `rgb+depth`, one graph for exactly these sensors.
        opset: of the ONNX operators.
        dynamic: height and width may vary.
    """

    encoders: Frozen[Modality, GraphFile]
    fuser: GraphFile
    single: GraphFile | None = None
    subsets: Frozen[str, GraphFile] = Field(default_factory=lambda: MappingProxyType({}))
    opset: int = Field(18, ge=1)
    dynamic: bool = False


class DetectionSpec(_Spec):
    """How boxes are decoded."""

    strides: tuple[Annotated[int, Field(ge=1, le=1024)], ...] = Field(
        (8, 16, 32), min_length=1, max_length=16
    )
    score_threshold: float = Field(0.3, gt=0, lt=1)
    nms_iou: float = Field(0.6, gt=0, le=1)
    max_detections: int = Field(100, ge=1, le=100_000)

    @model_validator(mode="after")
    def _distinct(self) -> DetectionSpec:
        if len(set(self.strides)) < len(self.strides):
            raise ValueError("a stride is given twice")
        return self


class BackendRecord(_Spec):
    """What was measured of a backend on labeled frames, against ONNX Runtime on the same graphs.

    Attributes:
        passed: no score fell by more than the tolerance.
        lost: the largest fall of a score over all subsets, in points (hundredths); negative when
            every score rose.
        tolerance: the fall that was allowed, in points.
        probe_error: relative error on the made-up frame of `perception.runtime.engines.probe`.
        frames: how many frames were scored.
        data: which ones.
        change: by subset and score, the change in points.
    """

    passed: bool
    lost: float
    tolerance: float
    probe_error: float = Field(ge=0, allow_inf_nan=False)
    frames: int = Field(ge=1)
    data: str = ""
    change: Frozen[str, Frozen[str, float]] = Field(default_factory=lambda: MappingProxyType({}))


class BundleManifest(_Spec):
    """Everything that a bundle says about itself.  It cannot be changed: `model_copy(update=...)`.

    `training`, `accuracy`, `parity`, `model` and `quantization` are for people and tools; the runtime
    needs the rest.

    Attributes:
        images: names of the pictures that the model makes besides, see `Result.images`.
        files: SHA-256 of every file that may be read, by name.
    """

    schema_version: Literal[1] = Field(SCHEMA_VERSION, alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    version: Label = "1"
    description: Annotated[str, Field(max_length=10_000), AfterValidator(_no_control)] = ""
    simulated: bool = False
    tasks: tuple[Literal["segmentation", "detection"], ...] = Field(min_length=1)
    modalities: tuple[Modality, ...] = Field(min_length=1)
    inputs: PreprocessContract
    classes: ClassTables
    graphs: Graphs
    detection: DetectionSpec = DetectionSpec()
    images: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], ...] = ()
    training: Notes = Field(default_factory=dict)
    accuracy: Notes = Field(default_factory=dict)
    parity: Frozen[str, float] = Field(default_factory=lambda: MappingProxyType({}))
    model: Notes = Field(default_factory=dict)
    precision: Literal["fp32", "fp16", "int8", "mixed"] = "fp32"
    quantization: Notes = Field(default_factory=dict)
    backends: Frozen[str, BackendRecord] = Field(default_factory=lambda: MappingProxyType({}))
    files: Frozen[FileName, Annotated[str, Field(pattern=_DIGEST)]]

    @model_validator(mode="after")
    def _consistent(self) -> BundleManifest:
        if self.modalities != self.inputs.modalities:
            raise ValueError("modalities and inputs.modalities differ")
        if set(self.graphs.encoders) != set(self.modalities):
            raise ValueError("graphs.encoders must name every modality, and no other")
        if len(set(self.tasks)) < len(self.tasks) or len(set(self.images)) < len(self.images):
            raise ValueError("a task or image is given twice")
        for task in self.tasks:
            if not getattr(self.classes, task):
                raise ValueError(f"classes.{task} is empty")
        for name in self.graphs.subsets:
            wanted = name.split("+")
            if not set(wanted) <= set(self.modalities) or name != subset_name(wanted):
                raise ValueError(f"graphs.subsets: '{name}' is no subset of the modalities")
        if len(self.files) > MAX_ARCHIVE_FILES:
            raise ValueError(f"files: more than {MAX_ARCHIVE_FILES}")
        for file in self.graph_files():
            if file not in self.files:
                raise ValueError(f"no checksum for {file} in files")
        return self

    def graph_files(self) -> list[str]:
        """Paths of all graphs inside the bundle."""
        graphs = [*self.graphs.encoders.values(), self.graphs.fuser]
        graphs += [self.graphs.single] if self.graphs.single is not None else []
        graphs += self.graphs.subsets.values()
        return [g.file for g in graphs]


def check_name(name: str, where: str) -> None:
    """Refuse a name that no bundle can have.

    Raises:
        BundleError: it is one.
    """
    if not re.fullmatch(NAME_PATTERN, name) or name.endswith("\n"):
        raise BundleError(
            f"'{name[:80]}' is no name for a bundle",
            where=where,
            hint="letters, digits, '.', '_' and '-', at most 64; --name gives another",
        )


def check_manifest(content: Any, where: str) -> BundleManifest:
    """A manifest from plain values, as YAML gives them.

    Raises:
        BundleError: the schema is newer, or a value is missing, unknown or wrong; the field is named.
    """
    if not isinstance(content, dict):
        raise BundleError("not a manifest", where=where)
    schema = content.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise BundleError(
            f"schema {schema} is newer than {SCHEMA_VERSION}, the newest this version reads",
            where=where,
            hint="upgrade anysense",
        )
    try:
        return BundleManifest.model_validate(content)
    except (ValidationError, RecursionError) as error:
        if isinstance(error, RecursionError):
            raise BundleError("is nested too deeply", where=where) from error
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(
            f"{field}: {first['msg'].removeprefix('Value error, ')}", where=where
        ) from error
