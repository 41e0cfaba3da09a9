"""Training methods: what they do to terms and gradients, on a model small enough to compute by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from perception.data.base import Boxes
from perception.errors import ConfigError
from perception.models.anyfuse import AnyFuse
from perception.models.heads import specs_for
from perception.training.checkpoint import load_checkpoint
from perception.training.config import LossSpec, MethodSpec, TrainConfig
from perception.training.dataset import Batch
from perception.training.loop import Trainer
from perception.training.methods import build_method
from perception.training.methods.agm import AdaptiveGradientModulation
from perception.training.methods.distill import Distillation
from perception.training.methods.fuller import GradientCalibration
from perception.training.methods.gradients import (
    gradient_norm,
    kept_statistics,
    scale_encoder_gradients,
)
from perception.training.objectives import loss_terms
from perception.training.tasks.boxes2d import detection_distance


def _model(**options: object) -> AnyFuse:
    torch.manual_seed(0)
    fields = {"width": 0.25, "decoder_width": 32}
    tasks = specs_for(segmentation=3, boxes2d=2)
    return AnyFuse(("rgb", "thermal"), tasks, **{**fields, **options}).train()  # type: ignore[arg-type]


def _batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "rgb": torch.randn(2, 3, 64, 64, generator=generator),
        "thermal": torch.randn(2, 2, 64, 64, generator=generator),
    }
    labels = torch.randint(0, 3, (2, 64, 64), generator=generator)
    boxes = [Boxes.of(np.array([[8, 8, 40, 40]]), np.array([i])) for i in range(2)]
    return Batch(inputs, {"segmentation": labels, "boxes2d": boxes})


def _step(method, model, batch: Batch):  # type: ignore[no-untyped-def]
    output = model(batch.inputs)
    terms = loss_terms(model, output, batch, LossSpec(), {})
    model.zero_grad()
    return method.backward(terms, dict(batch.inputs), output, batch), terms


def test_encoder_gradients_are_scaled_and_shared_ones_by_the_mean() -> None:
    for shared, expected in ((False, 4.0), (True, 3.0)):
        model = _model(encoders="shared" if shared else "separate")
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        scale_encoder_gradients(model, {"rgb": 4.0, "thermal": 2.0})
        kernel = model.encoders["rgb"].stages[1][0].expand_conv.weight  # type: ignore[index,union-attr]
        assert kernel.grad.unique().tolist() == [expected]
        assert model.encoders["rgb"].stem.conv.weight.grad.unique().tolist() == [4.0]  # type: ignore[union-attr]
        late = next(model.trunk.late.parameters())
        assert late.grad is not None and late.grad.unique().tolist() == [1.0]


def test_statistics_are_kept_where_asked() -> None:
    model = _model()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    with kept_statistics(model):
        model(_batch().inputs)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    model(_batch().inputs)
    assert not all(torch.equal(model.state_dict()[k], v) for k, v in before.items())


def test_agm_holds_back_the_modality_that_is_ahead() -> None:
    method = AdaptiveGradientModulation(_model(), alpha=1.0, momentum=1e-6)
    level = method.factors({"rgb": -1.0, "thermal": -1.0})
    assert level == {"rgb": 1.0, "thermal": 1.0}  # the reference is what was seen first
    ahead = method.factors({"rgb": -0.5, "thermal": -1.5})
    assert ahead["rgb"] == pytest.approx(math.exp(-(math.e - 1)), rel=1e-4)
    assert ahead["thermal"] == pytest.approx(math.exp(1 - 1 / math.e), rel=1e-4)


def test_agm_responses_are_shapley_values() -> None:
    model, batch = _model(), _batch()
    model.eval()  # makes passes comparable
    method = AdaptiveGradientModulation(model)
    seen = {}
    method._task_loss = lambda output, _: seen.setdefault(len(seen), output) and 0.0  # type: ignore[method-assign,assignment,func-returns-value]
    method.responses(batch.inputs, batch)
    both = model(batch.inputs).values["segmentation"]
    rgb, thermal = (model({m: batch.inputs[m]}).values["segmentation"] for m in ("rgb", "thermal"))
    assert torch.allclose(seen[0].values["segmentation"], (rgb + both - thermal) / 2, atol=1e-5)
    assert torch.allclose(seen[1].values["segmentation"], (thermal + both - rgb) / 2, atol=1e-5)
    assert torch.allclose(
        seen[0].values["segmentation"] + seen[1].values["segmentation"], both, atol=1e-5
    )


def test_agm_step_scales_only_encoders_and_logs_competition() -> None:
    model, batch = _model(), _batch()
    plain = {}
    for name, alpha in (("plain", 0.0), ("agm", 3.0)):
        method = AdaptiveGradientModulation(model, alpha=alpha)
        method.state = {"reference_rgb": 0.3, "reference_thermal": 2.0}
        torch.manual_seed(0)
        with kept_statistics(model):
            _step(method, model, batch)
        plain[name] = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    ratio = {
        m: plain["agm"][f"encoders.{m}.stem.conv.weight"]
        / plain["plain"][f"encoders.{m}.stem.conv.weight"]
        for m in ("rgb", "thermal")
    }
    assert ratio["rgb"].mean() < 0.9 and ratio["thermal"].mean() > 1.1
    late = "trunk.segmentation.classify.weight"
    assert torch.allclose(plain["agm"][late], plain["plain"][late], rtol=1e-3, atol=1e-6)
    assert {"agm/competition_rgb", "agm/factor_thermal"} <= set(method.diagnostics())
    assert method.diagnostics() == {}


def test_fuller_equalizes_task_and_branch_gradients() -> None:
    model, batch = _model(), _batch()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout2d):
            module.p = 0.0  # two passes shall give the same gradients
    method = GradientCalibration(model, momentum=1.0)

    def norms() -> list[float]:
        output = model(batch.inputs)
        terms = loss_terms(model, output, batch, LossSpec(detection=3.0), {})
        weights = {t: method.state.get(f"weight_{t}") for t in ("segmentation", "boxes2d")}
        assert all(w is not None for w in weights.values())
        found = []
        for task in weights:
            grad = torch.autograd.grad(terms[task], method.shared, retain_graph=True)[0]
            found.append(float(grad.norm()))
        return found

    with kept_statistics(model):
        output = model(batch.inputs)
        terms = loss_terms(model, output, batch, LossSpec(detection=3.0), {})
        model.zero_grad()
        torch.manual_seed(0)
        method.backward(terms, dict(batch.inputs), output, batch)
    diagnostics = method.diagnostics()
    raw = norms()
    weighted = [
        n * diagnostics[f"fuller/weight_{t}"]
        for n, t in zip(raw, ("segmentation", "boxes2d"), strict=True)
    ]
    assert raw[1] / raw[0] > 2
    assert weighted[1] / weighted[0] == pytest.approx(1.0, rel=0.01)
    branches = [gradient_norm(model.encoders[m].parameters()) for m in model.modalities]
    assert branches[0] == pytest.approx(branches[1], rel=1e-3)


def test_wrong_methods_and_options_are_named() -> None:
    model = _model()
    for spec, line in (
        (MethodSpec(name="magic"), "unknown method 'magic'"),
        (MethodSpec(name="agm", options={"beta": 1}), "method 'agm'"),
        (MethodSpec(name="agm", options={"alpha": -1}), "alpha must not be negative"),
        (MethodSpec(name="fuller", options={"shared": "nowhere"}), "no part 'nowhere'"),
        (MethodSpec(name="distill"), "needs at least one run"),
    ):
        with pytest.raises(ConfigError, match=line):
            build_method(spec, model)


def test_teachers_share_pixels_by_the_truth() -> None:
    method = Distillation.__new__(Distillation)
    method.by_truth = True
    right, wrong = torch.tensor([9.0, 0.0]), torch.tensor([0.0, 9.0])
    logits = torch.stack([right, wrong])[:, None, :, None, None].expand(2, 1, 2, 4, 4)
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[:, 8:] = 1
    labels[:, :, :4] = 255
    shares = method.shares(logits, labels)
    assert torch.allclose(shares.sum(0), torch.ones(1, 4, 4))
    assert shares[0, 0, 0, 2] > 0.99 and shares[1, 0, 3, 2] > 0.99
    assert torch.allclose(shares[:, 0, :, 0], torch.full((2, 4), 0.5))


def test_detection_distance_is_least_where_the_student_equals_the_teacher() -> None:
    torch.manual_seed(0)
    teacher = {8: (torch.randn(1, 2, 4, 4), torch.rand(1, 4, 4, 4))}
    same = detection_distance(teacher, teacher)
    moved = {s: (c + 2, b + 1) for s, (c, b) in teacher.items()}
    assert same < 1e-6 < detection_distance(moved, teacher)
    with pytest.raises(ConfigError, match="different strides"):
        detection_distance({4: teacher[8]}, teacher)


def _config(simulated: Path, **changes: object) -> TrainConfig:
    fields = {
        "name": "small",
        "tasks": ["segmentation", "detection"],
        "model": {"pretrained": False, "options": {"width": 0.25, "decoder_width": 32}},
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {
            "modalities": ["rgb", "thermal"],
            "grid": {"height": 96, "width": 128},
        },
        "epochs": 2,
        "resolution": [{"crop": [64, 64], "scale": [0.8, 1.2], "batch": 4}],
        "optimizer": {"lr": 0.003, "warmup_epochs": 0, "ema_decay": 0.5},
        "full_set_probability": 1.0,
        "validate_every": 100,
        **changes,
    }
    return TrainConfig.model_validate(fields)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["agm", "fuller"])
def test_methods_train_log_and_resume(method: str, simulated: Path, tmp_path: Path) -> None:
    config = _config(simulated, method={"name": method}, epochs=2)
    straight = Trainer(config, tmp_path / "a")
    straight.shorten(4, 1)
    straight.fit()
    column = {"agm": "agm/factor_rgb", "fuller": "fuller/weight_boxes2d"}[method]
    assert all(np.isfinite(row[column]) for row in straight.log)
    first = Trainer(_config(simulated, method={"name": method}, epochs=1), tmp_path / "b")
    first.shorten(4, 1)
    first.fit()
    resumed = Trainer(config, tmp_path / "b")
    resumed.shorten(4, 1)
    resumed.resume()
    assert resumed.method.state == first.method.state != {}


@pytest.mark.slow
def test_a_thermal_student_learns_from_two_teachers(simulated: Path, tmp_path: Path) -> None:
    both = Trainer(_config(simulated, epochs=1), tmp_path / "both")
    both.shorten(4, 1)
    both.fit()
    adapnet = {"name": "adapnet++", "pretrained": False, "options": {"width": 0.125}}
    rgb = _config(
        simulated,
        epochs=1,
        model=adapnet,
        tasks=["segmentation"],
        preprocess={"modalities": ["rgb"], "grid": {"height": 96, "width": 128}},
    )
    colour = Trainer(rgb, tmp_path / "colour")
    colour.shorten(4, 1)
    colour.fit()
    options = {"teachers": [str(tmp_path / "both"), str(tmp_path / "colour")]}
    config = _config(
        simulated,
        epochs=2,
        method={"name": "distill", "options": options},
        precision="float32",
    )
    student = Trainer(config, tmp_path / "student")
    student.shorten(4, 1)
    before = load_checkpoint(tmp_path / "both").ema["trunk.segmentation.classify.weight"]
    teacher = student.method.teachers["both"]  # type: ignore[attr-defined]
    lessons = set()
    teacher.register_forward_hook(lambda *a: lessons.add(a[2].values["segmentation"].dtype))
    student.fit()
    assert lessons == {torch.float32}
    assert torch.equal(teacher.state_dict()["trunk.segmentation.classify.weight"], before)
    shares = [student.log[-1][f"distill/{n}"] for n in ("both", "colour")]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)
