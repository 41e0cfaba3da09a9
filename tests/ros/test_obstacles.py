"""What Nav2 gets: obstacles as a cloud, as its costmap layer and its collision monitor read them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import yaml
from anysense_ros.conversions import CLOUD_FIELDS, CLOUD_STEP, to_ns
from bench import HEIGHT, WIDTH, Bench, drop
from processes import wait_until
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import PointCloud2
from starting import Start, Starter, quick

from perception.frame import KINDS
from perception.runtime.bundle import Bundle
from perception.tasks.obstacles import OBSTACLE, ClassRoles

pytestmark = pytest.mark.slow

NAV2 = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/config/nav2"
BASE = quick(KINDS)


@pytest.fixture
def start(starter: Starter, bundle: Path) -> Start:
    return lambda **changes: starter({**BASE, "bundle": str(bundle), **changes})


def _read(cloud: PointCloud2) -> dict[str, Any]:
    """The cloud's columns by its own field list, as `sensor_msgs::PointCloud2Iterator` finds them."""
    types = {7: "<f4", 2: "u1"}
    kinds = {
        "names": [f.name for f in cloud.fields],
        "formats": [types[f.datatype] for f in cloud.fields],
        "offsets": [f.offset for f in cloud.fields],
        "itemsize": cloud.point_step,
    }
    rows = np.frombuffer(cloud.data, np.dtype(kinds))
    assert len(rows) == cloud.width * cloud.height and not cloud.is_bigendian
    assert cloud.row_step == cloud.point_step * cloud.width
    return {name: rows[name] for name in kinds["names"]}


def _listen(bench: Bench, topic: str) -> list[PointCloud2]:
    return bench.listen(PointCloud2, topic, qos_profile_sensor_data)


def test_obstacles_are_some_of_the_points(start: Start, bundle: Path) -> None:
    _, bench = start(inputs=["rgb", "lidar"], **{"obstacles.ground_m": 0.0})
    obstacles, points = _listen(bench, "obstacles"), _listen(bench, "points")
    bench.drive()
    bench.wait_full(2)

    def paired() -> list[tuple[PointCloud2, PointCloud2]]:
        """Clouds of one stamp; either may be lost, as they are sent without being asked for again."""
        whole = {to_ns(c.header.stamp): c for c in list(points)}
        found = [(c, whole.get(to_ns(c.header.stamp))) for c in list(obstacles)]
        pairs = [(few, other) for few, other in found if other is not None]
        return pairs if len(pairs) > 3 else []

    pairs = wait_until(paired, "clouds of one stamp")
    assert {to_ns(c.header.stamp) for c in list(points)} <= set(bench.stamps["lidar"])
    roles = ClassRoles.common(Bundle.open(bundle).manifest.seg_classes)
    for few, all_of_them in pairs:
        assert few.header.frame_id == all_of_them.header.frame_id == "lidar" and few.is_dense
        assert [(f.name, f.offset, f.datatype) for f in few.fields] == list(CLOUD_FIELDS)
        one, other = _read(few), _read(all_of_them)
        unsure = other["probability"] < 0.3
        role = roles.table[other["class_id"]]
        wanted = (role == OBSTACLE) | (unsure & (role == 1))
        assert np.isfinite(one["x"]).all()
        for name in ("x", "y", "z", "class_id"):
            assert (one[name] == other[name][wanted]).all(), name


def test_roles_of_a_file_and_wrong_ones(start: Start, bundle: Path, tmp_path: Path) -> None:
    names = [c.name for c in Bundle.open(bundle).manifest.seg_classes]
    nothing, wrong = tmp_path / "nothing.yaml", tmp_path / "wrong.yaml"
    nothing.write_text(yaml.safe_dump({"others": "ignore"}))
    wrong.write_text(yaml.safe_dump({"traversable": [names[0] + "x"]}))
    settings = {"obstacles.ground_m": 0.0}
    node, bench = start(inputs=["rgb", "lidar"], **{**settings, "obstacles.classes": str(nothing)})
    obstacles = _listen(bench, "obstacles")
    bench.drive()
    bench.wait_full(2)
    # Nothing is in the way: there are clouds all the same, or the monitor would stop the robot.
    wait_until(lambda: len(obstacles) > 5, "empty clouds")
    assert all((c.width, c.height, len(c.data)) == (0, 1, 0) for c in list(obstacles))
    answer = bench.set_parameter("obstacles.classes", str(wrong))
    assert not answer.successful
    assert "wrong.yaml: traversable" in answer.reason and names[0] in answer.reason
    assert not bench.set_parameter("obstacles.classes", "/no/such/file").successful
    assert bench.set_parameter("obstacles.classes", "").successful
    wait_until(lambda: obstacles[-1].width > 0, "obstacles by the names of classes")
    assert bench.set_parameter("obstacles.organized", True).successful
    wait_until(lambda: obstacles[-1].height > 1, "an organized cloud")
    cloud = obstacles[-1]
    assert (cloud.height, cloud.width, cloud.point_step) == (HEIGHT, WIDTH, CLOUD_STEP)
    columns = _read(cloud)
    there = np.isfinite(columns["x"])
    assert there.any() and not there.all() and not cloud.is_dense
    assert (columns["class_id"][~there] == 255).all()
    # A LiDAR that dies takes the obstacles with it: depth is not among the inputs.
    bench.changes["lidar"] = drop
    bench.wait_status(lambda s: s.used == ["rgb"], "an output of rgb alone")
    bench.wait_status(lambda s: s.used == ["rgb"], "another one")
    # What is on its way comes once, of what the LiDAR has seen.
    stamps = [to_ns(c.header.stamp) for c in list(obstacles)]
    assert len(stamps) == len(set(stamps)) and set(stamps) <= set(bench.stamps["lidar"])
    assert "Traceback" not in node.log, node.log


def test_wrong_roles_at_the_start_end_in_one_line(start: Start, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("obstacle: [persn]\n")
    node, _ = start(inputs=["rgb"], **{"obstacles.classes": str(wrong)})
    wait_until(lambda: "wrong.yaml: obstacle: no class 'persn'" in node.log, "the error")
    assert "Traceback" not in node.log, node.log


@pytest.mark.parametrize(
    ("file", "node", "space"),
    [
        ("costmap.yaml", "local_costmap", "/local_costmap"),
        ("costmap.yaml", "global_costmap", "/global_costmap"),
        ("collision_monitor.yaml", "collision_monitor", "/"),
    ],
)
def test_parameter_files_are_what_ros_reads(
    file: str, node: str, space: str, tmp_path: Path
) -> None:
    """By rcl's own parser, which knows less YAML than Python's: every source reads a topic that is there."""
    path = shutil.copy(NAV2 / file, tmp_path / file)
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(path)], context=context)
    made = rclpy.create_node(
        node,
        namespace=space,
        context=context,
        automatically_declare_parameters_from_overrides=True,
    )
    try:
        values = {n: p.value for n, p in made.get_parameters_by_prefix("").items()}
    finally:
        made.destroy_node()
        rclpy.try_shutdown(context=context)
    topics = {v for n, v in values.items() if n.endswith("topic") and "/perception_node/" in str(v)}
    assert topics <= {"/perception_node/obstacles", "/perception_node/points"}
    assert "/perception_node/obstacles" in topics
