"""Signatures of a bundle: `bundle.sig` beside `bundle.yaml`.

A signature is of the exact bytes of `bundle.yaml`, which lists the SHA-256 of every file of the bundle,
and of the SHA-256 of what may lie beside it: `records.yaml`, which can admit backends, and TensorRT plans,
which are programs.  The file has one form only: what reads alike and is not the same byte by byte is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from perception.errors import BundleError
from perception.files.containers import Container, Folder
from perception.files.limits import MAX_ARCHIVE_BYTES, MAX_KEYS, MAX_SIGNATURE_BYTES, MAX_TEXT_BYTES
from perception.files.writing import write_bytes
from perception.runtime.manifest import DIGEST, FileName, validated
from perception.runtime.records import MANIFEST
from perception.runtime.trust import PublicKey, public_of, trusted_keys
from perception.tasks.spec import Frozen, Spec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SIGNATURES = "bundle.sig"
PLANS, PLAN = "engines", ".plan"
"""The folder in a bundle in which plans lie, which are no part of what it is, and the end of their names."""

_DOMAIN = b"AnySense bundle signature, version 1\n"


class Signature(Spec):
    """What one key signed.

    Attributes:
        key: `PublicKey.id` of it.
        algorithm: Ed25519 (RFC 8032).
        signature: 64 bytes in hexadecimal.
    """

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    algorithm: Literal["ed25519"] = "ed25519"
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Signatures(Spec):
    """The content of `bundle.sig`.

    Attributes:
        bundle: SHA-256 of the `bundle.yaml` that they are of.
        also: SHA-256 of other files that they cover, by name.
        signatures: one of each key, sorted by key.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    bundle: str = Field(pattern=DIGEST)
    also: Frozen[FileName, Annotated[str, Field(pattern=DIGEST)]] = Field(
        default_factory=lambda: MappingProxyType({})
    )
    signatures: Annotated[tuple[Signature, ...], Field(max_length=MAX_KEYS)] = ()

    def content(self) -> bytes:
        """The bytes of the file."""
        plain = self.model_dump(mode="json", by_alias=True)
        plain["also"] = dict(sorted(plain["also"].items()))
        plain["signatures"] = sorted(plain["signatures"], key=lambda s: s["key"])
        return (json.dumps(plain, indent=1) + "\n").encode("ascii")

    def message(self, identity: bytes) -> bytes:
        """What is signed, given the bytes of `bundle.yaml`.  No JSON has a bare line break: it ends there."""
        also = json.dumps(dict(sorted(self.also.items())), separators=(",", ":"))
        return _DOMAIN + also.encode("ascii") + b"\n" + identity


@dataclass(frozen=True)
class Seal:
    """What is known of a bundle whose signature was checked.

    Attributes:
        signers: names of the trusted keys that signed it.
        also: SHA-256 of what the signature covers beside the files that `bundle.yaml` lists.
        keys: these keys, by `PublicKey.id`.
    """

    signers: tuple[str, ...]
    also: Mapping[str, str]
    keys: frozenset[str] = frozenset()

    def covers(self, name: str, content: bytes) -> bool:
        """Whether this is what was signed under this name."""
        return self.also.get(name) == hashlib.sha256(content).hexdigest()


