"""`anysense run`: one frame from files, results as pictures and JSON."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from perception.cli.arguments import (
    add_engine_arguments,
    engine_choices,
    give_json,
    output_folder,
    write_json,
)
from perception.cli.console import note, say, warn
from perception.cli.hints import OF_FILES, add_hints, hints_of
from perception.cli.parsing import Commands, add_command
from perception.errors import ConfigError
from perception.files.writing import write_image
from perception.frame import KINDS, Frame, Sample
from perception.preprocess.contract import PreprocessContract
from perception.runtime.wiring import match_inputs
from perception.sensors.kind import Hints
from perception.sensors.registry import kind_of


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "run",
        "run a bundle on the files of one frame",
        example="anysense run --bundle indoor-rgbd --rgb a.png --depth b.png --out out/run",
    )
    parser.add_argument("--bundle", required=True, help="folder, zip or name of a bundle")
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=kind_of(kind).files)
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="of an input of the bundle, as where it takes several of a kind; any number",
    )
    parser.add_argument("--rig", type=Path, metavar="FILE", help="calibration, see docs/data.md")
    add_hints(parser, OF_FILES)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def sensor_files(args: argparse.Namespace, contract: PreprocessContract) -> dict[str, Path]:
    """The files by sensor: each is called as the bundle's input that it is for, else as its kind.

    Raises:
        ConfigError: no file is given, one is no NAME=FILE, or one of no input or given twice.
    """
    given = {kind: file for kind in KINDS if (file := getattr(args, kind))}
    own = match_inputs({kind: kind for kind in given}, contract.kinds)
    files = {own.get(kind, kind): file for kind, file in given.items()}
    for entry in args.sensor:
        name, equals, file = entry.partition("=")
        if not equals or not file:
            raise ConfigError(f"'{entry}' is not NAME=FILE", where="--sensor")
        if name not in contract:
            takes = ", ".join(contract.names)
            raise ConfigError(f"the bundle takes {takes}, not '{name}'", where="--sensor")
        if name in files:
            raise ConfigError(f"'{name}' is given twice", where="--sensor")
        files[name] = Path(file)
    if not files:
        options = ", ".join(f"--{kind}" for kind in KINDS)
        raise ConfigError("no sensor file given", hint=f"{options} or --sensor NAME=FILE")
    return files


def load_frame(args: argparse.Namespace, contract: PreprocessContract) -> Frame:
    """The frame that the file arguments make up; the contract gives the scale of 8 bit depth.

    Raises:
        ConfigError: as `sensor_files`.
    """
    from perception.geometry.rig import load_rig
    from perception.sensors.samples import file_remarks

    files = sensor_files(args, contract)
    kinds = {name: contract[name].kind if name in contract else name for name in files}
    samples = {
        name: _load(path, kinds[name], _with_scale(hints, name, contract))
        for (name, path), hints in zip(files.items(), hints_of(args, kinds).values(), strict=True)
    }
    for name, path in files.items():
        for text in file_remarks(path, samples[name].kind):
            note(f"{path} {text}")
    if args.rig:
        rig, views = load_rig(args.rig), contract.views()
        samples = {n: rig.attach(s.named(n), views.get(n, "")) for n, s in samples.items()}
    return Frame(samples)


def _with_scale(hints: Hints, name: str, contract: PreprocessContract) -> Hints:
    """With the scale of 8 bit files that the bundle's input says, if it does."""
    spec = contract[name].preprocess if name in contract else None
    return replace(hints, m_per_count8=getattr(spec, "m_per_count8", None))


def _load(path: Path, kind: str, hints: Hints) -> Sample:
    from perception.sensors.samples import load_sample

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are notes
        sample = load_sample(kind, path, hints)
    if "m_per_count8" in kind_of(kind).hints:
        if hints.scale is None and sample.encoding == "8UC1":
            note(f"8 bit {kind}, read as {hints.m_per_count8:.4g} m per step")
        elif hints.scale is not None and "FC1" in sample.encoding:
            note(f"{kind} of floats is read as metres; --{kind}-scale is for integers")
    return sample


def run(args: argparse.Namespace) -> int:
    """Run one frame; writes result.json, overlay.png, by task labels and confidence, and image_*.png."""
    from perception.runtime.pipeline import Pipeline
    from perception.tasks.registry import TASKS, parts_of
    from perception.viz.overlay import draw_result

    pipeline = Pipeline.load(args.bundle, args.device, **engine_choices(args))
    frame = load_frame(args, pipeline.manifest.inputs)
    foreign = [name for name in frame if name not in pipeline.sensors]
    if len(foreign) == len(frame):
        raise ConfigError(
            f"bundle {pipeline.manifest.name} takes {', '.join(pipeline.sensors)}, "
            f"not {', '.join(foreign)}"
        )
    specs = pipeline.manifest.tasks.every
    pipeline.wanted = parts_of(specs, lambda task: True)
    result = pipeline(frame)
    for line in result.lines:
        warn(line)
    output_folder(args.out)
    fields = result_fields(pipeline, result)
    write_json(args.out / "result.json", fields)
    if not result.used:
        raise ConfigError("no sensor was usable", hint="see the warnings above")
    write_image(args.out / "overlay.png", draw_result(pipeline.manifest, frame, result))
    for name, value in result.values.items():
        for file, picture in TASKS[name].files(value, specs[name]).items():
            write_image(args.out / f"{file}.png", picture)
    used = ", ".join(result.used)
    say(
        f"{result.state}: used {used}; {result.total_ms:.1f} ms on {result.backend}; wrote {args.out}"
    )
    give_json(args, fields)
    return 0


def result_fields(pipeline: Any, result: Any) -> dict[str, Any]:
    """A result as plain values."""
    from perception.tasks.registry import TASKS

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
    specs = manifest.tasks.every
    for name, value in result.values.items():
        out |= TASKS[name].to_dict(value, specs[name])
    return out
