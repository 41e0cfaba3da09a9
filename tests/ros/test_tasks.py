"""Tasks of another distribution in the node: as JSON, by a publisher of their own, and one that fails."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import wait_until
from sensor_msgs.msg import Image
from std_msgs.msg import Float32, String

from perception.runtime.bundle import Bundle

NAMES = ("share", "own", "bad", "none", "taken")
PLUGIN = """
from perception.tasks.spec import TaskSpec
from perception.tasks.task import Task


class ShareSpec(TaskSpec):
    of: int = 0


def decode(tensors, ctx):
    return float((ctx.values["segmentation"].labels == ctx.spec.of).mean())


def task(name, publisher=None):
    return Task(
        name=name,
        spec=ShareSpec,
        forms=lambda spec, grid: ({},),
        decode=decode,
        after=("segmentation",),
        to_dict=lambda value, spec: {name: value, "of": spec.of},
        publisher=publisher,
    )


SHARE = task("share")
OWN = task("own", "brought_share.publisher:Own")
BAD = task("bad", "brought_share.publisher:Bad")
NONE = task("none", "brought_share.no_such:Own")
TAKEN = task("taken", "brought_share.publisher:Taken")
"""
PUBLISHER = """
from std_msgs.msg import Float32

from anysense_ros.publishing import TaskPublisher


class Own(TaskPublisher):
    @property
    def topics(self):
        return {"own/share": Float32}

    def publish(self, value, out):
        if value is not None and out.heard("own/share"):
            out.send("own/share", Float32(data=value))


class Taken(TaskPublisher):
    @property
    def topics(self):
        return {"overlay": Float32}


class Bad(TaskPublisher):
    def publish(self, value, out):
        if value is not None:
            raise RuntimeError("no share today")
"""


Named = Callable[[dict[str, Any]], Path]


@pytest.fixture
def named(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Named:
    """With the distribution on the nodes' path, makes bundles that name some of its tasks."""
    site = tmp_path / "site"
    info = site / "brings_share-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-share\nVersion: 1.0\n")
    entries = [f"{n} = brought_share:{n.upper()}" for n in NAMES]
    (info / "entry_points.txt").write_text("\n".join(["[anysense.tasks]", *entries, ""]))
    (site / "brought_share").mkdir()
    (site / "brought_share" / "__init__.py").write_text(PLUGIN)
    (site / "brought_share" / "publisher.py").write_text(PUBLISHER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ["PYTHONPATH"]]))

    def make(tasks: dict[str, Any]) -> Path:
        out = tmp_path / "named"
        shutil.copytree(bundle, out)
        (out / "records.yaml").unlink(missing_ok=True)
        manifest = Bundle.open(bundle, verify=False).manifest
        content = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
        content["tasks"] |= tasks
        (out / "bundle.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return out

    return make


def test_each_goes_out_as_it_says_and_none_stops_the_others(starter: Any, named: Named) -> None:
    parameters = {
        "bundle": str(named({"share": {"of": 1}, "own": {}, "bad": {}})),
        "device": "cpu",
        "threads": 1,
        "autostart": True,
        "sync.deadline_ms": 400.0,
    }
    node, bench = starter(parameters)
    bad = bench.listen(String, "bad")
    shares = bench.listen(String, "share")
    own = bench.listen(Float32, "own/share")
    bench.drive()
    bench.wait_full(1)
    wait_until(lambda: shares and own, "a message on either topic")
    masks = bench.listen(Image, "segmentation/mask")
    wait_until(lambda: masks, "a mask")

    def both() -> tuple[dict[str, Any], Any] | None:
        for said in [json.loads(message.data) for message in shares]:
            for mask in masks:
                stamp = mask.header.stamp.sec * 10**9 + mask.header.stamp.nanosec
                if stamp == said["stamp_ns"]:
                    return said, mask
        return None

    said, mask = wait_until(both, "a mask and a share of one stamp")
    labels = np.frombuffer(bytes(mask.data), np.uint8)
    assert said["of"] == 1 and said["frame_id"] == mask.header.frame_id
    assert said["share"] == pytest.approx((labels == 1).mean(), abs=1e-6)
    assert not bad
    assert "no share today" in node.log and "of brings-share 1.0" in node.log
    bench.wait_status(lambda s: len(s.used) > 0, "outputs that go on")


@pytest.mark.parametrize(
    ("task", "said"),
    [("none", "brought_share.no_such"), ("taken", "topic ~/overlay is another's")],
)
def test_a_publisher_that_cannot_be_is_one_line(
    starter: Any, named: Named, task: str, said: str
) -> None:
    node, _ = starter({"bundle": str(named({task: {}})), "device": "cpu", "autostart": True})
    line = f"task '{task}' of brings-share 1.0: "
    wait_until(lambda: line in node.log, "the line")
    assert said in node.log and node.process.poll() is None