def read_signatures(files: Container) -> Signatures | None:
    """What lies in `bundle.sig`, not checked; None where there is none.

    Raises:
        BundleError: it is damaged, or a link.
    """
    where = files.where(SIGNATURES)
    if not files.has(SIGNATURES):
        return None
    content = files.read(SIGNATURES, MAX_SIGNATURE_BYTES)
    try:
        plain: Any = json.loads(content.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise BundleError("is no file of signatures, or damaged", where=where) from error
    found = validated(Signatures, plain, where, "signatures")
    keys = [one.key for one in found.signatures]
    if len(set(keys)) < len(keys) or found.content() != content:
        raise BundleError(
            "is not as `anysense bundle sign` writes it", where=where, hint="sign it again"
        )
    return found


def check_signatures(files: Container, identity: bytes, trust: str | Path | None = None) -> Seal:
    """Have a trusted key's signature on a bundle, before anything in it is interpreted.

    Args:
        files: the bundle's.
        identity: the bytes of its `bundle.yaml`.
        trust: as for `trusted_keys`.

    Raises:
        BundleError: it is not signed by a trusted key, or a trusted key's signature is of something else.
        ConfigError: the trust store cannot be used.
        MissingDependencyError: `cryptography` is not installed.
    """
    keys = {key.id: key for key in reversed(trusted_keys(trust))}
    where, found = str(files.path), read_signatures(files)
    if found is None:
        raise BundleError("is not signed", where=where, hint="anysense bundle sign, or its maker")
    if found.bundle != hashlib.sha256(identity).hexdigest():
        raise BundleError(f"{SIGNATURES} is of another {MANIFEST}", where=where, hint=_CHANGED)
    message = found.message(identity)
    signers, fitting = [], set()
    for one in found.signatures:
        key = keys.get(one.key)
        if key is None:
            continue
        if not key.signed(bytes.fromhex(one.signature), message):
            raise BundleError(
                f"the signature of '{key.name}' does not fit", where=where, hint=_CHANGED
            )
        signers.append(key.name)
        fitting.add(key.id)
    if not signers:
        known = ", ".join(f"{key.name} ({key.id[:8]})" for key in list(keys.values())[:5])
        by = ", ".join(one.key[:8] for one in found.signatures[:5]) or "nobody"
        raise BundleError(
            f"is signed by no key that is trusted, but by {by}",
            where=where,
            hint=f"trusted: {known}",
        )
    return Seal(tuple(signers), found.also, frozenset(fitting))


_CHANGED = "it was changed after it was signed"


def left_aside(name: str) -> bool:
    """Whether a file may lie in a signed bundle that nobody signed: a plan, or the lock of who builds one.

    Plans are run only where they are covered, or this machine built them.
    """
    folder, _, file = name.rpartition("/")
    return folder == PLANS and file.endswith((PLAN, ".lock"))


def check_covered(files: Container, seal: Seal, listed: Collection[str]) -> None:
    """Refuse a signed bundle with files that the signature does not cover, or covers and are not as signed.

    Args:
        files: the bundle's.
        seal: what was signed.
        listed: the files that `bundle.yaml` lists.

    Raises:
        BundleError: names the first such file.
    """
    known = {MANIFEST, SIGNATURES, *listed, *seal.also}
    for name in files.everything():
        if name not in known and not left_aside(name):
            raise BundleError(
                "is not covered by the signature",
                where=files.where(name),
                hint="remove it, or sign the bundle again",
            )
    for name, digest in seal.also.items():
        if hashlib.sha256(files.read(name, MAX_ARCHIVE_BYTES)).hexdigest() != digest:
            raise BundleError("was changed after it was signed", where=files.where(name))


def sign(
    folder: Path, also: Collection[str], key: Ed25519PrivateKey, name: str
) -> tuple[PublicKey, int]:
    """Sign the bundle in a folder, whose files have been checked.

    Args:
        folder: the bundle's.
        also: what the signature is to cover beside the files that `bundle.yaml` lists.
        key: to sign with.
        name: of the key.

    Returns:
        The key, and how many signatures there are now; those of what the bundle was before are gone.

    Raises:
        BundleError: a file cannot be read or written.
    """
    files = Folder(folder, BundleError)
    identity = files.read(MANIFEST, MAX_TEXT_BYTES)
    covered = {
        n: hashlib.sha256(files.read(n, MAX_ARCHIVE_BYTES)).hexdigest() for n in sorted(also)
    }
    new = Signatures(bundle=hashlib.sha256(identity).hexdigest(), also=covered)
    try:
        old = read_signatures(files)
    except BundleError:  # it is damaged, which is why the bundle is signed anew
        old = None
    public = public_of(key, name)
    kept: list[Signature] = []
    if old is not None and (old.bundle, dict(old.also)) == (new.bundle, dict(new.also)):
        kept = [one for one in old.signatures if one.key != public.id]
    own = Signature(key=public.id, signature=key.sign(new.message(identity)).hex())
    ordered = tuple(sorted([*kept, own], key=lambda s: s.key))
    whole = new.model_copy(update={"signatures": ordered})
    write_bytes(folder / SIGNATURES, whole.content(), error=BundleError)
    return public, len(ordered)
