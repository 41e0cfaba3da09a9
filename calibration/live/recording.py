"""Views of a board on the disk: what `anysense calibrate` reads, and what a restart goes on from."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import CLOUD_SUFFIXES, PICTURE_SUFFIXES
from perception.errors import CalibrationError, ConfigError
from perception.files.listing import stem_of, visible_files
from perception.files.writing import write_bytes, write_image

ASIDE = "before"
"""Begins the name of a folder in which views lie that were set aside."""

_FAST = [16, 1]  # cv2.IMWRITE_PNG_COMPRESSION: a view is written while somebody holds the board


class ViewFolder:
    """A folder with one of pictures or clouds for each sensor, files of one view having one name.

    Args:
        root: made where it is missing.
        pictures: sensors that give pictures.
        clouds: sensors that give clouds.

    Raises:
        ConfigError: it cannot be made.
    """

    def __init__(self, root: Path, pictures: Sequence[str], clouds: Sequence[str] = ()) -> None:
        self.root, self.pictures, self.clouds = root, tuple(pictures), tuple(clouds)
        try:
            for name in (*pictures, *clouds):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot be made: {error.strerror}", where=str(root)) from error

    def files(self, sensor: str) -> dict[str, Path]:
        """The files of a sensor by the name of their view, in order."""
        suffixes = CLOUD_SUFFIXES if sensor in self.clouds else PICTURE_SUFFIXES
        found = {
            stem_of(path, suffixes): path
            for path in visible_files(self.root / sensor, error=CalibrationError)
            if path.name.lower().endswith(suffixes)
        }
        return dict(sorted(found.items()))

    def views(self) -> list[str]:
        """The names of all views, also of those that some sensors have no part in."""
        return sorted(
            {stem for name in (*self.pictures, *self.clouds) for stem in self.files(name)}
        )

    def add(self, samples: Mapping[str, NDArray[Any]]) -> str:
        """Write a view.

        Args:
            samples: by sensor, pictures (H, W) or (H, W, 3) in R, G, B order of uint8, uint16 or float32,
                and clouds (N, C>=3) float32, metres.

        Returns:
            Its name, a number that none had before.

        Raises:
            CalibrationError: the disk is full, for example. What was written of it stays, and is a view of
                fewer sensors.
        """
        numbers = [int(stem) for stem in self.views() if re.fullmatch(r"[0-9]{1,9}", stem)]
        stem = f"{max(numbers, default=0) + 1:04d}"
        for (
            name
        ) in self.clouds:  # a picture without its cloud would seem to be one of the camera alone
            if name in samples:
                content = io.BytesIO()
                np.save(content, np.ascontiguousarray(samples[name], np.float32))
                path = self.root / name / f"{stem}.npy"
                write_bytes(path, content.getvalue(), error=CalibrationError)
        for name in self.pictures:
            if name in samples:
                whole = np.issubdtype(samples[name].dtype, np.integer)
                path = self.root / name / f"{stem}{'.png' if whole else '.tiff'}"
                options = _FAST if whole else None
                write_image(path, samples[name], options, error=CalibrationError)
        return stem

    def set_aside(self) -> Path | None:
        """Move all views into a folder beside, where they can still be solved; None where there are none.

        Raises:
            CalibrationError: they cannot be moved.
        """
        if not self.views():
            return None
        number = 1
        while (aside := self.root / f"{ASIDE}-{number:02d}").exists():
            number += 1
        try:
            aside.mkdir()
            for name in (*self.pictures, *self.clouds):
                (self.root / name).rename(aside / name)
                (self.root / name).mkdir()
        except OSError as error:
            raise CalibrationError(
                f"cannot be moved: {error.strerror}", where=str(aside)
            ) from error
        return aside
