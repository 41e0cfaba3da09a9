"""Real nodes in real processes, and a bench of simulated sensor drivers that talks to them.

Skipped where ROS 2 or the built workspace is not on the path: `make test-ros` provides both.
"""

from __future__ import annotations

import itertools
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

_SKIP = ""
try:
    import anysense_msgs.msg  # noqa: F401
    import anysense_ros  # noqa: F401
    import rclpy  # noqa: F401
except ImportError as error:
    _SKIP = f"no ROS 2 workspace here ({error.name}): run 'make test-ros'"

if "ROS_LOG_DIR" not in os.environ:  # ROS wants a place even for a process without a HOME
    os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="ros_log_")

_DOMAINS = itertools.count(os.getpid() % 100)


def _free_domain() -> int:
    """A ROS domain in which nobody is: the nodes of another run of tests would answer as well.

    The first participant of a domain listens at this port (DDSI-RTPS 2.3, 9.6.1.1).
    """
    for number in itertools.islice(_DOMAINS, 100):
        domain = 1 + number % 100
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))
            except OSError:
                continue
        return domain
    raise AssertionError("no ROS domain from 1 to 100 is free")


class _Skipped(pytest.Module):
    """A test file that is not even imported, with the reason."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(_SKIP)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> object:
    return _Skipped.from_parent(parent, path=module_path) if _SKIP else None


@pytest.fixture(scope="session")
def bundle() -> Path:
    """A bundle with all four modalities."""
    named = os.environ.get("ANYSENSE_TEST_BUNDLE", "")
    places = [Path(named)] if named else []
    places += [ROOT / "ros2_ws/.colcon/tiny/bundle", ROOT / "bundles/sim-rgbdtl"]
    for place in places:
        if (place / "bundle.yaml").is_file():
            return place
    pytest.skip("no bundle with four sensors; 'make test-ros' makes one")


@pytest.fixture(scope="session")
def domain() -> Iterator[int]:
    """A ROS domain for one group of processes."""
    yield _free_domain()


@pytest.fixture(scope="module")
def second_domain() -> int:
    """A ROS domain for a second group of processes of a file."""
    return _free_domain()


@pytest.fixture
def own_domain() -> int:
    """A ROS domain that no other test uses."""
    return _free_domain()


@pytest.fixture
def starter(own_domain: int, tmp_path: Path) -> Iterator[object]:
    """Starts nodes with a bench around each (`starting.Starter`); all end with the test."""
    from starting import Starter

    starter = Starter(own_domain, tmp_path)
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of all four sensors, three seconds long."""
    from bench import CAMERA, HEIGHT, TO_OPTICAL, WIDTH

    from perception.data.folder import FolderWriter, folder_info
    from perception.frame import KINDS
    from perception.geometry.rig import Rig, SensorCalibration

    root = tmp_path_factory.mktemp("recording") / "drive"
    info = folder_info(
        size=(HEIGHT, WIDTH),
        seg_classes=(),
        det_classes=(),
        name="drive",
        modalities=KINDS,
        rate_hz=5.0,
        thermal_unit="centikelvin",
    )
    rig = Rig(
        {
            **{m: SensorCalibration(CAMERA) for m in KINDS[:3]},
            "lidar": SensorCalibration(CAMERA, TO_OPTICAL, "lidar"),
        }
    )
    random = np.random.default_rng(1)
    with FolderWriter(root, info, rig) as writer:
        for index in range(15):
            writer.add(
                f"{index:04d}",
                stamp_ns=1_000_000_000 + index * 200_000_000,
                rgb=random.integers(20, 220, (HEIGHT, WIDTH, 3), np.uint8),
                depth=random.uniform(1, 9, (HEIGHT, WIDTH)).astype(np.float32),
                thermal=random.uniform(280, 310, (HEIGHT, WIDTH)).astype(np.float32),
                lidar=random.uniform([5, -3, -2, 0], [15, 3, 2, 1], (900, 4)).astype(np.float32),
            )
    return root
