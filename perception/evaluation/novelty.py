"""What features are like on frames like those of training, so that a bundle knows what is far from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from perception.data.base import Recording
from perception.errors import ConfigError, DataError
from perception.evaluation.confidence import next_version
from perception.evaluation.dealing import Dealt, Half
from perception.frame import Sample
from perception.runtime.engines.base import on_host
from perception.runtime.manifest import BundleManifest, check_manifest
from perception.runtime.networks import Encoded
from perception.runtime.novelty import (
    ChannelStatistics,
    InputNovelty,
    NoveltyScore,
    channel_means,
)
from perception.runtime.pipeline import Pipeline
from perception.runtime.records import MANIFEST

BEYOND = 0.01
"""Share of frames like those of training that lie beyond the limit."""

BANDS = 2
"""Above and below: enough to tell a picture that is upside down."""

RESOLUTIONS = 2
"""Of features, the coarsest: they tell most of a scene and cost least; the next ones know blur and noise."""

LEAST_FRAMES = 8
"""Fewer frames tell no standard deviation."""

DIGITS = 5
"""Significant ones of what is written."""

SMALLEST = 1e-3
"""Of the largest standard deviation of a feature's channels: less is taken for this, as of channels that say
nothing on these frames."""

Step = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FittedNovelty:
    """What came of it.

    Attributes:
        manifest: of the bundle with what was found, beside what it knew of other inputs.
        novelty: by input.
        frames: by input, to how many the statistics were fitted.
        fitted: what they were fitted to.
        limited: the half of the held-out frames that the limits are of.
        judged: the other half; with `folds` both are all of them.
        beyond: by input, the share of its frames that lie beyond the limit.
        backend: that computed it.
        folds: into how many parts held-out scenes were dealt out, each judged by the limit that the others
            give; None for halves.
    """

    manifest: BundleManifest
    novelty: Mapping[str, InputNovelty]
    frames: Mapping[str, int]
    fitted: Recording
    limited: Half
    judged: Half
    beyond: Mapping[str, float]
    backend: str
    folds: int | None = None


def fit_novelty(
    pipeline: Pipeline,
    recording: Recording,
    held_out: Recording,
    *,
    block: int | None = None,
    folds: int | None = None,
    version: str | None = None,
    on_step: Step = lambda what, done, total: None,
) -> FittedNovelty:
    """Fit statistics of features to frames like those of training, and limits to others.

    Args:
        pipeline: the bundle's.
        recording: frames to fit to; those that it was trained on will do.
        held_out: frames that it was not trained on: limits are of one half of their scenes, and the other
            half says what share lies beyond.
        block: see `perception.evaluation.dealing.dealt_out`.
        folds: of few held-out frames: limits are of all, and the share of each of so many parts of their
            scenes that lies beyond is by the limit that the others give.
        version: of the bundle with them; None for the next one.
        on_step: told what is being done, how far it is and how far it will be.

    Raises:
        ConfigError: bundle and recordings have no sensor in common.
        DataError: there are too few frames, or held-out frames of one scene only.
        EngineError: the backend failed.
    """
    manifest = pipeline.manifest
    dealt = Dealt.of(held_out, folds, block)
    names = tuple(s for s in pipeline.sensors if s in recording.info.shared(pipeline.kinds))
    if not names:
        raise ConfigError(
            f"{recording.info.name} has none of its sensors", where=f"bundle {manifest.name}"
        )
    found = described(pipeline, recording, on_step, "fitting")
    statistics, counts = {}, {}
    for sensor in names:
        own = found.get(sensor, {})
        counts[sensor] = len(next(iter(own.values()), ()))
        if counts[sensor] < LEAST_FRAMES:
            raise DataError(
                f"{counts[sensor]} usable frames of {sensor}, {LEAST_FRAMES} are the least",
                where=recording.info.name,
            )
        features = {name: statistics_of(rows) for name, rows in coarsest(own).items()}
        statistics[sensor] = InputNovelty(
            features=MappingProxyType(features), bands=BANDS, limit=1.0
        )
    scores = [
        _scores(described(pipeline, part.recording, on_step, what), statistics)
        for part, what in zip(dealt.parts, _steps(folds), strict=True)
    ]
    novelty, beyond = {}, {}
    for sensor, known in statistics.items():
        halves = [one[sensor] for one in scores]
        if not all(map(len, halves)):
            what = "part" if folds else "half"
            raise DataError(f"no usable frame of {sensor} in a {what}", where=held_out.info.name)
        name = pipeline.inputs[sensor]
        novelty[name] = known.model_copy(update={"limit": _limit(dealt.to_fit(halves))})
        beyond[name] = _share_beyond(dealt.rounds(halves))
    changed = with_novelty(
        manifest,
        novelty,
        next_version(manifest.version) if version is None else version,
        str(pipeline.bundle.path / MANIFEST),
    )
    by_input = {pipeline.inputs[s]: n for s, n in counts.items()}
    return FittedNovelty(
        changed,
        novelty,
        by_input,
        recording,
        dealt.fitted,
        dealt.judged,
        beyond,
        pipeline.backend,
        dealt.folds,
    )


def _steps(folds: int | None) -> list[str]:
    """What is being done with each part of the held-out frames."""
    return [f"part {n + 1} of {folds}" for n in range(folds)] if folds else ["limits", "judging"]


def _limit(distances: Sequence[NDArray[np.float64]]) -> float:
    """What 99 of 100 of all of them stay below."""
    return _rounded(float(np.quantile(np.concatenate(distances), 1 - BEYOND)))


def _share_beyond(
    rounds: Sequence[tuple[Sequence[NDArray[np.float64]], NDArray[np.float64]]],
) -> float:
    """The share of what is judged that lies beyond the limits of what it is judged by."""
    far = sum(int((own > _limit(others)).sum()) for others, own in rounds)
    return far / sum(len(own) for _, own in rounds)


def with_novelty(
    manifest: BundleManifest, novelty: Mapping[str, InputNovelty], version: str, where: str
) -> BundleManifest:
    """A manifest that knows these, too, or others of the same inputs.

    Raises:
        BundleError: it would be no manifest: a version is no short text, or an input none of its own.
    """
    content = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    content["novelty"] = {
        **content.get("novelty", {}),
        **{name: own.model_dump(mode="json") for name, own in novelty.items()},
    }
    return check_manifest({**content, "version": version}, where)


def described(
    pipeline: Pipeline, recording: Recording, on_step: Step, what: str
) -> dict[str, dict[str, list[tuple[int, NDArray[np.float32]]]]]:
    """By sensor and feature, of every usable frame the feature's cells and its `channel_means`."""
    views, total = pipeline.manifest.inputs.views(pipeline.inputs), len(recording)
    found: dict[str, dict[str, list[tuple[int, NDArray[np.float32]]]]] = {}
    for index in range(total):
        frame = recording.seen(index, views)
        for sensor in pipeline.sensors:
            encoded = features_of(pipeline, frame[sensor]) if sensor in frame else None
            for name, feature in encoded.items() if encoded is not None else ():
                if feature.ndim >= 2:
                    cells = int(np.prod(feature.shape[2:]))
                    row = (cells, channel_means(feature, BANDS))
                    found.setdefault(sensor, {}).setdefault(name, []).append(row)
        on_step(what, index + 1, total)
    pipeline.reset()
    return found


