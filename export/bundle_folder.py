"""The folder that a new bundle goes to: what may be replaced, and how."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perception.errors import BundleError, ConfigError
from perception.files.folders import writing_folder
from perception.files.listing import is_leftover
from perception.runtime.bundle import MANIFEST, Bundle, write_manifest
from perception.runtime.engines.plans import FOLDER, SUFFIX


def check_target(out: Path, source: Path | None = None) -> None:
    """Refuse, before any work, a folder that a bundle cannot be written to.

    Args:
        out: where the bundle shall go; a bundle that is there is replaced, other things are not.
        source: folder of the bundle that it is made from, if any.

    Raises:
        ConfigError: it is, holds or lies in the source, or is the current folder or one above it.
        BundleError: it holds something, and that is no bundle.
    """
    target = Path(os.path.realpath(out))
    if source is not None:
        origin = Path(os.path.realpath(source))
        if target == origin:
            raise ConfigError("is the source", where="--out")
        if target.is_relative_to(origin) or origin.is_relative_to(target):
            how = "lies in" if target.is_relative_to(origin) else "holds"
            raise ConfigError(f"{how} the source", where=str(out), hint="choose another --out")
    if Path.cwd().is_relative_to(target):
        raise ConfigError(
            "is the current folder, or above it", where=str(out), hint="name a folder in it"
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise BundleError("exists and is no folder", where=str(out))
    others = [p.name for p in target.iterdir() if not is_leftover(p)]
    if others and MANIFEST not in others:
        raise BundleError(
            f"holds {sorted(others)[0]} and is no bundle: nothing in it is replaced",
            where=str(out),
            hint="choose another --out",
        )


@contextmanager
def replacing_bundle(out: Path, source: Path | None = None) -> Iterator[Path]:
    """A folder to write a whole bundle to, which takes the place of `out` at the end.

    Until then, and when the body raises or is killed, `out` is as it was.  What a person has put into a
    bundle that is replaced, a note or a licence, goes over into the new one; its graphs and plans go.

    Args:
        out, source: see `check_target`.

    Raises:
        ConfigError, BundleError: see `check_target`; or the disk is full, or `out` cannot be written.
    """
    check_target(out, source)
    with writing_folder(out, error=BundleError) as folder:
        yield folder
        if out.is_dir():
            _carry_over(out, folder)


def _carry_over(old: Path, new: Path) -> None:
    """Link what is no part of the old bundle into the new one."""
    own = {MANIFEST}
    with suppress(BundleError):  # it may be damaged, which is why it is replaced
        own |= set(Bundle.open(old, verify=False).manifest.files)
    for root, _, files in os.walk(old):
        for name in files:
            path = Path(root, name)
            inner = path.relative_to(old)
            graph = path.parent == old and path.suffix == ".onnx"
            plan = inner.parts[0] == FOLDER and path.suffix in (SUFFIX, ".lock")
            if graph or plan or inner.as_posix() in own or (new / inner).exists():
                continue
            (new / inner).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, new / inner, follow_symlinks=False)
            except OSError:  # a file system without links
                shutil.copy2(path, new / inner, follow_symlinks=False)


def copy_files(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle's manifest and the files that it lists into `folder`; no plans.

    Raises:
        BundleError: a file is missing, changed, or leads outside.
    """
    for name in bundle.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bundle.read(name))
    write_manifest(folder, bundle.manifest)
