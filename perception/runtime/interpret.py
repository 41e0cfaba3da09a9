"""What a fuser's outputs mean, in the pixels of the source image."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from perception.errors import EngineError
from perception.plugins import PluginError
from perception.runtime.engines.base import Tensor
from perception.runtime.graph_check import expected_outputs, fits
from perception.runtime.manifest import BundleManifest
from perception.tasks.registry import TASKS, closure
from perception.tasks.task import TaskContext


def check_outputs(manifest: BundleManifest, outputs: Mapping[str, Tensor]) -> None:
    """Refuse outputs that are not as large as the manifest says, where the graph left it open.

    Raises:
        EngineError: one is missing or of another shape.
    """
    for name, shape in expected_outputs(manifest, outputs).items():
        if name not in outputs or not fits(outputs[name].shape, shape):
            found = outputs[name].shape if name in outputs else "nothing"
            raise EngineError(f"gave {found}, where bundle.yaml says {shape}", where=name)


def interpret(
    manifest: BundleManifest,
    outputs: Mapping[str, Tensor],
    wanted: Collection[str],
    problem: Callable[[PluginError], None] | None = None,
    **about: Any,
) -> dict[str, Any]:
    """Values by task from outputs that `check_outputs` let pass.

    Args:
        manifest: the bundle's.
        outputs: the fuser's, by name.
        wanted: parts of tasks; the others are computed only where these are made of them.
        problem: told of a plug-in's task that fails, which then has no value; None: it raises.
        about: the fields of `TaskContext` that are the same for all tasks; but missing sensors do not lower
            a confidence that was calibrated for these inputs: it tells of missing ones by itself.
    """
    specs, grid = manifest.tasks.every, manifest.inputs.grid
    values: dict[str, Any] = {}
    for name, parts in closure(specs, wanted).items():
        task, spec = TASKS[name], specs[name]
        form = task.form(spec, (grid.height, grid.width), outputs)
        ctx = TaskContext(spec=spec, values=values, parts=parts, **about)
        if ctx.confidence != 1.0 and spec.calibrated(ctx.inputs):
            ctx = replace(ctx, confidence=ctx.familiarity)
        try:
            value = task.decode({output: outputs[output] for output in form}, ctx)
        except PluginError as error:
            if problem is None:
                raise
            problem(error)
            continue
        if value is not None:
            values[name] = value
    return values
