"""Teachers that are bundles, the run's own average, what they see, and features as lessons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from export.bundle_writer import ExportOptions, export_bundle
from perception.cli.main import main
from perception.errors import ConfigError
from perception.runtime.bundle import Bundle
from perception.training.config import TrainConfig
from perception.training.dataset import Batch
from perception.training.loop import Trainer

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]


@pytest.fixture
def taught(record: Record, configure: Configure, tmp_path: Path) -> tuple[Path, Path, Path]:
    """A recording, a run on it, and the bundle of the run."""
    root = record(10)
    Trainer(configure(root, precision="float32"), tmp_path / "run").fit()
    export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    return root, tmp_path / "run", tmp_path / "bundle"


def _student(
    configure: Configure, root: Path, out: Path, *, fields: dict[str, object] | None = None, **options: object
) -> Trainer:  # fmt: skip
    method = {"name": "distill", "options": options}
    trainer = Trainer(configure(root, method=method, precision="float32", **(fields or {})), out)
    trainer.train_set.preload()
    return trainer


def test_a_bundle_teaches_what_its_run_does(
    taught: tuple[Path, Path, Path], configure: Configure, tmp_path: Path
) -> None:
    root, run, bundle = taught
    lessons, terms = [], []
    for teacher in (run, bundle):
        trainer = _student(configure, root, tmp_path / f"s{teacher.name}", teachers=[str(teacher)])
        model = trainer.method.teachers[teacher.name]  # type: ignore[attr-defined]
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        batch = next(iter(trainer.batches.epoch(0)))
        with torch.no_grad():
            lessons.append(model(batch.inputs).values["segmentation"])
        torch.manual_seed(0)
        terms.append(float(trainer.learn(batch, ("depth",))))
    scale = float(lessons[0].abs().max())
    assert torch.allclose(lessons[0], lessons[1], atol=2e-3 * max(1.0, scale))
    assert terms[0] == pytest.approx(terms[1], rel=1e-2)


def test_the_teacher_sees_all_sensors_before_their_faults(
    taught: tuple[Path, Path, Path], configure: Configure, tmp_path: Path
) -> None:
    root, _, bundle = taught
    fields = {"curriculum": {"probability": 1.0, "severity": [5, 5]}}
    trainer = _student(configure, root, tmp_path / "s", fields=fields, teachers=str(bundle))
    seen: list[dict[str, torch.Tensor]] = []
    teacher = trainer.method.teachers["bundle"]  # type: ignore[attr-defined]
    teacher.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    batch = next(iter(trainer.batches.epoch(0)))
    assert batch.faulty["rgb"].any() or batch.faulty["depth"].any()
    trainer.learn(batch, ("depth",))
    assert set(seen[0]) == {"rgb", "depth"}
    for name, image in seen[0].items():
        for sample, faulty in enumerate(batch.faulty[name].tolist()):
            source = batch.clean if faulty else batch.inputs
            assert torch.equal(image[sample], source[name][sample])


def test_the_average_follows_the_run(record: Record, configure: Configure, tmp_path: Path) -> None:
    trainer = _student(configure, record(10), tmp_path / "s", average=True)
    batch = next(iter(trainer.batches.epoch(0)))
    trainer.step(batch, ("rgb", "depth"))
    trainer.step(batch, ("rgb",))
    before = {k: v.clone() for k, v in trainer.average.state.items()}
    trainer.learn(batch, ("depth",))
    teacher = trainer.method.teachers["average"]  # type: ignore[attr-defined]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert not torch.equal(
        teacher.state_dict()["trunk.segmentation.classify.weight"],
        trainer.model.state_dict()["trunk.segmentation.classify.weight"],
    )


def test_features_are_a_lesson_of_their_own(
    taught: tuple[Path, Path, Path], configure: Configure, tmp_path: Path
) -> None:
    root, run, bundle = taught
    found = {}
    for weight in (0.0, 2.0):
        trainer = _student(
            configure,
            root,
            tmp_path / f"s{weight}",
            fields={"model": {"pretrained": False, "start_from": [str(run)],
                              "options": {"width": 0.25, "decoder_width": 16}}},
            teachers=[str(bundle)],
            features=weight,
        )  # fmt: skip
        batch = next(iter(trainer.batches.epoch(0)))
        output = trainer.model.train()(batch.inputs)
        terms = trainer.method.extra_terms(batch.inputs, output, batch)
        found[weight] = terms
        if weight:
            (gradient,) = torch.autograd.grad(
                terms["distill_features"],
                trainer.model.encoders["rgb"].stem.conv.weight,  # type: ignore[union-attr]
            )
            assert gradient.abs().sum() > 0
            assert not trainer.method._seen  # type: ignore[attr-defined]
    assert set(found[0.0]) == {"distill_segmentation"}
    assert 0 < float(found[2.0]["distill_features"].detach()) <= 4
    assert float(found[2.0]["distill_segmentation"].detach()) >= 0


def test_a_teacher_of_the_students_own_answers_is_at_no_distance(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    trainer = _student(configure, record(10), tmp_path / "s", average=True, features=1.0)
    batch = next(iter(trainer.batches.epoch(0)))
    trainer.model.eval()
    output = trainer.model(batch.inputs)
    terms = trainer.method.extra_terms(batch.inputs, output, batch)
    assert float(terms["distill_features"].detach()) == pytest.approx(0, abs=1e-5)
    assert float(terms["distill_segmentation"].detach()) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "needs at least one run or bundle"),
        ({"average": True, "features": -1}, "features"),
        ({"average": True, "features": float("nan")}, "features"),
        ({"average": True, "temperature": 0}, "must be positive"),
        ({"average": True, "weight": float("inf")}, "must be positive"),
        ({"average": True, "temprature": 2}, "did you mean 'temperature'?"),
        ({"teachers": ["indoor-rgdb"]}, "no such run, and no bundle of that name"),
        ({"teachers": ["sim-rgbdtl"]}, "sim-rgbdtl"),  # other classes, another model
    ],
)
def test_wrong_teachers_are_one_line(
    options: dict[str, object], said: str, record: Record, configure: Configure, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        _student(configure, record(10), tmp_path / "s", **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_classes_and_preprocessing_must_be_the_students(
    taught: tuple[Path, Path, Path], record: Record, configure: Configure, tmp_path: Path
) -> None:
    root, run, bundle = taught
    more = record(10, classes=4, name="more")
    for teacher in (run, bundle):
        with pytest.raises(ConfigError, match="other classes"):
            _student(configure, more, tmp_path / "s", teachers=[str(teacher)])
        other = {
            "preprocess": {
                "modalities": ["rgb", "depth"],
                "grid": {"height": 64, "width": 96},
                "depth": {"max_m": 40.0},
            }
        }
        with pytest.raises(ConfigError, match="preprocessing of depth is not the student's"):
            _student(configure, root, tmp_path / "s", fields=other, teachers=[str(teacher)])
    wide = {"name": "anyfuse", "options": {"width": 0.5, "decoder_width": 16}}
    with pytest.raises(ConfigError, match="not .* as in the model"):
        _student(configure, root, tmp_path / "s", teachers=[str(bundle)], bundles_are=wide)
    student = {"model": {"pretrained": False, "options": {"width": 0.5, "decoder_width": 16}}}
    own = {"name": "anyfuse", "options": {"width": 0.25, "decoder_width": 16}}
    trainer = _student(
        configure, root, tmp_path / "w", fields=student, teachers=[str(bundle)], bundles_are=own
    )
    batch = next(iter(trainer.batches.epoch(0)))
    assert trainer.learn(batch, ("rgb",)) is not None  # a smaller teacher of a wider student


def test_names_of_classes_are_compared_too(
    taught: tuple[Path, Path, Path], configure: Configure, tmp_path: Path
) -> None:
    root, _, bundle = taught
    trainer = _student(configure, root, tmp_path / "s", teachers=[str(bundle)])
    teacher = trainer.method.teachers["bundle"]  # type: ignore[attr-defined]
    spec = teacher.tasks["segmentation"]
    classes = [c.model_copy(update={"name": f"other {c.name}"}) for c in spec.labels]
    teacher.tasks["segmentation"] = spec.model_copy(update={"classes": tuple(classes)})
    with pytest.raises(ConfigError, match="other segmentation classes"):
        trainer.method.check(trainer.train_set.recording.info, ["segmentation"])


def test_the_licence_of_a_teacher_goes_on(
    taught: tuple[Path, Path, Path], configure: Configure, tmp_path: Path
) -> None:
    root, _, bundle = taught  # whose licence nobody has stated
    for name, teacher in (("first", bundle), ("second", tmp_path / "first")):
        method = {"name": "distill", "options": {"teachers": [str(teacher)]}}
        Trainer(configure(root, method=method), tmp_path / name).fit()
        export_bundle(tmp_path / name, tmp_path / f"b-{name}", ExportOptions(licence="MIT"))
        weights = Bundle.open(tmp_path / f"b-{name}").manifest.licence.weights
        assert weights.startswith("MIT; taught by ")


def test_the_command_takes_a_bundle(
    taught: tuple[Path, Path, Path],
    configure: Configure,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, _, bundle = taught
    path = tmp_path / "c.yaml"
    path.write_text(configure(root).model_dump_json())
    argv = ["distill", str(path), "--teacher", str(bundle), "--out", str(tmp_path / "student")]
    assert main(argv) == 0
    assert "distill/bundle" in (tmp_path / "student" / "log.csv").read_text()
    assert main([*argv[:3], "no-such-bundle", *argv[4:]]) == 2
    assert "no bundle of that name" in capsys.readouterr().err
    assert Batch({}, {}).faulty == {}
