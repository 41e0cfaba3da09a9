"""Memory of processes beside this one, parted into what is theirs alone and what others have, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
from soak import growth


@dataclass(frozen=True)
class Reading:
    """Resident memory of a process in bytes.

    Attributes:
        at_s: when it was read.
        resident: all of it (RSS).
        private: pages that no other process has mapped (USS): heap, stacks, and what only this process has
            touched of files and of segments in shared memory.
    """

    at_s: float
    resident: int
    private: int

    @property
    def shared(self) -> int:
        """Pages that others have mapped, too: libraries, and segments of the middleware."""
        return self.resident - self.private


EVERY_S = 10.0
"""Between readings: one goes through all pages of the process, 10 to 30 ms for a node."""

PARTS = ("private", "shared")


def memory_of(process: psutil.Process, at_s: float) -> Reading:
    """What a process holds now.

    Raises:
        psutil.Error: it is gone, or of somebody else.
    """
    found = process.memory_full_info()
    # They are counted one after the other, while the process goes on.
    return Reading(at_s, found.rss, min(found.uss, found.rss))


def over_time(readings: Sequence[Reading]) -> dict[str, list[tuple[float, int]]]:
    """Each part, with its times."""
    return {name: [(r.at_s, getattr(r, name)) for r in readings] for name in PARTS}


def memory_parts(readings: Sequence[Reading], warm_up_s: float) -> dict[str, float]:
    """At the end, and by how much each part grew after the warm-up by a straight line, in MiB."""
    found: dict[str, float] = {}
    for name, values in over_time(readings).items():
        _, line = growth(values, warm_up_s)
        later = [at for at, _ in values if at >= warm_up_s] or [0.0]
        found[f"{name}_mb"] = round(values[-1][1] / 2**20, 1)
        found[f"{name}_grew_mb"] = round(float(line[0]) * (later[-1] - later[0]) / 2**20, 1)
    return found
