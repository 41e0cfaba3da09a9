"""Nodes under test with a bench around each, ended with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import Bench
from processes import NodeProcess

Start = Callable[..., tuple[NodeProcess, Bench]]


UNHEARD = ("Traceback",)
"""What no node may print."""


def quick(sensors: Iterable[str], /, **changes: Any) -> dict[str, Any]:
    """Parameters of a node that starts at once on one core, often tells how it is, and is patient.

    Args:
        sensors: whose silence is told of after 1.5 s.
        **changes: further ones, or others; those with dots in their names as `**{"sync.deadline_ms": 200.0}`.
    """
    return {
        "device": "cpu",
        "threads": 1,
        "autostart": True,
        "sync.deadline_ms": 400.0,
        "policy.max_age_ms": 300.0,
        "diagnostics.period_s": 0.3,
        **{f"{sensor}.timeout_ms": 1500.0 for sensor in sensors},
        **changes,
    }


@contextmanager
def running(
    folder: Path,
    domain: int,
    parameters: dict[str, Any],
    *arguments: str,
    unheard: Iterable[str] = UNHEARD,
    **bench: Any,
) -> Iterator[Bench]:
    """A perception node with a bench around it for the tests of a file; it must survive them and end well.

    Args:
        folder: for the parameter file and the log.
        domain: the ROS domain.
        parameters: of the node.
        *arguments: further ones of its command line.
        unheard: what the node must not have printed.
        **bench: see `Bench`, whose drivers stand still.
    """
    node = NodeProcess("perception_node", folder, domain, parameters, *arguments)
    try:
        around = Bench(domain, **bench)
    except BaseException:
        node.stop()
        raise
    try:
        around.alive = lambda: node.process.poll() is None
        yield around
        assert around.alive(), node.log
        for word in unheard:
            assert word not in node.log, node.log
    finally:
        around.close()
        assert node.stop() == 0, node.log


class Starter:
    """Starts nodes named `perception_node` in one ROS domain.

    Args:
        domain: the ROS domain.
        folder: for parameter files and logs.
    """

    def __init__(self, domain: int, folder: Path) -> None:
        self._domain, self._folder = domain, folder
        self._made: list[tuple[NodeProcess, Bench]] = []

    def __call__(
        self,
        parameters: dict[str, Any],
        *arguments: str,
        executable: str = "perception_node",
        **bench: Any,
    ) -> tuple[NodeProcess, Bench]:
        """A node with these parameters and a `Bench` made with `bench`."""
        node = NodeProcess(
            executable, self._folder, self._domain, parameters, *arguments, name="perception_node"
        )
        try:
            around = Bench(self._domain, **bench)
        except BaseException:  # a node left behind would answer the next tests
            node.stop()
            raise
        around.alive = lambda: node.process.poll() is None
        self._made.append((node, around))
        return node, around

    def close(self) -> None:
        """End all; none may have printed a traceback."""
        for node, bench in self._made:
            bench.close()
            node.stop()
            assert "Traceback" not in node.log, node.log
