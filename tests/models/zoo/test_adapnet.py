"""AdapNet++ and SSMA: the publication's numbers, and stages of training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from perception.errors import ConfigError, DataError
from perception.models.complexity import count_parameters
from perception.models.heads import specs_for
from perception.models.zoo.adapnet import AdapNet, EfficientASPP, PlainASPP
from perception.models.zoo.ssma import SSMA
from perception.training.checkpoint import load_checkpoint
from perception.training.config import FreezeSpec, TrainConfig
from perception.training.loop import Trainer
from perception.training.starting import freeze, start_from


def _three_by_three(module: torch.nn.Module) -> int:
    """Parameters of the dilated branches: the part in which the two pyramids differ."""
    return count_parameters(module.dilated)  # type: ignore[arg-type]


def test_efficient_aspp_has_a_tenth_of_the_dilated_branches_parameters() -> None:
    plain, efficient = PlainASPP(2048, 256), EfficientASPP(2048, 256)
    assert _three_by_three(plain) == 3 * (2048 * 256 * 9 + 512)
    assert _three_by_three(plain) / _three_by_three(efficient) > 10
    assert count_parameters(plain) / count_parameters(efficient) > 7  # the 1x1 parts are equal
    x = torch.randn(1, 2048, 4, 6)
    assert efficient.eval()(x).shape == plain.eval()(x).shape == (1, 256, 4, 6)


def test_efficient_aspp_sees_as_far_as_two_dilated_convolutions_reach() -> None:
    torch.manual_seed(0)
    branch = EfficientASPP(16, 32).eval().dilated[1]  # rate 6: two steps of 6 pixels
    x = torch.zeros(1, 16, 41, 41, requires_grad=True)
    branch(x + torch.randn_like(x))[0, :, 20, 20].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(0).nonzero()
    assert (reached - 20).abs().max() == 12


def test_decoder_losses_have_the_published_weights() -> None:
    model = AdapNet(("rgb",), specs_for(segmentation=4), width=0.125).train()
    labels = torch.randint(0, 4, (2, 64, 64))
    for head in model.aux_heads.values():
        torch.nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        torch.nn.init.zeros_(head.bias)  # type: ignore[arg-type]
    losses = model.losses(model({"rgb": torch.randn(2, 3, 64, 64)}), {"segmentation": labels})
    chance = float(torch.tensor(4.0).log())
    assert losses["aux_fine"].item() == pytest.approx(0.6 * chance, rel=1e-4)
    assert losses["aux_coarse"].item() == pytest.approx(0.5 * chance, rel=1e-4)


def test_ssma_takes_two_or_more_modalities_and_grows_by_an_expert() -> None:
    sizes = []
    for modalities in (("rgb", "depth"), ("rgb", "depth", "thermal")):
        model = SSMA(modalities, specs_for(segmentation=4), width=0.125)
        images = {m: torch.randn(1, 3 if m == "rgb" else 2, 64, 64) for m in modalities}
        assert model.eval()(images).values["segmentation"].shape == (1, 4, 16, 16)
        sizes.append(count_parameters(model))
    expert = count_parameters(model.encoders["thermal"])
    assert expert < sizes[1] - sizes[0] < 1.1 * expert
    with pytest.raises(ConfigError, match="takes 2 or more modalities, not 1"):
        SSMA(("rgb",), specs_for(segmentation=4))


def _config(simulated: Path, name: str, kind: str, modalities: list[str], **changes: object):  # type: ignore[no-untyped-def]
    spec = {"name": kind, "pretrained": False, "options": {"width": 0.125}}
    spec |= changes.pop("model", {})  # type: ignore[arg-type]
    fields = {
        "name": name,
        "tasks": ["segmentation"],
        "model": spec,
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {"modalities": modalities, "grid": {"height": 96, "width": 128}},
        "epochs": 2,
        "resolution": [{"crop": [64, 64], "scale": [0.8, 1.2], "batch": 4}],
        "optimizer": {"lr": 0.003, "warmup_epochs": 0, "ema_decay": 0.5},
        "full_set_probability": 1.0,
        "validate_every": 100,
        **changes,
    }
    return TrainConfig.model_validate(fields)


@pytest.mark.slow
def test_experts_are_taken_over_and_stay_frozen_in_the_first_stage(
    simulated: Path, tmp_path: Path
) -> None:
    for modality in ("rgb", "depth"):
        expert = _config(simulated, modality, "adapnet++", [modality], epochs=1)
        trainer = Trainer(expert, tmp_path / modality)
        trainer.shorten(4, 1)
        trainer.fit()
    stages = {
        "start_from": [str(tmp_path / "rgb"), str(tmp_path / "depth")],
        "freeze": [{"parts": ["encoders"], "epochs": 1}],
    }
    config = _config(simulated, "ssma", "ssma", ["rgb", "depth"], model=stages, epochs=2)
    trainer = Trainer(config, tmp_path / "ssma")
    trainer.shorten(4, 1)
    names = ("encoders.rgb.stage1.0.expand.weight", "encoders.depth.entry.running_mean")
    given = [load_checkpoint(tmp_path / n.split(".")[1]).ema[n] for n in names]
    after = []
    run_epoch = trainer._run_epoch

    def watched():  # type: ignore[no-untyped-def]
        row = run_epoch()
        after.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return row

    trainer._run_epoch = watched  # type: ignore[method-assign]
    trainer.fit()
    for name, value in zip(names, given, strict=True):
        assert torch.equal(after[0][name], value), "the frozen stage changed an expert"
        assert not torch.equal(after[1][name], value), "the second stage did not"
    fused = "fusion.context.project.weight"
    assert not torch.equal(after[0][fused], after[1][fused])


def test_starting_and_freezing_name_what_does_not_fit(tmp_path: Path) -> None:
    model = AdapNet(("rgb",), specs_for(segmentation=4), width=0.125)
    with pytest.raises(ConfigError, match="no part 'encoder'"):
        freeze(model, [FreezeSpec(parts=["encoder"], epochs=1)], 0)
    with pytest.raises(ConfigError, match="everything is frozen"):
        freeze(model, [FreezeSpec(parts=["encoders", "decoder", "aux_heads"], epochs=1)], 0)
    assert freeze(model, [FreezeSpec(parts=["encoders"], epochs=2)], 2) == []
    with pytest.raises(DataError, match="no such checkpoint"):
        start_from(model, [str(tmp_path / "none")])
