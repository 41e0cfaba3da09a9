"""The simulator's geometry against closed forms, and its recordings."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from perception.cli.main import main
from perception.data import open_recording
from perception.data.check import check_folder
from perception.errors import ConfigError, DataError
from perception.geometry.projection import project_lidar
from perception.sim.generate import drive_weather, make_recording
from perception.sim.raycast import RayCaster
from perception.sim.render import render
from perception.sim.scene import PERSON, ROAD, Body, Geom, Material, Scene, Weather
from perception.sim.sensors import (
    BEAM_PATTERNS,
    CAMERA_HEIGHT_M,
    LIDAR_POSITION_M,
    beam_rays,
    camera_model,
    mount_sensors,
    pixel_rays,
)
from perception.sim.street import make_street, random_weather

GRAY = Material((0.5, 0.5, 0.5))
SEEN = mount_sensors((120, 160))
LIDAR_TO_CAMERA = SEEN["lidar"].to_other(SEEN["rgb"])
GROUND = Body(ROAD, (Geom("plane", (0, 0), (0, 0, 0), GRAY),))


def test_rays_at_a_plane_a_sphere_and_a_box() -> None:
    ball = Body(PERSON, (Geom("sphere", (1.0,), (0, 0, 0), GRAY),), (10.0, 0.0, 2.0))
    block = Body(
        PERSON, (Geom("box", (1.0, 2.0, 3.0), (0, 0, 0), GRAY),), (0.0, 20.0, 3.0), yaw=0.5
    )
    caster = RayCaster(Scene((GROUND, ball, block), Weather()))
    eye = np.array([0, 0, 2.0])
    down = np.array([0.6, 0, -0.8])
    off = np.array([10.0, 0.5, 0.0])
    rays = np.array([[0, 0, -1], down, [1, 0, 0], off / np.linalg.norm(off), [0, 1, 0], [-1, 0, 0]])
    hits = caster.cast(eye, rays)
    # A ray that passes the sphere's center at distance b enters it sqrt(1 - b^2) early.
    b = 10 * 0.5 / np.linalg.norm(off)
    along = 10 * 10 / np.linalg.norm(off)
    # The box's face across +y, turned by 0.5 rad, crosses the axis at 20 - min(1/sin, 2/cos).
    face = 20 - min(1 / np.sin(0.5), 2 / np.cos(0.5))
    wanted = [2.0, 2.5, 9.0, along - np.sqrt(1 - b**2), face, np.inf]
    assert hits.distance == pytest.approx(wanted, abs=1e-6)
    assert hits.geom.tolist() == [0, 0, 1, 1, 2, -1]
    assert np.allclose(hits.normal[:3], [[0, 0, 1], [0, 0, 1], [-1, 0, 0]], atol=1e-6)


def test_depth_of_the_ground_follows_from_the_camera_height() -> None:
    camera = camera_model(96, 128)
    frame = render(Scene((GROUND,), Weather()), mount_sensors((96, 128)), BEAM_PATTERNS["vlp16"])
    v = np.arange(60, 96)
    wanted = CAMERA_HEIGHT_M * camera.fy / (v - camera.cy)
    column = frame.samples["depth"][60:, 64]
    seen = np.isfinite(column)
    assert seen.mean() > 0.8
    noise = 0.0015 * wanted**2
    assert (np.abs(column - wanted)[seen] < 5 * noise[seen] + 1e-3).all()
    assert (frame.labels[60:] == ROAD).all()
    assert (frame.labels[:40] == 7).all()


def test_lidar_ranges_on_the_ground_follow_from_the_beam_angles() -> None:
    pattern = BEAM_PATTERNS["vlp16"]
    cloud = render(Scene((GROUND,), Weather()), SEEN, pattern).samples["lidar"]
    elevation = np.radians(np.array(pattern.elevations))[cloud[:, 4].astype(int)]
    wanted = LIDAR_POSITION_M[2] / np.sin(-elevation)
    assert (elevation < 0).all()
    error = np.linalg.norm(cloud[:, :3], axis=1) - wanted
    assert abs(error.mean()) < 0.005
    assert error.std() == pytest.approx(pattern.range_noise_m, rel=0.1)


def test_beams_have_the_stated_directions() -> None:
    rays, rings = beam_rays(BEAM_PATTERNS["vlp16"])
    assert len(rays) == 16 * 900
    assert np.allclose(np.linalg.norm(rays, axis=1), 1)
    assert np.degrees(np.arcsin(rays[rings == 15, 2])) == pytest.approx(15.0)


def test_pixel_rays_project_back_to_their_pixels() -> None:
    camera = camera_model(48, 64)
    rays = pixel_rays(camera)
    optical = rays @ np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    uv, valid = camera.project(optical)
    assert valid.all()
    v, u = np.mgrid[:48, :64]
    assert np.allclose(uv, np.column_stack([u.ravel(), v.ravel()]), atol=1e-9)


@pytest.fixture(scope="module")
def rendered():  # type: ignore[no-untyped-def]
    camera = camera_model(120, 160)
    weather = random_weather(np.random.default_rng(1), night=True)
    street = make_street(5, 40.0, weather, crowd=2.0)
    return camera, render(street, SEEN, BEAM_PATTERNS["os1-64"])


def test_lidar_points_agree_with_the_depth_image(rendered) -> None:  # type: ignore[no-untyped-def]
    camera, frame = rendered
    depth, cloud = frame.samples["depth"], frame.samples["lidar"]
    image = project_lidar(cloud[:, :4], camera, LIDAR_TO_CAMERA, 120, 160)
    v, u = np.nonzero(image.valid & np.isfinite(depth))
    points = cloud[image.index[v, u], :3]
    z = LIDAR_TO_CAMERA.apply(points)[:, 2]
    error = z - depth[v, u]
    # A pixel of slanted ground spans some centimeters; beyond that only the depth sensor's noise
    # differs, except at edges, which the two see from different places.
    sigma = 0.03 + 0.0015 * z**2
    assert len(z) > 1000
    assert abs(np.median(error)) < 0.02
    assert np.median(np.abs(error) / sigma) < 1
    assert (np.abs(error) < 5 * sigma).mean() > 0.9


def test_boxes_enclose_their_labels_and_people_are_warm(rendered) -> None:  # type: ignore[no-untyped-def]
    _, frame = rendered
    assert len(frame.boxes.xyxy) > 0
    inside = np.zeros(frame.labels.shape, bool)
    for x0, y0, x1, y1 in frame.boxes.xyxy.astype(int):
        inside[y0:y1, x0:x1] = True
    big = (frame.labels == 5) | (frame.labels == 6)
    assert (inside | ~big).mean() > 0.99
    thermal = frame.samples["thermal"]
    people = thermal[frame.labels == PERSON]
    assert np.median(people) > np.median(thermal[frame.labels == ROAD]) + 1


def test_3d_box_corners_project_around_the_2d_boxes(rendered) -> None:  # type: ignore[no-untyped-def]
    camera, frame = rendered
    outlines = []
    for box in frame.boxes3d:
        length, width, height = box["size"]
        signs = np.array([(a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) / 2
        turn = np.array(
            [
                [np.cos(box["yaw"]), -np.sin(box["yaw"]), 0],
                [np.sin(box["yaw"]), np.cos(box["yaw"]), 0],
                [0, 0, 1],
            ]
        )
        corners = signs * [length, width, height] @ turn.T + box["center"]
        optical = LIDAR_TO_CAMERA.apply(corners)
        if (optical[:, 2] > 0.5).all():
            uv, _ = camera.project(optical)
            outlines.append(np.concatenate([uv.min(0), uv.max(0)]))
    whole = [b for b in frame.boxes.xyxy if b[0] > 1 and b[2] < 159]
    assert whole
    for x0, y0, x1, y1 in whole:
        # Every visible box lies within the outline of some 3D box (of which parts may be hidden).
        assert any(
            o[0] - 2 <= x0 and o[1] - 2 <= y0 and o[2] + 3 >= x1 and o[3] + 3 >= y1
            for o in outlines
        )


def test_night_is_darker_than_day_with_the_same_street() -> None:
    sensors = mount_sensors((64, 96))
    day, night = (
        render(make_street(3, 30, drive_weather(p)), sensors, BEAM_PATTERNS["vlp16"])
        for p in (0.0, 1.0)
    )
    assert np.array_equal(day.labels, night.labels)
    assert np.median(night.samples["rgb"]) < 0.5 * np.median(day.samples["rgb"])


def test_the_same_seed_gives_the_same_recording(tmp_path: Path) -> None:
    paths = [
        make_recording(tmp_path / n, "scenes", 2, 4, size=(48, 64), progress=False)
        for n in ("a", "b")
    ]
    one, other = (open_recording("folder", p) for p in paths)
    for i in range(2):
        for modality in ("rgb", "depth", "thermal", "lidar"):
            assert np.array_equal(
                one.frame(i)[modality].data, other.frame(i)[modality].data, equal_nan=True
            )


def test_a_simulated_recording_passes_the_check(simulated: Path) -> None:
    assert [f for f in check_folder(simulated) if f.severity == "error"] == []


def test_a_turned_lidar_has_its_frame_turned() -> None:
    """(1, 0, 0) of a LiDAR that looks left is 0.35 behind, 0.3 above and 1 left of the camera."""
    left = mount_sensors((48, 64), {"rgb": "rgb", "roof": "lidar"}, {"roof": 90})
    [seen] = left["roof"].to_other(left["rgb"]).apply(np.array([[1.0, 0, 0]]))
    assert seen == pytest.approx([-1.0, -0.3, -0.35])
    [seen] = left["rgb"].to_other(left["roof"]).apply(np.array([seen]))
    assert seen == pytest.approx([1.0, 0, 0])


@pytest.fixture(scope="module")
def cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of a stereo pair and a camera to the rear, with depth at the left one."""
    sensors = {"left": "rgb", "right": "rgb", "rear": "rgb", "depth": "depth", "lidar": "lidar"}
    options = {"size": (120, 160), "lidar": "os1-64", "yaw_deg": {"roof": 180.0}}
    out = tmp_path_factory.mktemp("cameras") / "r"
    sensors["roof"] = "lidar"
    return make_recording(out, "scenes", 2, 4, sensors=sensors, progress=False, **options)


