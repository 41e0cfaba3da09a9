"""Loading a bundle's graphs into the engines of a pipeline."""

from __future__ import annotations

from collections.abc import Callable

from perception.frame import Modality
from perception.runtime.bundle import Bundle
from perception.runtime.engines.base import Engine
from perception.runtime.engines.selection import load_engines
from perception.runtime.graph_check import Signature, check_modular


def load_pipeline_engines(
    bundle: Bundle,
    device: str,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    trust_plans: bool = False,
    tf32: bool = True,
) -> tuple[dict[Modality, Engine], Engine]:
    """Load a bundle's encoders and its fuser.

    Args:
        bundle: the bundle.
        device: as for `Pipeline.load`.
        threads: as for `Pipeline.load`.
        progress: called with a line before each graph.
        trust_plans: as for `Pipeline.load`.
        tf32: as for `Pipeline.load`.

    Raises:
        ConfigError: unknown device.
        EngineError: no backend can load a graph.
        BundleError: a file is missing or changed, or a graph is not that of the manifest.
    """
    engines = load_engines(bundle, device, threads, progress, trust_plans=trust_plans, tf32=tf32)
    encoders = {m: engines[m] for m in bundle.manifest.modalities}
    found = {name: _signature(engine, f"{bundle.path}: {name}") for name, engine in engines.items()}
    check_modular(bundle.manifest, {m: found[m] for m in encoders}, found["fuser"])
    return encoders, engines["fuser"]


def _signature(engine: Engine, where: str) -> Signature:
    """A graph as the backend understood it: what its file left open may be known now."""
    inputs = {spec.name: spec.shape for spec in engine.inputs}
    return Signature(inputs, {s.name: s.shape for s in engine.outputs}, where).bounded()
