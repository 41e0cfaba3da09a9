"""The curriculum of faults: how severe, on which sensors, the same again, and never on all of a sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ground_scenes import Scenes, contract, poses, write_scenes
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.corruptions import corrupt_grid, faults_of
from perception.corruptions.training import grid_faults
from perception.data.registry import open_recording
from perception.errors import ConfigError
from perception.frame import KINDS, Frame, subsets_of
from perception.models.heads import half_of
from perception.models.registry import build_model
from perception.training.augment import OnGrid, augment
from perception.training.checkpoint import load_checkpoint
from perception.training.config import (
    CorruptionSpec,
    CurriculumSpec,
    LossSpec,
    ResolutionPhase,
    TrainConfig,
    load_config,
)
from perception.training.curriculum import ceiling, faults_in, generator, one_clean, spoilt
from perception.training.dataset import (
    Batch,
    Draw,
    FusionDataset,
    collate,
    network_inputs,
    tensors_of,
)
from perception.training.loop import Trainer
from perception.training.objectives import loss_terms, total

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]

ALWAYS = CurriculumSpec(probability=1.0)
BOTH = {"modalities": ["rgb", "depth"], "grid": {"height": 64, "width": 96}}


def _data(root: Path, config: TrainConfig) -> FusionDataset:
    recording = open_recording("folder", root)
    return FusionDataset(
        recording, config.preprocess, config.corruption, config.seed, None, config.curriculum
    )


# How severe


def test_off_by_default() -> None:
    assert CurriculumSpec().probability == 0
    assert {ceiling(CurriculumSpec(), e, 10) for e in range(10)} == {0}


@settings(max_examples=60, deadline=None)
@given(
    low=st.integers(1, 5),
    more=st.integers(0, 4),
    over=st.floats(0.01, 1),
    epochs=st.integers(1, 200),
)
def test_severity_grows_from_the_lowest_to_the_highest(
    low: int, more: int, over: float, epochs: int
) -> None:
    high = min(5, low + more)
    spec = CurriculumSpec(probability=0.5, severity=(low, high), over=over)
    found = [ceiling(spec, epoch, epochs) for epoch in range(epochs)]
    assert found == sorted(found) and found[0] == low
    assert set(found) <= set(range(low, high + 1))
    if epochs > 1 / (1 - min(over, 0.99)):  # there are epochs after the growth
        assert found[-1] == high


# On which sensors


@pytest.mark.parametrize("kind", KINDS)
def test_faults_are_those_that_robustness_is_judged_by(kind: str) -> None:
    graded = faults_in(ALWAYS, "x", kind)
    assert graded and set(graded) <= set(grid_faults(kind)) <= set(faults_of(kind))
    assert "dark" not in graded  # nothing to see: the subset without it is learned otherwise
    assert faults_in(CurriculumSpec(faults={"x": ["dark"]}), "x", kind) == ("dark",)
    assert faults_in(CurriculumSpec(faults={"x": []}), "x", kind) == ()


def test_every_fault_can_be_put_on_an_augmented_sample(simulated: Path) -> None:
    recording = open_recording("folder", simulated)
    contract = {
        "modalities": ["rgb", "depth", "thermal", "lidar"],
        "grid": {"height": 96, "width": 128},
    }
    config = TrainConfig.model_validate(
        {
            "name": "x",
            "tasks": ["segmentation"],
            "data": {"source": f"folder:{simulated}"},
            "preprocess": contract,
        }
    )
    data = FusionDataset(recording, config.preprocess, config.corruption, 0)
    phase = ResolutionPhase(crop=(64, 96), scale=(0.8, 1.2))
    sample = augment(data.raw(0), phase, config.corruption, np.random.default_rng(3))
    assert len(sample.sensors) == 4
    for own in sample.sensors.values():
        for fault in grid_faults(own.kind):
            for severity in (1, 5):
                out = corrupt_grid(own.kind, own.grid, fault, severity, 1)
                assert out.size == own.grid.size
                for name, layer in out.layers.items():
                    assert layer.dtype == own.grid.layers[name].dtype


def test_one_sensor_of_every_sample_stays_clean(simulated: Path, configure: Configure) -> None:
    config = configure(
        simulated, preprocess={"modalities": ["rgb", "depth", "thermal", "lidar"],
                               "grid": {"height": 96, "width": 128}},
    )  # fmt: skip
    data = FusionDataset(
        open_recording("folder", simulated), config.preprocess, config.corruption, 0
    )
    sample, clean = data.raw(0), set()
    for seed in range(60):
        found = spoilt(sample, ALWAYS, 5, generator(seed, 0, 0))
        assert len(found) == 3
        clean |= set(sample.sensors) - set(found)
    assert clean == set(sample.sensors)  # now this, now that one


@settings(max_examples=80, deadline=None)
@given(
    which=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=6),
    subset=st.sampled_from(list(subsets_of(("a", "b", "c")))),
)
def test_whatever_subset_is_drawn_has_a_clean_sensor(
    which: list[tuple[bool, bool, bool]], subset: tuple[str, ...]
) -> None:
    faulty = {n: torch.tensor([row[i] for row in which]) for i, n in enumerate("abc")}
    clean = {n: torch.zeros(len(which), 1, 2, 2) for n in "abc"}
    inputs = {n: faulty[n].float().reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone() for n in "abc"}
    before = {n: x.clone() for n, x in inputs.items()}
    given_clean = {n: clean[n] for n in "abc" if faulty[n].any()}
    chosen = one_clean(inputs, given_clean, faulty, subset)
    assert list(chosen) == list(subset)
    spoils = torch.stack([x.flatten(1).amax(1) for x in chosen.values()])
    assert (spoils.min(0).values == 0).all()
    changed = sum(int((chosen[n] != inputs[n]).flatten(1).any(1).sum()) for n in subset)
    assert changed == sum(all(row["abc".index(n)] for n in subset) for row in which)
    assert all(torch.equal(inputs[n], before[n]) for n in "abc")  # the batch is as it was


def test_inputs_of_several_tensors_are_made_clean_as_well() -> None:
    inputs = {"lidar": {"x": torch.ones(2, 3), "y": torch.ones(2, 1)}}
    clean = {"lidar": {"x": torch.zeros(2, 3), "y": torch.zeros(2, 1)}}
    faulty = {"lidar": torch.tensor([False, True])}
    chosen = one_clean(inputs, clean, faulty, ("lidar",))["lidar"]
    assert chosen["x"].tolist() == [[1, 1, 1], [0, 0, 0]] and chosen["y"].tolist() == [[1], [0]]


def test_without_faults_the_batch_is_given_as_it_is() -> None:
    batch = Batch({"a": torch.ones(1), "b": torch.ones(1)}, {})
    assert batch.of(("a",))["a"] is batch.inputs["a"]
    assert list(batch.without_faults(("b", "c"))) == ["b"]


# The same again


def test_what_is_augmented_besides_does_not_depend_on_it(
    record: Record, configure: Configure
) -> None:
    root = record(6)
    plain = _data(root, configure(root))
    with_faults = _data(root, configure(root, curriculum={"probability": 1.0}))
    phase = ResolutionPhase(crop=(64, 96), scale=(0.7, 1.2))
    for frame in range(6):
        inputs, truths = plain[Draw(frame, 2, phase)]
        changed, same, clean = with_faults[Draw(frame, 2, phase, 4)]  # type: ignore[misc]
        assert len(clean) == 1
        assert np.array_equal(truths["segmentation"], same["segmentation"])
        for name, values in inputs.items():
            assert np.array_equal(values, clean.get(name, changed[name]))
            assert np.array_equal(values, changed[name]) == (name not in clean)
        again = with_faults[Draw(frame, 2, phase, 4)]
        assert all(np.array_equal(changed[n], again[0][n]) for n in changed)
        assert len(with_faults[Draw(frame, 2, phase)]) == 2  # before the first severity
    batch = collate([with_faults[Draw(i, 0, phase, 1)] for i in range(6)])
    assert set(batch.faulty) == {"rgb", "depth"}
    assert torch.equal(batch.faulty["rgb"], ~batch.faulty["depth"])


# On the ground


class _WithDepth(Scenes):
    """Scenes that a depth camera sees, too: a slanted wall ahead."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        rows = np.arange(64, dtype=np.float32)[:, None] / 20
        for index, frame in enumerate(self.frames):
            ahead = frame["cam_front"]
            wall = np.broadcast_to(4 + rows, (64, 96)).copy()
            own = replace(ahead, kind="depth", data=wall, sensor="depth")
            self.frames[index] = Frame({**frame, "depth": own}, 0)
        sensors = {name: s.kind for name, s in self.frames[0].items()}
        self.info = replace(self.info, sensors=sensors)


