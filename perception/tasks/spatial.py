"""Points that LiDAR, depth or another sensor of distances measured, in the pixels of a result's picture."""

from __future__ import annotations

import numpy as np

from perception.frame import KINDS, Sample
from perception.geometry.measured import PixelPoints
from perception.geometry.sights import Sight
from perception.sensors.registry import kind_of
from perception.tasks.task import TaskContext


def spatial_sensor(ctx: TaskContext) -> str | None:
    """The sensor whose points are taken: of those that have the calibration the first of our kinds that
    measures points, else the first of ours that gives pictures, else the first; None for none.
    """
    found = [name for name, sample in ctx.samples.items() if _measures(sample)]

    def rank(name: str) -> tuple[bool, bool]:
        kind = ctx.samples[name].kind
        return kind not in KINDS, kind_of(kind).has_picture and kind in KINDS

    return min(found, key=rank, default=None)


def _measures(sample: Sample) -> bool:
    kind = kind_of(sample.kind)
    placed = sample.camera is not None and (kind.has_picture or sample.extrinsics is not None)
    return kind.points is not None and placed


def seen_points(ctx: TaskContext, name: str) -> PixelPoints | None:
    """The points of a sensor with their pixels in the picture that the result is given in.

    Those of a picture that was warped are projected into the reference's camera; occlusion is not
    resolved, as for a LiDAR's.

    Returns:
        None when the kind measures none, or a calibration is lacking.
    """
    sample, size = ctx.samples[name], ctx.grid.source
    if name not in ctx.placed:
        return pixel_points(sample, size, ctx.stride)
    reference = ctx.samples.get(ctx.reference)
    here, there = Sight.of(sample), None if reference is None else Sight.of(reference)
    found = pixel_points(sample, sample.data.shape[:2], ctx.stride)
    if found is None or here is None or there is None:
        return None
    optical = here.to(there).apply(found.points)
    u, v, valid = there.camera.project_columns(*optical.T)
    height, width = there.size
    with np.errstate(invalid="ignore"):
        valid &= (u > -0.5) & (v > -0.5) & (u < width - 0.5) & (v < height - 0.5)
    keep = np.flatnonzero(valid)
    column, row = (np.rint(a[keep]).astype(np.int32) for a in (u, v))
    return PixelPoints(found.points[keep], optical[keep], column, row)


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
