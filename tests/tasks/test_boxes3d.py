"""Labeled points and 3D boxes against scenes whose geometry is known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from small_bundles import SmallBundles, fuser

from perception.cli.main import main
from perception.errors import BundleError, ConfigError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.measured import PixelPoints
from perception.geometry.rig import Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform
from perception.runtime.bundle import Bundle
from perception.runtime.manifest import check_manifest
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.boxes3d import lift_boxes
from perception.tasks.detections import Detections
from perception.tasks.spatial import pixel_points

BENT = (-0.2, 0.05, 0.001, 0.0, 0.0)
CAMERA = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5)
TO_OPTICAL = RigidTransform(
    np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float), np.array([0.0, -0.5, 0.0])
)


def _boxes(*xyxy: tuple[float, float, float, float]) -> Detections:
    count = len(xyxy)
    corners = np.array(xyxy, np.float32).reshape(-1, 4)
    return Detections(corners, np.ones(count, np.float32), np.zeros(count, int))


def _wall_with_a_box() -> Sample:
    depth = np.full((96, 128), 10.0, np.float32)
    depth[30:60, 40:80] = 4.0
    depth[0, :] = np.nan
    return Sample("depth", depth, camera=CAMERA)


def test_depth_points_lie_where_their_pixels_look() -> None:
    found = pixel_points(_wall_with_a_box(), (96, 128), stride=2)
    assert found is not None
    assert len(found.points) == 47 * 64
    uv, valid = CAMERA.project(found.points)
    assert valid.all()
    assert np.allclose(uv, np.stack([found.column, found.row], axis=1), atol=1e-3)


def test_distorted_depth_points_too() -> None:
    bent = CameraModel(128, 96, 100.0, 100.0, 63.5, 47.5, "plumb_bob", (-0.2, 0.05, 0.0, 0.0, 0.0))
    found = pixel_points(
        Sample("depth", np.full((96, 128), 3.0, np.float32), camera=bent), (96, 128)
    )
    assert found is not None
    uv, _ = bent.project(found.points)
    assert np.abs(uv - np.stack([found.column, found.row], axis=1)).max() < 0.01


def test_lidar_points_keep_their_own_frame() -> None:
    points = np.array([[10, 0, 0, 1], [10, 3, 1, 1], [-10, 0, 0, 1], [10, 50, 0, 1]], np.float32)
    sample = Sample("lidar", points, camera=CAMERA, extrinsics=TO_OPTICAL)
    found = pixel_points(sample, (192, 256))  # a result of twice the camera's size
    assert found is not None
    assert np.array_equal(found.points, points[:2, :3])
    uv, _ = CAMERA.project(TO_OPTICAL.apply(points[:2, :3]))
    expected = np.floor((uv + 0.5) * 2)
    assert np.array_equal(np.stack([found.column, found.row], axis=1), expected)


def test_boxes_get_the_distance_of_what_fills_them() -> None:
    found = pixel_points(_wall_with_a_box(), (96, 128))
    assert found is not None
    lifted = lift_boxes(found, _boxes((40, 30, 80, 60), (200, 200, 220, 220)), CAMERA)
    assert lifted.index.tolist() == [0]
    assert lifted.center[0, 2] == pytest.approx(4.0)
    assert lifted.size[0, :2] == pytest.approx([40 / 100 * 4, 30 / 100 * 4])
    assert lifted.center[0, 0] == pytest.approx((60 - 63.5) / 100 * 4, abs=1e-5)


def test_a_wall_behind_the_object_is_not_the_object() -> None:
    found = pixel_points(_wall_with_a_box(), (96, 128))
    assert found is not None
    loose = lift_boxes(found, _boxes((36, 26, 84, 64)), CAMERA)
    assert loose.center[0, 2] == pytest.approx(4.0)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.booleans())
def test_boxes_are_those_of_looking_at_every_point_for_each(
    seed: int, bent: bool, far: bool
) -> None:
    rng = np.random.default_rng(seed)
    camera = replace(CAMERA, distortion_model="plumb_bob", distortion=BENT) if bent else CAMERA
    count, boxes = rng.integers(0, 800), rng.integers(0, 12)
    optical = rng.normal(size=(count, 3)).astype(np.float32)
    optical[:, 2] = rng.uniform(0, 1, count) ** 8 * 2e5 if far else rng.uniform(0.1, 20, count)
    column, row = rng.integers(0, 128, count), rng.integers(0, 96, count)
    points = PixelPoints(optical, optical, column.astype(np.int32), row.astype(np.int32))
    corner, size = rng.uniform(0, 110, (boxes, 2)), rng.uniform(0, 80, (boxes, 2))
    xyxy = np.hstack([corner, corner + size]).astype(np.float32)
    xyxy = np.round(xyxy) if rng.random() < 0.5 else xyxy
    got = lift_boxes(points, _boxes(*xyxy), camera)
    wanted = []
    for i, (left, top, right, bottom) in enumerate(xyxy):
        dx, dy = (right - left) * 0.4 / 2, (bottom - top) * 0.4 / 2
        inside = (column >= left + dx) & (column < right - dx)
        inside &= (row >= top + dy) & (row < bottom - dy)
        z = optical[inside, 2]
        if len(z) < 3:
            continue
        bins = np.floor(z / 0.5)
        values, counts = np.unique(bins, return_counts=True)
        near = z[np.abs(bins - values[counts.argmax()]) <= 1]
        middle = float(np.median(near))
        (x0, y0, _), (x1, y1, _) = camera.unproject([[left, top], [right, bottom]], middle)
        if np.isfinite([x0, y0, x1, y1]).all():
            half = ((x0 + x1) / 2, (y0 + y1) / 2, middle)
            wanted.append((i, half, (x1 - x0, y1 - y0, np.ptp(near))))
    assert got.index.tolist() == [i for i, *_ in wanted]
    if wanted:
        assert np.array_equal(got.center, np.array([c for _, c, _ in wanted], np.float32))
        sizes = np.maximum(np.array([s for *_, s in wanted]), 0.1).astype(np.float32)
        assert np.array_equal(got.size, sizes)


def test_without_calibration_there_are_no_points() -> None:
    assert pixel_points(Sample("depth", np.ones((4, 4), np.float32)), (4, 4)) is None
    lidar = Sample("lidar", np.ones((4, 4), np.float32), camera=CAMERA)
    assert pixel_points(lidar, (4, 4)) is None


BUNDLE = {"rgb": ("rgb", "camera"), "depth": ("depth", "depth"), "lidar": ("lidar", "lidar")}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whose boxes are some pixels large, and kept however little the network thinks of them."""

    def edit(content: dict[str, Any]) -> None:
        content["tasks"]["boxes2d"]["score_threshold"] = 0.01

    graph = fuser(tuple(BUNDLE), 3, 2, presence=tuple(BUNDLE), separator=".")
    (head,) = (node for node in graph.graph.node if node.output[0] == "det_box_8")
    head.output[0] = "sides"
    one = onnx.numpy_helper.from_array(np.ones((), np.float32), "one")
    graph.graph.initializer.append(one)
    graph.graph.node.append(onnx.helper.make_node("Abs", ["sides"], ["least"]))
    graph.graph.node.append(onnx.helper.make_node("Add", ["least", "one"], ["det_box_8"]))
    small, graphs = SmallBundles(tmp_path_factory.mktemp("spatial")), {"fuser.onnx": graph}
    return small.named(BUNDLE, detection=2, graphs=graphs, edit=edit)


