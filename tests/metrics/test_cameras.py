"""Scores where sensors have names: two cameras of one encoder, and what labels tell of which."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_bundles import GRID, SmallBundles

from export.report import ReportOptions, make_report
from perception.cli.main import main
from perception.data.base import Boxes, RecordingInfo
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.data.layout import FolderInfo
from perception.data.registry import open_recording
from perception.errors import ConfigError
from perception.evaluation.evaluate import Scorer, evaluate_subsets, judged_subsets
from perception.frame import Frame, Kind, Sample
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.runtime.bundle import Bundle, write_bundle
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.sim.sensors import about_z, mount_sensors
from perception.tasks.detections import Detections
from perception.viz.overlay import draw_result

CAMERAS = ("front", "rear")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes of pixels by two cameras that share an encoder."""
    inputs = dict.fromkeys(CAMERAS, ("rgb", "camera"))
    return SmallBundles(tmp_path_factory.mktemp("bundle")).named(inputs)


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1)


def _looking(degrees: float) -> SensorCalibration:
    kinds = {"rgb": "rgb", "other": "rgb"}
    mounted = mount_sensors(GRID, kinds, {"other": degrees})  # type: ignore[arg-type]
    return SensorCalibration(None, mounted["other"].to_other(mounted["rgb"]), kind="rgb")


def _info(**fields: object) -> FolderInfo:
    given = {"name": "two", "size": GRID, "seg_classes": (), "det_classes": (), **fields}
    return folder_info(**{"sensors": dict.fromkeys(CAMERAS, "rgb"), **given})  # type: ignore[arg-type]


def _recording(root: Path, pipeline: Pipeline, degrees: float, labels_of: str) -> FolderRecording:
    """Three frames; labels are what the labeled camera alone is said to show."""
    info = _info(labels_of=labels_of).model_copy(
        update={"seg_classes": pipeline.manifest.seg_classes}
    )
    rig = Rig({"front": SensorCalibration(kind="rgb"), "rear": _looking(degrees)})
    rng = np.random.default_rng(1)
    with FolderWriter(root, info, rig) as out:
        for i in range(3):
            pictures = {n: rng.integers(0, 256, (*GRID, 3), dtype=np.uint8) for n in CAMERAS}
            pipeline.reset()
            found = pipeline({labels_of: Sample("rgb", pictures[labels_of])})
            out.add(f"{i}", pictures, stamp_ns=i * 10**8, labels=found.labels)
    return FolderRecording(root)


