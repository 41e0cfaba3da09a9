"""Bags through a bundle that sees the ground from above: places of TF, motion of odometry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ground_bundles import ground_bundle

from perception.cli.main import main

MS = 10**6


def transform(kit: Any, parent: str, child: str, z: float) -> Any:
    """A /tf_static message."""
    move = kit.make(
        "geometry_msgs/msg/Transform",
        translation=kit.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=z),
        rotation=kit.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    one = kit.make(
        "geometry_msgs/msg/TransformStamped",
        header=kit.header(kit.start, parent),
        child_frame_id=child,
        transform=move,
    )
    return kit.make("tf2_msgs/msg/TFMessage", transforms=[one])


def odometry(kit: Any, stamp_ns: int, x: float) -> Any:
    """Straight ahead."""
    pose = kit.make(
        "geometry_msgs/msg/Pose",
        position=kit.make("geometry_msgs/msg/Point", x=x, y=0.0, z=0.0),
        orientation=kit.make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
    )
    still = kit.make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    twist = kit.make("geometry_msgs/msg/Twist", linear=still, angular=still)
    return kit.make(
        "nav_msgs/msg/Odometry",
        header=kit.header(stamp_ns, "odom"),
        child_frame_id="base_link",
        pose=kit.make("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
        twist=kit.make(
            "geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)
        ),
    )


def drive(kit: Any, base: str = "base_link") -> list[Any]:
    """Ten clouds in a second, and odometry."""
    found = [("/tf_static", transform(kit, base, "lidar", 1.7), kit.start)]
    for i in range(10):
        now = kit.start + i * 100 * MS
        found.append(("/odom", odometry(kit, now, 0.5 * i), now))
        found.append(("/points", kit.cloud(now), now + MS))
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = {"lidar": ("lidar", "cloud")}
    return ground_bundle(tmp_path_factory.mktemp("bags") / "ground", inputs)


def played(bundle: Path, bag: Path, out: Path, *more: str) -> list[dict[str, Any]]:
    line = ["replay", str(bag), "--bundle", str(bundle), "--device", "cpu", "--out", str(out)]
    assert main([*line, "--topic", "lidar=/points", *more]) == 0
    return [json.loads(row) for row in (out / "status.jsonl").read_text().splitlines()]


def test_places_come_of_tf_and_motion_of_odometry(kit, bundle, tmp_path, capsys):
    bag = kit.write(drive(kit))
    rows = played(bundle, bag, tmp_path / "out", "--odometry", "/odom")
    answers = [row for row in rows if row["used"] == ["lidar"]]
    assert len(answers) == 10
    assert {row["boxes3d_frame"] for row in answers} == {"base_link"}
    assert not any(row["warnings"] for row in answers)
    assert "odometry" not in "".join(capsys.readouterr())
    played(bundle, bag, tmp_path / "none", "--odometry", "/nothing")
    told = "".join(capsys.readouterr())
    assert "no usable odometry on /nothing" in " ".join(told.split())


def test_a_base_frame_that_tf_does_not_reach_is_named(kit, bundle, tmp_path):
    bag = kit.write(drive(kit, "base_footprint"))
    rows = played(bundle, bag, tmp_path / "out")
    assert not any(row["used"] for row in rows)
    lines = [line for row in rows for line in row["warnings"]]
    assert any("no transform from 'lidar' to 'base_link'" in line for line in lines)
    rows = played(bundle, bag, tmp_path / "named", "--base-frame", "base_footprint")
    assert {row.get("boxes3d_frame") for row in rows if row["used"]} == {"base_footprint"}