def test_every_fault_can_be_put_on_a_scene_on_the_ground() -> None:
    rules, recording = contract(*poses(), "depth"), _WithDepth(2)
    data = FusionDataset(recording, rules, CorruptionSpec(), 0, ["boxes3d"])
    sample = data._augmented(Draw(0, 0, data.phase), np.random.default_rng(1))
    assert len(sample.sensors) == 6
    for name, own in sample.sensors.items():
        assert isinstance(own, OnGrid)
        for fault in grid_faults(own.kind):
            for severity in (1, 5):
                out = corrupt_grid(own.kind, own.grid, fault, severity, 1)
                assert set(out.layers) == set(own.grid.layers)
                given = replace(sample, sensors={name: OnGrid(own.kind, out)})
                for values in tensors_of(network_inputs(given, rules)[name]):
                    assert np.isfinite(values).all(), (name, fault, severity)


def test_scenes_on_the_ground_have_the_faults_and_stay_where_they_are() -> None:
    rules, recording = contract(*poses(), "depth"), _WithDepth(3)
    sets = [
        FusionDataset(recording, rules, CorruptionSpec(), 0, ["boxes3d"], spec)
        for spec in (None, ALWAYS, ALWAYS)
    ]
    items = []
    for frame in range(3):
        (inputs, truths), *faulty = (
            own[Draw(frame, 2, own.phase, 4 * (i > 0))] for i, own in enumerate(sets)
        )  # type: ignore[misc]
        (changed, same, clean), again = faulty  # type: ignore[misc]
        assert set(clean) < set(inputs) == {*poses(), "depth"} and len(clean) == 5
        assert np.array_equal(truths["boxes3d"].boxes.center, same["boxes3d"].boxes.center)
        for name, values in inputs.items():
            for tensor, value in values.items():
                now, before = changed[name][tensor], clean.get(name, changed[name])[tensor]
                assert np.array_equal(value, before)
                assert np.array_equal(now, again[0][name][tensor])
                if tensor == "table":  # the fault is one of the picture, not of its calibration
                    assert np.array_equal(now, value)
            first = next(iter(values))
            assert np.array_equal(values[first], changed[name][first]) == (name not in clean)
        items.append(faulty[0])
    batch = collate(items)
    assert set(batch.faulty) == {*poses(), "depth"}
    model = build_model(
        "pillarbev", rules, {"boxes3d": half_of("boxes3d").spec(recording.info)},
        pretrained=False, options={"width": 16, "camera": 0.25},
    ).train()  # fmt: skip
    for subset in (("lidar",), ("cam_front", "cam_left"), rules.names):
        given = batch.of(subset)
        output = model(given)
        terms = loss_terms(model, output, batch, LossSpec(), {})
        assert torch.isfinite(total(terms))


