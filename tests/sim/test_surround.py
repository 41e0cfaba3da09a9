"""A vehicle that looks to all sides: what its recordings say against what the rays met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.geometry.boxes import corners_of, inside
from perception.geometry.trajectory import Trajectory
from perception.sim.drives import Drives, make_drives, town_weather
from perception.sim.paths import Motion
from perception.sim.paths import Path as Curve
from perception.sim.raycast import RayCaster
from perception.sim.render import View
from perception.sim.scanning import SCAN_PATTERNS, firings, returns
from perception.sim.scene import BUILDING, Body, Geom, Material, Weather
from perception.sim.surround import (
    CAMERAS,
    LIDAR,
    SurroundFrame,
    render_surround,
    surround_rig,
    surround_sensors,
)
from perception.sim.town import LAYOUTS, Town, make_town
from perception.sim.truth3d import base_in_world

pytest.importorskip("mujoco")

SENSORS = surround_sensors((96, 160))
RIG = surround_rig(SENSORS)
OUT_OF_BOX_M = 0.05  # lamps, wheels and hair stand out of an object's box by as much
NOISE_M = 4 * 0.02


def _town(seed: int, kind: str = "clear", speed: float | None = None) -> Town:
    weather = town_weather(kind, np.random.default_rng(seed))
    return make_town(seed, weather, 1.0, speed=speed, crowd=1.3)


@pytest.fixture(scope="module")
def town() -> Town:
    return next(t for t in map(_town, range(50)) if t.layout == "right")


@pytest.fixture(scope="module")
def still(town: Town) -> SurroundFrame:
    return render_surround(town, 0.3, SENSORS, SCAN_PATTERNS["os1-64"], "still")


def _in_base(frame: SurroundFrame) -> np.ndarray:
    pose = RIG.sensors[LIDAR].pose
    assert pose is not None
    return pose.transform.apply(frame.samples[LIDAR][:, :3].astype(np.float64))


def test_points_of_an_object_are_in_its_box_and_counted(still: SurroundFrame) -> None:
    points, boxes = _in_base(still), still.boxes3d
    within = inside(points, boxes.center, boxes.size, boxes.yaw, OUT_OF_BOX_M + NOISE_M)
    own = still.objects == boxes.track[:, None]
    assert own.any(axis=1).sum() > 8
    assert own.sum(axis=1).tolist() == boxes.points.tolist()
    assert (within | ~own).mean(axis=1).min() > 0.999
    # What is in a box and not of its object is ground at its wheels, or a thing that touches it.
    tight = inside(points, boxes.center, boxes.size * 0.9, boxes.yaw)
    strangers = tight & ~own & (points[:, 2] > 0.3)
    assert strangers.sum() < 0.01 * own.sum()


def test_boxes_cover_the_pixels_of_their_objects_in_every_camera(town: Town) -> None:
    scene = town.at(0.3)
    caster, first = RayCaster(scene), len(town.still)
    frame = render_surround(town, 0.3, SENSORS, SCAN_PATTERNS["vlp16"], "still")
    boxes = frame.boxes3d
    corners = corners_of(boxes.center, boxes.size + 2 * OUT_OF_BOX_M, boxes.yaw)
    body_of_geom = np.array([i for i, _ in scene.geoms] + [-1])
    seen = 0
    for name in CAMERAS:
        own = RIG.sensors[name]
        assert own.pose is not None and own.camera is not None
        view = View(scene, caster, SENSORS[name])
        body = body_of_geom[view.hits.geom].reshape(view.size)
        into = own.pose.transform.inverse()
        for place, outline in zip(boxes.track + first, corners, strict=True):
            v, u = np.nonzero(body == place)
            optical = into.apply(outline)
            if len(u) == 0 or (optical[:, 2] < 0.1).any():
                continue
            uv, _ = own.camera.project(optical)
            low, high = uv.min(axis=0) - 0.51, uv.max(axis=0) + 0.51
            assert (u >= low[0]).all() and (u <= high[0]).all(), name
            assert (v >= low[1]).all() and (v <= high[1]).all(), name
            seen += 1
    assert seen > 8


def test_velocities_are_displacements_in_the_axes_of_the_frame(town: Town) -> None:
    before, after = (
        render_surround(town, t, SENSORS, SCAN_PATTERNS["vlp16"], "still") for t in (0.2, 0.3)
    )
    moved = after.pose.inverse() @ before.pose
    old, new = before.boxes3d.moved(moved), after.boxes3d
    common = [t for t in old.track if t in new.track]
    assert len(common) > 10
    first, last = ([list(b.track).index(t) for t in common] for b in (old, new))
    displaced = (new.center[last] - old.center[first])[:, :2] / 0.1
    mean = (new.velocity[last] + old.velocity[first]) / 2
    assert np.abs(displaced - mean).max() < 0.1
    assert (np.linalg.norm(mean, axis=1) > 3).any()
    assert before.pose.inverse().apply(after.pose.translation[None])[0, 0] > 0.2


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-10, 10),
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.floats(-0.02, 0.02),
    st.floats(-0.2, 1.5),
)
def test_motion_beside_a_curve_is_what_its_velocity_says(
    speed: float, acceleration: float, left: float, curvature: float, seconds: float
) -> None:
    curve = Curve((1.0, 2.0, 0.4), ((500.0, curvature),), begin=-250.0)
    motion = Motion(curve, 0.0, left, speed, acceleration)
    step = 1e-4
    (a, _), (b, _) = motion.at(seconds - step), motion.at(seconds + step)
    place, velocity = motion.at(seconds)
    stops = speed * acceleration < 0 and abs(seconds + speed / acceleration) < 2 * step
    if not stops:
        assert velocity == pytest.approx(((b.x - a.x) / 2 / step, (b.y - a.y) / 2 / step), abs=5e-3)
    heading = place.heading + (np.pi if speed < 0 else 0)
    along = np.hypot(*velocity)
    assert along * np.cos(heading) == pytest.approx(abs(along) * np.cos(heading))
    drawn = abs(speed + acceleration * seconds) if speed * acceleration >= 0 and speed else None
    if drawn is not None and seconds > 0:
        assert along == pytest.approx(drawn, abs=1e-6)


def _wall(town: Town) -> tuple[Town, int]:
    """The same drive past nothing but one long wall to the right, which is straight."""
    place, _ = town.ego.at(0.0)
    gray = Material((0.5, 0.5, 0.5), reflectivity=0.8)
    x, y = place.beside(-6.0)
    wall = Body(
        BUILDING, (Geom("box", (60.0, 0.5, 4.0), (0, 0, 4.0), gray),), (x, y, 0.0), place.heading
    )
    return Town((wall,), (), (), town.weather, town.ego, town.layout, town.seed), 0


def _thickness(points: np.ndarray) -> float:
    """Standard deviation across the plane that fits points (N, 2) best."""
    return float(np.sqrt(np.linalg.eigvalsh(np.cov(points.T))[0]))


def test_deskewed_by_the_trajectory_a_wall_is_flat() -> None:
    turning = next(t for t in (_town(s, speed=4.5) for s in range(80)) if t.layout == "left")
    town, _ = _wall(turning)
    seconds = 0.4
    frame = render_surround(town, seconds, SENSORS, SCAN_PATTERNS["os1-64"], "rolling")
    stamps = np.array([-50, -25, 0, 25, 50]) * 10**6
    poses = tuple(base_in_world(town.at(seconds + s / 1e9)) for s in stamps)
    trajectory, mount = Trajectory(stamps, poses), RIG.sensors[LIDAR].pose
    assert mount is not None
    raw, sharp = _in_base(frame), []
    times = frame.times[LIDAR]
    assert len(times) == len(raw) and times.min() < -0.04 and times.max() > 0.04
    for time in np.unique(times):
        moved = trajectory.moved(round(float(time) * 1e9), 0)
        assert moved is not None
        sharp.append(moved.apply(raw[times == time]))
    [whole] = [np.concatenate(sharp)]
    flat = lambda points: points[(points[:, 2] > 0.5)][:, :2]  # noqa: E731
    assert len(flat(whole)) > 1000
    assert _thickness(flat(whole)) < 0.03 < 0.06 < _thickness(flat(raw))
    done = render_surround(town, seconds, SENSORS, SCAN_PATTERNS["os1-64"], "compensated")
    assert _thickness(flat(_in_base(done))) < 0.03 and not done.times


def test_objects_are_hidden_by_what_stands_before_them() -> None:
    """A wall between the sensors and half of a car, all of it, or none."""
    base = next(t for t in map(_town, range(50)) if t.layout == "bend")
    car = next(m for m in base.movers if m.body.object_class == 1)
    at = Curve((20.0, 0.0, 0.0))
    gray = Material((0.5, 0.5, 0.5))
    ego = Motion(Curve((0.0, 0.0, 0.0)), 0.0)
    levels = []
    for left in (None, 5.0, 0.0):
        mover = type(car)(car.body, Motion(at, 0.0, turned=np.pi / 2))
        walls = (
            []
            if left is None
            else [
                Body(
                    BUILDING, (Geom("box", (0.1, 5.0, 3.0), (0, 0, 3.0), gray),), (10.0, left, 0.0)
                )
            ]
        )
        town = Town(tuple(walls), (mover,), (), Weather(), ego, "bend", 1)
        boxes = render_surround(town, 0.0, SENSORS, SCAN_PATTERNS["os1-64"], "still").boxes3d
        levels.append((int(boxes.occlusion[0]), int(boxes.points[0]), bool(boxes.ignore[0])))
    (open_level, open_points, _), (half, some, _), (hidden, none, ignored) = levels
    assert open_level == 0 and half == 1 and hidden == 3
    assert open_points > some > 0 == none and ignored


def test_a_rosette_never_scans_the_same_twice_and_stays_in_its_cone() -> None:
    pattern = SCAN_PATTERNS["mid40"]
    first, second = (np.concatenate([f.rays for f in firings(pattern, t)]) for t in (0.0, 0.1))
    assert np.allclose(np.linalg.norm(first, axis=1), 1)
    assert np.degrees(np.arccos(first[:, 0])).max() <= 19.2 + 1e-6
    assert np.degrees(np.arccos(first[:, 0])).max() > 19.0
    cells = [{tuple(c) for c in np.round(r[:, 1:] / 0.005).astype(int)} for r in (first, second)]
    assert len(cells[0] | cells[1]) > 1.3 * len(cells[0])


@pytest.mark.parametrize("name", ["vlp16", "hdl32", "os1-64"])
def test_spinning_lidars_fire_every_ray_once_in_order_of_time(name: str) -> None:
    found = list(firings(SCAN_PATTERNS[name], 3.0))
    times = [f.seconds for f in found]
    assert times == sorted(times) and min(times) > -0.05 and max(times) < 0.05
    rays = np.concatenate([f.rays for f in found])
    assert len(np.unique(np.round(rays, 9), axis=0)) == len(rays)
    ahead = next(f for f in found if (np.abs(f.rays[:, 1]) < 1e-3).any() and f.rays[0, 0] > 0)
    assert abs(ahead.seconds) < 0.003


def test_fog_hides_what_is_far_and_rain_and_fog_show_near_the_sensor() -> None:
    count, rng = 20000, np.random.default_rng(1)
    from perception.sim.raycast import Hits

    rays = np.tile([1.0, 0.0, 0.0], (count, 1))
    distance = np.linspace(31, 100, count)
    hits = Hits(distance, np.zeros(count, np.int64), np.tile([-1.0, 0, 0], (count, 1)))

    def seen(weather: Weather) -> tuple[float, float]:
        found = returns(rays, hits, np.full(count, 0.6), 0.02, weather, rng)
        far = found.body[distance > 60].mean()
        near = (found.kept & (found.distance < 30)).mean()
        assert (found.kept | ~found.body).all()
        return float(far), float(near)

    clear, rain, fog = map(seen, (Weather(), Weather(rain_mm_h=20.0), Weather(visibility_m=50.0)))
    assert clear == (pytest.approx(0.99, abs=0.01), 0.0)
    assert rain[0] < clear[0] and 0.01 < rain[1] < 0.06
    assert fog[0] == 0.0 and 0.1 < fog[1] < 0.2


def test_a_bundle_of_rays_meets_what_each_ray_meets_alone(town: Town) -> None:
    scene = town.at(0.0)
    caster = RayCaster(scene)
    rng = np.random.default_rng(4)
    rays = rng.normal(size=(3000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    eye = np.array([scene.ego_position[0], scene.ego_position[1], 1.7])
    whole = caster.cast(eye, rays)
    for i in range(0, 3000, 10):
        one = caster.cast(eye, rays[i : i + 1])
        assert one.geom[0] == whole.geom[i]
        assert one.distance[0] == whole.distance[i]


def test_nobody_runs_into_anybody() -> None:
    for seed in range(12):
        town = _town(seed)
        for t in (0.0, 0.45, 0.9):
            scene = town.at(t)
            bodies = scene.bodies[len(town.still) :]
            at = np.array([b.position[:2] for b in bodies])
            gap = np.linalg.norm(at[:, None] - at, axis=2) + 99 * np.eye(len(at))
            width = np.array([b.extent[1] for b in bodies]) / 2
            assert (gap > width[:, None] + width).all()
            ego = np.linalg.norm(at - scene.ego_position[:2], axis=1)
            assert (ego > 0.95 + width).all()


def test_towns_are_of_all_layouts_and_have_things_on_all_sides() -> None:
    towns = [_town(seed) for seed in range(40)]
    assert {t.layout for t in towns} == set(LAYOUTS)
    assert {m.body.object_class for t in towns for m in t.movers} == {0, 1, 2, 3}
    behind = [b for t in towns for b in t.at(0).bodies[len(t.still) :] if b.position[0] < -3]
    assert len(behind) > 200
    speeds = [abs(t.ego.speed) for t in towns]
    assert min(speeds) == 0 and max(speeds) > 11 and all(s <= 15 for s in speeds)


def test_the_same_seed_gives_the_same_recording_by_any_number_of_processes(tmp_path: Path) -> None:
    drives = Drives(3, 11, town_frames=2, size=(48, 64), lidar="vlp16")
    make_drives(tmp_path / "a", drives, progress=False)
    make_drives(tmp_path / "b", drives, workers=2, progress=False)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert len(files) > 3 * 8
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
