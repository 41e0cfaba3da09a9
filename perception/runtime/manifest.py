"""The schema of `bundle.yaml`: what a bundle is.

It is written once and never again; what is measured of a bundle later lies beside it, see `records`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from perception.errors import BundleError
from perception.files.containers import stays_inside
from perception.files.limits import MAX_ARCHIVE_FILES
from perception.frame import KINDS, subsets_of
from perception.preprocess.contract import PreprocessContract
from perception.runtime.novelty import InputNovelty
from perception.runtime.schema1 import SCHEMA_1, from_schema_1, in_schema_1
from perception.runtime.wiring import Wiring
from perception.tasks.spec import ClassSpec, Frozen, Label, Spec
from perception.tasks.specs import TaskSpecs

SCHEMA_VERSION: Literal[2] = 2

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""What a bundle may be called: names become parts of paths and of other programs' files."""

_DEEPEST_RECORD = 16
DIGEST = r"^[0-9a-f]{64}$"


def _no_control(text: str) -> str:
    if not all(c.isprintable() or c in "\n\t" for c in text):
        raise ValueError("must not hold control characters")
    return text


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
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # no number that JSON has
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | set):
        raise ValueError(f"holds {type(value).__name__}, not numbers and text")
    return str(value)  # dates


Notes = Annotated[Mapping[str, Any], BeforeValidator(_plain)]
"""What is kept for people and tools: numbers, text, lists and mappings."""


S = TypeVar("S", bound=Spec)


class GraphFile(Spec):
    """A graph: a file inside the bundle."""

    file: FileName


class Graphs(Spec):
    """The exported graphs.

    Attributes:
        encoders: by name, as `inputs` refer to them.
        fuser: takes what the encoders give, and `presence`.
        presence: the inputs that `presence` tells of, in its order.
        separator: between input and feature in the fuser's inputs, see `Wiring`.
        single: everything in one graph, with `presence`.
        subsets: by name such as `rgb+depth`, one graph for exactly these sensors.
        opset: of the ONNX operators.
        dynamic: height and width may vary.
    """

    encoders: Frozen[str, GraphFile]
    fuser: GraphFile
    presence: tuple[str, ...]
    separator: Literal[".", "_"] = "."
    single: GraphFile | None = None
    subsets: Frozen[str, GraphFile] = Field(default_factory=lambda: MappingProxyType({}))
    opset: int = Field(18, ge=1)
    dynamic: bool = False


class Licence(Spec):
    """Under what the weights may be used, and the data that they were trained on."""

    weights: Annotated[str, Field(max_length=1000), AfterValidator(_no_control)] = "unknown"
    data: Annotated[str, Field(max_length=1000), AfterValidator(_no_control)] = "unknown"


