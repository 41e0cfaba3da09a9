"""Bundles: a folder, or a zip of it, with a manifest, graphs and their checksums.

Nothing in a bundle is unpickled, no file is read that the manifest does not list, and what a backend
gets are the very bytes whose checksum was compared.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from perception.errors import BundleError, EngineError, meant, names_hint
from perception.files.containers import Container, Folder, Zip
from perception.files.limits import MAX_GRAPH_BYTES, MAX_TEXT_BYTES
from perception.files.listing import siblings_hint
from perception.files.shipped import from_wheel, shipped
from perception.files.text import decode_text, parse_yaml
from perception.files.writing import write_yaml
from perception.runtime.graph_check import Signature, check_composed, check_modular
from perception.runtime.manifest import BundleManifest, check_manifest
from perception.runtime.onnx_file import beside, describe, self_contained
from perception.runtime.records import MANIFEST, BundleRecords, read_records, write_records
from perception.runtime.signatures import Seal, check_covered, check_signatures
from perception.runtime.trust import signature_required

_LOG = logging.getLogger("anysense.bundles")

BUNDLE_PATH_VARIABLE = "ANYSENSE_BUNDLES"


@dataclass(frozen=True)
class GraphSource:
    """A graph that is to be loaded, and what may be done with what lies beside it.

    Attributes:
        files: the folder or zip that it lies in.
        name: of the ONNX file in there.
        checksums: SHA-256 of every file that may be read; None for a tool's own file.
        trust_plans: TensorRT plans beside it may be run though this machine did not build them, and
            OpenVINO may be given any operator.
        tf32: CUDA may round the factors of products to 10 bits (TensorFloat-32), which is faster.
        seal: what a trusted key signed, where only that may be read.
    """

    files: Container
    name: str
    checksums: Mapping[str, str] | None = None
    trust_plans: bool = False
    tf32: bool = True
    seal: Seal | None = None

    @staticmethod
    def of(file: Path | GraphSource) -> GraphSource:
        """The source of an ONNX file that stands alone."""
        if isinstance(file, GraphSource):
            return file
        return GraphSource(Folder(file.parent, EngineError), file.name)

    def __str__(self) -> str:
        return self.files.where(self.name)

    @property
    def stem(self) -> str:
        """The file's name without folder and suffix."""
        return Path(self.name).stem

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the ONNX file, in hexadecimal, as it is listed or else as it is."""
        if self.checksums is not None and self.name in self.checksums:
            return self.checksums[self.name]
        return hashlib.sha256(self.files.read(self.name, MAX_GRAPH_BYTES)).hexdigest()

    def read_bytes(self) -> bytes:
        """The graph with all its weights, read now and compared with its checksums.

        Raises:
            AnySenseError: `BundleError` in a bundle, otherwise `EngineError`: a file is missing,
                changed, not listed or a link, or it is no ONNX graph.
        """
        return self_contained(
            self._checked(self.name),
            lambda location: self._checked(beside(self.name, location), location),
            where=str(self),
            error=self.files.error,
        )

    def trusts(self, name: str, content: bytes) -> bool:
        """Whether a plan beside it may be run though this machine did not build it."""
        return self.trust_plans and (self.seal is None or self.seal.covers(name, content))

    def _checked(self, name: str, location: str = "") -> bytes:
        if self.checksums is None:
            if location:
                raise self.files.error(
                    f"keeps weights in another file, {location}", where=str(self)
                )
            return self.files.read(name, MAX_GRAPH_BYTES)
        if name not in self.checksums:
            raise self.files.error(
                f"keeps weights in '{location}', which {MANIFEST} does not list", where=str(self)
            )
        return read_checked(self.files, name, self.checksums[name])


class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder, or the zip.
        files: what it is read through.
        manifest: what it is.
        records: what was measured of it.
        seal: what trusted keys signed of it; None where no signature was asked for.
        verified: whether all its files were compared with their checksums once.
    """

    def __init__(
        self,
        files: Container,
        manifest: BundleManifest,
        records: BundleRecords | None = None,
        seal: Seal | None = None,
    ) -> None:
        self.files = files
        self.path = files.path
        self.manifest = manifest
        self.records = records or BundleRecords()
        self.seal = seal
        self.verified = False

    @staticmethod
    def open(
        path: str | Path,
        *,
        verify: bool = True,
        require_signature: bool = False,
        trust: str | Path | None = None,
    ) -> Bundle:
        """Open a bundle folder or zip file.

        Args:
            path: the folder or file.
            verify: see `verify`.
            require_signature: refuse it, before anything in it is interpreted, unless a trusted key
                signed it, and all that lies in it.  `$ANYSENSE_REQUIRE_SIGNATURE` asks for that as well.
            trust: the folder of the public keys that are trusted, or one such file, which asks for a
                signature, too; None for `perception.runtime.trust.trust_store`.

        Raises:
            BundleError: it is missing, damaged, of a newer schema, points outside its folder, its
                manifest contradicts its graphs, or its signature is missing or does not fit.
            ConfigError: a signature is asked for, and there is no trust store that can be used.
            MissingDependencyError: a signature is asked for, and `cryptography` is not installed.
        """
        files = _container(Path(path))
        sealed = signature_required(require_signature, trust)
        bundle = Bundle(files, *_read(files, sealed=sealed, trust=trust))
        if verify:
            bundle.verify()
        own = bundle.manifest
        signed = f", signed by {', '.join(bundle.signers)}" if bundle.seal else ""
        _LOG.info(
            "%s: bundle %s %s, %s%s", bundle.path, own.name, own.version, own.precision, signed
        )
        return bundle

    @property
    def signers(self) -> tuple[str, ...]:
        """Names of the trusted keys that signed it; none where no signature was asked for."""
        return () if self.seal is None else self.seal.signers

    @property
    def is_folder(self) -> bool:
        """Whether it was opened as a folder, so that what is written into it stays."""
        return isinstance(self.files, Folder)

    def read(self, name: str) -> bytes:
        """The content of a listed file, compared with its checksum.

        Raises:
            BundleError: it is not listed, missing, changed, a link, or its name leads outside.
        """
        if name not in self.manifest.files:
            raise BundleError(f"'{name}' is not listed in {MANIFEST}", where=str(self.path))
        return read_checked(self.files, name, self.manifest.files[name])

    def source(self, name: str, *, trust_plans: bool = False, tf32: bool = True) -> GraphSource:
        """One of its graphs, to be loaded by a backend; see `GraphSource`."""
        return GraphSource(self.files, name, self.manifest.files, trust_plans, tf32, self.seal)

    def size(self, name: str) -> int:
        """Bytes of a file of the bundle.

        Raises:
            BundleError: as `read`, but for its content.
        """
        return self.files.size(name)

    def file(self, name: str) -> Path:
        """The path of a file of a bundle that is a folder.

        Raises:
            BundleError: the name leads outside, the file is missing or a link, or it is in a zip.
        """
        if not self.is_folder:
            raise BundleError("is a zip; unpack it", where=str(self.path))
        self.files.size(name)
        return self.path / name

    def verify(self) -> None:
        """Check every file against its checksum, and every graph against the manifest.

        Raises:
            BundleError: names the first file that is missing, changed, or contradicts the manifest.
        """
        graphs = dict.fromkeys(self.manifest.graph_files())
        for name, wanted in self.manifest.files.items():
            if name not in graphs:
                read_checked(self.files, name, wanted)
        check_graphs(self.manifest, {name: self._signature(name) for name in graphs})
        self.verified = True

    def _signature(self, name: str) -> Signature:
        source = self.source(name)
        return Signature.of(describe(source.read_bytes(), where=str(source)), str(source))


