"""What each fault does to a message, schedules, and conversions; and the stand-in definitions."""

from __future__ import annotations

import ast
import math
from array import array
from pathlib import Path

import numpy as np
import pytest
from anysense_ros.conversions import (
    cloud,
    from_camera,
    from_transform,
    header,
    image,
    labeled_cloud,
    to_camera,
    to_ns,
    to_sample,
    to_stamp,
    to_transform,
)
from anysense_ros.faults import Fault, FaultySensor, active, load_schedule, named_sensors
from bench import CAMERA, TO_OPTICAL
from hypothesis import given
from hypothesis import strategies as st
from sensor_msgs.msg import CompressedImage

from perception.errors import AnySenseError, ConfigError

ROOT = Path(__file__).parents[2] / "ros2_ws"
RIHS = {
    "vision_msgs/msg/Detection3DArray": (
        "RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018"
    ),
    "tf2_msgs/msg/TFMessage": (
        "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
    ),
}


def _rgb():  # type: ignore[no-untyped-def]
    pixels = np.random.default_rng(0).integers(1, 254, (8, 10, 3), np.uint8)
    return image(pixels, header(5, "cam"), "rgb8")


def _cloud():  # type: ignore[no-untyped-def]
    points = np.random.default_rng(0).uniform(1, 9, (500, 4)).astype(np.float32)
    return cloud(points, header(5, "lidar"))


def _pushed(faulty: FaultySensor, message, fault):  # type: ignore[no-untyped-def]
    """The message as it comes out, None when it does not, and how late in seconds."""
    faulty.push(message, 0, fault)
    due = faulty.next_ns()
    if due is None:
        return None, 0.0
    [(out, arrived_ns)] = faulty.poll(due)
    return out, arrived_ns / 1e9


def _apply(kind: str, message, sensor: str = "rgb", value: float = 0.0):  # type: ignore[no-untyped-def]
    return _pushed(FaultySensor(), message, Fault(sensor, kind, value))


def test_faults_leave_the_message_that_others_hold_alone() -> None:
    for kind, value in (("black", 0), ("saturate", 0), ("encoding", 0), ("stamp_jump", 2.0)):
        message = _rgb()
        before = (bytes(message.data), message.encoding, to_ns(message.header.stamp))
        _apply(kind, message, value=float(value))
        assert before == (bytes(message.data), message.encoding, to_ns(message.header.stamp))
    message = _cloud()
    _apply("encoding", message, "lidar")
    assert message.fields[0].name == "x"


def test_each_fault_of_an_image() -> None:
    assert _apply("drop", _rgb()) == (None, 0.0)
    assert _apply("delay", _rgb(), value=0.5)[1] == 0.5
    assert 0 <= _apply("jitter", _rgb(), value=0.5)[1] <= 0.5
    assert set(_apply("black", _rgb())[0].data) == {0}
    assert set(_apply("saturate", _rgb())[0].data) == {255}
    assert _apply("encoding", _rgb())[0].encoding == "unknown8"
    assert _apply("null", _rgb())[0].height == 0
    assert to_ns(_apply("stamp_jump", _rgb(), value=-3.0)[0].header.stamp) == 5 - 3 * 10**9
    depth = image(np.full((40, 50), 2.0, np.float32), header(0, "cam"))
    holes = to_sample("depth", _apply("nan", depth, "depth", 0.5)[0])
    assert 0.3 < np.isnan(holes.data).mean() < 0.7


@pytest.mark.parametrize(
    ("kind", "value", "stamp_ns"),
    [
        ("stamp_offset", 0.1, 100_000_005),
        ("clock_drift", 1e-3, 5),
        ("duplicate", 1e-9, 5),
        ("reorder", 1e-9, 5),
        ("burst", 1.0, 5),
    ],
)
def test_faults_of_the_library_by_their_own_names(kind: str, value: float, stamp_ns: int) -> None:
    message, late = _apply(kind, _rgb(), value=value)
    assert to_ns(message.header.stamp) == stamp_ns and late == 0.0
    with pytest.raises(ConfigError, match="needs a value"):
        Fault("rgb", kind)


@pytest.mark.parametrize(
    ("sensor", "kind"),
    [("rgb", "motion_blur"), ("depth", "holes"), ("thermal", "noise"), ("lidar", "rain")],
)
def test_content_faults_of_the_library_by_severity(sensor: str, kind: str) -> None:
    values = np.random.default_rng(0)
    messages = {
        "rgb": _rgb(),
        "depth": image(values.uniform(1, 9, (24, 30)).astype(np.float32), header(5, "cam")),
        "thermal": image(
            values.integers(0, 9999, (24, 30)).astype(np.uint16), header(5, "cam"), "mono16"
        ),
        "lidar": _cloud(),
    }
    message = messages[sensor]
    clean = to_sample(sensor, message)
    spoilt, late = _apply(kind, message, sensor, 4.0)
    found = to_sample(sensor, spoilt)
    assert late == 0.0 and spoilt.header == message.header and found.unit == clean.unit
    assert found.data.shape != clean.data.shape or not np.array_equal(found.data, clean.data)
    again = to_sample(sensor, _apply(kind, message, sensor, 4.0)[0])
    np.testing.assert_array_equal(found.data, again.data)
    for value in (0.0, 6.0, 2.5):
        with pytest.raises(ConfigError, match="severity"):
            Fault(sensor, kind, value)
    broken = _rgb()
    broken.encoding = "unknown8"
    if sensor == "rgb":  # no content to spoil
        assert _apply(kind, broken, sensor, 4.0)[0] is broken


