"""Options for sensors that get lost: subsets drawn by their measured gap, the loss of each input alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle_writer import ExportOptions, export_bundle
from perception.errors import ConfigError
from perception.frame import subset_name
from perception.training.config import TrainConfig, load_config
from perception.training.loop import Trainer
from perception.training.schedule import draw_subset, measured_gaps

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
BOTH = ("rgb", "depth")
FIELDS: dict[str, object] = {
    "name": "tiny",
    "tasks": ["segmentation"],
    "data": {"source": "folder:x"},
    "preprocess": {"modalities": ["rgb", "depth"], "grid": {"height": 64, "width": 96}},
}


def _config(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(FIELDS | changes)


Score = float | None


def _row(full: Score, rgb: Score, depth: Score, tag: str = "") -> dict[str, Score]:
    names = ("rgb+depth", "rgb", "depth")
    return {f"{n}{tag}/miou": v for n, v in zip(names, (full, rgb, depth), strict=True)}


# By gap


def test_gaps_are_those_of_the_last_validation() -> None:
    config = _config(subsets={"by_gap": 2})
    log = [_row(0.2, 0.1, 0.1), _row(0.5, 0.4, 0.25), {"loss": 1.0}]
    assert measured_gaps(log, config, ["miou"]) == pytest.approx(
        {"rgb+depth": 0, "rgb": 0.2, "depth": 0.5}
    )
    assert measured_gaps(log[2:], config, ["miou"]) == {}
    assert measured_gaps(log, _config(), ["miou"]) == {}  # off
    # One that is better than all together has no gap, and the others are measured by it.
    best = measured_gaps([_row(0.4, 0.5, 0.0)], config, ["miou"])
    assert best == pytest.approx({"rgb+depth": 0.2, "rgb": 0, "depth": 1})


def test_gaps_of_what_was_not_judged_are_unknown() -> None:
    config = _config(subsets={"by_gap": 2})
    assert measured_gaps([_row(0.5, None, 0.25)], config, ["miou"]) == {
        "rgb+depth": 0,
        "depth": 0.5,
    }
    assert measured_gaps([_row(0, 0, 0)], config, ["miou"]) == dict.fromkeys(
        ("rgb+depth", "rgb", "depth"), 0.0
    )


def test_gaps_are_means_over_the_tags_that_are_judged() -> None:
    data = {"source": "folder:x", "judge_by": ["day", "night"]}
    config = _config(subsets={"by_gap": 2}, data=data)
    row = _row(0.6, 0.5, 0.2, "@day") | _row(0.4, 0.0, 0.3, "@night") | _row(0.9, 0.9, 0.9)
    assert measured_gaps([row], config, ["miou"]) == pytest.approx(
        {"rgb+depth": 0, "rgb": 0.5, "depth": 0.5}
    )


@settings(max_examples=20, deadline=None)
@given(
    strength=st.floats(0, 20),
    gap=st.floats(0, 1),
    full=st.floats(0.05, 0.9),
    named=st.booleans(),
)
def test_shares_grow_with_the_gap(strength: float, gap: float, full: float, named: bool) -> None:
    rest = (1 - full) / 2
    shares = (
        {"subsets": {"by_gap": strength, "probability": {"rgb+depth": full, "rgb": rest}}}
        if named
        else {"subsets": {"by_gap": strength}, "full_set_probability": full}
    )
    config, rng = _config(**shares), np.random.default_rng(1)
    gaps = {"rgb+depth": 0.0, "rgb": gap, "depth": 0.0}
    drawn = Counter(subset_name(draw_subset(rng, BOTH, config, gaps)) for _ in range(3000))
    wanted = np.array([full, rest * (1 + strength * gap), rest])
    wanted /= wanted.sum()
    for name, share in zip(gaps, wanted, strict=True):
        assert drawn[name] / 3000 == pytest.approx(share, abs=0.05)


def test_without_a_gap_the_draws_are_those_of_before() -> None:
    config, drawn = _config(full_set_probability=0.3), []
    for gaps in (None, {}):
        rng = np.random.default_rng(4)
        drawn.append([draw_subset(rng, BOTH, config, gaps) for _ in range(100)])
    assert drawn[0] == drawn[1]


def test_the_log_says_by_which_gaps_it_drew(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    trainer = Trainer(configure(record(10), epochs=2, subsets={"by_gap": 4.0}), tmp_path / "run")
    trainer.fit()
    first, second = trainer.log
    assert not any(k.startswith("gap/") for k in first)
    scores = {n: first[f"{n}/miou"] for n in ("rgb+depth", "rgb", "depth")}
    best = max(scores.values())
    for name, score in scores.items():
        assert second[f"gap/{name}"] == pytest.approx((best - score) / best if best else 0)


def test_it_is_said_where_nothing_is_measured_in_time(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10)
    for every, said in ((1, False), (2, True)):
        config = configure(root, epochs=2, validate_every=every, subsets={"by_gap": 1.0})
        notes = Trainer(config, tmp_path / str(every))._look_at_data()
        assert any("by_gap changes nothing" in note for note in notes) == said


# Alone


def test_each_input_alone_is_a_term_beside_the_others(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root, losses, gradients = record(10), {}, {}
    for weight in (0.0, 1.0):
        config = configure(root, loss={"alone": weight, "auxiliary": 0}, precision="float32")
        trainer = Trainer(config, tmp_path / str(weight))
        trainer.train_set.preload()
        batch = next(iter(trainer.batches.epoch(0)))
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout2d):
                module.p = 0.0
        trainer.model.eval()  # makes passes comparable
        for subset in (BOTH, ("rgb",), ("depth",)):
            trainer.optimizer.zero_grad()
            losses[weight, subset] = float(trainer.learn(batch, subset))
            head = trainer.model.trunk.segmentation.classify.weight  # type: ignore[union-attr]
            gradients[weight, subset] = head.grad.clone()
    singles = (("rgb",), ("depth",))
    mean = sum(losses[0.0, s] for s in singles) / 2
    assert losses[1.0, BOTH] == pytest.approx(losses[0.0, BOTH] + mean, rel=1e-4)
    summed = gradients[0.0, BOTH] + sum(gradients[0.0, s] for s in singles) / 2
    assert torch.allclose(gradients[1.0, BOTH], summed, atol=1e-5)
    for subset in singles:  # there is nothing besides
        assert losses[1.0, subset] == losses[0.0, subset]


@pytest.mark.parametrize("model", ["anyfuse", "multimodn"])
def test_it_trains_any_model_and_leaves_nothing_in_the_bundle(
    model: str, record: Record, configure: Configure, tmp_path: Path
) -> None:
    options = {"width": 0.25, "decoder_width": 16} if model == "anyfuse" else {}
    own = {"name": model, "pretrained": False, "options": options}
    files = {}
    for weight in (0.0, 0.5):
        config = configure(record(6, name=f"r{weight}"), model=own, loss={"alone": weight})
        Trainer(config, tmp_path / f"run{weight}").fit()
        bundle = tmp_path / f"bundle{weight}"
        export_bundle(tmp_path / f"run{weight}", bundle, ExportOptions())
        files[weight] = {p.name: p.stat().st_size for p in bundle.glob("*.onnx")}
    assert files[0.0].keys() == files[0.5].keys()
    for name, size in files[0.0].items():
        assert files[0.5][name] == pytest.approx(size, rel=1e-3)


# What is refused


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subsets": {"by_gap": -1}}, "subsets.by_gap"),
        ({"subsets": {"by_gap": 101}}, "subsets.by_gap"),
        ({"subsets": {"by_gap": float("nan")}}, "subsets.by_gap"),
        ({"subsets": {"bygap": 1}}, "did you mean 'by_gap'?"),
        ({"loss": {"alone": -0.1}}, "loss.alone"),
        ({"loss": {"alone": "much"}}, "loss.alone"),
        ({"loss": {"alone": float("inf")}}, "loss.alone"),
        ({"loss": {"alon": 1.0}}, "alon"),
    ],
)
def test_wrong_options_are_one_line(change: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(FIELDS | change))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = str(caught.value)
    assert said in line and "c.yaml" in line and "\n" not in line
