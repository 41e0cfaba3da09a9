"""`anysense calibrate time-offset`: from bags and recordings to offsets in a rig."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from turning import START, Panorama, Timing, turning

pytest.importorskip("scipy", reason="needs scipy: pip install 'anysense[calibrate]'")
pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from perception.adapters.outgoing import header
from perception.bags.files import write_bag
from perception.bags.messages import ROSBAGS, BagMessage, sample_message
from perception.cli.main import main
from perception.data.folder import FolderWriter, folder_info
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration, load_rig, save_rig
from perception.geometry.transforms import RigidTransform

SECONDS, SIZE = 14.0, (72, 96)
OFFSETS = {"rgb": 0.0, "thermal": 0.06, "imu": -0.035}
HZ = {"rgb": 30.0, "thermal": 9.0, "imu": 100.0}
CAMERA = CameraModel(96, 72, 96.0, 96.0, 48.0, 36.0)
IMU = "sensor_msgs/msg/Imu"
IMU_AND_B = ["--sensors", "imu,b", "--topic", "imu=/imu/data", "--topic", "b=/rgb/image_raw"]


def _imu(stamp_ns: int, arrived_ns: int, rate: np.ndarray) -> BagMessage:
    zero = ROSBAGS.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=9.81)
    x, y, z = rate.tolist()
    message = ROSBAGS.make(
        IMU,
        header=header(ROSBAGS, stamp_ns, "imu"),
        orientation=ROSBAGS.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        orientation_covariance=np.full(9, -1.0),
        angular_velocity=ROSBAGS.make("geometry_msgs/msg/Vector3", x=x, y=y, z=z),
        angular_velocity_covariance=np.zeros(9),
        linear_acceleration=zero,
        linear_acceleration_covariance=np.zeros(9),
    )
    return BagMessage("/imu/data", IMU, arrived_ns, ROSBAGS.serialize(message, IMU))


def _drive(seed: int = 1, boot_ns: int = 0, still: bool = False) -> Iterator[BagMessage]:
    """Messages of a robot that turns; thermal stamps are `boot_ns` behind, as since its start."""
    rng = np.random.default_rng(seed)
    robot, far = turning(rng, SECONDS, 1e-6 if still else 0.4), Panorama(rng, SIZE)
    for name, offset in OFFSETS.items():
        true, stamps = Timing(HZ[name], offset, jitter=0.0005).sample(rng, SECONDS)
        late = 0.01 + rng.exponential(0.003, len(true))
        arrivals = START + ((true + late) * 1e9).astype(np.int64)
        before, after = robot.at(true - 1e-3), robot.at(true + 1e-3)
        for index, (stamp, arrived) in enumerate(
            zip(stamps.tolist(), arrivals.tolist(), strict=True)
        ):
            if name == "imu":
                rate = (after[index] - before[index]) / 2e-3 + rng.normal(0, 0.002, 3)
                yield _imu(stamp, arrived, rate)
                continue
            gray = far.picture(robot.at(true[index : index + 1])[0])
            noisy = np.clip(gray + rng.normal(0, 3, gray.shape), 0, 255)
            if name == "rgb":
                sample = Sample("rgb", np.repeat(noisy.astype(np.uint8)[..., None], 3, 2), stamp)
            else:
                counts = (29000 + 10 * noisy).astype(np.uint16)
                sample = Sample("thermal", counts, stamp - boot_ns, encoding="mono16")
            message = sample_message(f"/{name}/image_raw", sample, name)
            yield BagMessage(message.topic, message.type, arrived, message.data)


def _write(path: Path, messages: Iterator[BagMessage]) -> Path:
    write_bag(path, sorted(messages, key=lambda message: message.stamp_ns))
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A robot that turns, with a camera, a thermal camera and an IMU."""
    return _write(tmp_path_factory.mktemp("time") / "bag", _drive())


def _run(bag: Path | str, out: Path, sensors: str, *more: str, status: int = 0) -> dict[str, Any]:
    topics = {"rgb": "/rgb/image_raw", "thermal": "/thermal/image_raw", "imu": "/imu/data"}
    named = [
        name for name in sensors.split(",") if name in topics and not str(bag).startswith("folder:")
    ]
    given = [word for name in named for word in ("--topic", f"{name}={topics[name]}")]
    command = ["calibrate", "time-offset", str(bag), "--sensors", sensors, *given, *more]
    assert main([*command, "--json", str(out / "found.json")]) == status
    found: dict[str, Any] = json.loads((out / "found.json").read_text())
    return found


