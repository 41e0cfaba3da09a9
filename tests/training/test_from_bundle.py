"""Training starts from a bundle: its weights are read back, checked, and kept where they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from export.bundle_writer import ExportOptions, export_bundle
from perception.cli.main import main
from perception.data.folder import FolderRecording
from perception.errors import ConfigError
from perception.models.interface import FusionModel, flatten_output
from perception.models.layers import normalized
from perception.runtime.bundle import Bundle
from perception.runtime.licences import may_ship, permissive
from perception.runtime.manifest import Licence
from perception.runtime.pipeline import Pipeline
from perception.sim.generate import make_recording
from perception.training.config import (
    DataSpec,
    ModelSpec,
    ResolutionPhase,
    TrainConfig,
    load_config,
)
from perception.training.from_bundle import model_of_bundle, settle
from perception.training.loop import Trainer
from perception.training.origins import Origin, weights_licence

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
ROOT = Path(__file__).parents[2]
MODEL = {"pretrained": False, "options": {"width": 0.25, "decoder_width": 16}}


@pytest.fixture
def bundle(record: Record, configure: Configure, tmp_path: Path) -> Path:
    """A bundle of three classes, and its run."""
    Trainer(configure(record(10)), tmp_path / "run").fit()
    export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    return tmp_path / "bundle"


def _answers(model: FusionModel) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = {
        n: torch.randn(model.inputs.input_shape(n), generator=generator) for n in model.modalities
    }
    with torch.no_grad():
        return flatten_output(model.eval()(images))


@pytest.mark.parametrize("name", ["sim-stereo", "sim-rgbdtl"])
def test_shipped_bundles_are_read_back(name: str) -> None:
    spec = load_config(ROOT / "configs" / f"{name}.yaml").model
    model = model_of_bundle(Bundle.open(ROOT / "bundles" / name), spec, name)
    assert list(model.inputs) == list(Bundle.open(ROOT / "bundles" / name).manifest.inputs)


def test_another_model_is_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for options in ({"width": 0.5, "decoder_width": 16}, {"width": 0.25, "decoder_width": 32}):
        with pytest.raises(ConfigError, match=r"x: its '.*' is \(.*, not \(") as caught:
            model_of_bundle(opened, ModelSpec(pretrained=False, options=options), "x")
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="is of the model anyfuse, not multimodn"):
        model_of_bundle(opened, ModelSpec(name="multimodn"), "x")


def test_settled_norms_leave_answers_and_normalize(bundle: Path) -> None:
    model = model_of_bundle(Bundle.open(bundle), ModelSpec.model_validate(MODEL), "x")
    before = _answers(model)
    samples = [{n: torch.randn(4, *model.inputs.input_shape(n)[1:]) for n in model.modalities}]
    settle(model, normalized(model), samples)
    for name, value in _answers(model).items():
        assert torch.allclose(value, before[name], atol=1e-3)
    with torch.no_grad():
        training = flatten_output(model.train()(samples[0]))
        serving = flatten_output(model.eval()(samples[0]))
    for name in serving:  # the batch's own statistics are those that were measured
        error = (training[name] - serving[name]).std() / serving[name].std()
        assert error < 0.05


@pytest.mark.parametrize("classes", [3, 5])
def test_heads_of_other_classes_and_more_inputs_are_made_anew(
    classes: int, bundle: Path, record: Record, configure: Configure, tmp_path: Path
) -> None:
    given = model_of_bundle(Bundle.open(bundle), ModelSpec.model_validate(MODEL), "x").state_dict()
    root = record(10, modalities=("rgb", "thermal"), classes=classes, name=f"other{classes}")
    inputs = {"modalities": ["rgb", "thermal"], "grid": {"height": 64, "width": 96}}
    config = configure(root, model={**MODEL, "start_from": str(bundle)}, preprocess=inputs, seed=5)
    trainer = Trainer(config, tmp_path / "fine")
    fresh = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    said: list[str] = []
    run, found = trainer._run_epoch, {}

    def looking() -> dict[str, object]:
        found.update({k: v.clone() for k, v in trainer.model.state_dict().items()})
        return run()

    trainer._run_epoch = looking  # type: ignore[method-assign]
    trainer._look_at_data, look = (lambda: said), trainer._look_at_data  # type: ignore[method-assign]
    look()
    trainer.fit()
    key = "encoders.rgb.stem.conv.weight"
    # Scales of what norms follow are those of the model's own first weights.
    assert torch.cosine_similarity(found[key].flatten(1), given[key].flatten(1)).min() > 0.9999
    assert torch.cosine_similarity(found[key].flatten(1), fresh[key].flatten(1)).min() < 0.9
    thermal = "encoders.thermal.stem.conv.weight"
    assert torch.equal(found[thermal], fresh[thermal])
    head = "trunk.segmentation.classify.weight"
    assert torch.equal(found[head], given[head] if classes == 3 else fresh[head])
    assert any(line.startswith("starts from the bundle tiny") for line in said)
    anew = next(line for line in said if line.startswith("made anew"))
    assert "encoders.thermal" in anew and ("classify" in anew) == (classes == 5)
    export_bundle(tmp_path / "fine", tmp_path / "again", ExportOptions())
    assert Bundle.open(tmp_path / "again").manifest.training["start"] == "bundle"


def test_an_example_on_fewer_classes_and_other_data(tmp_path: Path) -> None:
    """As the documentation says for data of one's own: here streets of another seed and four of our classes.

    How well it does is not asked of so few steps; a head is made anew, the rest is the bundle's.
    """
    streets, data = tmp_path / "streets", tmp_path / "data"
    sensors = {"rgb": "rgb", "depth": "depth"}
    make_recording(streets, "scenes", 8, seed=500005, size=(128, 160), sensors=sensors)
    names = [c.name for c in FolderRecording(streets).info.seg_classes]
    assert len(names) > 5
    chosen = ",".join([names[5], names[0], names[2], f"{names[1]}=mine", f"{names[3]}=mine"])
    command = ["data", "import", f"folder:{streets}", "--out", str(data), "--classes", chosen]
    assert main([*command, "--val-share", "0.25"]) == 0
    config = load_config(ROOT / "configs" / "fine-tune.yaml")
    config.data = DataSpec(source=f"folder:{data}")
    config.epochs, config.validate_every = 1, 1
    config.resolution = [ResolutionPhase(crop=(128, 160), scale=(1.0, 1.0), batch=2)]
    trainer = Trainer(config, tmp_path / "run")
    said: list[str] = []
    look = trainer._look_at_data
    trainer._look_at_data = lambda: (look(), said)[1]  # type: ignore[method-assign]
    trainer.fit()
    anew = next(line for line in said if line.startswith("made anew"))
    assert "trunk.segmentation.classify" in anew and "encoders" not in anew
    assert any("sim-rgbdtl" in line for line in said)
    export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    pipeline = Pipeline.load(tmp_path / "bundle", "onnxruntime")
    spec = pipeline.manifest.tasks.segmentation
    assert spec is not None
    assert [c.name for c in spec.classes] == [names[5], names[0], names[2], "mine"]
    assert pipeline.manifest.training["start"] == "sim-rgbdtl"
    result = pipeline(FolderRecording(data).frame(0))
    assert result.labels is not None and int(result.labels.max()) < 4


def test_a_name_that_is_nothing_is_one_line(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    config = configure(record(10), model={**MODEL, "start_from": "indor"})
    with pytest.raises(ConfigError, match="no such run, and no bundle of that name") as caught:
        Trainer(config, tmp_path / "run").fit()
    assert "\n" not in str(caught.value)


def _licensed(bundle: Path, weights: str, data: str) -> None:
    manifest = yaml.safe_load((bundle / "bundle.yaml").read_text())
    manifest["licence"] = {"weights": weights, "data": data}
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (bundle / "records.yaml").unlink()  # it is of the old one


@pytest.mark.parametrize(
    ("weights", "data", "said"),
    [
        ("Apache-2.0", "CC0-1.0", "MIT"),
        ("research use only", "unknown", "MIT; started from one (research use only)"),
        ("Apache-2.0", "CC BY-NC", "MIT; started from one (trained on data: CC BY-NC)"),
    ],
)
def test_an_own_licence_does_not_hide_another(weights: str, data: str, said: str) -> None:
    origin = Origin(name="one", licence=Licence(weights=weights, data=data))
    assert weights_licence("MIT", [origin]) == said
    assert permissive(said) == may_ship(origin.licence)
    free = Origin(name="free", licence=Licence(weights="MIT", data="MIT"))
    assert weights_licence("MIT", [free, origin]) == said
    assert len(weights_licence("MIT", [Origin(name="x" * 2000, licence=Licence())])) <= 1000


def test_what_weights_started_from_stays_in_their_licence(
    bundle: Path, record: Record, configure: Configure, tmp_path: Path
) -> None:
    _licensed(bundle, "research use only", "unknown")
    root, first = record(10, name="own"), {**MODEL, "start_from": str(bundle)}
    Trainer(configure(root, model=first, epochs=1), tmp_path / "first").fit()
    resumed = Trainer(configure(root, model=first, epochs=2), tmp_path / "first")
    resumed.resume()
    resumed.fit()
    second = {**MODEL, "start_from": str(tmp_path / "first")}  # at second hand
    Trainer(configure(root, model=second, epochs=1), tmp_path / "second").fit()
    for run, kept, start in (("first", "last", "bundle"), ("second", "best", "first")):
        made = tmp_path / f"{run}-made"
        source = tmp_path / run / f"{kept}.safetensors"
        export_bundle(source, made, ExportOptions(licence="MIT"))
        manifest = Bundle.open(made).manifest
        assert manifest.licence.weights == "MIT; started from tiny (research use only)"
        assert manifest.training["start"] == start
        assert not may_ship(manifest.licence)
