"""Frames that lack a sensor, labels or boxes: trained on for what they have, judged for what they show."""

from __future__ import annotations

import csv
import importlib.util
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from perception.data import open_recording
from perception.data.base import Boxes
from perception.errors import ConfigError
from perception.frame import Kind
from perception.models.heads import specs_for
from perception.models.interface import ModelOutput
from perception.models.supervision import auxiliary_segmentation_loss
from perception.preprocess import PreprocessContract
from perception.training.batches import SensorBatches
from perception.training.checkpoint import BEST, LAST, load_checkpoint
from perception.training.config import CorruptionSpec, LossSpec, TrainConfig
from perception.training.dataset import Batch, FusionDataset, collate
from perception.training.loop import Trainer
from perception.training.methods import METHODS
from perception.training.objectives import loss_terms, total
from perception.training.pretrain import Pretrainer
from perception.training.tasks.boxes2d import auxiliary_detection_loss, detection_loss
from perception.training.tasks.segmentation import class_weights, segmentation_loss
from perception.training.validate import Meters, validate

_spec = importlib.util.spec_from_file_location(
    "small", Path(__file__).parents[1] / "models/zoo/small.py"
)
assert _spec is not None and _spec.loader is not None
small = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(small)

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
FULL: tuple[Kind, ...] = ("rgb", "depth")
KINDS: list[tuple[Kind, ...]] = [FULL, ("rgb",), ("depth",), ("rgb", "thermal")]


@given(
    sensors=st.lists(st.sampled_from(KINDS), min_size=1, max_size=40),
    size=st.integers(2, 8),
    seed=st.integers(0, 99),
)
def test_batches_hold_frames_of_the_same_sensors_and_every_frame_is_used(
    sensors: list[tuple[Kind, ...]], size: int, seed: int
) -> None:
    sampler = SensorBatches(sensors, size, torch.Generator().manual_seed(seed))
    batches = list(sampler)
    assert len(batches) == len(sampler)
    for batch in batches:
        assert len({sensors[i] for i in batch}) == 1
        assert 2 <= len(batch) <= size
    used = [i for batch in batches for i in set(batch)]
    assert len(used) == len(set(used))
    if len(set(sensors)) > 1:
        assert sorted(used) == list(range(len(sensors)))
    else:
        assert len(used) == len(sensors) // size * size


@given(count=st.integers(1, 50), size=st.integers(1, 9), seed=st.integers(0, 999))
def test_frames_that_all_have_the_same_sensors_are_shuffled_as_torch_does(
    count: int, size: int, seed: int
) -> None:
    own = list(SensorBatches([FULL] * count, size, torch.Generator().manual_seed(seed)))
    shuffled = RandomSampler(range(count), generator=torch.Generator().manual_seed(seed))
    assert own == list(BatchSampler(shuffled, size, drop_last=True))
    # and within a loader, which draws from the same generator
    one, other = (torch.Generator().manual_seed(seed) for _ in range(2))
    loaders = [
        DataLoader(
            range(count), batch_sampler=SensorBatches([FULL] * count, size, one), generator=one
        ),
        DataLoader(range(count), size, shuffle=True, drop_last=True, generator=other),
    ]
    first, second = ([batch.tolist() for batch in loader] for loader in loaders)  # type: ignore[attr-defined]
    assert first == second


def _collected(record: Record, configure: Configure, indices: list[int], **gaps: object) -> Batch:
    root = record(10, **gaps)
    config = configure(root)
    data = FusionDataset(open_recording("folder", root), config.preprocess, CorruptionSpec(), 0)
    data.phase = config.phase(0)
    return collate([data[i] for i in indices])


def test_a_batch_has_the_sensors_that_all_of_its_frames_have(
    record: Record, configure: Configure
) -> None:
    batch = _collected(record, configure, [0, 1], lacks={("depth", 1)})
    assert list(batch.inputs) == ["rgb"]
    assert batch.inputs["rgb"].shape == (2, 3, 64, 96)


