"""`anysense calibrate register`: the homography between pictures of two sensors."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import give_json, output_file
from perception.cli.calibrate_verdicts import UNTRUSTED
from perception.cli.console import note, say
from perception.cli.parsing import MAX_THREADS, Commands, add_command, whole
from perception.errors import ConfigError


def add_register(actions: Commands) -> None:
    """Register the command below `calibrate`."""
    parser = add_command(
        actions,
        "register",
        "the homography from one picture to another, of whatever sensors they are",
        more="Exit status 3 says that there is an answer, and that it should not be trusted.",
        example="anysense calibrate register visible.png infrared.png --json found.json\n"
        "anysense calibrate register rgb.jpg thermal.tiff --overlay seen.png",
    )
    parser.add_argument("a", type=Path, metavar="A", help="picture: PNG, JPEG or TIFF")
    parser.add_argument("b", type=Path, metavar="B", help="picture that A is brought onto")
    parser.add_argument(
        "--overlay", type=Path, metavar="FILE", help="picture with squares of A on B, to see it"
    )
    parser.add_argument(
        "--matcher", type=Path, metavar="ONNX", help="matcher.onnx of a run, in place of ours"
    )
    parser.add_argument("--threads", type=whole(1, MAX_THREADS), default=2, help="CPU threads")
    parser.set_defaults(run=run_register)


def run_register(args: argparse.Namespace) -> int:
    """Register, and say how sure that is."""
    from calibration.detection import read_gray
    from calibration.registration.network import SHIPPED, DescriptorGraph
    from calibration.registration.overlay import overlay
    from calibration.registration.register import register
    from perception.files.writing import write_image

    output_file(args.overlay)
    if args.a.exists() and args.b.exists() and args.a.samefile(args.b):
        raise ConfigError(
            "A and B are the same file", where=str(args.b), hint="give the other sensor's picture"
        )
    a, b = read_gray(args.a), read_gray(args.b)
    graph = DescriptorGraph(args.matcher or SHIPPED, args.threads)
    found = register(a, b, graph, (str(args.a), str(args.b)))
    if args.overlay:
        write_image(args.overlay, overlay(a, b, found.matrix))
    give_json(args, {"a": str(args.a), "b": str(args.b), **found.to_dict()})
    for row in found.matrix:
        say("  ".join(f"{value:12.6g}" for value in row))
    say(f"{found.inliers} inliers of {found.matches}, confidence {found.confidence:.2f}")
    if args.overlay:
        say(f"wrote {args.overlay}")
    if found.trusted:
        return 0
    note(
        "not trusted: too few places agree; pictures of one scene with more structure in both, "
        "or less movement between them, may do"
    )
    return UNTRUSTED
