"""What a task is: everything that the rest of AnySense wants to know of one, in one record."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import ClassInfo, RecordingInfo, Truth
from perception.frame import Sample
from perception.geometry.grid import GridMap
from perception.geometry.rig import BASE_FRAME
from perception.metrics.confidence import ConfidenceHistogram
from perception.metrics.fitted import Fitted
from perception.tasks.spec import ClassSpec, TaskSpec

Shape = tuple[int | None, ...]
"""A dimension that varies is None."""

Form = Mapping[str, Shape]
"""A set of graph outputs by name; their shapes."""

Image = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

Counted = Mapping[str, NDArray[Any]]
"""What a meter has counted, by names of its own: bool, integers or floats of any shape."""


@dataclass(frozen=True)
class TaskContext:
    """What a task knows when it decodes the outputs for one frame.

    Attributes:
        spec: what the bundle says of the task.
        reference: the sensor in whose pixels the result is given.
        grids: by sensor used, how its picture lies on its grid; `grid` is the reference's.
        samples: by sensor used.
        fresh: the sensors whose sample was in no result before.
        inputs: names of the bundle's inputs that were used.
        values: of the tasks decoded before.
        parts: those of the task's parts that somebody wants.
        confidence: factor on confidences and scores, below 1 where sensors are missing, or inputs far from
            training.
        familiarity: the part of it that is for inputs far from training.
        min_score: least score of a box before that; None for the bundle's.
        stride: where points are made of a depth image, every such row and column is taken.
        placed: sensors whose pictures were warped onto the reference's, as they stand elsewhere.
        base_frame: the name of the vehicle's base frame.
    """

    spec: Any
    reference: str
    grids: Mapping[str, GridMap]
    samples: Mapping[str, Sample]
    fresh: frozenset[str]
    inputs: tuple[str, ...]
    values: Mapping[str, Any]
    parts: frozenset[str]
    confidence: float = 1.0
    familiarity: float = 1.0
    min_score: float | None = None
    stride: int = 1
    placed: frozenset[str] = frozenset()
    base_frame: str = BASE_FRAME

    @property
    def grid(self) -> GridMap:
        """How the picture that the result is given in lies on the reference grid."""
        return self.grids[self.reference]


class Meter(ABC):
    """Holds a task's values against the truth of a recording's frames.

    Attributes:
        lacking: classes of the recording that the bundle does not know, so that they score 0.
        confidence: how sure the values were of what was right and wrong, where they say it.
        in_pixels: whether it judges by truth that is in some sensor's pixels, and not in space.
    """

    in_pixels: bool = True
    lacking: tuple[str, ...] = ()
    confidence: ConfidenceHistogram | None = None

    @abstractmethod
    def add(self, value: Any, truth: Truth, size: tuple[int, int] | None) -> bool:
        """Count one frame.

        Args:
            value: the task's, None where there is none.
            truth: of the frame.
            size: (height, width) of the picture that the value is in, None without output.

        Returns:
            Whether there was truth to judge by.
        """

    @abstractmethod
    def scores(self) -> dict[str, float | None]:
        """The numbers so far, 0 to 1, by name; None where there is no truth to judge by."""

    def per_class(self) -> dict[str, dict[str, float | None]]:
        """By name of a class, its own numbers."""
        return {}

    def counted(self) -> Counted | None:
        """What was counted so far, for `take`; None where it cannot be had as arrays."""
        return None

    def take(self, counted: Counted) -> None:
        """Count after the own frames those of another meter of the same classes, as if `add` had had them.

        Args:
            counted: of that one.

        Raises:
            KeyError, ValueError: it is none of such a meter's.
        """
        raise NotImplementedError


class TemperatureFit(ABC):
    """Collects a task's outputs and their truth, and says under which temperature, or other monotone map of
    its scores, they fit it best."""

    @abstractmethod
    def add(self, tensors: Mapping[str, NDArray[Any]], grid: GridMap, truth: Truth) -> None:
        """Take samples of one frame, the same at every call.

        Args:
            tensors: the fuser's outputs.
            grid: how the picture that the value is given in lies on the reference grid.
            truth: of the frame.

        Raises:
            ConfigError: the outputs are not what it is fitted to.
        """

    @abstractmethod
    def fitted(self) -> Fitted | None:
        """What was found; None where no frame had truth, or nothing was said that could be right."""

    @classmethod
    def together(cls, fits: Sequence[TemperatureFit]) -> list[Fitted | None]:
        """What was found for each of several subsets of sensors, of the same frames.

        Each by itself, unless they can learn from each other.

        Args:
            fits: all of this class.
        """
        return [fit.fitted() for fit in fits]

    def judged(self) -> bool:
        """Whether a frame had truth; None of `fitted` is then no fault of the recording."""
        return False


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task.  A plug-in brings one by an entry point of `anysense.tasks`, with nothing else to register.

    Attributes:
        name: `[a-z][a-z0-9_]*`; in `tasks` of bundle.yaml and of `Result.values`.
        spec: what a bundle says of it.
        forms: alternative sets of graph outputs for a spec and the (height, width) of the grid, best
            first; `({},)` for a task that is made of others' values.
        decode: its value from the tensors of the form that the bundle's fuser has; None for no value.
        parts: of it, what somebody may want on its own; its name alone unless it says otherwise.
        after: tasks whose values it needs, all parts of them.
        implied: the spec that a bundle with these tasks has though it does not name this one, or names it
            without classes; None for none.  Asked of our own tasks only: a plug-in's must be named.
        on_request: not computed unless somebody asks for it.
        requested: those of the parts that are not computed unless somebody asks for them by name.
        alone: a bundle may consist of it.
        direct: of a task that is otherwise made of others' values, whether by this spec graphs give it: then
            it needs none of `after`, is usual, is drawn, and a bundle may consist of it.
        classes_of: a recording's classes for it.
        meter: holds it against a recording's truth; None where they have no class in common.
        judged: scores by which backends and bundles are compared, the higher the better, with titles.
        shown: further scores that are shown beside them.
        trust: scores of its meter that tell of confidence, not of what is said; the lower the better,
            the first of them the calibration error.
        temperature_fit: for a spec, a recording and its number of frames, what finds the temperature, or
            another map of scores, of one subset of the inputs, which the spec then holds
            (`TaskSpec.with_fitted`).
        frame_score: name of the score that is given for every single frame of a demo, if any.
        to_dict: its value as plain numbers and text, by key of the whole result.
        summary: the same for one line of many, by default the whole.
        draw: its value drawn on a picture, with an opacity for what covers areas.
        drawn: the parts that drawing takes; all unless it says otherwise.
        present: its classes that are in a value, with what is to be said beside each, for a legend.
        annotations: its value as COCO's annotations, without their ids.
        files: pictures that `anysense run` writes, by name without suffix.
        above: the value without what scores below a threshold, None for the bundle's own.
        graph_inputs: what graphs may take for it besides features, by name, (1,) float32; older ones go
            without.  Where nobody feeds it, it is 1.
        feeds: values for these, by its spec and the names of the inputs that were used.
        dtypes: types of its graph outputs, by name, where others than float32 are allowed.
        on_device: `module:attribute` of a `perception.runtime.engines.device_form.DeviceForm`, by which a GPU
            and graphs of `anysense export --ends labels` make a smaller form of a larger one.
        training: `module:attribute` of its half in PyTorch, where it can be trained.
        publisher: `module:attribute` of its publisher in ROS 2; without one its value goes out as JSON.
    """

    name: str
    spec: type[TaskSpec]
    forms: Callable[[Any, tuple[int, int]], tuple[Form, ...]]
    decode: Callable[[Mapping[str, NDArray[Any]], TaskContext], Any]
    parts: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    implied: Callable[[Mapping[str, TaskSpec]], TaskSpec | None] = lambda tasks: None
    on_request: bool = False
    requested: tuple[str, ...] = ()
    alone: bool = True
    direct: Callable[[Any], bool] = lambda spec: False
    classes_of: Callable[[RecordingInfo], tuple[ClassInfo, ...]] = lambda info: ()
    meter: Callable[[Any, RecordingInfo], Meter | None] | None = None
    judged: Mapping[str, str] = field(default_factory=dict)
    shown: tuple[str, ...] = ()
    trust: tuple[str, ...] = ()
    temperature_fit: Callable[[Any, RecordingInfo, int], TemperatureFit | None] | None = None
    frame_score: str = ""
    to_dict: Callable[[Any, Any], dict[str, Any]] = lambda value, spec: {}
    summary: Callable[[Any, Any], dict[str, Any]] | None = None
    draw: Callable[[Image, Any, Any, float], Image] | None = None
    drawn: tuple[str, ...] = ()
    present: Callable[[Any, Any], list[tuple[ClassSpec, str]]] = lambda value, spec: []
    annotations: Callable[[Any, Any], list[dict[str, Any]]] | None = None
    files: Callable[[Any, Any], dict[str, NDArray[np.uint8]]] = lambda value, spec: {}
    above: Callable[[Any, Any, float | None], Any] | None = None
    graph_inputs: Callable[[Any], Mapping[str, Shape]] = lambda spec: {}
    feeds: Callable[[Any, Collection[str]], Mapping[str, NDArray[Any]]] = lambda spec, names: {}
    dtypes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_device: str | None = None
    training: str | None = None
    publisher: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", self.parts or (self.name,))
        if self.draw is not None:
            object.__setattr__(self, "drawn", self.drawn or self.usual)

    def needs(self, spec: Any) -> tuple[str, ...]:
        """Tasks whose values it needs by a spec."""
        return () if self.direct(spec) else self.after

    def is_usual(self, spec: Any) -> bool:
        """Whether by a spec it is computed without being asked for."""
        return not self.on_request or self.direct(spec)

    @property
    def usual(self) -> tuple[str, ...]:
        """The parts that whoever wants the whole of it gets."""
        return tuple(part for part in self.parts if part not in self.requested)

    def form(self, spec: Any, grid: tuple[int, int], outputs: Collection[str]) -> Form:
        """The form that a graph with these outputs has; the first where it has none whole."""
        forms = self.forms(spec, grid)
        return next((form for form in forms if all(name in outputs for name in form)), forms[0])
