"""`anysense demo`: a recorded drive through the pipeline while sensors fail on a script."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import (
    add_data_arguments,
    add_engine_arguments,
    command_line,
    engine_choices,
    give_json,
    open_data,
    output_folder,
)
from perception.cli.console import counted, note, say
from perception.cli.parsing import MAX_SEED, Commands, add_command, whole
from perception.data.base import Recording
from perception.errors import ConfigError
from perception.files.folders import writing_folder
from perception.files.shipped import shipped

DRIVE = "simulated_drive"
FRAMES, SEED = 90, 7
"""Of the drive that is shipped; see recordings/README.md for how it is made."""

SURROUND = "simulated_surround"
SURROUND_FRAMES = 54
_TOWN_FRAMES = 100  # at most, of one street


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "demo",
        "run a recording while sensors fail on a script, and write a report",
        more="Without --data the drive is played that comes with AnySense; with a bundle that finds boxes on "
        "the ground, one is simulated that a LiDAR and four cameras see to all sides.",
        example="""
            anysense demo
            anysense demo --data folder:DIR --out out/own
            anysense demo --bundle sim-bev
        """,
    )
    parser.add_argument(
        "--bundle", help="folder, zip or name (default: the one that fits the data)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results")
    parser.add_argument(
        "--simulate",
        action="store_true",
        help="simulate a drive instead of playing the one that comes with AnySense (minutes)",
    )
    parser.add_argument(
        "--frames",
        type=whole(10),
        help=f"simulate a drive of this length, in place of {FRAMES} (to all sides: {SURROUND_FRAMES})",
    )
    parser.add_argument(
        "--seed", type=whole(0, MAX_SEED), help=f"simulate another drive than that of {SEED}"
    )
    add_data_arguments(parser, required=False)
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def _recording(args: argparse.Namespace) -> Recording:
    simulate = args.simulate or args.frames is not None or args.seed is not None
    if args.data and simulate:
        raise ConfigError(
            "--simulate, --frames and --seed make a drive, --data names one",
            where="--data",
            hint="leave one out; --limit takes fewer frames of a recording",
        )
    if not args.data:
        around = args.bundle is not None and _sees_ground(args.bundle)
        made = around or simulate
        folder = _simulated(args, around=around) if made else shipped("recordings") / DRIVE
        args.data = f"folder:{folder}"
    return open_data(args)


def _sees_ground(bundle: str) -> bool:
    from perception.runtime.bundle import Bundle, find_bundle

    return Bundle.open(find_bundle(bundle), verify=False).manifest.inputs.birdseye is not None


def _simulated(args: argparse.Namespace, *, around: bool) -> Path:
    """The drive, simulated unless an earlier run has left it whole."""
    seed = SEED if args.seed is None else args.seed
    frames = args.frames or (SURROUND_FRAMES if around else FRAMES)
    folder: Path = args.out / (SURROUND if around else DRIVE)
    stamp = f"seed{seed}-frames{frames}"
    if not (folder / stamp).exists():
        with writing_folder(folder) as partial:
            (_drive_around if around else _drive)(partial, frames, seed)
            (partial / stamp).touch()
    return folder


def _drive(folder: Path, frames: int, seed: int) -> None:
    from perception.sim.generate import make_recording

    make_recording(folder, "drive", frames, seed)


def _drive_around(folder: Path, frames: int, seed: int) -> None:
    from perception.sim.drives import Drives, make_drives

    own = min(frames, _TOWN_FRAMES)
    drives = Drives(frames, seed, town_frames=own, lidar="hdl32", weather="clear", speed=6.0)
    make_drives(folder, drives)


def _chosen(recording: Recording) -> str:
    """The path of the bundle that fits; says which, and why."""
    from perception.demo.choice import choose_bundle

    first, *others = choose_bundle(recording.info)
    say(f"bundle {first.name}: {first.described()}")
    if others:
        names = ", ".join(one.name for one in others)
        note(f"{names} would fit as well: --bundle chooses")
    return str(first.path)


def run(args: argparse.Namespace) -> int:
    """Run the demo; writes report.html, frames.csv, overlays and a GIF."""
    from perception.demo.report import write_report
    from perception.demo.runner import run_demo
    from perception.errors import MissingDependencyError
    from perception.runtime.pipeline import Pipeline
    from perception.viz.animation import write_gif

    output_folder(args.out)
    command = command_line()
    recording = _recording(args)
    name = args.bundle or _chosen(recording)
    pipeline = Pipeline.load(name, args.device, **engine_choices(args))
    reference = Pipeline.load(name, args.device, **engine_choices(args))
    with counted("running the drive", len(recording)) as advance:
        record = run_demo(pipeline, reference, recording, args.out, advance)
    animation: Path | None = args.out / "drive.gif"
    try:
        # A fast machine shows no more than some hundred frames: the film is for a glance.
        step = max(1, len(record.mosaics) // 120)
        write_gif(record.mosaics[::step], args.out / "drive.gif")
    except MissingDependencyError as error:
        note(f"no film of it, drive.gif: {error}")
        animation = None
    write_report(record, args.out / "report.html", animation=animation, command=command)
    answered = sum(bool(r["used"]) for r in record.rows)
    say(
        f"{len(record.rows)} frames, {answered} answered; wrote {args.out / 'report.html'} "
        f"and {args.out / 'frames.csv'}"
    )
    phases = [
        {
            "name": p.phase.name,
            "start": p.phase.start,
            "stop": p.phase.stop,
            "faults": p.phase.faults,
        }
        | {"scores": None if p.scorer is None else p.scorer.scores()}
        for p in record.phases
    ]
    found = {"out": str(args.out), "bundle": pipeline.manifest.name, "frames": len(record.rows)}
    give_json(args, {**found, "answered": answered, "phases": phases})
    return 0
