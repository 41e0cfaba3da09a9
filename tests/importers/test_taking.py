"""What is the same for all importers: classes, splits, sizes, links, dry runs, and nothing half-made."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import foreign_sets as foreign
import numpy as np
import pytest
from foreign_sets import Import
from hypothesis import given
from hypothesis import strategies as st

from perception.cli.main import main
from perception.data import open_recording
from perception.importers.source import Item
from perception.importers.splits import thinned
from perception.importers.taking import frame_ids, rising


def test_classes_are_renamed_joined_and_left_out(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set", names=["person", "car", "bus"])
    recording = imported(f"yolo:{root}", "--classes", "bus=vehicle,car=vehicle")
    assert [c.name for c in recording.info.det_classes] == ["vehicle"]
    boxes = recording.boxes("train0")
    assert boxes is not None and boxes.class_ids.tolist() == [0]
    other = open_recording("folder", recording.root).info.det_classes
    assert [c.name for c in other] == ["vehicle"]


def test_classes_of_a_file_with_a_rest(imported: Import, tmp_path: Path) -> None:
    table = tmp_path / "classes.yaml"
    table.write_text("human: [person]\nother: '*'\n")
    root = foreign.yolo(tmp_path / "set")
    recording = imported(f"yolo:{root}", "--classes", str(table))
    assert [c.name for c in recording.info.det_classes] == ["human", "other"]
    boxes = recording.boxes("train0")
    assert boxes is not None and boxes.class_ids.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ("persn", "did you mean 'person'"),
        ("person,person", "named twice"),
        ("a=", "is not NAME"),
        ("*", "is not NAME"),
    ],
)
def test_wrong_classes(refused: Any, tmp_path: Path, classes: str, expected: str) -> None:
    root = foreign.yolo(tmp_path / "set")
    assert expected in refused(f"yolo:{root}", "--classes", classes)


def _splits(root: Path) -> dict[str, str]:
    return {
        name: split
        for split in ("train", "val")
        for name in open_recording("folder", root, split=split).ids
    }


def test_splits_by_lists(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    (tmp_path / "val.txt").write_text("images/train/train1.jpg\r\ntrain3\n\n")
    recording = imported(f"yolo:{root}", "--val-list", str(tmp_path / "val.txt"))
    found = _splits(recording.root)
    assert {n for n, s in found.items() if s == "val"} == {"train1", "train3"}
    assert len(found) == 6


def test_a_list_of_what_is_not_there(refused: Any, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    (tmp_path / "val.txt").write_text("train1\nnone\n")
    assert "val.txt:2: the data set has no frame 'none'" in refused(
        f"yolo:{root}", "--val-list", str(tmp_path / "val.txt")
    )


def test_shares_are_drawn_alike_from_a_seed(tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set", frames=10)
    found = []
    for number, seed in enumerate(("1", "1", "2")):
        out = str(tmp_path / f"out{number}")
        share = ["--val-share", "0.25", "--seed", seed]
        assert main(["data", "import", f"yolo:{root}", "--out", out, *share]) == 0
        found.append(_splits(Path(out)))
    assert found[0] == found[1] != found[2]
    assert sum(s == "val" for s in found[0].values()) == 3


@pytest.mark.parametrize(
    "options",
    [
        ("--val-share", "0.5", "--test-share", "0.5"),
        ("--val-share", "0.5", "--val-sequences", "a"),
        ("--whole-sequences",),
        ("--val-sequences", "a"),
    ],
)
def test_contradicting_wishes(refused: Any, tmp_path: Path, options: tuple[str, ...]) -> None:
    refused(f"yolo:{foreign.yolo(tmp_path / 'set')}", *options)


def test_links_are_hard_and_pictures_stay(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set")
    recording = imported(f"yolo:{root}", "--files", "link")
    source = root / "images/train/train0.jpg"
    assert os.path.samefile(source, recording.root / "rgb/train0.jpg")
    assert source.stat().st_nlink == 2


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = foreign.yolo(tmp_path / "set"), tmp_path / "out"
    assert main(["data", "import", f"yolo:{root}", "--out", str(out), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "frames 6 (train 4, val 2)" in said and "frames that are not labeled 1" in said
    assert not out.exists()
    assert main(["data", "import", f"yolo:{root}", "--dry-run"]) == 0
    assert capsys.readouterr().out == said
    assert main(["data", "import", f"yolo:{root}"]) == 2
    assert "--out: is needed" in capsys.readouterr().err


def test_an_existing_folder_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    root = tmp_path / "set"
    (root / "data.yaml").parent.mkdir()
    assert main(["data", "import", f"yolo:{root}", "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("cocoo:x", "did you mean 'coco'"),
        ("coco", "names no folder"),
        ("coco,labls=true:.", "did you mean 'labels'"),
        ("coco,labels=3:.", "labels is true or false"),
        ("yolo:none/where", "no such file or folder"),
    ],
)
def test_wrong_words(refused: Any, source: str, expected: str) -> None:
    assert expected in refused(source)


@given(
    st.lists(st.sampled_from(["a/x", "b/x", "b/X", "c/a/x", "x", "b_x", "ö", "o\u0308", "a\n,"]))
)
def test_ids_are_unique_whatever_the_names(names: list[str]) -> None:
    found = frame_ids([Item(name, {}) for name in names])
    assert len({n.casefold() for n in found}) == len(names)
    assert all(n and n.isprintable() and "/" not in n and "," not in n for n in found)


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-(2**60), 2**60) | st.integers(0, 3)),
        min_size=1,
    )
)
def test_stamps_rise_and_sequences_stay_whole(frames: list[tuple[str, int]]) -> None:
    items = [Item(str(i), {}, sequence=s, stamp_ns=t) for i, (s, t) in enumerate(frames)]
    found = rising(items, 10.0)
    assert sorted(found) == list(range(len(items)))
    stamps = list(found.values())
    assert all(b > a for a, b in itertools.pairwise(stamps))
    sequences = [items[i].sequence for i in found]
    changes = sum(a != b for a, b in itertools.pairwise(sequences))
    assert changes == len(set(sequences)) - 1


@given(st.lists(st.sampled_from(["", "train", "val", "test"]), min_size=1), st.integers(1, 40))
def test_a_limit_takes_of_each_split(splits: list[str], limit: int) -> None:
    items = [Item(str(i), {}) for i in range(len(splits))]
    chosen = thinned(items, splits, limit)
    assert len(chosen) == min(limit, len(items)) and chosen == sorted(set(chosen))
    if limit >= len(set(splits)):
        assert {splits[i] for i in chosen} == set(splits)


def test_a_limited_import(imported: Import, tmp_path: Path) -> None:
    root = foreign.yolo(tmp_path / "set", frames=8)
    recording = imported(f"yolo:{root}", "--limit", "5")
    assert len(recording.ids) == 5
    assert set(_splits(recording.root).values()) == {"train", "val"}


def test_cameras_follow_their_pictures() -> None:
    from perception.geometry.camera import CameraModel
    from perception.importers.fitting import Fit

    camera = CameraModel(100, 50, 60.0, 60.0, 49.5, 24.5)
    fit = Fit.of((50, 100), (60, 60))
    fitted = fit.camera(camera)
    point = np.array([[0.4, -0.2, 2.0]])
    (before,), (after,) = camera.project(point)[0], fitted.project(point)[0]
    moved = (before + 0.5) * fit.scale - 0.5 + [fit.left, fit.top]
    assert np.allclose(after, moved) and (fitted.width, fitted.height) == (60, 60)


def test_a_full_place_leaves_nothing(
    refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full after some frames: one line, and neither the folder nor a part of it."""
    import errno
    import shutil

    root, copied = foreign.yolo(tmp_path / "set"), []
    real = shutil.copyfile

    def copyfile(source: Any, place: Any) -> Any:
        if len(copied) == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
        copied.append(place)
        return real(source, place)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    assert "No space left" in refused(f"yolo:{root}")
    assert len(copied) == 3
