"""Checking rigs without a board: on simulated streets, and on a real drive."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration.alignment import Alignment, align, edges_of_cloud
from calibration.check import check_rig, judge
from perception.cli.main import main
from perception.data.base import Recording
from perception.data.registry import open_recording
from perception.errors import CalibrationError
from perception.frame import Frame, Sample
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform
from perception.sim.generate import make_recording


def turned(rig: Rig, lidar: str, degrees: tuple[float, float, float]) -> Rig:
    """The rig with its LiDAR turned about the axes of the camera's optical frame."""
    angles = np.radians(degrees)
    angle = float(np.linalg.norm(angles))
    xyz = angles / max(angle, 1e-12) * np.sin(angle / 2)
    error = RigidTransform.from_quaternion_xyzw([*xyz, np.cos(angle / 2)], np.zeros(3))
    own = rig.sensors[lidar]
    assert own.pose is not None and not rig.base
    sensors = {
        **rig.sensors,
        lidar: replace(own, pose=Pose(error @ own.pose.transform), extrinsics=None),
    }
    return Rig(sensors)  # fmt: skip


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    out = tmp_path_factory.mktemp("street") / "drive"
    make_recording(out, "drive", 8, 3, size=(240, 320), lidar="os1-64", progress=False)
    return open_recording("folder", out)


@pytest.fixture(scope="module")
def frames(street: Recording) -> list[Frame]:
    return [street.frame(i) for i in range(len(street))]


def only(rig: Rig, *names: str) -> Rig:
    return replace(rig, sensors={name: rig.sensors[name] for name in names})


def test_a_true_rig_is_ok(street: Recording, frames: list[Frame]) -> None:
    found = check_rig(street.rig, frames)
    assert found.verdict == "ok"
    assert {found.sensors[name][0] for name in ("rgb", "lidar")} == {"ok"}
    pair = next(pair for pair in found.pairs if pair.camera == "rgb")
    assert pair.found.is_maximum and pair.found.score > max(pair.found.perturbed.values())


@pytest.mark.parametrize("error", [(0, 1, 0), (0, -1, 0), (1, 0, 0), (-0.5, 2, 0.3), (0, 4, 0)])
def test_a_turned_sensor_is_suspect_and_by_how_much_is_told(
    street: Recording, frames: list[Frame], error: tuple[float, float, float]
) -> None:
    found = check_rig(turned(only(street.rig, "rgb", "lidar"), "lidar", error), frames)
    assert found.verdict == "suspect" and {v for v, _ in found.sensors.values()} == {"suspect"}
    own = found.pairs[0].found
    assert not own.is_maximum and own.best > own.score
    for axis in (0, 1):
        assert abs(own.offset_deg[axis] - error[axis]) < 3 * own.sigma_deg[axis] < 0.9
    assert f"yaw {own.offset_deg[1]:+.2f}" in found.pairs[0].reason


def test_pictures_without_edges_and_of_another_place_cannot_tell(
    street: Recording, frames: list[Frame]
) -> None:
    rig = only(street.rig, "rgb", "lidar")
    rng = np.random.default_rng(0)

    def changed(frame: Frame, image: np.ndarray) -> Frame:  # type: ignore[type-arg]
        return Frame({**frame, "rgb": replace(frame["rgb"], data=image)})

    size = frames[0]["rgb"].data.shape
    for image in (np.full(size, 90, np.uint8), rng.integers(0, 256, size, np.uint8)):
        found = check_rig(rig, [changed(frame, image) for frame in frames])
        assert found.verdict == "cannot tell" and "fit nowhere" in found.pairs[0].reason


def test_few_edges_cannot_tell(street: Recording, frames: list[Frame]) -> None:
    def thin(frame: Frame) -> Frame:
        return Frame({**frame, "lidar": replace(frame["lidar"], data=frame["lidar"].data[::40])})

    found = check_rig(only(street.rig, "rgb", "lidar"), [thin(frame) for frame in frames])
    assert found.verdict == "cannot tell" and "record more frames" in found.pairs[0].reason


