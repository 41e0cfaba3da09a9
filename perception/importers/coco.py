"""COCO: one JSON of images, categories and annotations for each split.

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; its data format page.  Roboflow, CVAT and
others export the same with `_annotations.coco.json` in each split's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.exif import UPRIGHT, upright
from perception.adapters.files import naming
from perception.adapters.pictures import size_of
from perception.data.base import Boxes
from perception.data.classes import distinct_color
from perception.errors import DataError
from perception.files.containers import stays_inside
from perception.files.limits import MAX_ANNOTATION_BYTES
from perception.files.listing import is_file, is_folder, visible_files
from perception.files.text import read_bytes, read_json
from perception.importers.masks import bounds_of, mask_of_polygons, mask_of_runs
from perception.importers.source import Item, Marks, Named, Source
from perception.importers.tables import Record

BACKGROUND = Named("background", (40, 40, 40))

_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_LEAST_CORNERS = 3


def coco(root: Path, labels: bool = False, images: str = "") -> Source:
    """The images of one or several JSON files with their boxes.

    An image without annotations has no objects: COCO lists what was looked at.  Boxes of crowds
    (`iscrowd`) are to be ignored.

    Args:
        root: the folder with `annotations/instances_*.json` and the pictures, one with
            `*/_annotations.coco.json`, or one JSON file.
        labels: make masks of the segmentation, too: what no object covers is `background`, of objects one
            over the other the smaller is seen.
        images: the folder of the pictures, from `root` on, where it is not found.

    Raises:
        DataError: a file is missing or wrong; it is named.
    """
    files = [root] if root.is_file() else list(_files(root))
    if not files:
        raise DataError(
            "no COCO file is there",
            where=str(root),
            hint="annotations/instances_*.json, or */_annotations.coco.json; or name the JSON itself",
        )
    base = root.parent if root.is_file() else root
    names: list[str] = []
    items: list[Item] = []
    for path in files:
        items += _File(path, base, images, names, labels).items()
    det = tuple(Named(name, distinct_color(i)) for i, name in enumerate(names))
    return Source("COCO", {"rgb": "rgb"}, items, (BACKGROUND, *det) if labels else (), det)


def _files(root: Path) -> Iterator[Path]:
    """The JSON files of a data set: those of instances where there are such."""
    found = [p for p in visible_files(root / "annotations") if p.suffix.lower() == ".json"]
    instances = [p for p in found if p.name.startswith("instances")]
    if found:
        yield from instances or [p for p in found if not p.name.startswith(("person_key", "capt"))]
        return
    beside = [p for p in visible_files(root) if p.suffix.lower() == ".json"]
    if beside:
        yield from beside
        return
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")):
        yield from (p for p in visible_files(folder) if p.name.lower().endswith(".coco.json"))


def _split_of(path: Path) -> str:
    """By the name of the file (`instances_train2017.json`), else of its folder."""
    for name in (path.stem.lower().removeprefix("instances_"), path.parent.name.lower()):
        word = name.rstrip("0123456789-_")
        if word in _SPLITS:
            return _SPLITS[word]
    return ""


class _File:
    """One JSON file.

    Args:
        path: the file.
        base: the data set's folder.
        images: where its pictures are, if that is said.
        names: of the classes so far, to which its own are added.
        labels: whether masks are wanted.
    """

    def __init__(self, path: Path, base: Path, images: str, names: list[str], labels: bool) -> None:
        self.path, self.base, self.labels = path, base, labels
        self.content = Record(read_json(path, limit=MAX_ANNOTATION_BYTES), str(path))
        self.split = _split_of(path)
        self.folders = self._folders(images)
        self.classes = self._categories(names)

    def _folders(self, images: str) -> list[Path]:
        if images:
            folder = self.base / images
            if not is_folder(folder):
                raise DataError("no such folder of images", where=str(folder))
            return [folder]
        word = self.path.stem.removeprefix("instances_")
        usual = [self.path.parent, self.path.parent / "images"]
        for top in dict.fromkeys((self.base, self.path.parent.parent, self.path.parent)):
            usual += [top / word, top / "images" / word, top / word / "images", top / "images", top]
        return [folder for folder in dict.fromkeys(usual) if is_folder(folder)]

    def _categories(self, names: list[str]) -> dict[int, int]:
        """Places of classes by the ids of this file, which may have gaps; one name is one class."""
        found: dict[int, int] = {}
        every = sorted(self.content.records("categories"), key=lambda record: record.whole("id"))
        for record in every:
            number, name = record.whole("id"), record.text("name")
            if number in found:
                raise DataError(f"category {number} is there twice", where=record.where)
            if name not in names:
                names.append(name)
            found[number] = names.index(name)
        return found

    def items(self) -> Iterator[Item]:
        """Its images."""
        annotations = self._annotations()
        names: set[str] = set()
        for record in self.content.records("images"):
            number, name = record.whole("id"), record.text("file_name").replace("\\", "/")
            path = self._picture(name, record.where)
            if name in names:
                raise DataError(f"image '{name}' is there twice", where=record.where)
            names.add(name)
            size = record.whole("height"), record.whole("width")
            # Without a list of annotations nobody looked at the images, as in COCO's test set.
            own = None if annotations is None else annotations.pop(number, [])
            stem = str(PurePosixPath(name).with_suffix(""))
            yield Item(
                f"{self.split}/{stem}" if self.split else stem,
                {"rgb": path},
                partial(self._marks, path, size, own),
                aliases=(stem, name),
                split=self.split,
            )
        if annotations:
            number = next(iter(annotations))
            where = f"{self.path}: annotations[{annotations[number][0]}]"
            raise DataError(f"is of image {number}, which is not listed", where=where)

    def _annotations(self) -> dict[int, list[int]] | None:
        """Places in the list of annotations by image."""
        if not self.content.has("annotations"):
            return None
        found: dict[int, list[int]] = {}
        for index, record in enumerate(self.content.records("annotations")):
            found.setdefault(record.whole("image_id"), []).append(index)
        return found

    def _picture(self, name: str, where: str) -> Path:
        if not stays_inside(name):
            raise DataError(f"file_name '{name[:120]}' leads outside", where=where)
        for folder in self.folders:
            if is_file(folder / name):
                return folder / name
        raise DataError(
            f"image '{name[:120]}' is missing",
            where=where,
            hint=f"looked in {', '.join(map(str, self.folders[:4]))}; or say coco,images=FOLDER:...",
        )

    def _marks(self, path: Path, size: tuple[int, int], own: list[int] | None) -> Marks:
        if own is None:
            return Marks(withheld=self.split == "test")
        turned = _orientation(path, size)
        listed = self.content.fields["annotations"]
        found = [_Region(self._region(listed, i), self.classes, size, self.labels) for i in own]
        boxed = [(r.box(turned), r.place, r.crowd) for r in found]
        there = [(box, place, crowd) for box, place, crowd in boxed if box is not None]
        boxes = Boxes.of([b for b, _, _ in there], [p for _, p, _ in there], [c for *_, c in there])
        return Marks(_painted(found, size, turned) if self.labels else None, boxes)

    def _region(self, listed: list[Any], index: int) -> Record:
        return Record(listed[index], f"{self.path}: annotations[{index}]")


def _orientation(path: Path, size: tuple[int, int]) -> int:
    """How to turn what is marked on a picture, which is shown upright, as its EXIF says.

    What is marked may be on the raster as stored or on the upright picture; the size that the JSON says
    tells which, unless both are alike: then it is the upright one, as viewers show it.

    Raises:
        DataError: it is of neither size.
    """
    with naming(path):
        height, width, orientation = size_of(read_bytes(path))
    stored, turned = (height, width), (width, height)
    shown = turned if orientation >= 5 else stored  # 5 to 8 exchange rows and columns
    if size == shown:
        return UPRIGHT
    if size == stored:
        return orientation
    raise DataError(f"is {shown[1]}x{shown[0]}, the JSON says {size[1]}x{size[0]}", where=str(path))


class _Region:
    """One annotation."""

    def __init__(
        self, record: Record, classes: dict[int, int], size: tuple[int, int], labels: bool
    ) -> None:
        self.record, self.size, self.labels = record, size, labels
        category = record.whole("category_id")
        if category not in classes:
            raise DataError(f"there is no category {category}", where=record.where)
        self.place = classes[category]
        self.crowd = bool(record.fields.get("iscrowd"))

    def box(self, turned: int) -> tuple[float, float, float, float] | None:
        """Left, top, right, bottom in the upright picture; None for none."""
        if not self.record.has("bbox"):
            bounds = bounds_of(self.mask())
            if bounds is None:
                return None
            x0, y0, x1, y1 = bounds
        else:
            x0, y0, wide, high = self.record.numbers("bbox", 4)
            if wide < 0 or high < 0:
                raise DataError("'bbox' has a negative size", where=self.record.where)
            x1, y1 = x0 + wide, y0 + high
        return turned_box((x0, y0, x1, y1), self.size, turned)

    def mask(self) -> NDArray[np.bool_]:
        """(H, W) of the raster that the JSON speaks of; its box where there is no segmentation."""
        record, given = self.record, self.record.fields.get("segmentation")
        if isinstance(given, dict):
            code = Record(given, f"{record.where}: segmentation")
            mask = mask_of_runs(given.get("counts"), given.get("size"), code.where)
            if mask.shape != self.size:
                raise DataError(
                    f"mask is {mask.shape[1]}x{mask.shape[0]}, the image "
                    f"{self.size[1]}x{self.size[0]}",
                    where=code.where,
                )
            return mask
        if isinstance(given, list) and given:
            polygons = given if isinstance(given[0], list) else [given]
            return mask_of_polygons([self._polygon(one) for one in polygons], self.size)
        x0, y0, wide, high = record.numbers("bbox", 4)
        corners = [x0, y0, x0 + wide, y0, x0 + wide, y0 + high, x0, y0 + high]
        return mask_of_polygons([corners], self.size)

    def _polygon(self, values: Any) -> list[float]:
        found = self.record.numbers_of(
            values if isinstance(values, list) else [None], "segmentation", None
        )
        if len(found) % 2 or len(found) < 2 * _LEAST_CORNERS:
            raise DataError(
                f"a polygon of {len(found)} numbers, expected x, y of three corners or more",
                where=self.record.where,
            )
        return found


def turned_box(
    box: tuple[float, float, float, float], size: tuple[int, int], orientation: int
) -> tuple[float, float, float, float]:
    """A box of a raster of (height, width) in the picture that `upright` makes of it."""
    x0, y0, x1, y1 = box
    height, width = size
    if orientation >= 5:
        x0, y0, x1, y1, height, width = y0, x0, y1, x1, width, height
    if orientation in (3, 4, 7, 8):
        y0, y1 = height - y1, height - y0
    if orientation in (2, 3, 6, 7):
        x0, x1 = width - x1, width - x0
    return x0, y0, x1, y1


def _painted(regions: Iterable[_Region], size: tuple[int, int], turned: int) -> NDArray[np.int32]:
    """Places of `seg_classes`, the background being the first."""
    labels = np.zeros(size, np.int32)
    masks = [(region.mask(), region.place + 1) for region in regions]
    for mask, place in sorted(masks, key=lambda one: -int(one[0].sum())):
        labels[mask] = place
    return upright(labels, turned)
