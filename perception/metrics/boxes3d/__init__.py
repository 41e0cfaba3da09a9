"""Accuracy of 3D boxes as the fields' own programs measure it: nuScenes' and KITTI's, on one matching."""

from perception.metrics.boxes3d.kitti import KittiScore, LabeledObjects, kitti_score
from perception.metrics.boxes3d.nuscenes import NuScenesScore, PlacedBoxes, matched, nuscenes_score

__all__ = [
    "KittiScore",
    "LabeledObjects",
    "NuScenesScore",
    "PlacedBoxes",
    "kitti_score",
    "matched",
    "nuscenes_score",
]