class BundleManifest(Spec):
    """Everything that a bundle is.  It cannot be changed: `model_copy(update=...)` makes another one.

    `training`, `model` and `quantization` are for people and tools; the runtime needs the rest.

    Attributes:
        inputs: what it takes, by name.
        reference: inputs in whose pixels results are given, the first that was used; those that are not
            listed follow by kind.
        judged: names of the subsets that accuracy is told of; `frame.subsets_of` where none is listed.
        novelty: by input, what its features are like on frames like those of training; of the inputs that
            it tells nothing of, nothing is known.
        files: SHA-256 of every file that may be read, by name.
    """

    schema_version: Literal[2] = Field(SCHEMA_VERSION, alias="schema")
    name: str = Field(pattern=NAME_PATTERN)
    version: Label = "1"
    description: Annotated[str, Field(max_length=10_000), AfterValidator(_no_control)] = ""
    licence: Licence = Licence()
    simulated: bool = False
    inputs: PreprocessContract
    reference: tuple[str, ...] = ()
    judged: tuple[str, ...] = ()
    tasks: TaskSpecs
    graphs: Graphs
    training: Notes = Field(default_factory=dict)
    model: Notes = Field(default_factory=dict)
    precision: Literal["fp32", "fp16", "int8", "mixed"] = "fp32"
    quantization: Notes = Field(default_factory=dict)
    novelty: Frozen[str, InputNovelty] = Field(default_factory=lambda: MappingProxyType({}))
    files: Frozen[FileName, Annotated[str, Field(pattern=DIGEST)]]

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without novelty where nothing is known of it, so that versions that know of none read it."""
        content: dict[str, Any] = handler(self)
        return content if self.novelty else {k: v for k, v in content.items() if k != "novelty"}

    @model_validator(mode="after")
    def _consistent(self) -> BundleManifest:
        self._check_graphs()
        self._check_inputs_named()
        self._check_tasks()
        self._check_subsets("graphs.subsets", self.graphs.subsets)
        self._check_subsets("judged", self.judged)
        self._check_files()
        return self

    def _check_graphs(self) -> None:
        names, graphs = self.inputs.names, self.graphs
        if set(graphs.encoders) != set(self.inputs.encoders.values()):
            raise ValueError("graphs.encoders must name the encoder of every input, and no other")
        if not set(names) <= set(graphs.presence) or len(set(graphs.presence)) < len(
            graphs.presence
        ):
            raise ValueError("graphs.presence must name every input, each once")
        if graphs.separator == "_" and self.inputs.encoders != {n: n for n in names}:
            raise ValueError(
                "graphs.separator '_' is of bundles in which no input shares an encoder"
            )

    def _check_inputs_named(self) -> None:
        names = self.inputs.names
        if not set(self.reference) <= set(names) or len(set(self.reference)) < len(self.reference):
            raise ValueError("reference names what is no input, or one twice")
        if unknown := [n for n in self.novelty if n not in names]:
            raise ValueError(f"novelty: '{unknown[0]}' is no input")

    def _check_tasks(self) -> None:
        for task, spec in self.tasks.root.items():
            spec.check(self.inputs.names)
            ground = getattr(spec, "birdseye", None)
            if ground is not None and ground != self.inputs.birdseye:
                raise ValueError(f"tasks.{task}.birdseye is not that of the inputs")

    def _check_subsets(self, where: str, listed: Collection[str]) -> None:
        if len(set(listed)) < len(listed):
            raise ValueError(f"{where}: a subset is given twice")
        for name in listed:
            wanted = name.split("+")
            if wanted != [n for n in self.inputs.names if n in wanted]:
                raise ValueError(f"{where}: '{name}' is no subset of the inputs")

    def _check_files(self) -> None:
        if len(self.files) > MAX_ARCHIVE_FILES:
            raise ValueError(f"files: more than {MAX_ARCHIVE_FILES}")
        for file in self.graph_files():
            if file not in self.files:
                raise ValueError(f"no checksum for {file} in files")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The inputs' names."""
        return self.inputs.names

    @property
    def seg_classes(self) -> tuple[ClassSpec, ...]:
        """Semantic classes by id; empty without segmentation."""
        return self.tasks.segmentation.classes if self.tasks.segmentation is not None else ()

    @property
    def det_classes(self) -> tuple[ClassSpec, ...]:
        """Classes of boxes by id; empty without boxes."""
        return self.tasks.boxes2d.classes if self.tasks.boxes2d is not None else ()

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the pictures that the model makes besides."""
        return self.tasks.pictures.names if self.tasks.pictures is not None else ()

    @property
    def wiring(self) -> Wiring:
        """How its graphs are joined."""
        return Wiring(self.inputs.encoders, self.graphs.presence, self.graphs.separator)

    @property
    def subsets(self) -> list[tuple[str, ...]]:
        """The subsets that accuracy is told of, larger ones first."""
        return [tuple(n.split("+")) for n in self.judged] or subsets_of(self.inputs.names)

    def reference_order(self) -> tuple[str, ...]:
        """All inputs, the one first in whose pixels results are given if it was used."""
        kinds = self.inputs.kinds
        rest = [n for n in self.inputs.names if n not in self.reference]
        order = {kind: place for place, kind in enumerate(KINDS)}  # others last, as they are listed
        return (*self.reference, *sorted(rest, key=lambda n: order.get(kinds[n], len(order))))

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
    old = schema == SCHEMA_1 and not isinstance(schema, bool)
    if old:
        content = from_schema_1(content, where)
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise BundleError(
            f"schema {schema} is newer than {SCHEMA_VERSION}, the newest this version reads",
            where=where,
            hint="upgrade anysense",
        )

    return validated(
        BundleManifest, content, where, "manifest", in_schema_1 if old else lambda loc: loc
    )


def validated(
    model: type[S],
    content: Any,
    where: str,
    whole: str,
    place: Callable[[list[str]], list[str]] = lambda loc: loc,
) -> S:
    """Plain values as a model; `place` says where the file has a field, `whole` is what it is called.

    Raises:
        BundleError: a value is missing, unknown or wrong; the first such field is named.
    """
    try:
        return model.model_validate(content)
    except RecursionError as error:
        raise BundleError("is nested too deeply", where=where) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(place([str(part) for part in first["loc"]])) or whole
        line = f"{field}: {first['msg'].removeprefix('Value error, ')}"
        raise BundleError(line, where=where) from error
