"""The shipped bundle for boxes on the ground in the node, on a simulated drive: sensors die and come back."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anysense_msgs.msg import PerceptionStatus
from anysense_ros.conversions import cloud, header, image, to_ns
from bench import Bench, Change, drop
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from processes import wait_until
from starting import quick, running
from vision_msgs.msg import Detection3DArray

from perception.data.base import TruthBoxes3d
from perception.frame import Frame
from perception.geometry.rig import save_rig

pytestmark = pytest.mark.slow

BUNDLE = Path(__file__).parents[2] / "bundles/sim-bev"
KINDS = {
    "lidar": "lidar",
    "cam_front": "rgb",
    "cam_left": "rgb",
    "cam_rear": "rgb",
    "cam_right": "rgb",
}
CAMERAS = tuple(KINDS)[1:]
FRAMES, SEED, RATE_HZ = 6, 7, 2.5
"""The first frames of a drive as `anysense demo --bundle sim-bev` makes it, in slow motion: what a busy
machine fuses of two of them is off by what the vehicle drives in one (0.6 m)."""

OUTPUTS = 2 * (FRAMES - 1)
"""So many are judged in each case: all frames, where none is dropped."""

NEAR_M, REACH_M = 2.0, 20.0
"""A box is near a car whose middle is no further from its own; cars count that are no further away."""

WITH_LIDAR, WITHOUT, TURNED = 0.7, 0.35, 0.3
"""Least share of the clear cars that has a box near, where the LiDAR is there, where cameras are alone; and
the most that may be left of it where all boxes are a quarter turn off: a wrong frame would be noticed."""

SURE, TRUE_WITH_LIDAR, TRUE_WITHOUT = 0.5, 0.6, 0.4
"""Of boxes from this score on, the least share that is near an object, whatever it is."""


@dataclass
class Robot:
    """The node with a drive around it.

    Attributes:
        bench: the drivers.
        frames: what they show.
        truths: what was there, frame by frame.
        boxes: what came out.
        shown: by stamp, the frame of that moment.
    """

    bench: Bench
    frames: list[Frame]
    truths: list[TruthBoxes3d]
    boxes: list[Detection3DArray]
    shown: dict[int, int] = field(default_factory=dict)

    def show(self, name: str) -> Change:
        """Gives a sensor's messages: the frames to and fro, all sensors of a moment of the same one."""
        road = [*range(FRAMES), *range(FRAMES - 2, 0, -1)]

        def change(message: Any, stamp: int) -> Any:
            index = self.shown.setdefault(stamp, road[len(self.shown) % len(road)])
            data, head = self.frames[index][name].data, header(stamp, name)
            if KINDS[name] == "lidar":
                return cloud(np.ascontiguousarray(data[:, :4]), head)
            return image(data, head, "rgb8")

        return change

    def lose(self, *dead: str) -> None:
        """These are silent from now on, and all others speak."""
        self.bench.changes = {n: drop if n in dead else self.show(n) for n in KINDS}

    def outputs(self, alive: Collection[str]) -> tuple[list[Detection3DArray], set[int]]:
        """The next boxes from exactly these sensors, and the states that were told with them."""
        wanted, first = set(alive), len(self.bench.statuses)

        def found() -> dict[int, Detection3DArray]:
            made = {to_ns(s.header.stamp) for s in statuses()}
            boxes = {to_ns(m.header.stamp): m for m in list(self.boxes)}
            both = {stamp: boxes[stamp] for stamp in sorted(made & set(boxes))}
            return both if len(both) >= OUTPUTS else {}

        def statuses() -> list[PerceptionStatus]:
            return [s for s in self.bench.statuses[first:] if set(s.used) == wanted]

        both = wait_until(found, f"{OUTPUTS} outputs from {sorted(wanted)}")
        states = {s.state for s in statuses() if to_ns(s.header.stamp) in both}
        return list(both.values()), states


