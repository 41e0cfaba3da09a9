"""What is in a recording as one HTML page: counts, samples with their labels drawn on, and what is wrong."""

from __future__ import annotations

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import cv2
import numpy as np

from perception.data.base import (
    IGNORE_LABEL,
    Boxes,
    ClassInfo,
    Recording,
    Truth,
    TruthBoxes3d,
)
from perception.data.check import Finding
from perception.errors import AnySenseError
from perception.files.text import html_text
from perception.files.writing import image_bytes, write_bytes, write_text
from perception.frame import Frame, Sample
from perception.sensors.drawing import draw_points
from perception.sensors.registry import kind_of
from perception.tasks.task import Image
from perception.viz.overlay import draw_sample, is_drawn
from perception.viz.space import draw_edges, draw_from_above

_STYLE = Path(__file__).with_name("recording_page.css")
_WIDTH = 440  # of a picture on the page
_QUALITY = 85
_OPACITY = 0.5
_EXAMPLES = 3  # frames shown for a remark
_GROUPS = 60  # remarks shown
_SPLITS = ("train", "val", "test")
_ROUNDED = 1000


@dataclass
class Counts:
    """What is counted over a recording, each by split.

    Attributes:
        frames, masks, boxed, background, unlabeled: frames: all, with a mask, with looked-at boxes, with
            none of them, and that nobody labeled.
        boxes, solid: boxes by class, in the picture and in space.
        pixels: labeled pixels by class.
        samples: of each sensor.
        sizes: of pictures by sensor.
    """

    frames: Counter[str] = field(default_factory=Counter)
    masks: Counter[str] = field(default_factory=Counter)
    boxed: Counter[str] = field(default_factory=Counter)
    background: Counter[str] = field(default_factory=Counter)
    unlabeled: Counter[str] = field(default_factory=Counter)
    boxes: dict[str, Counter[str]] = field(default_factory=dict)
    solid: dict[str, Counter[str]] = field(default_factory=dict)
    pixels: dict[str, Counter[str]] = field(default_factory=dict)
    samples: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: dict[str, Counter[str]] = field(default_factory=dict)


def count(
    recording: Recording,
    splits: Mapping[str, str],
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda items: items,
) -> Counts:
    """Read everything and count it; what cannot be read is not counted.

    Args:
        recording: any.
        splits: of frames by id; others are those of the tag `test`, or `none`.
        progress: shows it.
    """
    found, info = Counts(), recording.info
    for index in progress(range(len(recording))):
        split = split_of(recording, index, splits)
        found.frames[split] += 1
        try:
            frame, truth = recording.frame(index), recording.truth(index)
        except AnySenseError:
            continue
        for name, sample in frame.items():
            found.samples.setdefault(name, Counter())[split] += 1
            if kind_of(sample.kind).has_picture:
                height, width = sample.data.shape[:2]
                unit = f" {sample.unit}" if sample.unit else ""
                found.sizes.setdefault(name, Counter())[f"{width}x{height}{unit}"] += 1
            else:
                points = f"about {_rounded(len(sample.data)):,} points"
                found.sizes.setdefault(name, Counter())[points] += 1
        _count_truth(found, truth, split, info.seg_classes, info.det_classes)
    return found


def _rounded(number: int) -> int:
    return round(number / _ROUNDED) * _ROUNDED if number > _ROUNDED else number


def _count_truth(
    found: Counts,
    truth: Truth,
    split: str,
    seg: Sequence[ClassInfo],
    det: Sequence[ClassInfo],
) -> None:
    labels, boxes = truth.labels, truth.boxes
    if labels is not None:
        found.masks[split] += 1
        counts = np.bincount(labels.reshape(-1), minlength=IGNORE_LABEL + 1)
        for entry in seg:
            found.pixels.setdefault(entry.name, Counter())[split] += int(counts[entry.id])
        found.pixels.setdefault("(ignored)", Counter())[split] += int(counts[IGNORE_LABEL])
    if boxes is not None:
        found.boxed[split] += 1
        counted = boxes.class_ids[~boxes.ignore]
        found.background[split] += not len(counted)
        _count_boxes(found.boxes, boxes, split, det)
    if truth.boxes3d is not None:
        _count_boxes(found.solid, truth.boxes3d, split, det)
    if labels is None and boxes is None and truth.boxes3d is None:
        found.unlabeled[split] += 1


