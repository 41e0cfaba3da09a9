"""`anysense record`: a recording as an MCAP bag with the standard ROS 2 messages."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import add_data_arguments, open_data
from perception.cli.console import say


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("record", help="write a recording as an MCAP bag")
    add_data_arguments(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="bag folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bag; it opens in Foxglove and plays with `ros2 bag play`."""
    from perception.bags.files import messages_of, write_bag

    recording = open_data(args)
    count = write_bag(args.out, messages_of(recording))
    say(f"wrote {len(recording)} frames as {count} messages to {args.out}")
    return 0
