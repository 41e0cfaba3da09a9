"""Taking a data set over as a recording in the folder format: the part that is the same for all importers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha1
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from perception.data.base import Boxes, first_reference
from perception.data.folder import FolderWriter, folder_info
from perception.data.layout import FolderInfo
from perception.errors import ConfigError, DataError
from perception.files.folders import writing_folder
from perception.files.listing import same_name
from perception.frame import in_order
from perception.geometry.rig import Rig
from perception.importers.classes import ClassMaps, class_maps
from perception.importers.fitting import Fit, Size, common_size
from perception.importers.placing import Placer, size_of_file
from perception.importers.source import SPLITS, Item, Marks, Source
from perception.importers.splits import SplitWishes, split_of_items, thinned
from perception.sensors.registry import kind_of

MISSING = ("unlabelled", "background")
"""What a frame without a file of boxes is: one that nobody looked at, or one without objects."""

_LONGEST_ID = 120  # bytes: a suffix and what is written beside it have to fit, too
_LEAST_SIDE = 2e-6  # of a box, as a share of the picture: what six digits can say
_GAP_NS = 1_000_000_000  # between sequences whose clocks start anew

Track = Callable[[Iterable[int], str], Iterable[int]]


@dataclass(frozen=True)
class Wishes:
    """What the user says of an import.

    Attributes:
        limit: at most so many frames, of each split its share.
        classes: see `classes.class_maps`.
        missing_boxes: one of `MISSING`.
        way: one of `placing.WAYS`.
        size: (height, width) that pictures are brought to; None leaves them as they are.
        splits: which frames train and which validate.
        name: of the recording; empty for the data set's.
        dry: look only, write nothing.
    """

    limit: int | None = None
    classes: str = ""
    missing_boxes: str = MISSING[0]
    way: str = "copy"
    size: Size | None = None
    splits: SplitWishes = field(default_factory=SplitWishes)
    name: str = ""
    dry: bool = False


@dataclass
class Report:
    """What was taken over, or with `Wishes.dry` would be.

    Attributes:
        recordings: names of the recordings below the folder; one that is empty is the folder itself.
        frames, splits: how many, in all and by split.
        boxes, boxes3d, pixels: how many by name of class, without boxes that are to be ignored.
        ignored: boxes that are to be ignored.
        unlabeled: frames without labels and without boxes.
        background: frames that are looked at and have no box.
        notes: what is to be known.
    """

    recordings: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    boxes3d: Counter[str] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)
    ignored: int = 0
    unlabeled: int = 0
    background: int = 0
    notes: list[str] = field(default_factory=list)


def refuse_existing(out: Path) -> None:
    """Refuse a place where something is: an import is done in one go, and never mixed with what is there.

    Raises:
        ConfigError: there is something.
    """
    if out.is_symlink() or out.exists():
        if not out.is_dir():
            raise ConfigError("is a file; expected a new folder", where=str(out))
        if any(out.iterdir()):
            hint = "choose another --out; an import that was stopped leaves nothing, start it again"
            raise ConfigError("exists and is not empty", where=str(out), hint=hint)


def take_over(
    source: Source, out: Path | None, wishes: Wishes, track: Track = lambda items, what: items
) -> Report:
    """Make a recording of a data set.

    Args:
        source: the data set.
        out: the folder, which must be missing or empty; None only for a dry run.
        wishes: what the user says.
        track: shows progress over numbers of frames.

    Raises:
        AnySenseError: of wishes that cannot be met, or a file of the data set that is wrong or missing;
            nothing is left at `out`.
    """
    if out is not None:
        refuse_existing(out)
    elif not wishes.dry:
        raise ConfigError("is needed", where="--out", hint="a new folder, or --dry-run")
    if not source.items:
        raise DataError("no frame was found", where=source.name)
    job = _Job(source, wishes, track)
    if out is None or wishes.dry:
        for group in job.groups:
            for index in track(range(len(group.items)), "reading labels"):
                job.marks(group, index)
        return job.told()
    with writing_folder(out) as partial:
        for group in job.groups:
            job.write(group, partial / group.name)
    return job.told()


@dataclass
class _Group:
    """The frames of one recording."""

    name: str
    items: list[Item]
    ids: list[str]
    splits: list[str]
    stamps: list[int]
    rig: Rig | None
    sizes: dict[str, Size] = field(default_factory=dict)
    fits: dict[str, list[Fit | None]] = field(default_factory=dict)


class _Job:
    def __init__(self, source: Source, wishes: Wishes, track: Track) -> None:
        self.source, self.wishes, self.track = source, wishes, track
        self.maps: ClassMaps = class_maps(source, wishes.classes)
        self.kinds = {name: kind_of(kind) for name, kind in source.sensors.items()}
        self.labels_of = source.labels_of or first_reference(
            {name: source.sensors[name] for name in in_order(source.sensors)}
        )
        self.report = Report(notes=list(source.notes))
        splits = split_of_items(source.items, wishes.splits)
        chosen = thinned(source.items, splits, wishes.limit)
        items = [source.items[i] for i in chosen]
        splits = [splits[i] for i in chosen]
        self.groups = self._grouped(items, splits, frame_ids(items))
        self.lost = 0
        for group in self.groups:
            self._measure(group)
            self.report.recordings[group.name] = len(group.items)
            self.report.splits.update(s or "none" for s in group.splits)
        self.report.frames = len(items)
        self._note_splits()

    def told(self) -> Report:
        """The report, when all frames are counted."""
        if self.report.ignored:
            self.report.notes.append(
                f"{self.report.ignored} boxes are to be ignored: they count neither as objects nor as "
                "background"
            )
        if self.lost:
            self.report.notes.append(f"{self.lost} boxes of no extent in the picture are left out")
        return self.report

    def _note_splits(self) -> None:
        told = set(self.report.splits)
        if told <= {"none"}:
            self.report.notes.append(
                "no splits: train and val are parted by time, the last fifth validates"
            )
        elif "none" in told or "train" not in told:
            self.report.notes.append(
                "not every frame is of a split, or none is of train: train and val are parted by time; "
                "say --val-share, --val-list or --val-sequences"
            )
        elif "val" not in told:
            self.report.notes.append(
                "no frame is of val: the last fifth of train validates, unless you say --val-share"
            )

    def _grouped(self, items: list[Item], splits: list[str], ids: list[str]) -> list[_Group]:
        """One recording; of points with several calibrations one for each, as a recording has one."""
        rigs: dict[int, Rig | None] = {id(item.rig): item.rig for item in items}
        if len(rigs) > 1 and not any(own.projected for own in self.kinds.values()):
            self.report.notes.append(
                f"{len(rigs)} calibrations, and a recording has one: they are left out"
            )
            rigs, items = {id(None): None}, [replace(item, rig=None) for item in items]
        groups = []
        for number, (key, rig) in enumerate(rigs.items()):
            own = [i for i, item in enumerate(items) if id(item.rig) == key]
            name = f"part-{number:02d}" if len(rigs) > 1 else ""
            stamps = rising([items[i] for i in own], self.source.rate_hz)
            own = [own[i] for i in stamps]
            groups.append(
                _Group(
                    name,
                    [items[i] for i in own],
                    [ids[i] for i in own],
                    [splits[i] for i in own],
                    list(stamps.values()),
                    rig,
                )
            )
        if len(groups) > 1:
            self.report.notes.append(
                f"{len(groups)} calibrations, and a recording has one: each is a recording of its own"
            )
        return groups

    def _measure(self, group: _Group) -> None:
        """Sizes of all pictures, by their headers."""
        sensors = [name for name, own in self.kinds.items() if own.has_picture]
        found: dict[str, list[Size | None]] = {name: [] for name in sensors}
        for index in self.track(range(len(group.items)), "looking at pictures"):
            item = group.items[index]
            told = item.sizes() if callable(item.sizes) else item.sizes
            for name in sensors:
                given, size = item.samples.get(name), told.get(name)
                if size is None and isinstance(given, Path):
                    size = size_of_file(given, self.kinds[name])
                found[name].append(size)
        for name, sizes in found.items():
            known = [size for size in sizes if size is not None]
            if not known:
                continue
            if self.wishes.size is None:
                group.sizes[name] = common_size(known, name)
                group.fits[name] = [None] * len(sizes)
            else:
                size = self.wishes.size
                group.sizes[name] = size
                group.fits[name] = [None if s in (None, size) else Fit.of(s, size) for s in sizes]

    def _info(self, group: _Group) -> FolderInfo:
        size = group.sizes.get(self.labels_of) or self.source.sized
        if size is None:
            raise DataError("no frame has a picture of it", where=self.labels_of)
        sensors: dict[str, Any] = {}
        for name, kind in self.source.sensors.items():
            own = group.sizes.get(name, size)
            differs = {} if own == size else {"height": own[0], "width": own[1]}
            sensors[name] = {"kind": kind, **differs}
        return folder_info(
            name=self.wishes.name or self.source.name,
            sensors=sensors,
            labels_of=self.source.labels_of,
            size=size,
            rate_hz=self.source.rate_hz,
            seg_classes=self.maps.seg.classes,
            det_classes=self.maps.det.classes,
            licence=self.source.licence,
            **self.source.fields,
        )

    def marks(self, group: _Group, index: int) -> Marks:
        """The truth of a frame as it is written, and counted."""
        item = group.items[index]
        marks = self.maps.marks(item.marks())
        background = self.wishes.missing_boxes == "background" and not marks.withheld
        if marks.boxes is None and self.maps.det.classes and background:
            marks = replace(marks, boxes=Boxes.empty())
        fits = group.fits.get(self.labels_of)
        fit = fits[index] if fits else None
        size = fit.source if fit else group.sizes.get(self.labels_of) or self.source.sized
        assert size is not None  # see `_info`
        if marks.labels is not None and marks.labels.shape != size:
            height, width = marks.labels.shape
            raise DataError(
                f"labels are {width}x{height}, the picture is {size[1]}x{size[0]}", where=item.name
            )
        if marks.boxes is not None:
            boxes, lost = _inside(marks.boxes, size)
            marks = replace(marks, boxes=boxes)
            self.lost += lost
        self._count(marks)
        return marks if fit is None else fit.marks(marks)

    def _count(self, marks: Marks) -> None:
        report = self.report
        if marks.labels is None and marks.boxes is None and marks.boxes3d is None:
            report.unlabeled += 1
        if marks.boxes3d is not None:
            names = [c.name for c in self.maps.det.classes]
            report.boxes3d.update(names[i] for i in marks.boxes3d.class_ids[~marks.boxes3d.ignore])
        if marks.boxes is not None:
            names = [c.name for c in self.maps.det.classes]
            counted = marks.boxes.class_ids[~marks.boxes.ignore]
            report.boxes.update(names[i] for i in counted)
            report.ignored += len(marks.boxes.ignore) - len(counted)
            report.background += not len(counted)
        if marks.labels is not None:
            counts = np.bincount(marks.labels.reshape(-1), minlength=256)
            for entry in self.maps.seg.classes:
                report.pixels[entry.name] += int(counts[entry.id])

    def write(self, group: _Group, root: Path) -> None:
        """Write one recording."""
        info = self._info(group)
        rig = None if group.rig is None else self._fitted(group.rig, group)
        ways = {
            name: Placer(root / name, own, info.of(name).raw, self.wishes.way)
            for name, own in self.kinds.items()
        }
        with FolderWriter(root, info, rig, placed=ways) as writer:
            for index in self.track(range(len(group.items)), "importing"):
                item, name = group.items[index], group.ids[index]
                for sensor, given in item.samples.items():
                    fits = group.fits.get(sensor)
                    fit = fits[index] if fits else None
                    ways[sensor].place(name, given, group.sizes.get(sensor), fit)
                marks = self.marks(group, index)
                labels = marks.labels
                writer.add(
                    name,
                    stamp_ns=group.stamps[index],
                    tags=_tags(item, group.splits[index]),
                    labels=None if labels is None else labels.astype(np.uint8, copy=False),
                    boxes=marks.boxes,
                    boxes3d=marks.boxes3d,
                    pose=item.pose,
                )

    def _fitted(self, rig: Rig, group: _Group) -> Rig:
        """Cameras of the pictures as they are written."""
        sensors = {}
        for name, own in rig.sensors.items():
            seen = name if name in group.fits else self.labels_of
            camera, size = own.camera, self.wishes.size
            if camera is not None and size is not None and seen in group.fits:
                fit = Fit.of((camera.height, camera.width), size)
                camera = fit.camera(camera)
            sensors[name] = (
                replace(own, camera=camera, extrinsics=None)
                if rig.base
                else replace(own, camera=camera)
            )
        return Rig(sensors, rig.base, rig.reference, rig.date, rig.source)


def _tags(item: Item, split: str) -> tuple[str, ...]:
    sequence = f"seq:{item.sequence}" if item.sequence else ""
    every = (split, sequence, *item.tags)
    return tuple(re.sub(r"\s+", "_", tag) for tag in every if tag)


def _inside(boxes: Boxes, size: Size) -> tuple[Boxes, int]:
    """Boxes cut off at the picture's edges; what nothing is left of is counted."""
    height, width = size
    limits = np.array([width, height, width, height], np.float32)
    xyxy = boxes.xyxy.clip(0, limits)
    sides = (xyxy[:, 2:] - xyxy[:, :2]) / limits[:2]
    keep = (sides > _LEAST_SIDE).all(axis=1)
    kept = Boxes(xyxy[keep], boxes.class_ids[keep], boxes.ignore[keep])
    return kept, int((~keep).sum())


