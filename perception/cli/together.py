"""Commands that `torchrun` starts as several processes: which do that, and which of them speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from perception.errors import ConfigError

if TYPE_CHECKING:
    from perception.training.distributed import Ranks

T = TypeVar("T")

COMMANDS = ("train", "pretrain", "distill")
"""Those that several processes may run together."""

_MODULE = "perception.training.distributed"


def several() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def follows() -> bool:
    """Whether this process is one of several, and not the first, which alone reports."""
    return several() and os.environ.get("RANK", "0") != "0"


def require_alone(what: str) -> None:
    """Refuse what one process does.

    Raises:
        ConfigError: `torchrun` started several.
    """
    if several():
        raise ConfigError("runs in one process", where=what, hint="start it without torchrun")


def may_end_with_a_line() -> bool:
    """Whether this process is to say why a command ends: of several the first that would.

    Before they have met, they fail alike, and the first rank says it.
    """
    module = sys.modules.get(_MODULE)
    if module is not None and module.here().several:
        first: bool = module.may_speak()
        return first
    return not follows()


def join() -> Ranks | None:
    """Meet the other processes; None where there are none.

    Raises:
        LostRankError: they cannot be reached.
    """
    if not several():
        return None
    from perception.training.distributed import join as meet

    return meet()


def leave() -> None:
    """Part from the other processes."""
    if (module := sys.modules.get(_MODULE)) is not None:
        module.leave()


def first_then_others(work: Callable[[], T]) -> T:
    """Do what makes files: the first process makes them, the others find them."""
    ranks = join()
    if ranks is None:
        return work()
    if ranks.first:
        done = work()
        ranks.told(None)
        return done
    ranks.told(None)
    return work()
