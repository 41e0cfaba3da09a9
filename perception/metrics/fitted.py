"""What was fitted to a task's outputs, so that its confidence can be trusted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

F = TypeVar("F", bound="Fitted")


class Fitted(ABC):
    """A monotone map of a network's scores, with what the fit came to.

    Attributes:
        nll: negative log-likelihood of the truth with it, in nats, mean over the samples.
        nll_before: the same without it.
        samples: number of them.
    """

    nll: float
    nll_before: float
    samples: int

    @property
    @abstractmethod
    def numbers(self) -> Mapping[str, float]:
        """What it consists of, by name, as tables show it."""

    @abstractmethod
    def rounded(self: F, digits: int) -> F:
        """The same with numbers of so many digits behind the point."""
