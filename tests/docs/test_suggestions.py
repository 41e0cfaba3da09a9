"""Whoever misspells a name is told which one is meant: by one helper, wherever names are known."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.bundle_graphs import parse_choice
from perception.corruptions.schedule import FaultSchedule
from perception.data.base import RecordingInfo
from perception.data.layout import FolderInfo
from perception.data.registry import open_recording
from perception.errors import AnySenseError, ConfigError
from perception.files.fields import check_fields
from perception.frame import Sample
from perception.geometry.rig import load_rig
from perception.models.efficientnet_lite import stages_of
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.sensors.lidar.decode import load_lidar
from perception.sensors.registry import _check_words, kind_of
from perception.sensors.thermal.preprocess import _check_unit
from perception.training.config import DataSpec, SubsetSpec

ROOT = Path(__file__).parents[2]
ROOMS = ("perception", "export", "calibration", "anysense", "ros2_ws/src", "benchmarks")

LISTED = re.compile(
    r"""(hint\w* = |hint=)(f?"|" or "\.|", "\.)[^\n]*join\((?!str)|one of \{', '\.join"""
)
"""A hint that lists names without the helper."""

RIGHT = {
    "perception/errors.py",  # the helper
    "perception/cli/arguments.py",  # of --help, as the next two
    "perception/cli/completion.py",
    "perception/cli/data.py",
    "perception/cli/data_import.py",
    "perception/runtime/graph_check.py",  # types of tensors, as the next of messages
    "perception/adapters/messages.py",
    "perception/data/files.py",  # numbers
    "perception/evaluation/confidence.py",  # no name was given, nor to the next
    "perception/files/text.py",
    "perception/importers/bag.py",
    "perception/importers/coco.py",  # folders
    "perception/importers/yolo.py",
    "perception/runtime/bundle.py",
    "perception/data/registry.py",  # meant() comes a line later, as in the next
    "perception/sensors/registry.py",
    "ros2_ws/src/anysense_ros/anysense_ros/parameters.py",
}


def test_hints_that_list_names_come_from_the_helper() -> None:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            for number, line in enumerate(path.read_text().split("\n"), 1):
                if LISTED.search(line) and name not in RIGHT and "meant(" not in line:
                    found.append(f"{name}:{number}: {line.strip()}")
    assert found == []


def _fields(**fields: object) -> Callable[[Path], object]:
    content = {"name": "x", "height": 8, "width": 8, "sensors": {"front": "rgb", "rear": "rgb"}}
    return lambda folder: check_fields(FolderInfo, content | fields, where="dataset.yaml")


def _file(name: str, text: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    def do(folder: Path) -> object:
        (folder / name).write_text(text)
        return read(folder / name)

    return do


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "labels_of": (_fields(labels_of="fornt"), "front"),
    "labels_of of a reader": (
        lambda _: RecordingInfo("x", "x", {"front": "rgb"}, labels_of="fornt"),
        "front",
    ),
    "kind in dataset.yaml": (_fields(sensors={"front": "rbg"}), "rgb"),
    "unit in dataset.yaml": (_fields(thermal_unit="celvin"), "kelvin"),
    "option of a reader": (lambda folder: open_recording("folder,rwos=x", folder), "rows"),
    "word of a kind's record": (
        lambda _: _check_words(replace(kind_of("depth"), hints=("scael",))),
        "scale",
    ),
    "unit of a sample": (
        lambda _: _check_unit(Sample("thermal", np.zeros((2, 2), np.float32), unit="celvin")),
        "kelvin",
    ),
    "part of a result": (
        lambda _: Pipeline.load(ROOT / "bundles/sim-stereo", "onnxruntime", wanted={"lables"}),
        "labels",
    ),
    "field of a rig": (
        _file("rig.yaml", "schema: 2\nsensors:\n  rgb: {frame_ids: x}\n", load_rig),
        "frame_id",
    ),
    "entry of a schedule": (
        _file("s.yaml", "events: []\nlop: true\n", lambda p: FaultSchedule.read(p)),
        "loop",
    ),
    "suffix of a cloud": (_file("a.pdc", "x", lambda path: load_lidar(path)), ".pcd"),
    "--subset": (lambda _: parse_choice(["rbg,depth"], ["rgb", "depth"]), "rgb"),
    "word of --subset": (lambda _: parse_choice(["singel"], ["rgb"]), "single"),
    "required": (lambda _: Policy(required=("lida",)).check(("rgb", "lidar")), "lidar"),
    "subsets": (
        lambda _: check_fields(
            _Subsets, {"weight": {"rgb+dept": 1.0}}, where="c.yaml", error=ConfigError
        ),
        "rgb+depth",
    ),
    "choice of a configuration": (
        lambda _: check_fields(
            DataSpec,
            {"source": "folder:x", "sampling": "unifrom"},
            where="c.yaml",
            error=ConfigError,
        ),
        "uniform",
    ),
    "backbone": (lambda _: stages_of("lit1"), "lite1"),
}


class _Subsets(SubsetSpec):
    def model_post_init(self, _: object) -> None:
        self.fitted(["rgb", "depth"])


@pytest.mark.parametrize("case", CASES)
def test_the_one_that_is_meant_is_named(case: str, tmp_path: Path) -> None:
    attempt, meant = CASES[case]
    with pytest.raises((AnySenseError, ValueError)) as caught:
        attempt(tmp_path)
    assert f"did you mean '{meant}'?" in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_like_nothing_is_answered_by_a_list() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_choice(["xyzzy"], ["rgb", "depth"])
    assert "did you mean" not in str(caught.value) and "rgb, depth" in str(caught.value)
