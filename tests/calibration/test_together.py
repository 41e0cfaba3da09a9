"""A LiDAR and two cameras found in one fit, with known truth, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_scenes import view_of
from lidar_scenes import BOARD, CAMERA, PLATE, TRUTH, board_view, middles, vector_of, write_clouds
from numpy.typing import NDArray

from calibration.cameras import calibrate_cameras
from calibration.detection import BoardView, Detections
from calibration.extrinsics import calibrate_lidar
from calibration.joint import moved
from calibration.scans import cloud_files
from calibration.together import Together, calibrate_together
from calibration.together_fit import lidar_to_camera
from perception.errors import CalibrationError, ConfigError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import RigidTransform

WARM = CameraModel(320, 256, 210.0, 211.0, 158.0, 129.0)
MODELS = {"front": CAMERA, "warm": WARM}
PLACE = RigidTransform(cv2.Rodrigues(np.radians([1.0, -3.0, 2.0]))[0], np.array([0.12, 0.01, 0.02]))
"""From warm to front."""


@dataclass
class Scene:
    poses: list[RigidTransform]
    clouds: dict[str, Path]
    seed: int = 0

    def views(
        self, change: dict[str, dict[int, float]] | None = None
    ) -> dict[str, list[BoardView]]:
        """What cameras see; the board of some poses is moved by metres before one's picture."""
        rng, found = np.random.default_rng(self.seed), {"front": [], "warm": []}
        for index, pose in enumerate(self.poses):
            for name, own in found.items():
                shift = (change or {}).get(name, {}).get(index, 0.0)
                at = RigidTransform(pose.rotation, pose.translation + [shift, 0, shift])
                file = f"{index:02}.png"
                if name == "front":
                    own.append(board_view(at, file, rng))
                else:
                    view = view_of(BOARD, WARM, vector_of(PLACE.inverse() @ at), 0.1, rng, file)
                    assert view is not None
                    own.append(view)
        return found


def scene(folder: Path, count: int, seed: int = 0) -> Scene:
    """Poses that all three see."""
    rng, poses = np.random.default_rng(0), []
    for pose in middles(6 * count, seed=seed):
        if view_of(BOARD, WARM, vector_of(PLACE.inverse() @ pose), 0.3, rng, "") is not None:
            poses.append(pose)
    poses = poses[:count]
    assert len(poses) == count
    return Scene(poses, cloud_files(write_clouds(folder, poses, seed + 1)), seed)


