"""The folder that a new bundle goes to: what may be replaced, and how."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from perception.errors import BundleError, ConfigError
from perception.files.folders import writing_folder
from perception.files.limits import MAX_TEXT_BYTES
from perception.files.listing import is_leftover
from perception.files.text import decode_text, parse_yaml
from perception.runtime.bundle import Bundle, write_bundle
from perception.runtime.engines.plans import FOLDER, SUFFIX
from perception.runtime.records import MANIFEST, RECORDS
from perception.runtime.schema1 import SCHEMA_1
from perception.runtime.signatures import SIGNATURES


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
    own = {MANIFEST, RECORDS, SIGNATURES}
    with suppress(BundleError):  # it may be damaged, which is why it is replaced
        own |= set(Bundle.open(old, verify=False).manifest.files)

    def stays(inner: Path) -> bool:
        graph = len(inner.parts) == 1 and inner.suffix == ".onnx"
        plan = inner.parts[0] == FOLDER and inner.suffix in (SUFFIX, ".lock")
        return graph or plan or inner.as_posix() in own

    _link(old, new, stays)


def _link(old: Path, new: Path, left_out: Callable[[Path], bool]) -> None:
    """Have the files of one folder in another one, but for those that are there, and some."""
    for root, folders, files in os.walk(old):
        for name in [*files, *(n for n in folders if Path(root, n).is_symlink())]:
            path = Path(root, name)
            inner = path.relative_to(old)
            if left_out(inner) or (new / inner).exists():
                continue
            (new / inner).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, new / inner, follow_symlinks=False)
            except OSError:  # a file system without links
                shutil.copy2(path, new / inner, follow_symlinks=False)


def copy_files(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle's manifest, its records and the files that it lists into `folder`; no plans.

    Raises:
        BundleError: a file is missing, changed, or leads outside.
    """
    for name in bundle.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bundle.read(name))
    write_bundle(folder, bundle.manifest, bundle.records)


def upgrade_bundle(path: Path, out: Path | None = None) -> Path | None:
    """Rewrite a bundle of schema 1 as one of the present schema; its graphs stay as they are.

    Args:
        path: its folder or zip.
        out: where the new one goes; a bundle that is there is replaced.  None for the old one's place,
            where everything else that lies in the folder stays.

    Returns:
        The folder; None where the bundle is of the present schema already.

    Raises:
        ConfigError: a zip without `out`, or `out` does not fit, see `check_target`.
        BundleError: it is damaged, or the new one cannot be written or says something else: the old one
            is as it was.
    """
    bundle = Bundle.open(path)
    where = bundle.files.where(MANIFEST)
    text = decode_text(bundle.files.read(MANIFEST, MAX_TEXT_BYTES), where=where, error=BundleError)
    if parse_yaml(text, where=where, error=BundleError).get("schema") != SCHEMA_1:
        return None
    if out is None and not bundle.is_folder:
        raise ConfigError("is a zip", where=str(path), hint="--out DIR for a folder")
    target = bundle.path if out is None else out
    with replacing_bundle(target, None if out is None else path) as folder:
        if out is None:
            _link(path, folder, lambda inner: inner.as_posix() in (MANIFEST, RECORDS, SIGNATURES))
            write_bundle(folder, bundle.manifest, bundle.records)
        else:
            copy_files(bundle, folder)
        new = Bundle.open(folder)
        if _content(new) != _content(bundle):
            raise BundleError("cannot be written without loss", where=str(path))
    return target


def _content(bundle: Bundle) -> str:
    """What a bundle is and what was measured of it, as text, in which NaN is like NaN."""
    return repr((bundle.manifest.model_dump(), bundle.records.model_dump(exclude={"bundle"})))
