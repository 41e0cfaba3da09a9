"""`anysense calibrate apply`: pictures with true values, as any command reads them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from perception.cli.arguments import expect_folder, give_json, output_folder
from perception.cli.console import note, say, tracked
from perception.cli.parsing import Commands, add_command, positive
from perception.errors import AnySenseError, ConfigError
from perception.files.listing import list_files

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perception.frame import Sample


def add_apply(actions: Commands) -> None:
    """Register the command."""
    parser = add_command(
        actions,
        "apply",
        "pictures of a depth or thermal camera with the values that were found",
        more="Depth becomes true, uneven pixels even, bad ones are filled in, counts become kelvin.",
        example="anysense calibrate apply values.yaml counts/ kelvin/",
    )
    parser.add_argument("values", type=Path, metavar="VALUES", help="values file")
    parser.add_argument("folder", type=Path, metavar="IN", help="pictures as the camera gives them")
    parser.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="folder for TIFF files of the same names: float kelvin or metres, or 8 or 16 bit counts",
    )
    parser.add_argument("--sensor", default="", help="whose values (default: the only one's)")
    parser.add_argument(
        "--depth-scale",
        type=positive(100.0),
        metavar="M",
        help="metres per step of integers (default: 0.001 for 16 bit)",
    )
    parser.set_defaults(run=run_apply)


def run_apply(args: argparse.Namespace) -> int:
    """Correct every picture, and say where values are a guess."""
    from calibration.values.files import load_correction
    from perception.files.writing import tiff_bytes, write_bytes
    from perception.sensors.kind import Hints
    from perception.sensors.registry import kind_of

    correction = load_correction(args.values, args.sensor)
    kind = kind_of(correction.kind)
    if args.depth_scale is not None and "scale" not in kind.hints and not correction.polynomial:
        raise ConfigError(f"{kind.name} has none", where="--depth-scale")
    files = list_files(args.folder, kind.suffixes, error=ConfigError)
    expect_folder(args.out)
    if args.out.exists() and args.out.samefile(args.folder):
        raise ConfigError("is the folder of the pictures", where=str(args.out))
    output_folder(args.out)
    read = kind.from_file
    if read is None:
        raise ConfigError(f"{kind.name} is in no files", where=str(args.values))
    hints, names = Hints(scale=args.depth_scale), list(files)
    beyond: dict[str, float] = {}
    left_out: dict[str, str] = {}
    unit = ""
    for index in tracked(range(len(names)), "correcting"):
        path = files[names[index]]
        try:
            sample = read(path, hints)
        except AnySenseError as error:
            left_out[path.name] = error.message
            continue
        beyond[path.name] = correction.beyond(sample)
        done = correction.apply(sample)
        unit = done.unit
        write_bytes(args.out / f"{names[index]}.tiff", tiff_bytes(_stored(done)))
    guessed = {name: share for name, share in beyond.items() if share > 0}
    give_json(
        args,
        {
            "values": str(args.values),
            "kind": kind.name,
            "out": str(args.out),
            "written": len(beyond),
            "unit": unit,
            "beyond_range": guessed,
            "left_out": left_out,
        },
    )
    for name, reason in left_out.items():
        note(f"{name} left out: {reason}")
    if guessed:
        worst = max(guessed, key=lambda name: guessed[name])
        note(
            f"{len(guessed)} pictures have values beyond what was calibrated, {100 * guessed[worst]:.1f} % "
            f"of {worst}: these are a guess"
        )
    if not beyond:
        raise ConfigError("no picture could be read", where=str(args.folder))
    say(f"wrote {len(beyond)} pictures into {args.out}")
    return 0


def _stored(sample: Sample) -> NDArray[np.generic]:
    """Counts in their own type, others as floats."""
    if not sample.unit.startswith("counts"):
        return np.asarray(sample.data, np.float32)
    dtype = np.uint8 if sample.unit.endswith("8") else np.uint16
    return np.rint(sample.data).astype(dtype)
