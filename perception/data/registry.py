"""Data sets by name, and the `KIND:DIR` arguments of the command line.

`KIND` is the name of a reader, with options of it if it takes some: `msrs,labels=visible`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perception.data.base import Recording
from perception.errors import AnySenseError, ConfigError, DataError, meant, names_hint
from perception.files.listing import is_folder
from perception.files.text import parse_yaml
from perception.plugins import Registry

_LOG = logging.getLogger("anysense.data")

Reader = Callable[..., Recording]
"""`reader(root, split="all", **options)`; a `Recording` class, or a function that gives one."""


def _check(name: str, reader: Any) -> None:
    if not callable(reader):
        raise TypeError(f"is a {type(reader).__name__}, not a reader: reader(root, split=...)")
    taken = inspect.signature(reader).parameters
    if "split" not in taken and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        raise TypeError("takes no split")


READERS: Registry[Reader] = Registry(
    "datasets",
    "kind of data",
    {
        "nyuv2": "perception.data.nyuv2:NYUv2",
        "msrs": "perception.data.msrs:MSRS",
        "kitti": "perception.data.kitti:KITTI",
        "rgbt_person": "perception.data.rgbt_person:RGBTPerson",
        "folder": "perception.data.folder:FolderRecording",
    },
    _check,
)
SPLITS = ("all", "train", "val")


def parse_data_argument(argument: str) -> tuple[str, Path]:
    """Split `KIND:DIR`; options stay with the kind, see `open_recording`.

    Raises:
        ConfigError: no colon, or an unknown kind.
    """
    kind, colon, folder = argument.partition(":")
    if not colon or kind_name(kind) not in READERS or not folder:
        raise ConfigError(
            f"'{argument[:200]}' is not KIND:DIR",
            hint=f"KIND: {names_hint(kind_name(kind), READERS)}; for others see anysense data import",
        )
    return kind, Path(folder)


def kind_name(kind: str) -> str:
    """A kind of data without options: `msrs` of `msrs,labels=visible`."""
    return kind.partition(",")[0]


def options_of(kind: str) -> dict[str, Any]:
    """The options that follow a kind of data, in YAML's words: `labels` of `msrs,labels=visible`.

    Raises:
        ConfigError: one is no `OPTION=VALUE`, or is given twice.
    """
    found: dict[str, Any] = {}
    for part in kind.split(",")[1:]:
        name, equals, value = part.partition("=")
        if not name.isidentifier() or not equals or name in found:
            again = ", a second time" if name in found else ""
            raise ConfigError(f"'{part[:80]}' is not OPTION=VALUE{again}", where=kind[:200])
        found[name] = parse_yaml(value, where=kind[:200], error=ConfigError)
    return found


def open_recording(kind: str, root: Path, *, split: str = "all", **options: Any) -> Recording:
    """Open a recording.

    Args:
        kind: a key of `READERS`, with options of the reader in YAML's words where there are some:
            `msrs,labels=visible`.
        root: its folder.
        split: `all`, `train` or `val`.
        **options: further arguments of the reader, such as `labels` for msrs.

    Raises:
        ConfigError: unknown kind, split or option, or a plug-in's reader fails.
        DataError: the folder is missing, malformed, or the split is empty.
    """
    name = kind_name(kind)
    reader = READERS.named(name)
    options = options_of(kind) | options
    if split not in SPLITS:
        raise ConfigError(f"unknown split '{split}'", hint=names_hint(split, SPLITS))
    root = Path(root)
    if not is_folder(root):
        raise DataError("no such folder", where=str(root))
    _refuse_unknown(name, reader, options)
    try:
        with READERS.guarding(name):
            recording = reader(root, split=split, **options)
    except (TypeError, ValueError) as error:
        if isinstance(error, AnySenseError) or not options:
            raise
        raise ConfigError(f"{name} data does not take these options: {error}") from error
    if not isinstance(recording, Recording):
        what = f"gave a {type(recording).__name__}, not a Recording"
        raise DataError(what, where=READERS.place(name))
    if not {"root", "info", "ids"} <= vars(recording).keys():
        raise DataError("does not call Recording.__init__", where=READERS.place(name))
    if len(recording) == 0:
        raise DataError(f"no frame in split '{split}'", where=str(root))
    _LOG.info("%s: %d frames of %s data, split %s", root, len(recording), name, split)
    return recording


def splits_of(kind: str, root: Path, **options: Any) -> dict[str, str]:
    """The split of each frame that is of `train` or `val`; none where the reader cannot tell."""
    found: dict[str, str] = {}
    for split in SPLITS[1:]:
        try:
            own = open_recording(kind, root, split=split, **options).ids
        except AnySenseError:  # empty, or the reader cannot tell
            continue
        found |= dict.fromkeys(own, split)
    return found


def _refuse_unknown(name: str, reader: Reader, options: dict[str, Any]) -> None:
    taken = inspect.signature(reader).parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    known = list(taken)[1:]  # the first is the folder
    unknown = [option for option in options if option not in known or option == "split"]
    if unknown:
        own = [option for option in known if option != "split"]
        hint = f"it takes {', '.join(own)}" if own else "it takes no options"
        if len(own) > 1:
            hint = f"{meant(unknown[0], own)} {hint}".lstrip()
        raise ConfigError(f"{name} data does not take {', '.join(unknown)}", hint=hint)
