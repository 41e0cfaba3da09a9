"""The backbone against the published layer sizes and weights."""

import pytest
import torch

from perception.models.efficientnet_lite import (
    STAGES,
    SamePadConv,
    Stem,
    adapt_stem,
    imagenet_state_dict,
    make_stages,
    scale_channels,
)


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