def test_a_run_on_the_ground_learns_from_spoilt_scenes(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    source = write_scenes(Scenes(8), tmp_path / "scenes")
    losses = []
    for number, probability in enumerate((0.7, 0.7, 0.0)):
        config = TrainConfig.model_validate(
            {
                "name": "made",
                "tasks": ["boxes3d"],
                "model": {"name": "pillarbev", "pretrained": False, "options": {"width": 16}},
                "data": {"source": f"folder:{source}"},
                "preprocess": contract("cam_front", "lidar").model_dump(mode="json"),
                "epochs": 1,
                "resolution": [{"batch": 4}],
                "curriculum": {"probability": probability, "severity": [5, 5]},
                "precision": "float32",
            }
        )
        Trainer(config, tmp_path / f"run{number}").fit()
        rows = (tmp_path / f"run{number}" / "log.csv").read_text().splitlines()
        losses.append(float(rows[1].split(",")[rows[0].split(",").index("loss")]))
    assert np.isfinite(losses).all()
    assert losses[0] == losses[1] != losses[2]


def test_a_run_with_it_resumes_to_the_same_weights(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    root = record(20)
    config = configure(
        root,
        epochs=3,
        curriculum={"probability": 0.7, "severity": [1, 4], "over": 1.0},
        subsets={"by_gap": 3.0},
        loss={"alone": 0.5},
        method={"name": "distill", "options": {"average": True, "features": 0.5}},
        precision="float32",
    )
    whole = Trainer(config, tmp_path / "whole")
    whole.fit()
    first = Trainer(config, tmp_path / "parts")
    run_epoch, done = first._run_epoch, []

    def stop_after_one() -> dict[str, object]:
        if done:
            raise KeyboardInterrupt
        done.append(1)
        return run_epoch()

    first._run_epoch = stop_after_one  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = Trainer(config, tmp_path / "parts")
    second.resume()
    assert second.epoch == 1
    second.fit()
    ends = [load_checkpoint(tmp_path / n / "last.safetensors") for n in ("whole", "parts")]
    assert all(torch.equal(ends[0].weights[k], v) for k, v in ends[1].weights.items())
    assert all(torch.equal(ends[0].ema[k], v) for k, v in ends[1].ema.items())
    rows = whole.log
    assert "gap/rgb" in rows[-1] and "distill/average" in rows[-1]


def test_it_changes_what_is_learned_and_no_worker_matters(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    root, ends = record(10), []
    for name, workers, chance in (("off", 0, 0.0), ("on", 0, 1.0), ("workers", 2, 1.0)):
        config = configure(
            root, workers=workers, curriculum={"probability": chance}, precision="float32"
        )
        trainer = Trainer(config, tmp_path / name)
        trainer.fit()
        ends.append(load_checkpoint(tmp_path / name / "last.safetensors").weights)
    same = [all(torch.equal(ends[1][k], end[k]) for k in end) for end in ends]
    assert same == [False, True, True]


# What is refused


@pytest.mark.parametrize(
    ("curriculum", "said"),
    [
        ({"probability": 1.5}, "curriculum.probability"),
        ({"probability": float("nan")}, "curriculum.probability"),
        ({"probabilty": 0.5}, "did you mean 'probability'?"),
        ({"severity": [0, 3]}, "severity must be (low, high)"),
        ({"severity": [4, 2]}, "severity must be (low, high)"),
        ({"severity": [1, 6]}, "severity must be (low, high)"),
        ({"severity": 3}, "curriculum.severity"),
        ({"over": 0}, "curriculum.over"),
        ({"faults": {"rbg": ["fog"]}}, "no input 'rbg'; did you mean 'rgb'?"),
        ({"faults": {"rgb": ["motion_blurr"]}}, "did you mean 'motion_blur'?"),
        ({"faults": {"depth": ["motion_blur"]}}, "depth has no fault 'motion_blur'"),
        ({"faults": {"rgb": ["frozen"]}}, "befalls messages on their way"),
        ({"faults": {"rgb": ["extrinsics"]}}, "one of samples"),
        ({"faults": {"rgb": "fog"}}, "curriculum.faults.rgb"),
        ({"faults": ["fog"]}, "curriculum.faults"),
        (0.5, "curriculum"),
    ],
)
def test_wrong_ones_are_one_line(curriculum: object, said: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    fields = {
        "name": "tiny",
        "tasks": ["segmentation"],
        "data": {"source": "folder:x"},
        "preprocess": BOTH,
    }
    path.write_text(yaml.safe_dump(fields | {"curriculum": curriculum}))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = str(caught.value)
    assert said in line and "c.yaml" in line and "\n" not in line


def test_with_one_sensor_there_is_none_to_stay_clean() -> None:
    fields = {
        "name": "tiny",
        "tasks": ["segmentation"],
        "data": {"source": "folder:x"},
        "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 96}},
    }
    TrainConfig.model_validate(fields)
    with pytest.raises(ValueError, match="there is only one"):
        TrainConfig.model_validate(fields | {"curriculum": {"probability": 0.1}})
