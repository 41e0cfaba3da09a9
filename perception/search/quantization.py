"""What int8 layers do to a network's outputs, simulated in float32.

The scheme is that of `export.qdq`: symmetric, weights with one step per output channel, activations with
one step per tensor, read off histograms of real frames; biases stay float.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from export.calibration_ranges import Histogram
from export.qdq import quantize_weights
from perception.errors import ConfigError
from perception.search.space import watched

_LEVELS = 127


def _convolutions(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Conv2d]:
    modules = dict(model.named_modules())
    found = {}
    for name in layers:
        module = modules.get(name)
        if not isinstance(module, nn.Conv2d):
            raise ConfigError(f"the network has no convolution '{name}'", where="model.int8")
        found[name] = module
    return found


@torch.no_grad()
def fake_quantize(
    model: nn.Module, layers: Sequence[str], passes: Iterable[None]
) -> dict[str, float]:
    """Let convolutions of a network, its batch normalization folded, compute as if in int8; in place.

    Args:
        model: see above.
        layers: names of the convolutions.
        passes: each step of it must run the model on frames to calibrate on.

    Returns:
        By layer, the magnitude of its input that becomes 127.

    Raises:
        ConfigError: a name is no convolution of the model.
    """
    chosen = _convolutions(model, layers)
    histograms = {name: Histogram() for name in chosen}
    with watched(chosen, lambda name, x: histograms[name].add(x.float().numpy())):
        for _ in passes:
            pass
    unseen = [name for name, h in histograms.items() if not h.counts.any() and not h.top]
    assert not unseen, f"{unseen} are not called as modules"
    thresholds = {name: h.threshold("mse") for name, h in histograms.items()}
    for name, conv in chosen.items():
        whole, steps = quantize_weights(conv.weight.detach().numpy(), axis=0)
        scale = torch.from_numpy(steps).reshape(-1, 1, 1, 1)
        conv.weight = nn.Parameter(torch.from_numpy(whole).float() * scale, requires_grad=False)
        conv.register_forward_pre_hook(_rounding(thresholds[name]))
    return thresholds


def _rounding(threshold: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    step = max(threshold, 1e-8) / _LEVELS

    def round_input(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.clamp(torch.round(args[0] / step), -_LEVELS - 1, _LEVELS) * step,)

    return round_input