@pytest.fixture
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1)


def _frame(**changed: Sample) -> dict[str, Sample]:
    rng = np.random.default_rng(2)
    points = rng.uniform((4, -3, -2, 0), (12, 3, 2, 1), (4000, 4)).astype(np.float32)
    return {
        "rgb": Sample("rgb", rng.integers(0, 256, (96, 128, 3), dtype=np.uint8), camera=CAMERA),
        "depth": Sample("depth", rng.uniform(2, 6, (96, 128)).astype(np.float32), camera=CAMERA),
        "lidar": Sample("lidar", points, camera=CAMERA, extrinsics=TO_OPTICAL),
        **changed,
    }


def test_whoever_asks_gets_boxes_in_space_and_labeled_points(pipeline: Pipeline) -> None:
    assert pipeline.parts - pipeline.wanted == {"boxes3d", "points", "energy"}
    plain, frame = pipeline(_frame()), _frame()
    assert plain.boxes is not None and plain.boxes3d is None and plain.points is None
    pipeline.wanted |= {"boxes3d"}
    pipeline.reset()
    first = pipeline(_frame())
    pipeline.wanted, pipeline.points_stride = pipeline.parts, 1
    pipeline.reset()
    result = pipeline(frame)
    assert result.boxes is not None and result.points is not None and result.boxes3d is not None
    found = pixel_points(frame["lidar"], (96, 128))
    assert found is not None and result.points.sensor == "lidar"
    assert np.array_equal(result.points.points, found.points)
    assert np.array_equal(result.points.labels, result.labels[found.row, found.column])  # type: ignore[index]
    wanted = lift_boxes(found, result.boxes, CAMERA)
    for got in (first.boxes3d, result.boxes3d):
        assert got is not None and len(got) > 3 and np.array_equal(got.center, wanted.center)
        assert np.array_equal(got.size, wanted.size)
        assert np.array_equal(got.scores, result.boxes.scores[got.index])
        assert np.array_equal(got.class_ids, result.boxes.class_ids[got.index])


@pytest.mark.parametrize(
    ("wanted", "values"),
    [
        ({"boxes3d"}, {"boxes2d", "boxes3d"}),
        ({"points"}, {"segmentation", "points"}),
        ({"boxes"}, {"boxes2d"}),
        (set(), set()),
    ],
)
def test_what_it_is_made_of_is_made_with_it_and_no_more(
    pipeline: Pipeline, wanted: set[str], values: set[str]
) -> None:
    pipeline.wanted = frozenset(wanted)
    assert pipeline(_frame()).values.keys() == values


