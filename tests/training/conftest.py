"""A recording in the folder format whose frames may lack sensors, labels and boxes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pytest

from perception.data.base import Boxes, ClassInfo
from perception.data.folder import FolderWriter, folder_info
from perception.frame import Kind
from perception.training.config import TrainConfig

SIZE = (64, 96)
Labels = Callable[[int], int | None]
Record = Callable[..., Path]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Writes one: `record(10, lacks={("depth", 3)}, unlabeled=range(4), empty=..., classes=3)`."""

    def write(
        count: int = 10,
        *,
        modalities: tuple[Kind, ...] = ("rgb", "depth"),
        sensors: Mapping[str, Kind] | None = None,
        lacks: Collection[tuple[str, int]] = (),
        unlabeled: Collection[int] = (),
        empty: Collection[int] = (),
        classes: int = 3,
        kinds: int = 0,
        name: str = "recording",
    ) -> Path:
        root = tmp_path / name
        named: Mapping[str, Kind] = sensors or {m: m for m in modalities}
        info = folder_info(
            name=name,
            size=SIZE,
            sensors=named,
            seg_classes=tuple(ClassInfo(i, f"class{i}", (i, 2, 3)) for i in range(classes)),
            det_classes=tuple(ClassInfo(i, f"kind{i}", (i, 2, 3)) for i in range(kinds)),
        )
        rng = np.random.default_rng(0)
        samples = {
            "rgb": lambda: rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8),
            "depth": lambda: rng.uniform(1, 5, SIZE).astype(np.float32),
            "thermal": lambda: rng.uniform(280, 300, SIZE).astype(np.float32),
        }
        with FolderWriter(root, info) as out:
            for index in range(count):
                given = {s: make() for k, make in samples.items() for s in named if named[s] == k}
                labels = rng.integers(0, max(1, classes), SIZE).astype(np.uint8)
                if index in unlabeled:
                    labels[:] = 255
                boxes = Boxes.of(np.array([[20, 10, 60, 50]]), np.array([index % max(1, kinds)]))
                out.add(
                    f"f{index:03}",
                    stamp_ns=(index + 1) * 10**8,
                    labels=labels if classes else None,
                    boxes=(Boxes.empty() if index in empty else boxes) if kinds else None,
                    samples={s: v for s, v in given.items() if (s, index) not in lacks},
                )
        return root

    return write


@pytest.fixture
def configure() -> Callable[..., TrainConfig]:
    """A configuration of a tiny AnyFuse for such a recording, with fields replaced."""

    def make(root: Path, **changes: object) -> TrainConfig:
        fields: dict[str, object] = {
            "name": "tiny",
            "tasks": ["segmentation"],
            "model": {"pretrained": False, "options": {"width": 0.25, "decoder_width": 16}},
            "data": {"source": f"folder:{root}"},
            "preprocess": {
                "modalities": ["rgb", "depth"],
                "grid": {"height": SIZE[0], "width": SIZE[1]},
            },
            "epochs": 1,
            "resolution": [{"crop": SIZE, "scale": [1.0, 1.0], "batch": 2}],
            "optimizer": {"warmup_epochs": 0},
            "validate_every": 1,
        }
        return TrainConfig.model_validate(fields | changes)

    return make
