"""Which frames of a batch are computed when and where: parts one after the other, shares by the ranks."""

from __future__ import annotations

from collections.abc import Sequence

from perception.errors import ConfigError
from perception.training.config import TrainConfig
from perception.training.distributed import ALONE, Ranks


def parts_of(batch: Sequence[int], size: int) -> list[list[int]]:
    """What is computed at once, of `size` frames each; a frame that would be alone is there twice.

    One frame has no statistics that a normalization could use, see `SensorBatches`.
    """
    parts = [list(batch[start : start + size]) for start in range(0, len(batch), size)]
    return [part if len(part) > 1 or size == 1 else part * 2 for part in parts]


def share_of(part: Sequence[int], size: int, ranks: Ranks = ALONE) -> list[int]:
    """The frames of this rank.

    The shares of all ranks, one after the other, are the part, and then its frames once more until all shares
    are equal; in a part of fewer than `size` also of two frames at least.  What is beyond the part counts for
    nothing.
    """
    if not ranks.several:
        return list(part)
    length = max(-(-len(part) // ranks.size), 2 if len(part) < size else 1)
    start = ranks.rank * length
    return [part[place % len(part)] for place in range(start, start + length)]


def part_size(config: TrainConfig, batch: int) -> int:
    """Frames of a part of a batch of this size."""
    return max(1, batch // config.accumulate)


def require_even(config: TrainConfig, ranks: Ranks, *, synchronized: bool) -> None:
    """Refuse batches that have no equal shares.

    Args:
        config: of the run.
        ranks: that share each part of a batch.
        synchronized: normalizations take the statistics of all ranks together.

    Raises:
        ConfigError: a batch does not divide, or leaves too few frames to take statistics of.
    """
    pieces = ranks.size * config.accumulate
    if pieces == 1:
        return
    among = f"{ranks.size} processes" if ranks.several else ""
    among += " and " * bool(among and config.accumulate > 1)
    among += f"accumulate {config.accumulate}" if config.accumulate > 1 else ""
    for phase in config.resolution:
        if phase.batch % pieces:
            raise ConfigError(
                f"a batch of {phase.batch} does not divide by {pieces} ({among})",
                where="resolution.batch",
            )
        own = phase.batch // (config.accumulate if synchronized else pieces)
        if own < 2 and not phase.freeze_norm:
            raise ConfigError(
                f"a batch of {phase.batch} leaves one frame at a time ({among}): normalization needs two",
                where="resolution.batch",
                hint="fewer processes, a smaller accumulate, or freeze_norm",
            )
