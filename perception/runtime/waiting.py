"""Samples on their way through a stream, and what is known of each."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from perception.frame import Sample
from perception.runtime.networks import Encoded


@dataclass
class Ticket:
    """What belongs to a sample while it waits.

    Attributes:
        arrived_ns: when it arrived.
        source_ns: its stamp as it came, without the sensor's offset.
        encoded: its features, once they are known.
        pending: set while it is encoded on another thread.
        fate: as what the sample was counted; empty while that is open.
    """

    arrived_ns: int
    source_ns: int
    encoded: Encoded | None = None
    pending: Future[Encoded | None] | None = None
    fate: str = ""

    @property
    def usable(self) -> bool:
        """Whether the sample can be used, as far as is known."""
        return self.encoded is not None or self.pending is not None


@dataclass(frozen=True)
class WaitingSample(Sample):
    """A sample with its ticket, which goes through the collector with it."""

    ticket: Ticket = field(default_factory=lambda: Ticket(0, 0))
