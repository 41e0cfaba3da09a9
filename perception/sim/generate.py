"""Making simulated recordings: a drive, or a set of unrelated scenes, as a data folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import track

from perception.data.base import first_reference, named_sensors
from perception.data.folder import FolderWriter, folder_info
from perception.errors import ConfigError, names_hint
from perception.extras import require
from perception.frame import KINDS, Kind
from perception.sim.compact import SUFFIXES, coarse
from perception.sim.render import render
from perception.sim.scene import DET_CLASSES, SEG_CLASSES, Scene, Weather
from perception.sim.sensors import BEAM_PATTERNS, make_rig, mount_sensors
from perception.sim.street import at_time, make_street, random_weather

RATE_HZ = 10.0
DRIVE_SPEED_MPS = 5.0
LICENCE = "Apache-2.0 (simulated by AnySense)"


def scene_sequence(frames: int, seed: int) -> Iterator[Scene]:
    """Unrelated scenes: another street, weather and viewpoint each, day and night in turn."""
    for index in range(frames):
        rng = np.random.default_rng((seed, index, 5))
        weather = random_weather(rng, night=index % 2 == 1)
        street = make_street(
            seed * 10007 + index, 45.0, weather, crowd=float(rng.uniform(0.7, 1.8))
        )
        x, y, z = street.ego_position
        moved = (x + float(rng.uniform(-8, 8)), y + float(rng.uniform(-0.8, 0.8)), z)
        yield replace(street, ego_position=moved, ego_yaw=float(rng.normal(0, 0.12)))


def drive_weather(progress: float) -> Weather:
    """The light of a drive into the night: dusk falls between 45% and 60% of the way."""
    fall = float(np.clip((0.6 - progress) / 0.15, 0, 1))
    daylight = 0.03 + 0.8 * fall
    return Weather(daylight, 2.2, 0.6, 276.0 + 10.0 * fall, headlights=daylight < 0.3)


def drive_sequence(frames: int, seed: int) -> Iterator[Scene]:
    """One drive down one street at 10 Hz, by day first and then by night."""
    length = frames / RATE_HZ * DRIVE_SPEED_MPS + 40
    for index in range(frames):
        weather = drive_weather(index / max(1, frames - 1))
        street = make_street(seed, length, weather, crowd=1.3)
        yield at_time(street, index / RATE_HZ, DRIVE_SPEED_MPS)


def make_recording(
    out: Path,
    kind: str,
    frames: int,
    seed: int,
    *,
    size: tuple[int, int] = (240, 320),
    lidar: str = "mixed",
    sensors: Mapping[str, Kind] | None = None,
    yaw_deg: Mapping[str, float] | None = None,
    labels_of: str = "",
    compact: bool = False,
    progress: bool = True,
) -> Path:
    """Simulate a recording and write it as a data folder.

    Args:
        out: the folder; it must not hold another recording.
        kind: `drive` or `scenes`.
        frames: number of frames.
        seed: of all random choices; the same seed gives the same recording.
        size: (height, width) of the images.
        lidar: a key of `BEAM_PATTERNS`, or `mixed` to change it from scene to scene.
        sensors, yaw_deg: which sensors and where they look, see `mount_sensors`.
        labels_of: the camera in whose pixels labels and boxes are; the first RGB camera, else the
            first one.
        compact: about a fifth of the bytes, see `perception.sim.compact`.
        progress: show a progress bar.

    Raises:
        ConfigError: an argument is out of range.
        MissingDependencyError: MuJoCo is not installed; nothing is written.
        DataError: the folder holds something else.
    """
    require("the simulator", "mujoco")
    makers = {"drive": drive_sequence, "scenes": scene_sequence}
    if kind not in makers:
        raise ConfigError(f"unknown kind '{kind}'", hint=names_hint(kind, makers))
    if lidar != "mixed" and lidar not in BEAM_PATTERNS:
        raise ConfigError(
            f"unknown LiDAR '{lidar}'", hint=names_hint(lidar, ("mixed", *BEAM_PATTERNS))
        )
    if frames < 1 or min(size) < 32:
        raise ConfigError("needs at least one frame, and images of 32 pixels a side")
    kinds = named_sensors(sensors or KINDS, "")
    if others := [name for name, k in kinds.items() if k not in KINDS]:
        what = f"{others[0]} is a {kinds[others[0]]}, which is not simulated"
        raise ConfigError(what, where="sensors", hint=names_hint(kinds[others[0]], KINDS))
    cameras = {name: k for name, k in kinds.items() if k != "lidar"}
    labels_of = labels_of or first_reference(cameras)
    if labels_of not in cameras:
        hint = names_hint(labels_of, cameras) if cameras else "none is among the sensors"
        raise ConfigError("labels are in the pixels of a camera", where="labels_of", hint=hint)
    mounted = mount_sensors(size, kinds, yaw_deg)
    info = folder_info(
        name=f"simulated {kind}",
        sensors=kinds,
        labels_of=labels_of,
        size=size,
        rate_hz=RATE_HZ,
        seg_classes=SEG_CLASSES,
        det_classes=DET_CLASSES,
        thermal_unit="centikelvin",
        simulated=True,
        licence=LICENCE,
    )
    patterns = list(BEAM_PATTERNS) if lidar == "mixed" else [lidar]
    suffixes = SUFFIXES if compact else {}
    with FolderWriter(out, info, make_rig(mounted, labels_of), suffixes=suffixes) as writer:
        scenes = makers[kind](frames, seed)
        steps = track(scenes, "simulating", frames) if progress else scenes
        for index, scene in enumerate(steps):
            turn = index if kind == "scenes" else 1  # a drive is of one LiDAR
            name = patterns[turn % len(patterns)]
            frame = render(scene, mounted, BEAM_PATTERNS[name], labels_of)
            values = {n: v[:, :4] if kinds[n] == "lidar" else v for n, v in frame.samples.items()}
            if compact:
                values = {n: coarse(kinds[n], v) for n, v in values.items()}
            tags = ("night" if scene.weather.night else "day", name)
            writer.add(
                f"{index:06d}",
                values,
                stamp_ns=round(index * 1e9 / RATE_HZ),
                tags=tags,
                labels=frame.labels,
                boxes=frame.boxes,
                boxes3d=frame.boxes3d,
            )
    return out
