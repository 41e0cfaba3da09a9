"""Bundles: a folder, or a zip of it, with a manifest, graphs and their checksums.

Nothing in a bundle is unpickled, and nothing outside its folder is read.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from perception.errors import BundleError
from perception.runtime.manifest import SCHEMA_VERSION, BundleManifest

MANIFEST = "bundle.yaml"
BUNDLE_PATH_VARIABLE = "ANYSENSE_BUNDLES"
_MAX_UNZIPPED = 4 * 2**30


class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
    """

    def __init__(self, path: Path, manifest: BundleManifest, keep: Any = None) -> None:
        self.path = path
        self.manifest = manifest
        self._keep = keep  # the temporary folder of an unzipped bundle lives as long as this

    @staticmethod
    def open(path: str | Path, *, verify: bool = True) -> Bundle:
        """Open a bundle folder or zip file.

        Args:
            path: the folder or file.
            verify: check the SHA-256 of every file.

        Raises:
            BundleError: it is missing, damaged, of a newer schema, or points outside its folder.
        """
        path = Path(path)
        if path.is_file() and zipfile.is_zipfile(path):
            keep = tempfile.TemporaryDirectory(prefix="anysense-bundle-")
            folder = _unzip(path, Path(keep.name))
            bundle = Bundle(folder, _read_manifest(folder), keep)
        elif path.is_dir():
            bundle = Bundle(path, _read_manifest(path))
        else:
            raise BundleError(
                "no such bundle", where=str(path), hint="a folder with bundle.yaml, or a zip of it"
            )
        if verify:
            bundle.verify()
        return bundle

    @property
    def is_folder(self) -> bool:
        """Whether it was opened as a folder, so that what is written into it stays."""
        return self._keep is None

    def file(self, name: str) -> Path:
        """The path of a file of the bundle.

        Raises:
            BundleError: the name leads outside, or the file is missing.
        """
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name or not name:
            raise BundleError(f"'{name}' leads outside the bundle", where=str(self.path))
        found = self.path / name
        if not found.is_file():
            raise BundleError("file is missing", where=str(found), hint="export the bundle again")
        if not found.resolve().is_relative_to(self.path.resolve()):
            raise BundleError(f"'{name}' is a link out of the bundle", where=str(self.path))
        return found

    def verify(self) -> None:
        """Check every file against its checksum.

        Raises:
            BundleError: names the first file that is missing or changed.
        """
        for name, wanted in self.manifest.files.items():
            found = self.file(name)
            if sha256_of(found) != wanted:
                raise BundleError(
                    "content does not match its checksum", where=str(found), hint="copy it again"
                )


def find_bundle(name: str) -> Path:
    """The folder of a bundle given by path or by name.

    Names are looked up in the folders of the environment variable ANYSENSE_BUNDLES, in `./bundles`
    and in the `bundles` folder beside the package's source.

    Raises:
        BundleError: it is in none of them.
    """
    path = Path(name)
    if path.exists():
        return path
    folders = [Path(p) for p in os.environ.get(BUNDLE_PATH_VARIABLE, "").split(os.pathsep) if p]
    folders += [Path("bundles"), Path(__file__).parents[2] / "bundles"]
    if path.name == name:
        for folder in folders:
            if (folder / name).exists():
                return folder / name
    raise BundleError(
        "no such bundle",
        where=name,
        hint=f"give its path; looked in {', '.join(map(str, folders))}",
    )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(folder: Path, manifest: BundleManifest) -> None:
    """Write `bundle.yaml` into `folder`."""
    content = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    (folder / MANIFEST).write_text(
        yaml.safe_dump(content, sort_keys=False, width=100, default_flow_style=None)
    )


def record_accuracy(folder: Path, name: str, entry: dict[str, Any]) -> None:
    """Put an entry under `accuracy` into the manifest of a bundle folder, in place of one so named.

    Raises:
        BundleError: no bundle, or it cannot be written.
    """
    manifest = _read_manifest(folder)
    manifest.accuracy[name] = entry
    try:
        write_manifest(folder, manifest)
    except OSError as error:
        raise BundleError(f"cannot be written: {error}", where=str(folder / MANIFEST)) from error


def _read_manifest(folder: Path) -> BundleManifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError("no bundle.yaml", where=str(folder))
    try:
        raw = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError("not YAML", where=str(path)) from error
    if not isinstance(raw, dict):
        raise BundleError("not a manifest", where=str(path))
    schema = raw.get("schema")
    if isinstance(schema, int) and schema > SCHEMA_VERSION:
        raise BundleError(
            f"schema {schema} is newer than {SCHEMA_VERSION}, the newest this version reads",
            where=str(path),
            hint="upgrade anysense",
        )
    try:
        return BundleManifest.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise BundleError(f"{field}: {first['msg']}", where=str(path)) from error


def _unzip(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if sum(m.file_size for m in members) > _MAX_UNZIPPED:
            raise BundleError("unzips to more than 4 GiB", where=str(path))
        for member in members:
            parts = PurePosixPath(member.filename)
            if parts.is_absolute() or ".." in parts.parts:
                raise BundleError(f"'{member.filename}' leads outside the bundle", where=str(path))
        try:
            archive.extractall(folder)
        except (zipfile.BadZipFile, OSError) as error:
            raise BundleError(f"damaged zip: {error}", where=str(path)) from error
    if (folder / MANIFEST).is_file():
        return folder
    inner = [p for p in folder.iterdir() if (p / MANIFEST).is_file()]
    if len(inner) != 1:
        raise BundleError("no bundle.yaml", where=str(path))
    return inner[0]
