"""Which faults training can put on the samples that it learns from."""

from __future__ import annotations

from collections.abc import Mapping

from perception.corruptions.content import faults_of
from perception.corruptions.delivery import DELIVERY
from perception.errors import ConfigError, names_hint
from perception.sensors.registry import kind_of


def grid_faults(kind: str) -> tuple[str, ...]:
    """The faults of a kind's own that `corrupt_grid` knows.

    Raises:
        ConfigError: there is no such kind.
    """
    own = kind_of(kind)
    if own.apply is None:
        return ()
    table = own.faults
    graded = table if isinstance(table, Mapping) else {}
    return tuple(f for f in own.faults if f not in graded or graded[f].layers != "sample")


def check_grid_fault(kind: str, fault: str, where: str) -> None:
    """Refuse a fault that training cannot put on an input of a kind.

    Raises:
        ConfigError: names those that it can, and why a fault that there is besides is none of them.
    """
    if fault in (known := grid_faults(kind)):
        return
    hint = names_hint(fault, known) if known else f"{kind} has none"
    if fault in DELIVERY:
        hint = f"it befalls messages on their way, not what is in them; {hint}"
    elif fault in faults_of(kind):
        hint = f"it is one of samples with a camera and a pose; {hint}"
    raise ConfigError(
        f"{kind} has no fault '{str(fault)[:40]}' in training", where=where, hint=hint
    )
