"""Data sets by name, and the `KIND:DIR` arguments of the command line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from perception.data.base import Recording
from perception.errors import ConfigError, DataError

KINDS: dict[str, tuple[str, str]] = {
    "nyuv2": ("perception.data.nyuv2", "NYUv2"),
    "msrs": ("perception.data.msrs", "MSRS"),
    "kitti": ("perception.data.kitti", "KITTI"),
    "rgbt_person": ("perception.data.rgbt_person", "RGBTPerson"),
    "folder": ("perception.data.folder", "FolderRecording"),
}
SPLITS = ("all", "train", "val")


def parse_data_argument(argument: str) -> tuple[str, Path]:
    """Split `KIND:DIR`.

    Raises:
        ConfigError: no colon, or an unknown kind.
    """
    kind, colon, folder = argument.partition(":")
    if not colon or kind not in KINDS or not folder:
        raise ConfigError(
            f"'{argument}' is not KIND:DIR", hint=f"KIND is one of {', '.join(KINDS)}"
        )
    return kind, Path(folder)


def open_recording(kind: str, root: Path, *, split: str = "all", **options: Any) -> Recording:
    """Open a recording.

    Args:
        kind: a key of `KINDS`.
        root: its folder.
        split: `all`, `train` or `val`.
        **options: further arguments of the reader, such as `labels` for msrs.

    Raises:
        ConfigError: unknown kind, split or option.
        DataError: the folder is missing, malformed, or the split is empty.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown data kind '{kind}'", hint=", ".join(KINDS))
    if split not in SPLITS:
        raise ConfigError(f"unknown split '{split}'", hint=", ".join(SPLITS))
    root = Path(root)
    if not root.is_dir():
        raise DataError("no such folder", where=str(root))
    module, name = KINDS[kind]
    reader: Callable[..., Recording] = getattr(import_module(module), name)
    try:
        recording = reader(root, split=split, **options)
    except TypeError as error:
        raise ConfigError(f"{kind} data does not take {', '.join(options)}") from error
    if len(recording) == 0:
        raise DataError(f"no frame in split '{split}'", where=str(root))
    return recording