def check_graphs(manifest: BundleManifest, found: Mapping[str, Signature]) -> None:
    """Check all graphs of a bundle against its manifest.

    Args:
        manifest: the manifest.
        found: by file, what the graphs are.

    Raises:
        BundleError: the first contradiction.
    """
    graphs = manifest.graphs
    encoders = {name: found[graph.file] for name, graph in graphs.encoders.items()}
    check_modular(manifest, encoders, found[graphs.fuser.file])
    if graphs.single is not None:
        check_composed(manifest, found[graphs.single.file], manifest.inputs.names, presence=True)
    for name, graph in graphs.subsets.items():
        check_composed(manifest, found[graph.file], name.split("+"), presence=False)


def bundle_folders() -> list[Path]:
    """The folders in which bundles are looked up by name, in this order."""
    named = [Path(p) for p in os.environ.get(BUNDLE_PATH_VARIABLE, "").split(os.pathsep) if p]
    return [*named, Path("bundles"), shipped("bundles")]


def bundles_in(folders: Iterable[Path]) -> dict[str, Path]:
    """The bundles in these folders by name; of two of one name, the first."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if (path / MANIFEST).is_file() or path.suffix.lower() == ".zip":
                found.setdefault(path.name, path)
    return found


def find_bundle(name: str) -> Path:
    """The folder of a bundle given by path or by name.

    Names are looked up in the folders of the environment variable ANYSENSE_BUNDLES, in `./bundles`
    and among the bundles that come with the package: all of ours in the source tree, in a wheel those
    whose weights anybody may ship.

    Raises:
        BundleError: it is in none of them.
    """
    path = Path(name)
    if _exists(path):
        return path
    folders = bundle_folders()
    if path.name == name:
        for folder in folders:
            if _exists(folder / name):
                return folder / name
    elif close := siblings_hint(path):
        raise BundleError("no such bundle", where=name, hint=close)
    hint = f"looked in {', '.join(map(str, folders))}"
    known = [*bundles_in(folders)] if path.name == name else []
    said = names_hint(name, known) if known else ""
    if said:
        hint = f"{said}; {hint}"
    if from_wheel() and not meant(name, known):
        hint += "; bundles for research alone come with the source tree, not with pip: "
        hint += "name its folder in $ANYSENSE_BUNDLES"
    raise BundleError("no such bundle", where=name, hint=hint)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return False


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_checked(files: Container, name: str, sha256: str) -> bytes:
    """The content of a file that has this SHA-256.

    Raises:
        AnySenseError: of the container's class: it is missing, changed or a link.
    """
    content = files.read(name, MAX_GRAPH_BYTES)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise files.error(
            "content does not match its checksum", where=files.where(name), hint="copy it again"
        )
    return content


def write_bundle(
    folder: Path, manifest: BundleManifest, records: BundleRecords | None = None
) -> None:
    """Write `bundle.yaml` of a new bundle into `folder`, and `records.yaml` where there are any.

    Raises:
        BundleError: one cannot be written; each is whole or as it was.
    """
    content = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    write_yaml(folder / MANIFEST, content, error=BundleError, width=100, default_flow_style=None)
    if records is not None and records != BundleRecords(bundle=records.bundle):
        write_records(folder, records)


def record(folder: Path, **changed: Mapping[str, Any]) -> None:
    """Put entries into tables of a bundle folder's `records.yaml`, in place of those so named.

    Args:
        folder: the bundle's.
        changed: by table (`accuracy`, `parity`, `backends`, `speed`), entries by name.

    Raises:
        BundleError: no bundle, or it cannot be written.
    """
    _, records, _ = _read(Folder(folder, BundleError))
    update = {table: {**getattr(records, table), **new} for table, new in changed.items()}
    write_records(folder, records.model_copy(update=update))


def _container(path: Path) -> Container:
    try:
        if path.is_dir():
            return Folder(path, BundleError)
        if path.is_file():
            return Zip(path, MANIFEST, BundleError)
    except (OSError, ValueError) as error:
        raise BundleError("no such bundle", where=str(path)) from error
    raise BundleError(
        "no such bundle", where=str(path), hint="a folder with bundle.yaml, or a zip of it"
    )


def _read(
    files: Container, *, sealed: bool = False, trust: str | Path | None = None
) -> tuple[BundleManifest, BundleRecords, Seal | None]:
    """What a bundle is and what was measured of it, each read once; of a sealed one only what was signed."""
    where, content = files.where(MANIFEST), files.read(MANIFEST, MAX_TEXT_BYTES)
    seal = check_signatures(files, content, trust) if sealed else None
    plain = parse_yaml(
        decode_text(content, where=where, error=BundleError), where=where, error=BundleError
    )
    manifest = check_manifest(plain, where)
    if seal is None:
        return manifest, read_records(files, content, plain), None
    check_covered(files, seal, manifest.files)
    return manifest, read_records(files, content, plain, seal.covers), seal
