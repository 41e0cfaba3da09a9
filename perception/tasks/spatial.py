"""Points that LiDAR, depth or another sensor of distances measured, in the pixels of a result's picture."""

from __future__ import annotations

from perception.frame import Sample
from perception.geometry.measured import PixelPoints
from perception.sensors.registry import kind_of
from perception.tasks.task import TaskContext

SPATIAL = ("lidar", "depth")
"""Kinds whose points are taken before those of others."""


def spatial_sensor(ctx: TaskContext) -> str | None:
    """The sensor whose points are taken: the first that has the calibration; None for none."""
    found = [(s.kind, name) for name, s in ctx.samples.items() if _measures(s)]
    ordered = [name for kind in SPATIAL for own, name in found if own == kind]
    return next(iter([*ordered, *(name for _, name in found)]), None)


def _measures(sample: Sample) -> bool:
    kind = kind_of(sample.kind)
    placed = sample.camera is not None and (kind.has_picture or sample.extrinsics is not None)
    return kind.points is not None and placed


def pixel_points(sample: Sample, size: tuple[int, int], stride: int = 1) -> PixelPoints | None:
    """The points of a sample with their pixels in the result's picture.

    Args:
        sample: of a kind that measures points.
        size: (height, width) of the picture.
        stride: where they are made of a depth image, every such row and column is taken.

    Returns:
        None when the kind measures none, or the sample lacks the calibration.
    """
    points = kind_of(sample.kind).points
    return None if points is None else points(sample, size, stride)
