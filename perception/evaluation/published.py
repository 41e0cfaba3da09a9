"""Published robustness of other models, by the benchmark whose scenarios ours are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "Liao et al., CVPR Workshops 2025 (arXiv 2503.18445), tables of their repository"
DATA = "other: DELIVER, 4 sensors"


@dataclass(frozen=True)
class SpaceRival:
    """A detector's published numbers where sensors of a vehicle are missing, from 0 to 1.

    Attributes:
        name: of the detector.
        score: what was measured, as nuScenes calls it.
        rows: by what failed, in the order of the source; `clean` is with all sensors in order, and `mean of
            inputs` that over both kinds of sensors, LiDAR alone and cameras alone.
        source: which table.
    """

    name: str
    score: str
    rows: Mapping[str, float]
    source: str


SPACE_DATA = "other: nuScenes, 6 cameras and a LiDAR of 32 beams"
_UNIBEV = "Wang et al., IEEE Intelligent Vehicles 2024 (arXiv 2309.14516), abstract"

SPACE_RIVALS = (
    SpaceRival(
        "MoME",
        "NDS",
        {
            "clean": 0.736,
            "LiDAR with 4 beams": 0.630,
            "no LiDAR": 0.482,
            "LiDAR sees 60° to each side": 0.583,
            "no camera": 0.695,
        },
        "Park et al., CVPR 2025 (arXiv 2503.19776), table of their repository: beam reduction, LiDAR drop, "
        "limited FOV, view drop of all cameras",
    ),
    SpaceRival("UniBEV", "mAP", {"mean of inputs": 0.525}, _UNIBEV),
    SpaceRival("MetaBEV", "mAP", {"mean of inputs": 0.487}, f"as measured by {_UNIBEV}"),
    SpaceRival("BEVFusion", "mAP", {"mean of inputs": 0.435}, f"as measured by {_UNIBEV}"),
)
"""What their sources say in numbers; UniBEV's own scores of each set of sensors are not among them."""


@dataclass(frozen=True)
class Rival:
    """A model's published numbers, mean IoU from 0 to 1.

    Attributes:
        name: of the model.
        clean_full: with all four sensors.  The tables do not say it: it follows from means and expectations,
            as the mean scores of one, two, three and four sensors solve four linear equations.
        mean_subsets: over the 15 sets of sensors.
        emm: expected, by probability.
        rmm: mean, by share of the data that is missing; they took 0.25, 0.5 and 0.75.
        nm: by level of noise.
    """

    name: str
    clean_full: float
    mean_subsets: float
    emm: Mapping[str, float]
    rmm: Mapping[str, float]
    nm: Mapping[str, float]


def _rival(
    name: str,
    full: float,
    mean: float,
    emm: tuple[float, float, float],
    rmm: tuple[float, float, float],
    nm: tuple[float, float, float],
) -> Rival:
    def named(names: tuple[str, ...], values: tuple[float, ...]) -> dict[str, float]:
        return {n: round(v / 100, 6) for n, v in zip(names, values, strict=True)}

    return Rival(
        name,
        full / 100,
        mean / 100,
        named(("0.05", "0.1", "0.2"), emm),
        named(("0.25", "0.5", "0.75"), rmm),
        named(("low", "mid", "high"), nm),
    )


RIVALS = (
    _rival(
        "CMNeXt", 66.3, 37.90, (63.38, 60.41, 54.46), (53.61, 47.49, 42.17), (35.23, 16.37, 2.31)
    ),
    _rival(
        "GeminiFusion", 66.9, 37.07, (63.77, 60.62, 54.33), (49.74, 42.41, 39.78), (5.52, 4.14, 3.3)
    ),
    _rival(
        "MAGIC", 66.1, 44.97, (64.47, 62.68, 58.66), (51.61, 48.19, 45.30), (24.03, 13.31, 3.98)
    ),
    _rival(
        "MAGIC++", 67.3, 44.85, (65.50, 63.52, 59.18), (53.92, 49.31, 47.06), (33.12, 18.31, 8.70)
    ),
    _rival(
        "StitchFusion",
        68.2,
        41.98,
        (65.80, 63.29, 58.02),
        (53.10, 48.33, 45.16),
        (24.91, 17.11, 9.25),
    ),
)
"""In the order in which the tables have them."""
