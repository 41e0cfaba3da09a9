"""What `anysense run` writes: pictures, masks, boxes in COCO's format, JSON and a film."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.cli.arguments import output_folder
from perception.errors import ConfigError, DataError, names_hint
from perception.files.writing import write_image, write_json, writing
from perception.frame import Frame
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.tasks.registry import TASKS

CODECS = {".mp4": "mp4v", ".avi": "MJPG", ".mkv": "mp4v", ".mov": "mp4v"}
WRITTEN = ("overlay", "masks", "boxes", "results")


def result_fields(pipeline: Any, result: Any) -> dict[str, Any]:
    """A result as plain values."""
    manifest = pipeline.manifest
    out: dict[str, Any] = {
        "bundle": manifest.name,
        "used": list(result.used),
        "present": list(result.present),
        "state": result.state,
        "health": dict(result.health),
        "backend": result.backend,
        "warnings": list(result.lines),
        "timings_ms": {k: round(v, 3) for k, v in result.timings.items()},
    }
    if result.placed:
        out["placed"] = dict(result.placed)
    if result.novelty:
        out["novelty"] = {sensor: round(value, 3) for sensor, value in result.novelty.items()}
    specs = manifest.tasks.every
    for name, value in result.values.items():
        out |= TASKS[name].to_dict(value, specs[name])
    return out


class Film:
    """A video of pictures, which are brought to the size of the first.

    Args:
        path: of the file; its suffix says the format.
        rate_hz: pictures per second.

    Raises:
        ConfigError: another suffix.
    """

    def __init__(self, path: Path, rate_hz: float) -> None:
        if path.suffix.lower() not in CODECS:
            hint = names_hint(path.suffix, CODECS)
            raise ConfigError(f"'{path.suffix}' is unknown", where="--video", hint=hint)
        self.path, self._rate_hz = path, rate_hz
        self._opened = ExitStack()
        self._writer: Any = None
        self._size = (0, 0)
        self._partial = path

    def add(self, picture: np.ndarray[Any, Any]) -> None:
        """One picture more, (H, W, 3) uint8 RGB.

        Raises:
            ConfigError: this OpenCV cannot write the format.
        """
        if self._writer is None:
            height, width = (
                side + side % 2 for side in picture.shape[:2]
            )  # codecs want even sides
            self._size = (width, height)
            self._partial = self._opened.enter_context(writing(self.path, error=ConfigError))
            codec = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._partial), codec, self._rate_hz, self._size)
            if not self._writer.isOpened():
                raise ConfigError("this OpenCV cannot write it", where=str(self.path), hint=".avi")
        if picture.shape[1::-1] != self._size:
            picture = cv2.copyMakeBorder(
                picture[: self._size[1], : self._size[0]],
                0,
                max(0, self._size[1] - picture.shape[0]),
                0,
                max(0, self._size[0] - picture.shape[1]),
                cv2.BORDER_CONSTANT,
            )
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def close(self, *, whole: bool) -> None:
        """End the file; one that is not whole is not kept."""
        if self._writer is not None:
            self._writer.release()
            if whole and not self._partial.stat().st_size:
                whole = False
            if whole:
                self._opened.close()
            else:
                broken = DataError("was not finished", where=str(self.path))
                self._opened.__exit__(DataError, broken, None)


class Output:
    """Writes results into a folder: of one frame side by side, of many in a folder for each sort of picture.

    Args:
        folder: for the results.
        pipeline: that they are of.
        single: there is one frame.
        wanted: which of `WRITTEN`.
        legend: pictures get one.
        film: to add the pictures to.

    Attributes:
        states: how many results of each state.
        used: how many results were computed from each set of sensors.
        milliseconds: of each.
    """

    def __init__(
        self,
        folder: Path,
        pipeline: Pipeline,
        *,
        single: bool,
        wanted: frozenset[str],
        legend: bool = True,
        film: Film | None = None,
    ) -> None:
        self.folder, self.pipeline, self.single = output_folder(folder), pipeline, single
        self.wanted, self.legend, self.film = wanted, legend, film
        self.states: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        self.milliseconds: list[float] = []
        self._coco = _Coco(pipeline)
        self._names: set[str] = set()
        self._lines: Any = None

    def add(self, name: str, frame: Frame, result: Result, origin: str = "") -> dict[str, Any]:
        """Write a frame's; returns its plain values."""
        fields = result_fields(self.pipeline, result)
        name = self._file_name(name)
        self.states[result.state] += 1
        self.used["+".join(result.used) or "nothing"] += 1
        if self.single:
            write_json(self.folder / "result.json", fields, error=ConfigError)
        elif "results" in self.wanted:
            self._line({"frame": name, "origin": origin, **fields})
        if not result.used:
            return fields
        self.milliseconds.append(result.total_ms)
        self._pictures(name, frame, result)
        self._coco.add(name, origin, frame, result)
        return fields

    def _pictures(self, name: str, frame: Frame, result: Result) -> None:
        from perception.viz.legend import draw_explained
        from perception.viz.overlay import draw_result
        from perception.viz.scene import draw_ground, shows_ground

        manifest, specs = self.pipeline.manifest, self.pipeline.manifest.tasks.every
        if "overlay" in self.wanted or self.film is not None:
            draw = draw_explained if self.legend else draw_result
            picture = draw(manifest, frame, result)
            if "overlay" in self.wanted:
                self._image("overlay", name, picture)
            if self.film is not None:
                self.film.add(picture)
        if "overlay" in self.wanted and shows_ground(manifest):
            self._image("birdseye", name, draw_ground(manifest, frame, result))
        if "masks" in self.wanted:
            for task, value in result.values.items():
                for file, image in TASKS[task].files(value, specs[task]).items():
                    self._image(file, name, image)

    def _image(self, what: str, name: str, image: Any) -> None:
        if self.single:
            write_image(self.folder / f"{what}.png", image)
            return
        path = self.folder / what / f"{name}.png"
        output_folder(path.parent)
        write_image(path, image, sync=False)

    def _line(self, content: Mapping[str, Any]) -> None:
        """At once, so that an interrupted run can be read."""
        if self._lines is None:
            self._lines = (self.folder / "results.jsonl").open("wb", buffering=0)
        self._lines.write(f"{json.dumps(content, default=str)}\n".encode())

    def _file_name(self, name: str) -> str:
        """A name that a file can have, which no other frame has."""
        plain = re.sub(r"[^\w.-]", "_", name)[:100].strip(".") or "frame"
        found = plain if plain not in self._names else f"{plain}_{len(self._names):06d}"
        self._names.add(found)
        return found

    def close(self, *, whole: bool = True) -> None:
        """Finish the film, and write the boxes."""
        if self._lines is not None:
            self._lines.close()
        if self.film is not None:
            self.film.close(whole=whole)
        if whole and "boxes" in self.wanted and self._coco.categories and self._names:
            write_json(self.folder / "boxes.json", self._coco.content(), error=ConfigError)


class _Coco:
    """Boxes as COCO has them: images, categories, annotations with scores."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._specs = pipeline.manifest.tasks.every
        self.categories = [
            {"id": entry.id, "name": entry.name, "supercategory": name}
            for name, spec in self._specs.items()
            if TASKS[name].annotations is not None
            for entry in spec.labels
        ]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, name: str, origin: str, frame: Frame, result: Result) -> None:
        from perception.viz.overlay import source_size

        number = len(self._images) + 1
        size = None if result.reference is None else source_size(frame[result.reference])
        height, width = size or (0, 0)
        file = Path(origin).name if origin else name
        self._images.append({"id": number, "file_name": file, "width": width, "height": height})
        self._images[-1]["frame"] = name
        for task, value in result.values.items():
            annotations = TASKS[task].annotations
            for found in annotations(value, self._specs[task]) if annotations else ():
                own = {"id": len(self._annotations) + 1, "image_id": number, **found}
                self._annotations.append(own)

    def content(self) -> dict[str, Any]:
        return {
            "info": {"description": "found by AnySense; annotations have scores"},
            "images": self._images,
            "categories": self.categories,
            "annotations": self._annotations,
        }