def test_several_cameras_are_written_under_their_names(cameras: Path) -> None:
    recording = open_recording("folder", cameras)
    assert list(recording.info.sensors) == ["depth", "lidar", "left", "right", "rear", "roof"]
    assert recording.info.labels_of == "left"
    assert check_folder(cameras) == []
    assert {n: recording.sees_labels(n) for n in recording.info.sensors if n != "roof"} == {
        "depth": True, "lidar": True, "left": True, "right": True, "rear": False
    }  # fmt: skip
    frame = recording.frame(0)
    pictures = {name: frame[name].data for name in ("left", "right", "rear")}
    assert all(p.shape == (120, 160, 3) and np.ptp(p) > 100 for p in pictures.values())
    assert frame["rear"].kind == "rgb" and frame["rear"].camera is not None
    assert frame["left"].camera is not None
    assert frame["rear"].camera.fx < 0.8 * frame["left"].camera.fx
    # What the rear camera sees lies behind the left one.
    assert frame["rear"].extrinsics is not None
    [far] = frame["rear"].extrinsics.apply(np.array([[0.0, 0, 10]]))
    assert far == pytest.approx([0, 0, -11.5])


def test_a_stereo_pair_sees_the_same_shifted_by_its_disparity(cameras: Path) -> None:
    frame = open_recording("folder", cameras).frame(0)
    left, right = (frame[n].data.astype(np.float32).mean(axis=2) for n in ("left", "right"))
    camera, extrinsics = frame["right"].camera, frame["right"].extrinsics
    assert camera is not None and extrinsics is not None
    v, u = np.nonzero(np.isfinite(frame["depth"].data) & (frame["depth"].data < 12))
    points = camera.unproject(np.column_stack([u, v]), frame["depth"].data[v, u])
    uv, _ = camera.project(extrinsics.inverse().apply(points))
    shift = u - uv[:, 0]
    assert shift == pytest.approx(0.2 * camera.fx / frame["depth"].data[v, u], rel=1e-3)
    x = uv[:, 0].round().astype(int)
    kept = (x >= 0) & (x < 160)
    matched = np.abs(left[v, u] - right[v, x.clip(0, 159)])[kept]
    unshifted = np.abs(left - right)[v, u][kept]
    assert kept.sum() > 3000 and np.median(shift) > 1
    assert matched.mean() < 0.8 * unshifted.mean()


