"""The perception node while its sensors fail, one node for all cases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench import HEIGHT, WIDTH, Bench, Frozen, black, cut_off, drop, null, wrong_encoding
from diagnostic_msgs.msg import DiagnosticStatus
from processes import wait_until
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from starting import UNHEARD, quick, running
from vision_msgs.msg import Detection2DArray, Detection3DArray, LabelInfo

from perception.frame import KINDS

pytestmark = pytest.mark.slow

PARAMETERS = quick(KINDS, inputs=list(KINDS), **{"policy.hold_ms": 5000.0})


@pytest.fixture(scope="module")
def bench(domain: int, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder, given = tmp_path_factory.mktemp("perception"), {**PARAMETERS, "bundle": str(bundle)}
    with running(folder, domain, given, unheard=(*UNHEARD, "unexpected")) as bench:
        bench.drive()
        bench.wait_full()
        yield bench


@pytest.fixture(autouse=True)
def mended(bench: Bench) -> Iterator[None]:
    yield
    bench.mend()
    bench.drive()
    bench.wait_full()


def _sensor(status, name: str):  # type: ignore[no-untyped-def]
    return next(s for s in status.sensors if s.name == name)


def _goes_on_without(bench: Bench, *gone: str, health: tuple[str, ...]) -> None:
    rest = [m for m in KINDS if m not in gone]
    status = bench.wait_status(
        lambda s: (
            s.used == rest
            and all(_sensor(s, m).health in health for m in gone)
            and all(_sensor(s, m).health == "ok" for m in rest)
        ),
        f"an output from {rest} with {gone} {health}",
    )
    assert status.state == status.DEGRADED
    assert all(np.isnan(_sensor(status, m).age_ms) for m in gone)
    after = bench.wait_status(lambda s: s.used == rest, "the next output")
    assert after.header.stamp != status.header.stamp


def test_all_outputs(bench: Bench) -> None:
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    masks = bench.listen(Image, "segmentation/mask")
    confidences = bench.listen(Image, "segmentation/confidence")
    colors = bench.listen(Image, "segmentation/color")
    overlays = bench.listen(Image, "overlay")
    labels = bench.listen(LabelInfo, "segmentation/label_info", latched)
    boxes = bench.listen(Detection2DArray, "detections")
    boxes_3d = bench.listen(Detection3DArray, "detections_3d")
    points = bench.listen(PointCloud2, "points")
    everything = (masks, confidences, colors, overlays, labels, boxes, boxes_3d, points)
    wait_until(lambda: all(everything), "a message on every topic")
    status = bench.wait_full()
    assert status.state == status.FULL
    assert status.backend == "onnxruntime-cpu"
    assert status.latency_ms > 0
    assert status.engine_ms > 0
    assert {"fuse", "encode_rgb", "total"} <= set(status.steps)
    mask = masks[-1]
    assert (mask.encoding, mask.height, mask.width) == ("mono8", HEIGHT, WIDTH)
    assert mask.header.frame_id == "camera_optical"
    wait_until(
        lambda: any(s.header.stamp == mask.header.stamp for s in bench.statuses), "its status"
    )
    known = {c.class_id for c in labels[0].class_map}
    assert set(np.frombuffer(mask.data, np.uint8).tolist()) <= known
    confidence = np.frombuffer(confidences[-1].data, np.float32)
    assert confidences[-1].encoding == "32FC1"
    assert 0 < confidence.min() <= confidence.max() <= 1
    assert (colors[-1].encoding, overlays[-1].encoding) == ("rgb8", "rgb8")
    cloud = points[-1]
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "class_id", "probability"]
    assert cloud.header.frame_id == "lidar"
    assert cloud.width > 500
    assert cloud.width * cloud.point_step == len(cloud.data)
    for message in boxes[-1].detections:
        assert 0 <= message.bbox.center.position.x <= WIDTH
        assert message.results[0].hypothesis.score > 0


@pytest.mark.parametrize("sensor", KINDS)
def test_a_sensor_dies_and_returns(bench: Bench, sensor: str) -> None:
    bench.changes[sensor] = drop
    _goes_on_without(bench, sensor, health=("lost",))
    found = bench.wait_diagnostic(sensor, lambda d: "no message" in d.message, "the loss")
    assert found.level == DiagnosticStatus.WARN
    bench.mend()
    bench.wait_full()
    bench.wait_diagnostic(sensor, lambda d: d.level == DiagnosticStatus.OK, "recovery")


@pytest.mark.parametrize("sensor", KINDS)
def test_a_frozen_sensor(bench: Bench, sensor: str) -> None:
    bench.changes[sensor] = Frozen()
    _goes_on_without(bench, sensor, health=("frozen",))


@pytest.mark.parametrize("sensor", KINDS)
def test_a_wrong_encoding_is_a_diagnostic(bench: Bench, sensor: str) -> None:
    bench.changes[sensor] = wrong_encoding
    _goes_on_without(bench, sensor, health=("malformed",))
    word = "no field x" if sensor == "lidar" else "jpeg2000"
    bench.wait_diagnostic(sensor, lambda d: word in d.message, "what is wrong")


@pytest.mark.parametrize("change", [null, cut_off, black])
@pytest.mark.parametrize("sensor", KINDS)
def test_messages_without_content(bench: Bench, sensor: str, change) -> None:  # type: ignore[no-untyped-def]
    bench.changes[sensor] = change
    _goes_on_without(bench, sensor, health=("malformed", "dark"))


@pytest.mark.parametrize("sensor", KINDS)
def test_a_sensor_delayed_past_the_deadline(bench: Bench, sensor: str) -> None:
    # Past the deadline of 0.4 s; what is a second late, with what a busy machine adds, has a wrong clock.
    bench.delay_s[sensor] = 0.65
    _goes_on_without(bench, sensor, health=("late",))


@pytest.mark.parametrize("sensor", KINDS)
def test_noisy_stamps(bench: Bench, sensor: str) -> None:
    bench.jitter_ns[sensor] = 15_000_000
    bench.wait_status(
        # Where a message is late, its sensor's last one may be used, which is further away.
        lambda s: len(s.used) == 4 and s.spread_ms == pytest.approx(15, abs=0.1),
        "matched noise",
    )


@pytest.mark.parametrize("sensor", KINDS)
def test_ten_times_the_rate(bench: Bench, sensor: str) -> None:
    bench.repeat[sensor] = 10
    before = _sensor(bench.statuses[-1], sensor).received
    status = bench.wait_status(
        lambda s: _sensor(s, sensor).received > before + 40 and len(s.used) == 4,
        "output while one sensor floods",
    )
    for one in status.sensors:
        assert one.received == one.taken + one.superseded + one.rejected + one.waiting


def test_two_sensors_die_at_once(bench: Bench) -> None:
    bench.changes.update(rgb=drop, lidar=drop)
    _goes_on_without(bench, "rgb", "lidar", health=("lost",))


def test_one_sensor_is_left(bench: Bench) -> None:
    bench.changes.update(rgb=drop, depth=drop, lidar=drop)
    _goes_on_without(bench, "rgb", "depth", "lidar", health=("lost",))


def test_all_die_hold_then_stop_then_recovery(bench: Bench) -> None:
    masks = bench.listen(Image, "segmentation/mask")
    wait_until(lambda: masks, "a mask")
    bench.drive(False)
    held = bench.wait_status(lambda s: s.state == s.HOLD, "hold")
    assert (held.reason, held.used) == ("heartbeat", [])
    stopped = bench.wait_status(lambda s: s.state == s.STOP, "stop")
    assert all(s.health == "lost" for s in stopped.sensors)
    bench.wait_diagnostic("output", lambda d: d.level == DiagnosticStatus.ERROR, "an error")
    bench.drive()
    bench.wait_full()


def test_the_clock_jumps_back_as_when_a_bag_loops(bench: Bench) -> None:
    before = bench.wait_full()
    bench.stamp_shift_ns -= 30_000_000_000
    after = bench.wait_status(
        lambda s: s.header.stamp.sec < before.header.stamp.sec - 20 and len(s.used) == 4,
        "output after the jump",
    )
    assert after.state == after.FULL


def test_parameters_change_while_running(bench: Bench) -> None:
    assert bench.set_parameter("policy.required", ["rgb"]).successful
    bench.changes["rgb"] = drop
    bench.wait_status(lambda s: s.state in (s.HOLD, s.STOP), "no output without rgb")
    assert bench.set_parameter("policy.required", [""]).successful
    bench.wait_status(lambda s: s.state == s.DEGRADED, "output again")
    assert bench.set_parameter("policy.derating", 0.5).successful
    assert bench.set_parameter("policy.derating", 1.0).successful


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("sync.deadline_ms", -1.0, "range"),
        ("sync.deadline_ms", "soon", "type"),
        ("policy.required", ["sonar"], "sonar"),
        ("policy.minimum", 17, "range"),
        ("policy.minimum", 9, "only 4"),
        ("bundle", "other", "read"),
        ("thermal.unit", "fahrenheit", "fahrenheit"),
        ("calibration_file", "/no/such/rig.yaml", "no such file"),
    ],
)
def test_wrong_parameters_are_refused(bench: Bench, name: str, value: object, word: str) -> None:
    result = bench.set_parameter(name, value)
    assert not result.successful
    assert word in result.reason.lower()
