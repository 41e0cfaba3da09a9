"""The encoder blocks: shapes, reach, and export with parity."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from export.graphs import GraphSpec
from export.onnx_writer import write_onnx
from perception.errors import ConfigError
from perception.models.complexity import count_parameters
from perception.models.zoo.encoder_blocks import BLOCKS, make_block

KINDS = [k for k in BLOCKS if k != "none"]


def _reach(kind: str, size: int = 24) -> int:
    """Furthest pixel that changes the middle one."""
    torch.manual_seed(0)
    x = torch.randn(1, 32, size, size, requires_grad=True)
    make_block(kind, 32).eval()(x)[0, :, size // 2, size // 2].square().sum().backward()
    assert x.grad is not None
    return int((x.grad[0].abs().sum(0).nonzero() - size // 2).abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [24, 40, 112])
def test_blocks_keep_the_shape_and_every_weight_learns(kind: str, channels: int) -> None:
    block = make_block(kind, channels)
    y = block(torch.randn(2, channels, 6, 10))
    assert y.shape == (2, channels, 6, 10)
    y.square().mean().backward()
    assert all(p.grad is not None for p in block.parameters())


def test_blocks_see_as_far_as_they_say() -> None:
    assert _reach("lka") == 2 + 9  # 5x5, then 7x7 at dilation 3
    assert _reach("hilo") == _reach("glmix") == 12  # the whole map


def test_subspace_attention_has_almost_no_weights() -> None:
    assert count_parameters(make_block("ulsam", 112)) < 500
    assert count_parameters(make_block("lka", 112)) > 30_000


def test_unknown_blocks_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown block 'mamba'"):
        make_block("mamba", 32)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_exported_blocks_equal_pytorch(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    block = make_block(kind, 40).eval()
    x = torch.randn(1, 40, 10, 14)
    write_onnx(GraphSpec("b.onnx", block, {"x": x}, ["y"]), tmp_path / "b.onnx", half_storage=False)
    got = ort.InferenceSession(tmp_path / "b.onnx").run(None, {"x": x.numpy()})[0]
    with torch.no_grad():
        assert np.abs(got - block(x).numpy()).max() < 1e-4


def test_the_pareto_script_names_who_loses_to_whom() -> None:
    path = Path(__file__).parents[3] / "benchmarks/encoder_blocks.py"
    spec = importlib.util.spec_from_file_location("encoder_blocks_bench", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = [{"block": b, "ms": ms} for b, ms in (("none", 0.0), ("lka", 2.0), ("hilo", 3.0))]
    module.mark_losers(rows, {"none": 0.30, "lka": 0.35, "hilo": 0.33})
    assert [r["loses_to"] for r in rows] == [None, None, "lka"]