def _count_boxes(
    found: dict[str, Counter[str]],
    boxes: Boxes | TruthBoxes3d,
    split: str,
    classes: Sequence[ClassInfo],
) -> None:
    for kind in boxes.class_ids[~boxes.ignore].tolist():
        found.setdefault(classes[kind].name, Counter())[split] += 1
    if boxes.ignore.any():
        found.setdefault("(ignored)", Counter())[split] += int(boxes.ignore.sum())


def split_of(recording: Recording, index: int, splits: Mapping[str, str]) -> str:
    """The split of a frame, or `none`."""
    return splits.get(recording.ids[index]) or (
        "test" if "test" in recording.tags(index) else "none"
    )


def draw_truth(picture: Image, truth: Truth, recording: Recording) -> Image:
    """Labels blended over a picture of the labeled sensor, then boxes with their classes."""
    image, info = np.ascontiguousarray(picture), recording.info
    if truth.labels is not None:
        table = np.zeros((IGNORE_LABEL + 1, 3), np.uint8)
        for entry in info.seg_classes:
            table[entry.id] = entry.color
        labels = truth.labels
        if labels.shape != image.shape[:2]:
            labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        blended = cv2.addWeighted(table[labels], _OPACITY, image, 1 - _OPACITY, 0)
        image = np.where((labels == IGNORE_LABEL)[..., None], image, blended).astype(np.uint8)
    if truth.boxes is not None:
        size = truth.size or image.shape[:2]
        scale = image.shape[1] / size[1], image.shape[0] / size[0]
        image = _draw_boxes(image, truth.boxes, info.det_classes, scale)
    return image


