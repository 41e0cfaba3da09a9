"""`anysense calibrate extrinsics --targetless`: where a LiDAR is, from scenes as they are and a guess."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perception.adapters.files import PICTURE_SUFFIXES
from perception.cli.arguments import (
    add_data_arguments,
    command_line,
    give_json,
    open_data,
    output_folder,
    thin_out,
)
from perception.cli.calibrate_sources import (
    Source,
    ended,
    model_of,
    name_and_value,
    named,
    source_of,
    write_rig,
)
from perception.cli.calibrate_verdicts import tell_left_out
from perception.cli.console import Table, say, step_progress
from perception.cli.parsing import real
from perception.errors import CalibrationError, ConfigError, names_hint
from perception.files.listing import list_files
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, load_rig

if TYPE_CHECKING:
    from calibration.targetless import Targetless

_MOST_FRAMES = 20
_GUESS_DEG, _GUESS_M = 1.5, 0.1
_OF_BOARDS = ("board", "plate", "plate_offset")
_OF_SCENES = ("guess", "data", "split", "only", "labels", "limit", "guess_deg", "guess_m")


@dataclass(frozen=True)
class Recorded:
    """Frames of one camera and one LiDAR.

    Attributes:
        camera, lidar: the sensors.
        model: the camera's intrinsics.
        frames: by name, in their order in time: the picture as gray (H, W), 0 to 255, and the cloud (N, C).
        left_out: names of others, with the reason.
    """

    camera: Source
    lidar: Source
    model: CameraModel
    frames: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
    left_out: dict[str, str] = field(default_factory=dict)


def add_targetless(parser: argparse.ArgumentParser) -> None:
    """Add the options to those of `calibrate extrinsics`."""
    group = parser.add_argument_group("without a board")
    group.add_argument(
        "--targetless",
        action="store_true",
        help="from scenes as they are and --guess; frames are --data, or --camera and --cloud (with --data, "
        "these are names of sensors)",
    )
    group.add_argument(
        "--guess",
        type=Path,
        metavar="RIG",
        help="a rig that is about right: a few degrees and 20 cm",
    )
    group.add_argument(
        "--guess-deg",
        type=real(0.1, 5.0),
        metavar="DEG",
        help=f"standard deviation of the guess's angles (default: {_GUESS_DEG:g})",
    )
    group.add_argument(
        "--guess-m",
        type=real(0.001, 0.5),
        metavar="M",
        help=f"standard deviation of the guess's place along each axis (default: {_GUESS_M:g})",
    )
    add_data_arguments(group, required=False)


def refuse_without_targetless(args: argparse.Namespace) -> None:
    """Refuse options that mean nothing with a board.

    Raises:
        ConfigError: one was given.
    """
    for name in _OF_SCENES:
        if getattr(args, name) not in (None, "all"):
            option = f"--{name.replace('_', '-')}"
            raise ConfigError("goes with --targetless only", where=option)


def run_targetless(args: argparse.Namespace) -> int:
    """Calibrate, write the rig, and say what speaks for it and against it."""
    from calibration.rigs import Placed
    from calibration.targetless import calibrate_targetless, guess_sigma

    for name in _OF_BOARDS:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ConfigError("goes with a board, not with --targetless", where=option)
    if args.guess is None:
        hint = "a rig that is about right, from a drawing or a ruler"
        raise ConfigError("is missing", where="--guess", hint=hint)
    rig = load_rig(args.guess)
    old = load_rig(args.out) if args.out.exists() else rig
    recorded = _from_data(args, rig) if args.data else _from_folders(args, rig)
    guess = rig.between(recorded.lidar.name, recorded.camera.name)
    sigma = guess_sigma(args.guess_m or _GUESS_M, args.guess_deg or _GUESS_DEG)
    with step_progress() as progress:
        frames = list(recorded.frames.values())
        found = calibrate_targetless(frames, recorded.model, guess, sigma, progress)
    names = recorded.camera.name, recorded.lidar.name
    placed = {names[1]: Placed(found.transform, found.covariance, recorded.lidar.kind)}
    path = write_rig(args, old, recorded.camera, recorded.model, placed, trusted=found.trusted)
    own = {"sensor": names[1], "camera": names[0], "rig": path, "left_out": recorded.left_out}
    give_json(args, {**own, **found.to_dict()})
    _show(found)
    tell_left_out(recorded.left_out, found.remarks)
    _draw(args, recorded, found)
    return ended(args, found.doubts)


def _from_data(args: argparse.Namespace, rig: Rig) -> Recorded:
    """Frames of a recording; `--camera` and `--cloud` may name sensors."""
    from calibration.check import checkable, gray_picture

    recording = open_data(args)
    if args.camera_info:
        raise ConfigError("with --data, intrinsics are those of --guess", where="--camera-info")
    if args.limit is None:
        thin_out(recording, _MOST_FRAMES, "--limit")
    there = recording.info.sensors
    cameras, lidars = ([n for n in names if n in there] for names in checkable(rig))
    camera = _one(cameras, args.camera, "--camera", rig, there)
    lidar = _one(lidars, [args.cloud] if args.cloud else [], "--cloud", rig, there)
    model = rig.sensors[camera].camera
    assert model is not None
    frames, left_out = {}, {}
    for index, name in enumerate(recording.ids):
        frame = recording.frame(index)
        if camera in frame and lidar in frame:
            frames[name] = gray_picture(frame[camera], rig), np.asarray(frame[lidar].data)
        else:
            left_out[name] = f"no {camera if camera not in frame else lidar}"
    sources = [Source(name, str(rig.kinds[name]), recording.root) for name in (camera, lidar)]
    return Recorded(sources[0], sources[1], model, frames, left_out)


def _one(
    fitting: list[str], given: list[str], option: str, rig: Rig, there: Mapping[str, str]
) -> str:
    """The sensor that was named, or the only one that fits."""
    if len(given) > 1 or (given and given[0] not in fitting):
        hint = names_hint(given[-1], fitting) if fitting else "the rig must say where it is"
        raise ConfigError(
            f"'{given[-1]}' is not one sensor of rig and recording", where=option, hint=hint
        )
    if not given and len(fitting) != 1:
        said = f"the rig has {', '.join(rig.kinds)}, the recording {', '.join(there)}"
        what = f"which of {', '.join(fitting)}?" if fitting else "no such sensor in both"
        hint = (
            f"{option} NAME" if fitting else "the rig must say where both are, and the intrinsics"
        )
        raise ConfigError(f"{what}: {said}", where=option, hint=hint)
    return given[0] if given else fitting[0]


def _from_folders(args: argparse.Namespace, rig: Rig) -> Recorded:
    """Pictures and clouds of the same names in two folders."""
    from calibration.check import scaled
    from calibration.detection import read_gray
    from calibration.scans import cloud_files
    from perception.sensors.lidar.decode import load_lidar

    if len(args.camera) != 1 or args.cloud is None:
        hint = "or --data KIND:DIR"
        raise ConfigError(
            "one --camera DIR and one --cloud DIR are needed", where="--targetless", hint=hint
        )
    told = dict(name_and_value(text, "--kind") for text in args.kind)
    camera = source_of(args.camera[0], "--camera", told, rig, pictures=True)
    cloud = source_of(args.cloud, "--cloud", told, rig, pictures=False)
    infos = dict(named(text, camera.name) for text in args.camera_info)
    if unknown := sorted(set(infos) - {camera.name}):
        hint = names_hint(unknown[0], [camera.name])
        raise ConfigError(f"no camera '{unknown[0]}'", where="--camera-info", hint=hint)
    model = model_of(camera.name, infos, rig)
    pictures = list_files(camera.path, PICTURE_SUFFIXES, error=CalibrationError)
    clouds = cloud_files(cloud.path)
    both = [stem for stem in pictures if stem in clouds]
    left_out = {stem: "no cloud of this name" for stem in pictures if stem not in clouds}
    left_out |= {stem: "no picture of this name" for stem in clouds if stem not in pictures}
    count = min(len(both), args.limit or _MOST_FRAMES)
    frames = {}
    for stem in (both[i * len(both) // count] for i in range(count)):
        gray = read_gray(pictures[stem])
        if gray.shape != (model.height, model.width):
            own = f"{gray.shape[1]}x{gray.shape[0]} pixels"
            problem = f"{own}, its intrinsics are for {model.width}x{model.height}"
            raise CalibrationError(problem, where=str(pictures[stem]))
        value = gray if gray.dtype == np.uint8 else scaled(gray)
        frames[stem] = value, np.asarray(load_lidar(clouds[stem]).data)
    return Recorded(camera, cloud, model, frames, left_out)


def _draw(args: argparse.Namespace, recorded: Recorded, found: Targetless) -> None:
    from calibration.overlays import draw_scene, write_overlay

    def both(name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        gray, cloud = recorded.frames[name]
        poses = found.guess, found.transform
        before, after = (draw_scene(gray, recorded.model, to, cloud) for to in poses)
        return before, after

    if args.overlays is not None:
        output_folder(args.overlays)
        for name in recorded.frames:
            write_overlay(args.overlays / f"{name}.jpg", *both(name))
        say(f"drew {len(recorded.frames)} frames into {args.overlays}")
    if args.report is not None:
        from perception.viz.targetless_page import write_targetless_page

        names = recorded.camera.name, recorded.lidar.name
        some = list(recorded.frames)[:: max(1, len(recorded.frames) // 3)][:3]
        shown = {name: both(name) for name in some}
        write_targetless_page(
            found, args.report, shown, camera=names[0], lidar=names[1], command=command_line()
        )
        say(f"wrote {args.report}")


def _show(found: Targetless) -> None:
    table = Table("", "x", "y", "z", title="from the LiDAR into the camera's optical frame")
    move, sigma = found.transform.translation, found.sigma
    table.add_row("translation, m", *(f"{value:.4f}" for value in move))
    table.add_row("its sigma, m", *(f"{value:.4f}" for value in sigma[:3]))
    turned = [f"{np.degrees(value):.3f}" for value in sigma[3:]]
    table.add_row("sigma of the rotation, degrees", *turned)
    table.show()
    guess, now = (one.edges for one in found.held_out)
    say(
        f"edges fit by {found.before.edges:.2f} at the guess, {found.after.edges:.2f} now (wrong poses: "
        f"{found.wrong.edges:.2f}); in frames that were not fitted {guess:.2f} and {now:.2f}"
    )
    say(
        f"{found.frames} frames, {found.edges} edges; brightness was compared with {found.compared}"
    )
