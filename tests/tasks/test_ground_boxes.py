"""Boxes of a network on the ground: peaks become boxes where they are, and nothing else does."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry.grid import BirdseyeSpec
from perception.runtime.manifest import check_manifest
from perception.tasks.boxes3d import BOXES3D, Boxes3d, Boxes3dSpec
from perception.tasks.centers import decode_centers
from perception.tasks.registry import drawn, usual_parts, with_implied
from perception.tasks.specs import TaskSpecs
from perception.tasks.task import TaskContext

SPEC = BirdseyeSpec(x=(-12.8, 12.8), y=(-12.8, 12.8), cell_m=0.4)
SHAPE = (32, 32)
CLASSES = [
    {"id": 0, "name": "car", "color": [255, 0, 0]},
    {"id": 1, "name": "person", "color": [0, 255, 0]},
]

Boxes = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.floats(-12.7, 12.7),
        st.floats(-12.7, 12.7),
        st.floats(-3.1, 3.1),
        st.floats(0.5, 0.99),
    ),
    max_size=6,
    unique_by=lambda b: (round(b[1] / 4), round(b[2] / 4)),
)


def maps(boxes, size=(1.0, 0.8, 1.5)):
    """What a network says that sees these boxes: (class, x, y, yaw, score)."""
    heatmap = np.full((2, *SHAPE), -8.0, np.float32)
    fields = np.zeros((10, *SHAPE), np.float32)
    for kind, x, y, yaw, score in boxes:
        i, j = (x + 12.8) / 0.8, (y + 12.8) / 0.8
        row, column = int(i), int(j)
        heatmap[kind, row, column] = np.log(score / (1 - score))
        logs = np.log(size)
        fields[:, row, column] = [
            *(i - row - 0.5, j - column - 0.5, 0.7, *logs),
            *(3 * np.sin(yaw), 3 * np.cos(yaw), x / 10, -1.5),
        ]
    return heatmap, fields


@given(Boxes)
@settings(deadline=None)
def test_boxes_come_back(boxes):
    cells = {(int((b[1] + 12.8) / 0.8), int((b[2] + 12.8) / 0.8)) for b in boxes}
    apart = all(a == b or max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 2 for a in cells for b in cells)
    if not apart or len(cells) < len(boxes):
        return
    found = decode_centers(*maps(boxes), SPEC, min_score=0.3, most=100)
    wanted = sorted(boxes, key=lambda b: -np.float32(np.log(b[4] / (1 - b[4]))))
    assert len(found.scores) == len(boxes)
    for values in zip(
        found.center, found.size, found.yaw, found.velocity, found.scores, wanted, strict=True
    ):
        center, size, yaw, velocity, score, (_, x, y, angle, sure) = values
        np.testing.assert_allclose(score, sure, atol=1e-3)
        if [b[4] for b in boxes].count(sure) == 1:
            np.testing.assert_allclose(center, [x, y, 0.7], atol=1e-3)
            np.testing.assert_allclose(yaw, angle, atol=1e-3)
            np.testing.assert_allclose(velocity, [x / 10, -1.5], atol=1e-4)
        np.testing.assert_allclose(size, [1.0, 0.8, 1.5], rtol=1e-4)
    again = decode_centers(*maps(boxes), SPEC, min_score=0.3, most=100)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(found, again, strict=True))


def test_beside_a_peak_is_none_and_another_class_may_be():
    heatmap, fields = maps([(0, 0.1, 0.1, 0, 0.9)])
    heatmap[0, 15:18, 15:18] = np.maximum(heatmap[0, 15:18, 15:18], 1.0)
    heatmap[1, 16, 16] = 1.0
    found = decode_centers(heatmap, fields, SPEC, min_score=0.3, most=100)
    assert found.class_ids.tolist() == [0, 1]
    corner = np.full((1, *SHAPE), -9.0, np.float32)
    corner[0, 0, 0] = corner[0, -1, -1] = 2.0  # the edges of the map have fewer neighbours
    assert len(decode_centers(corner, fields, SPEC, min_score=0.3, most=100).scores) == 2


def plainly_apart(boxes):
    """One by one, best first: which of them lie in no better one of their class that stays."""
    kept = []
    for i in range(len(boxes.scores)):
        hidden = False
        for k in kept:
            dx, dy = (boxes.center[i] - boxes.center[k])[:2].astype(float)
            cos, sin = np.cos(float(boxes.yaw[k])), np.sin(float(boxes.yaw[k]))
            length, width = boxes.size[k, :2] / 2
            within = abs(cos * dx + sin * dy) <= length and abs(cos * dy - sin * dx) <= width
            hidden |= within and boxes.class_ids[k] == boxes.class_ids[i]
        kept += [] if hidden else [i]
    return kept


@given(st.integers(0, 2**32 - 1), st.sampled_from([-3.0, 0.0, 1.5]), st.integers(1, 60))
@settings(deadline=None)
def test_crowds_are_thinned_as_one_by_one(seed, logit, most):
    rng = np.random.default_rng(seed)
    heatmap = rng.normal(logit, 1.0, (2, *SHAPE)).astype(np.float32)
    fields = rng.normal(0, 0.7, (10, *SHAPE)).astype(np.float32)
    every = decode_centers(heatmap, fields, SPEC, min_score=0.1, most=10_000, apart=False)
    found = decode_centers(heatmap, fields, SPEC, min_score=0.1, most=most)
    wanted = plainly_apart(every)[:most]
    assert found.scores.tobytes() == every.scores[wanted].tobytes()
    assert found.center.tobytes() == every.center[wanted].tobytes()


def test_the_weaker_of_two_in_one_footprint_goes():
    boxes = [(0, 0.1, 0.1, 1.57, 0.9), (0, 0.1, 2.2, 1.57, 0.8), (0, 2.2, 0.1, 1.57, 0.7)]
    heatmap, fields = maps(boxes, (5.0, 2.0, 1.5))
    found = decode_centers(heatmap, fields, SPEC, min_score=0.3, most=100)
    # It is 5 m long to the left and 2 m wide ahead: the second lies in it, the third does not.
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-5)
    whole = decode_centers(heatmap, fields, SPEC, min_score=0.3, most=100, apart=False)
    assert len(whole.scores) == 3
    assert len(decode_centers(heatmap, fields, SPEC, min_score=0.3, most=1).scores) == 1
    assert len(decode_centers(heatmap, fields, SPEC, min_score=0.85, most=9).scores) == 1


def test_wild_outputs_stay_finite():
    heatmap = np.zeros((2, *SHAPE), np.float32)
    fields = np.full((10, *SHAPE), 1e6, np.float32)
    found = decode_centers(heatmap, fields, SPEC, min_score=0.0, most=50)
    assert np.isfinite(found.size).all()
    assert (found.size <= 100).all()
    nothing = decode_centers(heatmap - 50, fields, SPEC, min_score=0.1, most=50)
    assert len(nothing.scores) == 0
    assert nothing.center.shape == (0, 3)


def spec(**about) -> Boxes3dSpec:
    return Boxes3dSpec.model_validate({"classes": CLASSES, "birdseye": SPEC, **about})


def decoded(confidence=1.0, min_score=None, **about) -> Boxes3d:
    heatmap, fields = maps([(0, 4.0, -2.0, 0.5, 0.9), (1, -3.0, 6.0, 0, 0.2)])
    ctx = TaskContext(
        spec=spec(**about),
        reference="roof",
        grids={},
        samples={},
        fresh=frozenset(),
        inputs=("roof",),
        values={},
        parts=frozenset({"boxes3d"}),
        confidence=confidence,
        min_score=min_score,
        base_frame="base_footprint",
    )
    return BOXES3D.decode({"boxes3d_heatmap": heatmap[None], "boxes3d_fields": fields[None]}, ctx)


def test_the_task_gives_boxes_in_the_base_frame():
    found = decoded()
    assert found.in_base
    assert found.frame_id == "base_footprint"
    assert found.index.tolist() == [-1, -1]
    assert len(decoded(score_threshold=0.5)) == 1
    assert len(decoded(score_threshold=0.5, min_score=0.01)) == 2
    assert len(decoded(max_boxes=1)) == 1
    np.testing.assert_allclose(decoded(confidence=0.5).scores, found.scores / 2)
    told = BOXES3D.to_dict(found, spec())
    json.dumps(told, allow_nan=False)
    assert told["boxes3d_frame"] == "base_footprint"
    first = told["boxes3d"][0]
    assert first["class"] == "car"
    assert first["center_m"] == pytest.approx([4.0, -2.0, 0.7], abs=2e-3)
    assert first["yaw_rad"] == pytest.approx(0.5, abs=1e-3)
    assert first["velocity_m_s"] == pytest.approx([0.4, -1.5], abs=1e-3)
    assert len(BOXES3D.above(found, spec(), 0.5)) == 1
    assert [(c.name, text) for c, text in BOXES3D.present(found, spec())] == [
        ("car", "1"),
        ("person", "1"),
    ]
    corners = found.corners()
    np.testing.assert_allclose(corners.mean(axis=1), found.center, atol=1e-5)


def test_a_bundle_may_consist_of_it():
    specs = TaskSpecs.model_validate(
        {"boxes3d": {"classes": CLASSES, "birdseye": SPEC.model_dump()}}
    )
    assert list(specs.every) == ["boxes3d"]
    assert usual_parts(specs.every) == {"boxes3d"}
    assert drawn(specs.every) == {"boxes3d"}
    with pytest.raises(ValueError, match="needs segmentation"):
        TaskSpecs.model_validate({"boxes3d": {"classes": CLASSES}})
    lifted = with_implied(
        {"boxes2d": TaskSpecs.model_validate({"boxes2d": {"classes": CLASSES}})["boxes2d"]}
    )
    assert list(lifted) == ["boxes2d", "boxes3d"]
    assert "boxes3d" not in usual_parts(lifted)
    assert usual_parts(lifted, usual=False) >= {"boxes3d"}


def test_a_grid_that_is_not_the_inputs_is_refused():
    ground = {"x": [-12.8, 12.8], "y": [-12.8, 12.8], "cell_m": 0.4}
    content = {
        "schema": 2,
        "name": "ground",
        "inputs": {"lidar": {"kind": "lidar", "view": {"type": "birdseye", "birdseye": ground}}},
        "tasks": {"boxes3d": {"classes": CLASSES, "birdseye": {**ground, "cell_m": 0.8}}},
        "graphs": {
            "encoders": {"lidar": {"file": "e.onnx"}},
            "fuser": {"file": "f.onnx"},
            "presence": ["lidar"],
        },
        "files": {"e.onnx": "0" * 64, "f.onnx": "0" * 64},
    }
    with pytest.raises(Exception, match="tasks.boxes3d.birdseye"):
        check_manifest(content, "bundle.yaml")
    content["tasks"]["boxes3d"]["birdseye"] = ground
    assert check_manifest(content, "bundle.yaml").inputs.birdseye is not None
    content["tasks"]["boxes3d"] = {"birdseye": ground}
    with pytest.raises(Exception, match="boxes on the ground need classes"):
        check_manifest(content, "bundle.yaml")
