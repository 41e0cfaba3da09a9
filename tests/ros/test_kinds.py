"""A kind of sensor of another distribution in the node: its messages, its parameters, and one that fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from anysense_ros.codec import RosCodec
from bench import TO_OPTICAL
from diagnostic_msgs.msg import DiagnosticStatus
from distributions import written
from processes import wait_until
from std_msgs.msg import String

from perception import plugins
from perception.frame import Sample
from perception.sensors.registry import KINDS

ROOT = Path(__file__).parents[2]
STEREO = ROOT / "ros2_ws/.colcon/tiny/stereo"
CODE = (ROOT / "tests/plugins/radar/anysense_radar.py").read_text()


@pytest.fixture
def radar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sample distribution on the nodes' path and ours; its module, which a test may change."""
    assert STEREO.is_dir(), "'make test-ros' makes it"
    site = written(
        tmp_path / "site", "radar", {"anysense.sensors": {"radar": "brought_radar:RADAR"}}
    )
    (site / "brought_radar.py").write_text(CODE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ["PYTHONPATH"]]))
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr(KINDS, "_loaded", {})
    plugins.plugins.cache_clear()
    yield site / "brought_radar.py"
    plugins.plugins.cache_clear()
    sys.modules.pop("brought_radar", None)


@pytest.fixture
def parameters(tmp_path: Path, radar: Path) -> dict[str, Any]:
    """Of a node whose `roof` is a radar; the bundle's graph for points takes as many channels."""
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    for file in STEREO.iterdir():
        (bundle / file.name).write_bytes(file.read_bytes())
    content = yaml.safe_load((bundle / "bundle.yaml").read_text())
    content["inputs"]["roof"] |= {"kind": "radar", "view": content["inputs"]["left"]["view"]}
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(content))
    return {
        "bundle": str(bundle),
        "sensors": ["left", "roof"],
        "device": "cpu",
        "threads": 1,
        "autostart": True,
        "sync.deadline_ms": 400.0,
        "diagnostics.period_s": 0.3,
        "left.timeout_ms": 1500.0,
        "roof": {"kind": "radar", "least_range_m": 0.5, "timeout_ms": 1500.0},
    }


def points(message: Any, stamp: int) -> Any:
    """A radar's message instead of a LiDAR's."""
    rng = np.random.default_rng(stamp % 1000)
    low, high = [5, -2, -1, -5, 0], [20, 2, 1, 5, 20]
    data = rng.uniform(low, high, (40, 5)).astype(np.float32)
    return KINDS["radar"].to_message(Sample("radar", data, stamp, "lidar"), RosCodec())


def start(starter: Any, parameters: dict[str, Any]) -> Any:
    kinds = {"left": "rgb", "roof": "lidar"}
    _, bench = starter(parameters, sensors=("left", "roof"), kinds=kinds)
    bench.changes["roof"] = points
    bench.place_lidar(TO_OPTICAL)
    bench.drive()
    return bench


def test_its_messages_are_used_and_told(starter: Any, parameters: dict[str, Any]) -> None:
    bench = start(starter, parameters)
    both = bench.wait_status(lambda s: list(s.used) == ["left", "roof"], "both")
    found = [(s.name, s.kind, s.input) for s in both.sensors]
    assert found == [("left", "rgb", "left"), ("roof", "radar", "roof")]
    bench.wait_diagnostic("roof", lambda d: d.level == DiagnosticStatus.OK, "roof is well")
    bench.changes["left"] = lambda message, stamp: None
    bench.wait_status(lambda s: list(s.used) == ["roof"], "the radar alone")
    bench.changes = {"roof": lambda message, stamp: message}  # xyz and intensity: no radar's fields
    bench.wait_status(lambda s: list(s.used) == ["left"], "the camera alone")
    wait_until(lambda: "no field doppler" in str(bench.diagnostics["roof"]), "the reason")
    bench.changes["roof"] = points
    bench.wait_status(lambda s: list(s.used) == ["left", "roof"], "both again")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "points = np.zeros((len(array), 5), np.float32)",
            "raise IndexError('no echo')",
            "no echo",
        ),
        ("camera = sample.camera.scaled", "camera = sample.camera.skaled", "skaled"),
    ],
)
def test_one_that_fails_is_told_with_its_distribution_and_the_camera_goes_on(
    starter: Any, parameters: dict[str, Any], radar: Path, old: str, new: str, said: str
) -> None:
    assert old in CODE
    KINDS.named("radar")  # for the bench, as it was
    radar.write_text(CODE.replace(old, new))
    bench = start(starter, parameters)
    bench.wait_status(lambda s: list(s.used) == ["left"], "the camera")
    found = bench.wait_diagnostic("roof", lambda d: said in str(d), "the reason")
    assert found.level == DiagnosticStatus.ERROR
    assert "of radar 1.0" in str(found)


def test_one_that_cannot_be_imported_is_one_line(
    starter: Any, parameters: dict[str, Any], radar: Path
) -> None:
    KINDS.named("radar")
    radar.write_text("import no_such_module\n" + CODE)
    node, _ = starter(parameters, sensors=("left", "roof"), kinds={"roof": "lidar", "left": "rgb"})
    wait_until(lambda: node.process.poll() is not None or "no_such_module" in node.log, "a line")
    assert "radar 1.0" in node.log and "Traceback" not in node.log


def test_the_sample_task_goes_out_as_json(
    starter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {"anysense.tasks": {"height": "brought_height:HEIGHT"}}
    code = (ROOT / "tests/plugins/height/anysense_height.py").read_text()
    site = written(tmp_path / "site", "height", entries, code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ["PYTHONPATH"]]))
    parameters = {
        "bundle": str(STEREO.with_name("heights")),
        "sensors": ["left"],
        "device": "cpu",
        "threads": 1,
        "autostart": True,
    }
    _, bench = starter(parameters, sensors=("left",), kinds={"left": "rgb"})
    heard = bench.listen(String, "height")
    bench.drive()
    wait_until(lambda: heard, "a height")
    said = json.loads(heard[0].data)
    assert 0 <= said["height"]["free_columns"] <= 1 and 0 < said["height"]["highest_m"] < 2
    assert said["frame_id"] == "camera_optical"
