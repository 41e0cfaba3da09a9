"""Loading a bundle's graphs into the engines of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from perception.errors import EngineError
from perception.frame import Modality
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import Engine
from perception.runtime.engines.selection import load_engines


def load_pipeline_engines(
    bundle: Bundle,
    device: str,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[dict[Modality, Engine], Engine]:
    """Load a bundle's encoders and its fuser.

    Args:
        bundle: the bundle.
        device: as for `Pipeline.load`.
        threads: as for `Pipeline.load`.
        progress: called with a line before each graph.

    Raises:
        ConfigError: unknown device.
        EngineError: no backend can load a graph, or its tensors are not those of the manifest.
    """
    engines = load_engines(bundle, device, threads, progress)
    encoders = {m: engines[m] for m in bundle.manifest.modalities}
    _check_graphs(bundle, encoders, engines["fuser"])
    return encoders, engines["fuser"]


def _check_graphs(bundle: Bundle, encoders: Mapping[Modality, Engine], fuser: Engine) -> None:
    """Refuse graphs whose tensors are not those that the manifest promises."""
    manifest = bundle.manifest
    produced = {o.name for e in encoders.values() for o in e.outputs}
    needed = {i.name for i in fuser.inputs} - {"presence"}
    if needed - produced:
        raise EngineError(
            f"fuser wants {sorted(needed - produced)[0]}, which no encoder gives",
            where=str(bundle.path),
        )
    given = {o.name for o in fuser.outputs}
    wanted = {"seg_logits"} if "segmentation" in manifest.tasks else set()
    if "detection" in manifest.tasks:
        wanted |= {f"det_{k}_{s}" for k in ("cls", "box") for s in manifest.detection.strides}
    if wanted - given:
        raise EngineError(f"fuser lacks output {sorted(wanted - given)[0]}", where=str(bundle.path))
    for modality, engine in encoders.items():
        shape = engine.inputs[0].shape
        expected = manifest.inputs.input_shape(modality)
        if any(d is not None and d != e for d, e in zip(shape, expected, strict=False)):
            raise EngineError(
                f"encoder takes {shape}, the manifest says {expected}",
                where=f"{bundle.path}: {modality}",
            )
