"""What the commands that write values files share: `anysense calibrate depth` and `thermal`."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import output_file
from perception.frame import check_name


def add_values_arguments(parser: argparse.ArgumentParser, kind: str, page: str) -> None:
    """`--out`, `--sensor` and `--report`, a page of which `page` says what is on it."""
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="values file; in one that exists the sensor is replaced",
    )
    parser.add_argument("--sensor", default=kind, help=f"name of the {kind} camera in it")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help=page)


def check_values_arguments(args: argparse.Namespace) -> None:
    """Refuse, before any work, what cannot be written or would be written into a damaged file.

    Raises:
        ConfigError: a name or a path is wrong, or the values file that is there cannot be read.
    """
    from calibration.values.files import read_values

    check_name(args.sensor, "--sensor")
    output_file(args.out)
    output_file(args.report)
    if args.out.exists():
        read_values(args.out)
