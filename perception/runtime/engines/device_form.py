"""What a GPU makes of a task's outputs before they are copied, so that less is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from numpy.typing import NDArray

from perception.errors import EngineError
from perception.runtime.engines.base import Engine, Feed, not_finite, on_host
from perception.runtime.engines.cuda_features import features
from perception.tasks.registry import TASKS, closure

_LOG = logging.getLogger("anysense.engines")


@dataclass(frozen=True)
class DeviceForm:
    """A graph that makes one form of a task's outputs of another.

    Attributes:
        takes: the output that it takes.
        graph: the ONNX model for that output's shape; gives the outputs of a form of the task.
        feeds: what else it is fed, by the task's spec and the names of the inputs that were used.
    """

    takes: str
    graph: Callable[[tuple[int, ...]], bytes]
    feeds: Callable[[Any, Collection[str]], Mapping[str, NDArray[Any]]] = lambda spec, names: {}


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
            target = TASKS[name].on_device
            if target is None:
                continue
            module, _, attribute = target.partition(":")
            form: DeviceForm = getattr(import_module(module), attribute)
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
                    more = form.feeds(spec, names)
                    found |= engine.run({form.takes: linked[form.takes], **more})
                else:
                    outputs = TASKS[task].form(spec, self._grid, linked)
                    found |= on_host({name: linked[name] for name in outputs})
        except EngineError as error:
            _LOG.info("%s", error)
            return None
        return None if not_finite(found) else found
