"""Training configurations as files that people and programs make."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from fusion_configs import EVERY

from perception.errors import ConfigError
from perception.training.building import build_from_config, open_splits
from perception.training.config import TrainConfig, load_config
from perception.training.methods import build_method

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "configs/road-rgbt.yaml").read_text(encoding="utf-8")


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"], ids=lambda e: str(e)
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_any_encoding_with_a_mark_and_any_line_ends(
    encoding: str, ends: str, tmp_path: Path
) -> None:
    text = TEXT.replace("description: ", "description: Straße, ").replace("\n", ends)
    config = load_config(_file(tmp_path, text.encode(encoding)))
    assert config.description.startswith("Straße, Boxes")
    plain = load_config(ROOT / "configs/road-rgbt.yaml")
    assert config.model_copy(update={"description": plain.description}) == plain


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"- 1", "got a list"),
        (b"name: Stra\xdfe\n", "is no UTF-8 text: byte 0xdf in line 1"),
        (b"name: a\nname: b\n", "'name' is given twice"),
        (b"a: [", "not YAML"),
        (b"a: !!python/object/apply:os.system [ls]\n", "not YAML"),
        (b"name: \x00", "binary"),
        (b"a: &a [*a]", "YAML"),
        (b"\x89PNG\r\n\x1a\n", "is no UTF-8 text"),
        (
            TEXT.replace("epochs:", "epoch:").encode(),
            "epoch: no such field (did you mean 'epochs'?)",
        ),
        (
            TEXT.replace("ema_decay:", "ema_decai:").encode(),
            "optimizer.ema_decai: no such field (did you mean 'ema_decay'?)",
        ),
        (
            TEXT.replace("from_epoch:", "fromepoch:").encode(),
            "resolution.0.fromepoch: no such field (did you mean 'from_epoch'?)",
        ),
        (TEXT.replace("lr: 0.001", "lr: .nan").encode(), "optimizer.lr"),
        (TEXT.replace("lr: 0.001", "lr: .inf").encode(), "optimizer.lr"),
        (TEXT.replace("lr: 0.001", "lr: 1e-3x").encode(), "got '1e-3x'"),
        (TEXT.replace("name: road-rgbt\n", "name: ../../road\n").encode(), "name: "),
        (TEXT.replace("name: road-rgbt\n", "name: a/b\n").encode(), "name: "),
        (TEXT.replace("name: road-rgbt\n", "name: ''\n").encode(), "name: "),
        (TEXT.replace("crop: [320, 416]", "crop: [320000, 416]").encode(), "up to 4096"),
        (TEXT.encode() + b"seed: -1\n", "seed"),
        (TEXT.encode() + b"seed: " + b"9" * 6000 + b"\n", "c.yaml"),
        (TEXT.encode() + b"workers: 100000\n", "workers"),
    ],
)
def test_wrong_files_give_one_line_that_names_the_place(
    content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(_file(tmp_path, content))
    line = str(caught.value)
    assert said in line and "c.yaml" in line
    assert "\n" not in line and len(line) < 500


def test_the_locale_does_not_matter(tmp_path: Path) -> None:
    path = _file(tmp_path, TEXT.replace("Boxes", "Kästen").encode())
    script = f"from perception.training.config import load_config; load_config({str(path)!r})"
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["folder", "fifo", "none"])
def test_what_is_no_file_is_said(folder: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    if folder == "folder":
        path.mkdir()
    elif folder == "fifo":
        os.mkfifo(path)
    with pytest.raises(ConfigError, match="no such file|no regular file"):
        load_config(path)


@pytest.mark.parametrize(
    "options",
    [
        {"width": -1.0},
        {"width": "wide"},
        {"width": 0},
        {"decoder_width": -3},
        {"decoder_width": 1e9},
        {"encoders": 7},
        {"colour": 1},
        {"stages": [1]},
        {"stages": {"rgb": 3}},
    ],
)
def test_impossible_model_options_are_one_line(
    options: dict, configure: Callable[..., TrainConfig], record: Callable[..., Path]
) -> None:
    config = configure(record(2), model={"pretrained": False, "options": options})
    info = open_splits_info(config)
    with pytest.raises(ConfigError) as caught:
        build_from_config(config, info, pretrained=False)
    assert "model" in str(caught.value) and "\n" not in str(caught.value)


def open_splits_info(config: TrainConfig):  # type: ignore[no-untyped-def]
    from perception.data.registry import open_recording, parse_data_argument

    return open_recording(*parse_data_argument(config.data.source)).info


@pytest.mark.parametrize(
    ("method", "options"),
    [("agm", {"alpha": "much"}), ("fuller", {"momentum": []}), ("sandwich", {"drawn": "two"})],
)
def test_method_options_of_another_type_are_one_line(
    method: str,
    options: dict,
    configure: Callable[..., TrainConfig],
    record: Callable[..., Path],
) -> None:
    config = configure(record(2), method={"name": method, "options": options})
    model = build_from_config(config, open_splits_info(config), pretrained=False)
    with pytest.raises(ConfigError, match="method"):
        build_method(config.method, model)


def test_reader_options_go_to_the_kind_that_they_are_for(
    configure: Callable[..., TrainConfig], record: Callable[..., Path], tmp_path: Path
) -> None:
    root = record(10)
    msrs = tmp_path / "msrs"
    data = {
        "source": f"msrs:{msrs}",
        "val_source": f"folder:{root}",
        "options": {"labels": "visible"},
    }
    for folder in ("rgb", "thermal", "boxes_visible"):
        (msrs / folder).mkdir(parents=True)
    import cv2
    import numpy as np

    for name in ("00001D", "00002N"):
        for folder in ("rgb", "thermal"):
            cv2.imwrite(str(msrs / folder / f"{name}.jpg"), np.zeros((8, 8, 3), np.uint8))
        (msrs / "boxes_visible" / f"{name}.txt").write_text("")
    train, val = open_splits(configure(root, data=data, tasks=["detection"]))
    assert train.info.kind == "msrs" and val.info.kind == "folder"


def test_configurations_survive_a_round_trip(tmp_path: Path) -> None:
    for path in EVERY:
        config = load_config(path)
        again = yaml.safe_dump(config.model_dump(mode="json"))
        assert load_config(_file(tmp_path, again.encode())) == config


@pytest.mark.parametrize(
    ("config", "field", "given", "line"),
    [
        ("road-rgbt", "loss", {"auxiliary": -1}, "loss.auxiliary: .*greater than or equal to 0"),
        ("road-rgbt", "loss", {"boxes2d": -0.5}, "loss: boxes2d must not be negative, got -0.5"),
        ("road-rgbt", "loss", {"detection": -2}, "loss: boxes2d must not be negative, got -2"),
        ("sim-bev", "scene", {"scale": [0, 1]}, "scale must be .from, to. with 0 < from <= to"),
        ("sim-bev", "scene", {"scale": [-1, 1]}, "scale must be .from, to. with 0 < from <= to"),
        ("sim-bev", "scene", {"scale": [1.1, 0.9]}, "scale must be .from, to. with 0 < from <= to"),
    ],
)
def test_weights_and_scales_that_would_undo_a_training_are_refused(
    tmp_path: Path, config: str, field: str, given: dict[str, object], line: str
) -> None:
    """A negative weight asks for wrong answers; a scene of no size has boxes whose logarithm is none."""
    content = yaml.safe_load((ROOT / f"configs/{config}.yaml").read_text(encoding="utf-8"))
    content[field] = given
    with pytest.raises(ConfigError, match=line):
        load_config(_file(tmp_path, yaml.safe_dump(content).encode()))