@pytest.mark.parametrize("labels_of", CAMERAS)
def test_a_camera_that_looks_elsewhere_is_not_judged_by_anothers_labels(
    labels_of: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    recording = _recording(tmp_path / "r", pipeline, 180, labels_of)
    other = "rear" if labels_of == "front" else "front"
    found = evaluate_subsets(pipeline, recording, [CAMERAS, ("front",), ("rear",)])
    assert found[labels_of]["miou"] == 1.0 and found[labels_of]["judged"] == 3
    assert [found[other][k] for k in ("frames", "answered", "judged", "miou")] == [3, 3, 0, None]
    # All together are given in the pixels of the first, the bundle's reference.
    both = found["front+rear"]
    assert both["judged"] == (3 if labels_of == "front" else 0)
    assert both["miou"] is None or 0 < both["miou"] < 1


def test_a_camera_beside_the_labeled_one_is_judged(pipeline: Pipeline, tmp_path: Path) -> None:
    recording = _recording(tmp_path / "r", pipeline, 3, "front")
    found = evaluate_subsets(pipeline, recording, [("front",), ("rear",)])
    assert found["front"]["miou"] == 1.0
    assert found["rear"]["judged"] == 3 and 0 < found["rear"]["miou"] < 0.9


@pytest.mark.parametrize(("degrees", "sees"), [(0, True), (10, True), (-10, True), (40, False)])
def test_what_looks_the_same_way_sees_the_labels(
    degrees: float, sees: bool, tmp_path: Path
) -> None:
    kinds = {"left": "rgb", "right": "rgb", "depth": "depth", "roof": "lidar"}
    lidar = SensorCalibration(None, RigidTransform(about_z(2.0), np.zeros(3)), kind="lidar")
    rig = Rig({"left": SensorCalibration(kind="rgb"), "right": _looking(degrees), "roof": lidar})
    FolderWriter(tmp_path / "r", _info(sensors=kinds), rig).__exit__(None, None, None)
    recording = FolderRecording(tmp_path / "r")
    # A cloud is projected into the labeled picture; without extrinsics pictures are aligned.
    assert {n: recording.sees_labels(n) for n in kinds} == {
        "left": True,
        "right": sees,
        "depth": True,
        "roof": True,
    }


def test_boxes_are_brought_to_the_labeled_picture(small: SmallBundles, tmp_path: Path) -> None:
    loaded = Pipeline.load(small(detection=3), "onnxruntime-cpu", threads=1)
    sensors = {"rgb": "rgb", "rear": {"kind": "rgb", "height": 20, "width": 30}}
    info = _info(sensors=sensors, size=(60, 60))
    info = info.model_copy(update={"det_classes": loaded.manifest.det_classes})
    with FolderWriter(tmp_path / "r", info) as out:
        box = Boxes.of(np.array([[20, 30, 40, 60]]), np.array([1]))
        out.add("a", rgb=np.zeros((60, 60, 3), np.uint8), stamp_ns=0, boxes=box)
    recording = FolderRecording(tmp_path / "r")
    scorer = Scorer(loaded, recording)
    one = np.ones(1, np.float32), np.ones(1, np.int64)
    sample = Sample("rgb", np.zeros((20, 30, 3), np.uint8), sensor="rear")
    result = Result(
        {"boxes2d": Detections(np.array([[10, 10, 20, 20]], np.float32), *one)},
        ("rear",),
        ("rear",),
        "full",
        {},
        0,
        samples={"rear": sample},
        reference="rear",
    )
    meter = scorer.meters["boxes2d"]
    assert meter.detections(result.boxes, (60, 60), (20, 30)).xyxy.tolist() == [[20, 30, 40, 60]]
    assert meter.detections(result.boxes).xyxy.tolist() == [[10, 10, 20, 20]]
    scorer.add(result, recording.truth(0))
    assert scorer.scores()["ap50"] == pytest.approx(1)


def test_results_are_drawn_on_the_picture_that_they_are_of(pipeline: Pipeline) -> None:
    pictures = {n: np.full((*GRID, 3), 40 + i, np.uint8) for i, n in enumerate(CAMERAS)}
    frame = Frame({n: Sample("rgb", p, i) for i, (n, p) in enumerate(pictures.items())})
    for given, shown in ((frame, "front"), (frame.without("front"), "rear")):
        pipeline.reset()
        result = pipeline(given)
        assert result.reference == shown
        assert np.array_equal(draw_result(pipeline.manifest, frame, result, 0.0), pictures[shown])


def test_only_sensors_of_the_same_name_and_kind_are_shared(pipeline: Pipeline) -> None:
    for sensors, shared in (
        ({"front": "rgb", "rear": "rgb"}, CAMERAS),
        ({"front": "thermal", "rear": "rgb"}, ("rear",)),
        ({"rgb": "rgb"}, ()),
    ):
        info = RecordingInfo("folder", "x", sensors)  # type: ignore[arg-type]
        assert info.shared(pipeline.kinds) == shared


def test_subsets_are_those_that_the_bundle_lists(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest

    def data(**sensors: Kind) -> RecordingInfo:
        return RecordingInfo("folder", "data", sensors)

    both, front = data(front="rgb", rear="rgb"), data(front="rgb", rear="thermal")
    assert judged_subsets(manifest, both) == [CAMERAS, ("front",), ("rear",)]
    assert judged_subsets(manifest, data(rear="rgb")) == [("rear",)]
    few = manifest.model_copy(update={"judged": ("front+rear", "rear")})
    assert judged_subsets(few, both) == [CAMERAS, ("rear",)]
    assert judged_subsets(few, front) == [("front",)]
    wrong = data(front="thermal", rgb="rgb")
    with pytest.raises(ConfigError, match=r": data has no rgb front \(it is thermal\), rear$"):
        judged_subsets(manifest, wrong)


def test_a_report_judges_the_subsets_whose_sensors_are_of_the_bundles_kinds(
    bundle: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _recording(tmp_path / "r", pipeline, 180, "front")
    recording = open_recording("folder", tmp_path / "r")
    options = ReportOptions(("onnxruntime",), frames=1, threads=1)
    few = tmp_path / "few"
    manifest = Bundle.open(bundle).manifest.model_copy(update={"judged": ("front+rear", "rear")})
    shutil.copytree(bundle, few)
    write_bundle(few, manifest)
    for folder, names in ((bundle, ["front+rear", "front", "rear"]), (few, ["front+rear", "rear"])):
        found = make_report(folder, folder, recording, options)
        (row,) = found["backends"].values()
        assert list(row["accuracy"]) == names == list(row["parity"])
    cameras = open_recording("folder", tmp_path / "r")
    monkeypatch.setattr(recording, "frame", lambda index: cameras.frame(index).without("rear"))
    for sensors, names in (
        ({"front": "rgb", "rear": "thermal"}, ["front"]),
        ({"front": "thermal", "rear": "thermal"}, []),
    ):
        recording.info = replace(recording.info, sensors=sensors)
        if names:
            found = make_report(bundle, bundle, recording, options)
            assert list(found["reference"]["accuracy"]) == names
        else:
            with pytest.raises(ConfigError, match=r"has no rgb front \(it is thermal\), rgb rear"):
                make_report(bundle, bundle, recording, options)


def test_eval_takes_names_and_records_beside_the_bundle(
    bundle: Path, pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _recording(tmp_path / "r", pipeline, 180, "front")
    before = (bundle / "bundle.yaml").read_bytes()
    argv = ["eval", str(bundle), "--data", f"folder:{tmp_path / 'r'}", "--device", "cpu"]
    out = tmp_path / "e.json"
    assert main([*argv, "--all-subsets", "--record", "--json", str(out)]) == 0
    found = json.loads(out.read_text())["subsets"]
    assert list(found) == ["front+rear", "front", "rear"]
    assert found["front"]["miou"] == 1.0 and found["rear"]["miou"] is None
    assert "in the view of a subset" in capsys.readouterr().out
    assert (bundle / "bundle.yaml").read_bytes() == before
    (entry,) = Bundle.open(bundle).records.accuracy.values()
    assert entry["subsets"]["front"]["miou"] == 1.0
    assert main([*argv, "--subset", "rear", "--json", str(out)]) == 0
    assert list(json.loads(out.read_text())["subsets"]) == ["rear"]
    assert main([*argv, "--subset", "front,left"]) == 2
    assert (
        "--subset: 'left' is not in both bundle and data (one of front, rear)"
        in capsys.readouterr().err
    )
    backends = [*argv, "--backends", "onnxruntime", "--record"]
    assert main([*backends, "--subset", "front"]) == 2
    assert "needs every subset" in capsys.readouterr().err
    (bundle / "records.yaml").unlink()


def test_data_without_the_bundles_sensors_is_refused(
    bundle: Path, pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = _info(sensors={"rgb": "rgb"})
    info = info.model_copy(update={"seg_classes": pipeline.manifest.seg_classes})
    with FolderWriter(tmp_path / "r", info) as out:
        labels = np.zeros(GRID, np.uint8)
        out.add("a", rgb=np.zeros((*GRID, 3), np.uint8), stamp_ns=0, labels=labels)
    argv = ["eval", str(bundle), "--data", f"folder:{tmp_path / 'r'}", "--device", "cpu"]
    assert main(argv) == 2
    assert "takes none of the sensors of folder:" in capsys.readouterr().err
