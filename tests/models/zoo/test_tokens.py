"""The token transformers: places, gating, masking, and that pre-training learns and is taken over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perception.errors import ConfigError
from perception.models.complexity import count_parameters
from perception.models.heads import specs_for
from perception.models.zoo.attention import SelfAttention, TransformerBlock
from perception.models.zoo.multimae import MultiMAE, patches_of, share_out
from perception.models.zoo.tokens import SIZES, SharedTokens, position_map
from perception.training.config import TrainConfig
from perception.training.loop import Trainer
from perception.training.pretrain import Pretrainer


def test_every_place_has_a_different_position() -> None:
    places = position_map(32, 5, 7, torch.zeros(1)).flatten(2)[0].T
    assert places.shape == (35, 32)
    distance = torch.cdist(places, places) + torch.eye(35) * 9
    assert distance.min() > 0.1


def test_written_out_attention_equals_the_library_s() -> None:
    torch.manual_seed(0)
    own = SelfAttention(32, 4).eval()
    library = torch.nn.MultiheadAttention(32, 4, batch_first=True).eval()
    library.in_proj_weight.data = own.query_key_value.weight.data
    library.in_proj_bias.data = own.query_key_value.bias.data
    library.out_proj.load_state_dict(own.project.state_dict())
    x = torch.randn(2, 6, 32)
    there = torch.tensor([[True] * 6, [True, True, False, True, False, False]])
    wanted = library(x, x, x, key_padding_mask=~there, need_weights=False)[0]
    assert torch.allclose(own(x, there[:, None, None, :]), wanted, atol=1e-5)


@pytest.mark.parametrize(("size", "millions"), [("tiny", 5.3), ("small", 21.3), ("base", 85.1)])
def test_transformers_have_the_vision_transformer_s_size(size: str, millions: float) -> None:
    channels, depth, heads = SIZES[size]
    with torch.device("meta"):
        block = TransformerBlock(channels, heads)
    assert depth * count_parameters(block) / 1e6 == pytest.approx(millions, rel=0.01)


def test_one_transformer_serves_all_modalities() -> None:
    sizes = [
        count_parameters(SharedTokens(m, specs_for(segmentation=3), size="micro"))
        for m in (("rgb",), ("rgb", "depth", "thermal", "lidar"))
    ]
    assert sizes[1] < 1.5 * sizes[0]
    with pytest.raises(ConfigError, match="unknown size"):
        SharedTokens(("rgb",), specs_for(segmentation=3), size="huge")


def test_visible_tokens_are_shared_out_and_none_is_lost() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = {"rgb": 20, "depth": 20, "thermal": 20}
    seen = []
    for _ in range(200):
        shares = torch._sample_dirichlet(torch.ones(3), generator)
        counts = share_out(tokens, 30, shares)
        assert sum(counts.values()) == 30
        assert all(0 <= counts[m] <= 20 for m in tokens)
        seen.append(counts["rgb"])
    assert min(seen) <= 1 and max(seen) == 20 and 8 < np.mean(seen) < 12


def test_patches_hold_the_pixels_of_their_place() -> None:
    image = torch.zeros(1, 2, 32, 48)
    image[0, 1, 16:, 32:] = 7.0
    patches = patches_of(image)
    assert patches.shape == (1, 6, 512)
    assert (patches[0, 5, 256:] == 7).all() and patches.sum() == 7 * 256


def test_masked_training_learns_to_rebuild() -> None:
    torch.manual_seed(0)
    model = MultiMAE(
        ("rgb", "depth"), specs_for(segmentation=3), size="micro", pretraining=True
    ).train()
    rows = torch.linspace(-1, 1, 64)[None, None, :, None].expand(4, 1, 64, 64)
    shift = torch.randn(4, 1, 1, 1)
    scene = (6 * (rows + shift)).sin()
    inputs = {"rgb": scene.expand(-1, 3, -1, -1), "depth": scene.expand(-1, 2, -1, -1)}
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    seen = []
    for _ in range(40):
        # The same tokens are hidden every time: what is drawn changes the loss more than a step does.
        loss = model.reconstruction_loss(inputs, torch.Generator().manual_seed(0))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.7 * seen[0]
    untouched = [n for n, p in model.named_parameters() if p.grad is None]
    assert untouched and all(n.startswith("decoder.") for n in untouched)


def _config(simulated: Path, **model: object) -> TrainConfig:
    spec = {"name": "multimae", "pretrained": False, "options": {"size": "micro"}, **model}
    return TrainConfig.model_validate(
        {
            "name": "mae",
            "tasks": ["segmentation"],
            "model": spec,
            "data": {"source": f"folder:{simulated}"},
            "preprocess": {
                "modalities": ["rgb", "depth"],
                "grid": {"height": 96, "width": 128},
            },
            "epochs": 1,
            "resolution": [{"crop": [64, 64], "scale": [0.8, 1.2], "batch": 4}],
            "optimizer": {"lr": 0.002, "warmup_epochs": 0, "ema_decay": 0.5},
            "validate_every": 1,
        }
    )


@pytest.mark.slow
def test_a_pretrained_run_starts_another(simulated: Path, tmp_path: Path) -> None:
    first = Pretrainer(_config(simulated), tmp_path / "pre")
    first.shorten(4, 2)
    first.fit()
    assert first.log[-1]["reconstruction"] > 0
    second = Trainer(_config(simulated, start_from=[str(tmp_path / "pre")]), tmp_path / "fine")
    second.shorten(4, 1)
    start = {}
    run_epoch = second._run_epoch

    def watched():  # type: ignore[no-untyped-def]
        start.update({k: v.clone() for k, v in second.model.state_dict().items()})
        return run_epoch()

    second._run_epoch = watched  # type: ignore[method-assign]
    second.fit()
    weights = "transformer.blocks.0.attention.project.weight"
    assert torch.equal(start[weights], first.average.state[weights])
    with pytest.raises(ConfigError, match="cannot be pre-trained: anyfuse"):
        Pretrainer(_config(simulated, name="anyfuse", options={"width": 0.25}), tmp_path / "x")