def test_a_frame_without_labels_is_ignored_and_one_without_boxes_is_not_empty(
    record: Record, configure: Configure
) -> None:
    root = record(2, kinds=1)
    config = configure(root)
    data = FusionDataset(open_recording("folder", root), config.preprocess, CorruptionSpec(), 0)
    data.phase = config.phase(0)
    data._cache[1] = replace(data.raw(1), truths={})
    labels, boxes = collate([data[0], data[1]]).truths.values()
    assert (labels[1] == 255).all() and (labels[0] < 3).all()
    assert boxes[0] is not None and boxes[1] is None


# Losses


def test_losses_without_truth_are_zero_and_have_gradients() -> None:
    logits = torch.randn(2, 3, 16, 24, requires_grad=True)
    nothing = torch.full((2, 64, 96), 255)
    corner = nothing.clone()
    corner[:, 1::2, 1::2] = 1  # valid, but between the pixels that the loss looks at
    boxes = [None, None]
    sides = torch.rand(2, 4, 8, 12, requires_grad=True)
    classes = torch.randn(2, 2, 8, 12, requires_grad=True)
    weights = torch.ones(3)
    for loss in (
        segmentation_loss(logits, nothing, None),
        segmentation_loss(logits, nothing, weights),
        segmentation_loss(logits, corner, None),
        auxiliary_segmentation_loss(logits, nothing),
        auxiliary_detection_loss(logits, boxes),
        detection_loss({8: (classes, sides)}, boxes),
    ):
        assert float(loss.detach()) == 0.0
        loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and not logits.grad.any()
    assert classes.grad is not None and not classes.grad.any()


