"""Folder recordings whose sensors have names: several of a kind, each with what is its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perception.cli.main import main
from perception.data import RecordingInfo, open_recording
from perception.data.base import first_reference, named_sensors
from perception.data.check import check_folder
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.data.layout import FolderInfo, read_info
from perception.errors import DataError
from perception.files.fields import check_fields
from perception.frame import KINDS, NAME_PATTERN
from perception.geometry.rig import save_rig
from perception.sim.sensors import make_rig, mount_sensors

ROAD = [{"id": 0, "name": "road", "color": [1, 2, 3]}]
FIELDS = {"schema": 2, "name": "two", "sensors": {"front": "rgb"}, "height": 24, "width": 32}


def described(root: Path, **fields: Any) -> Path:
    """A folder with this `dataset.yaml` and one frame, which has no file yet."""
    root.mkdir(exist_ok=True)
    content = {k: v for k, v in {**FIELDS, **fields}.items() if v is not None}
    (root / "dataset.yaml").write_text(yaml.safe_dump(content))
    (root / "frames.csv").write_text("id,stamp_ns\na,5\n")
    return root


def picture(seed: int, size: tuple[int, int] = (24, 32)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def written(root: Path, **fields: Any) -> Path:
    """Two cameras and two depth cameras, the second with coarser steps."""
    sensors = {"front": "rgb", "rear": "rgb", "near": "depth"}
    sensors["far"] = {"kind": "depth", "depth_scale": 0.01}  # type: ignore[assignment]
    info = folder_info(
        **{
            "name": "two",
            "size": (24, 32),
            "seg_classes": (),
            "det_classes": (),
            "sensors": sensors,
            **fields,
        }
    )
    with FolderWriter(root, info) as out:
        for i in range(2):
            depth = np.full((24, 32), 1.234 + i, np.float32)
            samples = {"front": picture(i), "near": depth, "far": depth * 20}
            samples |= {"rear": picture(i + 10)} if i == 0 else {}
            out.add(f"{i:06d}", samples, stamp_ns=i * 10**8)
    return root


def test_what_is_written_is_read_by_name(tmp_path: Path) -> None:
    recording = FolderRecording(written(tmp_path / "r"))
    assert recording.info.sensors == {
        "front": "rgb",
        "rear": "rgb",
        "near": "depth",
        "far": "depth",
    }
    assert recording.info.labels_of == "front"
    frame = recording.frame(0)
    assert list(frame) == ["front", "rear", "near", "far"]
    assert all(name == sample.sensor for name, sample in frame.items())
    assert np.array_equal(frame["front"].data, picture(0))
    assert np.array_equal(frame["rear"].data, picture(10))
    assert frame["far"].data == pytest.approx(24.68) and frame["near"].data == pytest.approx(1.234)
    assert list(recording.frame(1)) == ["front", "near", "far"]
    findings = [(f.severity, f.where, f.message) for f in check_folder(recording.root)]
    apart = [
        ("warning", "rig.yaml", f"does not say where {n} sits") for n in ("rear", "near", "far")
    ]
    wanted = [*apart, ("warning", "rear/000001", "sample is missing")]
    assert [(a, b, c.partition(":")[0]) for a, b, c in findings] == wanted


def test_what_is_written_says_what_was_said(tmp_path: Path) -> None:
    plain = yaml.safe_load((written(tmp_path / "r") / "dataset.yaml").read_text())
    assert plain["schema"] == 2 and "modalities" not in plain
    assert plain["sensors"]["front"] == "rgb" and plain["labels_of"] == "front"
    assert plain["sensors"]["far"] == {"kind": "depth", "depth_scale": 0.01}


@pytest.mark.parametrize(
    ("fields", "schema"),
    [
        ({"sensors": {"rgb": "rgb", "depth": "depth"}}, 1),
        ({"sensors": {"rgb": "rgb", "depth": "depth"}, "labels_of": "rgb"}, 1),
        ({"sensors": {"rgb": "rgb", "depth": "depth"}, "labels_of": "depth"}, 2),
        ({"sensors": {"rgb": "rgb", "depth": {"kind": "depth", "depth_scale": 0.002}}}, 2),
        ({"sensors": {"rgb": "rgb", "rear": "rgb"}}, 2),
    ],
)
def test_schema_1_is_written_where_it_can_say_all(
    tmp_path: Path, fields: dict[str, Any], schema: int
) -> None:
    info = folder_info(name="x", size=(24, 32), seg_classes=(), det_classes=(), **fields)
    FolderWriter(tmp_path / "r", info).__exit__(None, None, None)
    plain = yaml.safe_load((tmp_path / "r" / "dataset.yaml").read_text())
    assert plain["schema"] == schema
    assert list(plain)[2] == ("modalities" if schema == 1 else "sensors")
    again = FolderRecording(tmp_path / "r")
    assert set(again.info.sensors) == set(fields["sensors"])
    assert again.info.labels_of == fields.get("labels_of", "rgb")


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"schema": 3}, "schema 3 is newer than 2: upgrade anysense"),
        ({"sensors": {"Front": "rgb"}}, "'Front' is no name of a sensor"),
        ({"sensors": {"../up": "rgb"}}, "'../up' is no name of a sensor"),
        ({"sensors": {"front\n": "rgb"}}, "is no name of a sensor"),
        ({"sensors": {"labels": "rgb"}}, "no sensor can be called 'labels'"),
        ({"sensors": {"boxes3d": "rgb"}}, "no sensor can be called 'boxes3d'"),
        ({"sensors": {"depth": "rgb"}}, "no rgb sensor can be called 'depth'"),
        ({"sensors": {"front": "sonar"}}, "sensors.front.kind: .*got 'sonar'"),
        ({"sensors": {"front": None}}, "sensors.front"),
        ({"sensors": {5: "rgb"}}, "sensors.5"),
        ({"sensors": {}}, "sensors: .* at least 1"),
        ({"sensors": ["front"]}, "sensors"),
        ({"sensors": None}, "sensors: this field is missing"),
        ({"modalities": ["rgb"]}, "modalities: no such field"),
        (
            {"sensors": {"front": {"kind": "rgb", "depth_scale": 1}}},
            "rgb sensor has no depth_scale",
        ),
        ({"sensors": {"roof": {"kind": "lidar", "width": 9}}}, "a lidar sensor has no width"),
        ({"sensors": {"d": {"kind": "depth", "depth_scale": 0}}}, "sensors.d.depth_scale"),
        ({"sensors": {"d": {"kind": "depth", "depht_scale": 1}}}, "depht_scale: no such field"),
        ({"labels_of": "rear"}, "labels_of: there is no sensor 'rear'"),
        (
            {"sensors": {"f": {"kind": "rgb", "width": 64}}},
            "labels_of: height and width are those of f",
        ),
        ({"sensors": None, "modalities": []}, "modalities: expected some of rgb"),
        ({"sensors": None, "modalities": ["front"]}, "modalities: expected some of rgb"),
        ({"sensors": None, "modalities": [["rgb"]]}, "modalities: expected some of rgb"),
        (
            {"sensors": {"f": "rgb", "g": {"kind": "rgb", "width": 10**6, "height": 10**6}}},
            "1000000x1000000",
        ),
    ],
)
def test_descriptions_that_cannot_be_are_refused(
    tmp_path: Path, fields: dict[str, Any], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = described(tmp_path / "r", **fields)
    with pytest.raises(DataError, match=fault):
        FolderRecording(root)
    assert main(["data", "check", str(root)]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and str(root / "dataset.yaml") in error


def test_the_example_of_the_data_page_is_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```yaml\n(# dataset.yaml with two [^`]*)```", page)
    (tmp_path / "dataset.yaml").write_text(text)
    info = read_info(tmp_path)
    assert info.labels_of == "front" and list(info.sensors) == ["front", "rear", "roof", "bumper"]
    assert (info.of("rear").width, info.of("front").width) == (1280, 640)
    assert info.of("bumper").lidar_least_range_m == 0.2


def test_each_lidar_is_read_with_its_own_columns_and_range(tmp_path: Path) -> None:
    sensors = {
        "roof": "lidar",
        "bumper": {"kind": "lidar", "lidar_columns": 5, "lidar_least_range_m": 2.0},
    }
    root = described(tmp_path / "r", sensors=sensors, lidar_least_range_m=0.5)
    points = np.array([[1, 0, 0, 0.5], [3, 0, 0, 0.5], [0.1, 0, 0, 0.5]], np.float32)
    for name, rows in (("roof", points), ("bumper", np.pad(points, ((0, 0), (0, 1))))):
        (root / name).mkdir()
        (root / name / "a.bin").write_bytes(rows.tobytes())
    frame = FolderRecording(root).frame(0)
    assert frame["roof"].data[:, 0].tolist() == [1, 3]
    assert frame["bumper"].data[:, 0].tolist() == [3]
    errors = {f.where for f in check_folder(root) if f.severity == "error"}
    assert errors == {"roof/a", "bumper/a"}  # no calibration


def test_each_thermal_camera_has_its_own_unit(tmp_path: Path) -> None:
    import cv2

    sensors = {"left": "thermal", "right": {"kind": "thermal", "thermal_unit": "centikelvin"}}
    root = described(tmp_path / "r", sensors=sensors, thermal_unit="counts16")
    for name in sensors:
        (root / name).mkdir()
        cv2.imwrite(str(root / name / "a.png"), np.full((24, 32), 29500, np.uint16))
    frame = FolderRecording(root).frame(0)
    assert (frame["left"].unit, frame["right"].unit) == ("counts16", "kelvin")
    assert frame["left"].data[0, 0] == 29500 and frame["right"].data[0, 0] == pytest.approx(295)
    with pytest.raises(DataError, match="thermal_unit says counts16"):
        written(tmp_path / "w", sensors={"ir": {"kind": "thermal", "thermal_unit": "counts16"}})


def test_pictures_may_have_a_size_of_their_own(tmp_path: Path) -> None:
    import cv2

    sensors = {"front": "rgb", "rear": {"kind": "rgb", "height": 48, "width": 80}}
    root = described(tmp_path / "r", sensors=sensors, det_classes=ROAD)
    (root / "boxes").mkdir()
    (root / "boxes" / "a.txt").touch()
    for name, size in (("front", (24, 32)), ("rear", (48, 80))):
        (root / name).mkdir()
        cv2.imwrite(str(root / name / "a.png"), picture(1, size))
    assert FolderRecording(root).frame(0)["rear"].data.shape == (48, 80, 3)
    assert {f.where for f in check_folder(root)} == {"rig.yaml"}
    cv2.imwrite(str(root / "rear" / "a.png"), picture(1))
    assert [f.where for f in check_folder(root) if f.severity == "error"] == ["rear/a"]
    with pytest.raises(DataError, match="is 32x24 pixels"):
        FolderRecording(root).frame(0)


@pytest.mark.parametrize("labels_of", ["front", "rear"])
def test_a_cloud_is_projected_into_the_labeled_camera(tmp_path: Path, labels_of: str) -> None:
    """The LiDAR looks along the front camera; of its points the rear one sees those behind it."""
    kinds = {"front": "rgb", "rear": "rgb", "roof": "lidar"}
    mounted = mount_sensors((24, 32), kinds)  # type: ignore[arg-type]
    root = described(tmp_path / "r", sensors=kinds, labels_of=labels_of)
    save_rig(make_rig(mounted, "front"), root / "rig.yaml")
    (root / "roof").mkdir()
    np.save(root / "roof" / "a.npy", np.array([[10, 0, 0, 0], [-10, 0, 0, 0]], np.float32))
    sample = FolderRecording(root).frame(0)["roof"]
    assert sample.camera is not None and sample.extrinsics is not None
    assert sample.camera.fx == pytest.approx(mounted[labels_of].camera.fx)  # type: ignore[union-attr]
    ahead = sample.extrinsics.apply(sample.data[:, :3])[:, 2]
    wanted = [9.65, -10.35] if labels_of == "front" else [-11.15, 8.85]
    assert ahead == pytest.approx(wanted)


def test_a_silent_sensor_is_named(tmp_path: Path) -> None:
    root = described(tmp_path / "r", sensors={"front": "rgb", "rear": "rgb"})
    with pytest.warns(UserWarning, match="no frame has a file in rear/"):
        FolderRecording(root)
    assert "rear" in {f.where for f in check_folder(root) if f.severity == "error"}


def test_a_sample_of_a_sensor_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    info = folder_info(
        name="x", size=(24, 32), seg_classes=(), det_classes=(), sensors={"front": "rgb"}
    )
    with FolderWriter(tmp_path / "r", info) as out:
        with pytest.raises(DataError, match="lists no sensor 'rear'"):
            out.add("a", {"rear": picture(0)}, stamp_ns=0)
        out.add("a", front=picture(0), stamp_ns=0)
    assert list(open_recording("folder", tmp_path / "r").frame(0)) == ["front"]


_OWN: dict[str, st.SearchStrategy[Any]] = {
    "rgb": st.just({}),
    "depth": st.fixed_dictionaries({}, optional={"depth_scale": st.floats(1e-6, 1)}),
    "thermal": st.fixed_dictionaries({}, optional={"thermal_unit": st.just("counts8")}),
    "lidar": st.fixed_dictionaries({}, optional={"lidar_columns": st.integers(3, 6)}),
}
entries = st.sampled_from(KINDS).flatmap(lambda k: _OWN[k].map(lambda own: {"kind": k, **own}))
tables = st.dictionaries(st.one_of(st.sampled_from(KINDS), st.from_regex(NAME_PATTERN)), entries)


@given(tables, st.data())
def test_a_description_is_read_as_it_was_written(
    table: dict[str, Any], data: st.DataObject
) -> None:
    content = {**FIELDS, "sensors": table}
    if table:
        content["labels_of"] = data.draw(st.sampled_from(["", *table]))
    try:
        info = check_fields(FolderInfo, content, where="x")
    except DataError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)
        return
    written = yaml.safe_load(yaml.safe_dump(info.to_dict()))
    again = check_fields(FolderInfo, written, where="x")
    assert again == info and again.to_dict() == written
    assert {n: again.of(n) for n in table} == {n: info.of(n) for n in table}
    plain = all(set(own) == {"kind"} and n == own["kind"] for n, own in table.items())
    assert ("modalities" in written) == (
        plain
        and info.labels_of
        == first_reference(named_sensors({n: own["kind"] for n, own in table.items()}, ""))
    )


def test_kinds_alone_are_the_sensors_names() -> None:
    info = RecordingInfo("folder", "x", ("depth", "rgb"))  # type: ignore[arg-type]
    assert info.sensors == {"rgb": "rgb", "depth": "depth"}
    assert info.modalities == ("rgb", "depth") and info.labels_of == "rgb"
    other = RecordingInfo("folder", "x", {"roof": "lidar", "ir": "thermal"})
    assert other.labels_of == "roof" and list(other.sensors) == ["roof", "ir"]


@pytest.mark.parametrize(
    ("sensors", "labels_of", "fault"),
    [
        ({"depth": "rgb"}, "", "no rgb sensor can be called 'depth'"),
        ({"front": "radar"}, "", "unknown kind of sensor 'radar'"),
        ({"fuser": "rgb"}, "", "no sensor can be called 'fuser'"),
        ({"front": "rgb"}, "rear", "labels_of: there is no sensor 'rear'"),
    ],
)
def test_sensors_that_cannot_be_are_refused(sensors: Any, labels_of: str, fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        RecordingInfo("folder", "x", sensors, labels_of=labels_of)


def test_info_says_which_sensors_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "info", f"folder:{written(tmp_path / 'r', labels_of='rear')}"]) == 0
    said = capsys.readouterr().out
    assert "sensors front (rgb), rear (rgb), near (depth), far (depth)" in said
    assert "labels are in the pixels of rear" in said