def test_of_lidar_and_depth_lidar_and_of_those_without_a_place_none(pipeline: Pipeline) -> None:
    pipeline.wanted = pipeline.parts
    frame = _frame()
    for names, sensor in ((("rgb", "depth"), "depth"), (("rgb", "depth", "lidar"), "lidar")):
        pipeline.reset()
        found = pipeline({n: frame[n] for n in names})
        assert found.points is not None and found.points.sensor == sensor
        assert found.boxes3d is not None
    pipeline.reset()
    nowhere = Sample("depth", frame["depth"].data)
    result = pipeline({"rgb": frame["rgb"], "depth": nowhere})
    assert result.used == ("rgb", "depth")
    assert result.boxes3d is None and result.points is None and result.boxes is not None


def test_a_sample_s_points_are_labeled_once(pipeline: Pipeline) -> None:
    pipeline.wanted = pipeline.parts
    encoded = {n: pipeline.encode(s.named(n)) for n, s in _frame().items()}
    about = Result(
        present=tuple(encoded), stamp_ns=1, samples=_frame(), source_ns=dict.fromkeys(encoded, 1)
    )
    for fresh in (frozenset({"rgb"}), frozenset({"rgb", "lidar"})):
        result = pipeline.fuse(encoded, replace(about, fresh=fresh))  # type: ignore[arg-type]
        assert (result.points is not None) == ("lidar" in fresh)
        assert result.boxes3d is not None


def test_without_boxes_there_are_none_in_space(tmp_path: Path) -> None:
    plain = SmallBundles(tmp_path).named(BUNDLE, detection=0)
    with pytest.raises(ConfigError, match="wanted: 'boxes3d' is no part of a result .*confidence"):
        Pipeline.load(plain, "onnxruntime-cpu", wanted={"boxes3d"})
    result = Pipeline.load(plain, "onnxruntime-cpu", threads=1)(_frame())
    assert result.boxes3d is None and "boxes3d" not in Bundle.open(plain).manifest.tasks.every


def test_a_bundle_may_name_them_and_is_the_same(bundle: Path, pipeline: Pipeline) -> None:
    content = yaml.safe_load((bundle / "bundle.yaml").read_text())
    content["tasks"] |= {"boxes3d": {}, "points": {}}
    named = check_manifest(content, "m").tasks
    assert [*named] == ["segmentation", "boxes2d", "points", "boxes3d"]
    assert named.every == pipeline.manifest.tasks.every
    del content["tasks"]["segmentation"]
    with pytest.raises(BundleError, match="points needs segmentation"):
        check_manifest(content, "m")
    with pytest.raises(BundleError, match="needs segmentation or boxes2d"):
        check_manifest({**content, "tasks": {"boxes3d": {}}}, "m")


def test_run_writes_them(bundle: Path, tmp_path: Path) -> None:
    frame = _frame()
    cv2.imwrite(str(tmp_path / "rgb.png"), frame["rgb"].data)
    np.save(tmp_path / "depth.npy", frame["depth"].data)
    rig = {"depth": SensorCalibration(camera=CAMERA), "rgb": SensorCalibration(camera=CAMERA)}
    save_rig(Rig(rig), tmp_path / "rig.yaml")
    line = ["run", "--bundle", str(bundle), "--rgb", str(tmp_path / "rgb.png")]
    line += ["--depth", str(tmp_path / "depth.npy"), "--rig", str(tmp_path / "rig.yaml")]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    said = json.loads((tmp_path / "out" / "result.json").read_text())
    assert said["boxes"] and said["boxes3d"]
    one = said["boxes3d"][0]
    assert one["class"] == said["boxes"][one["box"]]["class"]
    assert one["score"] == said["boxes"][one["box"]]["score"]
    assert 1.9 < one["center_m"][2] < 6.1 and len(one["size_m"]) == 3
    points = said["points"]
    assert points["sensor"] == "depth" and points["count"] == sum(points["classes"].values())
    assert points["count"] == 48 * 64


def test_replay_says_where_boxes_are(bundle: Path, simulated: Path, tmp_path: Path) -> None:
    bag, out = tmp_path / "bag", tmp_path / "out"
    assert main(["record", "--data", f"folder:{simulated}", "--out", str(bag)]) == 0
    line = ["replay", str(bag), "--bundle", str(bundle), "--out", str(out), "--device", "cpu"]
    assert main(line) == 0
    rows = [json.loads(row) for row in (out / "status.jsonl").read_text().splitlines()]
    assert rows and all(len(row["boxes3d"]) <= row["boxes"] for row in rows)
    assert any(row["boxes3d"] for row in rows) and not any("points" in row for row in rows)
