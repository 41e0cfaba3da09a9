"""The thread of the node `calibrate` that looks at what sensors send, and takes views."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from anysense_ros.calibrate_settings import Settings
from anysense_ros.calibrating import (
    NO_BOARD,
    Chooser,
    Grouper,
    Look,
    ViewFolder,
    detect,
    find_plates,
    read_gray,
    sighting_of,
)
from anysense_ros.conversions import to_ns, to_sample
from perception.errors import AnySenseError
from perception.frame import LEAST_RANGE_M, Sample

NO_PLATE = "no plate of that size found"
NOT_THERE = "no sample of this moment"
_WAIT_S = 0.2
_STALE_S = 3.0

Said = Callable[[str, str], None]
"""Called with a level (`info`, `warn`, `error`) and a line."""


@dataclass(frozen=True)
class Moment:
    """What was looked at together.

    Attributes:
        samples: by sensor, decoded.
        looks: of the cameras, what each picture is worth.
        problems: of sensors, why there is no view; all of them empty where there is nothing to say.
        arrived: by `time.monotonic`.
        took: the name of the view that was taken of it.
    """

    samples: Mapping[str, Sample]
    looks: Mapping[str, Look]
    problems: Mapping[str, str]
    arrived: float = field(default_factory=time.monotonic)
    took: str = ""


class ViewTaker:
    """Decodes, finds the board, judges, and writes views.

    Args:
        settings: of the node.
        folder: of the views; those that are there count.
        said: for the log, on the thread.
        looked: called after each moment, on the thread.
    """

    def __init__(
        self, settings: Settings, folder: ViewFolder, said: Said, looked: Callable[[Moment], None]
    ) -> None:
        self.settings, self.folder, self._said, self._looked = settings, folder, said, looked
        self.chooser = Chooser(settings.board, settings.cameras, settings.rules)
        self.faults: dict[str, str] = {}
        """By sensor, why its newest message cannot be used."""
        self.frames: dict[str, str] = {}
        """By sensor, the frame that its messages name."""
        self.heard: dict[str, float] = {}
        """By sensor, when its newest message came, by `time.monotonic`."""
        self.reading: tuple[int, int] | None = (0, 0)
        """How many of the pictures that were there are read; None when all are."""
        self.lock = threading.RLock()
        """Held while views are taken or set aside."""
        tolerance = round(settings["sync.tolerance_ms"] * 1e6)
        self._groups = Grouper([*settings.kinds], settings.wanted, tolerance)
        self._came = threading.Condition()
        self._last: Moment | None = None
        self._paused = self._ended = False
        self._thread = threading.Thread(target=self._run, name="views", daemon=True)

    def start(self) -> None:
        """Begin to read what is there, and then to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        with self._came:
            self._ended = True
            self._came.notify()
        if self._thread.is_alive():
            self._thread.join(10)

    def pause(self, paused: bool) -> None:
        """Look at nothing while something else needs the machine."""
        with self._came:
            self._paused = paused
            self._groups.clear()
            self._came.notify()

    def push(self, name: str, message: Any) -> None:
        """Take in a message; one without a stamp (0) is of now."""
        stamp_ns = to_ns(message.header.stamp) or time.time_ns()
        self.heard[name] = time.monotonic()
        with self._came:
            if not self._paused and self.reading is None:
                self._groups.add(name, stamp_ns, message)
                self._came.notify()

    def count(self, name: str) -> int:
        """How many views of a sensor there are."""
        return len(self.folder.files(name))

    def views(self) -> int:
        """How many views all wanted sensors have a part in."""
        stems = [set(self.folder.files(name)) for name in self.settings.wanted]
        return len(set.intersection(*stems))

    def apart_ms(self, name: str) -> float | None:
        """How far a sensor's newest stamps are from the first wanted one's; None where they fit or are not
        known."""
        with self._came:
            off = self._groups.off_ns(name)
        return None if off is None or off <= 1e6 * self.settings["sync.tolerance_ms"] else off / 1e6

    def take_now(self) -> str:
        """Write the last moment as it is, so long as the wanted cameras see the board.

        Returns:
            The name of the view.

        Raises:
            AnySenseError: there is no such moment, or it cannot be written.
        """
        with self.lock:
            last = self._last
            if last is None or time.monotonic() - last.arrived > _STALE_S:
                raise AnySenseError(f"nothing was looked at in the last {_STALE_S:g} s")
            for name in self.settings.wanted:
                if name not in last.samples:
                    raise AnySenseError(last.problems.get(name) or NOT_THERE, where=name)
                if name in self.settings.cameras and last.looks[name].sighting is None:
                    raise AnySenseError(NO_BOARD, where=name)
            self._last = None
            return self._write(last.samples, last.looks)

    def reset(self) -> str:
        """Set all views aside and begin anew; where they are, '' where there were none."""
        with self.lock:
            aside = self.folder.set_aside()
            self.chooser.forget()
            self._last = None
        return "" if aside is None else str(aside)

    # -- on the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        self._read_what_is_there()
        while True:
            with self._came:
                group = None if self._paused else self._groups.next()
                while group is None and not self._ended:
                    self._came.wait(_WAIT_S)
                    group = None if self._paused else self._groups.next()
                if self._ended:
                    return
            assert group is not None
            try:
                self._looked(self._look(*group))
            except Exception as error:  # one picture must not end the node
                line = f"unexpected {type(error).__name__}: {error}"
                self._said("error", line.splitlines()[0])

    def _read_what_is_there(self) -> None:
        files = [(n, path) for n in self.settings.cameras for path in self.folder.files(n).values()]
        empty = 0
        for index, (name, path) in enumerate(files):
            self.reading = index, len(files)
            if self._ended:
                return
            try:
                image = read_gray(path)
                view = detect(image, self.settings.board, path.name)
                seen = None if view is None else self._sighting(name, image, view)
            except Exception as error:
                self._said("warn", f"{path} is left out: {error}".splitlines()[0])
                continue
            if seen is None:
                empty += 1
            else:
                self.chooser.take(name, seen)
        if files:
            line = f"goes on from {len(self.folder.views())} views in {self.folder.root}"
            self._said("info", line)
        if empty:
            board = self.settings.board
            self._said("warn", f"{empty} pictures that are there show no {board}")
        self.reading = None

    def _sighting(self, name: str, image: NDArray[Any], view: Any) -> Any:
        return sighting_of(image, view, self.settings.board, self.chooser.models.get(name))

    def _look(self, stamp_ns: int, messages: Mapping[str, Any]) -> Moment:
        samples = self._decoded(messages)
        looks, problems = {}, dict(self.faults)
        for name in self.settings.cameras:
            if name not in samples:
                problems.setdefault(name, NOT_THERE)
                continue
            gray = gray_of(samples[name].data)
            # Faint boards, as of thermal cameras, want all ways; their pictures are small.
            thorough = gray.dtype != np.uint8
            view = detect(gray, self.settings.board, name, thorough=thorough)
            own = to_ns(messages[name].header.stamp) or stamp_ns
            looks[name] = self.chooser.look(name, own, gray, view)
            problems[name] = looks[name].problem
        for name in self.settings.clouds:
            if name not in samples:
                problems.setdefault(name, NOT_THERE)
        wanted = self.settings.wanted
        good = not any(problems.get(name) for name in wanted)
        if good and any(looks[name].new for name in wanted if name in looks):
            problems |= self._without_plate(samples)
            if not any(problems.get(name) for name in wanted):
                return self._take(samples, looks, problems)
        moment = Moment(samples, looks, problems)
        with self.lock:
            self._last = moment
        return moment

    def _without_plate(self, samples: Mapping[str, Sample]) -> dict[str, str]:
        """Which clouds show no plate: looked for only in what would be taken, as it takes long."""
        plate, found = self.settings.plate, {}
        for name in self.settings.clouds:
            if name in samples and plate is not None:
                points = np.asarray(samples[name].data[:, :3], np.float64)
                points = points[np.isfinite(points).all(axis=1)]
                found[name] = "" if find_plates(points, plate) else NO_PLATE
        return found

    def _take(
        self, samples: Mapping[str, Sample], looks: Mapping[str, Look], problems: dict[str, str]
    ) -> Moment:
        with self.lock:
            if self._paused:
                return Moment(samples, looks, problems)
            good = {name: one for name, one in samples.items() if not problems.get(name)}
            try:
                took = self._write(good, looks)
            except AnySenseError as error:  # the disk is full
                self._said("error", str(error))
                first = self.settings.wanted[0]
                return Moment(samples, looks, {**problems, first: str(error)})
        self._said("info", f"took view {took}")
        return Moment(samples, looks, problems, took=took)

    def _write(self, samples: Mapping[str, Sample], looks: Mapping[str, Look]) -> str:
        took = self.folder.add({name: sample.data for name, sample in samples.items()})
        for name, look in looks.items():
            if name in samples and look.sighting is not None:
                self.chooser.take(name, look.sighting)
        return took

    def _decoded(self, messages: Mapping[str, Any]) -> dict[str, Sample]:
        samples = {}
        for name, message in messages.items():
            values = self.settings.values
            try:
                samples[name] = to_sample(
                    self.settings.kinds[name],
                    message,
                    values.get(f"{name}.unit", "auto"),
                    least_range_m=values.get(f"{name}.least_range_m", LEAST_RANGE_M),
                    sensor=name,
                )
            except AnySenseError as error:
                self.faults[name] = str(error)
            else:
                self.faults.pop(name, None)
                self.frames[name] = samples[name].frame_id
        return samples


def gray_of(image: NDArray[Any]) -> NDArray[Any]:
    """(H, W) of a picture (H, W) or (H, W, 3) of R, G, B, as `anysense calibrate` reads it from a file."""
    if image.ndim == 2:
        return image
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image[:, :, :3]), cv2.COLOR_RGB2GRAY))
