"""The perception node while a sensor shows what is far from training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench import Bench
from diagnostic_msgs.msg import DiagnosticStatus
from starting import UNHEARD, quick, running

from perception.frame import KINDS, Sample
from perception.runtime.bundle import Bundle, write_bundle
from perception.runtime.manifest import check_manifest
from perception.runtime.pipeline import Pipeline

pytestmark = pytest.mark.slow


def _far(bundle: Path, folder: Path) -> Path:
    """A copy that takes whatever rgb shows for far from training."""
    copy = folder / "far"
    shutil.copytree(bundle, copy)
    (copy / "records.yaml").unlink(missing_ok=True)
    pipeline = Pipeline.load(bundle, "onnxruntime-cpu", threads=1)
    picture = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    encoded = pipeline.encode(Sample("rgb", picture, stamp_ns=0), trust=True)
    name, feature = next(iter(encoded.features.items()))  # type: ignore[union-attr]
    channels = feature.shape[1]
    own = {name: {"mean": [1e6] * channels, "std": [1.0] * channels}}
    old = Bundle.open(bundle).manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    novelty = {"rgb": {"features": own, "limit": 10.0}}
    write_bundle(copy, check_manifest({**old, "novelty": novelty}, "far"))
    return copy


@pytest.fixture(scope="module")
def bench(domain: int, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("novelty")
    parameters = quick(KINDS, inputs=list(KINDS), bundle=str(_far(bundle, folder)))
    # Depth never was far.
    unheard = (*UNHEARD, "unexpected", "depth: near to training")
    with running(folder, domain, parameters, unheard=unheard) as bench:
        bench.drive()
        bench.wait_full()
        yield bench


def test_a_sensor_far_from_training_is_warned_of_and_used(bench: Bench) -> None:
    status = bench.wait_status(
        lambda s: "rgb" in s.used and any("rgb: shows what is far" in line for line in s.warnings),
        "a warning of rgb",
    )
    rgb = next(s for s in status.sensors if s.name == "rgb")
    assert rgb.used and rgb.health == "ok"
    assert not any("depth: shows" in line for line in status.warnings)
    found = bench.wait_diagnostic(
        "rgb",
        lambda s: s.level == DiagnosticStatus.WARN and "far from training" in s.message,
        "far",
    )
    assert float({v.key: v.value for v in found.values}["novelty"]) > 1
    bench.wait_diagnostic("depth", lambda s: s.level == DiagnosticStatus.OK, "depth is well")
    bench.wait_diagnostic(
        "output",
        lambda s: (
            s.level == DiagnosticStatus.OK
            and any(v.key == "unfamiliar_rgb" and int(v.value) > 2 for v in s.values)
        ),
        "a counter",
    )
    assert bench.set_parameter("policy.novelty_derating", 0.0).successful
    assert not bench.set_parameter("policy.novelty_derating", 11.0).successful