def test_images_without_known_boxes_do_not_count() -> None:
    torch.manual_seed(0)
    box = Boxes.of(np.array([[10, 10, 50, 50]]), np.array([1]))
    logits = torch.randn(3, 2, 4, 6)
    outputs = {
        s: (torch.randn(3, 2, 64 // s, 96 // s), torch.rand(3, 4, 64 // s, 96 // s))
        for s in (8, 16)
    }
    some = [box, None, Boxes.empty()]
    kept = {s: (c[[0, 2]], b[[0, 2]]) for s, (c, b) in outputs.items()}
    assert detection_loss(outputs, some) == pytest.approx(
        detection_loss(kept, [box, Boxes.empty()])
    )
    found = auxiliary_detection_loss(logits, some)
    assert found == pytest.approx(auxiliary_detection_loss(logits[[0, 2]], [box, Boxes.empty()]))


@pytest.mark.parametrize("name", list(small.PICTURES))
def test_every_model_takes_a_batch_without_truth(name: str) -> None:
    model = small.small_model(name).train()
    inputs = small.random_inputs(model.modalities)
    labels = torch.full((2, 64, 96), 255)
    output = model(inputs)
    batch = Batch(inputs, {"segmentation": labels, "boxes2d": [None, None]})
    terms = loss_terms(model, output, batch, LossSpec(), {})
    assert not terms.keys() & {"segmentation", "boxes2d", "auxiliary"}
    assert all(torch.isfinite(term) for term in terms.values())
    for subset in ([m] for m in model.modalities):
        output = model({m: inputs[m] for m in subset})
        labels[:, :8] = 1
        truths = {"segmentation": labels, "boxes2d": [Boxes.empty(), None]}
        batch = Batch({m: inputs[m] for m in subset}, truths)
        terms = loss_terms(model, output, batch, LossSpec(), {})
        model.zero_grad()
        total(terms).backward()  # type: ignore[no-untyped-call]
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_segmif_keeps_its_weight_over_a_batch_without_labels() -> None:
    model = small.small_model("segmif").train()
    inputs = small.random_inputs(model.modalities)
    model.rates.copy_(torch.tensor([1.0, 2.0]))
    before = model.rates.clone(), model.slow.clone()
    output = model(inputs)
    weighted = float(model.losses(output, {})["fusion"].detach())
    assert torch.equal(model.rates, before[0]) and torch.equal(model.slow, before[1])
    model.rates.fill_(1.0)
    assert weighted == pytest.approx(
        math.e * float(model.losses(output, {})["fusion"].detach()), rel=1e-4
    )


def test_class_weights_without_truth_are_equal(record: Record) -> None:
    recording = open_recording("folder", record(3, unlabeled=range(3)))
    with np.errstate(all="raise"):
        assert class_weights(recording, 3, 0.3).tolist() == [1, 1, 1]


# Whole runs


def _notes(capsys: pytest.CaptureFixture[str]) -> list[str]:
    printed = " ".join(capsys.readouterr().out.split())
    return [part.split(" epoch 1 ")[0].strip() for part in printed.split("note: ")[1:]]


GAPS: dict[str, dict[str, object]] = {
    "batches without a valid label": {"unlabeled": range(5)},
    "one frame lacks depth": {"lacks": {("depth", 3)}},
    "one frame lacks rgb": {"lacks": {("rgb", 3)}},
    "one frame has nothing": {"lacks": {("rgb", 3), ("depth", 3)}},
    "two frames have depth": {"lacks": {("depth", i) for i in range(1, 9)}},
    "every frame has one sensor": {"lacks": {(("rgb", "depth")[i % 2], i) for i in range(10)}},
    "validation lacks rgb": {"lacks": {("rgb", 9), ("rgb", 8)}},
    "one class": {"classes": 1},
}


@pytest.mark.parametrize("gaps", list(GAPS))
def test_training_goes_on_over_gaps(
    gaps: str, record: Record, configure: Configure, tmp_path: Path
) -> None:
    trainer = Trainer(configure(record(10, **GAPS[gaps])), tmp_path / "run")
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.fit()
    assert math.isfinite(trainer.log[0]["loss"])
    after = load_checkpoint(tmp_path / "run" / LAST).weights
    assert all(torch.isfinite(v).all() for v in after.values())
    if gaps != "one class":  # of which there is nothing to learn
        for modality in FULL:
            name = f"encoders.{modality}.stem.conv.weight"
            assert not torch.equal(after[name], before[name]), "a sensor was never learned"


@pytest.mark.slow
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_goes_on_over_gaps(
    method: str, record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(
        14, kinds=2, unlabeled={0, 1, 2, 3, 12}, empty={0, 1}, lacks={("depth", 4), ("rgb", 7)}
    )
    both = {"tasks": ["segmentation", "detection"]}
    options: dict[str, object] = {}
    if method == "distill":
        for name, sensors in (("teacher", ["depth"]), ("other", ["rgb", "depth"])):
            preprocess = {"modalities": sensors, "grid": {"height": 64, "width": 96}}
            Trainer(configure(root, **both, preprocess=preprocess), tmp_path / name).fit()
        options["teachers"] = [str(tmp_path / "teacher"), str(tmp_path / "other")]
    config = configure(root, **both, epochs=2, method={"name": method, "options": options})
    trainer = Trainer(config, tmp_path / "run")
    trainer.fit()
    for row in trainer.log:
        assert all(v is None or np.isfinite(v) for v in row.values()), row
    assert all(math.isfinite(v) for v in trainer.method.state.values())


def test_a_batch_without_truth_teaches_agm_nothing(record: Record, configure: Configure) -> None:
    root = record(10, unlabeled=range(10))
    config = configure(root, method={"name": "agm"})
    trainer = Trainer(config, root.parent / "run")
    trainer.method.state = {"reference_rgb": 3.0, "reference_depth": 0.2}
    batch = _loaded(trainer, root)
    assert trainer.step(batch, FULL) is None
    assert trainer.method.state == {"reference_rgb": 3.0, "reference_depth": 0.2}


def _loaded(trainer: Trainer, root: Path) -> Batch:
    trainer.train_set.phase = trainer.config.phase(0)
    return collate([trainer.train_set[0], trainer.train_set[1]])


@pytest.mark.parametrize("tasks", [["segmentation"], ["detection"]])
def test_validation_without_truth_is_not_zero_and_chooses_no_epoch(
    tasks: list[str],
    record: Record,
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = record(10, kinds=1, unlabeled={8, 9}, empty={8, 9})
    run = tmp_path / "run"
    trainer = Trainer(configure(root, tasks=tasks, epochs=2), run)
    scores = validate(trainer.model, trainer.val_set, trainer.config, trainer.device)
    key = {"segmentation": "miou", "detection": "ap50"}[tasks[0]]
    assert all(math.isnan(s[key]) for s in scores.values())
    run.mkdir(exist_ok=True)
    (run / BEST).write_bytes(b"of a former run")
    trainer.fit()
    assert "validation has no truth: there is no best epoch, export takes the last" in _notes(
        capsys
    )
    assert not (run / BEST).exists()
    state = load_checkpoint(run)
    assert state.progress["epoch"] == 2
    assert state.progress["best"] is None
    rows = list(csv.DictReader((run / "log.csv").open()))
    assert [row[f"rgb/{key}"] for row in rows] == ["", ""]
    assert (run / "curves.png").stat().st_size > 1000
    resumed = Trainer(configure(root, tasks=tasks, epochs=3), run)
    resumed.resume()
    assert resumed.epoch == 2 and resumed.best == -math.inf
    resumed.fit()
    assert len(resumed.log) == 3


def test_a_subset_is_judged_on_the_frames_that_have_it(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(20, lacks={("depth", 16), ("depth", 17), ("rgb", 18)}, unlabeled={19})
    trainer = Trainer(configure(root), tmp_path / "run")
    scores = validate(trainer.model, trainer.val_set, trainer.config, trainer.device)
    assert {name: s["frames"] for name, s in scores.items()} == {
        "rgb+depth": 0,
        "rgb": 2,
        "depth": 1,
    }
    assert math.isnan(scores["rgb+depth"]["miou"])
    # The score of a subset is that of a validation set of these frames alone.
    alone = Trainer(configure(root), tmp_path / "other")
    alone.val_set.keep(lambda index: index < 2)
    alone.model.load_state_dict(trainer.model.state_dict())
    again = validate(alone.model, alone.val_set, alone.config, alone.device)
    assert again["rgb"] == scores["rgb"]
    trainer.fit()
    best = load_checkpoint(tmp_path / "run" / BEST).progress
    assert best["scores"]["rgb+depth"] == {"frames": 0, "miou": None}
    known = [best["scores"][n]["miou"] for n in ("rgb", "depth")]
    assert best["best"] == pytest.approx(np.mean(known))


def test_gaps_are_said_once_before_training(
    record: Record, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacks = {("depth", 3), ("depth", 4), ("rgb", 4), ("depth", 9)}
    root = record(10, lacks=lacks, unlabeled={0, 1})
    Trainer(configure(root), tmp_path / "run").fit()
    notes = _notes(capsys)
    assert notes == [
        "rgb is in 7 of 8 training frames",
        "depth is in 6 of 8 training frames",
        "1 training frames have nothing of rgb+depth: left out",
        "5 of 7 training frames have a labeled pixel",
        "depth is in 1 of 2 validation frames",
    ]


def test_nothing_is_said_of_a_whole_recording(
    record: Record, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Trainer(configure(record(10)), tmp_path / "run").fit()
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("gaps", "tasks", "said"),
    [
        ({"lacks": {("depth", i) for i in range(10)}}, [], "no training frame has depth"),
        ({"unlabeled": range(10)}, [], "no training frame has a labeled pixel"),
        ({"unlabeled": range(8)}, [], "no training frame has a labeled pixel"),
        ({}, ["segmentation", "detection"], "no training frame has boxes"),
    ],
)
def test_what_cannot_be_learned_is_refused_by_name(
    gaps: dict[str, object],
    tasks: list[str],
    said: str,
    record: Record,
    configure: Configure,
    tmp_path: Path,
) -> None:
    root = record(10, kinds=1 if tasks else 0, **gaps)
    for path in (root / "boxes").glob("*") if tasks else ():
        path.unlink()
    if tasks:
        (root / "boxes").rmdir()
    config = configure(root, **({"tasks": tasks} if tasks else {}))
    with pytest.raises(ConfigError) as caught:
        Trainer(config, tmp_path / "run").fit()
    assert said in str(caught.value)
    assert str(root) in str(caught.value)
    assert "lr" not in str(caught.value)


def test_the_reason_is_given_where_no_sample_of_a_sensor_can_be_used(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10)
    description = yaml.safe_load((root / "dataset.yaml").read_text())
    description["depth_scale"] = 1.0
    (root / "dataset.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(
        ConfigError, match="no training frame has depth that can be used: depth: no pixel"
    ):
        Trainer(configure(root), tmp_path / "run").fit()


def test_a_task_that_the_recording_has_no_classes_for_is_named(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10, classes=0, kinds=1)
    with pytest.raises(ConfigError, match="folder data names no semantic classes"):
        Trainer(configure(root), tmp_path / "run")
    with pytest.raises(ConfigError, match="folder data names no semantic classes"):
        Trainer(configure(root, tasks=["segmentation", "detection"]), tmp_path / "run")


def test_a_loss_that_is_not_finite_has_its_true_cause_named(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10)
    trainer = Trainer(
        configure(root, optimizer={"lr": 1e9, "warmup_epochs": 0}, epochs=30), tmp_path / "a"
    )
    with pytest.raises(
        ConfigError, match=r"not finite any more in epoch \d+, step \d+ .*optimizer.lr"
    ):
        trainer.fit()
    trainer = Trainer(configure(root), tmp_path / "b")
    trainer.train_set.preload()
    contract = trainer.config.preprocess
    spec = contract["rgb"].preprocess.model_copy(update={"mean": (math.nan, 0.0, 0.0)})
    rgb = contract["rgb"].model_copy(update={"preprocess": spec})
    broken = PreprocessContract.model_construct({**contract.root, "rgb": rgb})
    trainer.train_set.contract = broken
    trainer.config.preprocess = broken
    with pytest.raises(ConfigError, match="network input of rgb is not finite") as caught:
        trainer.fit()
    assert "frame f000" in str(caught.value)
    assert "optimizer.lr" not in str(caught.value)


def test_frames_without_classes_can_be_pretrained_on(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10, classes=0, lacks={("depth", 2), ("rgb", 9)})
    model = {
        "name": "multimae",
        "pretrained": False,
        "options": {"size": "micro", "decoder_width": 16},
    }
    trainer = Pretrainer(configure(root, model=model), tmp_path / "run")
    trainer.fit()
    assert math.isfinite(trainer.log[0]["reconstruction"])
    assert (tmp_path / "run" / BEST).is_file()


def test_meters_count_frames_with_truth_only(record: Record, configure: Configure) -> None:
    root = record(4, unlabeled={1})
    data = FusionDataset(
        open_recording("folder", root), configure(root).preprocess, CorruptionSpec(), 0
    )
    meter = Meters(data, specs_for(segmentation=3))
    assert math.isnan(meter.scores()["miou"])
    logits = torch.zeros(1, 3, 16, 24)
    output = ModelOutput({"segmentation": logits})
    meter.add(1, output)
    assert meter.scores()["frames"] == 0 and math.isnan(meter.scores()["miou"])
    meter.add(0, output)
    labels = data.raw(0).truths["segmentation"]
    share = (labels[::2, ::2] == 0).mean()
    assert meter.scores()["frames"] == 1
    assert meter.scores()["miou"] == pytest.approx(share / 3)
