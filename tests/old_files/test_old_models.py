"""Models and runs of earlier versions: tensors' names, answers, exported graphs, and going on with a run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export.bundle_writer import model_from_checkpoint
from export.graphs import flatten_output, graph_specs
from export.onnx_writer import write_onnx
from perception.models.interface import FusionModel
from perception.models.registry import MODELS
from perception.training.checkpoint import load_checkpoint
from perception.training.loop import Trainer
from perception.training.tasks import in_todays_words

HERE = Path(__file__).parent
MODELS_FILE = HERE / "models.json"


def _sibling(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


small = _sibling(HERE.parent / "models/zoo/small.py")
training = _sibling(HERE.parent / "training/conftest.py")
record, configure = training.record, training.configure

with MODELS_FILE.open() as file:
    WANTED: dict[str, dict[str, Any]] = json.load(file)


def _model(name: str) -> FusionModel:
    """The small model of a name, every tensor drawn by its own name: construction's order is free."""
    model: FusionModel = small.small_model(name)
    state = model.state_dict()
    for key, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
        rng = np.random.default_rng(seed)
        if key.endswith("running_var"):
            values = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            fan_in = max(1, int(np.prod(tensor.shape[1:])))
            values = rng.standard_normal(tensor.shape) / fan_in**0.5
        state[key] = torch.from_numpy(np.asarray(values, np.float32))
    model.load_state_dict(state)
    return model.eval()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _graph(path: Path) -> str:
    """What a graph is but for the values of its weights, which depend on the processor's rounding."""
    graph = onnx.load(path).graph
    nodes = [(n.op_type, n.name, list(n.input), list(n.output)) for n in graph.node]
    weights = [(t.name, t.data_type, list(t.dims)) for t in graph.initializer]
    return _digest([nodes, weights, [v.name for v in (*graph.input, *graph.output)]])


@torch.no_grad()
def _answers(model: FusionModel, images: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """By output, its mean, its deviation and some of its values."""
    return {
        name: [float(x.mean()), float(x.std()), *x.flatten()[:: x.numel() // 5][:5].tolist()]
        for name, x in flatten_output(model(images)).items()
    }


def _seen(name: str, folder: Path) -> dict[str, Any]:
    model = _model(name)
    images = {m: x[:1] for m, x in small.random_inputs(model.modalities).items()}
    graphs = {}
    for spec in graph_specs(model, images):
        write_onnx(spec, folder / spec.file, half_storage=False)
        graphs[spec.file] = _graph(folder / spec.file)
    keys = [(k, list(v.shape)) for k, v in model.state_dict().items()]
    return {"keys": _digest(keys), "answers": _answers(model, images), "graphs": graphs}


def _same(found: dict[str, list[float]], wanted: dict[str, list[float]]) -> None:
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-3, abs=1e-3 * max(map(abs, values)))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WANTED))
def test_a_model_has_the_tensors_answers_and_graphs_that_it_had(name: str, tmp_path: Path) -> None:
    wanted, found = WANTED[name], _seen(name, tmp_path)
    assert found["keys"] == wanted["keys"], "checkpoints could not be read any more"
    _same(found["answers"], wanted["answers"])
    assert found["graphs"] == wanted["graphs"]


def test_every_model_is_recorded() -> None:
    assert set(MODELS) >= set(WANTED) - {"run"}


RUN = HERE / "run"
"""One epoch of two, of a segmentation and detection run."""


ADDED = ("epochs_per_minute",)
"""What logs of that version did not have."""


def _config(root: Path, configure: Callable[..., Any]) -> Any:
    stages = {part: [[1, 1]] * n for part, n in (("rgb", 5), ("depth", 5), ("late", 2))}
    options = {"width": 0.05, "decoder_width": 8, "stages": stages}
    return configure(
        root,
        tasks=["segmentation", "detection"],
        model={"pretrained": False, "options": options},
        method={"name": "fuller"},
        loss={"segmentation": 1.0, "detection": 0.5},
        precision="float32",
        epochs=2,
    )


def test_a_run_of_an_earlier_version_goes_on_as_it_would_have(
    record: Callable[..., Path],
    configure: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(1)
    record(8, classes=3, kinds=2)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RUN, "run")
    trainer = Trainer(_config(Path("recording"), configure), Path("run"))
    trainer.resume()
    trainer.fit()
    wanted = json.loads((RUN / "log.json").read_text())
    for row, before in zip(trainer.log, wanted, strict=True):
        wanted_row = {in_todays_words(key): value for key, value in before.items()}
        assert [key for key in row if key not in ADDED] == list(wanted_row)
        for key in set(wanted_row) - {"seconds"}:
            assert row[key] == pytest.approx(wanted_row[key], rel=2e-2, abs=2e-3), key


def test_a_checkpoint_of_an_earlier_version_gives_its_model() -> None:
    model = model_from_checkpoint(load_checkpoint(RUN / "last.safetensors"))
    images = {m: x[:1] for m, x in small.random_inputs(model.modalities).items()}
    _same(_answers(model, images), json.loads((RUN / "answers.json").read_text()))