def test_order_of_points_and_what_is_no_return_change_nothing(frames: list[Frame]) -> None:
    points = frames[0]["lidar"].data
    edges = edges_of_cloud(points)
    shuffled = np.random.default_rng(1).permutation(points)
    hostile = np.full((50, points.shape[1]), np.nan, points.dtype)
    hostile[::2] = 0
    for other in (shuffled, np.concatenate([points, hostile])):
        again = edges_of_cloud(other)
        assert len(again.points) == len(edges.points) > 20
        assert np.allclose(np.sort(again.points[:, 0]), np.sort(edges.points[:, 0]))
    assert len(edges_of_cloud(points[:0]).points) == 0


def test_edges_lie_where_a_box_ends() -> None:
    """A plate at 5 m, 1 m wide and up to 0.5 m high, before a wall at 20 m."""
    azimuth, elevation = np.meshgrid(
        np.radians(np.arange(-20, 20, 0.2)), np.radians(np.arange(-10, 10, 0.4))
    )
    ray = np.stack(
        [
            np.cos(elevation) * np.cos(azimuth),
            np.cos(elevation) * np.sin(azimuth),
            np.sin(elevation),
        ],
        -1,
    )
    plate, wall = ray * (5 / ray[..., :1]), ray * (20 / ray[..., :1])
    on_plate = (np.abs(plate[..., 1]) < 0.5) & (plate[..., 2] < 0.5)
    edges = edges_of_cloud(np.where(on_plate[..., None], plate, wall).reshape(-1, 3))
    sides, tops = edges.points[~edges.tops], edges.points[edges.tops]
    assert len(sides) > 30 and np.abs(np.abs(sides[:, 1]) - 0.5).max() < 0.03
    assert len(tops) > 10 and np.abs(tops[:, 2] - 0.5).max() < 0.04


def _alignment(offset: tuple[float, ...], sigma: tuple[float, ...], **others: float) -> Alignment:
    values = {"frames": 5, "edges": 5000, "score": 0.8, "best": 0.9, "contrast": 0.6} | others
    return Alignment(**values, offset_deg=offset, sigma_deg=sigma, perturbed={})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offset", "sigma", "others", "verdict"),
    [
        ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1), {}, "ok"),
        ((0.1, 0.6, 0.1), (0.1, 0.1, 0.1), {}, "suspect"),
        ((0.1, 0.6, 0.1), (0.1, 0.24, 0.1), {}, "cannot tell"),
        ((0.1, 0.1, 0.1), (0.3, 0.1, 0.1), {}, "cannot tell"),
        ((0.1, 0.1, 0.9), (0.1, 0.1, 2.0), {}, "ok"),
        ((0.1, 0.1, 1.1), (0.1, 0.1, 0.3), {}, "suspect"),
        ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1), {"edges": 20}, "cannot tell"),
        ((0.1, 3.0, 0.1), (0.1, 0.1, 0.1), {"contrast": 0.1}, "cannot tell"),
        ((0.1, 0.1, 0.1), (np.inf, np.inf, np.inf), {}, "cannot tell"),
    ],
)
def test_verdicts(
    offset: tuple[float, ...], sigma: tuple[float, ...], others: Mapping[str, float], verdict: str
) -> None:
    assert judge(_alignment(offset, sigma, **others), 0.5)[0] == verdict


def test_of_two_cameras_the_one_that_is_off_is_found(
    street: Recording, frames: list[Frame]
) -> None:
    right, lidar = street.rig.sensors["rgb"], street.rig.sensors["lidar"]
    off = turned(only(street.rig, "rgb", "lidar"), "lidar", (0, -1.5, 0)).between("lidar", "rgb")
    true = only(street.rig, "rgb", "lidar").between("lidar", "rgb")
    base = {"kind": "rgb", "extrinsics": None}
    sensors = {
        "front": replace(right, **base, pose=Pose(true.inverse())),  # type: ignore[arg-type]
        "turned": replace(right, **base, pose=Pose(off.inverse())),  # type: ignore[arg-type]
        "lidar": replace(lidar, extrinsics=None, pose=Pose(RigidTransform.identity())),
    }
    rig = Rig(sensors, "lidar_link", "front")
    both = [
        Frame(
            {
                **{n: replace(frame["rgb"], sensor=n) for n in ("front", "turned")},
                "lidar": frame["lidar"],
            }
        )
        for frame in frames
    ]
    found = check_rig(rig, both)
    verdicts = {name: verdict for name, (verdict, _) in found.sensors.items()}
    assert verdicts == {"front": "ok", "turned": "suspect", "lidar": "ok"}
    assert found.verdict == "suspect"


