"""What a GPU makes of inputs after, and of outputs before they are copied, so that less is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.runtime.engines.base import Engine, Feed, not_finite, on_host
from perception.runtime.engines.cuda_features import features
from perception.runtime.onnx_model import OPSET, model
from perception.sensors.kind import Grid
from perception.tasks.registry import TASKS, closure
from perception.tasks.task import Shape

_LOG = logging.getLogger("anysense.engines")


Tensors = Mapping[str, tuple[str, Shape]]
"""Type and shape by name."""


@dataclass(frozen=True)
class Ends:
    """Operators at the end of a graph.

    Attributes:
        nodes: as `onnx_model.node` writes them.
        inputs: what they take besides what is made of, of the task's `graph_inputs`.
        outputs: what they give.
        constants: by name.
    """

    nodes: Sequence[bytes]
    inputs: Tensors
    outputs: Tensors
    constants: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class DeviceForm:
    """Operators that make one form of a task's outputs of another one.

    Attributes:
        takes: the output that they take, float32.
        ends: the operators for that output's shape, a version of ONNX's operators and whether reductions to
            indices are fast; they give the outputs of a form of the task.
    """

    takes: str
    ends: Callable[[Shape, int, bool], Ends]

    def graph(self, shape: tuple[int, ...]) -> bytes:
        """They alone, as an ONNX model for a GPU."""
        ends = self.ends(shape, OPSET, False)
        inputs, outputs = (
            {n: (dtype, [d or 1 for d in own]) for n, (dtype, own) in tensors.items()}
            for tensors in ({self.takes: ("float32", shape), **ends.inputs}, ends.outputs)
        )
        return model(ends.nodes, inputs, outputs, ends.constants)


def device_form(name: str) -> DeviceForm | None:
    """That of a task, where it has one."""
    target = TASKS[name].on_device
    return None if target is None else _imported(target)


@dataclass(frozen=True)
class DeviceInput:
    """A graph that does what `SensorKind.normalize` does, for a kind that refuses nothing by its tensors.

    Attributes:
        layers: by layer of the `Grid`, what the graph calls it; each gets a batch axis in front.
        graph: the ONNX model for an input of a bundle; gives the network's tensors by name.
    """

    layers: Mapping[str, str]
    graph: Callable[[InputSpec], bytes]


class DeviceInputs:
    """Normalizes where the encoders run, for the kinds that say how.

    Args:
        encoders: by input.
        inputs: the bundle's.
    """

    def __init__(self, encoders: Mapping[str, Engine], inputs: PreprocessContract) -> None:
        self._made: dict[str, tuple[DeviceInput, Engine]] = {}
        for name, encoder in encoders.items():
            spec = inputs[name]
            target = spec.sensor.on_device
            lifted = spec.view.birdseye is not None  # and takes a table besides its picture
            if target is None or lifted or not (features().bytes and encoder.links):
                continue
            form: DeviceInput = _imported(target)
            try:
                engine = encoder.companion(form.graph(spec), f"what leads to {name}")
            except EngineError as error:  # then the CPU does it
                _LOG.info("%s", error)
                continue
            if engine is not None:
                self._made[name] = form, engine

    def takes(self, name: str) -> bool:
        """Whether an input's grid is normalized there."""
        return name in self._made

    def warm_up(self) -> None:
        """Run each once on nothing.

        Raises:
            EngineError: the device failed.
        """
        for _, engine in self._made.values():
            engine.run(
                {s.name: np.zeros([d or 1 for d in s.shape], s.dtype) for s in engine.inputs}
            )

    def run(self, name: str, grid: Grid) -> Mapping[str, Feed]:
        """The network's tensors of an input for which `takes` holds.

        Raises:
            EngineError: the device failed.
        """
        form, engine = self._made[name]
        return engine.run_linked({own: grid.layers[n][None] for n, own in form.layers.items()})


class DeviceForms:
    """The outputs of a fuser on a GPU, as much of them as somebody wants, in the smallest forms.

    Args:
        fuser: its engine.
        specs: the bundle's tasks, in the order in which they are decoded.
        grid: (height, width) of the reference grid.
    """

    def __init__(self, fuser: Engine, specs: Mapping[str, Any], grid: tuple[int, int]) -> None:
        self._specs, self._grid = specs, grid
        self.usable = features().labels and fuser.links
        self._made: dict[str, tuple[DeviceForm, Engine]] = {}
        shapes = {spec.name: spec.shape for spec in fuser.outputs}
        for name in specs if self.usable else ():
            form = device_form(name)
            if form is None:
                continue
            shape = shapes.get(form.takes, (None,))
            known = tuple(size for size in shape if size is not None)
            if len(known) < len(shape):
                continue
            try:
                engine = fuser.companion(form.graph(known), f"what follows {form.takes}")
            except EngineError as error:  # then all of it is copied
                _LOG.info("%s", error)
                continue
            if engine is not None:
                self._made[name] = form, engine

    def run(
        self,
        fuser: Engine,
        feeds: Mapping[str, Feed],
        ignored: Collection[str],
        names: Collection[str],
        wanted: Collection[str],
    ) -> dict[str, Any] | None:
        """What the wanted parts of tasks are decoded from; None where the fuser has to say what is wrong.

        Args:
            fuser, feeds, ignored: as for `Engine.run`.
            names: of the inputs that are used.
            wanted: parts of tasks.
        """
        try:
            linked = dict(fuser.run_linked(feeds, ignored))
            found: dict[str, Any] = {}
            for task in closure(self._specs, wanted):
                spec = self._specs[task]
                if task in self._made and fuser.links:
                    form, engine = self._made[task]
                    more = TASKS[task].feeds(spec, names)
                    found |= engine.run({form.takes: linked[form.takes], **more})
                else:
                    outputs = TASKS[task].form(spec, self._grid, linked)
                    found |= on_host({name: linked[name] for name in outputs})
        except EngineError as error:
            _LOG.info("%s", error)
            return None
        return None if not_finite(found) else found


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)
