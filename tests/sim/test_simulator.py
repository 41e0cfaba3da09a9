"""The simulator's geometry against closed forms, and its recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
    lidar_to_camera,
    pixel_rays,
)
from perception.sim.street import make_street, random_weather

GRAY = Material((0.5, 0.5, 0.5))
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
    frame = render(Scene((GROUND,), Weather()), camera, BEAM_PATTERNS["vlp16"])
    v = np.arange(60, 96)
    wanted = CAMERA_HEIGHT_M * camera.fy / (v - camera.cy)
    column = frame.depth[60:, 64]
    seen = np.isfinite(column)
    assert seen.mean() > 0.8
    noise = 0.0015 * wanted**2
    assert (np.abs(column - wanted)[seen] < 5 * noise[seen] + 1e-3).all()
    assert (frame.labels[60:] == ROAD).all()
    assert (frame.labels[:40] == 7).all()


def test_lidar_ranges_on_the_ground_follow_from_the_beam_angles() -> None:
    pattern = BEAM_PATTERNS["vlp16"]
    cloud = render(Scene((GROUND,), Weather()), camera_model(64, 64), pattern).lidar
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
    return camera, render(street, camera, BEAM_PATTERNS["os1-64"])


def test_lidar_points_agree_with_the_depth_image(rendered) -> None:  # type: ignore[no-untyped-def]
    camera, frame = rendered
    extrinsics = lidar_to_camera()
    image = project_lidar(frame.lidar[:, :4], camera, extrinsics, 120, 160)
    v, u = np.nonzero(image.valid & np.isfinite(frame.depth))
    points = frame.lidar[image.index[v, u], :3]
    z = extrinsics.apply(points)[:, 2]
    error = z - frame.depth[v, u]
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
    people = frame.thermal[frame.labels == PERSON]
    assert np.median(people) > np.median(frame.thermal[frame.labels == ROAD]) + 1


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
        optical = lidar_to_camera().apply(corners)
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
    camera = camera_model(64, 96)
    day, night = (
        render(make_street(3, 30, drive_weather(p)), camera, BEAM_PATTERNS["vlp16"])
        for p in (0.0, 1.0)
    )
    assert np.array_equal(day.labels, night.labels)
    assert np.median(night.rgb) < 0.5 * np.median(day.rgb)


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


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LiDAR"):
        make_recording(tmp_path / "x", "drive", 2, 0, lidar="magic")
    with pytest.raises(ConfigError, match="kind"):
        make_recording(tmp_path / "x", "dream", 2, 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(DataError, match="not empty"):
        make_recording(tmp_path / "full", "drive", 2, 0)
