"""`anysense record`: a recording as an MCAP bag with the standard ROS 2 messages."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import add_data_arguments, give_json, open_data
from perception.cli.console import say
from perception.cli.parsing import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "record",
        "write a recording as an MCAP bag",
        more="It opens in Foxglove and plays with `ros2 bag play`.",
        example="anysense record --data folder:DIR --out out/bag",
    )
    add_data_arguments(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="bag folder to write")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the bag; it opens in Foxglove and plays with `ros2 bag play`."""
    from perception.bags.files import messages_of, write_bag

    recording = open_data(args)
    count = write_bag(args.out, messages_of(recording))
    say(f"wrote {len(recording)} frames as {count} messages to {args.out}")
    give_json(args, {"out": str(args.out), "frames": len(recording), "messages": count})
    return 0
