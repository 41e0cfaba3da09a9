"""`anysense data import`: a data set of another format as a recording in the folder format."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.cli.arguments import give_json
from perception.cli.console import note, say, tracked
from perception.cli.parsing import MAX_SEED, Commands, Size, add_command, real, whole
from perception.errors import ConfigError

_SPLITS = ("train", "val", "test")


def add_action(actions: Commands) -> None:
    """Register the action."""
    from perception.importers.placing import WAYS
    from perception.importers.registry import formats
    from perception.importers.taking import MISSING

    parser = add_command(
        actions,
        "import",
        "take over a data set of another format, as COCO, YOLO, Cityscapes or KITTI",
        example="anysense data import yolo:DIR --out recordings/mine --val-share 0.2",
    )
    parser.add_argument(
        "source",
        metavar="KIND:DIR",
        help=f"KIND is one of {', '.join(formats())}, with its options: coco,labels=true",
    )
    parser.add_argument("--out", type=Path, help="new folder to write; not needed with --dry-run")
    parser.add_argument(
        "--limit", type=whole(1), help="at most so many frames, of each split its share"
    )
    parser.add_argument(
        "--classes",
        default="",
        metavar="NAME,...|FILE.yaml",
        help="which classes, maybe renamed or joined: person,car,truck=car,*=other; or a YAML file of "
        "our_name: [its_name, ...] (default: all)",
    )
    parser.add_argument(
        "--missing-boxes",
        choices=MISSING,
        default=MISSING[0],
        help="what a frame without a file of boxes is",
    )
    parser.add_argument(
        "--files",
        choices=WAYS,
        default=WAYS[0],
        help="copy files, or link them where they need no change (hard links where possible)",
    )
    parser.add_argument(
        "--size",
        type=Size(whole(32, 8192)),
        metavar="WIDTHxHEIGHT",
        help="bring pictures to one size: scaled to fit, the rest filled (default: as they are)",
    )
    for split in _SPLITS:
        parser.add_argument(
            f"--{split}-list",
            type=Path,
            metavar="FILE",
            help=f"frames of {split}, one a line (a name or path)",
        )
    for split in _SPLITS[1:]:
        parser.add_argument(
            f"--{split}-sequences", metavar="NAME,...", help=f"whole sequences of {split}"
        )
        parser.add_argument(
            f"--{split}-share",
            type=real(0, 1, least_too=False, most_too=False),
            help=f"share of the frames, drawn by chance, of {split}",
        )
    parser.add_argument(
        "--whole-sequences", action="store_true", help="draw whole sequences, not frames"
    )
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=0, help="of the drawing")
    parser.add_argument("--name", default="", help="of the recording (default: the data set's)")
    parser.add_argument("--dry-run", action="store_true", help="say what there is, write nothing")


def run(args: argparse.Namespace) -> int:
    """Import; a folder that is there already is refused before anything is read."""
    from perception.importers.registry import open_source, parse_format
    from perception.importers.splits import SplitWishes
    from perception.importers.taking import Wishes, described, refuse_existing, take_over

    kind, root = parse_format(args.source)
    if args.out is None and not args.dry_run:
        raise ConfigError("is needed", where="--out", hint="a new folder, or --dry-run")
    if args.out is not None:
        refuse_existing(args.out)
    splits = SplitWishes(
        {s: path for s in _SPLITS if (path := getattr(args, f"{s}_list"))},
        {s: _names(text) for s in _SPLITS[1:] if (text := getattr(args, f"{s}_sequences"))},
        {s: share for s in _SPLITS[1:] if (share := getattr(args, f"{s}_share"))},
        args.whole_sequences,
        args.seed,
    )
    wishes = Wishes(
        limit=args.limit,
        classes=args.classes,
        missing_boxes=args.missing_boxes,
        way=args.files,
        size=args.size[::-1] if args.size else None,
        splits=splits,
        name=args.name,
        dry=args.dry_run,
    )
    splits.check()
    report = take_over(open_source(kind, root), args.out, wishes, tracked)
    for line in described(report):
        say(line)
    for line in report.notes:
        note(line)
    folders = [(args.out or Path()) / name for name in report.recordings]
    found = {"recordings": [str(f) for f in folders], "dry_run": args.dry_run}
    give_json(args, {**found, "found": list(described(report)), "notes": list(report.notes)})
    if args.dry_run:
        say("nothing was written; pictures and clouds themselves were not read")
        return 0
    for folder in folders:
        say(f"wrote {folder}", "bold")
    say(f"next: anysense data check {folders[0]}")
    return 0


def _names(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise ConfigError("names no sequence", where="--val-sequences")
    return found
