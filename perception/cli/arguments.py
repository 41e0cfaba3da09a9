"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.console import print_json
from perception.cli.parsing import STDOUT, add_threads, add_trust, positive, whole
from perception.data.base import Recording
from perception.data.registry import READERS, SPLITS, open_recording, parse_data_argument
from perception.errors import ConfigError, names_hint
from perception.files import writing as files
from perception.files.made import make_folder
from perception.runtime.time_limit import LOAD_TIMEOUT_S

if TYPE_CHECKING:
    from perception.runtime.alignment import Alignment


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """`--device`, `--threads`, `--trust-plans`, `--no-tf32`, times, and `add_trust`; see `engine_choices`."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or a backend")
    add_engine_limits(parser)
    parser.add_argument(
        "--no-tf32", action="store_true", help="CUDA: products in full float32, slower"
    )
    parser.add_argument(
        "--engine-timeout",
        type=positive(),
        metavar="S",
        help="a run of a graph that takes longer is ended, with an error (default: no limit)",
    )
    parser.add_argument(
        "--load-timeout",
        type=positive(),
        default=LOAD_TIMEOUT_S,
        metavar="S",
        help="the same of loading a graph on the CPU, and of its first run",
    )
    add_trust(parser)
    add_alignment(parser)


def add_alignment(parser: argparse.ArgumentParser) -> None:
    """`--align`, `--plane-m` and `--align-tolerance`; see `perception.runtime.alignment.Alignment`."""
    parser.add_argument(
        "--align",
        choices=("auto", "off"),
        default="auto",
        help="auto: pictures of cameras that stand or look elsewhere than the reference, by their "
        "calibration, are warped onto its pixels; off: all are stretched over them",
    )
    parser.add_argument(
        "--plane-m",
        type=positive(),
        metavar="M",
        help="how far away things are where no depth says it (default: infinitely)",
    )
    parser.add_argument(
        "--align-tolerance",
        type=positive(1000),
        default=1.0,
        metavar="PX",
        help="a picture that is off by less, in pixels of the network's grid, is aligned",
    )


def add_engine_limits(parser: argparse.ArgumentParser) -> None:
    """`--threads` and `--trust-plans`."""
    add_threads(parser, more="within an operator (default: all)")
    parser.add_argument(
        "--trust-plans",
        action="store_true",
        help="run TensorRT plans that this machine did not build (a plan is a program), and any operator "
        "on OpenVINO",
    )


def engine_choices(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_engine_arguments` gave, but for the device, as `Pipeline.load` takes it."""
    return {
        "threads": args.threads,
        "trust_plans": args.trust_plans,
        "tf32": not args.no_tf32,
        "engine_timeout_s": args.engine_timeout,
        "load_timeout_s": args.load_timeout,
        "alignment": alignment_of(args),
    }


def alignment_of(args: argparse.Namespace) -> Alignment:
    """What `add_alignment` gave."""
    from perception.runtime.alignment import Alignment

    plane_m = math.inf if args.plane_m is None else args.plane_m
    return Alignment(args.align, plane_m, tolerance_px=args.align_tolerance)


def backend_names(argument: str) -> list[str]:
    """The backends of a comma-separated argument, each once.

    Raises:
        ConfigError: a name is not that of a backend.
    """
    from perception.runtime.engines.registry import FAMILIES, device_of, known_devices

    named = [device_of(name.strip()) for name in argument.split(",") if name.strip()]
    families = [device.name for device in named if device.name in FAMILIES]
    if families or not named:
        raise ConfigError(
            f"'{families[0] if families else argument}' is not a backend",
            where="--backends",
            hint=names_hint(argument, [n for n in known_devices() if n not in FAMILIES]),
        )
    return list(dict.fromkeys(map(str, named)))


def add_data_arguments(
    parser: argparse._ActionsContainer, *, required: bool, limit: tuple[str, ...] = ("--limit",)
) -> None:
    """`--data`, `--split`, `--only`, `--labels` and `--limit`, which may have other names."""
    kinds = f"recording; KIND is one of {', '.join(READERS)}, with its options: msrs,labels=visible"
    parser.add_argument("--data", required=required, metavar="KIND:DIR", help=kinds)
    parser.add_argument("--split", choices=SPLITS, default="all", help="part of the recording")
    parser.add_argument("--only", metavar="TAG", help="only frames with this tag, e.g. night")
    parser.add_argument("--labels", help="msrs: which boxes: fusion, visible or infrared")
    parser.add_argument(
        *limit,
        dest="limit",
        metavar="N",
        type=whole(1, 10**9),
        help="only this many frames, evenly spread",
    )


