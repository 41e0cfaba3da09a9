"""Thermal is absent by day alone: what may a model learn from that?

How much two trained models differ depends on the seed and on the CPU: benchmarks/missing_not_at_random.py
measures it. Here is why sequential fusion takes absence for daylight less: what it reads after its first
step is learned from every frame, whichever lack the second sensor.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from perception.models.heads import specs_for
from perception.models.interface import FusionModel
from perception.models.zoo.multimodn import MultiModN

SENSORS = ("rgb", "thermal")
DAY = torch.tensor([True, False, True, False])


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks/missing_not_at_random.py"
    spec = importlib.util.spec_from_file_location("missing_not_at_random", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sequential() -> MultiModN:
    torch.manual_seed(0)
    model = MultiModN(
        SENSORS, specs_for(segmentation=2), width=0.25, state=16, decoder_width=32
    ).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    return model


def _images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        m: torch.randn(4, c, 32, 32, generator=generator) for m, c in (("rgb", 3), ("thermal", 2))
    }


def _present(absent: Tensor) -> dict[str, Tensor]:
    return {"rgb": torch.ones_like(absent), "thermal": ~absent}


def _steps_gradients(absent: Tensor) -> tuple[Tensor, dict[str, Tensor | None]]:
    """The loss of the state after rgb, and its gradients."""
    model = _sequential()
    labels = DAY.long()[:, None, None].expand(-1, 32, 32)
    loss = model.losses(model(_images(), _present(absent)), {"segmentation": labels})["steps"]
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), {n: p.grad for n, p in model.named_parameters()}


def test_the_first_step_learns_the_same_whenever_the_second_sensor_is_absent() -> None:
    wanted, gradients = _steps_gradients(torch.zeros_like(DAY))
    for absent in (DAY, ~DAY, torch.ones_like(DAY)):
        loss, found = _steps_gradients(absent)
        assert torch.equal(loss, wanted)
        for name, gradient in gradients.items():
            other = found[name]
            if name.startswith(("encoders.thermal.", "updates.thermal.")):
                assert other is None or not other.any(), f"{name} learned from the step before it"
            elif gradient is None:
                assert other is None
            else:
                assert other is not None and torch.equal(other, gradient), name
    learned = [n for n, g in gradients.items() if g is not None and g.any()]
    assert any(n.startswith("encoders.rgb.") for n in learned)
    assert any(n.startswith("segmentation.") for n in learned)


def test_the_last_step_does_learn_from_which_frames_lack_it() -> None:
    """So that the test above is no matter of course."""

    def gradient(absent: Tensor) -> Tensor:
        model = _sequential()
        logits = model(_images(), _present(absent)).values["segmentation"]
        assert logits is not None
        nn.functional.cross_entropy(logits.mean((2, 3)), DAY.long()).backward()  # type: ignore[no-untyped-call]
        found = model.encoders["rgb"].stem.conv.weight.grad
        assert isinstance(found, Tensor)
        return found

    assert not torch.allclose(gradient(DAY), gradient(~DAY), rtol=0.01)


@torch.no_grad()
def test_without_its_sensor_the_last_state_is_what_the_first_step_left() -> None:
    model = _sequential()
    output = model(_images(), _present(torch.ones_like(DAY)))
    assert output.values["segmentation"] is not None
    assert torch.equal(output.values["segmentation"], output.taps["step0"])


@torch.no_grad()
def test_concatenation_has_nothing_but_the_last_answer_to_learn_from(bench: ModuleType) -> None:
    torch.manual_seed(0)
    model: FusionModel = bench.ParallelFusion(SENSORS, specs_for(segmentation=2)).train()
    output = model(_images(), _present(DAY))
    assert model.losses(output, DAY.long()[:, None, None].expand(-1, 32, 32)) == {}


def test_scenes_lack_thermal_by_day_or_at_night_and_either_sensor_tells_the_class(
    bench: ModuleType,
) -> None:
    for absent_by_day in (True, False):
        images, present, label = bench.draw(4000, absent_by_day, torch.Generator().manual_seed(0))
        absent = ~present["thermal"]
        day_class = 0 if absent_by_day else 1
        assert (label[absent] == day_class).float().mean() == pytest.approx(0.9, abs=0.03)
        assert (label[~absent] == 1 - day_class).float().mean() == pytest.approx(0.9, abs=0.03)
        for modality in SENSORS:
            told = images[modality].mean((1, 2, 3)) > 0
            assert (told == label.bool()).float().mean() == pytest.approx(0.84, abs=0.03)
