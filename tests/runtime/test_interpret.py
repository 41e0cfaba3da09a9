"""From a fuser's outputs to the parts of a result, each part in its place."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_bundles import GRID, SmallBundles

from perception.errors import EngineError
from perception.geometry.grid import GridMap
from perception.runtime.bundle import Bundle
from perception.runtime.graph_check import expected_outputs
from perception.runtime.interpret import check_outputs, interpret
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.tasks.specs import TaskSpecs

PARTS = frozenset({"labels", "confidence", "boxes", "images"})
SIZE = (48, 64)  # of the source: it lies in two thirds of the grid's width


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> BundleManifest:
    small = SmallBundles(tmp_path_factory.mktemp("interpret"))
    return _with(Bundle.open(small(("rgb",), 3, 2)).manifest, pictures={"names": ("fused",)})


def _with(manifest: BundleManifest, **tasks: object) -> BundleManifest:
    specs = TaskSpecs.model_validate({**manifest.tasks.root, **tasks})
    return manifest.model_copy(update={"tasks": specs})


def _outputs(manifest: BundleManifest, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    known = {n: [d or 4 for d in s] for n, s in expected_outputs(manifest).items()}
    made = {n: 2 * rng.normal(size=s).astype(np.float32) for n, s in known.items()}
    made |= {n: np.abs(v) + np.float32(0.2) for n, v in made.items() if n.startswith("det_box")}
    made["image_fused"] = rng.uniform(size=(1, 3, 4, 8)).astype(np.float32)
    return made


def _grid(manifest: BundleManifest, size: tuple[int, int] = SIZE) -> GridMap:
    return GridMap.fit(size, manifest.inputs.grid)


def _interpret(
    manifest: BundleManifest,
    outputs: dict[str, np.ndarray] | None = None,
    wanted: Collection[str] = PARTS,
    **options: object,
) -> Result:
    about = {"reference": "rgb", "grids": {"rgb": _grid(manifest)}, "samples": {}, "inputs": ()}
    about |= {"fresh": frozenset(), **options}
    made = _outputs(manifest) if outputs is None else outputs
    return Result(interpret(manifest, made, wanted, **about))


def test_everything_is_in_the_sources_pixels(manifest: BundleManifest) -> None:
    found = _interpret(manifest)
    assert found.labels is not None and found.confidence is not None and found.boxes is not None
    assert found.labels.shape == found.confidence.shape == SIZE
    assert found.images["fused"].shape == (*SIZE, 3)
    assert len(found.boxes) and (found.boxes.xyxy.min(), found.boxes.xyxy.max()) >= (0, 0)
    assert (found.boxes.xyxy[:, [0, 2]] <= SIZE[1]).all()
    assert (found.boxes.xyxy[:, [1, 3]] <= SIZE[0]).all()


def test_what_lies_beside_the_source_changes_nothing(manifest: BundleManifest) -> None:
    outputs, grid = _outputs(manifest), _grid(manifest)
    before = _interpret(manifest, outputs, ("labels", "confidence", "images"))
    width = round(outputs["seg_logits"].shape[-1] * grid.scaled[1] / GRID[1])
    outputs["seg_logits"][..., width:] = 50
    outputs["image_fused"][..., round(8 * grid.scaled[1] / GRID[1]) :] = 0
    after = _interpret(manifest, outputs, ("labels", "confidence", "images"))
    assert np.array_equal(before.labels, after.labels)  # type: ignore[arg-type]
    assert np.array_equal(before.confidence, after.confidence)  # type: ignore[arg-type]
    assert np.array_equal(before.images["fused"], after.images["fused"])


@given(wanted=st.sets(st.sampled_from(sorted(PARTS))))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_only_what_is_wanted_is_made_and_it_is_the_same(
    manifest: BundleManifest, wanted: set[str]
) -> None:
    whole, found = _interpret(manifest), _interpret(manifest, wanted=wanted)
    for part in ("labels", "confidence"):
        assert (getattr(found, part) is not None) == (part in wanted)
        if part in wanted:
            assert np.array_equal(getattr(found, part), getattr(whole, part))
    assert (found.boxes is not None) == ("boxes" in wanted)
    assert found.images.keys() == (whole.images.keys() if "images" in wanted else set())


@pytest.mark.parametrize(("segmentation", "detection"), [(3, 0), (0, 2)])
def test_a_bundle_of_one_task_gives_nothing_of_the_other(
    segmentation: int, detection: int, tmp_path: Path
) -> None:
    path = SmallBundles(tmp_path)(("rgb",), segmentation, detection)
    manifest = Bundle.open(path).manifest
    found = _interpret(manifest)
    assert (found.labels is None) == (found.confidence is None) == (not segmentation)
    assert (found.boxes is None) == (not detection)


@given(factor=st.floats(0.01, 1))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_factor_is_on_confidence_and_scores_and_nothing_else(
    manifest: BundleManifest, factor: float
) -> None:
    plain, found = _interpret(manifest), _interpret(manifest, confidence=factor)
    assert plain.boxes is not None and found.boxes is not None
    assert found.confidence == pytest.approx(plain.confidence * np.float32(factor), rel=1e-6)  # type: ignore[operator]
    assert found.boxes.scores == pytest.approx(plain.boxes.scores * np.float32(factor), rel=1e-6)
    assert np.array_equal(found.boxes.xyxy, plain.boxes.xyxy)
    assert np.array_equal(found.labels, plain.labels)  # type: ignore[arg-type]


@given(low=st.floats(0.05, 0.9), factor=st.floats(0.1, 1))
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_the_least_score_is_that_of_the_caller_before_the_factor(
    manifest: BundleManifest, low: float, factor: float
) -> None:
    found = _interpret(manifest, min_score=low, confidence=factor).boxes
    every = _interpret(manifest, min_score=0.001).boxes
    assert found is not None and every is not None
    # Better boxes alone suppress others, so that a threshold only cuts the end off.
    kept = every.scores[every.scores > low]
    assert len(found) == len(kept)
    assert found.scores == pytest.approx(kept * np.float32(factor), rel=1e-5)


def test_without_one_it_is_the_bundles(manifest: BundleManifest) -> None:
    spec = manifest.tasks.boxes2d
    assert spec is not None
    default, told = _interpret(manifest), _interpret(manifest, min_score=spec.score_threshold)
    assert default.boxes is not None and told.boxes is not None
    assert np.array_equal(default.boxes.xyxy, told.boxes.xyxy)
    assert default.boxes.scores.min() > spec.score_threshold
    fewer = spec.model_copy(update={"max_detections": 3, "nms_iou": 0.2})
    few = _with(manifest, boxes2d=fewer)
    boxes = _interpret(few).boxes
    assert boxes is not None and len(boxes) == 3 < len(default.boxes)


def test_outputs_of_another_size_or_that_lack_are_refused(manifest: BundleManifest) -> None:
    good = _outputs(manifest)
    check_outputs(manifest, good)
    for name in expected_outputs(manifest):
        with pytest.raises(EngineError, match=f"{name}.*nothing"):
            check_outputs(manifest, {n: v for n, v in good.items() if n != name})
        if name != "image_fused":  # which may have any number of channels
            with pytest.raises(EngineError, match=name):
                check_outputs(manifest, {**good, name: good[name][:, :-1]})
        with pytest.raises(EngineError, match=name):
            check_outputs(manifest, {**good, name: good[name][0]})