def add_fitting(parser: argparse.ArgumentParser, frames: str, folds: str) -> None:
    """`--out`, `--version`, `--block` and `--folds`, of commands that fit a new bundle to some scenes.

    Args:
        parser: of the command.
        frames: what they are called.
        folds: what several parts are for.
    """
    parser.add_argument("--out", type=Path, required=True, help="folder of the new bundle")
    parser.add_argument("--version", help="of the new bundle (default: the next number)")
    parser.add_argument(
        "--block",
        type=whole(1, 10**9),
        metavar="N",
        help=f"take every N {frames} in a row for a scene (default: what the data say)",
    )
    parser.add_argument(
        "--folds", type=whole(2, 1000), metavar="N", help=f"of few {frames}: {folds}"
    )


def open_data(args: argparse.Namespace, *, every: bool = False) -> Recording:
    """The recording that the data arguments ask for; `every` leaves `--limit` to the command.

    Raises:
        ConfigError: an option does not fit, or nothing is left.
    """
    kind, root = parse_data_argument(args.data)
    options = {"labels": args.labels} if args.labels else {}
    recording = open_recording(kind, root, split=args.split, **options)
    if args.only:
        recording.select(args.only)
    if not len(recording):
        raise ConfigError(f"no frame is tagged '{args.only}'", where=args.data)
    if args.limit is not None and not every:
        thin_out(recording, args.limit, "--limit")
    return recording


def thin_out(recording: Recording, frames: int, option: str) -> None:
    """Keep at most `frames` frames of the recording, spread evenly from its start to its end."""
    if frames < 1:
        raise ConfigError("must be at least 1", where=option)
    count = len(recording)
    if frames < count:
        recording.ids = [recording.ids[i * count // frames] for i in range(frames)]


def seen_in_training(training: Mapping[str, Any], recording: Recording, split: str) -> bool:
    """Whether some of these frames may be among those that a bundle was trained on.

    Args:
        training: the bundle's section of that name.
        recording: the frames.
        split: which part of the recording they are.
    """
    trained = str(training.get("data", "")).split(" (")[0]
    same = recording.info.name in (trained, *trained.split(" + "))
    return same and split != "val"


SEEN_NOTE = (
    "the bundle was trained on a data set of this name: unless this folder is a held-out part, "
    "the numbers include frames it has seen (--split val leaves them out)"
)


def output_file(path: Path | None) -> Path | None:
    """Check, before long work, that a file can be written there.

    Raises:
        ConfigError: the path is a folder, or lies below a file.
    """
    if path is not None:
        if path.is_dir():
            raise ConfigError("is a folder, not a file", where=str(path))
        output_folder(path.parent)
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError("cannot be written", where=str(path))
    return path


def add_torch_device(parser: argparse.ArgumentParser) -> None:
    """`--device` of commands that compute with PyTorch."""
    parser.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to compute"
    )


def expect_folder(path: Path) -> Path:
    """Check, before long work, that a folder is there or could be; makes none.

    Raises:
        ConfigError: the path is a file, or lies below one.
    """
    there = next((p for p in (path, *path.parents) if p.exists()), path)
    if there.exists() and not there.is_dir():
        raise ConfigError("is a file, or below one; expected a folder", where=str(path))
    return path


def output_folder(path: Path) -> Path:
    """Make a folder for results, which goes again if the command fails before it is filled.

    Raises:
        ConfigError: the path is a file or lies below one, or the folder cannot be made.
    """
    try:
        make_folder(path)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigError("is a file, or below one; expected a folder", where=str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot be made: {error.strerror}", where=str(path)) from error
    return path


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file, its folder too."""
    output_folder(path.parent)
    files.write_json(path, content, error=ConfigError)


def give_json(args: argparse.Namespace, content: Mapping[str, Any]) -> None:
    """Give what a command found as JSON, where `--json` asks for it.

    Args:
        args: of the command.
        content: plain values; the command line is added, NaN and infinity become null.
    """
    if args.json is None:
        return
    plain = files.without_nan({"command": command_line(), **content})
    if args.json == STDOUT:
        print_json(files.json_text(plain))
    else:
        write_json(args.json, plain)


PLACES = ("--json", "--picture", "--threads")
"""Options that say where results go on this machine, which is of no use to a reader of a bundle."""

_SILENT = re.compile(r"--record|--quiet|--verbose|-[qv]+")


def recorded_command() -> str:
    """The command that is running, without `PLACES` and what changes no result, for a bundle's records.

    It can be typed: where something has to be written to is `OUT`.
    """
    words, given = list[str](), sys.argv[1:]
    while given:
        word, *given = given
        if word == "--out" or word.startswith("--out="):
            words += ["--out", "OUT"]
            given = given[1:] if word == "--out" else given
        elif word in PLACES:
            given = given[1:] if given and not given[0].startswith("-") else given
        elif not _SILENT.fullmatch(word) and not word.startswith(tuple(f"{o}=" for o in PLACES)):
            words.append(word)
    return shlex.join(["anysense", *words])


def command_line() -> str:
    """The command that is running, for reports."""
    return shlex.join(["anysense", *sys.argv[1:]])
