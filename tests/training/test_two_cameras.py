"""Two cameras of a kind: matched by name, augmented apart, trained through one encoder, either missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from perception.data.base import Recording, RecordingInfo, Truth
from perception.data.registry import open_recording
from perception.errors import AnySenseError, ConfigError
from perception.frame import KINDS, Frame, Kind, Sample
from perception.preprocess import GridSpec, PreprocessContract
from perception.search.search import Search, SearchOptions
from perception.sensors.kind import Grid
from perception.training.adapt import Adapter, AdaptOptions
from perception.training.augment import OnGrid, RawSample, augment
from perception.training.building import build_from_config, describe_recording, recording_info
from perception.training.checkpoint import BEST, load_checkpoint, load_weights, save_checkpoint
from perception.training.config import CorruptionSpec, ResolutionPhase, TrainConfig, load_config
from perception.training.dataset import FusionDataset, load_raw, network_inputs
from perception.training.loop import Trainer
from tests.training.test_same_as_serving import Frames, samples

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]

VIEW = {"height": 64, "width": 96}
CAMERA = {"kind": "rgb", "encoder": "camera", "view": VIEW}
STEREO = {"left": CAMERA, "right": CAMERA, "depth": {"kind": "depth", "view": VIEW}}
SENSORS: dict[str, Kind] = {"left": "rgb", "right": "rgb", "depth": "depth"}
ROUGH = CorruptionSpec(**dict.fromkeys(CorruptionSpec.model_fields, 0.9))
WAS_ROUGH = ROUGH.model_copy(update={"fewer_beams": 0.0})  # before there was that


def test_training_goes_on_with_either_camera_missing(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    lacks = {("left", i) for i in range(4)} | {("right", i) for i in range(4, 8)}
    root = record(15, sensors=SENSORS, lacks=lacks, kinds=2)
    config = configure(root, preprocess=STEREO, tasks=["segmentation", "detection"], epochs=2)
    trainer = Trainer(config, tmp_path / "run")
    learned: dict[tuple[str, ...], bool] = {}
    step = trainer.step

    def watched(batch, subset):  # type: ignore[no-untyped-def]
        before = trainer.model.encoders["camera"].stem.conv.weight.detach().clone()  # type: ignore[union-attr]
        loss = step(batch, subset)
        after = trainer.model.encoders["camera"].stem.conv.weight  # type: ignore[union-attr]
        learned[tuple(batch.inputs)] = loss is not None and not after.equal(before)
        return loss

    trainer.step = watched  # type: ignore[method-assign]
    trainer.config.full_set_probability = 1.0
    trainer.fit()
    assert learned == {
        ("depth", "right"): True,
        ("depth", "left"): True,
        ("depth", "left", "right"): True,
    }
    scores = {key.split("/")[0] for key in trainer.log[-1] if "/" in key}
    assert scores == {
        "depth+left+right",
        "depth+left",
        "depth+right",
        "left+right",
        "depth",
        "left",
        "right",
    }
    state = load_checkpoint(tmp_path / "run")
    assert state.config.preprocess == config.preprocess
    model = build_from_config(state.config, recording_info(state.progress), pretrained=False)
    load_weights(model, state.ema, "run")
    assert set(model.encoders) == {"camera", "depth"}
    again = Trainer(config.model_copy(update={"epochs": 3}), tmp_path / "run")
    again.resume()
    again.fit()
    assert [row["epoch"] for row in again.log] == [1, 2, 3]


def _stereo_raw(**same: np.ndarray) -> RawSample:
    kinds: dict[str, Kind] = {"left": "rgb", "right": "rgb", "near": "depth", "far": "depth"}
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    depth = rng.uniform(1, 5, (64, 96)).astype(np.float32)
    values = {"rgb": picture, "depth": depth}
    labels = rng.integers(0, 3, (64, 96)).astype(np.uint8)
    sensors = {name: OnGrid(kind, Grid({"image": values[kind]})) for name, kind in kinds.items()}
    return RawSample(sensors, {"segmentation": labels}, labels_of="left")


def test_inputs_of_a_kind_get_corruption_and_misalignment_of_their_own() -> None:
    raw = _stereo_raw()
    phase = ResolutionPhase(crop=(64, 96), scale=(1.0, 1.0))
    for seed in range(5):
        out = augment(raw, phase, ROUGH, np.random.default_rng(seed)).sensors
        assert not np.array_equal(out["left"].grid.image, out["right"].grid.image)
        assert not np.array_equal(out["near"].grid.image, out["far"].grid.image, equal_nan=True)


def test_only_the_labeled_camera_stays_where_the_labels_are() -> None:
    """Without corruption of values, edges of a step picture tell where each input lies."""
    raw = _stereo_raw()
    step = np.zeros((64, 96, 3), np.uint8)
    step[:, 48:] = 200
    labels = (step[..., 0] > 0).astype(np.uint8)
    raw = RawSample(
        {n: OnGrid("rgb", Grid({"image": step})) for n in ("left", "right")},
        {"segmentation": labels},
        labels_of="left",
    )
    quiet = CorruptionSpec(pixel_dropout=0, noise=0, exposure=0, beam_reduction=0, misalignment=1)
    phase = ResolutionPhase(crop=(64, 96), scale=(1.0, 1.0))
    moved = []
    for seed in range(12):
        out = augment(raw, phase, quiet, np.random.default_rng(seed))
        edges = {}
        for name, own in out.sensors.items():
            row = own.grid.image[32, 8:-8].astype(float).mean(-1)
            edges[name] = int(np.argmax(np.abs(np.diff(row))))
        labels_seen = out.truths["segmentation"]
        edge = int(np.argmax(np.abs(np.diff(labels_seen[32, 8:-8].astype(float)))))
        assert edges["left"] == edge
        moved.append(edges["right"] != edge)
    assert sum(moved) > 5


@pytest.mark.parametrize(
    ("lacks", "drawn", "means"),
    [
        ((), 465958067, {"rgb": -1.826, "depth": 0.3082, "thermal": 0.462, "lidar": 0.0274}),
        (("rgb",), 1487972348, {"depth": 0.2705, "thermal": 0.4096, "lidar": 0.0298}),
        (("depth",), 502177218, {"rgb": -1.826, "thermal": 0.4664, "lidar": 0.0324}),
        (("thermal", "lidar"), 866323919, {"rgb": -1.826, "depth": 0.3082}),
    ],
)
def test_one_of_a_kind_draws_what_it_drew_before_sensors_had_names(
    lacks: tuple[Kind, ...], drawn: int, means: dict[str, float]
) -> None:
    """Pinned with the code of that time: the next number after a view, and means of the inputs."""
    given = _plain_samples()
    rules = PreprocessContract(modalities=list(KINDS), grid=GridSpec(height=64, width=96))
    raw = load_raw(Frames([Frame({k: s for k, s in given.items() if k not in lacks})]), 0, rules)
    rng = np.random.default_rng(5)
    phase = ResolutionPhase(crop=(64, 64), scale=(0.6, 1.2), batch=2)
    got = network_inputs(augment(raw, phase, WAS_ROUGH, rng), rules)
    assert int(rng.integers(2**31)) == drawn
    assert {m: float(x.mean()) for m, x in got.items()} == pytest.approx(means, abs=1e-3)


def _plain_samples() -> dict[Kind, Sample]:
    size = (70, 101)
    rng = np.random.default_rng(1)
    depth = rng.uniform(0.2, 25, size).astype(np.float32)
    depth[rng.random(size) < 0.3] = np.nan
    depth[0, 0] = 1
    thermal = rng.uniform(280, 300, size).astype(np.float32)
    thermal[rng.random(size) < 0.03] = np.nan
    thermal[0, 0] = 290
    cloud = rng.uniform((2, -1, -1, 0), (90, 1, 1, 1), (400, 4)).astype(np.float32)
    cloud[0] = (5, 0, 0, 0.5)
    placed = samples(size, 1)["lidar"]
    return {
        "rgb": Sample("rgb", rng.integers(0, 256, (*size, 3), dtype=np.uint8)),
        "depth": Sample("depth", depth),
        "thermal": Sample("thermal", thermal, unit="kelvin"),
        "lidar": Sample("lidar", cloud, camera=placed.camera, extrinsics=placed.extrinsics),
    }


class OneFrame(Recording):
    """One frame, whose sensors are not what the recording says."""

    def __init__(self, sensors: dict[str, Kind], frame: Frame) -> None:
        super().__init__(Path(), RecordingInfo("folder", "made", sensors), ["0"])
        self._frame = frame

    def frame(self, index: int) -> Frame:
        return self._frame

    def truth(self, index: int) -> Truth:
        return Truth()


def test_a_sensor_of_another_kind_than_its_input_is_left_out_with_the_reason() -> None:
    rules = PreprocessContract.model_validate({"left": CAMERA})
    depth = Sample("depth", np.ones((64, 96), np.float32), sensor="left")
    raw = load_raw(OneFrame({"left": "rgb"}, Frame({"left": depth})), 0, rules)
    assert not raw.sensors
    assert raw.unusable == {"left": "left: is depth, this input takes rgb"}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"left": CAMERA, "rear": CAMERA}, "preprocess: folder data has no rear"),
        (
            {"left": {"kind": "depth", "view": VIEW}},
            "preprocess: folder data has no depth left (it is rgb)",
        ),
    ],
)
def test_inputs_that_the_data_lack_are_named(
    inputs: dict, said: str, record: Record, configure: Configure
) -> None:
    root = record(2, sensors=SENSORS)
    config = configure(root, preprocess=inputs)
    with pytest.raises(ConfigError) as caught:
        build_from_config(config, open_recording("folder", root).info, pretrained=False)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


def test_neither_adaptation_nor_search_takes_sensors_of_another_kind(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(3, sensors=SENSORS)
    target = open_recording("folder", root)
    runs = [tmp_path / name for name in ("left", "right")]
    for run in runs:
        config = configure(root, preprocess={run.name: CAMERA})
        model = build_from_config(config, target.info, pretrained=False)
        run.mkdir()
        state, progress = model.state_dict(), {"recording": describe_recording(target.info)}
        save_checkpoint(run / BEST, config, model, dict(state), None, progress)
    target.info = replace(target.info, sensors={"left": "thermal", "depth": "depth"})
    said = r"has no rgb left \(it is thermal\)"
    with pytest.raises(ConfigError, match=f"^left: the target {said}$"):
        Adapter(runs, target, AdaptOptions())
    with pytest.raises(ConfigError, match=f"^--data: {said}, which the model takes"):
        Search(runs[0], target, tmp_path / "out", SearchOptions())
    with pytest.raises(ConfigError, match="^--data: has no right, which the model takes"):
        Search(runs[1], target, tmp_path / "out", SearchOptions())


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"left": CAMERA, "right": {**CAMERA, "view": {**VIEW, "width": 128}}},
            "encoder 'camera' have other inputs",
        ),
        (
            {"left": CAMERA, "depth": {"kind": "depth", "view": {**VIEW, "width": 128}}},
            "preprocess: the views of depth and left differ",
        ),
        (
            {"left": CAMERA, "depth": {"kind": "depth", "view": {**VIEW, "fit": "letterbox"}}},
            "the views of depth and left differ: inputs that are trained together",
        ),
        (
            {"left": CAMERA, "depth": {"kind": "depth", "encoder": "camera", "view": VIEW}},
            "encoder 'camera' have other inputs",
        ),
        ({"left": {**CAMERA, "kind": "sonar"}}, "preprocess.left"),
        ({"left": {"encoder": "camera"}}, "preprocess.left.kind"),
        ({"left": {**CAMERA, "colour": 1}}, "preprocess.left.colour"),
        ({"left": {**CAMERA, "preprocess": {"min_m": 1}}}, "preprocess.left"),
        ({"Left": CAMERA}, "'Left' is no name of a sensor"),
        ({"policy": CAMERA}, "no sensor can be called 'policy'"),
        ({"depth": CAMERA}, "depth: an input of another kind cannot be called so"),
        ({"left": None}, "preprocess.left"),
        ({}, "needs an input"),
        ([], "preprocess"),
        ({"modalities": ["left"]}, "modalities must be unique"),
        ({"modalities": 0.5}, "modalities must be unique"),
        ({"modalities": {"rgb": 1}}, "modalities must be unique"),
    ],
)
def test_wrong_inputs_in_a_configuration_are_one_line(
    inputs: object, said: str, tmp_path: Path
) -> None:
    content = {
        "name": "stereo",
        "tasks": ["segmentation"],
        "data": {"source": "folder:x"},
        "preprocess": inputs,
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    line = str(caught.value)
    assert said in line and "c.yaml" in line
    assert "\n" not in line and len(line) < 500


def test_checkpoints_from_before_sensors_had_names_are_read(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    """Their configuration is in the short form, and they say `modalities` of their data."""
    root = record(10)
    config = configure(root)
    Trainer(config, tmp_path / "run").fit()
    path = tmp_path / "run" / BEST
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        metadata = dict(file.metadata())
    written = json.loads(metadata["config"])
    written["preprocess"] = {
        "modalities": ["rgb", "depth"],
        "grid": {"height": 64, "width": 96, "fit": "stretch"},
        "rgb": {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]},
        "depth": {"min_m": 0.4, "max_m": 20.0},
        "lidar": {"max_range_m": 80.0},
    }
    progress = json.loads(metadata["progress"])
    sensors = progress["recording"].pop("sensors")
    progress["recording"].pop("labels_of", None)
    progress["recording"]["modalities"] = list(sensors)
    old = {"config": json.dumps(written), "progress": json.dumps(progress)}
    save_file(tensors, path, old)
    state = load_checkpoint(path)
    assert state.config == config
    info = recording_info(state.progress)
    assert info.modalities == ("rgb", "depth") and info.sensors["depth"] == "depth"
    load_weights(build_from_config(state.config, info, pretrained=False), state.ema, "old")


def test_runs_of_two_cameras_teach_each_other(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10, sensors=SENSORS, lacks={("left", 1)})
    runs = []
    for name in ("left", "right"):
        Trainer(configure(root, preprocess={name: CAMERA}), tmp_path / name).fit()
        runs.append(tmp_path / name)
    adapter = Adapter(runs, open_recording("folder", root), AdaptOptions(epochs=1), "cpu")
    assert adapter.data.contract.names == ("left", "right") and adapter.left_out == 1
    report = adapter.run(tmp_path / "out")
    assert set(report.after) == {"left", "right"}
    assert np.isfinite(report.losses).all()


def test_items_hold_the_inputs_by_name(record: Record, configure: Configure) -> None:
    root = record(3, sensors=SENSORS)
    config = configure(root, preprocess={"right": CAMERA, "left": CAMERA})
    data = FusionDataset(open_recording("folder", root), config.preprocess, ROUGH, 0)
    data.phase = config.phase(0)
    inputs, truths = data[0]
    assert tuple(inputs) == data.modalities(0) == ("right", "left")
    assert {x.shape for x in inputs.values()} == {(3, 64, 96)} and truths["segmentation"].shape == (
        64,
        96,
    )


@pytest.mark.parametrize("broken", [None, [], {}, {"modalities": 3}, {"modalities": [[]]}])
def test_a_recording_that_a_checkpoint_does_not_describe_is_said(broken: object) -> None:
    with pytest.raises(AnySenseError, match="does not say|sensor"):
        recording_info({"recording": broken})