def rising(items: Sequence[Item], rate_hz: float) -> dict[int, int]:
    """Indices of frames in order of time with their stamps, which rise.

    Within a sequence frames are in the order of their stamps.  A sequence that does not begin after the
    one before it, as where each counts from 0, is moved behind it.
    """
    if any(item.stamp_ns is None for item in items):
        return {i: round(i * 1e9 / rate_hz) for i in range(len(items))}
    sequences: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        sequences.setdefault(item.sequence, []).append(index)
    runs = [sorted(own, key=lambda i: items[i].stamp_ns or 0) for own in sequences.values()]
    firsts = [items[run[0]].stamp_ns or 0 for run in runs]
    if len(set(firsts)) == len(firsts):  # else they all count from 0, say, and stay as they are
        runs.sort(key=lambda run: items[run[0]].stamp_ns or 0)
    found: dict[int, int] = {}
    last: int | None = None
    for run in runs:
        first = items[run[0]].stamp_ns or 0
        shift = 0 if last is None or first > last else last + _GAP_NS - first
        for index in run:
            stamp = (items[index].stamp_ns or 0) + shift
            if last is not None and stamp <= last:  # two frames of one time
                stamp = last + 1
            found[index] = last = stamp
    return found


def frame_ids(items: Sequence[Item]) -> list[str]:
    """An id for each frame: the last part of its name, with folders where that is not unique."""
    for folders in (1, 2, 3, 64):
        found = [_plain("_".join(PurePosixPath(item.name).parts[-folders:])) for item in items]
        if len({same_name(name).casefold() for name in found}) == len(found):
            return found
    seen: Counter[str] = Counter()
    unique = []
    taken = {same_name(name).casefold() for name in found}
    for name in found:
        key = same_name(name).casefold()
        seen[key] += 1
        candidate, number = name, seen[key]
        while number > 1 and same_name(candidate).casefold() in taken:
            candidate, number = f"{name}-{number}", number + 1
        taken.add(same_name(candidate).casefold())
        unique.append(candidate)
    return unique


