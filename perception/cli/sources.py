"""What `anysense run` takes for a sensor: files, a folder, a video, a camera; and how several go together."""

from __future__ import annotations

import glob
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from perception.adapters.quiet import quiet_opencv
from perception.errors import AnySenseError, ConfigError, DataError
from perception.files.limits import check_pixels
from perception.files.listing import counted, is_leftover, list_files, stem_of, visible_files
from perception.files.stderr import native_lines
from perception.frame import Sample
from perception.sensors.registry import kind_of
from perception.sensors.samples import sample_of

VIDEOS = (".mp4", ".m4v", ".avi", ".mkv", ".mov", ".webm", ".mpg", ".mpeg", ".ogv", ".wmv", ".mjpg")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm")
"""What is looked for in a folder of pictures, beside the kind's own files."""

_OTHER_PICTURES = (
    ".heic",
    ".heif",
    ".avif",
    ".gif",
    ".jp2",
    ".jxl",
    ".dng",
    ".cr2",
    ".cr3",
    ".nef",
    ".arw",
)
"""What we do not read, so that it is said to have been passed over."""

Rule = Literal["auto", "name", "stamp", "order"]
RULES: tuple[Rule, ...] = ("auto", "name", "stamp", "order")

_USUAL_HZ = 25.0
_DEVICE = re.compile("/dev/(video|v4l/)")  # one that is not plugged in is no file
_EVERY = re.compile("")
_LONE_WINDOW_NS = 50_000_000
_GRAY = 8
"""Channels of a gray video differ by no more than this after compression."""

Load = Callable[[str, Path], Sample]
"""(sensor, file) -> its sample."""


@dataclass(frozen=True)
class Shot:
    """What the sensors gave at one time.

    Attributes:
        name: of the files that are written of it.
        samples: by sensor.
        origin: the file of a sensor, where it has one.
        problems: why a sensor's sample is missing.
        alone: it has nothing to do with the one before.
    """

    name: str
    samples: Mapping[str, Sample]
    origin: str = ""
    problems: tuple[str, ...] = ()
    alone: bool = False


@dataclass(frozen=True)
class Files:
    """Files of one sensor, one for each frame.

    Attributes:
        sensor: whose they are.
        kind: of that sensor.
        paths: the files.
        passed_over: pictures and films of their folder that are not among them, in words.
    """

    sensor: str
    kind: str
    paths: tuple[Path, ...]
    passed_over: tuple[str, ...] = ()

    @property
    def stems(self) -> list[str]:
        """Their names without folders and suffixes."""
        suffixes = (*kind_of(self.kind).suffixes, *PICTURES)
        return [stem_of(path, suffixes) or path.name for path in self.paths]

    @property
    def own_stems(self) -> list[str]:
        """The same without the name of the sensor: `0012` of `left_0012` and `0012-left`."""
        word = re.compile(rf"(^|[_\-. ]){re.escape(self.sensor)}([_\-. ]|$)", re.IGNORECASE)
        return [word.sub("", stem) or stem for stem in self.stems]

    @property
    def stamps_ns(self) -> list[int] | None:
        """Times that their names are: seconds with a fraction, ms, us or ns since 1970; None for others."""
        found = [_stamp_ns(stem) for stem in self.stems]
        return None if None in found else [stamp for stamp in found if stamp is not None]


def _stamp_ns(stem: str) -> int | None:
    if match := re.fullmatch(r"(\d{9,10})\.(\d{1,9})", stem, re.ASCII):
        return int(match[1]) * 10**9 + int(match[2].ljust(9, "0"))
    factor = {13: 10**6, 16: 10**3, 19: 1}.get(len(stem))
    return int(stem) * factor if factor and re.fullmatch(r"\d+", stem, re.ASCII) else None


