"""sensor_replay and fault_injector in front of the perception node, and bags both ways."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anysense_msgs.srv import SetFault
from anysense_ros.conversions import to_ns
from bench import CAMERA, Bench
from processes import PATIENCE_S, NodeProcess, wait_until
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from perception.bags.files import TOPICS, messages_of, write_bag
from perception.data.folder import FolderRecording
from perception.frame import KINDS

pytestmark = pytest.mark.slow

PERCEPTION = {
    "inputs": list(KINDS),
    "device": "cpu",
    "threads": 1,
    "autostart": True,
    "sync.deadline_ms": 400.0,
    "policy.max_age_ms": 300.0,
    **{f"{m}.timeout_ms": 1500.0 for m in KINDS},
}


@pytest.fixture(scope="module", params=["folder", "mcap"])
def source(request: pytest.FixtureRequest, drive: Path) -> str:
    if request.param == "folder":
        return f"folder:{drive}"
    bag = drive.parent / "bag"
    write_bag(bag, messages_of(FolderRecording(drive)))
    return str(next(bag.glob("*.mcap")))


@pytest.fixture
def launched(own_domain: int, bundle: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts nodes; all end with the test, cleanly."""
    nodes: list[NodeProcess] = []
    bench = Bench(own_domain)

    def start(executable: str, parameters: dict[str, Any], *remaps: tuple[str, str]) -> NodeProcess:
        arguments = itertools.chain(*(("-r", f"{old}:={new}") for old, new in remaps))
        node = NodeProcess(executable, tmp_path, own_domain, parameters, *arguments)
        nodes.append(node)
        return node

    def perception(prefix: dict[str, str], **changes: Any) -> NodeProcess:
        remaps = [(f"~/input/{m}", prefix[m]) for m in KINDS]
        remaps += [(f"~/input/{m}/camera_info", f"/sensors/{m}/camera_info") for m in KINDS[:3]]
        parameters = {**PERCEPTION, "bundle": str(bundle), **changes}
        return start("perception_node", parameters, *remaps)

    start.perception = perception  # type: ignore[attr-defined]
    start.bench = bench  # type: ignore[attr-defined]
    try:
        yield start
        for node in nodes:
            assert node.stop() == 0, node.log
            assert "Traceback" not in node.log, node.log
    finally:
        bench.close()


def test_a_recording_goes_through_the_node(launched: Any, source: str) -> None:
    bench = launched.bench
    clocks: list[Clock] = []
    infos: list[CameraInfo] = []
    bench.node.create_subscription(Clock, "/clock", clocks.append, 10)
    bench.node.create_subscription(CameraInfo, "/sensors/rgb/camera_info", infos.append, 10)
    launched.perception(TOPICS, use_sim_time=True)
    launched("sensor_replay", {"source": source, "loop": True})
    status = bench.wait_full()
    assert status.header.frame_id == "camera_optical"
    # The recorded stamps, and after the end of three seconds the first ones again.
    assert 1 <= status.header.stamp.sec <= 4
    bench.wait_status(lambda s: s.header.stamp.sec >= 3 and s.state == s.FULL, "a full end")
    bench.wait_status(lambda s: s.header.stamp.sec == 1 and len(s.used) == 4, "the next round")
    wait_until(lambda: infos, "camera_info")
    assert list(infos[0].k) == pytest.approx(list(CAMERA.matrix.reshape(-1)))
    wait_until(lambda: any(c.clock.sec >= 3 for c in list(clocks)), "the clock")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"source": ""}, "source"),
        ({"source": "/no/such/bag"}, "no such bag"),
        ({"source": "folder:/no/such/folder"}, "no such folder"),
        ({"source": __file__}, "cannot be read"),
    ],
)
def test_wrong_sources_end_with_one_line(
    own_domain: int, tmp_path: Path, changes: dict[str, Any], word: str
) -> None:
    node = NodeProcess("sensor_replay", tmp_path, own_domain, changes)
    assert node.process.wait(PATIENCE_S) == 2, node.log
    assert word in node.log
    assert "Traceback" not in node.log


def test_faults_by_service_and_by_schedule(launched: Any, tmp_path: Path, bundle: Path) -> None:
    bench = launched.bench
    schedule = tmp_path / "schedule.yaml"
    schedule.write_text("events:\n  - {at: 0, for: 2, sensor: depth, fault: drop}\n")
    outputs = {m: f"/faulty/{m}" for m in KINDS}
    inputs = {m: f"/perception_node/input/{m}" for m in KINDS}
    remaps = [(f"~/input/{m}", inputs[m]) for m in KINDS]
    remaps += [(f"~/output/{m}", outputs[m]) for m in KINDS]
    injector = launched("fault_injector", {"schedule": str(schedule)}, *remaps)
    # The bench publishes camera_info where the node listens by default.
    launched(
        "perception_node",
        {**PERCEPTION, "bundle": str(bundle)},
        *((f"~/input/{m}", outputs[m]) for m in KINDS),
    )
    bench.drive()
    bench.wait_full()
    wait_until(lambda: "depth: drop" in injector.log and "depth: no fault" in injector.log, "both")
    request = SetFault.Request(sensor="rgb", fault="black")
    assert bench.call(SetFault, "set_fault", request, "fault_injector").success
    bench.wait_status(lambda s: s.used == ["depth", "thermal", "lidar"], "output without rgb")
    request = SetFault.Request(sensor="lidar", fault="encoding", duration=8.0)
    assert bench.call(SetFault, "set_fault", request, "fault_injector").success
    bench.wait_status(lambda s: s.used == ["depth", "thermal"], "output without both")
    bench.wait_status(lambda s: "lidar" in s.used, "the end of the fault")
    assert bench.call(
        SetFault, "set_fault", SetFault.Request(sensor="all", fault="none"), "fault_injector"
    ).success
    bench.wait_full()
    for wrong in (("sonar", "drop", 0.0), ("rgb", "melt", 0.0), ("rgb", "beam_loss", 0.5)):
        sensor, fault, value = wrong
        request = SetFault.Request(sensor=sensor, fault=fault, value=value)
        answer = bench.call(SetFault, "set_fault", request, "fault_injector")
        assert not answer.success
        assert answer.message


def test_delayed_messages_arrive_later(launched: Any) -> None:
    bench = launched.bench
    ages_s: list[float] = []

    def hear(message: Image) -> None:
        ages_s.append((time.time_ns() - to_ns(message.header.stamp)) / 1e9)

    bench.node.create_subscription(Image, "/delayed", hear, 10)
    launched(
        "fault_injector",
        {"sensors": ["rgb"]},
        ("~/input/rgb", "/perception_node/input/rgb"),
        ("~/output/rgb", "/delayed"),
    )
    bench.drive()
    wait_until(lambda: ages_s and min(ages_s) < 0.9, "a message that is not delayed")
    request = SetFault.Request(sensor="rgb", fault="delay", value=1.0)
    assert bench.call(SetFault, "set_fault", request, "fault_injector").success
    # Some that came before may be on their way: ten of the bench's messages may.
    count = len(ages_s) + 10
    wait_until(lambda: len(ages_s) > count + 5, "delayed messages")
    assert min(ages_s[count:]) > 0.9
