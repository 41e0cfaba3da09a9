"""Recordings of short drives through many towns, seen to all sides, as a data folder."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.progress import track

from perception.data.folder import FolderWriter, folder_info
from perception.data.layout import BASE
from perception.errors import ConfigError, names_hint
from perception.extras import require
from perception.geometry.transforms import RigidTransform
from perception.sim.compact import SUFFIXES, coarse
from perception.sim.generate import LICENCE, RATE_HZ
from perception.sim.raycast import RayCaster
from perception.sim.scanning import SCAN_PATTERNS, SCAN_S
from perception.sim.scene import OBJECT_CLASSES, SEG_CLASSES, Weather
from perception.sim.sensors import BEAM_PATTERNS
from perception.sim.street import random_weather
from perception.sim.surround import (
    LABELS_OF,
    LIDAR,
    SCANS,
    SurroundFrame,
    kinds_of,
    render_surround,
    surround_rig,
    surround_sensors,
)
from perception.sim.town import MAX_SPEED_MPS, Town, make_town
from perception.sim.truth3d import base_in_world

WEATHERS = ("clear", "night", "rain", "fog")
MIXED = "mixed"
_MIXTURE = (0.5, 0.2, 0.15, 0.15)
_PAUSE_S = 5.0  # between drives, so that readers take them for scenes of their own
_START_S = 1.0
_POSES_AT_S = (-SCAN_S / 2, -SCAN_S / 4, 0.0, SCAN_S / 4, SCAN_S / 2)
_TRACKS = 1000  # numbers of objects that one drive may have


@dataclass(frozen=True)
class Drives:
    """What is to be simulated.

    Attributes:
        frames: number of frames, at 10 Hz.
        seed: of all random choices; the same seed gives the same recording.
        town_frames: so many in each town.
        size: (height, width) of the pictures.
        lidar: a key of `SCAN_PATTERNS`; or `mixed`, the spinning ones in turn from town to town.
        weather: one of `WEATHERS`; or `mixed`, half of the towns clear, a fifth at night, the others
            alike in rain and fog.
        speed: of the vehicle when a drive begins, metres per second; None for any.
        scan: one of `SCANS`.
        compact: JPEG and rounded clouds, see `perception.sim.compact`.

    Raises:
        ConfigError: a value is out of range.
    """

    frames: int
    seed: int
    town_frames: int = 10
    size: tuple[int, int] = (192, 320)
    lidar: str = MIXED
    weather: str = MIXED
    speed: float | None = None
    scan: str = "rolling"
    compact: bool = False

    def __post_init__(self) -> None:
        for value, what, known in (
            (self.lidar, "LiDAR", (MIXED, *SCAN_PATTERNS)),
            (self.weather, "weather", (MIXED, *WEATHERS)),
            (self.scan, "scan", SCANS),
        ):
            if value not in known:
                raise ConfigError(f"unknown {what} '{value}'", hint=names_hint(value, known))
        if min(self.frames, self.town_frames) < 1 or min(self.size) < 32:
            raise ConfigError("needs at least one frame, and images of 32 pixels a side")
        if self.speed is not None and not 0 <= self.speed <= MAX_SPEED_MPS:
            what = f"{self.speed:g} m/s, expected 0 to {MAX_SPEED_MPS:g}"
            raise ConfigError(what, where="speed")

    @property
    def towns(self) -> int:
        """How many."""
        return -(-self.frames // self.town_frames)


@dataclass(frozen=True)
class _Drive:
    """One drive: where, by which LiDAR, and what its frames are tagged with."""

    drives: Drives
    number: int
    town: Town
    pattern: str
    tags: tuple[str, ...]

    @staticmethod
    def of(drives: Drives, number: int) -> _Drive:
        rng = np.random.default_rng((drives.seed, number, 41))
        kind = str(rng.choice(WEATHERS, p=_MIXTURE))
        kind = kind if drives.weather == MIXED else drives.weather
        weather = town_weather(kind, rng)
        crowd = float(rng.uniform(0.7, 1.6))
        seconds = drives.town_frames / RATE_HZ
        seed = drives.seed * 10007 + number
        town = make_town(seed, weather, seconds, speed=drives.speed, crowd=crowd)
        turning = list(BEAM_PATTERNS)
        pattern = turning[number % len(turning)] if drives.lidar == MIXED else drives.lidar
        tags = ("night" if weather.night else "day", *({kind} - {"night", "clear"}))
        return _Drive(drives, number, town, pattern, (*tags, pattern, town.layout.split()[0]))

    @property
    def count(self) -> int:
        """How many frames."""
        own = self.drives
        return min(own.town_frames, own.frames - self.number * own.town_frames)

    def frames(self) -> Iterator[SurroundFrame]:
        sensors = surround_sensors(self.drives.size)
        caster = RayCaster(self.town.at(0.0))
        pattern, track = SCAN_PATTERNS[self.pattern], self.number * _TRACKS
        for i in range(self.count):
            seconds, scan = i / RATE_HZ, self.drives.scan
            yield render_surround(self.town, seconds, sensors, pattern, scan, track, caster)

    def stamp_ns(self, seconds: float) -> int:
        """The stamp of a time since the drive began."""
        length = self.drives.town_frames / RATE_HZ + _PAUSE_S
        return round((_START_S + self.number * length + seconds) * 1e9)

    def pose(self, seconds: float) -> RigidTransform:
        """From the base frame to the world."""
        return base_in_world(self.town.at(seconds))


def town_weather(kind: str, rng: np.random.Generator) -> Weather:
    """Light and air of one of `WEATHERS`."""
    weather = random_weather(rng, night=kind == "night")
    if kind == "rain":
        rate = float(np.exp(rng.uniform(np.log(3.0), np.log(50.0))))
        return replace(weather, overcast=0.95, rain_mm_h=rate)
    if kind == "fog":
        visibility = float(np.exp(rng.uniform(np.log(40.0), np.log(300.0))))
        return replace(weather, overcast=0.95, visibility_m=visibility)
    return weather


def make_drives(out: Path, drives: Drives, *, workers: int = 1, progress: bool = True) -> Path:
    """Simulate drives and write them as a data folder, see `perception.sim.surround`.

    Args:
        out: the folder; it must not hold another recording.
        drives: what is to be simulated.
        workers: processes that simulate towns; they change nothing of what is written.
        progress: show a progress bar.

    Raises:
        MissingDependencyError: MuJoCo is not installed; nothing is written.
        DataError: the folder holds something else.
    """
    require("the simulator", "mujoco")
    sensors = surround_sensors(drives.size)
    info = folder_info(
        name="simulated surround",
        sensors=kinds_of(sensors),
        labels_of=LABELS_OF,
        size=drives.size,
        rate_hz=RATE_HZ,
        seg_classes=SEG_CLASSES,
        det_classes=OBJECT_CLASSES,
        boxes3d_frame=BASE,
        simulated=True,
        licence=LICENCE,
    )
    suffixes = SUFFIXES if drives.compact else {}
    with FolderWriter(out, info, surround_rig(sensors), suffixes=suffixes) as writer:
        found = _simulated(drives, workers)
        for drive, i, frame in track(found, "simulating", drives.frames) if progress else found:
            _write(writer, drive, i, frame)
    return out


def _simulated(drives: Drives, workers: int) -> Iterator[tuple[_Drive, int, SurroundFrame]]:
    """All frames in order, with their drive and their place in it."""
    if workers < 2:
        for number in range(drives.towns):
            drive = _Drive.of(drives, number)
            for i, frame in enumerate(drive.frames()):
                yield drive, i, frame
        return
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[tuple[_Drive, list[SurroundFrame]]]] = deque()
    with ProcessPoolExecutor(workers, context) as pool:
        for number in range(drives.towns + 2 * workers):
            if number < drives.towns:
                waiting.append(pool.submit(_drive, drives, number))
            if number >= 2 * workers and waiting:
                drive, frames = waiting.popleft().result()
                yield from ((drive, i, frame) for i, frame in enumerate(frames))


def _drive(drives: Drives, number: int) -> tuple[_Drive, list[SurroundFrame]]:
    drive = _Drive.of(drives, number)
    return drive, list(drive.frames())


def _write(writer: FolderWriter, drive: _Drive, i: int, frame: SurroundFrame) -> None:
    seconds, number = i / RATE_HZ, drive.number * drive.drives.town_frames + i
    samples = dict(frame.samples)
    if drive.drives.compact:
        cloud = samples[LIDAR]
        samples[LIDAR] = np.column_stack([coarse("lidar", cloud[:, :4]), cloud[:, 4]])
    before, after = _POSES_AT_S[:2], _POSES_AT_S[3:] if i == drive.count - 1 else _POSES_AT_S[3:4]
    for offset in before:
        writer.add_pose(drive.stamp_ns(seconds + offset), drive.pose(seconds + offset))
    writer.add(
        f"{number:06d}",
        samples,
        stamp_ns=drive.stamp_ns(seconds),
        tags=drive.tags,
        labels=frame.labels,
        boxes=frame.boxes,
        boxes3d=frame.boxes3d,
        times=frame.times,
        pose=frame.pose,
    )
    for offset in after:
        writer.add_pose(drive.stamp_ns(seconds + offset), drive.pose(seconds + offset))
