"""The schema of `bundle.yaml`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from perception.data.base import ClassInfo
from perception.frame import Modality, subset_name
from perception.preprocess.contract import PreprocessContract

SCHEMA_VERSION: Literal[1] = 1


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ClassSpec(_Spec):
    """One class: its id in the output, name and RGB color."""

    id: int = Field(ge=0, le=254)
    name: str
    color: tuple[int, int, int]

    def info(self) -> ClassInfo:
        """As a `ClassInfo`."""
        return ClassInfo(self.id, self.name, self.color)


class ClassTables(_Spec):
    """The classes of each task; empty for a task that the bundle lacks."""

    segmentation: tuple[ClassSpec, ...] = ()
    detection: tuple[ClassSpec, ...] = ()


class GraphFile(_Spec):
    """A graph: a file inside the bundle."""

    file: str


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

    encoders: dict[Modality, GraphFile]
    fuser: GraphFile
    single: GraphFile | None = None
    subsets: dict[str, GraphFile] = Field(default_factory=dict)
    opset: int = 18
    dynamic: bool = False


class DetectionSpec(_Spec):
    """How boxes are decoded."""

    strides: tuple[int, ...] = (8, 16, 32)
    score_threshold: float = Field(0.3, gt=0, lt=1)
    nms_iou: float = Field(0.6, gt=0, le=1)
    max_detections: int = Field(100, ge=1)


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
    probe_error: float = Field(ge=0)
    frames: int = Field(ge=1)
    data: str = ""
    change: dict[str, dict[str, float]] = Field(default_factory=dict)


class BundleManifest(_Spec):
    """Everything that a bundle says about itself.

    `training`, `accuracy`, `parity`, `model` and `quantization` are for people and tools; the runtime
    needs the rest.

    Attributes:
        images: names of the pictures that the model makes besides, see `Result.images`.
    """

    schema_version: Literal[1] = Field(SCHEMA_VERSION, alias="schema")
    name: str
    version: str = "1"
    description: str = ""
    simulated: bool = False
    tasks: tuple[Literal["segmentation", "detection"], ...] = Field(min_length=1)
    modalities: tuple[Modality, ...] = Field(min_length=1)
    inputs: PreprocessContract
    classes: ClassTables
    graphs: Graphs
    detection: DetectionSpec = DetectionSpec()
    images: tuple[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], ...] = ()
    training: dict[str, Any] = Field(default_factory=dict)
    accuracy: dict[str, Any] = Field(default_factory=dict)
    parity: dict[str, float] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    precision: Literal["fp32", "fp16", "int8", "mixed"] = "fp32"
    quantization: dict[str, Any] = Field(default_factory=dict)
    backends: dict[str, BackendRecord] = Field(default_factory=dict)
    files: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> BundleManifest:
        if self.modalities != self.inputs.modalities:
            raise ValueError("modalities and inputs.modalities differ")
        if set(self.graphs.encoders) != set(self.modalities):
            raise ValueError("graphs.encoders must name every modality, and no other")
        for task in self.tasks:
            if not getattr(self.classes, task):
                raise ValueError(f"classes.{task} is empty")
        for name in self.graphs.subsets:
            wanted = name.split("+")
            if not set(wanted) <= set(self.modalities) or name != subset_name(wanted):
                raise ValueError(f"graphs.subsets: '{name}' is no subset of the modalities")
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
