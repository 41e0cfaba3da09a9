"""From a folder of views to a rig: what is found goes into it, what is not trusted does not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from board_scenes import picture_of, pose_at, view_of
from lidar_scenes import (
    BOARD,
    CAMERA,
    PLATE,
    TRUTH,
    middles,
    write_clouds,
    write_pictures,
)

from calibration.boards import parse_board
from calibration.live.recording import ViewFolder
from calibration.live.solving import Solved, Solver, Source
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

ABOUT = {"date": "2026-01-01", "told": "a test"}


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight poses before a camera and a LiDAR; of a second camera, pictures without a board."""
    root = tmp_path_factory.mktemp("views")
    poses = middles(8, seed=4)
    write_pictures(root / "front", poses)
    write_clouds(root / "top", poses)
    folder = ViewFolder(root, ["rear"])
    for _ in range(4):
        folder.add({"rear": np.full((240, 320), 90, np.uint8)})
    return root


def sources(views: Path, **known: CameraModel) -> list[Source]:
    kinds = {"front": "rgb", "rear": "rgb", "top": "lidar"}
    return [
        Source(name, kind, views / name, name != "top", known.get(name), f"{name}_frame")
        for name, kind in kinds.items()
    ]


def solve(chosen: list[Source], old: Rig | None = None, **options) -> Solved:  # type: ignore[no-untyped-def]
    return Solver(chosen, BOARD, PLATE, old, **ABOUT, **options).run()


def test_a_lidar_is_placed_by_the_first_camera(views: Path) -> None:
    told: list[tuple[str, int, int]] = []
    front, _, top = sources(views, front=CAMERA)
    found = solve([front, top], progress=lambda *step: told.append(step))
    assert found.trusted and found.rig is not None
    assert [step.name for step in found.steps] == ["place of top"]
    placed = found.rig.between("top", "front")
    assert np.linalg.norm(placed.translation - TRUTH.translation) < 0.02
    assert found.rig.sensors["top"].frame_id == "top_frame"
    assert found.rig.sensors["top"].date == "2026-01-01" and not found.rig.base
    assert any("finding the board" in text for text, _, _ in told)
    assert all(0 <= done <= of for _, done, of in told)
    plain = found.to_dict()["steps"]["place of top"]
    assert np.allclose(plain["lidar_to_camera"], placed.matrix) and plain["written"]


def test_a_camera_that_is_refused_takes_only_its_own_place_along(views: Path) -> None:
    found = solve(sources(views, front=CAMERA), model="pinhole")
    assert not found.trusted and found.rig is not None
    by_name = {step.name: step for step in found.steps}
    assert set(by_name) == {"intrinsics of rear", "place of top"}
    assert "no board" in by_name["intrinsics of rear"].line
    assert not by_name["intrinsics of rear"].written and by_name["place of top"].trusted
    assert "rear" not in found.rig.sensors


def test_without_the_first_camera_nothing_is_placed(views: Path) -> None:
    _, rear, top = sources(views)
    found = solve([rear, top], model="pinhole")
    assert found.rig is None and [step.name for step in found.steps] == ["intrinsics of rear"]


def test_a_place_that_is_not_trusted_is_told_and_not_written(views: Path, tmp_path: Path) -> None:
    """Intrinsics of a lens that is much shorter: the plate does not lie where the board is."""
    for name in ("front", "top"):
        (tmp_path / name).symlink_to(views / name)
    wrong = CameraModel(640, 480, 400.0, 402.0, 350.0, 262.0)
    old = Rig({"front": SensorCalibration(wrong, kind="rgb")})
    front, _, top = sources(tmp_path, front=wrong)
    found = solve([front, top], old)
    (step,) = found.steps
    assert not step.trusted and not step.written, step.line
    assert found.rig is None and not found.to_dict()["trusted"]


def test_a_rig_keeps_what_it_says_of_others_and_its_base(views: Path) -> None:
    mount = RigidTransform(np.eye(3), np.array([0.5, 0.0, 1.0]))
    old = Rig(
        {
            "front": SensorCalibration(
                CAMERA, frame_id="cam", kind="rgb", pose=Pose(RigidTransform.identity())
            ),
            "sonar": SensorCalibration(kind="lidar", pose=Pose(mount)),
        },
        base="base_link",
        reference="front",
    )
    front, _, top = sources(views, front=CAMERA)
    rig = solve([front, top], old).rig
    assert rig is not None and rig.base == "base_link" and set(rig.sensors) == {*old.sensors, "top"}
    assert rig.sensors["front"].frame_id == "cam"
    assert np.allclose(rig.sensors["sonar"].pose.transform.matrix, mount.matrix)


def test_cameras_that_share_no_view_are_not_taken_for_one(tmp_path: Path) -> None:
    """Both have intrinsics, and no pose in common: a rig without a base would say that they are aligned."""
    board = parse_board("chessboard:7x5:0.05")
    camera = CameraModel(640, 480, 520.0, 525.0, 322.0, 236.0)
    for name, seed in (("front", 1), ("rear", 2)):
        (tmp_path / name).mkdir()
        rng = np.random.default_rng(seed)
        count = 0
        while count < 6:
            pose = pose_at(board, rng, camera)
            if view_of(board, camera, pose, 0.0, rng, "") is not None:
                path = tmp_path / name / f"{name}{count}.png"
                cv2.imwrite(str(path), picture_of(board, camera, pose))
                count += 1
    both = [Source(n, "rgb", tmp_path / n, True, None, f"{n}_optical") for n in ("front", "rear")]
    found = Solver(both, board, None, None, model="pinhole", **ABOUT).run()
    assert found.rig is not None and not found.trusted
    lines = {step.name: step.line for step in found.steps}
    assert "share 0 poses" in lines["place of rear"]
    assert found.rig.base == "front_optical" and found.rig.reference == "front"
    assert found.rig.sensors["rear"].pose is None and found.rig.sensors["rear"].camera is not None


def test_what_the_progress_raises_ends_it(views: Path) -> None:
    class EndedError(Exception):
        pass

    def end(text: str, done: int, of: int) -> None:
        raise EndedError

    with pytest.raises(EndedError):
        solve(sources(views, front=CAMERA)[:1], progress=end)