@dataclass
class Video:
    """A video file, or a camera that is read live.

    Args:
        sensor: whose pictures they are.
        kind: of that sensor.
        place: the file, a camera's number or device, or an address.
        live: it is a camera.
    """

    sensor: str
    kind: str
    place: str
    live: bool
    frames: int = 0
    rate_hz: float = _USUAL_HZ
    _capture: Any = field(default=None, repr=False)

    def open(self) -> None:
        """Open it.

        Raises:
            ConfigError: that cannot be done.
            InputError: its pictures are too large.
        """
        number = self.live and re.fullmatch(r"[0-9]{1,4}", self.place)
        with (
            quiet_opencv(),
            native_lines(_EVERY),
        ):  # FFmpeg and V4L2 write why, in words of their own
            self._capture = cv2.VideoCapture(int(self.place) if number else self.place)
        if not self._capture.isOpened():
            if not self.live:
                raise ConfigError("is no video that can be opened", where=self.place)
            raise ConfigError("no camera can be opened", where=self.place, hint=self._missing())
        width, height = (
            int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        check_pixels(width, height, where=self.place)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate if math.isfinite(rate) and 0.1 <= rate <= 1000 else _USUAL_HZ
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def _missing(self) -> str:
        """What to do about a camera that cannot be opened."""
        if "://" in self.place:
            return "nothing answers at this address, or no video comes from it"
        there = sorted(glob.glob("/dev/video*"), key=counted)
        listed = f"here are {', '.join(there)}" if there else "this machine has none in /dev"
        return f"is it plugged in, and used by no other program? {listed}"

    def close(self) -> None:
        """Give it back."""
        if self._capture is not None:
            self._capture.release()

    def read(self) -> np.ndarray[Any, Any] | None:
        """The next picture, BGR; None at its end."""
        there, picture = self._capture.read()
        return picture if there else None

    def sample(self, picture: np.ndarray[Any, Any], stamp_ns: int) -> Sample:
        """A picture as a sample.

        Raises:
            AnySenseError: the sensor's kind is not what a video holds.
        """
        if kind_of(self.kind).colors:
            return sample_of(self.kind, picture, "bgr8", sensor=self.sensor, stamp_ns=stamp_ns)
        small = picture[::8, ::8].astype(np.int16)
        if int((small.max(axis=2) - small.min(axis=2)).max()) > _GRAY:
            raise DataError(f"is in false colors: no {self.kind}", where=self.place)
        gray = np.ascontiguousarray(picture[..., 1])
        return sample_of(self.kind, gray, sensor=self.sensor, stamp_ns=stamp_ns)


Source = Files | Video


def source_of(sensor: str, kind: str, words: Sequence[str]) -> Source:
    """What the words behind a sensor's option mean.

    Raises:
        ConfigError: no file fits, or a folder has none of the kind.
    """
    if len(words) > 1:
        return Files(sensor, kind, tuple(Path(word) for word in words))
    word, path = words[0], Path(words[0])
    if path.is_dir():
        if (path / "dataset.yaml").is_file():
            hint = f"--data folder:{word}"
            raise ConfigError("is a recording of several sensors", where=word, hint=hint)
        own = kind_of(kind)
        suffixes = (*own.suffixes, *(s for s in PICTURES if own.has_picture))
        files = list_files(path, tuple(dict.fromkeys(suffixes)), error=ConfigError)
        return Files(sensor, kind, tuple(files.values()), _passed_over(path, set(files.values())))
    if path.is_file():
        video = path.suffix.lower() in VIDEOS
        return Video(sensor, kind, word, live=False) if video else Files(sensor, kind, (path,))
    if (
        path.is_char_device()
        or _DEVICE.match(word)
        or re.fullmatch(r"[0-9]{1,4}", word)
        or "://" in word
    ):
        if not kind_of(kind).has_picture:
            raise ConfigError(f"a camera is no {kind}", where=word)
        return Video(sensor, kind, word, live=True)
    if glob.has_magic(word):
        found = [Path(p) for p in glob.glob(word, recursive=True)]
        found = [p for p in found if p.is_file() and not is_leftover(p)]
        if not found:
            raise ConfigError("no file fits", where=word)
        return Files(sensor, kind, tuple(sorted(found, key=lambda p: counted(str(p)))))
    return Files(sensor, kind, (path,))  # whose loader says that there is none


def _passed_over(folder: Path, taken: set[Path]) -> tuple[str, ...]:
    """Which pictures and films of a folder are not taken: as phones and cameras put them there."""
    left = [p for p in visible_files(folder, error=ConfigError) if p not in taken]
    found = Counter(s for p in left if (s := p.suffix.lower()) in (*_OTHER_PICTURES, *VIDEOS))
    return tuple(f"{number} {suffix} in {folder}" for suffix, number in sorted(found.items()))


@dataclass(frozen=True)
class Pairing:
    """Which files go together.

    Attributes:
        rule: by which.
        frames: name, and by sensor the index of its file.
    """

    rule: str
    frames: tuple[tuple[str, Mapping[str, int]], ...]

    @property
    def gaps(self) -> int:
        """Frames that lack a sensor."""
        most = max((len(places) for _, places in self.frames), default=0)
        return sum(len(places) < most for _, places in self.frames)


def pair(sources: Sequence[Files], rule: Rule = "auto") -> Pairing:
    """Find which files of several sensors belong to one time.

    One file of each: they do.  Else by name, where all have a name in common, if need be without the
    sensors' names; else by the times that the names are, each with the nearest within half a period of the
    first sensor's; else in their order, where all have as many.

    Raises:
        ConfigError: none of it fits.
    """
    if all(len(source.paths) == 1 for source in sources) and rule == "auto":
        first = sources[0]
        return Pairing("one of each", ((first.stems[0], {s.sensor: 0 for s in sources}),))
    if len(sources) == 1:
        return Pairing("one sensor", _numbered(_distinct(sources[0].stems), sources))
    if rule in ("auto", "name"):
        for stems in ([s.stems for s in sources], [s.own_stems for s in sources]):
            distinct = all(len(set(one)) == len(one) for one in stems)
            if distinct and set.intersection(*(set(one) for one in stems)):
                return Pairing("name", _by_name(sources, stems))
    stamps = [source.stamps_ns for source in sources]
    if rule in ("auto", "stamp") and None not in stamps:
        return Pairing("stamp", _by_stamp(sources, [s for s in stamps if s is not None]))
    counts = {len(source.paths) for source in sources}
    if rule in ("auto", "order") and len(counts) == 1:
        return Pairing("order", _numbered(_distinct(sources[0].stems), sources))
    told = ", ".join(f"{s.sensor} {len(s.paths)}" for s in sources)
    wanted = {
        "auto": "the same names, times as names, or equally many",
        "name": "a name that all have",
        "stamp": "times as names, such as 1699999999.250000.png",
        "order": "equally many",
    }[rule]
    raise ConfigError(f"files cannot be paired ({told})", hint=f"give them {wanted}")


def _distinct(stems: list[str]) -> list[str]:
    return stems if len(set(stems)) == len(stems) else [f"{i:06d}" for i in range(len(stems))]


def _numbered(
    names: list[str], sources: Sequence[Files]
) -> tuple[tuple[str, Mapping[str, int]], ...]:
    return tuple((name, {s.sensor: i for s in sources}) for i, name in enumerate(names))


def _by_name(
    sources: Sequence[Files], stems: list[list[str]]
) -> tuple[tuple[str, Mapping[str, int]], ...]:
    found: dict[str, dict[str, int]] = {}
    for source, own in zip(sources, stems, strict=True):
        for index, stem in enumerate(own):
            found.setdefault(stem, {})[source.sensor] = index
    return tuple((name, found[name]) for name in sorted(found, key=counted))


def _by_stamp(
    sources: Sequence[Files], stamps: list[list[int]]
) -> tuple[tuple[str, Mapping[str, int]], ...]:
    order = np.argsort(stamps[0], kind="stable")
    times = np.array(stamps[0])[order]
    steps = np.diff(times)
    window = int(np.median(steps)) // 2 if len(steps) else _LONE_WINDOW_NS
    frames = []
    for index, at in zip(order.tolist(), times.tolist(), strict=True):
        places = {sources[0].sensor: index}
        for source, own in zip(sources[1:], stamps[1:], strict=True):
            gaps = np.abs(np.array(own) - at)
            if gaps.min() <= window:
                places[source.sensor] = int(gaps.argmin())
        frames.append((sources[0].stems[index], places))
    return tuple(frames)


def files_shots(sources: Sequence[Files], found: Pairing, load: Load) -> Iterator[Shot]:
    """The frames of paired files; one whose file cannot be read goes without, unless it is the only one.

    Raises:
        AnySenseError: the only frame's file cannot be read.
    """
    timed = found.rule == "stamp" or (len(sources) == 1 and sources[0].stamps_ns is not None)
    for name, places in found.frames:
        samples: dict[str, Sample] = {}
        problems, origin = [], ""
        for source in sources:
            if source.sensor not in places:
                continue
            index = places[source.sensor]
            try:
                sample = load(source.sensor, source.paths[index])
            except AnySenseError as error:
                if len(found.frames) == 1:
                    raise
                problems.append(str(error))
                continue
            if timed and source.stamps_ns is not None:
                sample = replace(sample, stamp_ns=source.stamps_ns[index])
            samples[source.sensor] = sample
            origin = origin or str(source.paths[index])
        yield Shot(name, samples, origin, tuple(problems), alone=not timed)


def stream_shots(
    sources: Sequence[Source], load: Load, finish: Callable[[Sample], Sample]
) -> Iterator[Shot]:
    """The frames of videos and cameras, with files beside them one by one.

    Of several videos the first gives the times, the others their nearest picture; cameras are read in turn.

    Args:
        sources: at least one of them is a `Video`.
        load: of files.
        finish: what is done with every sample of a video.

    Raises:
        ConfigError: one cannot be opened, has no frame, or a camera stands beside files.
    """
    videos = [s for s in sources if isinstance(s, Video)]
    live = any(video.live for video in videos)
    if live and not all(isinstance(s, Video) and s.live for s in sources):
        raise ConfigError("a camera goes with other cameras only", where=videos[0].place)
    with ExitStack() as opened:
        for video in videos:
            opened.callback(video.close)
            video.open()
        readers = {v.sensor: _Reader(v) for v in videos}
        for index in range(10**9):
            stamp = time.time_ns() if live else round(index * 1e9 / videos[0].rate_hz)
            samples: dict[str, Sample] = {}
            for source in sources:
                if isinstance(source, Files):
                    if index < len(source.paths):
                        loaded = load(source.sensor, source.paths[index])
                        samples[source.sensor] = replace(loaded, stamp_ns=stamp)
                    continue
                picture = readers[source.sensor].at(None if live else stamp)
                if picture is not None:
                    samples[source.sensor] = finish(source.sample(picture, stamp))
            if videos[0].sensor not in samples:
                if index == 0:
                    raise ConfigError("has no picture that can be read", where=videos[0].place)
                return
            yield Shot(f"{index:06d}", samples, videos[0].place)


class _Reader:
    """Pictures of a video by time."""

    def __init__(self, video: Video) -> None:
        self._video, self._next = video, 0
        self._picture: np.ndarray[Any, Any] | None = None

    def at(self, stamp_ns: int | None) -> Any:
        """The picture nearest to a time; the next one for None; None behind the end."""
        if stamp_ns is None:
            return self._video.read()
        wanted = math.floor(stamp_ns * self._video.rate_hz / 1e9 + 0.5 + 1e-6)
        while self._next <= wanted:
            self._picture = self._video.read()
            self._next += 1
            if self._picture is None:
                break
        return self._picture


def total_of(sources: Sequence[Source], found: Pairing | None) -> int:
    """How many frames there will be, as far as that is known; 0 where it is not."""
    if found is not None:
        return len(found.frames)
    videos = [s for s in sources if isinstance(s, Video) and not s.live]
    total = 0
    for video in videos[:1]:
        with suppress(AnySenseError):
            video.open()
        total = video.frames
        video.close()
    return total
