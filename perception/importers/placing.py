"""Files of samples put into a recording: as they are where the folder format reads them, else made."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import array_of, naming, picture_of
from perception.adapters.pictures import single_channel, size_of
from perception.errors import DataError, EncodingError
from perception.files.text import read_bytes
from perception.files.writing import write_image, writing
from perception.frame import Sample
from perception.importers.fitting import Fit, Size, fill_of
from perception.importers.source import Stored, TimedPoints
from perception.sensors.kind import Hints, SensorKind
from perception.sensors.samples import load_sample

WAYS = ("copy", "link")
_UPRIGHT_FROM = 5  # EXIF orientations that exchange rows and columns


def is_turned(kind: SensorKind) -> bool:
    """Whether the kind's pictures are turned upright when they are read: maps of distances never are."""
    return "scale" not in kind.hints


def size_of_file(path: Path, kind: SensorKind) -> Size:
    """(height, width) of a picture as its kind reads it, by its header.

    Raises:
        DataError: no such file, or one of impossible size.
        EncodingError: it is no picture.
    """
    with naming(path):
        content = read_bytes(path)
        array = array_of(content, path)
        if array is not None:
            return array.shape[0], array.shape[1]
        height, width, orientation = size_of(content)
        turned = is_turned(kind) and orientation >= _UPRIGHT_FROM
        return (width, height) if turned else (height, width)


class Placer:
    """Puts a sensor's files into a folder.

    Args:
        folder: of the sensor in the recording.
        kind: of the sensor.
        hints: what `dataset.yaml` will say of its files.
        way: `copy`, or `link`: a hard link, or where the file systems differ a symbolic one.
    """

    def __init__(self, folder: Path, kind: SensorKind, hints: Hints, way: str = "copy") -> None:
        self.folder, self.kind, self.hints, self.way = folder, kind, hints, way

    def place(
        self,
        name: str,
        given: Path | Callable[[], Stored | None],
        size: Size | None,
        fit: Fit | None,
    ) -> None:
        """Put one sample there; what is to be read as it is has been read before it is placed.

        Args:
            name: the frame's id.
            given: the file, or what gives it, its content, or None for no sample.
            size: (height, width) that it must have, None for points.
            fit: where a picture lies in that of the recording; None to leave it as it is.

        Raises:
            AnySenseError: it cannot be read, is of another size, or cannot be written.
        """
        stored = given if isinstance(given, Path) else given()
        if stored is None:
            return
        if isinstance(stored, Path):
            if fit is None and self._suffix(stored):
                self._check(load_sample(self.kind.name, stored, self.hints), size, stored)
                self._put(stored, self.folder / f"{name}{self._suffix(stored)}")
                return
            stored = self._values(stored)
        if isinstance(stored, TimedPoints):
            self._write_points(name, points=stored.points, time=stored.times)
            return
        if size is not None and fit is None and stored.shape[:2] != size:
            raise _other_size(stored.shape, size, name)
        if fit is not None:
            blended = self.kind.colors or (bool(self.kind.units) and bool(np.all(stored)))
            fill = fill_of(colors=self.kind.colors)
            stored = fit.picture(stored, blended=blended, fill=fill)
        self._write(stored, name)

    def _suffix(self, path: Path) -> str:
        """That of the folder format, empty for a file of another one."""
        lower = path.name.lower()
        return max((s for s in self.kind.suffixes if lower.endswith(s)), key=len, default="")

    def _check(self, sample: Sample, size: Size | None, path: Path) -> None:
        if size is not None and sample.data.shape[:2] != size:
            raise _other_size(sample.data.shape, size, str(path))

    def _put(self, path: Path, place: Path) -> None:
        try:
            source = os.path.realpath(path)
            if self.way == "copy":
                shutil.copyfile(source, place)
                return
            try:
                os.link(source, place)
            except OSError:  # another file system, or one without hard links
                os.symlink(source, place)
        except OSError as error:
            raise DataError(
                f"cannot be taken over: {error.strerror or error}", where=str(path)
            ) from error

    def _values(self, path: Path) -> NDArray[Any]:
        """What a file holds, as `Stored`."""
        if self.kind.colors or not self.kind.has_picture:
            data: NDArray[Any] = load_sample(self.kind.name, path, self.hints).data
            return data
        with naming(path):
            content = read_bytes(path)
            array = array_of(content, path)
            if array is None:
                picture = picture_of(content, path)
                array = single_channel(
                    picture.upright() if is_turned(self.kind) else picture.samples()
                )
            return array

    def _write(self, stored: NDArray[Any], name: str) -> None:
        if not self.kind.has_picture:
            self._write_points(name, points=stored)
        elif stored.dtype in (np.uint8, np.uint16):
            write_image(self.folder / f"{name}.png", stored, sync=False)
        elif self._suffix(Path("a.npy")):
            with writing(self.folder / f"{name}.npy", sync=False) as partial:
                np.save(partial, stored)
        else:
            raise EncodingError(f"{stored.dtype} is no {self.kind.name} picture", where=name)

    def _write_points(self, name: str, **columns: NDArray[Any]) -> None:
        with writing(self.folder / f"{name}.npz", sync=False) as partial:
            arrays = {key: values.astype(np.float32) for key, values in columns.items()}
            np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]


def _other_size(shape: tuple[int, ...], size: Size, where: str) -> DataError:
    return DataError(
        f"is {shape[1]}x{shape[0]} pixels, expected {size[1]}x{size[0]}",
        where=where,
        hint="--size WIDTHxHEIGHT brings pictures of several sizes to one",
    )
