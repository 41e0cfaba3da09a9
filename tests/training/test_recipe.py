"""Options of the recipe: shares and weights of subsets, gentle phases, skipped blocks, averages, tags."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from export.bundle_writer import ExportOptions, export_bundle
from perception.errors import ConfigError
from perception.frame import subset_name, subsets_of
from perception.training.checkpoint import load_checkpoint
from perception.training.config import SubsetSpec, TrainConfig, load_config
from perception.training.loop import Trainer
from perception.training.optimizing import learning_rate
from perception.training.schedule import average_decay, draw_subset
from perception.training.tasks.segmentation import lovasz_loss

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]


def _drawn(config: TrainConfig, available: tuple[str, ...], count: int = 4000) -> Counter[str]:
    rng = np.random.default_rng(1)
    return Counter(subset_name(draw_subset(rng, available, config)) for _ in range(count))


# Subsets


def test_without_shares_the_draws_are_those_of_before(configure: Configure) -> None:
    config = configure(Path("x"), full_set_probability=0.3)
    rng, other = np.random.default_rng(5), np.random.default_rng(5)
    subsets = subsets_of(("rgb", "depth"))
    for _ in range(200):
        full = other.random() < 0.3
        wanted = subsets[0] if full else subsets[1 + int(other.integers(2))]
        assert draw_subset(rng, ("rgb", "depth"), config) == wanted


@settings(max_examples=25, deadline=None)
@given(shares=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_subsets_are_drawn_in_the_given_shares(shares: list[float]) -> None:
    total = sum(shares)
    whole = len(shares) == 3
    if total > 1 or (whole and total > 0):
        shares = [share / total for share in shares]
    elif whole:
        shares = [1 / 3] * 3
    names = ["rgb+depth", "rgb", "depth"]
    given_shares = dict(zip(names, shares, strict=False))
    config = _plain(subsets={"probability": given_shares})
    left = max(0.0, 1 - sum(shares)) / max(1, 3 - len(shares))
    drawn = _drawn(config, ("rgb", "depth"), 2000)
    for name in names:
        assert drawn[name] / 2000 == pytest.approx(given_shares.get(name, left), abs=0.06)


def test_where_a_sensor_lacks_the_other_shares_stay_in_proportion() -> None:
    config = _plain(subsets={"probability": {"rgb+depth": 0.7, "rgb": 0.0}})
    assert set(_drawn(config, ("depth",))) == {"depth"}
    assert set(_drawn(config, ("rgb",))) == {"rgb"}  # nothing else can be learned from such a batch
    three = _plain(
        preprocess={
            "modalities": ["rgb", "depth", "thermal"],
            "grid": {"height": 64, "width": 96},
        },
        subsets={"probability": {"rgb": 0.3, "depth": 0.1}},
    )
    drawn = _drawn(three, ("rgb", "depth"))
    assert drawn["rgb"] / drawn["depth"] == pytest.approx(3, rel=0.3)


@pytest.mark.parametrize(
    ("subsets", "said"),
    [
        (
            {"probability": {"rgb+lidar": 0.5}},
            "no subset 'rgb+lidar'; one of rgb+depth, rgb, depth",
        ),
        ({"probability": {"": 0.5}}, "no subset ''"),
        ({"probability": {"rgb": 0.7, "depth": 0.7}}, "are 1.4 together"),
        ({"probability": {"rgb": 0.2, "depth": 0.2, "rgb+depth": 0.2}}, "are 0.6 together"),
        ({"probability": {"rgb+depth": 0.2, "depth+rgb": 0.2}}, "is given twice"),
        ({"probability": {"rgb": -0.1}}, "subsets.probability.rgb"),
        ({"probability": {"rgb": float("nan")}}, "subsets.probability.rgb"),
        ({"weight": {"rgb": 0}}, "subsets.weight.rgb"),
        ({"weight": {"rgb": "much"}}, "subsets.weight.rgb"),
        ({"weight": {"thermal": 2}}, "subsets.weight: no subset 'thermal'"),
        ({"share": {}}, "subsets.share: no such field"),
        ({"probability": [0.5]}, "subsets.probability"),
    ],
)
def test_wrong_subsets_are_one_line(subsets: object, said: str, tmp_path: Path) -> None:
    _refused(tmp_path, {"subsets": subsets}, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"drop_path": 1}}, "model.drop_path"),
        ({"model": {"drop_path": -0.1}}, "model.drop_path"),
        ({"loss": {"lovasz": -1}}, "loss.lovasz"),
        ({"loss": {"lovasz": "some"}}, "loss.lovasz"),
        ({"optimizer": {"ema_share": 0}}, "optimizer.ema_share"),
        ({"optimizer": {"ema_share": 1.5}}, "optimizer.ema_share"),
        ({"resolution": [{"lr_factor": 0}]}, "resolution.0.lr_factor"),
        ({"resolution": [{"lr_factor": float("inf")}]}, "resolution.0.lr_factor"),
        ({"resolution": [{"freeze_norm": "sometimes"}]}, "resolution.0.freeze_norm"),
        ({"data": {"source": "folder:x", "judge_by": "night"}}, "data.judge_by"),
    ],
)
def test_wrong_options_are_one_line(change: dict[str, object], said: str, tmp_path: Path) -> None:
    _refused(tmp_path, change, said)


def _refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(_FIELDS | change))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = str(caught.value)
    assert said in line and "c.yaml" in line and "\n" not in line


_FIELDS: dict[str, object] = {
    "name": "tiny",
    "tasks": ["segmentation"],
    "data": {"source": "folder:x"},
    "preprocess": {"modalities": ["rgb", "depth"], "grid": {"height": 64, "width": 96}},
}


def _plain(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(_FIELDS | changes)


def test_names_of_subsets_are_put_in_order() -> None:
    spec = SubsetSpec(weight={"depth+rgb": 2.0}).fitted(("rgb", "depth"))
    assert spec.weight == {"rgb+depth": 2.0}


def test_the_loss_of_a_weighted_subset_counts_more(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10)
    losses, gradients = [], []
    for weight in (None, 3.0):
        subsets = {} if weight is None else {"weight": {"rgb": weight}}
        trainer = Trainer(
            configure(root, subsets=subsets, precision="float32"), tmp_path / str(weight)
        )
        trainer.train_set.preload()
        batch = next(iter(trainer.batches.epoch(0)))
        for subset in (("rgb",), ("rgb", "depth")):
            torch.manual_seed(0)
            trainer.optimizer.zero_grad()
            losses.append(float(trainer.learn(batch, subset)))
            head = trainer.model.trunk.segmentation.classify.weight  # type: ignore[union-attr]
            gradients.append(head.grad.clone())
    assert losses[2] == pytest.approx(3 * losses[0], rel=1e-3)
    assert losses[3] == pytest.approx(losses[1], rel=1e-3)
    assert torch.allclose(gradients[2], 3 * gradients[0], rtol=1e-2, atol=1e-5)


# Phases and averages


def test_a_gentler_phase_lowers_the_rate_of_its_epochs_alone(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    phases = [
        {"from_epoch": 0, "crop": [64, 96]},
        {"from_epoch": 6, "crop": [64, 96], "lr_factor": 0.25},
    ]
    config = configure(record(10), epochs=10, resolution=phases)
    trainer = Trainer(config, tmp_path / "run")
    for epoch in np.linspace(0, 9.99, 57):
        factor = 0.25 if epoch >= 6 else 1.0
        wanted = factor * learning_rate(config.optimizer, float(epoch), 10)
        assert trainer._set_rate(float(epoch)) == pytest.approx(wanted)
        assert trainer.optimizer.param_groups[-1]["lr"] == pytest.approx(wanted)


@pytest.mark.parametrize("kept", [False, True])
def test_statistics_are_kept_where_a_phase_says_so(
    kept: bool, record: Record, configure: Configure, tmp_path: Path
) -> None:
    resolution = [{"crop": [64, 96], "scale": [1, 1], "batch": 2, "freeze_norm": kept}]
    trainer = Trainer(configure(record(10), resolution=resolution), tmp_path / "run")
    norms = {n: m for n, m in trainer.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = {n: m.running_mean.clone() for n, m in norms.items()}  # type: ignore[union-attr]
    scales = {n: m.weight.detach().clone() for n, m in norms.items()}
    trainer.train_set.preload()
    trainer._run_epoch()
    moved = [n for n, m in norms.items() if not torch.equal(m.running_mean, before[n])]  # type: ignore[arg-type]
    assert bool(moved) != kept
    assert any(not torch.equal(m.weight, scales[n]) for n, m in norms.items())


@pytest.mark.parametrize(("epochs", "steps"), [(10, 40), (124, 42), (1, 1), (3, 1)])
def test_the_average_reaches_back_over_a_share_of_the_run(epochs: int, steps: int) -> None:
    config = _plain(epochs=epochs, optimizer={"ema_share": 0.2})
    decay = average_decay(config, steps)
    assert 0 <= decay < 1
    assert 1 / (1 - decay) == pytest.approx(max(1, 0.2 * epochs * steps))
    assert average_decay(_plain(), steps) == 0.998


# Lovász


def test_lovasz_of_certain_answers_is_one_minus_the_iou() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 4, (2, 16, 16), generator=generator)
    answer = torch.randint(0, 4, (2, 16, 16), generator=generator)
    labels[0, :3] = 255
    logits = 200.0 * nn.functional.one_hot(answer, 5).permute(0, 3, 1, 2).float()
    ious = []
    valid = labels != 255
    for label in labels[valid].unique():
        truth, found = (labels == label) & valid, (answer == label) & valid
        ious.append((truth & found).sum() / (truth | found).sum())
    assert lovasz_loss(logits, labels) == pytest.approx(
        1 - float(torch.stack(ious).mean()), abs=1e-5
    )


def test_lovasz_falls_as_answers_get_better_and_has_gradients() -> None:
    labels = torch.randint(0, 3, (1, 32, 32), generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    first = loss = lovasz_loss(logits, labels)
    for _ in range(50):
        (step,) = torch.autograd.grad(loss, logits)
        logits = (logits - 20 * step).detach().requires_grad_()
        loss = lovasz_loss(logits, labels)
    assert loss < 0.3 * first


def test_lovasz_without_labels_is_nothing() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = lovasz_loss(logits, torch.full((1, 16, 16), 255))
    loss.backward()
    assert loss == 0 and not logits.grad.any()  # type: ignore[union-attr]


def test_lovasz_is_a_term_where_it_is_asked_for(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root, terms = record(10), {}
    for weight in (0.0, 0.5):
        config = configure(root, loss={"lovasz": weight}, precision="float32")
        trainer = Trainer(config, tmp_path / str(weight))
        trainer.train_set.preload()
        batch = next(iter(trainer.batches.epoch(0)))
        torch.manual_seed(0)
        terms[weight] = float(trainer.learn(batch, ("rgb", "depth")))
    assert 0 < terms[0.5] - terms[0.0] <= 0.5


# Validation by tag


@pytest.fixture
def tagged(record: Record) -> Path:
    """Frames by day and night, in turns."""
    root = record(20)
    rows = (root / "frames.csv").read_text("utf-8").splitlines()
    lines = [
        f"{row.rpartition(',')[0]},{('day', 'night')[i % 2]}" for i, row in enumerate(rows[1:])
    ]
    (root / "frames.csv").write_text("\n".join([rows[0], *lines]) + "\n", "utf-8")
    return root


def test_tags_are_judged_apart(tagged: Path, configure: Configure, tmp_path: Path) -> None:
    data = {"source": f"folder:{tagged}", "judge_by": ["day", "night"]}
    trainer = Trainer(configure(tagged, data=data, precision="float32"), tmp_path / "run")
    trainer.fit()
    with (tmp_path / "run/log.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[-1]
    subsets = ("rgb+depth", "rgb", "depth")
    apart = [float(row[f"{s}@{tag}/miou"]) for tag in ("day", "night") for s in subsets]
    assert trainer.best == pytest.approx(np.mean(apart))
    progress = load_checkpoint(tmp_path / "run/best.safetensors").progress
    frames = [progress["scores_by_tag"][tag]["rgb"]["frames"] for tag in ("day", "night")]
    assert min(frames) > 0 and sum(frames) == progress["scores"]["rgb"]["frames"]
    alone = configure(tagged, data={"source": f"folder:{tagged}", "only": "night"})
    night = Trainer(alone.model_copy(update={"precision": "float32"}), tmp_path / "night")
    night.val_set.preload()
    night.model.load_state_dict(load_checkpoint(tmp_path / "run/best.safetensors").ema)
    assert night.judge()[1]["rgb/miou"] == pytest.approx(float(row["rgb@night/miou"]), abs=1e-6)


def test_an_unknown_tag_is_named_before_any_work(
    tagged: Path, configure: Configure, tmp_path: Path
) -> None:
    data = {"source": f"folder:{tagged}", "judge_by": ["nite"]}
    with pytest.raises(ConfigError, match=r"no validation frame is tagged 'nite'.*day, night"):
        Trainer(configure(tagged, data=data), tmp_path / "run")


# All together


def test_a_run_with_all_of_it_resumes_to_the_same_weights(
    tagged: Path, configure: Configure, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    config = configure(
        tagged,
        epochs=2,
        model={
            "pretrained": False,
            "drop_path": 0.3,
            "options": {"width": 0.25, "decoder_width": 16, "backbone": "lite1"},
        },
        data={"source": f"folder:{tagged}", "judge_by": ["night"]},
        subsets={"probability": {"rgb": 0.5}, "weight": {"rgb": 1.5}},
        loss={"lovasz": 0.3},
        optimizer={"warmup_epochs": 0, "ema_share": 0.3},
        resolution=[
            {"crop": [64, 96], "batch": 4},
            {"from_epoch": 1, "crop": [64, 96], "batch": 4, "lr_factor": 0.3, "freeze_norm": True},
        ],
    )
    whole = Trainer(config, tmp_path / "whole")
    whole.fit()
    first = Trainer(config, tmp_path / "parts")
    first.train_set.preload()
    first.val_set.preload()
    first._one_epoch()
    second = Trainer(config, tmp_path / "parts")
    second.resume()
    second.fit()
    one, other = (load_checkpoint(tmp_path / n / "last.safetensors") for n in ("whole", "parts"))
    assert all(torch.equal(one.weights[k], other.weights[k]) for k in one.weights)
    assert all(torch.equal(one.ema[k], other.ema[k]) for k in one.ema)


@pytest.mark.parametrize("backbone", ["lite1", "lite2"])
def test_what_is_trained_on_a_larger_backbone_exports_with_the_same_numbers(
    backbone: str, record: Record, configure: Configure, tmp_path: Path
) -> None:
    options = {"width": 0.25, "decoder_width": 16, "backbone": backbone}
    model = {"pretrained": False, "drop_path": 0.2, "options": options}
    Trainer(configure(record(10), model=model), tmp_path / "run").fit()
    rows = export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    assert len(rows) == 3 and max(row.max_abs for row in rows) < 1e-3
