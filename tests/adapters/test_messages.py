"""ROS messages, as any object with their fields: samples, calibration and transforms."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.adapters import calibration as module
from perception.adapters.calibration import MessageCalibration
from perception.adapters.messages import stamp_of, to_camera, to_ns
from perception.errors import CalibrationError, EncodingError, InputError
from perception.frame import KINDS, Kind, Sample
from perception.geometry.transforms import RigidTransform
from perception.sensors.samples import to_sample

QUATERNION = (0.5, -0.5, 0.5, 0.5)


def _header(stamp_ns: int = 0, frame: str = "camera") -> SimpleNamespace:
    stamp = SimpleNamespace(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(stamp=stamp, frame_id=frame)


def _image(values: np.ndarray, encoding: str, stamp_ns: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        header=_header(stamp_ns),
        height=values.shape[0],
        width=values.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=values.nbytes // values.shape[0],
        data=values.tobytes(),
    )


def _compressed(values: np.ndarray, format: str) -> SimpleNamespace:
    data = cv2.imencode(".png", values)[1].tobytes()
    return SimpleNamespace(header=_header(7), format=format, data=data)


def _info(width: int = 640, height: int = 480, **fields: Any) -> SimpleNamespace:
    roi = dict(
        zip(("x_offset", "y_offset", "width", "height"), fields.pop("roi", (0,) * 4), strict=True)
    )
    values = {
        "header": _header(),
        "width": width,
        "height": height,
        "k": np.array([500, 0, 319.5, 0, 500, 239.5, 0, 0, 1.0]),
        "d": np.zeros(5),
        "p": np.zeros(12),
        "distortion_model": "plumb_bob",
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(**roi),
    }
    return SimpleNamespace(**{**values, **fields})


def _cloud() -> SimpleNamespace:
    points = np.random.default_rng(0).uniform(1, 9, (5, 4)).astype(np.float32)
    fields = [
        SimpleNamespace(name=n, offset=4 * i, datatype=7, count=1)
        for i, n in enumerate(("x", "y", "z", "intensity"))
    ]
    return SimpleNamespace(
        header=_header(3, "lidar"),
        fields=fields,
        data=points.tobytes(),
        width=5,
        height=1,
        point_step=16,
        row_step=80,
        is_bigendian=False,
    )


def _transform(child: str, quaternion: Any, parent: str = "camera") -> SimpleNamespace:
    rotation = SimpleNamespace(**dict(zip("xyzw", quaternion, strict=True)))
    translation = SimpleNamespace(x=1.0, y=2.0, z=3.0)
    return SimpleNamespace(
        header=_header(0, parent),
        child_frame_id=child,
        transform=SimpleNamespace(translation=translation, rotation=rotation),
    )


def test_every_type_of_message_becomes_its_sample() -> None:
    colors = np.random.default_rng(1).integers(0, 255, (4, 6, 3), np.uint8)
    millimeters = np.full((4, 6), 1500, np.uint16)
    rgb = to_sample("rgb", _image(colors, "rgb8", 5))
    assert (rgb.stamp_ns, rgb.frame_id, rgb.encoding) == (5, "camera", "rgb8")
    again = to_sample("rgb", _compressed(colors[..., ::-1], "png"))
    assert np.array_equal(again.data, rgb.data)
    assert (again.stamp_ns, again.encoding) == (7, "png")
    depth = to_sample("depth", _compressed(millimeters, "16UC1; png compressed "))
    assert np.allclose(depth.data, 1.5)
    thermal = to_sample("thermal", _compressed(millimeters, "png"), "centikelvin")
    assert thermal.unit == "kelvin"
    assert to_sample("lidar", _cloud()).data.shape == (5, 4)


def test_the_same_picture_is_read_as_what_it_is_declared() -> None:
    counts = np.array([[1500, 0, 2500]], np.uint16)
    depth = to_sample("depth", _image(counts, "16UC1"))
    assert depth.unit == "" and np.allclose(depth.data[0, [0, 2]], [1.5, 2.5])
    assert np.isnan(depth.data[0, 1])
    thermal = to_sample("thermal", _image(counts, "16UC1"), "counts16")
    assert thermal.unit == "counts16" and np.array_equal(thermal.data, counts)
    kelvin = to_sample("thermal", _image(20 * counts, "16UC1"), "centikelvin")
    assert kelvin.unit == "kelvin" and np.allclose(kelvin.data[0, [0, 2]], [300, 500])
    with pytest.raises(EncodingError):
        to_sample("rgb", _image(counts, "16UC1"))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 2**32 - 1))
def test_stamps_are_exact(sec: int, nanosec: int) -> None:
    stamp = to_ns(SimpleNamespace(sec=sec, nanosec=nanosec))
    assert type(stamp) is int and Fraction(stamp, 10**9) == sec + Fraction(nanosec, 10**9)
    message = _image(np.zeros((1, 1, 3), np.uint8), "rgb8", stamp)
    assert to_sample("rgb", message).stamp_ns == stamp == stamp_of(message)


def test_a_message_of_an_unknown_type_is_called_by_its_name() -> None:
    class Odometry:
        pass

    named = SimpleNamespace(__msgtype__="nav_msgs/msg/Odometry")
    for message, name in ((Odometry(), "Odometry"), (named, "nav_msgs/msg/Odometry")):
        with pytest.raises(EncodingError, match=f"a {name} is no rgb"):
            to_sample("rgb", message)
    with pytest.raises(EncodingError, match="a sensor_msgs/msg/Image is no lidar"):
        to_sample("lidar", _image(np.zeros((4, 6), np.uint8), "mono8"))


@pytest.mark.parametrize("kind", KINDS)
def test_other_types_of_message_are_named(kind: Kind) -> None:
    image = _image(np.zeros((4, 6), np.uint8), "mono8")
    wrong = [_info(), SimpleNamespace(data="text"), image if kind == "lidar" else _cloud()]
    for message in wrong:
        with pytest.raises(EncodingError, match=f"no {kind} .*needs sensor_msgs"):
            to_sample(kind, message)


def _wrong(kind: Kind) -> list[SimpleNamespace]:
    """Messages of the right type, each with something else that is wrong."""
    if kind == "lidar":
        endless, odd, bare = _cloud(), _cloud(), _cloud()
        endless.height, odd.fields[0].datatype = 2**30, 77
        bare.fields, bare.data = bare.fields[:2], bare.data
        return [endless, odd, bare]
    strange = _image(np.zeros((4, 6), np.uint8), "yuv777")
    short, empty = _image(np.zeros((4, 6), np.uint8), "mono8"), _compressed(np.zeros((4, 6)), "png")
    short.data, short.step, empty.data = short.data[:5], 2, b""
    return [strange, short, empty, SimpleNamespace(**{**vars(short), "data": 7})]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_name_the_sensor(kind: Kind) -> None:
    for message in [*_wrong(kind), _info()]:
        lines = []
        for name in ("", kind, "front_left"):
            with pytest.raises(InputError) as caught:
                to_sample(kind, message, sensor=name)
            lines.append(str(caught.value))
            types = type(caught.value)
        assert lines[0] == lines[1] and "front_left" not in lines[0]
        assert lines[2].startswith("front_left: ") and not lines[2].startswith(
            f"front_left: {kind}:"
        )
        assert lines[2].endswith(lines[0].removeprefix(f"{kind}: ")) and types in (
            InputError,
            EncodingError,
        )


def test_samples_bear_the_name_of_their_sensor() -> None:
    message = _image(np.zeros((4, 6, 3), np.uint8), "rgb8", 5)
    assert to_sample("rgb", message).sensor == "rgb"
    named = to_sample("rgb", message, sensor="front_left")
    assert (named.kind, named.sensor, named.stamp_ns) == ("rgb", "front_left", 5)
    assert to_sample("lidar", _cloud(), sensor="roof").sensor == "roof"


def test_one_bad_transform_does_not_take_the_good_one_along() -> None:
    zero, nan = (0, 0, 0, 0), (float("nan"),) * 4
    good = _transform("lidar", QUATERNION)
    for others in ([("b", zero)], [("b", nan)], [("", QUATERNION)], [("b", zero), ("c", nan)]):
        for first in (True, False):
            bad = [_transform(*other) for other in others]
            calibration = MessageCalibration()
            message = SimpleNamespace(transforms=[*bad, good] if first else [good, *bad])
            assert calibration.on_transforms(message, static=True) == len(bad)
            assert calibration.tree.lookup("camera", "lidar").translation.tolist() == [1, 2, 3]
            assert len(calibration.problems) == len(bad)
    calibration.on_transforms(SimpleNamespace(transforms=[_transform("b", QUATERNION)]), True)
    assert list(calibration.problems) == ["tf c"]


@pytest.mark.parametrize("length", [0.998, 2.0, 1e-6, 1e6])
def test_quaternions_need_not_be_of_unit_length(length: float) -> None:
    calibration = MessageCalibration()
    stretched = _transform("/lidar", [length * v for v in QUATERNION], "/camera")
    calibration.on_transforms(SimpleNamespace(transforms=[stretched]), static=True)
    found = calibration.tree.lookup("camera", "lidar")
    assert np.allclose(found.rotation, [[0, -1, 0], [0, 0, -1], [1, 0, 0]])


@pytest.mark.parametrize("static", [False, True])
def test_transforms_without_a_stamp_are_of_when_they_came(static: bool) -> None:
    for stamp, received, expected in ((0, 500, 500), (70, 500, 70), (70, None, 70), (0, None, 0)):
        calibration = MessageCalibration()
        one = _transform("lidar", QUATERNION)
        one.header.stamp.nanosec = stamp
        message = SimpleNamespace(transforms=[one])
        assert calibration.on_transforms(message, static, received) == 0
        tree = calibration.tree
        assert tree.lookup("camera", "lidar", expected + 9, max_age_ns=9) is not None
        if static:
            assert tree.lookup("camera", "lidar", 10**18, max_age_ns=9) is not None
        else:
            with pytest.raises(CalibrationError):
                tree.lookup("camera", "lidar", expected + 10, max_age_ns=9)


def test_a_long_name_is_cut_in_what_is_said_of_it() -> None:
    calibration = MessageCalibration()
    message = SimpleNamespace(transforms=[_transform("x" * 1000, (0, 0, 0, 0))])
    assert calibration.on_transforms(message, static=True) == 1
    (key,) = calibration.problems
    assert key.startswith("tf xxx") and len(key) < 100


def test_a_problem_that_comes_again_is_not_forgotten_first() -> None:
    calibration = MessageCalibration()

    def fail(name: str) -> None:
        message = SimpleNamespace(transforms=[_transform(name, (0, 0, 0, 0))])
        assert calibration.on_transforms(message, static=False) == 1

    for number in range(1000):
        fail("again")
        fail(f"f{number}")
    assert {"tf again", "tf f999", "tf f998"} <= set(calibration.problems)
    assert "tf f0" not in calibration.problems


def test_problems_do_not_pile_up() -> None:
    calibration = MessageCalibration()
    for number in range(1000):
        message = SimpleNamespace(transforms=[_transform(f"f{number}", (0, 0, 0, 0))])
        calibration.on_transforms(message, static=False)
    kept = list(calibration.problems)
    assert kept == [f"tf f{n}" for n in range(1000 - module._MOST_PROBLEMS, 1000)]
    assert len(kept) < 100


def _rgb(width: int, height: int) -> Sample:
    return Sample("rgb", np.zeros((height, width, 3), np.uint8))


def test_the_model_that_fits_the_image_is_attached() -> None:
    calibration = MessageCalibration()
    binned = _info(binning_x=2, binning_y=2)
    assert calibration.on_camera("rgb", binned)
    for width, height, focal in ((320, 240, 250), (640, 480, 500), (320, 240, 250)):
        camera = calibration.attach(_rgb(width, height)).camera
        assert camera is not None and (camera.width, camera.fx) == (width, focal)
        # The LiDAR is projected into the image that there is, whatever is said again meanwhile.
        calibration.on_camera("rgb", _info(binning_x=2, binning_y=2, d=np.full(5, np.nan)))
        calibration.on_camera("rgb", binned)
        assert calibration.camera("rgb") == camera
    camera = calibration.attach(_rgb(100, 100)).camera
    assert camera is not None and camera.width != 100


def test_bad_camera_infos_leave_the_last_good_one() -> None:
    calibration = MessageCalibration()
    assert not calibration.on_camera("rgb", _info(70_000, 70_000))
    assert "70000x70000" in calibration.problems["rgb camera_info"]
    assert calibration.camera("rgb") is None
    assert calibration.on_camera("rgb", _info())
    assert not calibration.problems
    uncalibrated = _info(k=np.zeros(9))
    for _ in range(2):
        assert not calibration.on_camera("rgb", uncalibrated)
    assert "uncalibrated" in calibration.problems["rgb camera_info"]
    assert calibration.camera("rgb") is not None
    with pytest.raises(CalibrationError, match="uncalibrated"):
        to_camera(uncalibrated)


def test_camera_infos_are_of_sensors_by_name() -> None:
    calibration = MessageCalibration(
        kinds={"front": "rgb", "rear": "rgb", "roof": "lidar"}, into={"roof": "rear"}
    )
    assert calibration.on_camera("front", _info())
    assert calibration.on_camera("rear", _info(k=np.array([400, 0, 9, 0, 400, 9, 0, 0, 1.0])))
    assert not calibration.on_camera("rear", _info(k=np.zeros(9)))
    assert list(calibration.problems) == ["rear camera_info"]
    fx = [getattr(calibration.camera(name), "fx", None) for name in ("front", "rear", "rgb")]
    assert fx == [500, 400, None]
    placed = SimpleNamespace(transforms=[_transform("roof", QUATERNION)])
    assert calibration.on_transforms(placed, static=True) == 0
    cloud = Sample("lidar", np.ones((1, 4), np.float32), 5, "roof", sensor="roof")
    got = calibration.attach(cloud)
    assert got.camera is not None and got.camera.fx == 400 and got.extrinsics is not None


def _odometry(x: float, sec: int, child: str = "base_link", w: float = 1.0) -> SimpleNamespace:
    pose = SimpleNamespace(
        position=SimpleNamespace(x=x, y=0.0, z=0.0),
        orientation=SimpleNamespace(x=0.0, y=0.0, z=0.0, w=w),
    )
    head = SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=0), frame_id="odom")
    return SimpleNamespace(header=head, child_frame_id=child, pose=SimpleNamespace(pose=pose))


def test_odometry_of_the_base_frame_or_of_one_that_is_connected() -> None:
    calibration = MessageCalibration()
    assert calibration.on_odometry(_odometry(0.0, 1))
    assert not calibration.on_odometry(_odometry(0.0, 1, w=0.0))
    assert "odometry of 'base_link'" in calibration.problems["odometry"]
    assert not calibration.on_odometry(_odometry(0.0, 1, child="imu"))
    assert "no transform" in calibration.problems["odometry"]
    ahead = RigidTransform(np.eye(3), np.array([1.0, 0, 0]))
    calibration.tree.set("base_link", "imu", ahead, static=True)
    half = _odometry(3.0, 1, child="imu")
    half.header.stamp.nanosec = 400_000_000
    assert calibration.on_odometry(half)
    assert not calibration.problems
    moved = calibration.odometry.moved(1_000_000_000, 1_400_000_000)
    assert moved is not None
    np.testing.assert_allclose(moved.translation, [-2.0, 0, 0])  # the base is 1 m behind the imu
