"""Two cameras of a kind, by the robot's own names, beside a LiDAR: either dies and comes back."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anysense_msgs.msg import PerceptionStatus
from anysense_msgs.srv import SetFault
from anysense_ros.conversions import to_ns
from bench import Bench, black, drop, null, shifted
from diagnostic_msgs.msg import DiagnosticStatus
from launching import launched, share
from processes import NodeProcess, wait_until
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from starting import quick, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEREO = ROOT / "ros2_ws/.colcon/tiny/stereo"
KINDS = {"cam_a": "rgb", "cam_b": "rgb", "roof": "lidar"}
CAMERAS = ("cam_a", "cam_b")
PARAMETERS = quick(
    KINDS,
    bundle=str(STEREO),
    sensors=["cam_a", "cam_b", "roof"],
    cam_b={"kind": "rgb", "input": "right"},
    **{"cam_a.input": "left"},
)


@pytest.fixture(scope="module")
def bench(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert STEREO.is_dir(), "'make test-ros' makes it"
    folder, own = tmp_path_factory.mktemp("cameras"), {"sensors": tuple(KINDS), "kinds": KINDS}
    with running(folder, domain, PARAMETERS, rate_hz=10.0, **own) as bench:
        bench.drive()
        bench.wait_full(3)
        yield bench


@pytest.fixture(autouse=True)
def mended(bench: Bench) -> Iterator[None]:
    yield
    bench.mend()
    bench.wait_full(3)


def _sensor(status: PerceptionStatus, name: str) -> Any:
    return next(s for s in status.sensors if s.name == name)


def test_status_and_diagnostics_tell_the_sensors_apart(bench: Bench) -> None:
    status = bench.wait_full(3)
    assert list(status.used) == ["cam_a", "cam_b", "roof"]
    found = [(s.name, s.kind, s.input, s.line) for s in status.sensors]
    assert found == [
        ("cam_a", "rgb", "left", ""),
        ("cam_b", "rgb", "right", ""),
        ("roof", "lidar", "roof", ""),
    ]
    steps = set(status.steps)
    assert {f"{step}_{name}" for step in ("preprocess", "encode") for name in KINDS} <= steps
    for name in KINDS:
        bench.wait_diagnostic(name, lambda d: d.level == DiagnosticStatus.OK, f"{name} is well")


def test_outputs_are_in_the_first_cameras_pixels(bench: Bench) -> None:
    masks, infos = bench.listen(Image, "segmentation/mask"), bench.listen(CameraInfo, "camera_info")
    clouds = bench.listen(PointCloud2, "points")
    wait_until(lambda: masks and infos and clouds, "outputs")
    masks.clear()
    wait_until(lambda: len(masks) > 3, "masks")
    assert {to_ns(m.header.stamp) for m in masks} <= set(bench.stamps["cam_a"])
    assert clouds[-1].header.frame_id == "lidar"
    assert {to_ns(m.header.stamp) for m in clouds} <= set(bench.stamps["roof"])


@pytest.mark.parametrize(
    ("change", "health"),
    [(drop, "lost"), (black, "dark"), (null, "malformed"), (shifted(3600.0), "skewed")],
    ids=["drop", "black", "null", "skew"],
)
@pytest.mark.parametrize("dead", CAMERAS)
def test_either_camera_fails_and_returns(bench: Bench, dead: str, change: Any, health: str) -> None:
    (alive,) = set(CAMERAS) - {dead}
    before = len(bench.log)
    bench.changes[dead] = change
    status = bench.wait_status(
        lambda s: (
            list(s.used) == [alive, "roof"]
            and {x.name: x.health for x in s.sensors} == {dead: health, alive: "ok", "roof": "ok"}
            and [w.split(":")[0] for w in s.warnings] == [dead]
        ),
        f"{dead} to be {health}, and the others well",
    )
    assert status.state == PerceptionStatus.DEGRADED
    assert _sensor(status, dead).line.startswith(f"{dead}: ")
    assert not any(_sensor(status, name).line for name in (alive, "roof"))
    found = bench.wait_diagnostic(dead, lambda d: d.level == DiagnosticStatus.WARN, f"{dead} named")
    assert found.message.startswith(f"{dead}: ")
    bench.wait_diagnostic(alive, lambda d: d.level == DiagnosticStatus.OK, f"{alive} is well")
    if health == "lost":  # of the later ones, the log counts lines, and says so after a minute
        line = f"{dead}: no message"
        wait_until(lambda: any(n.startswith(line) for n in bench.log[before:]), "the log")
        assert not any(n.startswith(f"{alive}: no message") for n in bench.log[before:])
    bench.mend()
    bench.wait_full(3)
    bench.wait_diagnostic(dead, lambda d: d.level == DiagnosticStatus.OK, f"{dead} is back")


def test_both_cameras_die_and_the_lidar_goes_on(bench: Bench) -> None:
    bench.changes.update(dict.fromkeys(CAMERAS, drop))
    bench.wait_status(lambda s: list(s.used) == ["roof"], "an output from the LiDAR")


def test_parameters_of_a_sensor_change_while_it_runs(bench: Bench) -> None:
    assert bench.set_parameter("policy.required", ["cam_b"]).successful
    try:
        bench.changes["cam_a"] = drop
        bench.wait_status(lambda s: list(s.used) == ["cam_b", "roof"], "an output without cam_a")
        bench.mend()
        bench.wait_full(3)
        bench.changes["cam_b"] = drop
        bench.wait_status(lambda s: s.state >= PerceptionStatus.HOLD, "no output without cam_b")
        assert bench.set_parameter("policy.required", [""]).successful
        bench.wait_status(lambda s: list(s.used) == ["cam_a", "roof"], "an output again")
    finally:
        assert bench.set_parameter("policy.required", [""]).successful
    refused = bench.set_parameter("policy.required", ["rgb"])
    assert not refused.successful and "rgb" in refused.reason
    assert not bench.set_parameter("policy.minimum", 4).successful


def test_counts_of_each_camera_add_up(bench: Bench) -> None:
    bench.repeat["cam_b"] = 3
    start = bench.statuses[-1]
    begin = {n: _sensor(start, n).received for n in CAMERAS}
    wait_until(lambda: _sensor(bench.statuses[-1], "cam_b").received > begin["cam_b"] + 60, "60")
    for sensor in (last := bench.statuses[-1]).sensors:
        fates = (sensor.taken, sensor.superseded, sensor.rejected, sensor.waiting)
        assert sensor.received == sum(fates), sensor
    more = {n: _sensor(last, n).received - begin[n] for n in CAMERAS}
    assert more["cam_b"] > more["cam_a"] > 0


def test_the_recorder_has_columns_of_each(bench: Bench, domain: int, tmp_path: Path) -> None:
    parameters = {"out": str(tmp_path), "sensors": list(KINDS)}
    remap = ("-r", "~/status:=/perception_node/status")
    used = "cam_a+cam_b+roof"
    recorder = NodeProcess("status_recorder", tmp_path, domain, parameters, *remap)
    try:
        file = tmp_path / "status.csv"
        wait_until(lambda: file.is_file() and file.read_text().count(used) > 5, "rows of all three")
    finally:
        assert recorder.stop() == 0, recorder.log
    with file.open(newline="") as stream:
        row = [row for row in csv.DictReader(stream) if row["used"] == used][-1]
    assert {c for c in row if c.startswith("health")} == {f"health_{n}" for n in KINDS}
    assert {row[f"health_{n}"] for n in KINDS} == {"ok"}
    assert all(float(row[f"age_ms_{n}"]) >= 0 for n in KINDS)


def test_the_injector_knows_kinds_by_name(bench: Bench, domain: int, tmp_path: Path) -> None:
    heard = bench.listen(Image, "faulty")
    parameters = {"sensors": ["cam_a=rgb", "roof=lidar"]}
    root = "/perception_node/input"
    remaps = ("-r", f"~/input/cam_a:={root}/cam_a", "-r", "~/output/cam_a:=/perception_node/faulty")
    injector = NodeProcess("fault_injector", tmp_path, domain, parameters, *remaps)
    try:
        wait_until(lambda: heard and any(heard[-1].data), "a picture")

        def fails(sensor: str, fault: str, value: float = 0.0) -> bool:
            request = SetFault.Request(sensor=sensor, fault=fault, value=value)
            return bool(bench.call(SetFault, "set_fault", request, "fault_injector").success)

        assert fails("cam_a", "black") and fails("roof", "beam_loss", 0.5)
        wait_until(lambda: not any(heard[-1].data), "a black one")
        assert not fails("cam_a", "beam_loss", 0.5)
        assert not fails("cam_b", "black") and not fails("rgb", "black")
    finally:
        assert injector.stop() == 0, injector.log


def documented() -> dict[str, str]:
    """The arguments of the launch command for two cameras in docs/ros.md."""
    page = (ROOT / "docs/ros.md").read_text(encoding="utf-8")
    lines = page[page.index("ros2 launch anysense_ros perception.launch.py bundle:=sim-stereo") :]
    command = re.sub(r"\\\n\s*", " ", lines).splitlines()[0]
    command = command.replace("$(ros2 pkg prefix --share anysense_ros)", str(share()))
    return dict(word.split(":=", 1) for word in shlex.split(command)[4:])


@pytest.fixture(scope="module")
def rig(second_domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """The node as docs/ros.md has it started for two cameras, with the bundle trained for them."""
    folder, given = tmp_path_factory.mktemp("rig"), documented()
    topics = dict(t.split("=") for t in given["topics"].split())
    assert set(topics) == {"front", "front/camera_info", "rear", "rear/camera_info"}
    said = Path(given["params_file"]).read_text(encoding="utf-8")
    assert all(f"{name}={topic}" in said for name, topic in topics.items())
    own = {"diagnostics.period_s": 0.3, "threads": 1}
    cameras = {"front": "rgb", "rear": "rgb"}
    around = {"sensors": tuple(cameras), "kinds": cameras, "topics": topics}
    with running(folder, second_domain, own, *launched(given), rate_hz=15.0, **around) as bench:
        bench.drive()
        bench.wait_full(2)
        yield bench


@pytest.mark.parametrize("change", [drop, black], ids=["drop", "black"])
@pytest.mark.parametrize("dead", ["front", "rear"])
def test_the_trained_bundle_as_documented(rig: Bench, dead: str, change: Any) -> None:
    (alive,) = {"front", "rear"} - {dead}
    masks = rig.listen(Image, "segmentation/mask")
    both = rig.wait_full(2)
    assert list(both.used) == ["front", "rear"] and both.state == PerceptionStatus.FULL
    found = [(s.name, s.kind, s.input) for s in both.sensors]
    assert found == [("front", "rgb", "left"), ("rear", "rgb", "right")]
    rig.changes[dead] = change
    health = "lost" if change is drop else "dark"
    try:
        gone = rig.wait_status(
            lambda s: (
                list(s.used) == [alive]
                and _sensor(s, dead).health == health
                and [w.split(":")[0] for w in s.warnings] == [dead]
            ),
            f"{dead} gone",
        )
        assert gone.state == PerceptionStatus.DEGRADED
        rig.wait_diagnostic(dead, lambda d: d.level == DiagnosticStatus.WARN, f"{dead} named")
        masks.clear()
        wait_until(lambda: len(masks) > 3, f"masks of {alive}")
        assert len({bytes(masks[-1].data)[i] for i in range(0, len(masks[-1].data), 7)}) > 1
    finally:
        rig.mend()
    rig.wait_status(
        lambda s: s.state == PerceptionStatus.FULL and len(s.used) == 2 and not s.warnings,
        "both, and no warning",
    )
    rig.wait_diagnostic(dead, lambda d: d.level == DiagnosticStatus.OK, f"{dead} is back")
