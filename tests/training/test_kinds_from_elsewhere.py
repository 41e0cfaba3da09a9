"""Kinds of other distributions in training: what serving sees, moved and batched with the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from perception import plugins
from perception.data.base import Recording, RecordingInfo, Truth
from perception.frame import Frame, Sample
from perception.preprocess import PreprocessContract, preprocess_sample
from perception.sensors.kind import SensorKind
from perception.sensors.registry import KINDS, kind_of
from perception.training.augment import augment
from perception.training.config import CorruptionSpec, ResolutionPhase
from perception.training.dataset import collate, load_raw, network_inputs, on_device

QUIET = CorruptionSpec(pixel_dropout=0, noise=0, exposure=0, beam_reduction=0, misalignment=0)
WHOLE = ResolutionPhase(crop=(64, 96), scale=(1.0, 1.0))


@pytest.fixture
def echoes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SensorKind]:
    """The kind of `tests/sensors/echoes.py`, as if installed: three tensors of three types, no `warp`."""
    info = tmp_path / "brings_echoes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-echoes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anysense.sensors]\nechoes = echoes:ECHOES\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "sensors"))
    plugins.plugins.cache_clear()
    KINDS._loaded.pop("echoes", None)
    yield kind_of("echoes")
    plugins.plugins.cache_clear()
    KINDS._loaded.pop("echoes", None)


class One(Recording):
    """A frame without truth."""

    def __init__(self, frame: Frame) -> None:
        kinds = {name: sample.kind for name, sample in frame.items()}
        super().__init__(Path(), RecordingInfo("folder", "made", kinds), ["0"])
        self._frame = frame

    def frame(self, index: int) -> Frame:
        return self._frame

    def truth(self, index: int) -> Truth:
        return Truth()


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_several_tensors_are_what_serving_sees_and_lie_in_batches(
    echoes: SensorKind, fit: str
) -> None:
    view = {"height": 64, "width": 96, "fit": fit}
    rules = PreprocessContract.model_validate(
        {"rgb": {"kind": "rgb", "view": view}, "radar": {"kind": "echoes", "view": view}}
    )
    assert echoes.example is not None
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 72, 3), np.uint8)
    frame = Frame({"rgb": Sample("rgb", picture), "radar": echoes.example((64, 96), rng)})
    raw = load_raw(One(frame), 0, rules)
    served = preprocess_sample(frame["radar"], rules["radar"])
    learned = network_inputs(raw, rules)["radar"]
    assert isinstance(learned, dict) and set(learned) == set(served)
    for name, array in served.items():
        np.testing.assert_array_equal(learned[name], array[0])
        assert learned[name].dtype == array.dtype
    item = (network_inputs(raw, rules), {})
    batch = on_device(
        collate([item, item]).inputs, torch.device("cpu"), memory_format=torch.channels_last
    )
    assert batch["rgb"].shape == (2, 3, 64, 96)
    for name, tensor in batch["radar"].items():
        np.testing.assert_array_equal(tensor[1].numpy(), learned[name])


def test_a_coarser_grid_is_moved_with_the_others(echoes: SensorKind) -> None:
    """Its cells are 8 x 8 pixels: a view of half of the grid shows half of the cells, mirrored as rgb is."""
    view = {"height": 64, "width": 96}
    rules = PreprocessContract.model_validate(
        {"rgb": {"kind": "rgb", "view": view}, "radar": {"kind": "echoes", "view": view}}
    )
    column = np.zeros((64, 96, 3), np.uint8)
    column[:, 24:32] = 255  # the fourth column of cells
    x = np.full(8, 28 / 96, np.float32)
    y = (np.arange(8, dtype=np.float32) + 0.5) / 8
    cloud = np.stack([x, y, np.zeros(8), np.ones(8)], axis=1).astype(np.float32)
    raw = load_raw(One(Frame({"rgb": Sample("rgb", column), "radar": Sample("echoes", cloud,
                   sensor="radar")})), 0, rules)  # fmt: skip
    for seed in range(8):
        view_of = augment(raw, WHOLE, QUIET, np.random.default_rng(seed))
        cells = view_of.sensors["radar"].grid.layers["cells"]
        picture = view_of.sensors["rgb"].grid.image[4::8, 4::8, 0]
        assert cells.shape == (8, 12)
        bright = picture > picture.mean()
        np.testing.assert_array_equal(cells[4] > 0, bright[4])
    small = augment(
        raw, ResolutionPhase(crop=(32, 64), scale=(1.0, 1.0)), QUIET, np.random.default_rng(0)
    )
    assert small.sensors["radar"].grid.layers["cells"].shape == (4, 8)
    assert network_inputs(small, rules)["radar"]["picture"].shape == (4, 8)  # type: ignore[index]