def test_severities_in_a_schedule(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(
        "events:\n  - {at: 0, for: 1, sensor: rgb, fault: rain, severity: 5}\n"
        "  - {at: 1, for: 1, sensor: rgb, fault: rain}\n"
        "  - {at: 2, sensor: rgb, fault: rain, value: 1}\n"
    )
    schedule = load_schedule(path)
    found = [active(schedule, t, "rgb")[0] for t in (0.5, 1.5, 2.5)]
    assert [fault.severity for fault in found if fault] == [5, 3, 1]


def test_a_frozen_sensor_repeats_with_new_stamps() -> None:
    sensor, fault = FaultySensor(), Fault("rgb", "freeze")
    first = _pushed(sensor, _rgb(), None)[0]
    other = image(np.zeros((8, 10, 3), np.uint8), header(99, "cam"), "rgb8")
    frozen = _pushed(sensor, other, fault)[0]
    assert bytes(frozen.data) == bytes(first.data)
    assert to_ns(frozen.header.stamp) == 99
    assert _pushed(sensor, other, None)[0] is other


def test_each_fault_of_a_cloud() -> None:
    assert to_sample("lidar", _apply("black", _cloud(), "lidar")[0]).data.shape == (0, 4)
    with pytest.raises(AnySenseError, match="no field x"):
        to_sample("lidar", _apply("encoding", _cloud(), "lidar")[0])
    faulty = FaultySensor()
    left = [
        to_sample("lidar", _pushed(faulty, _cloud(), Fault("lidar", "beam_loss", 0.5))[0]).data
        for _ in range(2)
    ]
    assert 100 < len(left[0]) < 400
    assert np.array_equal(left[0], left[1])  # the same beams stay dead


@pytest.mark.parametrize(
    ("sensor", "kind", "value"),
    [
        ("sonar", "drop", 0.0),
        ("rgb", "melt", 0.0),
        ("rgb", "beam_loss", 0.5),
        ("lidar", "saturate", 0.0),
        ("rgb", "delay", 0.0),
        ("rgb", "delay", -1.0),
        ("depth", "nan", 2.0),
        ("rgb", "jitter", math.nan),
    ],
)
def test_faults_that_make_no_sense(sensor: str, kind: str, value: float) -> None:
    with pytest.raises(ConfigError):
        Fault(sensor, kind, value)


def test_a_schedule(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(
        "events:\n"
        "  - {at: 1, for: 2, sensor: [rgb, depth], fault: drop}\n"
        "  - {at: 2, sensor: rgb, fault: delay, value: 0.1}\n"
        "loop: 10\n"
    )
    schedule = load_schedule(path)
    assert active(schedule, 0.5, "rgb") == (None, 0.0)
    assert active(schedule, 1.5, "rgb") == (Fault("rgb", "drop", of="rgb"), 1.0)
    assert active(schedule, 12.5, "rgb") == (Fault("rgb", "delay", 0.1, "rgb"), 12.0)
    assert active(schedule, 3.5, "depth") == (None, 0.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "events: 3",
        "events: []\nsurprise: 1",
        "events: [3]",
        "events: [{at: 1, sensor: rgb}]",
        "events: [{at: -1, sensor: rgb, fault: drop}]",
        "events: [{at: soon, sensor: rgb, fault: drop}]",
        "events: [{at: 1, sensor: rgb, fault: melt}]",
        "events: []\nloop: never",
        "{",
    ],
)
def test_wrong_schedules(tmp_path: Path, text: str) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="schedule.yaml"):
        load_schedule(path)


def test_the_schedule_that_comes_along() -> None:
    assert len(load_schedule(ROOT / "src/anysense_ros/config/demo_schedule.yaml").events) == 10


def test_sensors_with_names_of_their_own(tmp_path: Path) -> None:
    kinds = named_sensors(["rgb", "rear=rgb", "roof=lidar"])
    assert kinds == {"rgb": "rgb", "rear": "rgb", "roof": "lidar"}
    schedule = tmp_path / "schedule.yaml"
    schedule.write_text(
        "events:\n  - {at: 1, sensor: [rear, rgb], fault: black}\n"
        "  - {at: 2, sensor: roof, fault: beam_loss, value: 0.5}\n"
    )
    events = load_schedule(schedule, kinds)
    found = [active(events, 3.0, s, kinds)[0] for s in ("rear", "rgb", "roof")]
    assert [fault.kind for fault in found if fault] == [
        "black",
        "black",
        "beam_loss",
    ]
    with pytest.raises(ConfigError, match="unknown sensor 'rear'"):
        load_schedule(schedule)
    with pytest.raises(ConfigError, match="makes no sense"):
        Fault("rear", "beam_loss", 0.5, "rgb")