def features_of(pipeline: Pipeline, sample: Sample) -> dict[str, NDArray[np.float32]] | None:
    """What the encoder makes of one sample alone, by the fuser's names; None where it is not usable."""
    pipeline.reset()
    found = pipeline.encode(sample, trust=True)
    return on_host(found.features) if isinstance(found, Encoded) else None  # type: ignore[return-value]


def coarsest(
    found: Mapping[str, list[tuple[int, NDArray[np.float32]]]],
) -> dict[str, NDArray[np.float32]]:
    """(N, ...) means of the first feature of each of the `RESOLUTIONS` with the fewest cells."""
    first: dict[int, str] = {}
    for name, rows in found.items():
        first.setdefault(rows[0][0], name)
    chosen = [first[cells] for cells in sorted(first)[:RESOLUTIONS]]
    return {name: np.stack([row for _, row in found[name]]) for name in chosen}


def statistics_of(rows: NDArray[np.float32]) -> ChannelStatistics:
    """Of (N, ...) channel means of N frames."""
    mean, std = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    std = np.maximum(std, max(SMALLEST * float(std.max()), 1e-12))
    return ChannelStatistics(
        mean=tuple(_rounded(float(v)) for v in mean), std=tuple(_rounded(float(v)) for v in std)
    )


def _scores(
    found: Mapping[str, Mapping[str, list[tuple[int, NDArray[np.float32]]]]],
    statistics: Mapping[str, InputNovelty],
) -> dict[str, NDArray[np.float64]]:
    """By sensor, (N,) distances of its frames."""
    out = {}
    for sensor, known in statistics.items():
        own = {n: rows for n, rows in found.get(sensor, {}).items() if n in known.features}
        each = zip(*own.values(), strict=True) if own else ()
        rows = [dict(zip(own, (r for _, r in row), strict=True)) for row in each]
        score = NoveltyScore(known)
        out[sensor] = np.array([score.distance(row) for row in rows], np.float64)
    return out


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
