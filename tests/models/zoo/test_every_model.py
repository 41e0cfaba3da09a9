"""What every model of the registry must do: shapes, gradients, any subset, parity, learning."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from absent_inputs import assert_absent_change_nothing
from fusion_configs import EVERY
from torch.utils._pytree import tree_leaves

from export.folding import fold_batch_norm
from export.graphs import flatten_output, graph_specs
from export.onnx_writer import write_onnx
from export.parity import check_parity
from perception.data import open_recording
from perception.errors import ConfigError
from perception.frame import KINDS, subsets_of
from perception.models.complexity import count_parameters, describe_models
from perception.models.heads import specs_for
from perception.models.registry import MODELS, build_model
from perception.preprocess.contract import PreprocessContract
from perception.training.building import build_from_config
from perception.training.config import CorruptionSpec, LossSpec, ResolutionPhase, load_config
from perception.training.dataset import FusionDataset, collate
from perception.training.objectives import loss_terms, total

_spec = importlib.util.spec_from_file_location("small", Path(__file__).with_name("small.py"))
assert _spec is not None and _spec.loader is not None
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)

ROOT = Path(__file__).parents[3]
NAMES = list(small.PICTURES)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_subset_gives_outputs_of_the_stated_shapes(name: str) -> None:
    model = small.small_model(name)
    images = small.random_inputs(model.modalities)
    seen = []
    for subset in subsets_of(model.modalities):
        output = model({m: images[m] for m in subset})
        if "segmentation" in model.tasks:
            assert output.values["segmentation"].shape == (2, small.CLASSES, 16, 24)
            seen.append(output.values["segmentation"])
        for stride, (logits, sides) in output.values.get("boxes2d", {}).items():
            assert logits.shape == (2, 2, 64 // stride, 96 // stride)
            assert sides.shape == (2, 4, 64 // stride, 96 // stride)
        for image in output.values.get("pictures", {}).values():
            assert image.shape[0] == 2 and image.shape[2:] == (64, 96)
            assert image.min() >= 0 and image.max() <= 1
        assert not output.aux and not output.taps
    for i, a in enumerate(seen):
        assert all(not torch.allclose(a, b) for b in seen[i + 1 :]), "a modality changes nothing"


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_outputs_in_training_have_a_row_for_each_frame(name: str) -> None:
    """Or are numbers: what processes that train together bring together."""
    model = small.small_model(name).train()
    output = model(small.random_inputs(model.modalities, batch=3))
    tensors = tree_leaves([output.values, output.aux, output.taps])
    assert tensors and all(t.ndim == 0 or t.shape[0] == 3 for t in tensors)


@pytest.mark.parametrize("name", NAMES)
def test_absent_modalities_full_of_nan_change_nothing(name: str) -> None:
    model = small.small_model(name)
    images = {m: x[:1] for m, x in small.random_inputs(model.modalities).items()}
    assert_absent_change_nothing(model, images, 1e-4)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_samples_of_one_batch_may_have_different_modalities(name: str) -> None:
    model = small.small_model(name)
    if len(model.modalities) == 1:
        return
    images = small.random_inputs(model.modalities)
    first = model.modalities[0]
    present = {m: torch.tensor([True, m == first]) for m in model.modalities}
    together = flatten_output(model(images, present))
    full = flatten_output(model({m: x[:1] for m, x in images.items()}))
    alone = flatten_output(model({first: images[first][1:]}))
    for key, value in together.items():
        limit = 1e-4 * max(1.0, float(value.abs().max()))
        assert torch.allclose(value[:1], full[key], atol=limit)
        assert torch.allclose(value[1:], alone[key], atol=limit)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = small.small_model(name).train()
    images = small.random_inputs(model.modalities)
    labels = torch.randint(0, small.CLASSES, (2, 64, 96))
    output = model(images)
    terms = [value.float().square().mean() for value in flatten_output(output).values()]
    terms += [value.float().square().mean() for value in output.aux.values()]
    terms += list(model.losses(output, {"segmentation": labels}).values())
    torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]
    learned = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert not [n for n, p in learned if p.grad is None]
    assert not [n for n, p in learned if not torch.isfinite(p.grad).all()]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_full_size_has_the_published_number_of_parameters(name: str) -> None:
    row = describe_models({name: MODELS[name]}, classes=12, size=(64, 96))[0]
    published = row["published_parameters"]
    if published is not None:
        assert row["parameters"] / 1e6 == pytest.approx(published, rel=0.02)
    assert row["gmac"] > 0
    task = MODELS[name].card.heads[0]
    whole = MODELS[name](MODELS[name].card.reference, specs_for(**{task: 12}))
    assert row["parameters"] == count_parameters(whole)


@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_on_the_simulated_recording(name: str, simulated: Path) -> None:
    model = small.small_model(name).train()
    contract = PreprocessContract.model_validate(
        {"modalities": list(model.modalities), "grid": {"height": 96, "width": 128}}
    )
    data = FusionDataset(open_recording("folder", simulated), contract, CorruptionSpec(), 0)
    data.phase = ResolutionPhase(crop=(64, 96), scale=(0.8, 1.0))
    batch = collate([data[i] for i in range(0, 12, 3)])
    labels = batch.truths["segmentation"]
    labels[labels >= small.CLASSES] = 255
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    seen = []
    # Enough for about a half on any seed: Adam makes much of rounding, which differs between CPUs.
    for _ in range(20):
        output = model(batch.inputs)
        terms = loss_terms(model, output, batch, LossSpec(), {})
        loss = total(terms)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(sum(v.item() for k, v in terms.items() if k in model.tasks))
    assert seen[-1] < 0.85 * seen[0], seen


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_exported_graphs_equal_pytorch_for_every_subset(name: str, tmp_path: Path) -> None:
    model = fold_batch_norm(small.small_model(name))
    images = {m: x[:1] for m, x in small.random_inputs(model.modalities).items()}
    for spec in graph_specs(model, images):
        write_onnx(spec, tmp_path / spec.file, half_storage=False)
    rows = check_parity(model, tmp_path, images)  # raises above the tolerance
    assert len(rows) == len(subsets_of(model.modalities))
    weights = sum(p.numel() for p in model.parameters()) * 4
    stored = sum(p.stat().st_size for p in tmp_path.glob("*.onnx"))
    assert stored < 1.5 * weights + 3e6, "a graph stores weights that it does not use"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs/zoo").glob("*.yaml")), ids=lambda p: p.stem
)
def test_shipped_zoo_configurations_build_their_model(path: Path) -> None:
    from perception.data.base import RecordingInfo
    from perception.sim.scene import DET_CLASSES, SEG_CLASSES

    config = load_config(path)
    assert config.name == f"zoo-{path.stem}"
    info = RecordingInfo("folder", "x", KINDS, SEG_CLASSES, DET_CLASSES)
    build_from_config(config, info, pretrained=False)


def test_every_model_of_the_zoo_has_a_configuration_and_a_page() -> None:
    used = {load_config(p).model.name for p in EVERY}
    assert set(NAMES) <= used
    pages = "".join(p.read_text() for p in (ROOT / "docs/zoo").glob("*.md"))
    assert not [n for n in NAMES if n != "anyfuse" and f"`{n}`" not in pages]


def test_models_refuse_what_they_were_not_made_for() -> None:
    def build(name: str, modalities: tuple[str, ...], **classes: int) -> None:
        build_model(name, modalities, specs_for(**classes), pretrained=False, options={})

    with pytest.raises(ConfigError, match="takes 1 modalities, not 2"):
        build("adapnet++", ("rgb", "depth"), segmentation=3)
    with pytest.raises(ConfigError, match="no boxes2d head"):
        build("ssma", ("rgb", "depth"), boxes2d=2)
    with pytest.raises(ConfigError, match="unknown model"):
        build("resnet", ("rgb",), segmentation=3)
    with pytest.raises(ConfigError, match="no head"):
        build("anyfuse", ("rgb",))