@pytest.mark.parametrize(
    "name", ["front", "front=radar", "Front=rgb", "policy=rgb", "", "=rgb", "depth=rgb"]
)
def test_what_is_no_sensor(name: str) -> None:
    with pytest.raises(AnySenseError) as caught:
        named_sensors([name])
    assert "\n" not in str(caught.value)


@given(st.integers(-(2**60), 2**60))
def test_stamps_there_and_back(stamp_ns: int) -> None:
    limit = (2**31 - 1) * 10**9
    if -limit <= stamp_ns < limit:
        assert to_ns(to_stamp(stamp_ns)) == stamp_ns
    else:
        to_stamp(stamp_ns)


def test_calibration_there_and_back() -> None:
    assert to_camera(from_camera(CAMERA, 0, "camera_optical")) == CAMERA
    back = to_transform(from_transform(TO_OPTICAL, "a", "b", 0))
    assert np.allclose(back.matrix, TO_OPTICAL.matrix)


def test_padded_and_big_endian_images() -> None:
    values = (np.arange(12).reshape(3, 4) + 1000).astype(">u2")
    message = image(values.astype("u2"), header(0, "cam"), "16UC1")
    rows = np.zeros((3, 12), np.uint8)
    rows[:, :8] = values.view(np.uint8)
    message.step, message.is_bigendian, message.data = 12, 1, array("B", rows.tobytes())
    assert np.allclose(to_sample("depth", message).data, values.astype(float) / 1000)


def test_compressed_images() -> None:
    import cv2

    pixels = np.random.default_rng(0).integers(0, 255, (8, 10, 3), np.uint8)
    data = array("B", cv2.imencode(".png", pixels)[1].tobytes())
    sample = to_sample("rgb", CompressedImage(format="png", data=data))
    assert np.array_equal(sample.data, pixels[..., ::-1])
    with pytest.raises(AnySenseError):
        to_sample("depth", CompressedImage(format="png", data=data))
    with pytest.raises(AnySenseError):
        to_sample("rgb", CompressedImage(format="jpeg", data=data[:20]))


def test_labeled_clouds() -> None:
    points = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    message = labeled_cloud(
        points, np.array([7, 255], np.uint8), np.array([0.5, 1], np.float32), header(0, "lidar")
    )
    rows = np.frombuffer(message.data, np.uint8).reshape(2, message.point_step)
    assert rows[:, 12].tolist() == [7, 255]
    assert np.ascontiguousarray(rows[:, 16:20]).view(np.float32).ravel().tolist() == [0.5, 1.0]


@pytest.mark.parametrize("name", sorted(RIHS))
def test_stand_ins_are_the_real_types_on_the_wire(name: str) -> None:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    package = name.split("/")[0]
    types = {}
    for file in (ROOT / "underlay" / package / "msg").glob("*.msg"):
        types.update(get_types_from_msg(file.read_text(), f"{package}/msg/{file.stem}"))
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = {k: v for k, v in types.items() if k not in store.fielddefs}
    store.register(types)
    assert store.hash_rihs01(name) == RIHS[name]


@pytest.mark.parametrize("name", ["perception.launch.py", "demo.launch.py", "calibrate.launch.py"])
def test_launch_files_name_what_exists(name: str) -> None:
    """They are run with the real `launch` elsewhere; here, what they refer to must be there."""
    package = ROOT / "src/anysense_ros"
    source = (package / "launch" / name).read_text()
    tree = ast.parse(source)
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    assert "generate_launch_description" in functions
    shared = ast.parse((package / "anysense_ros/launching.py").read_text())
    both = [*ast.walk(tree), *ast.walk(shared)]
    strings = {n.value for n in both if isinstance(n, ast.Constant)}
    scripts = (package / "setup.py").read_text()
    executables = {
        k.value.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Call)
        for k in n.keywords
        if k.arg == "executable" and isinstance(k.value, ast.Constant)
    }
    assert executables
    for executable in executables:
        assert f'"{executable} = ' in scripts
    for file in (s for s in strings if isinstance(s, str) and s.endswith((".yaml", ".xml", ".py"))):
        if "/" not in file and " " not in file:
            assert list(package.glob(f"*/{file}")), file
    imports = {(n.module or "").split(".")[0] for n in both if isinstance(n, ast.ImportFrom)}
    own = {"anysense_ros", "perception"}
    elsewhere = {"launch", "launch_ros", "ament_index_python", "pathlib", "collections"}
    assert imports <= own | elsewhere | {"__future__"}
