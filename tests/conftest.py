"""Fixtures that several houses share: a tiny real bundle, and short simulated recordings."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

# One thread per operator: tests run on shared machines, where waiting threads cost more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What a test run measures of this machine's backends is for this run alone.
os.environ["ANYSENSE_CACHE"] = tempfile.mkdtemp(prefix="anysense-tests-")

import pytest
from distributions import written
from hypothesis import HealthCheck, settings

from perception import plugins
from perception.sensors.registry import KINDS

# Machines that run tests are busy: how long an example takes says nothing about the code.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# The same examples for the same code, so that a failure is of what was changed; others are searched for by
# `make search`.
settings.register_profile("anysense", derandomize=True, **COMMON)  # type: ignore[arg-type]
settings.register_profile("search", max_examples=200, print_blob=True, **COMMON)  # type: ignore[arg-type]
settings.load_profile("anysense")

REAL_DATA = Path(os.environ.get("ANYSENSE_DATA", Path(__file__).parents[1] / "data"))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of an untrained small AnyFuse with all modalities and both heads, really exported.

    Where torch is not installed, `ANYSENSE_TEST_BUNDLE` names one that was made before.
    """
    made = os.environ.get("ANYSENSE_TEST_BUNDLE")
    if made:
        return Path(made)
    return export_tiny_bundle(tmp_path_factory.mktemp("tiny"))


def export_tiny_bundle(
    folder: Path,
    name: str = "anyfuse",
    modalities: tuple[str, ...] = ("rgb", "depth", "thermal", "lidar"),
    single: bool = True,
    **options: object,
) -> Path:
    """Export that bundle to `folder`/bundle; also what `make_tiny_bundle.py` does for the ROS tests.

    Args:
        folder: that exists.
        name: of the model; it gets all tasks that it can do.
        modalities: that it takes.
        single: export the graph of everything in one, too.
        options: of the model, instead of those of the tiny AnyFuse.
    """
    import torch

    from export.bundle_writer import ExportOptions, export_bundle
    from perception.models.registry import MODELS
    from perception.training.building import build_from_config, describe_recording
    from perception.training.checkpoint import save_checkpoint
    from perception.training.config import TrainConfig

    torch.manual_seed(0)
    config = TrainConfig.model_validate(
        {
            "name": "tiny",
            "tasks": MODELS[name].card.heads,
            "model": {
                "name": name,
                "pretrained": False,
                "options": options or {"width": 0.25, "decoder_width": 32},
            },
            "data": {"source": "folder:unused"},
            "preprocess": {
                "modalities": list(modalities),
                "grid": {"height": 96, "width": 128},
            },
        }
    )
    info = _tiny_info()
    model = build_from_config(config, info, pretrained=False)
    for place, parameter in model.named_parameters():
        if ".score." in place and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
        if place.endswith("detection.classify.bias"):
            torch.nn.init.constant_(parameter, -1.0)
    progress = {"epoch": 0, "recording": describe_recording(info)}
    path = folder / "tiny.safetensors"
    save_checkpoint(path, config, model, dict(model.state_dict()), None, progress)
    export_bundle(path, folder / "bundle", ExportOptions(single=single))
    return folder / "bundle"


def _tiny_info():  # type: ignore[no-untyped-def]
    from perception.data.base import ClassInfo, RecordingInfo
    from perception.frame import MODALITIES
    from perception.sim.scene import DET_CLASSES, SEG_CLASSES

    assert all(isinstance(c, ClassInfo) for c in SEG_CLASSES)
    return RecordingInfo("folder", "tiny", MODALITIES, SEG_CLASSES, DET_CLASSES, simulated=True)


@pytest.fixture(scope="session")
def stereo_bundle() -> Path:
    """A trained bundle of `left` and `right`, which share an encoder, and `depth`; not to be written to."""
    return Path(__file__).parents[1] / "bundles" / "sim-stereo"


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated drive of 14 frames at 96x128 in the folder format."""
    from perception.sim.generate import make_recording

    out = tmp_path_factory.mktemp("simulated") / "drive"
    return make_recording(out, "drive", 14, 3, size=(96, 128), lidar="vlp16", progress=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; tests that want it are skipped where it is not."""
    if not (REAL_DATA / "nyuv2").is_dir():
        pytest.skip("no real recordings here; set ANYSENSE_DATA")
    return REAL_DATA


@pytest.fixture
def laser(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The kind `laser` of `laser_kind.py`, as if installed; the folder of its distribution."""
    site = written(
        tmp_path_factory.mktemp("laser"),
        "brings_laser",
        {"anysense.sensors": {"laser": "laser_kind:LASER"}},
    )
    monkeypatch.syspath_prepend(str(site))
    plugins.plugins.cache_clear()
    yield site
    plugins.plugins.cache_clear()
    KINDS._loaded.pop("laser", None)
