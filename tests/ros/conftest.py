"""Real nodes in real processes, and a bench of simulated sensor drivers that talks to them.

Skipped where ROS 2 or the built workspace is not on the path: `make test-ros` provides both.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

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

_DOMAINS = itertools.count(1 + os.getpid() % 90)


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
    yield 1 + next(_DOMAINS) % 100


@pytest.fixture
def own_domain() -> int:
    """A ROS domain that no other test uses."""
    return 1 + next(_DOMAINS) % 100