def _plain(name: str) -> str:
    """A name that any file system takes, and `frames.csv`."""
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|,;' else "_" for c in name)
    name = re.sub(r"\.(pcd)$", r"_\1", name.strip().lstrip("."), flags=re.IGNORECASE) or "frame"
    if len(name.encode()) > _LONGEST_ID:
        digest = sha1(name.encode(), usedforsecurity=False).hexdigest()[:10]
        cut = name.encode()[: _LONGEST_ID - 11].decode(errors="ignore")
        name = f"{cut}-{digest}"
    return name


def described(report: Report) -> list[str]:
    """A report in lines for people."""
    order = (*SPLITS, *sorted({*report.splits} - {*SPLITS}))
    splits = ", ".join(f"{name} {report.splits[name]}" for name in order if name in report.splits)
    lines = [f"frames {report.frames} ({splits})"]
    if report.boxes or report.background:
        counts = ", ".join(f"{name} {n}" for name, n in report.boxes.most_common(20))
        lines.append(f"boxes {sum(report.boxes.values())}: {counts}".rstrip(": "))
        lines.append(f"frames without an object {report.background}")
    if report.boxes3d:
        counts = ", ".join(f"{name} {n}" for name, n in report.boxes3d.most_common(20))
        lines.append(f"boxes in space {sum(report.boxes3d.values())}: {counts}")
    total = sum(report.pixels.values())
    if total:
        shares = ", ".join(
            f"{name} {100 * n / total:.1f}%" for name, n in report.pixels.most_common(20) if n
        )
        lines.append(f"labeled pixels: {shares}")
    if report.unlabeled:
        lines.append(f"frames that are not labeled {report.unlabeled}")
    return lines
