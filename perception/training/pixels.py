"""What cameras learn of pixels besides: how far away things stand, as was measured, and what they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from perception.data.base import TruthBoxes3d
from perception.frame import Sample
from perception.geometry.boxes import inside
from perception.geometry.grid import GridMap, ViewSpec
from perception.geometry.lifting import TABLE_STRIDE, log_range, places, positions

Float32 = NDArray[np.float32]

_ABOVE_M = 0.1  # what is lower in a box may be the ground
UNKNOWN, NOTHING, FIRST_CLASS = 0, 1, 2


def named_points(
    points: NDArray[np.floating], boxes: TruthBoxes3d
) -> tuple[NDArray[np.float64], Float32]:
    """What points belong to.

    Args:
        points: (N, C >= 3) metres in the base frame.
        boxes: of things, in the base frame.

    Returns:
        (N, 2) metres, where the thing that each belongs to stands, or the point itself; and (N,) 0 for what
        is to be ignored, 1 for nothing in particular, 2 and more for the boxes' classes.
    """
    xyz = np.asarray(points[:, :3], np.float64)
    at, names = xyz[:, :2].copy(), np.full(len(points), NOTHING, np.float32)
    order = np.argsort(points[:, 0], kind="stable")
    ahead = xyz[order, 0]
    for k in range(len(boxes.class_ids)):
        one = boxes.chosen(np.array([k]))
        center, size = one.center[0], one.size[0]
        reach = np.hypot(size[0], size[1]) / 2
        near = order[slice(*np.searchsorted(ahead, (center[0] - reach, center[0] + reach)))]
        own = near[inside(xyz[near], one.center, one.size, one.yaw)[0]]
        own = own[xyz[own, 2] > center[2] - size[2] / 2 + _ABOVE_M]
        names[own] = UNKNOWN if one.ignore[0] else FIRST_CLASS + one.class_ids[0]
        at[own] = center[:2]
    return at, names


def pixel_truth(
    sample: Sample,
    view: ViewSpec,
    points: NDArray[np.floating],
    named: tuple[NDArray[np.float64], Float32],
) -> Float32:
    """What is known of a picture's pixels at the stride of tables.

    Args:
        sample: the picture, with its camera and pose.
        view: its input's.
        points: (N, C >= 3) metres in the base frame.
        named: of these, see `named_points`.

    Returns:
        (2, h, w): logarithm of the distance over the ground from the camera, see `Lift`, and names as those
        of points, of the nearest point in each position; 0 where there is none.
    """
    assert sample.camera is not None and sample.pose is not None
    camera, pose = sample.camera, sample.pose
    grid = GridMap.fit((camera.height, camera.width), view)
    optical = pose.inverse().apply(np.asarray(points[:, :3], np.float64))
    place = positions(view, grid, camera.scaled(*grid.scale), optical)
    which = np.flatnonzero(place < places(view))
    which = which[np.argsort(-np.square(optical[which]).sum(axis=1), kind="stable")]
    at, names = named
    out = np.zeros((2, places(view)), np.float32)
    out[0, place[which]] = log_range(np.hypot(*(at[which] - pose.translation[:2]).T))
    out[1, place[which]] = names[which]
    return out.reshape(2, view.height // TABLE_STRIDE, view.width // TABLE_STRIDE)


def pixel_truths(
    samples: Mapping[str, Sample],
    views: Mapping[str, ViewSpec],
    points: Float32,
    boxes: TruthBoxes3d,
) -> dict[str, Float32]:
    """See `pixel_truth`, of all pictures among the samples."""
    xyz = points[:, :3].astype(np.float64)  # once for all of them
    named = named_points(xyz, boxes)
    return {
        name: pixel_truth(sample, views[name], xyz, named)
        for name, sample in samples.items()
        if sample.camera is not None and views[name].type == "image"
    }
