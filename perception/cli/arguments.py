"""Arguments and output that several commands share."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from perception.data.base import Recording
from perception.data.registry import SPLITS, open_recording, parse_data_argument
from perception.errors import ConfigError

CONSOLE = Console(highlight=False)


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """`--device` and `--threads`."""
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or a backend (default: auto)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads within an operator (default: all)")


def add_data_arguments(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """`--data`, `--split`, `--only`, `--labels` and `--limit`."""
    parser.add_argument(
        "--data", required=required, metavar="KIND:DIR", help="recording, e.g. nyuv2:DIR"
    )
    parser.add_argument("--split", choices=SPLITS, default="all")
    parser.add_argument("--only", choices=("day", "night"), help="only frames with this tag")
    parser.add_argument(
        "--labels", choices=("fusion", "visible", "infrared"), help="msrs: which boxes"
    )
    parser.add_argument("--limit", type=int, help="only this many frames, evenly spread")


def open_data(args: argparse.Namespace) -> Recording:
    """The recording that the data arguments ask for.

    Raises:
        ConfigError: an option does not fit, or nothing is left.
    """
    kind, root = parse_data_argument(args.data)
    options = {"labels": args.labels} if args.labels else {}
    recording = open_recording(kind, root, split=args.split, **options)
    if args.only:
        recording.select(args.only)
    if args.limit is not None:
        if args.limit < 1:
            raise ConfigError("must be at least 1", where="--limit")
        step = max(1, len(recording) // args.limit)
        recording.ids = recording.ids[::step][: args.limit]
    if not len(recording):
        raise ConfigError(f"no frame is tagged '{args.only}'", where=args.data)
    return recording


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, allow_nan=False, default=str) + "\n")


def command_line() -> str:
    """The command that is running, for reports."""
    return " ".join(["anysense", *sys.argv[1:]])
