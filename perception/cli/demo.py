"""`anysense demo`: a recorded drive through the pipeline while sensors fail on a script."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from perception.cli.arguments import (
    CONSOLE,
    add_data_arguments,
    add_engine_arguments,
    command_line,
    engine_choices,
    open_data,
)
from perception.data.base import Recording

DEFAULT_BUNDLES = {
    "nyuv2": "indoor-rgbd",
    "msrs": "road-rgbt",
    "rgbt_person": "road-rgbt",
    "kitti": "road-rgbt",
}
SIMULATED_BUNDLE = "sim-rgbdtl"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "demo", help="run a recording while sensors fail on a script, and write a report"
    )
    parser.add_argument(
        "--bundle", help="folder, zip or name (default: the one that fits the data)"
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the results")
    parser.add_argument("--frames", type=int, default=90, help="length of the simulated drive")
    parser.add_argument("--seed", type=int, default=7, help="seed of the simulated drive")
    add_data_arguments(parser, required=False)
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def _recording(args: argparse.Namespace) -> Recording:
    if args.data:
        return open_data(args)
    from perception.sim.generate import make_recording

    folder = args.out / "simulated_drive"
    stamp = folder / f"seed{args.seed}-frames{args.frames}"
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        make_recording(folder, "drive", args.frames, args.seed)
        stamp.touch()
    args.data = f"folder:{folder}"
    return open_data(args)


def run(args: argparse.Namespace) -> int:
    """Run the demo; writes report.html, frames.csv, overlays and a GIF."""
    from rich.progress import Progress

    from perception.demo.report import write_report
    from perception.demo.runner import run_demo
    from perception.errors import ConfigError, MissingDependencyError
    from perception.runtime.pipeline import Pipeline
    from perception.viz.animation import write_gif

    if args.frames < 10:
        raise ConfigError("needs at least 10 frames", where="--frames")
    args.out.mkdir(parents=True, exist_ok=True)
    command = command_line()
    recording = _recording(args)
    name = args.bundle or DEFAULT_BUNDLES.get(recording.info.kind, SIMULATED_BUNDLE)
    pipeline = Pipeline.load(name, args.device, **engine_choices(args))
    reference = Pipeline.load(name, args.device, **engine_choices(args))
    with Progress(console=CONSOLE, transient=True) as progress:
        task = progress.add_task("running the drive", total=len(recording))
        record = run_demo(pipeline, reference, recording, args.out, lambda: progress.advance(task))
    animation: Path | None = args.out / "drive.gif"
    try:
        # A fast machine shows no more than some hundred frames: the film is for a glance.
        step = max(1, len(record.mosaics) // 120)
        write_gif(record.mosaics[::step], args.out / "drive.gif")
    except MissingDependencyError as error:
        CONSOLE.print(f"warning: {error}", style="yellow")
        animation = None
    write_report(record, args.out / "report.html", animation=animation, command=command)
    answered = sum(bool(r["used"]) for r in record.rows)
    CONSOLE.print(
        f"{len(record.rows)} frames, {answered} answered; wrote {args.out / 'report.html'} "
        f"and {args.out / 'frames.csv'}"
    )
    return 0