def _rig(path: Path, **offsets: int) -> Path:
    pose = RigidTransform(np.eye(3), np.array([0.1, 0, 0]))
    sensors = {
        "rgb": SensorCalibration(CAMERA, time_offset_ns=offsets.get("rgb", 0)),
        "thermal": SensorCalibration(CAMERA, pose, time_offset_ns=offsets.get("thermal", 0)),
    }
    save_rig(Rig(sensors), path)
    return path


def test_offsets_of_a_bag_go_into_the_rig(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = _rig(tmp_path / "rig.yaml", rgb=7_000_000, thermal=-1)
    found = _run(bag, tmp_path, "rgb,thermal,imu")
    for name in ("thermal", "imu"):
        own = found["offsets"][name]
        error = own["offset_ns"] - OFFSETS[name] * 1e9
        assert abs(error) < max(3 * own["sigma_ns"], 1e6) < 25e6, (name, own)
        assert own["trusted"] and own["correlation"] > 0.8
    assert found["sensors"]["imu"]["kind"] == "imu" and found["rig"] is None
    assert found["sensors"]["thermal"]["kind"] == "thermal"
    assert abs(found["sensors"]["rgb"]["clock"]["lag_ns"] - 12e6) < 3e6
    assert "clock of rgb" in capsys.readouterr().out

    before = load_rig(rig)
    found = _run(bag, tmp_path, "rgb,thermal", "--out", str(rig))
    after, own = load_rig(rig), found["offsets"]["thermal"]
    assert found["rig"] == str(rig)
    # The reference's own offset counts, too: both come to the clock that the rig's offsets lead to.
    assert after.sensors["thermal"].time_offset_ns == own["offset_ns"] + 7_000_000
    assert after.sensors["thermal"].offset_sigma_ns == pytest.approx(own["sigma_ns"])
    assert after.sensors["rgb"].time_offset_ns == 7_000_000
    assert after.sensors["thermal"].source and after.sensors["thermal"].date
    assert np.allclose(
        after.between("thermal", "rgb").matrix, before.between("thermal", "rgb").matrix
    )
    # What a rig does with it: stamps of one moment agree.
    moment, picture = START + 5 * 10**9, np.zeros((72, 96), np.uint16)
    late = Sample("thermal", picture, moment - round(OFFSETS["thermal"] * 1e9), encoding="mono16")
    color = Sample("rgb", np.zeros((72, 96, 3), np.uint8), moment)
    apart = after.attach(late).time_ns - after.attach(color).time_ns
    assert abs(apart) < 3 * own["sigma_ns"] + 1e6


def test_an_imu_is_the_clock_that_others_are_brought_to(bag: Path, tmp_path: Path) -> None:
    rig = _rig(tmp_path / "rig.yaml", thermal=5)
    found = _run(bag, tmp_path, "imu,rgb,thermal", "--out", str(rig))
    for name in ("rgb", "thermal"):
        wanted = (OFFSETS[name] - OFFSETS["imu"]) * 1e9
        own = found["offsets"][name]
        assert abs(own["offset_ns"] - wanted) < max(3 * own["sigma_ns"], 1e6)
        assert load_rig(rig).sensors[name].time_offset_ns == own["offset_ns"]


def test_stamps_since_boot_are_found_told_and_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boot = START - 3_600 * 10**9
    bag = _write(tmp_path / "bag", _drive(2, boot))
    rig = _rig(tmp_path / "rig.yaml", thermal=11)
    found = _run(bag, tmp_path, "rgb,thermal", "--out", str(rig), status=3)
    own = found["offsets"]["thermal"]
    assert abs(own["offset_ns"] - boot - OFFSETS["thermal"] * 1e9) < 3 * own["sigma_ns"] + 1e6
    assert found["sensors"]["thermal"]["clock"]["since_boot"]
    assert found["rig"] is None and load_rig(rig).sensors["thermal"].time_offset_ns == 11
    said = capsys.readouterr().out
    assert "count from a start" in said and "is not written" in said


def test_without_motion_nothing_is_trusted(tmp_path: Path) -> None:
    bag = _write(tmp_path / "bag", _drive(3, still=True))
    found = _run(bag, tmp_path, "rgb,thermal", status=3)
    assert not found["trusted"] and "chance" in found["offsets"]["thermal"]["doubts"][0]


def test_a_recordings_own_offset_is_not_counted_twice(tmp_path: Path) -> None:
    # Frames of the folder format have one stamp: what the rig says of thermal has been added to it.
    rng, rig = (
        np.random.default_rng(5),
        Rig(
            {
                "rgb": SensorCalibration(CAMERA),
                "thermal": SensorCalibration(
                    CAMERA, RigidTransform.identity(), time_offset_ns=40_000_000
                ),
            }
        ),
    )
    robot, far = turning(rng, SECONDS, 0.4), Panorama(rng, SIZE)
    info = folder_info(
        name="turning", sensors={"rgb": "rgb", "thermal": "thermal"}, labels_of="rgb", size=SIZE,
        rate_hz=15.0, seg_classes=(), det_classes=(), thermal_unit="centikelvin", simulated=True, licence="",
    )  # fmt: skip
    with FolderWriter(tmp_path / "set", info, rig) as writer:
        for index in range(int(SECONDS * 15)):
            now, later = robot.at(np.array([index / 15, index / 15 + 0.05]))
            pictures = {
                "rgb": np.repeat(far.picture(now)[..., None], 3, 2),
                "thermal": 280 + 0.1 * far.picture(later).astype(np.float32),
            }
            writer.add(f"{index:04d}", pictures, stamp_ns=START + round(index * 1e9 / 15))
    found = _run(f"folder:{tmp_path / 'set'}", tmp_path, "rgb,thermal")
    own = found["offsets"]["thermal"]
    assert abs(own["offset_ns"] - 50_000_000) < 3 * own["sigma_ns"]
    assert found["sensors"]["rgb"]["clock"] is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sensors", "rgb"], "two different sensors"),
        (["--sensors", "rgb,rgb"], "two different sensors"),
        (["--sensors", "rgb,Q!"], "--sensors"),
        (["--sensors", "rgb,thermal"], "which topic is rgb"),
        (["--sensors", "a,b", "--topic", "a=/nope"], "no topic /nope"),
        (["--sensors", "a,b", "--topic", "c=/rgb/image_raw"], "'c' is not among"),
        (["--sensors", "a,b", "--topic", "a"], "is not NAME=VALUE"),
        (["--sensors", "a,b", "--topic", "a=/imu/data", "--topic", "b=/imu/data"], "one topic"),
        (
            [*IMU_AND_B, "--kind", "b=x"],
            "no kind 'x'",
        ),
        (
            [*IMU_AND_B, "--kind", "b=lidar"],
            "cannot be decoded",
        ),
        (["--sensors", "a,b", "--out", "RIG/no.yaml"], "is no rig"),
        (["--sensors", "rgb,b", "--out", "RIG/rig.yaml"], "no sensor 'b'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    words: list[str], said: str, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _rig(tmp_path / "rig.yaml")
    words = [word.replace("RIG", str(tmp_path)) for word in words]
    assert main(["calibrate", "time-offset", str(bag), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error, error


def test_what_is_no_recording_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in (str(tmp_path / "none"), f"folder:{tmp_path}"):
        assert main(["calibrate", "time-offset", text, "--sensors", "rgb,thermal"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_messages_without_stamps_are_told(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def unstamped() -> Iterator[BagMessage]:
        for message in _drive():
            if "thermal" in message.topic:
                data = bytearray(message.data)
                data[4:12] = bytes(8)
                message = BagMessage(message.topic, message.type, message.stamp_ns, bytes(data))
            yield message

    path = _write(tmp_path / "bag", unstamped())
    words = ["--topic", "rgb=/rgb/image_raw", "--topic", "thermal=/thermal/image_raw"]
    assert main(["calibrate", "time-offset", str(path), "--sensors", "rgb,thermal", *words]) == 2
    assert "no stamp" in capsys.readouterr().err
