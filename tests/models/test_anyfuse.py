"""AnyFuse: any subset, gating, parameters and gradients."""

import pytest
import torch
from absent_inputs import assert_absent_change_nothing

from export.folding import fold_batch_norm
from perception.errors import ConfigError
from perception.frame import KINDS, subsets_of
from perception.models.anyfuse import AnyFuse
from perception.models.complexity import count_gmac, count_parameters
from perception.models.fusion import fuse_gated, fuse_present
from perception.models.heads import specs_for
from perception.models.registry import build_model
from perception.preprocess.contract import CHANNELS


def _images(
    modalities: tuple[str, ...], size: tuple[int, int] = (64, 96)
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {m: torch.randn(2, CHANNELS[m], *size, generator=generator) for m in modalities}  # type: ignore[index]


@pytest.fixture(scope="module")
def small() -> AnyFuse:
    torch.manual_seed(0)
    model = AnyFuse(KINDS, specs_for(segmentation=6, boxes2d=2), width=0.25, decoder_width=32)
    for encoder in model.encoders.values():
        for conv in encoder.score.values():  # type: ignore[union-attr]
            torch.nn.init.normal_(conv.weight, std=0.5)
    return model.eval()


def test_every_subset_gives_outputs_of_the_stated_shapes(small: AnyFuse) -> None:
    images = _images(KINDS)
    for subset in subsets_of(KINDS):
        output = small({m: images[m] for m in subset})
        assert output.values["segmentation"].shape == (2, 6, 16, 24)
        for stride, (logits, sides) in output.values["boxes2d"].items():
            assert logits.shape == (2, 2, 64 // stride, 96 // stride)
            assert sides.shape == (2, 4, 64 // stride, 96 // stride)
            assert (sides >= 0).all()


def test_subsets_differ_from_each_other(small: AnyFuse) -> None:
    images = _images(KINDS)
    outputs = [small({m: images[m] for m in s}).values["segmentation"] for s in subsets_of(KINDS)]
    for i, a in enumerate(outputs):
        assert all(not torch.allclose(a, b) for b in outputs[i + 1 :])


def test_absent_modalities_full_of_nan_change_nothing(small: AnyFuse) -> None:
    assert_absent_change_nothing(small, {m: x[:1] for m, x in _images(KINDS).items()}, 1e-5)


def test_fusion_is_a_convex_combination_per_pixel_and_channel() -> None:
    features = [torch.randn(1, 4, 3, 3) for _ in range(3)]
    scores = [torch.randn(1, 4, 3, 3) for _ in range(3)]
    fused = fuse_present(features, scores)
    weights = torch.softmax(torch.stack(scores), 0)
    assert torch.allclose(fused, (weights * torch.stack(features)).sum(0), atol=1e-6)


def test_gated_fusion_of_nothing_is_finite() -> None:
    nan = torch.full((1, 2, 2, 2), torch.nan)
    absent = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    assert torch.isfinite(fuse_gated([nan, nan], [nan, nan], [absent, absent])).all()


def test_every_parameter_gets_a_gradient() -> None:
    model = AnyFuse(
        ("rgb", "thermal"), specs_for(segmentation=4, boxes2d=2), width=0.25, decoder_width=32
    )
    output = model.train()(_images(("rgb", "thermal")))
    loss = output.values["segmentation"].square().mean() + sum(
        a.square().mean() for a in output.aux.values()
    )
    for logits, sides in output.values["boxes2d"].values():
        loss = loss + logits.square().mean() + sides.square().mean()
    loss.backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing


def test_shared_encoders_share_convolutions_but_not_norms() -> None:
    options = {"width": 0.25, "decoder_width": 32}
    shared = AnyFuse(("rgb", "depth"), specs_for(segmentation=4), encoders="shared", **options)  # type: ignore[arg-type]
    separate = AnyFuse(("rgb", "depth"), specs_for(segmentation=4), **options)  # type: ignore[arg-type]
    assert count_parameters(shared) < count_parameters(separate)
    block = "stages.1.0."
    rgb, depth = (dict(shared.encoders[m].named_parameters()) for m in ("rgb", "depth"))
    assert rgb[block + "expand_conv.weight"] is depth[block + "expand_conv.weight"]
    assert rgb[block + "expand_bn.weight"] is not depth[block + "expand_bn.weight"]
    assert rgb["stem.conv.weight"] is not depth["stem.conv.weight"]


def test_folding_batch_norm_keeps_the_outputs(small: AnyFuse) -> None:
    for module in small.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    folded = fold_batch_norm(small)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    images = _images(KINDS)
    with torch.no_grad():
        assert torch.allclose(
            small(images).values["segmentation"], folded(images).values["segmentation"], atol=1e-3
        )


@pytest.mark.slow
def test_default_size_meets_the_budget() -> None:
    model = AnyFuse(("rgb", "depth"), specs_for(segmentation=40), width=1.0, decoder_width=128)
    images = {m: x[:1] for m, x in _images(("rgb", "depth"), (480, 640)).items()}
    both, one = count_gmac(model, images), count_gmac(model, {"rgb": images["rgb"]})
    assert count_parameters(model) <= 10e6
    assert both <= 12.0
    assert one < both


def test_wrong_options_are_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match="unknown model"):
        build_model("nothing", ("rgb",), specs_for(segmentation=2), pretrained=False, options={})
    with pytest.raises(ConfigError, match=r"model\.options"):
        build_model(
            "anyfuse",
            ("rgb",),
            specs_for(segmentation=2),
            pretrained=False,
            options={"depth_of_field": 1},
        )
    with pytest.raises(ConfigError, match="no head"):
        AnyFuse(("rgb",), {})
    with pytest.raises(ConfigError, match="width 1.0"):
        AnyFuse(("rgb",), specs_for(segmentation=2), width=0.5, pretrained=True)
