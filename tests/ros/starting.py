"""Nodes under test with a bench around each, ended with the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import Bench
from processes import NodeProcess

Start = Callable[..., tuple[NodeProcess, Bench]]


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
