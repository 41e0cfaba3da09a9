"""Truth of boxes in space comes to whoever judges it in the vehicle's base frame, whatever the pixels are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from found_boxes import Found
from in_memory import make_recording
from small_bundles import SmallBundles

from perception.data.base import Truth, TruthBoxes3d
from perception.evaluation.evaluate import Scorer
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.runtime.pipeline import Pipeline
from perception.tasks.boxes3d_meter import Boxes3dMeter

AT_LIDAR = TruthBoxes3d.of(
    [[10, 0, -1]], [[4, 2, 1.5]], [0.1], [0], velocity=[[3, 0]], points=[9], frame="roof"
)
# The roof's x looks to the left and its origin is 1 m ahead and 2 m up: base x = 1 - y, base y = x.
ROOF = RigidTransform(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]), np.array([1.0, 0, 2]))
IN_BASE = Found(
    np.array([[1, 10, 1]], np.float32), np.array([[4, 2, 1.5]], np.float32),
    np.array([math.pi / 2 + 0.1], np.float32), np.array([[0, 3]], np.float32),
    np.array([0.9], np.float32), np.array([0]),
)  # fmt: skip


def _scored(folder: Path, rig: Rig, labels_seen: bool = True) -> dict[str, Any]:
    pipeline = Pipeline.load(SmallBundles(folder)(("rgb", "depth"), detection=1), "onnxruntime-cpu")
    classes = pipeline.manifest.tasks["boxes2d"].labels
    recording = make_recording(
        det=[c.name for c in classes], sensors=[("rgb", "depth")], truths=[Truth(boxes3d=AT_LIDAR)]
    )
    recording.rig = rig
    if not labels_seen:
        recording.sees_labels = lambda view: False  # type: ignore[method-assign]
    scorer = Scorer(pipeline, recording)
    scorer.meters["boxes3d"] = Boxes3dMeter(classes, recording.info)
    result = pipeline(recording.frame(0))
    scorer.add(replace(result, values={**result.values, "boxes3d": IN_BASE}), recording.truth(0))
    return scorer.scores()


@pytest.mark.parametrize("labels_seen", [True, False])
def test_boxes_of_a_sensor_s_frame_are_judged_in_the_base(
    labels_seen: bool, tmp_path: Path
) -> None:
    """Also by results in pixels that labels do not show: boxes in space are in nobody's."""
    rig = Rig({"roof": SensorCalibration(kind="lidar", pose=Pose(ROOF))}, "base_link")
    scores = _scored(tmp_path, rig, labels_seen)
    assert scores["judged"] == 1 and scores["map3d"] == pytest.approx(1)
    assert [scores[k] for k in ("trans3d", "orient3d", "vel3d")] == pytest.approx([1] * 3, abs=1e-5)


def test_boxes_of_a_frame_whose_place_nobody_knows_are_no_truth(tmp_path: Path) -> None:
    scores = _scored(tmp_path, Rig({"roof": SensorCalibration(kind="lidar")}))
    assert scores["judged"] == 0 and scores["map3d"] is None
