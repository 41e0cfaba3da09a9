"""What `bundle.yaml` of schema 2 may say: inputs by name, encoders that are shared, tasks."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange_values import STRANGE, change_value

from perception.errors import BundleError
from perception.frame import Sample, subset_name, subsets_of
from perception.runtime.bundle import Bundle
from perception.runtime.manifest import BundleManifest, check_manifest
from perception.runtime.pipeline import Pipeline

INPUTS = {
    "cam_left": ("rgb", "color"),
    "cam_right": ("rgb", "color"),
    "rgb": ("rgb", "front"),
    "depth": ("depth", "depth"),
    "roof": ("lidar", "roof"),
    "ir": ("thermal", "ir"),
}
ORDER = ("rgb", "depth", "cam_left", "cam_right", "roof", "ir")
NAN, INF = math.nan, math.inf
function_scoped = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def content(small: Any) -> dict[str, Any]:
    folder = small.named(INPUTS, 3, 2)
    found = yaml.safe_load((folder / "bundle.yaml").read_text())
    return dict(json.loads(json.dumps(found)))  # no part is shared with another


def _put(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(content)
    *above, last = path.split("/")
    place: Any = changed
    for part in above:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    place[int(last) if isinstance(place, list) else last] = value
    return changed


def _one_line(content: Any) -> str:
    with pytest.raises(BundleError) as caught:
        check_manifest(content, "m")
    line = str(caught.value)
    assert line.startswith("m: ") and "\n" not in line and len(line) < 500
    return line


def test_inputs_are_known_by_name_in_their_order(content: dict[str, Any]) -> None:
    found = check_manifest(content, "m")
    assert found.inputs.names == found.modalities == ORDER
    assert found.inputs.encoders == {n: INPUTS[n][1] for n in ORDER}
    assert found.inputs.kinds == {n: INPUTS[n][0] for n in ORDER}
    assert found.inputs["roof"].view.type == "projection"
    assert found.inputs["ir"].view.type == "image"
    assert [c.id for c in found.seg_classes] == [0, 1, 2] and len(found.det_classes) == 2
    assert (found.images, found.licence.weights, found.judged) == ((), "unknown", ())
    assert set(found.graph_files()) == set(found.files)


@given(order=st.permutations(list(INPUTS)))
@function_scoped
def test_presence_has_the_order_that_the_graph_has(
    content: dict[str, Any], order: list[str]
) -> None:
    wiring = check_manifest(_put(content, "graphs/presence", order), "m").wiring
    for name in order:
        assert wiring.present([name]).tolist() == [float(n == name) for n in order]
    assert wiring.present(order[1:]).tolist() == [0.0] + [1.0] * 5


@given(first=st.lists(st.sampled_from(list(INPUTS)), unique=True))
@function_scoped
def test_results_are_in_the_pixels_of_the_first_that_is_listed_then_by_kind(
    content: dict[str, Any], first: list[str]
) -> None:
    found = check_manifest(_put(content, "reference", first), "m").reference_order()
    assert list(found[: len(first)]) == first and sorted(found) == sorted(INPUTS)
    by_kind = ["rgb", "cam_left", "cam_right", "depth", "ir", "roof"]
    assert list(found[len(first) :]) == [n for n in by_kind if n not in first]


def test_a_bundle_says_which_subsets_are_judged(content: dict[str, Any]) -> None:
    assert check_manifest(content, "m").subsets == subsets_of(ORDER)
    assert len(subsets_of(ORDER)) == 1 + 6 + 6
    few = ["rgb+depth", "cam_left+cam_right", "ir"]
    found = check_manifest(_put(content, "judged", few), "m").subsets
    assert found == [("rgb", "depth"), ("cam_left", "cam_right"), ("ir",)]
    assert [subset_name(s) for s in found] == few


def _rule(**values: Any) -> dict[str, Any]:
    return {"kind": "percentile", "low": 0.0, "high": 99.0, **values}


_FUSER = {"file": "fuser.onnx"}


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("inputs", [{}, [], None, 3], []),
        ("inputs/ir/kind", ["sonar", None, "RGB"], ["rgb"]),
        ("inputs/ir/encoder", ["roof", "nobody", "../x", "A", 3], ["", "ir"]),
        ("inputs/ir/preprocess/kelvin", [_rule(high=101), _rule(low=99.0), _rule(low=NAN)], [_rule()]),
        ("inputs/ir/preprocess/mean", [[0, 0, 0]], []),
        ("inputs/ir/more", [1], []),
        ("inputs/cam_left/preprocess/std", [[0] * 3, [INF] * 3, [1e-7] * 3], [[1e-6, 1, 1e6]]),
        ("inputs/cam_left/view/height", [0, 33, 4128, 2**62], [32]),
        ("inputs/cam_left/view/height", [64], []),  # its encoder is that of another view, too
        ("inputs/rgb/view/height", [31], [64, 4096]),
        ("inputs/rgb/view/fit", ["crop"], ["letterbox"]),
        ("inputs/rgb/view/type", ["projection", "bird"], ["image"]),
        ("inputs/roof/view/type", ["image"], ["projection"]),
        ("inputs/roof/view/into", ["nobody", "", 3], ["cam_left", None]),
        ("inputs/roof/preprocess/dilate_px", [-1, 9], [0, 8]),
        ("inputs/depth/preprocess/max_m", [NAN, 0.4, 2e6], [0.5]),
        ("reference", [["nobody"], "rgb", [3], ["rgb", "rgb"]], [["rgb"], []]),
        ("judged", [["depth+rgb"], ["rgb+rgb"], ["sonar"], [""], ["rgb+"]], [["rgb+depth", "ir"]]),
        ("judged", [["ir", "rgb", "ir"]], []),
        ("licence", ["MIT", {"code": "MIT"}, {"data": "\x1b[31m"}], [{"weights": "CC0", "data": "x"}]),
        ("tasks", [{}, [], None, ["segmentation"], {"pictures": {"names": ["a"]}}], []),
        ("tasks/panoptic", [{}], []),
        ("tasks/segmentation/classes", [[]], []),
        ("tasks/segmentation/classes/0/name", ["", " wall", "a\nb", "x" * 101], ["Straße"]),
        ("tasks/segmentation/classes/0/id", [-1, 1, 255, "a"], [0]),
        ("tasks/segmentation/temperatures", [{"rgb": 0}, {"rgb": -1}, {"rgb": NAN}, {"rgb": INF}], []),
        ("tasks/segmentation/temperatures", [{"sonar": 1}, {"depth+rgb": 1}], [{"rgb+depth": 1.5}]),
        ("tasks/boxes2d/classes", [[]], []),
        ("tasks/boxes2d/strides", [[], [0], [8, 8], [1025], [*range(1, 18)]], [[8, 1024]]),
        ("tasks/boxes2d/score_threshold", [0, 1, NAN], [0.5]),
        ("tasks/boxes2d/nms_iou", [0, NAN, 1.01], [1]),
        ("tasks/boxes2d/max_detections", [0, 100_001], [1]),
        ("tasks/pictures", [{}, {"names": []}, {"names": ["a", "a"]}], [{"names": ["fused"]}]),
        ("graphs/presence", [[], ["rgb"], [*ORDER, "rgb"]], [[*ORDER, "sonar"], [*ORDER[::-1]]]),
        ("graphs/separator", ["-", "", "_"], ["."]),  # '_' knows no encoder that is shared
        ("graphs/encoders/sonar", [_FUSER], []),
        ("graphs/subsets", [{"depth+rgb": _FUSER}, {"sonar": _FUSER}], [{"rgb+depth": _FUSER}]),
        ("graphs/fuser/file", ["../x", "/x", "a//b", "c:x", "a\0b", "other"], []),
        ("graphs/opset", [0], [17]),
        ("schema", [0, "2", None, 2.5, True], [2]),
        ("modalities", [["rgb"]], []),
        ("accuracy", [{}], []),  # lies beside it
        ("files/more", ["0" * 63, "A" * 64], ["0" * 64]),
    ],
)  # fmt: skip
def test_values_are_within_their_bounds(
    content: dict[str, Any], path: str, bad: list[Any], good: list[Any]
) -> None:
    for value in good:
        check_manifest(_put(content, path, value), "m")
    for value in bad:
        line = _one_line(_put(content, path, value))
        top = path.split("/")[0]
        assert line.startswith((f"m: {top}", "m: manifest:", "m: schema")), line


@pytest.mark.parametrize(
    "name", ["A", "1a", "presence", "all", "fuser", "a b", "", "a" * 64, "é", 3]
)
def test_what_no_sensor_can_be_called_no_input_can(content: dict[str, Any], name: Any) -> None:
    inputs = {**content["inputs"], name: {**content["inputs"]["ir"]}}
    changed = {**content, "inputs": inputs}
    changed["graphs"] = {**content["graphs"], "presence": [*ORDER, name]}
    assert "m: inputs" in _one_line(changed)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("tasks/segmentation/classes/1/color", "tasks.segmentation.classes.1.color"),
        ("tasks/boxes2d/nms_iou", "tasks.boxes2d.nms_iou"),
        ("inputs/ir/preprocess/kelvin/low", "inputs.ir.preprocess.kelvin.low"),
        ("inputs/roof/preprocess/dilate_px", "inputs.roof.preprocess.dilate_px"),
        ("inputs/cam_left/view/height", "inputs.cam_left.view.height"),
        ("graphs/encoders/color/file", "graphs.encoders.color.file"),
    ],
)
def test_errors_name_the_field_as_the_file_has_it(
    content: dict[str, Any], path: str, place: str
) -> None:
    assert _one_line(_put(content, path, "x\0")).startswith(f"m: {place}")


@pytest.mark.parametrize(
    "path",
    [
        "classes/segmentation/1/color",
        "detection/nms_iou",
        "inputs/depth/max_m",
        "inputs/rgb/mean",
        "inputs/grid/height",
        "graphs/fuser/file",
        "images/0",
    ],
)
def test_and_so_they_do_in_schema_1(small: Any, path: str) -> None:
    old = yaml.safe_load((small(("rgb", "depth"), 3, 2) / "bundle.yaml").read_text())
    old["images"] = ["fused"]
    changed = _put(old, path, "../\0")
    assert _one_line(changed).startswith(f"m: {path.replace('/', '.')}")


@pytest.mark.parametrize("make", ["one", "two"])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_whatever_is_changed_it_is_refused_in_one_line_or_a_manifest(
    small: Any, content: dict[str, Any], make: str, seed: int, count: int
) -> None:
    rng, changed = random.Random(seed), copy.deepcopy(content)
    if make == "one":
        from small_bundles import manifest

        changed = manifest(small.folder, ("rgb", "thermal"), 3, 2)
        changed["files"] = dict.fromkeys(
            ("encoder_rgb.onnx", "encoder_thermal.onnx", "fuser.onnx"), "0" * 64
        )
    for _ in range(count):
        if changed:
            change_value(changed, rng)
    try:
        found = check_manifest(changed, "m")
    except BundleError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return
    plain = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert check_manifest(yaml.safe_load(yaml.safe_dump(plain)), "m") == found


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_table_at_any_place_is_refused(content: dict[str, Any], strange: Any) -> None:
    """Inputs, tasks and graphs: what the runtime needs is never anything else."""
    for place in (
        "inputs",
        "tasks",
        "graphs",
        "files",
        "inputs/ir",
        "tasks/boxes2d",
        "graphs/encoders",
    ):
        if strange is None and place == "tasks/boxes2d":
            continue  # there are none
        _one_line(_put(content, place, strange))


def test_temperatures_change_confidence_and_nothing_else(small: Any, rgb: Sample) -> None:
    inputs = {"rgb": ("rgb", "rgb"), "other": ("rgb", "rgb")}
    second = Sample("rgb", rgb.data[::-1].copy(), rgb.stamp_ns, sensor="other")

    def results(temperatures: dict[str, float]) -> list[Any]:
        def edit(content: dict[str, Any]) -> None:
            content["tasks"]["segmentation"]["temperatures"] = temperatures

        pipeline = Pipeline.load(
            small.named(inputs, 3, 2, edit=edit), "cpu", threads=1, min_score=0.01
        )
        return [pipeline({"rgb": rgb}), pipeline({"rgb": rgb, "other": second})]

    plain, hot = results({}), results({"rgb": 2.5})
    for one, other in zip(plain, hot, strict=True):
        assert np.array_equal(one.labels, other.labels)
        for field in ("xyxy", "scores", "class_ids"):
            assert np.array_equal(getattr(one.boxes, field), getattr(other.boxes, field))
    assert np.array_equal(plain[1].confidence, hot[1].confidence)  # of another subset
    # p = 1 / sum(exp(-gap)) falls towards 1/3 as the gaps shrink.
    assert (hot[0].confidence <= plain[0].confidence + 1e-6).all()
    assert (hot[0].confidence < plain[0].confidence - 1e-4).any()
    assert (hot[0].confidence >= 1 / 3 - 1e-6).all()
    assert np.array_equal(results({"rgb": 1.0})[0].confidence, plain[0].confidence)


def _mutations() -> list[Callable[[BundleManifest], object]]:
    return [
        lambda m: m.inputs.root.clear(),
        lambda m: m.inputs.root.__setitem__("x", 1),
        lambda m: m.tasks.segmentation.temperatures.update(x=1),
        lambda m: setattr(m.tasks, "boxes2d", None),
        lambda m: setattr(m.inputs["ir"].view, "height", 32),
        lambda m: setattr(m.inputs["ir"].preprocess, "kelvin", 1),
        lambda m: setattr(m.licence, "data", "x"),
        lambda m: m.graphs.encoders.pop("color"),
        lambda m: m.graphs.presence.append("x"),
    ]  # fmt: skip


def test_an_opened_manifest_cannot_be_changed(small: Any) -> None:
    manifest = Bundle.open(small.named(INPUTS, 3, 2)).manifest
    before = manifest.model_dump(mode="json")
    for change in _mutations():
        with pytest.raises(Exception):  # noqa: B017 (of pydantic, or of Python)
            change(manifest)
    assert manifest.model_dump(mode="json") == before
