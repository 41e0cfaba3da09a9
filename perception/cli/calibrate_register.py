"""`anysense calibrate register`: the homography between pictures of two sensors, or with depth the pose."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import give_json, output_file
from perception.cli.calibrate_sources import camera_file
from perception.cli.calibrate_verdicts import UNTRUSTED
from perception.cli.console import Table, note, say, warn
from perception.cli.parsing import Commands, add_command, add_threads, positive
from perception.errors import ConfigError
from perception.extras import require
from perception.sensors.names import OURS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.registration.network import DescriptorGraph


def add_register(actions: Commands) -> None:
    """Register the command below `calibrate`."""
    parser = add_command(
        actions,
        "register",
        "the homography from one picture to another, of whatever sensors they are",
        more="Exit status 3 says that there is an answer, and that it should not be trusted.",
        example="anysense calibrate register visible.png infrared.png --json found.json\n"
        "anysense calibrate register rgb.jpg thermal.tiff --overlay seen.png\n"
        "anysense calibrate register rgb.png thermal.png --depth depth.png --camera-info a=rgb.yaml "
        "--camera-info b=thermal.yaml",
    )
    parser.add_argument("a", type=Path, metavar="A", help="picture: PNG, JPEG or TIFF")
    parser.add_argument("b", type=Path, metavar="B", help="picture that A is brought onto")
    parser.add_argument(
        "--overlay", type=Path, metavar="FILE", help="picture with squares of A on B, to see it"
    )
    parser.add_argument(
        "--depth",
        type=Path,
        metavar="FILE",
        help="depth of A, in its pixels: gives the pose from A's camera to B's in place of a homography",
    )
    parser.add_argument(
        "--depth-scale",
        type=positive(100.0),
        metavar="M",
        help="metres per step of integers (default: 0.001 for 16 bit)",
    )
    parser.add_argument(
        "--camera-info",
        action="append",
        default=[],
        metavar="[a=|b=]FILE",
        help="with --depth: intrinsics of A and of B, a ROS camera_info YAML or a rig of one camera",
    )
    parser.add_argument(
        "--matcher", type=Path, metavar="ONNX", help="matcher.onnx of a run, in place of ours"
    )
    add_threads(parser, 2)
    parser.set_defaults(run=run_register)


def run_register(args: argparse.Namespace) -> int:
    """Register, and say how sure that is."""
    from calibration.detection import read_gray
    from calibration.registration.network import SHIPPED, DescriptorGraph
    from calibration.registration.overlay import overlay
    from calibration.registration.register import register
    from perception.files.writing import write_image

    output_file(args.overlay)
    _check_options(args)
    if args.a.exists() and args.b.exists() and args.a.samefile(args.b):
        raise ConfigError(
            "A and B are the same file", where=str(args.b), hint="give the other sensor's picture"
        )
    a, b = read_gray(args.a), read_gray(args.b)
    graph = DescriptorGraph(args.matcher or SHIPPED, args.threads)
    if args.depth is not None:
        return _run_pose(args, a, b, graph)
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


def _check_options(args: argparse.Namespace) -> None:
    """Refuse options that go with `--depth` without it, and `--overlay` with it."""
    if args.depth is None:
        for option, given in (
            ("--camera-info", bool(args.camera_info)),
            ("--depth-scale", args.depth_scale is not None),
        ):
            if given:
                raise ConfigError("goes with --depth, and there is none", where=option)
    elif args.overlay is not None:
        raise ConfigError("shows a homography, and --depth gives a pose", where="--overlay")


def _cameras(texts: list[str]) -> dict[str, Path]:
    """Files of A's and B's intrinsics; one without a name is both's."""
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if equals and name.lower() in ("a", "b"):
            found[name.lower()] = Path(path)
        else:
            found.setdefault("a", Path(text))
            found.setdefault("b", Path(text))
    if missing := sorted({"a", "b"} - set(found)):
        hint = "--camera-info a=FILE --camera-info b=FILE"
        raise ConfigError(
            f"no intrinsics of {missing[0].upper()}", where="--camera-info", hint=hint
        )
    return found


def _run_pose(
    args: argparse.Namespace, a: NDArray[Any], b: NDArray[Any], graph: DescriptorGraph
) -> int:
    """The pose by A's depth, and how well it is known."""
    require("a pose by depth", "scipy")
    import numpy as np

    from calibration.registration.pose import register_pose
    from perception.sensors.depth.decode import load_depth

    files = _cameras(args.camera_info)
    cameras = camera_file(files["a"]), camera_file(files["b"])
    depth = load_depth(args.depth, args.depth_scale).data
    found = register_pose(a, b, depth, cameras, graph, (str(args.a), str(args.b)))
    given = {"a": str(args.a), "b": str(args.b), OURS[1]: str(args.depth)}
    give_json(args, {**given, **found.to_dict()})
    table = Table("", "x", "y", "z", title="from A's optical frame into B's")
    move, sigma = found.transform.translation, found.sigma
    table.add_row("translation, m", *(f"{value:.4f}" for value in move))
    table.add_row("its sigma, m", *(f"{value:.4f}" for value in sigma[:3]))
    turned = [f"{np.degrees(value):.3f}" for value in sigma[3:]]
    table.add_row("sigma of the rotation, degrees", *turned)
    table.show()
    for row in found.transform.matrix:
        say("  ".join(f"{value:12.6g}" for value in row))
    say(
        f"{found.inliers} inliers of {found.matches} matches with depth, {found.rms_px:.2f} px off, "
        f"{found.depth_m:.2f} m away"
    )
    for doubt in found.doubts:
        warn(doubt)
    return 0 if found.trusted else UNTRUSTED