@pytest.fixture(scope="module")
def robot(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    pytest.importorskip("mujoco", reason="needs the simulator: pip install 'anysense[sim]'")
    from perception.data.registry import open_recording
    from perception.sim.drives import Drives, make_drives

    folder = tmp_path_factory.mktemp("shipped")
    made = Drives(FRAMES, SEED, town_frames=FRAMES, lidar="hdl32", weather="clear", speed=6.0)
    make_drives(folder / "drive", made, progress=False)
    recording = open_recording("folder", folder / "drive")
    frames = [recording.frame(i) for i in range(len(recording))]
    truths = [t for i in range(len(recording)) if (t := recording.truth(i).boxes3d) is not None]
    assert len(frames) == len(truths) == FRAMES
    save_rig(recording.rig, folder / "rig.yaml")
    parameters = quick(
        KINDS,
        bundle=str(BUNDLE),
        sensors=list(KINDS),
        calibration_file=str(folder / "rig.yaml"),
        **{f"{name}.timeout_ms": 4000.0 for name in KINDS},
    )
    own = {"sensors": tuple(KINDS), "kinds": KINDS, "placed": False, "rate_hz": RATE_HZ}
    with running(folder, domain, parameters, **own) as bench:
        bench.camera = recording.rig.sensors["cam_front"].camera
        boxes = bench.listen(Detection3DArray, "detections_3d", 50)
        robot = Robot(bench, frames, truths, boxes)
        robot.lose()
        bench.drive()
        yield robot


def _places(message: Detection3DArray, kind: str = "", least: float = 0.0) -> NDArray[np.float64]:
    """(N, 2) where boxes of a class (all, if it is empty) are that have at least a score."""
    found = [
        (one.bbox.center.position.x, one.bbox.center.position.y)
        for one in message.detections
        if kind in ("", one.results[0].hypothesis.class_id)
        and one.results[0].hypothesis.score >= least
    ]
    return np.array(found, np.float64).reshape(-1, 2)


def _clear(truth: TruthBoxes3d) -> NDArray[np.float64]:
    """(N, 2) where cars are that nobody should miss: near, hardly hidden, with points on them."""
    wanted = ~truth.ignore & (truth.class_ids == 1) & (truth.occlusion <= 1) & (truth.points >= 20)
    near = np.hypot(*truth.center[:, :2].T) <= REACH_M
    return truth.center[wanted & near, :2]


def _near(some: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which of some (N, 2) have another one near."""
    apart = np.linalg.norm(some[:, None] - others[None], axis=-1)
    return (apart <= NEAR_M).any(axis=1)


def _judge(robot: Robot, boxes: list[Detection3DArray], recall: float, true: float) -> None:
    """Boxes are near what was there at their own stamp, in the base frame."""
    found, turned, right = list[bool](), list[bool](), list[bool]()
    for message in boxes:
        assert message.header.frame_id == "base_link"
        truth = robot.truths[robot.shown[to_ns(message.header.stamp)]]
        cars, clear = _places(message, "car"), _clear(truth)
        found += _near(clear, cars).tolist()
        turned += _near(clear, cars[:, ::-1] * [-1, 1]).tolist()
        right += _near(_places(message, least=SURE), truth.center[:, :2]).tolist()
    shares = [float(np.mean(one)) for one in (found, turned, right)]
    assert len(found) >= 3 * len(boxes) and len(right) >= len(boxes), "nothing to judge"
    assert shares[0] >= recall and shares[1] <= TURNED and shares[2] >= true, shares
    for one in (box for message in boxes for box in message.detections):
        turn, size = one.bbox.center.orientation, one.bbox.size
        assert turn.x == turn.y == 0 and math.hypot(turn.z, turn.w) == pytest.approx(1)
        assert min(size.x, size.y, size.z) > 0


def _told(robot: Robot, dead: Collection[str]) -> None:
    """/diagnostics name who is lost, and no other."""
    for name in KINDS:
        if name in dead:
            robot.bench.wait_diagnostic(
                name,
                lambda d, name=name: (
                    d.level == DiagnosticStatus.WARN
                    and d.message == f"{name}: no message for more than 4000 ms"
                ),
                f"{name} is told as lost",
            )
        else:
            robot.bench.wait_diagnostic(
                name, lambda d: d.level == DiagnosticStatus.OK, f"{name} is well"
            )


@pytest.mark.parametrize(
    "dead",
    [(), ("lidar",), (), ("cam_left",), ("lidar", "cam_left"), CAMERAS, ()],
    ids=lambda dead: "+".join(dead) or "none",
)
def test_boxes_are_near_the_truth_whoever_is_left(robot: Robot, dead: tuple[str, ...]) -> None:
    alive = [name for name in KINDS if name not in dead]
    robot.lose(*dead)
    health = {name: "lost" if name in dead else "ok" for name in KINDS}
    robot.bench.wait_status(
        lambda s: {x.name: x.health for x in s.sensors} == health and set(s.used) == set(alive),
        f"an output from {alive}",
    )
    boxes, states = robot.outputs(alive)
    assert states == {PerceptionStatus.DEGRADED if dead else PerceptionStatus.FULL}
    if "lidar" in alive:
        _judge(robot, boxes, WITH_LIDAR, TRUE_WITH_LIDAR)
    else:
        _judge(robot, boxes, WITHOUT, TRUE_WITHOUT)
    _told(robot, dead)
