"""Several recordings in one configuration: joined in order, refused by name where they do not agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perception.cli.main import main
from perception.data.base import Boxes, ClassInfo
from perception.data.folder import FolderWriter, folder_info
from perception.errors import AnySenseError, ConfigError
from perception.files.fields import check_fields
from perception.training.building import open_splits, recording_info
from perception.training.checkpoint import LAST, load_checkpoint
from perception.training.config import TrainConfig, load_config
from perception.training.loop import Trainer

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]


def test_frames_come_one_recording_after_the_other(record: Record, configure: Configure) -> None:
    a = record(10, name="a")
    b = record(5, name="b", modalities=("rgb",), unlabeled=[1])
    train, val = open_splits(configure(a, data={"source": [f"folder:{a}", f"folder:{b}"]}))
    assert train.ids == [f"0/f{i:03}" for i in range(8)] + [f"1/f{i:03}" for i in range(4)]
    assert val.ids == ["0/f008", "0/f009", "1/f004"]
    assert train.info.name == "a + b" and dict(train.info.sensors) == {
        "rgb": "rgb",
        "depth": "depth",
    }
    alone_a, alone_b = (open_splits(configure(own))[0] for own in (a, b))
    for index, (part, own) in enumerate(
        [(alone_a, i) for i in range(8)] + [(alone_b, i) for i in range(4)]
    ):
        mine, theirs = train.frame(index), part.frame(own)
        assert list(mine) == list(theirs)
        assert all((mine[s].data == theirs[s].data).all() for s in mine)
        assert train.stamp_ns(index) == part.stamp_ns(own) and train.tags(index) == part.tags(own)
        labels, others = train.truth(index).labels, part.truth(own).labels
        assert labels is not None and others is not None and (labels == others).all()
    train.ids = train.ids[8:]  # as who leaves frames out does
    assert list(train.frame(0)) == ["rgb"] and train.scene(0) != alone_a.scene(0)


def test_it_trains_and_says_on_what(record: Record, configure: Configure, tmp_path: Path) -> None:
    a, b = record(6, name="a", kinds=2), record(5, name="b", kinds=2)
    names = [f"folder:{a}", f"folder:{b}"]
    config = configure(a, data={"source": names}, tasks=["segmentation", "boxes2d"])
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load_config(path).data.source == names
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 0
    kept = load_checkpoint(tmp_path / "run" / LAST)
    assert recording_info(kept.progress).name == "a + b" and kept.config.data.source == names
    again = Trainer(config, tmp_path / "run")
    again.resume()
    with pytest.raises(ConfigError, match="another configuration: data.source"):
        Trainer(configure(a, tasks=config.tasks), tmp_path / "run").resume()


def _other(root: Path, **fields: Any) -> Path:
    kinds = {
        "seg": 3,
        "det": 0,
        "sensors": {"rgb": "rgb", "depth": "depth"},
        "labels_of": "",
    } | fields
    info = folder_info(
        name="other", size=(64, 96), sensors=kinds["sensors"], labels_of=kinds["labels_of"],
        seg_classes=tuple(ClassInfo(i, f"class{i}", (i, 2, 3)) for i in range(kinds["seg"])),
        det_classes=tuple(ClassInfo(i, f"odd{i}", (i, 2, 3)) for i in range(kinds["det"])),
    )  # fmt: skip
    with FolderWriter(root, info) as out:
        for i in range(5):
            picture = np.full((64, 96, 3), i, np.uint8)
            out.add(
                f"g{i}", stamp_ns=i * 10**8,
                samples={n: picture for n, k in kinds["sensors"].items() if k == "rgb"},
                labels=np.zeros((64, 96), np.uint8) if kinds["seg"] else None,
                boxes=Boxes.empty() if kinds["det"] else None,
            )  # fmt: skip
    return root


@pytest.mark.filterwarnings("ignore:.*no frame has a file")
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"seg": 4}, "has 4 classes, {a} 3"),
        (
            {"sensors": {"rgb": "rgb", "side": "rgb"}, "labels_of": "side"},
            "in the pixels of side, those of {a}",
        ),
    ],
)
def test_what_does_not_agree_is_named(
    record: Record, configure: Configure, tmp_path: Path, fields: dict[str, Any], what: str
) -> None:
    a, b = f"folder:{record(10, name='a')}", f"folder:{_other(tmp_path / 'b', **fields)}"
    with pytest.raises(ConfigError) as caught:
        open_splits(configure(tmp_path, data={"source": [a, b]}))
    assert caught.value.where == b and what.format(a=a) in caught.value.message


@pytest.mark.filterwarnings("ignore:.*no frame has a file")
def test_a_sensor_of_another_kind_is_named(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    a = record(5, name="a", sensors={"rgb": "rgb", "side": "depth"})
    b = _other(tmp_path / "b", sensors={"rgb": "rgb", "side": "rgb"})
    with pytest.raises(ConfigError, match="side is rgb, that of folder:.*/a is depth"):
        open_splits(configure(a, data={"source": [f"folder:{a}", f"folder:{b}"]}))


def test_other_classes_of_what_is_not_trained_do_not_matter(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    a, b = record(10, name="a", kinds=2), _other(tmp_path / "b", det=3, sensors={"rgb": "rgb"})
    config = configure(a, data={"source": [f"folder:{a}", f"folder:{b}"]})
    train, _ = open_splits(config)
    assert len(train.info.seg_classes) == 3 and not train.info.det_classes
    with pytest.raises(ConfigError, match="has 3 classes, folder:.*/a 2"):
        open_splits(config.model_copy(update={"tasks": ["boxes2d"]}))


def test_one_that_is_not_labeled_for_a_task_joins_whatever_its_place(
    record: Record, configure: Configure
) -> None:
    a, b = record(10, name="a", classes=0), record(5, name="b")
    train, _ = open_splits(configure(a, data={"source": [f"folder:{a}", f"folder:{b}"]}))
    assert [c.name for c in train.info.seg_classes] == ["class0", "class1", "class2"]
    assert train.truth(0).labels is None and train.truth(8).labels is not None


def test_one_that_is_missing_is_named(record: Record, configure: Configure, tmp_path: Path) -> None:
    sources = [f"folder:{record(10)}", f"folder:{tmp_path / 'none'}"]
    with pytest.raises(AnySenseError, match="none: no such folder"):
        open_splits(configure(tmp_path, data={"source": sources}))


@pytest.mark.parametrize(
    ("source", "what"),
    [([], "expected KIND:DIR, or a list"), (5, "expected KIND:DIR, or a list"), (None, "expected KIND:DIR"),
     (["folder:a", 5], "expected KIND:DIR, or a list"),
     (["folder:a", "folder:a"], "'folder:a' is listed twice")],
)  # fmt: skip
def test_other_values_are_refused(configure: Configure, source: Any, what: str) -> None:
    content = configure(Path("x")).model_dump(mode="json")
    content["data"]["source"] = source
    with pytest.raises(ConfigError, match=f"c.yaml: data.source: {what}"):
        check_fields(TrainConfig, content, where="c.yaml", error=ConfigError)


def test_validation_may_be_of_several_too(record: Record, configure: Configure) -> None:
    a, b, c = (f"folder:{record(5, name=name)}" for name in "abc")
    data = {"source": [a, b], "val_source": [c, a]}
    train, val = open_splits(configure(Path(), data=data))
    assert len(train) == 10 and len(val) == 10 and val.info.name == "c + a"


def test_data_of_the_command_line_takes_their_place(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    a, b = (f"folder:{record(6, name=name)}" for name in "ab")
    config = configure(Path(), data={"source": [a, "folder:/none"]})
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert main(["train", str(path), "--out", str(tmp_path / "run"), "--data", b]) == 0
    assert load_checkpoint(tmp_path / "run" / LAST).config.data.source == b
