"""`anysense calibrate thermal`: counts to kelvin, and what each pixel is worth."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import command_line, give_json
from perception.cli.calibrate_values import add_values_arguments, check_values_arguments
from perception.cli.calibrate_verdicts import UNTRUSTED, tell_left_out
from perception.cli.console import Table, note, say, step_progress, warn
from perception.cli.parsing import Commands, add_command, positive
from perception.errors import ConfigError
from perception.extras import require
from perception.sensors.names import OURS

if TYPE_CHECKING:
    from calibration.values.files import SensorValues
    from calibration.values.flatfield import FlatField
    from calibration.values.thermal import Radiometry

KIND = OURS[2]
_TOLERANCE_K = 2.0
_EXAMPLE = """\
anysense calibrate thermal --points points.csv --out values.yaml --report thermal.html
anysense calibrate thermal --flat cold/ --flat hot/ --points points.csv --out values.yaml"""


def add_thermal(actions: Commands) -> None:
    """Register the command."""
    parser = add_command(
        actions,
        KIND,
        "counts of a thermal camera to kelvin, its flat field, noise and bad pixels",
        more="Give reference points, pictures of a uniform surface, or both. "
        f"Exit status {UNTRUSTED}: the answer is not to be trusted, and no file is written.",
        example=_EXAMPLE,
    )
    parser.add_argument(
        "--points",
        type=Path,
        metavar="CSV",
        help="reference points: a header with counts, or picture, x, y, width, height (a region in pixels); "
        "then kelvin or celsius, and sigma_kelvin where it is known",
    )
    parser.add_argument(
        "--flat",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="pictures of a uniform surface that fills the view; twice or more, at other temperatures",
    )
    parser.add_argument(
        "--model",
        default="auto",
        help="linear, planck, planck-f, or auto: the simplest of those that predict points best that were "
        "not fitted",
    )
    parser.add_argument(
        "--tolerance",
        type=positive(100.0),
        default=_TOLERANCE_K,
        metavar="K",
        help="by how many kelvin such points may be off",
    )
    add_values_arguments(
        parser,
        KIND,
        "a page with the curve and its residuals, maps of pixels, and what to record again",
    )
    parser.set_defaults(run=run_thermal)


def run_thermal(args: argparse.Namespace) -> int:
    """Calibrate, write the values, and say what speaks for them and against them."""
    require("calibration", "scipy")
    from calibration.values.files import Entry, write_values
    from calibration.values.flatfield import flat_field, read_flat
    from calibration.values.points import read_points
    from calibration.values.thermal import calibrate_counts

    if args.points is None and not args.flat:
        raise ConfigError("--points or --flat is needed", where=f"calibrate {KIND}")
    if len({path.resolve() for path in args.flat}) < len(args.flat):
        raise ConfigError("one folder is given twice", where="--flat")
    check_values_arguments(args)
    flat: FlatField | None = None
    curve: Radiometry | None = None
    if args.flat:
        with step_progress() as progress:
            flat = flat_field([read_flat(folder, progress) for folder in args.flat])
    if args.points is not None:
        points = read_points(args.points, None if flat is None else flat.maps.even)
        curve = calibrate_counts(points, args.model, args.tolerance)
    doubts = [*(flat.doubts if flat else ()), *(curve.doubts if curve else ())]
    if not doubts:
        maps = None if flat is None else flat.maps
        write_values(args.out, {args.sensor: Entry(_entry(flat, curve), maps)})
    content: dict[str, Any] = {
        "sensor": args.sensor,
        "values": None if doubts else str(args.out),
        "curve": None if curve is None else curve.to_dict(),
        "flat_field": None if flat is None else flat.to_dict(),
        "doubts": doubts,
        "trusted": not doubts,
    }
    give_json(args, content)
    if args.report is not None:
        from perception.viz.thermal_page import write_thermal_page

        write_thermal_page(curve, flat, args.report, sensor=args.sensor, command=command_line())
        say(f"wrote {args.report}")
    if curve is not None:
        _show_curve(curve)
    if flat is not None:
        _show_flat(flat)
    for doubt in doubts:
        warn(doubt)
    if doubts:
        warn(f"not to be trusted: {args.out} is not written")
        return UNTRUSTED
    say(f"wrote {args.out}")
    return 0


def _entry(flat: FlatField | None, curve: Radiometry | None) -> SensorValues:
    from calibration.values.files import Kelvin, SensorValues

    kelvin = None
    if curve is not None:
        kelvin = Kelvin(
            model=curve.curve.model,
            parameters=dict(curve.curve.parameters),
            counts=curve.curve.counts,
            sigma_k=curve.fit.sigma_k,
            held_out_rms_k=curve.held_out_k,
        )
    height, width = (None, None) if flat is None else flat.maps.bad.shape
    return SensorValues(
        kind=KIND,
        size=None if width is None or height is None else (width, height),
        kelvin=kelvin,
        date=datetime.date.today().isoformat(),
        source=command_line(),
    )


def _show_curve(found: Radiometry) -> None:
    import numpy as np

    table = Table("counts", "K", "sigma, K", title=f"{found.curve.model} curve")
    at = np.linspace(*found.curve.counts, 5)
    for counts, kelvin, sigma in zip(
        at, found.curve.kelvin(at), found.fit.sigma_at(at), strict=True
    ):
        table.add_row(f"{counts:.0f}", f"{kelvin:.2f}", f"{sigma:.2f}")
    table.show()
    values = ", ".join(f"{name} {value:.8g}" for name, value in found.curve.parameters.items())
    held = ", ".join(
        f"{name} {np.sqrt(np.mean(off**2)):.2f}" for name, off in found.held_out.items()
    )
    low, high = found.range_k
    say(f"{values}; points are {found.fit.sigma_k:.2f} K off, not fitted: {held} K")
    say(f"it holds from {low:.1f} to {high:.1f} K; beyond it is a guess")
    tell_left_out(found.left_out, found.remarks)


def _show_flat(found: FlatField) -> None:
    table = Table("surface", "frames", "counts", "pattern", "left", "drift", title="flat field")
    for flat, pattern, left, drift in zip(
        found.flats, found.pattern, found.left, found.drift, strict=True
    ):
        table.add_row(
            flat.name,
            len(flat.levels),
            f"{flat.level:.1f}",
            f"{pattern:.2f}",
            f"{left:.2f}",
            f"{drift:+.2f}",
        )
    table.show()
    bad = ", ".join(f"{count} {name}" for name, count in found.counts.items() if count)
    say(f"noise floor {found.noise:.2f} counts; bad pixels: {bad or 'none'}")
    for remark in found.remarks:
        note(remark)
