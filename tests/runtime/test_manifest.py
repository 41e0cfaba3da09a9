"""What `bundle.yaml` may say: ids, names, numbers and files."""

from __future__ import annotations

import copy
import datetime
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from perception.errors import BundleError
from perception.files.containers import Folder
from perception.files.limits import MAX_ARCHIVE_FILES
from perception.runtime.bundle import Bundle, record, write_bundle
from perception.runtime.manifest import BundleManifest, check_manifest, check_name
from perception.runtime.records import BundleRecords, read_records

OLD = Path(__file__).parent / "old_manifest.yaml"


@pytest.fixture
def content(small: Any) -> dict[str, Any]:
    folder = small(("rgb", "thermal"), 3, 2)
    found: dict[str, Any] = yaml.safe_load((folder / "bundle.yaml").read_text())
    return found


def _put(content: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with `value` at a path such as `classes.segmentation.0.id`."""
    changed = copy.deepcopy(content)
    *above, last = path.split(".")
    place: Any = changed
    for part in above:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return changed


def _records(content: dict[str, Any]) -> BundleRecords:
    """What a manifest of schema 1 says of measurements."""
    return read_records(Folder(Path("m"), BundleError), b"", content)


def test_a_manifest_of_an_earlier_version_still_loads() -> None:
    """As it was written before names, ids and numbers were checked."""
    found = check_manifest(yaml.safe_load(OLD.read_text()), "old")
    assert found.name == "indoor-rgbd" and found.schema_version == 2
    assert [c.id for c in found.seg_classes] == list(range(40))
    assert found.inputs["rgb"].preprocess.mean == (123.675, 116.28, 103.53)
    assert _records(yaml.safe_load(OLD.read_text())).backends["openvino-bf16"].passed
    assert found.graphs.encoders["depth"].file == "encoder_depth.onnx"
    assert found.graphs.subsets == {} and found.images == ()


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    content = yaml.safe_load(OLD.read_text())
    found, measured = check_manifest(content, "old"), _records(content)
    write_bundle(tmp_path, found, measured)
    names = ("bundle.yaml", "records.yaml")
    written = [(tmp_path / name).read_text() for name in names]
    old = OLD.read_text().splitlines()
    kept = [*old[old.index("accuracy:") : old.index("model:")], *old[old.index("backends:") :]]
    assert set(kept[:-2]) <= set(written[1].splitlines())  # in the same style
    assert check_manifest(yaml.safe_load(written[0]), "new") == found
    again = read_records(Folder(tmp_path, BundleError), written[0].encode(), None)
    assert again.model_copy(update={"bundle": measured.bundle}) == measured
    write_bundle(tmp_path, found, again)
    assert [(tmp_path / name).read_text() for name in names] == written


@pytest.mark.parametrize("name", ["a", "indoor-rgbd", "A1._-b", "0" * 64])
def test_names_for_paths_are_taken(content: dict[str, Any], name: str) -> None:
    assert check_manifest(_put(content, "name", name), "m").name == name
    check_name(name, "m")


@pytest.mark.parametrize(
    "name",
    ["", "../../x", "a/b", ".hidden", "-rf", "a b", 'x"\nbackend: "python"', "a\n", "é", "a" * 65],
)
def test_other_names_are_refused(content: dict[str, Any], name: str) -> None:
    with pytest.raises(BundleError, match="m: name:") as caught:
        check_manifest(_put(content, "name", name), "m")
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="--name"):
        check_name(name, "m")


@given(ids=st.permutations(range(3)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_classes_are_known_by_id_whatever_their_order(
    content: dict[str, Any], ids: list[int]
) -> None:
    table = [{"id": i, "name": f"is {i}", "color": [i, 0, 0]} for i in ids]
    found = check_manifest(_put(content, "classes.segmentation", table), "m").seg_classes
    assert [(c.id, c.name, c.color) for c in found] == [(i, f"is {i}", (i, 0, 0)) for i in range(3)]
    assert found[2].info().name == "is 2"


@given(ids=st.lists(st.integers(-1, 5), min_size=1, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_only_ids_that_count_through_are_taken(content: dict[str, Any], ids: list[int]) -> None:
    table = [{"id": i, "name": "x", "color": [0, 0, 0]} for i in ids]
    changed = _put(content, "classes.detection", table)
    if sorted(ids) == list(range(len(ids))):
        check_manifest(changed, "m")
    else:
        with pytest.raises(BundleError, match=r"m: classes\.detection"):
            check_manifest(changed, "m")


def test_ids_leave_room_for_pixels_of_no_class(content: dict[str, Any]) -> None:
    """255 is what masks say where nothing is labeled."""
    table = [{"id": i, "name": "x", "color": [0, 0, 0]} for i in range(256)]
    check_manifest(_put(content, "classes.segmentation", table[:255]), "m")
    with pytest.raises(BundleError, match=r"segmentation\.255\.id"):
        check_manifest(_put(content, "classes.segmentation", table), "m")


def test_a_record_says_on_how_many_frames_it_was_measured() -> None:
    content = yaml.safe_load(OLD.read_text())
    _records(_put(content, "backends.openvino-bf16.frames", 1))
    with pytest.raises(BundleError, match="frames"):
        _records(_put(content, "backends.openvino-bf16.frames", 0))


def test_the_message_says_which_id_is_wrong(content: dict[str, Any]) -> None:
    for ids, message in (([0, 1, 1], "id 1 is given twice"), ([1, 2, 3], "no id 0")):
        table = [{"id": i, "name": "x", "color": [0, 0, 0]} for i in ids]
        with pytest.raises(BundleError, match=f"{message}: ids must be 0 to 2"):
            check_manifest(_put(content, "classes.segmentation", table), "m")


def _digests(count: int) -> dict[str, str]:
    return {f"f{i}": "0" * 64 for i in range(count)}


NAN, INF = math.nan, math.inf


def _rule(low: float = 0.0, high: float = 99.0) -> dict[str, Any]:
    return {"kind": "percentile", "low": low, "high": high}


@pytest.mark.parametrize(
    ("path", "bad", "good"),
    [
        ("classes.segmentation.0.name", ["", " wall", "a\nb", "x" * 101, "\x1b[31m"], ["Straße"]),
        ("classes.segmentation.0.color", [[0, 0, 256], [-1, 0, 0], [0, 0]], [[255, 255, 255]]),
        ("inputs.rgb.mean", [[NAN] * 3, [INF, 0, 0], [0, 0, 2e6], [0, 0]], [[-1e6, 0, 1e6]]),
        ("inputs.rgb.std", [[0] * 3, [-1] * 3, [INF] * 3, [1e-7] * 3], [[1e-6, 1, 1e6]]),
        ("inputs.grid.height", [0, -32, 33, 31, 4128, 2**62], [32, 4096]),
        ("inputs.depth.max_m", [NAN, INF, 0, -1, 0.4, 2e6], [0.5, 1e6]),
        ("inputs.depth.min_m", [0, NAN, 20.0, 1e-7], [1e-6, 19.9]),
        ("inputs.depth.m_per_count8", [0, NAN, INF], [0.04]),
        ("inputs.thermal.kelvin", [{"kind": "percentile", "high": 101}], [{"kind": "linear"}]),
        ("inputs.thermal.counts16", [_rule(low=99.0), _rule(low=NAN), _rule(low=-1.0)], [_rule()]),
        ("inputs.thermal.counts8.low", [255.0, NAN, -2e6], [0.0, 254.9]),
        ("inputs.lidar.max_range_m", [0, INF, NAN], [1.0]),
        ("inputs.lidar.sensor_height_m", [NAN, INF], [-3.0]),
        ("inputs.lidar.dilate_px", [-1, 9], [0, 8]),
        ("detection.strides", [[], [0], [-8], [8, 8], [1025], [2**70]], [[1], [8, 1024]]),
        ("detection.strides", [[*range(1, 18)]], [[*range(1, 17)]]),
        ("detection.score_threshold", [0, 1, NAN, -0.1], [1e-6, 0.999]),
        ("detection.nms_iou", [0, NAN, 1.01], [1]),
        ("detection.max_detections", [0, -1, 100_001], [1, 100_000]),
        ("tasks", [[], ["segmentation"] * 2, ["panoptic"]], [["detection"]]),
        ("images", [["a", "a"], ["A"], ["../a"], ["a" * 65]], [["fused", "b_2"]]),
        ("version", ["", "a\nb", "x" * 101], ["2.0-rc1"]),
        ("description", ["x" * 10_001, "\x1b[31mred", "\x07"], ["x" * 10_000, "Zwei\nZeilen\t"]),
        ("graphs.opset", [0, -1], [1, 17]),
        ("graphs.fuser.file", ["../x.onnx", "/x", "a//b", "a\\b", "", "c:x", "a\0b"], []),
        ("graphs.subsets", [{"depth": {"file": "fuser.onnx"}}], [{"rgb": {"file": "fuser.onnx"}}]),
        (
            "graphs.subsets",
            [{"thermal+rgb": {"file": "fuser.onnx"}}],
            [{"rgb+thermal": {"file": "fuser.onnx"}}],
        ),
        ("graphs.encoders.sonar", [{"file": "fuser.onnx"}], []),
        ("precision", ["fp8"], ["int8"]),
        ("files.more", ["0" * 63, "g" * 64, "0" * 65, "A" * 64], ["0" * 64]),
        ("parity.x", ["much"], [1e-6]),
        ("schema", [0, "1", None, 1.5], [1]),
        ("unknown", [1], []),
        ("accuracy.x", [b"\xff", {1, 2}, bytearray(b"x")], [{"y": [1, "z"]}]),
        ("training.when", [], [datetime.date(2024, 1, 2)]),
    ],
)
def test_values_are_within_their_bounds(
    content: dict[str, Any], path: str, bad: list[Any], good: list[Any]
) -> None:
    def check(changed: dict[str, Any]) -> None:
        check_manifest(changed, "m")
        _records(changed)

    for value in good:
        check(_put(content, path, value))
    for value in bad:
        with pytest.raises(BundleError, match=r"m.*: ") as caught:
            check(_put(content, path, value))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500, value
        field = path.split(".")[0]
        # What depends on two fields is said of the whole.
        assert re.search(rf"^m(/bundle.yaml)?: ({field}|manifest|schema)", str(caught.value)), (
            caught.value
        )


def test_every_graph_needs_a_checksum(content: dict[str, Any]) -> None:
    for graphs in ({"single": {"file": "s"}}, {"subsets": {"rgb": {"file": "s"}}}):
        changed = _put(content, "graphs", {**content["graphs"], **graphs})
        with pytest.raises(BundleError, match="no checksum for s in files"):
            check_manifest(changed, "m")


def test_the_number_of_files_is_limited(content: dict[str, Any]) -> None:
    here = content["files"]
    for count, taken in ((MAX_ARCHIVE_FILES - len(here), True), (MAX_ARCHIVE_FILES, False)):
        changed = _put(content, "files", {**here, **_digests(count)})
        if taken:
            check_manifest(changed, "m")
        else:
            with pytest.raises(BundleError, match=f"more than {MAX_ARCHIVE_FILES}"):
                check_manifest(changed, "m")


def test_records_may_be_deep_but_not_without_end(content: dict[str, Any]) -> None:
    def nested(depth: int) -> Any:
        return [nested(depth - 1)] if depth else 1

    check_manifest(_put(content, "model.x", nested(15)), "m")
    for depth in (16, 400, 3000):
        deep: Any = 1
        for _ in range(depth):
            deep = [deep]
        with pytest.raises(BundleError, match="nested too deeply"):
            check_manifest({**content, "model": {"x": deep}}, "m")


def test_what_is_kept_for_people_is_plain_and_can_be_written(
    content: dict[str, Any], tmp_path: Path
) -> None:
    notes = {1: datetime.date(2024, 1, 2), "t": (1, 2.5), "n": None, "b": True}
    found = check_manifest({**content, "training": notes}, "m")
    assert found.training == {"1": "2024-01-02", "t": [1, 2.5], "n": None, "b": True}
    write_bundle(tmp_path, found)
    again = check_manifest(yaml.safe_load((tmp_path / "bundle.yaml").read_text()), "m")
    assert again.training == found.training


@pytest.mark.parametrize("text", ["", "3", "a: [", "- 1", "null", "\x00", "a: &a [*a]"])
def test_what_is_no_manifest_is_refused(small: Any, text: str) -> None:
    folder = small()
    (folder / "bundle.yaml").write_text(text)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder)
    assert "bundle.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_newer_schema_asks_for_an_upgrade_whatever_else_it_says() -> None:
    for schema in (3, 10**6):
        with pytest.raises(BundleError, match=f"schema {schema} is newer than 2.*upgrade"):
            check_manifest({"schema": schema, "nothing": "known"}, "m")


def test_what_an_old_manifest_left_out_means_what_it_meant(content: dict[str, Any]) -> None:
    """Bundles without these fields were decoded with these numbers, and shall be for ever."""
    del content["detection"]
    found = check_manifest(content, "m")
    spec = found.tasks.boxes2d
    assert spec is not None
    assert (spec.strides, spec.score_threshold, spec.nms_iou) == ((8, 16, 32), 0.3, 0.6)
    assert spec.max_detections == 100
    assert (found.graphs.opset, found.graphs.dynamic, found.graphs.single) == (18, False, None)
    assert (found.version, found.precision, found.simulated) == ("1", "fp32", False)


def _change(path: str) -> Callable[[BundleManifest], None]:
    def change(manifest: BundleManifest) -> None:
        place: Any = manifest
        *above, last = path.split(".")
        for part in above:
            place = getattr(place, part)
        setattr(place, last, 1)

    return change


@pytest.mark.parametrize(
    "change",
    [
        _change("name"),
        _change("tasks.boxes2d.score_threshold"),
        _change("graphs.single"),
        _change("inputs.grid.height"),
        lambda m: m.inputs.root.clear(),
        lambda m: m.inputs.root.__setitem__("rgb", 1),
        lambda m: m.files.update(x="0" * 64),
        lambda m: m.files.__setitem__("x", "0" * 64),
        lambda m: m.graphs.encoders.clear(),
        lambda m: m.graphs.subsets.pop("rgb"),
        lambda m: m.seg_classes.append(1),
    ],
)
def test_an_opened_manifest_cannot_be_changed(small: Any, change: Any) -> None:
    manifest = Bundle.open(small()).manifest
    before = manifest.model_dump(mode="json")
    with pytest.raises((ValidationError, TypeError, AttributeError)):
        change(manifest)
    assert manifest.model_dump(mode="json") == before
    assert manifest.model_copy(update={"version": "2"}).version == "2"


def test_a_record_is_added_or_replaced_and_the_rest_stays(small: Any) -> None:
    folder = small()
    identity = (folder / "bundle.yaml").read_bytes()
    record(folder, accuracy={"one": {"subsets": {"rgb": {"miou": 0.5}}}})
    record(folder, accuracy={"two": {"frames": 3}}, parity={"modular rgb": 1e-6})
    record(folder, accuracy={"one": {"frames": 4}})
    after = Bundle.open(folder).records
    assert after.accuracy == {"one": {"frames": 4}, "two": {"frames": 3}}
    assert after.parity == {"modular rgb": 1e-6}
    assert (folder / "bundle.yaml").read_bytes() == identity
