"""YOLO: pictures, a text of rows beside each, and a `data.yaml` that names the classes and the splits.

The format of Ultralytics' documentation: `class cx cy w h`, or `class x y x y ...` of an outline, relative to
the upright picture; `labels` stands in the path where the pictures have `images`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import naming
from perception.data.base import Boxes
from perception.data.classes import distinct_color
from perception.errors import DataError
from perception.files.limits import MAX_STEPS
from perception.files.listing import counted, is_file, is_leftover, is_there, visible_files
from perception.files.text import read_text, read_yaml
from perception.importers.masks import mask_of_polygons
from perception.importers.placing import size_of_file
from perception.importers.source import Item, Marks, Named, Source
from perception.sensors.registry import kind_of

BACKGROUND = Named("background", (40, 40, 40))
PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")

_SPLITS = ("train", "val", "test")
_NAMES = ("classes.txt", "obj.names", "labels.txt")
_BEYOND = 0.01  # as a share of the picture, what rounding leaves outside
_BOX = 5
_LEAST_OUTLINE = 7


def yolo(root: Path, labels: bool = False) -> Source:
    """The pictures of `data.yaml`'s splits; or of a folder with `images`, `labels` and `classes.txt`.

    Args:
        root: the folder, or its `data.yaml`.
        labels: make masks of outlines, too; what none covers is `background`.

    Raises:
        DataError: a file is missing or wrong; it is named, and the line.
    """
    path = root if root.is_file() else _description(root)
    if path is None:
        names, entries, keypoints = _undescribed(root)
    else:
        content = read_yaml(path)
        if not isinstance(content, dict):
            raise DataError("no table", where=str(path))
        names = _class_names(content, path)
        entries = [(s, p) for s in _SPLITS for p in _places(content, s, path)]
        keypoints = "kpt_shape" in content
        if not entries:
            raise DataError("names no train, val or test", where=str(path))
    items: list[Item] = []
    reader = _Rows(names, labels, keypoints)
    seen: dict[Path, str] = {}
    for split, place in entries:
        for picture in _pictures(place, path.parent if path else root):
            if picture in seen:
                if seen[picture] != split:
                    raise DataError(f"is of {seen[picture]} and of {split}", where=str(picture))
                continue
            seen[picture] = split
            items.append(_item(picture, place, split, reader))
    det = tuple(Named(name, distinct_color(i)) for i, name in enumerate(names))
    return Source("YOLO", {"rgb": "rgb"}, items, (BACKGROUND, *det) if labels else (), det)


def _description(root: Path) -> Path | None:
    found = [p for p in visible_files(root) if p.suffix.lower() in (".yaml", ".yml")]
    named = [p for p in found if p.stem.lower() in ("data", "dataset")]
    found = named or found
    if len(found) > 1:
        listed = ", ".join(p.name for p in found[:5])
        raise DataError(f"holds {listed}: which is it?", where=str(root), hint="name the file")
    return found[0] if found else None


def _undescribed(root: Path) -> tuple[list[str], list[tuple[str, Path]], bool]:
    """As labeling tools leave it: names in a text, pictures and rows together or in two folders."""
    path = next((root / name for name in _NAMES if (root / name).is_file()), None)
    if path is None:
        raise DataError(
            "no data.yaml is there", where=str(root), hint=f"nor one of {', '.join(_NAMES)}"
        )
    names = [line.strip() for line in read_text(path).lstrip("\ufeff").split("\n") if line.strip()]
    folder = root / "images"
    return names, [("", folder if folder.is_dir() else root)], False


def _class_names(content: dict[Any, Any], path: Path) -> list[str]:
    """Names by number; a mapping may leave numbers out."""
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError("has no 'names'", where=str(path), hint="names: [person, car]")
    found: dict[int, str] = {}
    for key, name in names.items():
        number = int(key) if isinstance(key, str) and key.isascii() and key.isdigit() else key
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < MAX_STEPS:
            raise DataError(f"names: '{str(key)[:40]}' is no class number", where=str(path))
        if not isinstance(name, str | int | float | bool):
            raise DataError(f"names: class {number} has no name", where=str(path))
        found[number] = str(name)
    count = content.get("nc")
    if isinstance(count, int) and count < max(found) + 1:
        raise DataError(f"nc is {count}, but there is a class {max(found)}", where=str(path))
    return [found.get(i, f"class {i}") for i in range(max(found) + 1)]


def _places(content: dict[Any, Any], split: str, path: Path) -> Iterator[Path]:
    """The folders and lists of a split."""
    given = content.get(split)
    if split == "val" and given is None:
        given = content.get("valid")
    for entry in given if isinstance(given, list) else [given]:
        if entry is None or entry == "":
            continue
        if not isinstance(entry, str):
            raise DataError(f"{split}: '{str(entry)[:80]}' is no path", where=str(path))
        found = _found(entry, content.get("path"), path.parent)
        if found is None:
            raise DataError(
                f"{split}: {entry[:200]} is missing",
                where=str(path),
                hint=f"looked from {path.parent} on",
            )
        yield found


def _found(entry: str, base: Any, folder: Path) -> Path | None:
    """A path of `data.yaml`, which may have been written elsewhere: from its `path`, or its folder, on.

    Absolute paths of another machine are looked for by their last parts.
    """
    entry = entry.replace("\\", "/")
    tops = [folder]
    if isinstance(base, str) and base:
        written = Path(base.replace("\\", "/"))
        with suppress(RuntimeError):  # ~name of nobody here
            written = written.expanduser()
        tops = [written if written.is_absolute() else folder / written, folder]
    for top in tops:
        if is_there(top / entry):
            return top / entry
    parts = [p for p in PurePosixPath(entry).parts if p not in ("/", ".", "..")]
    for start in range(len(parts)):
        place = folder.joinpath(*parts[start:])
        if is_there(place):
            return place
    return None


def _pictures(place: Path, base: Path) -> list[Path]:
    """The pictures of a folder, with those below it, or of a list."""
    if place.is_dir():
        every = (p for p in place.rglob("*") if p.suffix.lower() in PICTURES)
        found = [p for p in every if not is_leftover(p) and (p.is_file() or p.is_symlink())]
        if not found:
            raise DataError("holds no picture", where=str(place))
        return sorted(found, key=lambda p: counted(p.relative_to(place).as_posix()))
    found = []
    for number, line in enumerate(read_text(place).lstrip("\ufeff").split("\n"), 1):
        entry = line.strip()
        if not entry:
            continue
        picture = _found(entry, str(place.parent), base)
        if picture is None or not is_file(picture):
            raise DataError(f"{entry[:200]} is missing", where=f"{place}:{number}")
        found.append(picture)
    if not found:
        raise DataError("lists no picture", where=str(place))
    return found


def _item(picture: Path, place: Path, split: str, reader: _Rows) -> Item:
    top = place if place.is_dir() else picture.parent
    stem = picture.relative_to(top).with_suffix("").as_posix()
    return Item(
        f"{split}/{stem}" if split else stem,
        {"rgb": picture},
        partial(reader.marks, picture),
        aliases=(stem, picture.name),
        split=split,
    )


def rows_beside(picture: Path) -> Path:
    """Where the rows of a picture are: `labels` for the last `images` of its path."""
    parts = list(picture.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


class _Rows:
    """Reads texts of rows.

    Args:
        names: of the classes.
        labels: whether masks are wanted.
        keypoints: rows hold the points of a pose after their box.
    """

    def __init__(self, names: list[str], labels: bool, keypoints: bool) -> None:
        self.names, self.labels, self.keypoints = names, labels, keypoints

    def marks(self, picture: Path) -> Marks:
        """The truth of a picture; without a text, none."""
        path = rows_beside(picture)
        if not is_there(path) and not path.is_symlink():
            return Marks()
        with naming(picture):
            height, width = size_of_file(picture, kind_of("rgb"))
        boxes: list[NDArray[np.float64]] = []
        kinds: list[int] = []
        outlines: list[NDArray[np.float64]] = []
        for number, line in enumerate(read_text(path).lstrip("\ufeff").split("\n"), 1):
            row = line.partition("#")[0].split()
            if row:
                kind, outline = self._row(row, f"{path}:{number}")
                corners = outline * [width, height]
                boxes.append(np.concatenate([corners.min(axis=0), corners.max(axis=0)]))
                kinds.append(kind)
                outlines.append(corners)
        found = Marks(boxes=Boxes.of(boxes, kinds))
        if self.labels:
            found.labels = self._painted(outlines, kinds, (height, width))
        return found

    def _row(self, row: list[str], where: str) -> tuple[int, NDArray[np.float64]]:
        """Class and outline (N, 2), relative."""

        def wrong(what: str) -> DataError:
            hint = "class cx cy w h, or class x y x y x y ..., relative to the picture"
            return DataError(f"not a box: {what}", where=where, hint=hint)

        try:
            values = [float(v) for v in row]
        except ValueError as error:
            raise wrong("not numbers") from error
        if not all(map(math.isfinite, values)) or values[0] != values[0] // 1:
            raise wrong("not finite numbers after a class number")
        kind = int(values[0])
        if not 0 <= kind < len(self.names):
            raise wrong(f"there is no class {row[0][:20]} of {len(self.names)}")
        if self.keypoints:
            values = values[:_BOX]
        if not all(-_BEYOND <= v <= 1 + _BEYOND for v in values[1:]):
            raise wrong("outside the picture; are these pixels?")
        if len(values) == _BOX:
            cx, cy, w, h = values[1:]
            if min(w, h) < 0:
                raise wrong("width and height must be positive")
            x, y = (cx - w / 2, cx + w / 2), (cy - h / 2, cy + h / 2)
            return kind, np.array([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])])
        if len(values) < _LEAST_OUTLINE or len(values) % 2 == 0:
            raise wrong(f"{len(values)} numbers")
        return kind, np.array(values[1:]).reshape(-1, 2)

    def _painted(
        self, outlines: list[NDArray[np.float64]], kinds: list[int], size: tuple[int, int]
    ) -> NDArray[np.int32]:
        labels = np.zeros(size, np.int32)
        masks = [
            (mask_of_polygons([o.reshape(-1).tolist()], size), kind + 1)
            for o, kind in zip(outlines, kinds, strict=True)
        ]
        for mask, place in sorted(masks, key=lambda one: -int(one[0].sum())):
            labels[mask] = place
        return labels
