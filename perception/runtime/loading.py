"""Loading a bundle's graphs into the engines of a pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

from perception.errors import BundleError, ConfigError, DeadlineExceededError
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.engines.base import Engine
from perception.runtime.engines.selection import load_engines
from perception.runtime.graph_check import Signature, check_modular
from perception.runtime.subset_fusers import SubsetFusers
from perception.runtime.time_limit import (
    LOAD_TIMEOUT_S,
    MOST_STUCK,
    loading_within,
    stuck_calls,
)
from perception.runtime.trust import signature_required, trusted_keys
from perception.runtime.wiring import FUSER

_LOG = logging.getLogger("anysense.engines")


@dataclass(frozen=True)
class EngineChoices:
    """What engines a pipeline is to have; the arguments of `Pipeline.load` that are about them.

    Raises:
        ConfigError: a time is none, a device no name, or a number of threads none.
    """

    device: str = "auto"
    threads: int | None = None
    trust_plans: bool = False
    tf32: bool = True
    engine_timeout_s: float | None = None
    load_timeout_s: float | None = LOAD_TIMEOUT_S

    def __post_init__(self) -> None:
        if not isinstance(self.device, str):
            what = f"{self.device!r} is no name of a device"
            raise ConfigError(what, where="device", hint="auto, cpu, cuda, or a backend's name")
        threads = self.threads
        if threads is not None and not (isinstance(threads, Integral) and threads >= 1):
            raise ConfigError(
                f"{threads!r} is no number of threads", where="threads", hint="None: all"
            )
        for name in ("engine_timeout_s", "load_timeout_s"):
            given = getattr(self, name)
            if given is not None and not given > 0:  # nor NaN
                raise ConfigError(f"{given!r} s is no time", where=name, hint="None: no limit")

    def load(
        self, bundle: Bundle, progress: Callable[[str], None] | None = None
    ) -> tuple[dict[str, Engine], Engine]:
        """As `load_pipeline_engines`, no graph for longer than it may take.

        Raises:
            DeadlineExceededError: one took longer, or too much that could not be ended still computes.
        """
        if (stuck := stuck_calls()) >= MOST_STUCK:
            raise DeadlineExceededError(
                f"{stuck} runs that could not be ended are still at work in this process",
                where=str(bundle.path),
                hint="start it anew",
                stuck=True,
            )
        with loading_within(self.load_timeout_s):
            return load_pipeline_engines(
                bundle,
                self.device,
                self.threads,
                progress,
                trust_plans=self.trust_plans,
                tf32=self.tf32,
            )


def load_pipeline_engines(
    bundle: Bundle,
    device: str,
    threads: int | None = None,
    progress: Callable[[str], None] | None = None,
    *,
    trust_plans: bool = False,
    tf32: bool = True,
) -> tuple[dict[str, Engine], Engine]:
    """Load a bundle's encoders, by input, and its fuser.

    Inputs that share an encoder share its graph, and each has an execution context of its own.

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
    found = {name: _signature(engine, f"{bundle.path}: {name}") for name, engine in engines.items()}
    fuser = engines.pop(FUSER)
    fuser.specialize(SubsetFusers(bundle.source(bundle.manifest.graphs.fuser.file).read_bytes))
    check_modular(bundle.manifest, {name: found[name] for name in engines}, found[FUSER])
    backends = dict.fromkeys(engine.backend for engine in (*engines.values(), fuser))
    _LOG.info("%s runs on %s", bundle.path, ", ".join(backends))
    first = {encoder: name for name, encoder in reversed(bundle.manifest.inputs.encoders.items())}
    encoders = {
        name: engines[encoder] if first[encoder] == name else engines[encoder].context()
        for name, encoder in bundle.manifest.inputs.encoders.items()
    }
    return encoders, fuser


def opened_bundle(
    bundle: str | Path | Bundle,
    require_signature: bool = False,
    trust: str | Path | None = None,
) -> Bundle:
    """A bundle by path or name, opened and verified; or one that is open already.

    Args:
        bundle: which one.
        require_signature, trust: as for `Bundle.open`.

    Raises:
        BundleError, ConfigError, MissingDependencyError: as `Bundle.open`; or one that is open was opened
            without a look at its signature, or with one for other keys than `trust` names.
    """
    if not isinstance(bundle, Bundle):
        path = find_bundle(str(bundle))
        return Bundle.open(path, require_signature=require_signature, trust=trust)
    if signature_required(require_signature, trust) and bundle.seal is None:
        raise BundleError(
            "was opened without a look at its signature",
            where=str(bundle.path),
            hint="Bundle.open(..., require_signature=True)",
        )
    if trust is not None and bundle.seal is not None:
        keys = {key.id for key in trusted_keys(trust)}
        if bundle.seal.keys.isdisjoint(keys):
            raise BundleError(
                f"was opened for its signature by {', '.join(bundle.signers)}, which is not trusted here",
                where=str(bundle.path),
                hint="Bundle.open(..., trust=) with the same keys",
            )
    if not bundle.verified:
        bundle.verify()
    return bundle


def _signature(engine: Engine, where: str) -> Signature:
    """A graph as the backend understood it: what its file left open may be known now."""
    inputs, outputs = (
        {s.name: s.shape for s in specs} for specs in (engine.inputs, engine.outputs)
    )
    return Signature(inputs, outputs, where).bounded()