def test_what_cannot_be_compared_is_refused(street: Recording, frames: list[Frame]) -> None:
    small = SensorCalibration(CameraModel(64, 48, 50, 50, 32, 24))
    rig = Rig({"rgb": small, "lidar": street.rig.sensors["lidar"]})
    with pytest.raises(CalibrationError, match="320x240 pixels, the rig says 64x48"):
        check_rig(rig, frames)
    with pytest.raises(
        CalibrationError, match=r"the recording has rgb \(rgb\), .* the rig rgb \(rgb\)"
    ):
        check_rig(only(street.rig, "rgb"), frames)
    with pytest.raises(CalibrationError, match="the recording has nothing"):
        check_rig(only(street.rig, "rgb", "lidar"), [])


def test_thermal_pictures_of_any_unit_are_compared(street: Recording, frames: list[Frame]) -> None:
    """16-bit counts far from 0, as radiometric cameras give them, with a hole."""

    def counts(frame: Frame) -> Frame:
        gray = frame["rgb"].data.mean(axis=2)
        data = (gray * 7 + 29000).astype(np.float32)
        data[:3] = np.nan
        return Frame({"hot": Sample("thermal", data, sensor="hot"), "lidar": frame["lidar"]})

    own = replace(street.rig.sensors["rgb"], kind="thermal")
    rig = Rig({"hot": own, "lidar": street.rig.sensors["lidar"]})
    assert check_rig(rig, [counts(frame) for frame in frames]).verdict == "ok"


def test_no_frames_align_to_nothing() -> None:
    found = align([], CameraModel(64, 48, 50, 50, 32, 24), RigidTransform.identity())
    assert found.frames == 0 and judge(found, 0.5)[0] == "cannot tell"


def test_the_command(street: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, report = tmp_path / "good.yaml", tmp_path / "bad.yaml", tmp_path / "report.json"
    rig = only(street.rig, "rgb", "lidar")
    save_rig(rig, good)
    save_rig(turned(rig, "lidar", (0, 1, 0)), bad)
    data = ["--data", f"folder:{street.root}", f"--json={report}"]
    assert main(["calibrate", "check", str(good), *data]) == 0
    told = json.loads(report.read_text())
    assert told["verdict"] == "ok" and told["sensors"]["lidar"]["verdict"] == "ok"
    assert main(["calibrate", "check", str(bad), *data]) == 3
    told = json.loads(report.read_text())
    assert told["verdict"] == "suspect" and told["pairs"][0]["offset_deg"][1] > 0.6
    assert "suspect" in capsys.readouterr().out
    assert main(["calibrate", "check", str(bad), *data, "--tolerance", "2"]) == 0
    capsys.readouterr()
    for line, words in (
        (["missing.yaml", *data], "no such file"),
        ([str(good), "--data", f"folder:{tmp_path}"], "no dataset.yaml"),
        ([str(good), "--data", "kitt:x"], "KIND:DIR"),
        ([str(good), *data, "--tolerance", "0"], "at least 0.05"),
    ):
        assert main(["calibrate", "check", *line]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said, said


@pytest.mark.slow
def test_a_real_drive(real_data: Path) -> None:
    """Whose truth is known: ok as it is, from any ten frames of it; suspect where it is a degree off."""
    recording = open_recording("kitti", real_data / "kitti_0005")
    every = [recording.frame(i) for i in range(0, len(recording), 3)]
    for part in (every, every[:8], every[-8:]):
        found = check_rig(recording.rig, part)
        assert found.verdict == "ok", found.pairs[0].reason
        assert all(abs(v) < 3 * s for v, s in zip(found.pairs[0].found.offset_deg,
                                                  found.pairs[0].found.sigma_deg, strict=True))  # fmt: skip
    for error in ((0, 1, 0), (0, -1, 0), (1, 0, 0)):
        found = check_rig(turned(recording.rig, "lidar", error), every)
        assert found.verdict == "suspect", found.pairs[0].reason
        assert np.abs(np.subtract(found.pairs[0].found.offset_deg, error)).max() < 0.3
