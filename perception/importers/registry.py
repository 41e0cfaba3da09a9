"""Formats by name, and the `KIND:DIR` argument of `anysense data import`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from perception.data.registry import READERS, kind_name, options_of
from perception.errors import ConfigError, DataError, names_hint
from perception.files.listing import is_there
from perception.importers.source import Source

Importer = Callable[..., Source]
"""`importer(root, **options)`."""

IMPORTERS = {
    "coco": "perception.importers.coco:coco",
    "yolo": "perception.importers.yolo:yolo",
    "cityscapes": "perception.importers.cityscapes:cityscapes",
    "kitti_object": "perception.importers.kitti_object:kitti_object",
    "nuscenes": "perception.importers.nuscenes:nuscenes",
    "semantic_kitti": "perception.importers.semantic_kitti:semantic_kitti",
    "sunrgbd": "perception.importers.sunrgbd:sunrgbd",
    "bag": "perception.importers.bag:bag",
    "mfnet": "perception.importers.rgbt:mfnet",
    "pst900": "perception.importers.rgbt:pst900",
    "rgbt": "perception.importers.rgbt:rgbt",
}
"""Importers by name; what there is a reader for is imported by its reader, see `recording`."""


def formats() -> list[str]:
    """The names of all formats that can be imported."""
    return [*IMPORTERS, *(name for name in READERS if name not in IMPORTERS)]


def parse_format(argument: str) -> tuple[str, Path]:
    """Split `KIND:DIR`; options stay with the kind, as in `coco,labels=true:DIR`.

    Raises:
        ConfigError: no colon, or an unknown kind.
    """
    kind, colon, place = argument.partition(":")
    if kind_name(kind) not in formats():
        hint = names_hint(kind_name(kind), formats())
        raise ConfigError(f"'{argument[:200]}' is not KIND:DIR of a known kind", hint=hint)
    if not colon or not place:
        raise ConfigError(f"'{argument[:200]}' names no folder", hint=f"{kind}:DIR")
    return kind, Path(place)


def open_source(kind: str, root: Path) -> Source:
    """Look at a data set.

    Args:
        kind: one of `formats`, with its options: `coco,labels=true`.
        root: its folder, or the file that describes it.

    Raises:
        ConfigError: an unknown kind or option.
        DataError: something is missing or wrong; the file is named.
    """
    name, options = kind_name(kind), options_of(kind)
    if not is_there(root):
        raise DataError("no such file or folder", where=str(root))
    if name not in IMPORTERS:
        from perception.importers.recording import recording

        return recording(root, name, **options)
    module, _, attribute = IMPORTERS[name].partition(":")
    importer: Importer = getattr(import_module(module), attribute)
    _check_options(name, importer, options)
    return importer(root, **options)


_WORDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "bool": ("true or false", (bool,)),
    "str": ("a text", (str,)),
    "float": ("a number", (int, float)),
    "int": ("a whole number", (int,)),
}


def _check_options(name: str, importer: Importer, options: dict[str, Any]) -> None:
    taken = list(inspect.signature(importer).parameters.values())[1:]
    free = any(p.kind is p.VAR_KEYWORD for p in taken)  # texts of any name
    taken = [p for p in taken if p.kind is not p.VAR_KEYWORD]
    known = {p.name: str(p.annotation) for p in taken}
    for option, value in options.items():
        if option not in known and free:
            if not isinstance(value, str):
                raise ConfigError(f"{name}: {option} is a text, not '{str(value)[:80]}'")
            continue
        if option not in known:
            hint = names_hint(option, list(known)) if known else "it takes no options"
            raise ConfigError(f"{name} takes no option '{option}'", hint=hint)
        word, kinds = _WORDS[known[option]]
        fits = isinstance(value, kinds) and (known[option] == "bool" or value not in (True, False))
        if not fits or (known[option] == "float" and not 0 < value < 1e9):
            raise ConfigError(f"{name}: {option} is {word}, not '{str(value)[:80]}'")