def _draw_boxes(
    image: Image, boxes: Boxes, classes: Sequence[ClassInfo], scale: tuple[float, float]
) -> Image:
    image = image.copy()
    thick = max(1, round(image.shape[1] / 300))
    size = max(0.4, image.shape[1] / 1200)
    for xyxy, kind, ignored in zip(boxes.xyxy, boxes.class_ids, boxes.ignore, strict=True):
        left, top, right, bottom = (round(float(v)) for v in xyxy * np.tile(scale, 2))
        color = (160, 160, 160) if ignored else classes[kind].color
        cv2.rectangle(image, (left, top), (right, bottom), color, thick, cv2.LINE_AA)
        text = "ignore" if ignored else classes[kind].name.encode("ascii", "replace").decode()
        (wide, high), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        y = max(top, high + base)
        cv2.rectangle(image, (left, y - high - base), (left + wide, y), color, -1)
        ink = (0, 0, 0) if sum(color) > 330 else (255, 255, 255)
        cv2.putText(
            image,
            text,
            (left, y - base // 2 - 1),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            ink,
            1,
            cv2.LINE_AA,
        )
    return image


def picture_of(sample: Sample) -> Image:
    """A sample as people see it; points without a camera from above."""
    return draw_sample(sample) if is_drawn(sample) else draw_points(sample)


@dataclass
class _Pictures:
    """Where the page's pictures go: into it, or beside it.

    Attributes:
        page: the HTML file.
        beside: in a folder of its name, `_files` added.
    """

    page: Path
    beside: bool
    written: int = 0

    def tag(self, image: Image, alt: str) -> str:
        """An `img` element."""
        if image.shape[1] > _WIDTH:
            height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
            image = cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        content = image_bytes(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        if self.beside:
            folder = self.page.with_name(f"{self.page.stem}_files")
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{self.written:04d}.jpg"
            write_bytes(folder / name, content, sync=False)
            source = quote(f"{folder.name}/{name}")
        else:
            source = f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
        self.written += 1
        height, width = image.shape[:2]
        return f"<img width={width} height={height} alt='{html_text(alt)}' src='{source}'>"


def write_page(
    recording: Recording,
    findings: Sequence[Finding],
    path: Path,
    *,
    splits: Mapping[str, str],
    samples: int = 12,
    beside: bool = False,
    command: str = "",
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda items: items,
) -> None:
    """Write the page.

    Args:
        recording: what was checked.
        findings: what was found.
        path: the HTML file.
        splits: see `count`.
        samples: frames that are shown, evenly spread.
        beside: put pictures into a folder beside the page, in place of into it.
        command: that made it.
        progress: shows it.

    Raises:
        DataError: it cannot be written.
    """
    counts, pictures = count(recording, splits, progress), _Pictures(path, beside)
    info, total = recording.info, len(recording)
    step = max(1, -(-total // samples))
    shown = [_frame(recording, i, splits, pictures) for i in range(0, total, step)]
    errors = sum(f.severity == "error" for f in findings)
    title = html_text(f"{info.name}: {total} frames")
    verdict = "errors" if errors else "warnings" if findings else "fine"
    told = f"{errors} errors, {len(findings) - errors} warnings" if findings else "nothing is wrong"
    simulated = " Simulated." if info.simulated else ""
    body = [
        f"<header><h1>{title}</h1><p>{html_text(recording.root)}.{simulated} "
        f"Licence: {html_text(info.licence)}</p>"
        f"<p class='verdict {verdict}'>{told}</p></header>",
        _section("What is in it", _counts_tables(recording, counts)),
        _section("Remarks", _remarks(recording, findings, splits, pictures)) if findings else "",
        _section("Samples", _legend(recording) + "".join(shown)),
        f"<footer>{html_text(command)}</footer>" if command else "",
    ]
    head = f"<meta charset='utf-8'><title>{title}</title><style>{_STYLE.read_text('utf-8')}</style>"
    page = f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>"
    write_text(path, page)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html_text(title)}</h2>{body}</section>"


def _table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    cells = "".join(f"<th>{html_text(h)}</th>" for h in header)
    lines = "".join(
        f"<tr><th>{html_text(first)}</th>{''.join(f'<td>{html_text(c)}</td>' for c in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _counts_tables(recording: Recording, counts: Counts) -> str:
    """By split: frames, sensors, classes."""
    columns = [s for s in (*_SPLITS, "none") if counts.frames[s]]

    def row(name: str, counter: Counter[str]) -> list[object]:
        return [name, *(f"{counter[s]:,}" for s in columns), f"{counter.total():,}"]

    frames = [row("frames", counts.frames)]
    for name, counter in (
        ("with a mask", counts.masks),
        ("with boxes looked at", counts.boxed),
        ("of these without an object", counts.background),
        ("not labeled", counts.unlabeled),
    ):
        if counter.total():
            frames.append(row(name, counter))
    out = _table(["", *columns, "all"], frames)
    sensors = []
    for name, kind in recording.info.sensors.items():
        sizes = ", ".join(s for s, _ in counts.sizes.get(name, Counter()).most_common(3))
        title = name if name == kind else f"{name} ({kind})"
        sensors.append([*row(title, counts.samples.get(name, Counter())), sizes])
    out += _table(["samples of", *columns, "all", "what"], sensors)
    if recording.info.det_classes:
        names = [c.name for c in recording.info.det_classes]
        rows = [row(n, counts.boxes.get(n, Counter())) for n in names]
        out += _table(["boxes of", *columns, "all"], rows)
        if counts.solid:
            rows = [row(n, counts.solid.get(n, Counter())) for n in names]
            out += _table(["boxes in space of", *columns, "all"], rows)
    if recording.info.seg_classes:
        out += _table(["labeled pixels", *columns, "all"], _shares(counts, columns))
    return out


def _shares(counts: Counts, columns: Sequence[str]) -> list[list[object]]:
    totals: Counter[str] = Counter()
    for counter in counts.pixels.values():
        totals.update(counter)

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.2f}%" if whole else "-"

    return [
        [name, *(share(c[s], totals[s]) for s in columns), share(c.total(), totals.total())]
        for name, c in counts.pixels.items()
    ]


def _legend(recording: Recording) -> str:
    """Classes with their colors, of masks and of boxes."""
    classes = {c.name: c.color for c in (*recording.info.seg_classes, *recording.info.det_classes)}
    keys = "".join(
        f"<span class='key'><i style='background:rgb{tuple(color)}'></i>{html_text(name)}</span>"
        for name, color in classes.items()
    )
    return f"<p class='legend'>{keys}</p>" if keys else ""


def _frame(recording: Recording, index: int, splits: Mapping[str, str], pictures: _Pictures) -> str:
    """A frame: the labeled picture with what is marked on it, then the other sensors."""
    name = recording.ids[index]
    tags = " ".join(sorted(recording.tags(index) - set(_SPLITS)))
    split = split_of(recording, index, splits)
    caption = f"<b>{html_text(name)}</b> {html_text(split)} {html_text(tags)}"
    try:
        frame, truth = recording.frame(index), recording.truth(index)
        shown = [_figure(*one, pictures) for one in _drawn(recording, frame, truth)]
    except AnySenseError as error:
        return f"<div class='frame'><p>{caption}</p><p class='fault'>{html_text(error)}</p></div>"
    parts = [f"{'no' if truth.labels is None else 'a'} mask"] if recording.info.seg_classes else []
    if recording.info.det_classes:
        many = "boxes not looked at" if truth.boxes is None else _many(len(truth.boxes.xyxy))
        parts.append(many)
    if truth.boxes3d is not None:
        parts.append(f"{_many(len(truth.boxes3d))} in space")
    note = f" - {', '.join(parts)}" if parts else ""
    return f"<div class='frame'><p>{caption}{note}</p><div class='row'>{''.join(shown)}</div></div>"


def _many(boxes: int) -> str:
    return f"{boxes} box{'' if boxes == 1 else 'es'}"


def _drawn(recording: Recording, frame: Frame, truth: Truth) -> list[tuple[str, Image]]:
    labeled = recording.info.labels_of
    shown: list[tuple[str, Image]] = []
    if labeled not in frame and (truth.labels is not None or truth.boxes is not None):
        size = truth.size or (truth.labels.shape if truth.labels is not None else (240, 320))
        blank = np.full((*size, 3), 60, np.uint8)
        shown.append((f"{labeled}: no sample", draw_truth(blank, truth, recording)))
    for name in sorted(frame, key=lambda n: n != labeled):
        picture, marks = picture_of(frame[name]), truth
        if (
            name != labeled
        ):  # where the other's pixels are the same, its boxes show what it sees of them
            same = picture.shape[:2] == truth.size and recording.sees_labels(name)
            alike = same and kind_of(frame[name].kind).has_picture
            marks = replace(truth, labels=None, boxes=truth.boxes if alike else None)
        drawn = draw_truth(picture, marks, recording)
        edges = _edges(recording, frame[name], picture, truth)
        if edges is None or marks.labels is not None or marks.boxes is not None:
            shown.append((name, drawn))
        if edges is not None:
            shown.append((f"{name}, boxes in space", edges))
    if truth.boxes3d is not None and recording.info.det_classes:
        above = draw_from_above(frame, truth.boxes3d, recording.rig, recording.info.det_classes)
        shown.append(("from above", above))
    return shown


def _edges(recording: Recording, sample: Sample, picture: Image, truth: Truth) -> Image | None:
    """A picture with boxes in space, without what else is marked on it; of others than the labeled one, those
    in colors alone, as depth and the like mostly show the same once more."""
    shown = sample.sensor == recording.info.labels_of or kind_of(sample.kind).colors
    if truth.boxes3d is None or not shown:
        return None
    classes = recording.info.det_classes
    return draw_edges(picture, sample, truth.boxes3d, recording.rig, classes)


def _figure(name: str, image: Image, pictures: _Pictures) -> str:
    return f"<figure>{pictures.tag(image, name)}<figcaption>{html_text(name)}</figcaption></figure>"


def _remarks(
    recording: Recording,
    findings: Sequence[Finding],
    splits: Mapping[str, str],
    pictures: _Pictures,
) -> str:
    """Findings that say the same of several frames together, the worst first, with examples."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        place = finding.where.partition("/")[0] if "/" in finding.where else finding.where
        same = re.sub(r"[0-9][0-9.,]*", "#", finding.message)
        groups.setdefault((finding.severity, place, same), []).append(finding)
    index_of = {name: index for index, name in enumerate(recording.ids)}
    ordered = sorted(groups.items(), key=lambda item: (item[0][0] != "error", -len(item[1])))
    out = []
    for (severity, place, _), members in ordered[:_GROUPS]:
        first = members[0]
        where = first.where if len(members) == 1 else f"{place}, {len(members)} times"
        frames = dict.fromkeys(i for f in members[:50] for i in frames_of(f, index_of))
        examples = "".join(
            _frame(recording, index, splits, pictures) for index in list(frames)[:_EXAMPLES]
        )
        out.append(
            f"<div class='remark'><p><span class='{severity}'>{severity}</span> "
            f"<b>{html_text(where)}</b>: {html_text(first.message)}</p>{examples}</div>"
        )
    left = len(ordered) - _GROUPS
    more = f"<p>... and {left} other kinds of remarks</p>" if left > 0 else ""
    return "".join(out) + more


def frames_of(finding: Finding, index_of: Mapping[str, int]) -> list[int]:
    """Indices of the frames that a finding is about, by their ids or the names of their files."""
    found = []
    for text in finding.frames or (finding.where, finding.where.rpartition("/")[2]):
        name = PurePosixPath(text).name
        while name not in index_of and "." in name:
            name = name.rpartition(".")[0]
        if name in index_of:
            found.append(index_of[name])
    return list(dict.fromkeys(found))
