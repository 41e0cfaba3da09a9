"""Starting and ending a node's process."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType

import rclpy
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from perception.errors import AnySenseError

EXIT_ERROR = 2
EXIT_STUCK = 75
"""A backend computes and cannot be ended: start the process anew."""

_LOOK_S = 0.5


def run(
    make: Callable[[], Node],
    close: Callable[[Node], None],
    start: Callable[[Node], None] | None = None,
    args: list[str] | None = None,
) -> int:
    """Spin a node until SIGINT, SIGTERM or shutdown, and end it cleanly.

    While it spins, a signal ends it between two callbacks, never within one.

    Args:
        make: creates the node; an `AnySenseError` ends the process with one line.
        close: called before the node is destroyed.
        start: called once before spinning.
        args: command line, `sys.argv` when None.

    Returns:
        The exit status: 0, or 2 when the node could not be made.
    """
    interrupts = _Interrupts()
    signal.signal(signal.SIGINT, interrupts)
    _give_logs_a_place()
    try:
        rclpy.init(args=args)
    except Exception as error:  # rcl raises types of its own for unparsable arguments and files
        return _fail(error)
    try:
        node = make()
    except AnySenseError as error:
        rclpy.try_shutdown()
        return _fail(error)
    except KeyboardInterrupt:
        rclpy.try_shutdown()
        return 0
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if start is not None:
            start(node)
        _spin(node, executor, interrupts)
    except AnySenseError as error:
        return _fail(error)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:
        if rclpy.ok():  # otherwise a signal has taken the topics from under a callback
            raise
    finally:
        # A second Ctrl-C must not cut the clean-up short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        close(node)
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


class _Interrupts:
    """What SIGINT does until the node ends.

    Attributes:
        spins: whether the executor is at work.  rclpy's own handler, which calls this one, then wakes it.  An
            exception raised here would come out of any callback, or, as something else, of the middleware's
            conversions.
    """

    spins = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.spins:
            raise KeyboardInterrupt


def _give_logs_a_place() -> None:
    """As a service starts it: ROS ends a process that has no place for log files."""
    if not any(os.environ.get(name) for name in ("ROS_LOG_DIR", "ROS_HOME", "HOME")):
        os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="ros_log_")


def _spin(node: Node, executor: SingleThreadedExecutor, interrupts: _Interrupts) -> None:
    # rclpy wakes the executor before it ends the context: an executor that looks in between
    # would wait for ever for a next message.
    node.create_timer(_LOOK_S, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
    interrupts.spins = True
    executor.spin()


def _fail(error: Exception) -> int:
    line = " ".join(str(error).split()) or type(error).__name__
    print(f"error: {line}", file=sys.stderr)  # noqa: T201
    return EXIT_ERROR
