"""The settings for large messages: what a queue held does not stay in it, and own profiles are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rclpy
from anysense_ros.conversions import header
from launching import variables
from processes import PATIENCE_S, environment, wait_until
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

SETTINGS = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/config/large_messages.sh"
COUNT, MIB = 20, 2**20
HEARS = """
import ctypes, gc, sys, rclpy
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def in_use():
    gc.collect()
    call = ctypes.CDLL(None).mallinfo2
    call.restype = Info
    found = call()
    return (found.uordblks + found.hblkhd) / 2**20

rclpy.init()
node = rclpy.create_node("hears")
heard = [0]
def hear(message):
    heard[0] += 1
node.create_subscription(Image, "pictures", hear, QoSProfile(depth=20))
before = in_use()
print("ready", flush=True)
sys.stdin.readline()
full = in_use()
while heard[0] < 20:
    rclpy.spin_once(node, timeout_sec=0.1)
rclpy.spin_once(node, timeout_sec=0.1)
print(full - before, in_use() - before, flush=True)
rclpy.try_shutdown()
"""


def _variables(**given: str) -> dict[str, str]:
    """The environment that the settings make of one without any."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("FAST", "RMW_", "MALLOC_"))}
    found = subprocess.run(
        ["bash", "-c", f"set -eu; source {SETTINGS}; env -0"],
        env={**mine, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in found.stdout.split("\0") if line)


def _profiles(variables: dict[str, str]) -> str:
    return next(k for k in variables if k.endswith("_DEFAULT_PROFILES_FILE"))


def test_a_profile_of_ones_own_is_taken_as_ros_takes_it() -> None:
    ours = _variables()
    name = _profiles(ours)
    assert Path(ours[name]).is_file() and ours["RMW_FASTRTPS_USE_QOS_FROM_XML"] == "1"
    own = _variables(**{name: "/own.xml"})
    assert own[name] == "/own.xml" and "RMW_FASTRTPS_USE_QOS_FROM_XML" not in own
    assert _variables(RMW_FASTRTPS_USE_QOS_FROM_XML="0")["RMW_FASTRTPS_USE_QOS_FROM_XML"] == "0"


def test_the_launch_file_sets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = _variables()
    name = _profiles(ours)
    for one in [*os.environ]:
        if one.startswith(("FAST", "RMW_", "MALLOC_")):
            monkeypatch.delenv(one)
    launched = variables()
    assert Path(launched[name]).read_text() == Path(ours[name]).read_text()
    of_shell = {k: v for k, v in ours.items() if k.startswith(("RMW_FAST", "MALLOC_"))}
    assert {k: v for k, v in launched.items() if k != name} == of_shell
    monkeypatch.setenv(name, "/own.xml")
    assert "RMW_FASTRTPS_USE_QOS_FROM_XML" not in variables()


@pytest.mark.slow
@pytest.mark.parametrize(("from_profile", "stays"), [("1", False), ("0", True)])
def test_what_a_queue_held_does_not_stay_in_it(
    own_domain: int, tmp_path: Path, from_profile: str, stays: bool
) -> None:
    """Twenty pictures of a megabyte wait, are taken and let go; without the profile their room stays."""
    settings = {**_variables(), "RMW_FASTRTPS_USE_QOS_FROM_XML": from_profile}
    ears = subprocess.Popen(
        [sys.executable, "-c", HEARS],
        env={**environment(own_domain, tmp_path), **settings, "ROS_DOMAIN_ID": str(own_domain)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    context = Context()
    rclpy.init(context=context, domain_id=own_domain)
    node = rclpy.create_node("sends", context=context)
    try:
        assert ears.stdout is not None and ears.stdout.readline() == "ready\n"
        publisher = node.create_publisher(Image, "pictures", QoSProfile(depth=COUNT))
        wait_until(lambda: publisher.get_subscription_count() == 1, "a match")
        message = Image(header=header(1, "camera"), height=1024, width=1024, step=1024)
        message.data.frombytes(bytes(MIB))
        for _ in range(COUNT):
            publisher.publish(message)
            assert publisher.wait_for_all_acked(Duration(seconds=PATIENCE_S))
        told, _ = ears.communicate("\n", PATIENCE_S)
    finally:
        ears.kill()
        ears.wait()
        node.destroy_node()
        rclpy.try_shutdown(context=context)
    full, left = map(float, told.split())
    assert full > 0.9 * COUNT
    went = full - left  # what the peers themselves take stays in both
    assert went < 0.1 * COUNT if stays else went > 0.9 * COUNT, told
