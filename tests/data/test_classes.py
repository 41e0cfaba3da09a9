"""Class tables: an id means the class of its row, wherever the row stands and whatever the id is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.data import open_recording
from perception.data.base import Boxes, ClassInfo, RecordingInfo
from perception.data.check import check_folder
from perception.data.classes import ClassTable, require_same_classes
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.errors import ConfigError, DataError
from perception.evaluation.evaluate import Scorer
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.detections import Detections
from perception.tasks.segmentation import Segmentation
from perception.tasks.specs import TaskSpecs

tables = st.lists(st.integers(0, 254), min_size=1, max_size=20, unique=True)


def _classes(ids: Sequence[int], prefix: str = "c") -> list[ClassInfo]:
    return [ClassInfo(i, f"{prefix}{i}", (i, 1, 2)) for i in ids]


@given(tables, st.integers(0, 2**32 - 1))
def test_a_label_is_the_class_with_its_id(ids: list[int], seed: int) -> None:
    table = ClassTable.of(_classes(ids))
    labels = np.random.default_rng(seed).choice([*ids, 255], (5, 7)).astype(np.uint8)
    positions = table.positions(labels)
    for value, position in zip(labels.flat, positions.flat, strict=True):
        if value == 255:
            assert position == 255
        else:
            assert table.classes[position].name == f"c{value}"
            assert table.classes[position].id == position
    assert np.array_equal(table.labels(positions), labels)


@given(st.integers(1, 255).flatmap(lambda n: st.permutations(range(n))))
def test_ids_from_zero_stay_what_they_are(ids: list[int]) -> None:
    labels = np.arange(len(ids), dtype=np.uint8)
    assert np.array_equal(ClassTable.of(_classes(ids)).positions(labels), labels)


@given(tables, st.integers(0, 254))
def test_an_id_without_a_row_is_refused(ids: list[int], other: int) -> None:
    table = ClassTable.of(_classes(ids))
    labels = np.array([[ids[0], other]], np.uint8)
    if other in ids:
        table.positions(labels)
    else:
        with pytest.raises(DataError, match=rf"label {other} is no class id"):
            table.positions(labels, "a.png")


@pytest.mark.parametrize(
    ("ids", "text"), [((0, 1, 2), "0..2"), ((1, 2, 3), "1..3"), ((0, 1, 5), "0, 1, 5"), ((4,), "4")]
)
def test_the_ids_in_words(ids: tuple[int, ...], text: str) -> None:
    assert ClassTable.of(_classes(ids)).described() == text


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([(0, "a"), (1, "b"), (1, "c")], "id 1 is given twice"),
        ([(0, "a"), (1, "b"), (2, "a")], "name 'a' is given twice"),
        ([(0, "a"), (255, "b")], "255"),
        ([(-1, "a")], "-1|greater"),
    ],
)
def test_tables_that_say_two_things_are_refused(
    rows: list[tuple[int, str]], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=fault):
        ClassTable.of([ClassInfo(i, n, (1, 2, 3)) for i, n in rows])
    for task in ("seg_classes", "det_classes"):
        table = [{"id": i, "name": n, "color": [1, 2, 3]} for i, n in rows]
        root = _folder(tmp_path / task, **{task: table})
        with pytest.raises(DataError, match=r"dataset\.yaml: ") as caught:
            open_recording("folder", root)
        assert task in str(caught.value)


def test_impossible_colors_are_refused() -> None:
    with pytest.raises(DataError, match="color of 'a'"):
        ClassTable.of([ClassInfo(0, "a", (1, 2, 300))])


def test_a_recording_whose_ids_are_no_positions_is_refused() -> None:
    RecordingInfo("own", "own", ("rgb",), seg_classes=tuple(_classes((0, 1))))
    for ids in ((1, 2), (1, 0), (0, 0)):
        with pytest.raises(DataError, match="seg_classes"):
            RecordingInfo("own", "own", ("rgb",), seg_classes=tuple(_classes(ids)))
    twice = tuple(ClassInfo(i, "same", (1, 2, 3)) for i in (0, 1))
    with pytest.raises(DataError, match="det_classes: a class name"):
        RecordingInfo("own", "own", ("rgb",), det_classes=twice)


def _folder(root: Path, **fields: object) -> Path:
    """A recording of one 64x96 picture `a`."""
    info = {"schema": 1, "name": "t", "modalities": ["rgb"], "height": 64, "width": 96, **fields}
    for folder in ("rgb", "labels", "boxes"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "dataset.yaml").write_text(yaml.safe_dump(info))
    (root / "frames.csv").write_text("id,stamp_ns,tags\na,1,\n")
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    assert cv2.imwrite(str(root / "rgb/a.png"), picture)
    return root


@pytest.mark.parametrize("ids", [(0, 1, 2), (1, 2, 3), (2, 1, 0), (0, 1, 5), (200, 7, 254)])
def test_folders_number_their_classes_as_they_like(ids: tuple[int, ...], tmp_path: Path) -> None:
    table = [{"id": i, "name": f"c{i}", "color": [i, 2, 3]} for i in ids]
    root = _folder(tmp_path, seg_classes=table, det_classes=table)
    labels = np.resize(np.array([*ids, 255], np.uint8), (64, 96))
    assert cv2.imwrite(str(root / "labels/a.png"), labels)
    (root / "boxes/a.txt").write_text("".join(f"{i} 0.5 0.5 0.2 0.2\n" for i in ids))
    recording = open_recording("folder", root)
    truth = recording.truth(0)
    names = [c.name for c in recording.info.seg_classes]
    wanted = [255 if v == 255 else names.index(f"c{v}") for v in labels.flat]
    assert truth.labels.reshape(-1).tolist() == wanted
    found = [recording.info.det_classes[k].name for k in truth.boxes.class_ids]
    assert found == [f"c{i}" for i in ids]
    assert [c.color[0] for c in recording.info.seg_classes] == sorted(ids)
    assert check_folder(root) == []


def test_ids_outside_the_table_are_found(tmp_path: Path) -> None:
    table = [{"id": i, "name": f"c{i}", "color": [i, 2, 3]} for i in (1, 5)]
    root = _folder(tmp_path, seg_classes=table, det_classes=table)
    assert cv2.imwrite(str(root / "labels/a.png"), np.full((64, 96), 3, np.uint8))
    (root / "boxes/a.txt").write_text("1 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0.2\n")
    found = {f.where: f.message for f in check_folder(root)}
    assert "label 3" in found["labels/a.png"] and "1, 5" in found["labels/a.png"]
    assert "no class 0" in found["boxes/a.txt:2"] and "(1, 5)" in found["boxes/a.txt:2"]
    with pytest.raises(DataError, match=r"a\.png"):
        open_recording("folder", root).truth(0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=10)
@given(ids=tables, seed=st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_again(
    ids: list[int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("written") / "rec"
    classes = tuple(_classes(ids))
    info = folder_info(
        size=(8, 12), seg_classes=classes, det_classes=classes, name="t", modalities=("rgb",)
    )
    labels = rng.choice([*range(len(ids)), 255], (8, 12)).astype(np.uint8)
    kinds = rng.integers(0, len(ids), 3)
    boxes = Boxes.of(np.array([[1, 1, 4, 4]] * 3, np.float32), kinds)
    with FolderWriter(root, info) as writer:
        writer.add("a", stamp_ns=1, rgb=np.zeros((8, 12, 3), np.uint8), labels=labels, boxes=boxes)
    stored = cv2.imread(str(root / "labels/a.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(stored)) <= {*ids, 255}
    truth = FolderRecording(root).truth(0)
    assert np.array_equal(truth.labels, labels)
    assert np.array_equal(truth.boxes.class_ids, kinds)


def _renumbered(simulated: Path, root: Path) -> Path:
    """The recording with its classes numbered and listed otherwise."""
    shutil.copytree(simulated, root)
    info = yaml.safe_load((root / "dataset.yaml").read_text())
    new = {row["id"]: 3 + 7 * row["id"] for row in info["seg_classes"]}
    for row in info["seg_classes"]:
        row["id"] = new[row["id"]]
    info["seg_classes"].reverse()
    info["det_classes"] = [{**row, "id": 9 - row["id"]} for row in info["det_classes"]]
    (root / "dataset.yaml").write_text(yaml.safe_dump(info))
    table = np.full(256, 255, np.uint8)
    table[list(new)] = list(new.values())
    for path in (root / "labels").iterdir():
        cv2.imwrite(str(path), table[cv2.imread(str(path), cv2.IMREAD_UNCHANGED)])
    for path in (root / "boxes").iterdir():
        rows = [line.split() for line in path.read_text().splitlines()]
        path.write_text("".join(f"{9 - int(r[0])} {' '.join(r[1:])}\n" for r in rows))
    for path in (root / "boxes3d").iterdir():
        boxes = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump([{**box, "class": 9 - box["class"]} for box in boxes]))
    return root


def test_scores_do_not_hang_on_the_numbering(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    """A perfect result scores 100 on both, by class."""
    pipeline = Pipeline.load(tiny_bundle, "onnxruntime-cpu", threads=1)
    original = open_recording("folder", simulated)
    scores = []
    for recording in (original, open_recording("folder", _renumbered(simulated, tmp_path / "r"))):
        scorer = Scorer(pipeline, recording)
        for index in range(3):
            truth = original.truth(index)
            boxes = Detections(
                truth.boxes.xyxy, np.ones(len(truth.boxes.xyxy), np.float32), truth.boxes.class_ids
            )
            result = Result(
                values={"segmentation": Segmentation(truth.labels), "boxes2d": boxes},
                used=("rgb",),
                present=("rgb",),
                state="full",
                health={},
                stamp_ns=0,
            )
            scorer.add(result, recording.truth(index))
        scores.append(scorer.scores())
    assert scores[0]["miou"] == 1.0 and scores[0]["ap50"] == pytest.approx(1.0)
    renumbered = scores[1]
    assert renumbered["miou"] == 1.0 and renumbered["ap50"] == pytest.approx(1.0)
    assert renumbered["per_class"] == scores[0]["per_class"]


def test_a_bundle_may_list_its_classes_in_any_order(tiny_bundle: Path, simulated: Path) -> None:
    pipeline = Pipeline.load(tiny_bundle, "onnxruntime-cpu", threads=1)
    recording = open_recording("folder", simulated)
    wanted = Scorer(pipeline, recording)
    tasks = pipeline.manifest.tasks
    turned = {
        task: spec.model_copy(update={"classes": spec.classes[::-1]})
        for task, spec in tasks.items()
        if spec.classes
    }
    changed = TaskSpecs({**tasks.root, **turned})
    pipeline.manifest = pipeline.manifest.model_copy(update={"tasks": changed})
    found = Scorer(pipeline, recording)
    for task, meter in wanted.meters.items():
        assert np.array_equal(found.meters[task].map, meter.map), task
    assert {"segmentation", "boxes2d"} <= wanted.meters.keys()
    assert wanted.meters["segmentation"].map[:8].tolist() == list(range(8))


def _info(seg: Sequence[str] = (), det: Sequence[str] = ()) -> RecordingInfo:
    seg_classes, det_classes = (
        tuple(ClassInfo(i, n, (1, 2, 3)) for i, n in enumerate(names)) for names in (seg, det)
    )
    return RecordingInfo("folder", "t", ("rgb",), seg_classes, det_classes)


def test_recordings_with_other_tables_do_not_go_together() -> None:
    both = ("segmentation", "boxes2d")
    have = _info("abc", "xy")
    for fine in (_info("abc", "xy"), _info("abc"), _info()):
        require_same_classes(have, fine, both, what="the run", where="--data")
    require_same_classes(have, _info("bca"), ("boxes2d",), what="the run", where="--data")
    for other, fault in (
        (_info("acb"), "class 1 is 'c', that of the run 'b'"),
        (_info("ab"), "has 2 classes, the run 3"),
        (_info("abc", "yx"), "class 0 is 'y'"),
    ):
        with pytest.raises(ConfigError, match=fault):
            require_same_classes(have, other, both, what="the run", where="--data")
