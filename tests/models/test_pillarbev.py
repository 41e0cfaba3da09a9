"""PillarBEV: any subset of points and pictures on the ground, absent ones full of NaN, graphs that agree."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from absent_inputs import assert_absent_change_nothing
from ground_scenes import CLASSES, GROUND, Scenes, contract
from torch import nn
from torch.utils._pytree import tree_map

from export.bundle_writer import random_images
from export.folding import fold_batch_norm
from export.graphs import flatten_output, graph_specs
from export.onnx_writer import write_onnx
from export.parity import TOLERANCE, check_parity
from perception.errors import ConfigError
from perception.frame import subsets_of
from perception.geometry.lifting import TABLE_STRIDE
from perception.models.complexity import count_gmac, count_parameters, describe_models
from perception.models.heads import specs_for
from perception.models.pillarbev import PillarBEV
from perception.models.registry import build_model
from perception.preprocess.contract import PreprocessContract
from perception.training.config import CorruptionSpec
from perception.training.dataset import FusionDataset, collate, network_inputs

OUTPUTS = {"boxes3d_heatmap": (len(CLASSES), 32, 32), "boxes3d_fields": (10, 32, 32)}


def small(inputs: PreprocessContract | None = None) -> PillarBEV:
    """A small model whose weights are far from any symmetric start."""
    torch.manual_seed(0)
    model = PillarBEV(inputs or contract(), specs_for(boxes3d=len(CLASSES)), width=24, camera=0.5)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    for weight in model.mix.weight.values():
        nn.init.normal_(weight)
    return model.eval()


def seen(rules: PreprocessContract, count: int = 1, seed: int = 0) -> dict[str, Any]:
    """What networks get of made-up scenes."""
    data = FusionDataset(Scenes(count, seed), rules, CorruptionSpec(), 0, [])
    return collate([(network_inputs(data.raw(i), rules), {}) for i in range(count)]).inputs


@torch.no_grad()
def test_every_subset_answers_in_the_stated_shapes_and_each_input_matters() -> None:
    model, inputs = small(), seen(contract(), 2)
    answers = []
    for subset in subsets_of(model.modalities):
        found = flatten_output(model({n: inputs[n] for n in subset}))
        assert {n: tuple(x.shape[1:]) for n, x in found.items()} == OUTPUTS
        answers.append(found["boxes3d_heatmap"])
    for i, one in enumerate(answers):
        assert all(not torch.allclose(one, other) for other in answers[i + 1 :])


def test_absent_inputs_full_of_nan_change_nothing() -> None:
    assert_absent_change_nothing(small(), seen(contract()), 1e-5)


@torch.no_grad()
def test_samples_of_one_batch_may_have_different_inputs() -> None:
    model, inputs = small(), seen(contract(), 2)
    present = {m: torch.tensor([True, m == "lidar"]) for m in model.modalities}
    together = flatten_output(model(inputs, present))
    full = flatten_output(model(tree_map(lambda x: x[:1], inputs)))
    alone = flatten_output(model({"lidar": tree_map(lambda x: x[1:], inputs["lidar"])}))
    for name, value in together.items():
        assert torch.allclose(value[:1], full[name], atol=1e-4)
        assert torch.allclose(value[1:], alone[name], atol=1e-4)


@torch.no_grad()
def test_a_pillar_lies_where_its_cell_is_and_padding_says_nothing() -> None:
    model = small(contract("lidar"))
    encoder = model.encoders["lidar"]
    given = seen(model.inputs)["lidar"]
    before = encoder(given)["bev"]
    assert before.shape == (1, 24, 32, 32) and (encoder(given)["seen"] == 1).all()
    # The order of pillars is nothing, and what stands in unused ones is nothing either.
    order = torch.randperm(given["cells"].shape[1])
    mixed = {n: x[:, order] for n, x in given.items()}
    assert torch.allclose(encoder(mixed)["bev"], before, atol=1e-6)
    padded = given["pillars"].clone()
    padded[given["pillars"][..., -1:].expand_as(padded) == 0] = 0
    assert torch.equal(padded, given["pillars"])
    unused = given["cells"] == 64 * 64
    assert unused.any()
    padded[unused] = 7.0
    assert torch.allclose(encoder({**given, "pillars": padded})["bev"], before, atol=1e-6)
    # One pillar alone changes the map about its cell only: the convolutions reach two cells of the output.
    one = {"pillars": given["pillars"].clone(), "cells": torch.full_like(given["cells"], 64 * 64)}
    nothing = encoder(one)["bev"]
    one["cells"][0, 0] = 20 * 64 + 41
    changed = (encoder(one)["bev"] != nothing).any(1)[0].nonzero()
    assert len(changed) and (changed - torch.tensor([10, 20])).abs().max() <= 2


@torch.no_grad()
def test_a_camera_says_something_of_the_cells_it_sees_only() -> None:
    model = small(contract("cam_front"))
    given = seen(model.inputs)["cam_front"]
    found = model.encoders["camera"](given)
    places = (64 // TABLE_STRIDE) * (96 // TABLE_STRIDE)
    table = given["table"]
    assert 0.05 < (table < places).float().mean() < 0.5
    for row, column in ((2, 16), (30, 16)):
        corner = table[0, 0, 2 * row, 2 * column] < places
        assert (
            found["seen"][0, 0, row, column] == corner.float()
        )  # behind the camera, and before it
    other = {**given, "image": torch.randn_like(given["image"])}
    before = model({"cam_front": given}).values["boxes3d"]["heatmap"]
    after = model({"cam_front": other}).values["boxes3d"]["heatmap"]
    away = (before - after).abs().amax((0, 1))
    assert away[24:, 16].max() > 10 * away[:4].max()


@torch.no_grad()
def test_the_sum_weighs_those_that_are_there_and_see() -> None:
    model = small()
    maps = {n: torch.full((1, 24, 32, 32), float(i + 1)) for i, n in enumerate(model.modalities)}
    ones = torch.ones(1, 1, 32, 32)
    given = {n: {"bev": x, "seen": ones} for n, x in maps.items()}
    given["cam_left"]["seen"] = torch.zeros_like(ones)
    found = model.mix(given, model.encoder_of, None)
    weight = {e: w.exp().reshape(-1) for e, w in model.mix.weight.items()}
    order = list(model.modalities)
    used = [n for n in order if n != "cam_left"]
    each = torch.stack([weight[model.encoder_of[n]] for n in used])
    values = torch.tensor([float(order.index(n) + 1) for n in used])[:, None]
    wanted = (each * values).sum(0) / each.sum(0)
    assert torch.allclose(found[0, :24, 3, 3], wanted)
    assert (found[0, 24:] == 1).all()
    nobody = model.mix({"cam_left": given["cam_left"]}, model.encoder_of, None)
    assert not nobody.any()


def test_every_parameter_gets_a_gradient() -> None:
    model, inputs = small().train(), seen(contract(), 2)
    output = model(inputs)
    torch.stack([v.square().mean() for v in flatten_output(output).values()]).sum().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@torch.no_grad()
def test_graphs_are_of_standard_operators_and_agree_for_every_judged_subset(tmp_path: Path) -> None:
    model = fold_batch_norm(small())
    images = random_images(contract())
    assert {n: set(x) for n, x in images.items()}["lidar"] == {"pillars", "cells"}
    operators = set()
    for spec in graph_specs(model, images):
        write_onnx(spec, tmp_path / spec.file)
        graph = onnx.load(tmp_path / spec.file).graph
        operators |= {node.op_type for node in graph.node}
        assert not {v.name for v in graph.output} & {t.name for t in graph.initializer}
    assert {"ScatterND", "Gather", "Where"} <= operators and not {"If", "Loop"} & operators
    assert len(list(tmp_path.glob("*.onnx"))) == 3  # four cameras have one encoder
    rows = check_parity(model, tmp_path, images)  # type: ignore[arg-type]
    assert len(rows) == len(subsets_of(contract().names)) == 11
    assert max(r.max_abs for r in rows) < TOLERANCE


@torch.no_grad()
def test_the_same_bytes_give_the_same_answers() -> None:
    model = small()
    first, second = (flatten_output(model(seen(contract(), 1, seed=5))) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_model_without_a_grid_on_the_ground_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="grid on the ground") as told:
        build_model(
            "pillarbev", ("rgb", "lidar"), specs_for(boxes3d=2), pretrained=False, options={}
        )
    assert "\n" not in str(told.value) and "view.birdseye" in str(told.value)
    with pytest.raises(ConfigError, match="no boxes3d head"):
        build_model("anyfuse", ("rgb",), specs_for(boxes3d=2), pretrained=False, options={})
    with pytest.raises(ConfigError, match="no segmentation head"):
        build_model(
            "pillarbev", contract(), specs_for(segmentation=2), pretrained=False, options={}
        )


def test_cost_and_names_of_tensors_stay_as_they_are() -> None:
    model = small()
    state = model.state_dict()
    text = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "9100a71233462a78"
    row = describe_models({"pillarbev": PillarBEV}, classes=3, size=(192, 320))[0]
    assert 0.9e6 < row["parameters"] < 1.4e6 and row["gmac"] > 1
    images = random_images(contract())
    alone = count_gmac(model, {"lidar": images["lidar"]})
    assert alone < count_gmac(model, images)
    apart = small(contract("cam_front", "lidar"))
    assert count_parameters(apart) == count_parameters(model)  # however many cameras there are


def test_a_depth_camera_stands_in_for_a_lidar() -> None:
    rules = PreprocessContract.model_validate(
        {
            "depth": {"kind": "depth", "view": {"height": 64, "width": 96, "birdseye": GROUND}},
            "rgb": {"kind": "rgb", "view": {"height": 64, "width": 96, "birdseye": GROUND}},
        }
    )
    model = small(rules)
    given = random_images(rules)
    assert set(given["depth"]) == {"pillars", "cells"} and given["depth"]["pillars"].any()
    found = flatten_output(model({"depth": given["depth"]}))
    assert all(np.isfinite(x.detach().numpy()).all() for x in found.values())