@pytest.fixture(scope="module")
def nine(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return scene(tmp_path_factory.mktemp("clouds"), 9, seed=7)


def fit(own: Scene, views: dict[str, list[BoardView]] | None = None, **change) -> Together:
    seen = {name: Detections(tuple(v)) for name, v in (views or own.views()).items()}
    given = {"detections": seen, "models": MODELS, "clouds": own.clouds}
    return calibrate_together(
        **{**given, "board": BOARD, "plate": PLATE, "lidar": "lidar", **change}
    )


def off(found: RigidTransform, truth: RigidTransform) -> NDArray:
    """(6,) as in a rig's covariance."""
    turn = cv2.Rodrigues(found.rotation @ truth.rotation.T)[0].ravel()
    return np.concatenate([found.translation - truth.translation, turn])


def errors(found: Together) -> dict[str, tuple[NDArray, NDArray]]:
    """What each answer is off and its sigma."""
    lidar, place, other = found.reference, found.places["warm"], found.lidars["warm"]
    return {
        "lidar": (off(lidar.joint.transform, TRUTH), lidar.sigma),
        "warm": (off(place.transform, PLACE), place.sigma),
        "lidar to warm": (off(other.joint.transform, PLACE.inverse() @ TRUTH), other.sigma),
    }


def held(found: Together, metres: float = 0.008) -> None:
    for name, (missed, sigma) in errors(found).items():
        assert np.linalg.norm(missed[:3]) < metres, (name, missed)
        assert np.degrees(np.linalg.norm(missed[3:])) < 0.25, (name, missed)
        assert (np.abs(missed) < 4 * sigma).all(), (name, missed / sigma)


def test_all_are_found_and_known_no_worse_than_by_pairs(nine: Scene) -> None:
    views = nine.views()
    found = fit(nine, views)
    held(found)
    assert found.trusted and not any(found.left_out.values()), (found.doubts, found.left_out)
    loop = found.places["warm"].transform @ found.lidars["warm"].joint.transform
    assert np.allclose(loop.matrix, found.reference.joint.transform.matrix, atol=1e-12)
    seen = {name: Detections(tuple(own)) for name, own in views.items()}
    alone = [calibrate_lidar(seen[n], nine.clouds, MODELS[n], BOARD, PLATE).sigma for n in MODELS]
    pairs = dict(zip(("lidar", "lidar to warm"), alone, strict=True))
    pairs["warm"] = calibrate_cameras(seen, MODELS, BOARD).places["warm"].sigma
    for name, (_, sigma) in errors(found).items():
        for part in (slice(0, 3), slice(3, 6)):
            ratio = np.linalg.norm(sigma[part]) / np.linalg.norm(pairs[name][part])
            assert ratio < 1.02, (name, ratio)
    plain = found.to_dict()
    assert np.allclose(plain["lidar_to_camera"], found.reference.joint.transform.matrix)
    assert np.shape(plain["joint_covariance"]) == (12, 12) and plain["rms_px"] < 1
    assert plain["cameras"]["warm"]["poses"] == 9
    values = np.linalg.eigvalsh(found.covariance)
    assert values.min() > 0


def test_poses_may_be_seen_by_two_of_three(nine: Scene) -> None:
    """Front lacks one, warm two, the LiDAR one, and of one it has nothing to go with."""
    views = nine.views()
    front = [v for v in views["front"] if v.name not in ("00.png", "04.png")]
    warm = [v for v in views["warm"] if v.name not in ("01.png", "02.png", "04.png")]
    clouds = {stem: path for stem, path in nine.clouds.items() if stem != "03"}
    found = fit(nine, {"front": front, "warm": warm}, clouds=clouds)
    held(found, 0.01)
    assert found.trusted, found.doubts
    assert set(found.left_out["lidar"]) == {"04"} and "picture" in found.left_out["lidar"]["04"]
    assert found.places["warm"].poses == 6
    assert [pair.name for pair in found.lidars["warm"].pairs] == ["00", "05", "06", "07", "08"]


def test_a_camera_is_placed_by_way_of_the_lidar(nine: Scene) -> None:
    """The cameras share one pose only."""
    views = nine.views()
    found = fit(nine, {"front": views["front"][:5], "warm": views["warm"][4:]})
    held(found, 0.02)


@pytest.mark.parametrize("sensor", ["front", "warm"])
def test_only_the_sensor_that_saw_another_pose_is_left_out(nine: Scene, sensor: str) -> None:
    found = fit(nine, nine.views({sensor: {3: 0.05}}))
    assert list(found.left_out[sensor]) == ["03"], found.left_out
    assert not any(own for name, own in found.left_out.items() if name != sensor)
    held(found)


def test_boards_numbered_from_the_other_end_are_turned(nine: Scene) -> None:
    views, last = nine.views(), len(BOARD.points) - 1
    views["warm"] = [
        replace(v, ids=last - v.ids) if i % 2 else v for i, v in enumerate(views["warm"])
    ]
    held(fit(nine, views))


def test_what_does_not_fit_is_refused(nine: Scene) -> None:
    views = nine.views()
    few = {**views, "warm": views["warm"][:3]}
    with pytest.raises(CalibrationError, match="front and warm share 3 poses.*LiDAR as well"):
        fit(nine, few)
    shift = [replace(v, name=views["warm"][(i + 3) % 9].name) for i, v in enumerate(views["warm"])]
    with pytest.raises(CalibrationError, match="poses agree on where warm is"):
        fit(nine, {**views, "warm": shift})
    with pytest.raises(CalibrationError, match="one size"):
        fit(nine, models={**MODELS, "warm": replace(WARM, width=640)})
    with pytest.raises(CalibrationError, match="same name"):
        fit(nine, clouds={f"cloud_{stem}": path for stem, path in nine.clouds.items()})
    with pytest.raises(ConfigError, match="upside down"):
        fit(nine, plate=replace(PLATE, offset_m=(0.02, 0.0)))


def test_the_covariance_to_another_camera_is_that_of_the_two() -> None:
    rng = np.random.default_rng(0)
    root = 1e-4 * rng.normal(size=(12, 12))
    at, known = lidar_to_camera(PLACE, TRUTH, root @ root.T)
    draws = [root @ rng.normal(size=12) for _ in range(4000)]

    def moves(v: NDArray) -> NDArray:
        return off(moved(PLACE, v[:6]).inverse() @ moved(TRUTH, v[6:]), at)

    spread = np.std([moves(v) for v in draws], axis=0)
    assert np.allclose(spread, np.sqrt(np.diag(known)), rtol=0.06)


@pytest.mark.slow
def test_two_sigma_hold_the_truth_as_often_as_they_say(tmp_path: Path) -> None:
    inside, ratios = [], []
    for seed in range(8):
        for missed, sigma in errors(fit(scene(tmp_path / str(seed), 8, 20 + seed))).values():
            inside.append(np.abs(missed) < 2 * sigma)
            ratios.append(missed / sigma)
    assert 0.85 <= np.mean(inside) <= 1.0, np.mean(inside)
    assert 1 / 1.6 < np.std(ratios) < 1.6, np.std(ratios)
