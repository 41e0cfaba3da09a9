"""`anysense metrics`: files in, a table and JSON out; what is wrong with a file is one line."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from same_numbers import assert_same_numbers

from perception.cli.main import main
from perception.files.limits import MAX_FRAME_BOXES

PLACED = {
    "sample": 0, "name": "car", "center": [0, 0, 0], "wlh": [2, 4.5, 1.5], "yaw": 0.1,
    "velocity": [1, 0],
}  # fmt: skip
NUSCENES: dict[str, Any] = {
    "samples": 2,
    "truth": [{**PLACED, "points": 7}, {**PLACED, "sample": 1, "points": 0}],
    "predictions": [{**PLACED, "center": [0.3, 0, 9], "score": 0.9}],
    "devkit": {"whatever": 1},
}
LABEL = {
    "type": "Car", "alpha": 0.1, "bbox": [100, 100, 160, 150], "hwl": [1.5, 1.8, 4],
    "xyz": [0, 1.6, 20], "ry": 0.2,
}  # fmt: skip
DONT_CARE = {
    "type": "DontCare", "truncated": -1, "occluded": -1, "alpha": -10, "bbox": [300, 90, 400, 150],
    "hwl": [-1, -1, -1], "xyz": [-1000, -1000, -1000], "ry": -10,
}  # fmt: skip
KITTI: dict[str, Any] = {
    "frames": 2,
    "truth": [[{**LABEL, "truncated": 0.0, "occluded": 0}, DONT_CARE], []],
    "predictions": [[{**LABEL, "score": 0.8}], [{**LABEL, "type": "car", "score": 0.2}]],
    "overlap": {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5},
}
WHOLE = {"nuscenes": NUSCENES, "kitti": KITTI}


def write(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def line(kind: str, truth: str, predictions: str, *more: str) -> list[str]:
    return ["metrics", kind, "--truth", truth, "--predictions", predictions, *more]


@pytest.mark.parametrize("kind", WHOLE)
def test_one_file_or_two_or_lists_alone_say_the_same(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = WHOLE[kind]
    whole = write(tmp_path / "whole.json", content)
    parts = [
        write(tmp_path / f"{name}.json", {name: content[name]}) for name in ("truth", "predictions")
    ]
    bare = [write(tmp_path / f"{name}s.json", content[name]) for name in ("truth", "predictions")]
    answers = []
    for i, (truth, predictions) in enumerate(
        [(whole, whole), (parts[0], parts[1]), (bare[0], bare[1]), (whole, parts[1])]
    ):
        out = tmp_path / f"{i}.json"
        assert main(line(kind, truth, predictions, "--json", str(out))) == 0
        answers.append(json.loads(out.read_text()))
        assert answers[-1].pop("command")
    assert all(one == answers[0] for one in answers[1:])
    said = capsys.readouterr()
    assert said.err == "" and "car" in said.out.lower()


def test_nuscenes_by_its_own_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "whole.json", NUSCENES)
    assert main(line("nuscenes", whole, whole, "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    # The object without a point does not count: one of one is found, 0.3 m away.
    assert answer["label_aps"]["car"] == pytest.approx({"0.5": 1, "1.0": 1, "2.0": 1, "4.0": 1})
    assert answer["label_tp_errors"]["car"]["trans_err"] == pytest.approx(0.3)
    assert answer["label_tp_errors"]["traffic_cone"]["orient_err"] is None
    assert answer["mean_ap"] == pytest.approx(0.1)
    assert (answer["samples"], answer["objects"], answer["predicted"]) == (2, 1, 1)
    # trans 0.93, scale 0.9, orient 8 / 9, vel 7 / 8, attr 1: what is not found is wrong by 1.
    assert answer["tp_errors"] == pytest.approx(
        {"trans_err": 0.93, "scale_err": 0.9, "orient_err": 8 / 9, "vel_err": 7 / 8, "attr_err": 1}
    )
    assert answer["nd_score"] == pytest.approx((0.5 + 0.07 + 0.1 + 1 / 9 + 1 / 8) / 10)


def test_attributes_and_velocities_that_nobody_knows(tmp_path: Path) -> None:
    content = copy.deepcopy(NUSCENES)
    content["truth"][0] |= {"velocity": [None, math.nan], "attribute": "vehicle.moving"}
    content["predictions"][0]["attribute"] = "vehicle.moving"
    whole, out = write(tmp_path / "whole.json", content), tmp_path / "out.json"
    assert main(line("nuscenes", whole, whole, "--json", str(out))) == 0
    errors = json.loads(out.read_text())["label_tp_errors"]["car"]
    assert (errors["vel_err"], errors["attr_err"]) == (1, 0)


def test_samples_may_have_names(tmp_path: Path) -> None:
    content = {k: [{**row, "sample": f"token{row['sample']}"} for row in NUSCENES[k]]
               for k in ("truth", "predictions")}  # fmt: skip
    whole, out = write(tmp_path / "whole.json", content), tmp_path / "out.json"
    assert main(line("nuscenes", whole, whole, "--json", str(out))) == 0
    assert json.loads(out.read_text())["mean_ap"] == pytest.approx(0.1)


def test_kitti_by_its_own_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = write(tmp_path / "whole.json", KITTI)
    assert main(line("kitti", whole, whole, "--json")) == 0
    answer = json.loads(capsys.readouterr().out)
    # One point of the curve, at the score of the match; the worse detection is not there yet.
    assert answer["car_detection_3d"]["easy"] == pytest.approx({"r40": 0, "r11": 100 / 11})
    assert answer["car_orientation"]["hard"] == pytest.approx({"r40": 0, "r11": 100 / 11})
    assert answer["cyclist_detection"]["easy"] == {"r40": None, "r11": None}
    assert answer["overlap"] == KITTI["overlap"] and answer["frames"] == 2
    assert main(line("kitti", whole, whole)) == 0
    assert "no 3D box is predicted of Pedestrian, Cyclist" in capsys.readouterr().out
    content = copy.deepcopy(KITTI)
    content["predictions"][1][0]["alpha"] = -10
    whole = write(tmp_path / "whole.json", content)
    assert main(line("kitti", whole, whole)) == 0
    assert "AOS is not judged" in capsys.readouterr().out


def _set(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return change


def _drop(*path: Any) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        del content[path[-1]]

    return change


BAD: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "no truth": ("nuscenes", _drop("truth"), "truth: this field is missing"),
    "no score": (
        "nuscenes",
        _drop("predictions", 0, "score"),
        "predictions.0.score: this field is",
    ),
    "NaN": ("nuscenes", _set("truth", 0, "center", 1, value=math.nan), "truth.0.center.1: "),
    "infinite": (
        "nuscenes",
        _set("predictions", 0, "score", value=math.inf),
        "predictions.0.score: ",
    ),
    "infinite speed": (
        "nuscenes",
        _set("truth", 0, "velocity", 0, value=math.inf),
        "truth.0.velocity.0: must be a number",
    ),
    "far": ("nuscenes", _set("truth", 0, "center", 0, value=1e300), "truth.0.center.0: "),
    "no size": ("nuscenes", _set("truth", 0, "wlh", 2, value=0), "truth.0.wlh.2: "),
    "two numbers": ("nuscenes", _set("truth", 0, "center", value=[1, 2]), "truth.0.center: "),
    "text": ("nuscenes", _set("truth", 0, "yaw", value="0.1"), "truth.0.yaw: "),
    "class": ("nuscenes", _set("truth", 0, "name", value="truk"), "did you mean 'truck'?"),
    "field": ("nuscenes", _set("truth", 0, "veloctiy", value=[0, 0]), "did you mean 'velocity'?"),
    "sample": ("nuscenes", _set("predictions", 0, "sample", value=2), "sample 2 of 2"),
    "sample's kind": (
        "nuscenes",
        _set("truth", 0, "sample", value=True),
        "truth.0.sample: must be",
    ),
    "crowd": (
        "nuscenes",
        _set("predictions", value=[NUSCENES["predictions"][0]] * 501),
        "has 501 boxes, more than 500",
    ),
    "object": ("nuscenes", _set("truth", value={}), "truth: "),
    "rows": ("nuscenes", _set("truth", 0, value=[1]), "truth.0: "),
    "frames": ("kitti", _drop("predictions", 1), "predictions of 1 frames, but truth of 2"),
    "count": ("kitti", _set("frames", value=3), "`frames` is 3"),
    "type": ("kitti", _set("truth", 0, 0, "type", value="Cra"), "did you mean 'Car'?"),
    "box": (
        "kitti",
        _set("predictions", 0, 0, "bbox", value=[5, 5, 4, 9]),
        "is not left, top, right, bottom",
    ),
    "hwl": (
        "kitti",
        _set("predictions", 0, 0, "hwl", value=[1, -2, 3]),
        "predictions.0.0.hwl: must be 0 or more",
    ),
    "truncated": ("kitti", _set("truth", 0, 0, "truncated", value=2), "truth.0.0.truncated: "),
    "occluded": (
        "kitti",
        _drop("truth", 0, 0, "occluded"),
        "truth.0.0.occluded: this field is missing",
    ),
    "overlap": ("kitti", _set("overlap", "Car", value=1), "overlap.Car: "),
    "overlap's class": ("kitti", _set("overlap", value={"car": 0.7}), "did you mean 'Car'?"),
    "flat": ("kitti", _set("truth", value=[LABEL]), "truth.0: "),
    "many": (
        "kitti",
        _set("truth", 0, value=[DONT_CARE] * (MAX_FRAME_BOXES + 1)),
        "more than 2000",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_file_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, change, said = BAD[case]
    content = copy.deepcopy(WHOLE[kind])
    change(content)
    whole, out = write(tmp_path / "whole.json", content), tmp_path / "out.json"
    assert main(line(kind, whole, whole, "--json", str(out))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"anysense: error: {whole}") and error.count("\n") == 1
    assert said in error and not out.exists()


@pytest.mark.parametrize(
    "text", ["", "{", "7", "null", "[1]", '{"truth": 1}', "\x00", "[[[[" * 9999]
)
@pytest.mark.parametrize("kind", WHOLE)
def test_what_is_no_such_file_at_all(
    kind: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = write(tmp_path / "bad.json", text), write(tmp_path / "good.json", WHOLE[kind])
    for truth, predictions in ((bad, good), (good, bad), (str(tmp_path / "none.json"), good)):
        assert main(line(kind, truth, predictions)) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.realdata
@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("name", ["a", "b"])
def test_the_programs_own_answers(name: str, kind: str, real_data: Path, tmp_path: Path) -> None:
    path, out = str(real_data / f"metric_oracles/{name}_{kind}.json"), tmp_path / "out.json"
    assert main(line(kind, path, path, "--json", str(out))) == 0
    wanted = json.loads(Path(path).read_text())[{"nuscenes": "devkit", "kitti": "official"}[kind]]
    assert_same_numbers(wanted, json.loads(out.read_text()), 1e-4)
