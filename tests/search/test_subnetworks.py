"""Sub-networks are slices of the super-network, and ordinary networks once they are exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.folding import fold_batch_norm
from export.graphs import graph_specs
from export.onnx_writer import write_onnx
from export.qdq import layers_of, quantize
from perception.errors import ConfigError
from perception.models.anyfuse import AnyFuse
from perception.models.efficientnet_lite import make_stages
from perception.models.elastic import ElasticSpace, extract, sort_channels
from perception.models.heads import specs_for
from perception.models.interface import ModelOutput
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.wiring import Wiring
from perception.search.quantization import fake_quantize
from perception.search.space import SearchSpace, units_of
from perception.training.config import MethodSpec
from perception.training.dataset import Batch
from perception.training.methods import build_method
from perception.training.methods.sandwich import Sandwich


@pytest.fixture
def supernet() -> AnyFuse:
    torch.manual_seed(0)
    model = AnyFuse(("rgb", "depth"), specs_for(segmentation=5), width=0.25, decoder_width=32)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


def images(size: tuple[int, int] = (64, 96), batch: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {"rgb": torch.randn(batch, 3, *size), "depth": torch.randn(batch, 2, *size)}


def batch_of(inputs: dict[str, torch.Tensor]) -> Batch:
    return Batch(inputs, {})


@torch.no_grad()
def test_sorting_channels_changes_no_output(supernet: AnyFuse) -> None:
    inputs = images()
    before = supernet(inputs).values["segmentation"]
    weights = supernet.trunk.late[0][0].project_conv.weight.clone()
    sort_channels(supernet)
    assert torch.allclose(supernet(inputs).values["segmentation"], before, atol=1e-5)
    weights_now = supernet.trunk.late[0][0].project_conv.weight
    assert not torch.equal(weights, weights_now)
    mass = weights_now.abs().sum((0, 2, 3))
    assert (mass[:-1] >= mass[1:]).all()


@torch.no_grad()
def test_largest_subnetwork_is_the_supernetwork(supernet: AnyFuse) -> None:
    inputs = images()
    whole = extract(supernet, ElasticSpace(supernet).largest())
    assert torch.equal(
        whole(inputs).values["segmentation"], supernet(inputs).values["segmentation"]
    )


def test_gradients_of_a_slice_reach_only_the_leading_part(supernet: AnyFuse) -> None:
    method = build_method(MethodSpec(name="sandwich", options={"drawn": 0}), supernet)
    assert isinstance(method, Sandwich)
    output = method.run(method.space.smallest(), images(batch=2))
    assert output.values["segmentation"] is not None
    output.values["segmentation"].float().square().mean().backward()
    expand = supernet.encoders["rgb"].stages[1][0].expand_conv.weight
    kept = expand.shape[0] // 3
    assert expand.grad[:kept].abs().sum() > 0 and not expand.grad[kept:].any()
    dropped = [p.grad for p in supernet.encoders["rgb"].stages[4][1].parameters()]
    assert all(g is None or not g.any() for g in dropped), "a block that is not there learned"
    decoder = supernet.trunk.segmentation.lateral["8"].weight.grad
    assert decoder[:16].any() and not decoder[16:].any()


def test_a_step_along_the_gradients_brings_subnetworks_closer(supernet: AnyFuse) -> None:
    method = build_method(MethodSpec(name="sandwich"), supernet)
    assert isinstance(method, Sandwich)
    method.precision = "float32"
    inputs = images(batch=2)
    with torch.no_grad():
        largest: ModelOutput = supernet(inputs)

    def gaps() -> tuple[float, float]:
        torch.manual_seed(3)  # the same sub-network is drawn every time
        supernet.zero_grad()
        nothing = {"segmentation": torch.zeros((), requires_grad=True)}
        method.backward(nothing, inputs, largest, batch_of(inputs))
        found = method.diagnostics()
        return found["sandwich/smallest"], found["sandwich/drawn"]

    before = gaps()
    parameters = [p for p in supernet.parameters() if p.grad is not None]
    slope = sum(float(p.grad.double().square().sum()) for p in parameters)  # type: ignore[union-attr]
    # A step so short that the gaps, which it adds up, fall by what the gradients foretell: 5 %.
    with torch.no_grad():
        for parameter in parameters:
            parameter -= 0.05 * sum(before) / slope * parameter.grad  # type: ignore[operator]
    fallen = sum(before) - sum(gaps())
    assert fallen == pytest.approx(0.05 * sum(before), rel=0.2)


def test_sandwich_adds_its_gradients_to_those_of_the_truth(supernet: AnyFuse) -> None:
    inputs = images(batch=2)
    target = torch.zeros(2, 16, 24, dtype=torch.long)
    name = "trunk.segmentation.classify.weight"

    def gradient(weight: float, truth: float) -> torch.Tensor:
        method = build_method(MethodSpec(name="sandwich", options={"weight": weight}), supernet)
        method.precision = "float32"
        torch.manual_seed(3)
        supernet.zero_grad()
        output: ModelOutput = supernet(inputs)
        assert output.values["segmentation"] is not None
        loss = torch.nn.functional.cross_entropy(output.values["segmentation"], target)
        method.backward({"segmentation": truth * loss}, inputs, output, batch_of(inputs))
        found = dict(supernet.named_parameters())[name].grad
        assert found is not None and found.any()
        return found.clone()

    both = gradient(2.0, 1.0)
    alone, truth = gradient(1.0, 0.0), gradient(1e-12, 1.0)
    assert torch.allclose(both, 2 * alone + truth, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def run_exported(
    model: AnyFuse,
    inputs: dict[str, torch.Tensor],
    folder: Path,
    int8: tuple[str, ...],
    steps: dict[str, float],
) -> np.ndarray:
    wiring = Wiring.of(model.encoder_of)
    feeds: dict[str, np.ndarray] = {"presence": wiring.present(inputs)}
    for spec in graph_specs(fold_batch_norm(model), inputs):
        path = folder / spec.file
        write_onnx(spec, path, half_storage=False)
        graph = onnx.load(path)
        chosen = [layer for layer in layers_of(graph) if layer.module in int8]
        thresholds = {layer.activation: steps[layer.module] for layer in chosen}
        onnx.save(quantize(graph, thresholds, [layer.name for layer in chosen]), path)
        engine = OnnxRuntimeEngine(path, "cpu", 1)
        served = [m for m in inputs if spec.file == f"encoder_{wiring.encoders[m]}.onnx"]
        for m in served:
            feeds |= wiring.features(m, engine.run({wiring.tensor(m): inputs[m].numpy()}))
        if not served:
            feeds |= engine.run({i.name: feeds[i.name] for i in engine.inputs})
    return feeds["seg_logits"]


@torch.no_grad()
@pytest.mark.slow
def test_slices_equal_the_exported_small_model(supernet: AnyFuse, tmp_path: Path) -> None:
    inputs = images()
    space = SearchSpace(supernet)
    candidate = space.repair(tuple(0 if i % 2 else size - 1 for i, size in enumerate(space.sizes)))
    decoded = space.decode(candidate)
    method = build_method(MethodSpec(name="sandwich"), supernet)
    assert isinstance(method, Sandwich)
    method.precision = "float32"
    small = extract(supernet, decoded.architecture)
    wanted = small(inputs).values["segmentation"].numpy()
    sliced = method.run(decoded.architecture, inputs).values["segmentation"]
    assert sliced is not None
    assert np.abs(sliced.numpy() - wanted).max() < 1e-4
    found = run_exported(small, inputs, tmp_path, (), {})
    assert np.abs(found - wanted).max() < 1e-4


@torch.no_grad()
@pytest.mark.slow
def test_simulated_int8_is_what_the_exported_graphs_compute(
    supernet: AnyFuse, tmp_path: Path
) -> None:
    inputs = images()
    space = SearchSpace(supernet)
    decoded = space.decode(space.corner(large=False, int8=True))
    small = extract(supernet, decoded.architecture)
    exact = small(inputs).values["segmentation"].numpy()
    simulated = fold_batch_norm(small)
    steps = fake_quantize(simulated, decoded.int8, (simulated(inputs) and None for _ in range(1)))
    wanted = simulated(inputs).values["segmentation"].numpy()
    loss = np.sqrt(((wanted - exact) ** 2).mean())
    assert loss > 0
    found = run_exported(small, inputs, tmp_path, decoded.int8, steps)
    assert (
        np.sqrt(((found - wanted) ** 2).mean()) < 0.7 * loss
    )  # kernels round ties and sums otherwise


def test_blocks_that_are_not_there_are_in_float(supernet: AnyFuse) -> None:
    space = SearchSpace(supernet)
    genes = list(space.corner(large=False, int8=True))
    names = list(space.blocks)
    first_block = len(space.sizes) - len(names)
    gone = names.index("encoders.rgb.stages.4.2")
    assert genes[first_block + gone] == 0
    genes[first_block + gone] = 2
    assert space.repair(tuple(genes))[first_block + gone] == 0
    decoded = space.decode(space.repair(tuple(genes)))
    small = extract(supernet, decoded.architecture)
    assert set(decoded.choices) == set(units_of(small))
    convolutions = {n for n, m in small.named_modules() if isinstance(m, torch.nn.Conv2d)}
    assert set(decoded.int8) == {n for n in convolutions if not n.startswith("aux_heads")}


def test_refuses_what_is_no_supernetwork(supernet: AnyFuse) -> None:
    small = extract(supernet, ElasticSpace(supernet).smallest())
    with pytest.raises(ConfigError, match="all stages whole"):
        SearchSpace(small)
    shared = AnyFuse(
        ("rgb", "depth"), specs_for(segmentation=3), width=0.25, decoder_width=16, encoders="shared"
    )
    with pytest.raises(ConfigError, match="separate encoders"):
        build_method(MethodSpec(name="sandwich"), shared)
    with pytest.raises(ConfigError, match=r"model.options.stages.*no part 'thermal'"):
        AnyFuse(("rgb",), specs_for(segmentation=3), stages={"thermal": [[1, 1]] * 5})
    for bad in ([(1, 1)], [(2, 1)], [(1, 0)], [(1,)]):
        with pytest.raises(ConfigError, match="model.options.stages"):
            make_stages(0, 2 if bad == [(1, 1)] else 1, 8, 1.0, bad)
    with pytest.raises(ConfigError, match="no convolution 'nowhere'"):
        fake_quantize(small, ["nowhere"], [])