def test_labels_are_of_the_camera_that_was_chosen(tmp_path: Path) -> None:
    def labels(name: str, **options: object) -> np.ndarray:
        out = make_recording(
            tmp_path / name, "scenes", 1, 4, size=(64, 96), progress=False, **options
        )
        found = open_recording("folder", out).truth(0).labels
        assert found is not None
        return found

    both = {"front": "rgb", "rear": "rgb"}
    front, rear = (labels(n, sensors=both, labels_of=n) for n in both)
    assert np.array_equal(front, labels("plain"))
    assert np.array_equal(front, labels("default", sensors=both))
    assert not np.array_equal(front, rear)
    ahead = labels("turned", sensors={"front": "rgb"}, yaw_deg={"front": 180.0})
    assert not np.array_equal(ahead, front)


def test_the_command_names_sensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["data", "make-sim", "--frames", "1", "--size", "64x48", "--out"]
    chosen = ["--sensors", "front=rgb,side=rgb,lidar", "--yaw", "side=-90", "--labels-of", "side"]
    assert main([*argv, str(tmp_path / "r"), *chosen]) == 0
    recording = open_recording("folder", tmp_path / "r")
    assert recording.info.sensors == {"lidar": "lidar", "front": "rgb", "side": "rgb"}
    extrinsics = recording.frame(0)["front"].extrinsics
    assert recording.info.labels_of == "side" and extrinsics is not None
    # What is ahead of the front camera is left of one that looks right.
    assert extrinsics.apply(np.array([[0.0, 0, 5]])) == pytest.approx(np.array([[-5.0, 0, 0]]))
    capsys.readouterr()
    for options, fault in (
        (["--sensors", "a=rgb,a=depth"], "--sensors: 'a' is given twice"),
        (["--sensors", "a=rgb,"], "'' is no name of a sensor"),
        (["--sensors", "a=sonar"], "unknown kind of sensor 'sonar'"),
        (["--yaw", "rgb=nan"], "--yaw: must be at least -360"),
        (["--yaw", "a=5"], "there is no sensor 'a'"),
        (["--labels-of", "a"], "labels_of: labels are in the pixels of a camera"),
    ):
        with contextlib.suppress(SystemExit):
            assert main([*argv, str(tmp_path / "x"), *options]) == 2
        error = capsys.readouterr().err.strip()
        assert fault in error and "\n" not in error, error
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"sensors": {"Front": "rgb"}}, "no name of a sensor"),
        ({"sensors": {"depth": "rgb"}}, "no rgb sensor can be called 'depth'"),
        ({"sensors": {"front": "sonar"}}, "unknown kind of sensor 'sonar'"),
        ({"sensors": {"lidar": "lidar"}}, "labels_of: labels are in the pixels of a camera"),
        ({"labels_of": "lidar"}, "labels_of: labels are in the pixels of a camera"),
        ({"yaw_deg": {"rear": 90.0}}, "yaw: there is no sensor 'rear'"),
    ],
)
def test_sensors_that_cannot_be_are_refused(
    tmp_path: Path, options: dict[str, object], fault: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=fault):
        make_recording(tmp_path / "x", "drive", 1, 0, progress=False, **options)
    assert not (tmp_path / "x").exists()


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LiDAR"):
        make_recording(tmp_path / "x", "drive", 2, 0, lidar="magic")
    with pytest.raises(ConfigError, match="kind"):
        make_recording(tmp_path / "x", "dream", 2, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError, match="not empty"):
        make_recording(tmp_path / "full", "drive", 2, 0)
