"""A thermal camera in a frame of its own: warped by what /tf_static says, and not where nothing says it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anysense_ros.conversions import from_transform
from bench import TO_OPTICAL, Bench
from diagnostic_msgs.msg import DiagnosticStatus
from processes import wait_until
from starting import quick, running
from tf2_msgs.msg import TFMessage

from perception.geometry.transforms import RigidTransform

pytestmark = pytest.mark.slow

SENSORS = ("rgb", "depth", "thermal")
HOT = "thermal_optical"


@pytest.fixture(scope="module")
def bench(domain: int, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("moved")
    parameters = quick(SENSORS, inputs=list(SENSORS), bundle=str(bundle))
    with running(folder, domain, parameters, sensors=SENSORS) as bench:
        bench.changes["thermal"] = _in_its_own_frame
        bench.drive()
        bench.wait_full(3)
        yield bench


def _in_its_own_frame(message: Any, stamp: int) -> Any:
    message.header.frame_id = HOT
    return message


def _place(bench: Bench, x: float) -> None:
    """Say where the thermal camera sits, beside the LiDAR."""
    at = RigidTransform(np.eye(3), np.array([x, 0.0, 0.0]))
    message = from_transform(at, "camera_optical", HOT, 0)
    lidar = from_transform(TO_OPTICAL, "camera_optical", "lidar", 0)
    bench._tf.publish(TFMessage(transforms=[lidar, message]))


def _placed(bench: Bench) -> str | None:
    status = bench.diagnostics.get("thermal", DiagnosticStatus())
    return next((v.value for v in status.values if v.key == "placed"), None)


def test_it_follows_what_the_frames_say(bench: Bench) -> None:
    told = f"thermal: in frame '{HOT}', rgb in 'camera_optical': fused as if registered"
    bench.wait_diagnostic("thermal", lambda d: told in d.message, "said to be unaligned")
    assert _placed(bench) is None
    _place(bench, 0.2)
    wait_until(lambda: _placed(bench) == "onto rgb by depth", "warped by the frames")
    bench.wait_diagnostic("thermal", lambda d: d.level == DiagnosticStatus.OK, "well again")
    _place(bench, 0.0)
    wait_until(lambda: _placed(bench) is None, "aligned again")
    _place(bench, 0.2)
    wait_until(lambda: _placed(bench) is not None, "warped again")


def test_the_reference_dies_and_comes_back(bench: Bench) -> None:
    _place(bench, 0.2)
    wait_until(lambda: _placed(bench) == "onto rgb by depth", "warped")
    bench.changes["rgb"] = lambda message, stamp: None
    wait_until(lambda: _placed(bench) == "onto depth by depth", "warped onto what is left")
    del bench.changes["rgb"]
    wait_until(lambda: _placed(bench) == "onto rgb by depth", "warped onto the reference")


def test_parameters_turn_it_off_and_on(bench: Bench) -> None:
    _place(bench, 0.2)
    wait_until(lambda: _placed(bench) is not None, "warped")
    for name, value in (("align.ranges", False), ("align.plane_m", 3.0)):
        assert bench.set_parameter(name, value).successful
    wait_until(lambda: _placed(bench) == "onto rgb, things being at 3 m", "on a plane")
    assert bench.set_parameter("align.mode", "off").successful
    wait_until(lambda: _placed(bench) is None, "stretched")
    for name, value in (("align.mode", "auto"), ("align.ranges", True), ("align.plane_m", 0.0)):
        assert bench.set_parameter(name, value).successful
    wait_until(lambda: _placed(bench) == "onto rgb by depth", "warped again")
    assert bench.set_parameter("align.tolerance_px", 1000.0).successful
    wait_until(lambda: _placed(bench) is None, "that so much is let pass")
    assert bench.set_parameter("align.tolerance_px", 1.0).successful
    assert not bench.set_parameter("align.mode", "on").successful
    assert not bench.set_parameter("align.tolerance_px", 0.0).successful
    wait_until(lambda: _placed(bench) == "onto rgb by depth", "warped again")
