"""Every model of the zoo in the perception node: with all of its sensors, and with one lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bench import HEIGHT, WIDTH, Bench, drop
from processes import NodeProcess, wait_until
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from perception.runtime.bundle import Bundle

pytestmark = pytest.mark.slow

ZOO = Path(__file__).parents[2] / "ros2_ws/.colcon/tiny/zoo"
NAMES = sorted(p.name for p in ZOO.iterdir()) if ZOO.is_dir() else []


def test_there_are_bundles_of_the_zoo() -> None:
    assert len(NAMES) >= 10, "'make test-ros' makes them"


@pytest.mark.parametrize("name", NAMES)
def test_the_node_runs_it_and_goes_on_when_a_sensor_is_lost(
    name: str, own_domain: int, tmp_path: Path
) -> None:
    path = ZOO / name / "bundle"
    manifest = Bundle.open(path).manifest
    sensors = list(manifest.modalities)
    parameters = {
        "bundle": str(path),
        "inputs": sensors,
        "device": "cpu",
        "threads": 1,
        "autostart": True,
        "sync.deadline_ms": 400.0,
        "policy.max_age_ms": 300.0,
        **{f"{m}.timeout_ms": 1500.0 for m in sensors},
    }
    node = NodeProcess("perception_node", tmp_path, own_domain, parameters)
    bench = Bench(own_domain)
    bench.alive = lambda: node.process.poll() is None
    try:
        masks = bench.listen(Image, "segmentation/mask")
        heard = [masks, *(bench.listen(Image, f"images/{i}") for i in manifest.images)]
        if manifest.tasks.boxes2d is not None:
            heard.append(bench.listen(Detection2DArray, "detections"))
        bench.drive()
        assert bench.wait_full(len(sensors)).state == 0
        wait_until(lambda: all(heard), "a message on every topic")
        assert (masks[-1].height, masks[-1].width) == (HEIGHT, WIDTH)
        known = {c.id for c in manifest.seg_classes}
        assert set(np.frombuffer(masks[-1].data, np.uint8).tolist()) <= known
        if manifest.images:
            picture = heard[1][-1]
            assert (picture.encoding, picture.height, picture.width) == ("rgb8", HEIGHT, WIDTH)
            assert len(set(bytes(picture.data))) > 10, "a picture, not a plane"
        if len(sensors) > 1:
            bench.changes[sensors[0]] = drop
            rest = sensors[1:]
            bench.wait_status(lambda s: s.used == rest, f"an output from {rest}")
            masks.clear()
            wait_until(lambda: masks, "a mask from what is left")
    finally:
        bench.close()
        status = node.stop()
    assert status == 0 and "Traceback" not in node.log, node.log
