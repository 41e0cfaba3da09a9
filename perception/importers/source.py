"""What an importer says of a data set: its frames, where their files are, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.data.base import IGNORE_LABEL, Boxes, TruthBoxes3d
from perception.data.classes import distinct_color
from perception.frame import Kind
from perception.geometry.rig import Rig
from perception.geometry.transforms import RigidTransform

UNLABELED = -1
"""In `Marks.labels`, a pixel of which nothing is known."""

SPLITS = ("train", "val", "test")
_CALLED = {
    **{split: split for split in SPLITS},
    "training": "train", "valid": "val", "validation": "val", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class TimedPoints:
    """A cloud, (N, 3..5) float32, and when each point was measured, see `Sample.times`."""

    points: NDArray[np.float32]
    times: NDArray[np.float32]


Stored = Path | NDArray[Any] | TimedPoints
"""A file that the folder format reads as it is, or what a file of it would hold: integers of a picture, or
(N, 3..5) float32 of a cloud."""


@dataclass(frozen=True)
class Named:
    """A class of the data set, by its place in `Source.seg_classes` or `det_classes`."""

    name: str
    color: tuple[int, int, int]


def named(names: Sequence[str], colors: Sequence[tuple[int, int, int]] = ()) -> tuple[Named, ...]:
    """Classes of these names, in colors that differ where none are given."""
    given = list(colors) or [distinct_color(i) for i in range(len(names))]
    return tuple(Named(name, color) for name, color in zip(names, given, strict=True))


@dataclass
class Marks:
    """The truth about one frame, in pixels of the labeled picture as it is seen upright.

    Attributes:
        labels: (H, W) int, places in `Source.seg_classes`, `UNLABELED` where nothing is known; None for a
            frame without.
        boxes: with places in `Source.det_classes` as classes; None for a frame that nobody looked at.
            A region that is to be ignored whatever is in it is one ignored box of each class.
        boxes3d: the same in space, in the frame that the recording will have them in: that of the first
            LiDAR, or what `Source.fields` say as `boxes3d_frame`.
        withheld: the data set keeps the truth of this frame to itself, as of its test set.
    """

    labels: NDArray[np.integer[Any]] | None = None
    boxes: Boxes | None = None
    boxes3d: TruthBoxes3d | None = None
    withheld: bool = False


@dataclass
class Item:
    """One frame of a data set.

    Attributes:
        name: what it is called there, unique; ids of frames are made of it.
        samples: by sensor a file, or a function that gives what one would hold, None for no sample.
        marks: reads the truth.
        sizes: (height, width) of pictures that are no files, by sensor, or what tells them.
        aliases: other names by which lists may call it.
        split: the data set's own, `train`, `val` or `test`; empty for none.
        sequence: the drive or scene that it is of; empty for none.
        stamp_ns: when it was taken, by a clock of its sequence; None where that is not known.
        tags: conditions, as `night`.
        rig: the calibration, the same object for frames that share it.
        pose: from the rig's base to a fixed frame; None where that is not known.
    """

    name: str
    samples: Mapping[str, Path | Callable[[], Stored | None]]
    marks: Callable[[], Marks] = Marks
    sizes: Mapping[str, tuple[int, int]] | Callable[[], Mapping[str, tuple[int, int]]] = field(
        default_factory=dict
    )
    aliases: tuple[str, ...] = ()
    split: str = ""
    sequence: str = ""
    stamp_ns: int | None = None
    tags: tuple[str, ...] = ()
    rig: Rig | None = None
    pose: RigidTransform | None = None


@dataclass
class Source:
    """A data set.

    Attributes:
        name: of the data set, for people.
        sensors: their kinds by name.
        items: its frames, of each sequence in order of time.
        seg_classes, det_classes: what `Marks` count.
        labels_of: the sensor in whose pixels the truth is; empty for the usual one.
        fields: of `dataset.yaml`, what files do not say themselves, such as `depth_scale`.
        rate_hz: where frames have no stamps.
        licence: of the data.
        notes: what is to be known of it, a line each.
        sized: (height, width) of the labels where no sensor has a picture.
    """

    name: str
    sensors: dict[str, Kind]
    items: list[Item]
    seg_classes: tuple[Named, ...] = ()
    det_classes: tuple[Named, ...] = ()
    labels_of: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    rate_hz: float = 10.0
    licence: str = "unknown: treat as research use"
    notes: list[str] = field(default_factory=list)
    sized: tuple[int, int] | None = None


def to_places(labels: NDArray[Any], table: Mapping[int, int]) -> NDArray[np.int32]:
    """Ids of a file (any shape, unsigned integers) as places of classes; other ids are `UNLABELED`.

    Args:
        labels: the ids.
        table: places by id.
    """
    most = max([int(labels.max(initial=0)), *table, IGNORE_LABEL])
    lookup = np.full(most + 1, UNLABELED, np.int32)
    for number, place in table.items():
        lookup[number] = place
    return lookup[labels]


def split_folders(folder: Path) -> list[tuple[str, str]]:
    """Folders of splits in a folder of pictures, such as `images/train`: (split, its folder's name).

    ("", "") alone where there are none.
    """
    found = [(split, name) for name, split in _CALLED.items() if (folder / name).is_dir()]
    return found or [("", "")]
