"""By how much the stamps of two sensors differ, from the turns that both saw.

The offset is the shift in time at which one's rates of turning are best told from the other's.  Its spread
comes from drawing parts of the recording again and again (bootstrap by blocks: Kunsch, Annals of Statistics,
1989), and what parts that do not belong together reach says what is chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.outcome import Doubted
from calibration.timing.likelihood import Shifted
from calibration.timing.motion import Motion
from perception.geometry.transforms import Float64

SHORTEST_S = 10.0
MOST_SIGMA_MS = 10.0
MOST_DRIFT_PPM = 20.0
WITHIN_MS = 500.0

_FEWEST_BLOCKS = 8
_DRAWS, _SHUFFLES = 200, 60
_ABOVE_CHANCE = 6.0  # deviations of what chance reaches
_MOST_ASTRAY, _NEARLY = 0.02, 0.9
_SYSTEMATIC = 0.01  # periods of the slower sensor that the method itself may be off


@dataclass(frozen=True)
class TimeOffset(Doubted):
    """The offset of one sensor's stamps from another's.

    Attributes:
        offset_ns: added to the sensor's stamps it brings them to the reference's clock, as `time_offset_ns`
            of a rig does; at the middle of the recording.
        sigma_ns: its standard deviation; inf where unknown.
        drift_ppm, drift_sigma_ppm: by how much the offset grows, in millionths of the time; NaN and inf
            where unknown.
        correlation: between the two sensors' rates of turning at the offset, 0 to 1, of a typical axis.
        seconds: in which the turns of both are known.
        doubts: why it is not to be trusted.
    """

    offset_ns: int
    sigma_ns: float
    drift_ppm: float
    drift_sigma_ppm: float
    correlation: float
    seconds: float
    doubts: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "offset_ns": self.offset_ns,
            "sigma_ns": self.sigma_ns,
            "drift_ppm": self.drift_ppm,
            "drift_sigma_ppm": self.drift_sigma_ppm,
            "correlation": self.correlation,
            "seconds": self.seconds,
            "trusted": self.trusted,
            "doubts": list(self.doubts),
        }


def time_offset(
    reference: Motion,
    sensor: Motion,
    *,
    base_ns: int = 0,
    within_ms: float = WITHIN_MS,
    seed: int = 0,
) -> TimeOffset:
    """Find the offset of a sensor's stamps.

    Args:
        reference: of the sensor whose clock counts.
        sensor: of the other.
        base_ns: what is added to its stamps beforehand, where its clock is another one.
        within_ms: how far from that it is looked for.
        seed: of the draws; the same give the same answer.
    """
    pair = Shifted(reference, sensor, base_ns, within_ms / 1e3)
    if pair.seconds < SHORTEST_S or pair.blocks < _FEWEST_BLOCKS:
        known = f"the turns of both are known for {pair.seconds:.1f} s of one time"
        doubt = f"{known}: record {3 * SHORTEST_S:.0f} s"
        return TimeOffset(base_ns, np.inf, np.nan, np.inf, 0.0, pair.seconds, (doubt,))
    rng = np.random.default_rng(seed)
    scores = pair.scores(pair.gram.sum(axis=1))
    peak = pair.peak(scores)
    even = np.full(pair.blocks, 1 / pair.blocks)
    weights: Float64 = rng.multinomial(pair.blocks, even, _DRAWS).astype(np.float64)
    drawn = pair.scores(np.einsum("db,lbij->dlij", weights, pair.gram, optimize=True))
    peaks = np.array([pair.peak(one) for one in drawn])
    near = np.abs(peaks - peak) < 3 * pair.lobe_s
    sigma = _spread(peaks[near], pair.blocks) if near.sum() > _DRAWS / 4 else np.inf
    sigma = float(np.hypot(sigma, _SYSTEMATIC * pair.period_s))
    drift, drifts = pair.drift(pair.gram, weights, peak)
    # What the method may be off need not be the same at both ends.
    drift_sigma = float(
        np.hypot(_spread(drifts, pair.blocks), _SYSTEMATIC * pair.period_s / pair.middles.std())
    )
    doubts = (
        *_chance(pair, float(scores.max()), rng),
        *_ambiguous(pair, scores, peak, float(1 - near.mean())),
        *_inexact(sigma, drift * 1e6, drift_sigma * 1e6),
    )
    return TimeOffset(
        base_ns + round(peak * 1e9),
        sigma * 1e9,
        drift * 1e6,
        drift_sigma * 1e6,
        _correlation(pair, float(scores.max())),
        pair.seconds,
        doubts,
    )


def _spread(values: Float64, blocks: int) -> float:
    """Standard deviation of what draws gave; wider where few blocks were drawn from (Student's t)."""
    from scipy.stats import t

    two_sigma = 0.9772
    return float(np.std(values, ddof=1) * t.ppf(two_sigma, blocks - 1) / 2)


def _correlation(pair: Shifted, score: float) -> float:
    """That of one axis with one, of which as many as there are would score so."""
    axes = min(pair.axes, pair.others)
    return float(np.sqrt(1 - np.exp(-2 * max(score, 0.0) / axes)))


def _chance(pair: Shifted, score: float, rng: np.random.Generator) -> Iterator[str]:
    chance = pair.by_chance(rng, _SHUFFLES)
    if score < chance.mean() + _ABOVE_CHANCE * chance.std() or score < 1.2 * chance.max():
        found, usual = _correlation(pair, score), _correlation(pair, float(chance.mean()))
        yield (
            f"the sensors' turns agree no better (correlation {found:.2f}) than chance does (about "
            f"{usual:.2f}): turn the robot to and fro while recording, both looking at what stands still"
        )


def _ambiguous(pair: Shifted, scores: Float64, peak: float, astray: float) -> Iterator[str]:
    lags = pair.lags
    if min(peak - lags[0], lags[-1] - peak) < 2 * pair.lobe_s:
        most = lags[-1] * 1e3
        yield f"the best offset lies at the end of those that were looked at ({most:.0f} ms): --within-ms"
        return
    inner = scores[1:-1]
    tops = 1 + np.flatnonzero((inner >= scores[:-2]) & (inner > scores[2:]))
    others = [int(top) for top in tops if abs(lags[top] - peak) > 2 * pair.lobe_s]
    second = max(others, key=lambda top: float(scores[top]), default=None)
    best = _correlation(pair, float(scores.max()))
    nearly = second is not None and _correlation(pair, float(scores[second])) > _NEARLY * best
    if second is not None and (nearly or astray > _MOST_ASTRAY):
        gap = (lags[second] - peak) * 1e3
        yield f"{gap:+.0f} ms from it fits nearly as well: the motion repeats itself; turn at irregular times"
    elif astray > _MOST_ASTRAY:
        yield "parts of the recording tell different offsets"


def _inexact(sigma: float, drift: float, drift_sigma: float) -> Iterator[str]:
    if not sigma <= MOST_SIGMA_MS / 1e3:
        yield f"known to {sigma * 1e3:.0f} ms only, not to {MOST_SIGMA_MS:.0f}: record longer, turn faster"
    if abs(drift) > max(MOST_DRIFT_PPM, 3 * drift_sigma):
        yield (
            f"the offset grows by {drift:+.0f} ppm (sigma {drift_sigma:.0f}), {abs(drift) * 3.6:.0f} ms in "
            "an hour: none stays right; synchronize the clocks (PTP, NTP)"
        )
