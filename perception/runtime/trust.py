"""Whose bundles are trusted: Ed25519 keys, the folder of trusted ones, and where signatures are asked for.

Keys are PEM files as OpenSSL writes them: PKCS #8, and `SubjectPublicKeyInfo` in `<name>.pub`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import ConfigError
from perception.extras import require
from perception.files.limits import MAX_KEY_BYTES, MAX_KEYS
from perception.files.listing import visible_files
from perception.files.private import changeable_by_others, write_new
from perception.files.text import read_bytes

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REQUIRE_VARIABLE = "ANYSENSE_REQUIRE_SIGNATURE"
STORE_VARIABLE = "ANYSENSE_TRUST"
PASSPHRASE_VARIABLE = "ANYSENSE_KEY_PASSPHRASE"
PUBLIC = ".pub"


def signature_required(asked: bool = False, trust: str | Path | None = None) -> bool:
    """Whether unsigned bundles are refused: somebody asks, says whom to trust, or the environment asks.

    What `$ANYSENSE_REQUIRE_SIGNATURE` demands no argument takes back.
    """
    return asked or trust is not None or os.environ.get(REQUIRE_VARIABLE, "") not in ("", "0")


@contextmanager
def demanded(require_signature: bool, store: Path | None) -> Iterator[None]:
    """Within, this process and those that it starts refuse unsigned bundles, and trust this store."""
    asked = require_signature or store is not None
    wanted = {REQUIRE_VARIABLE: "1"} if asked else {}
    wanted |= {STORE_VARIABLE: str(store)} if store is not None else {}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def demands() -> dict[str, str]:
    """What this process' environment says of signatures, for processes that do not inherit it."""
    store = os.environ.get(STORE_VARIABLE)
    asked = {REQUIRE_VARIABLE: "1"} if signature_required() else {}
    return asked | ({STORE_VARIABLE: str(Path(store).absolute())} if store else {})


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked with.

    Attributes:
        name: of its file, without `.pub`.
        raw: its 32 bytes.
    """

    name: str
    raw: bytes

    @property
    def id(self) -> str:
        """What it is called in a bundle: the first 32 hexadecimal digits of SHA-256 of its bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:32]

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's, of exactly this message."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


def trust_store() -> Path:
    """The folder of trusted keys: `$ANYSENSE_TRUST`, or `anysense/trust` in the user's configuration.

    Raises:
        ConfigError: there is no home folder.
    """
    own = os.environ.get(STORE_VARIABLE)
    if own:
        return Path(own)
    base = os.environ.get("XDG_CONFIG_HOME")
    if base and Path(base).is_absolute():
        return Path(base) / "anysense" / "trust"
    try:
        return Path.home() / ".config" / "anysense" / "trust"
    except RuntimeError as error:
        raise ConfigError(
            "there is no home folder to have one in", where="trust store", hint=_ELSEWHERE
        ) from error


_ELSEWHERE = f"{STORE_VARIABLE} or --trust-store names a folder"


def trusted_keys(trust: str | Path | None = None) -> list[PublicKey]:
    """The keys of a trust store, sorted by name.

    Args:
        trust: a folder with a `.pub` file for each key, or one such file; None for `trust_store`.

    Raises:
        ConfigError: there is none, it is empty, others could change it, or a file in it is no key.
        MissingDependencyError: `cryptography` is not installed.
    """
    require("a signature", "cryptography")
    if not (trust is None or isinstance(trust, str | Path)):
        what = f"a folder or a file is wanted, not {type(trust).__name__}"
        raise ConfigError(what, where="trust", hint=_ELSEWHERE)
    place = trust_store() if trust is None else Path(trust)
    if not _exists(place):
        raise ConfigError(
            "there is no such trust store",
            where=str(place),
            hint=f"a folder with the .pub file of each key that is trusted; {_ELSEWHERE}",
        )
    _refuse_open(place)
    if not place.is_dir():
        return [read_public(place)]
    files = [p for p in visible_files(place, error=ConfigError) if p.suffix == PUBLIC]
    if not files:
        raise ConfigError(f"holds no key (*{PUBLIC})", where=str(place))
    if len(files) > MAX_KEYS:
        raise ConfigError(f"more than {MAX_KEYS} keys", where=str(place))
    for file in files:
        _refuse_open(file)
    return [read_public(file) for file in files]


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a null byte
        return False


def _refuse_open(place: Path) -> None:
    """Refuse what others could put their own key into."""
    try:
        reason = changeable_by_others(place)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(place)) from error
    if reason:
        raise ConfigError(
            f"is not to be trusted: {reason}",
            where=str(place),
            hint="chown and chmod go-w, or take another place",
        )


def read_public(path: Path) -> PublicKey:
    """The public key in a file.

    Raises:
        ConfigError: the file is missing, or holds no public Ed25519 key.
        MissingDependencyError: `cryptography` is not installed.
    """
    require("a signature", "cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = read_bytes(path, limit=MAX_KEY_BYTES, error=ConfigError)
    if b"PRIVATE KEY" in content:
        raise ConfigError(
            "is a private key", where=str(path), hint=f"give the public one, {path.name}{PUBLIC}"
        )
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("is no public key in PEM", where=str(path), hint=_KEYGEN) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError("is no Ed25519 key", where=str(path), hint=_KEYGEN)
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PublicKey(path.name.removesuffix(PUBLIC), raw)


_KEYGEN = "anysense bundle keygen makes a pair"


def read_private(path: Path, passphrase: bytes | None = None) -> Ed25519PrivateKey:
    """The private key in a file.

    Args:
        path: the file.
        passphrase: what it is encrypted with, if it is.

    Raises:
        ConfigError: the file is missing, holds no private Ed25519 key, or the passphrase is not its own.
        MissingDependencyError: `cryptography` is not installed.
    """
    require("a signature", "cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = read_bytes(path, limit=MAX_KEY_BYTES, error=ConfigError)
    if b"PRIVATE KEY" not in content:
        raise ConfigError("is no private key in PEM", where=str(path), hint=_KEYGEN)
    secret = passphrase if is_encrypted(content) else None
    if is_encrypted(content) and not passphrase:
        raise ConfigError(
            "is encrypted", where=str(path), hint=f"{PASSPHRASE_VARIABLE} holds its passphrase"
        )
    try:
        key: Any = serialization.load_pem_private_key(content, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        what = "the passphrase is not its own, or it is damaged" if secret else "is damaged"
        raise ConfigError(what, where=str(path)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("is no Ed25519 key", where=str(path), hint=_KEYGEN)
    return key


def is_encrypted(content: bytes) -> bool:
    """Whether a PEM file asks for a passphrase."""
    return b"ENCRYPTED" in content


def public_of(key: Ed25519PrivateKey, name: str) -> PublicKey:
    """The public key of a private one."""
    from cryptography.hazmat.primitives import serialization

    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return PublicKey(name, raw)


def make_keys(path: Path, passphrase: bytes | None = None) -> PublicKey:
    """Write a new private key, which nobody else can read, and beside it `<path>.pub`.

    Args:
        path: of the private key.
        passphrase: to encrypt it with; None for none.

    Raises:
        ConfigError: one of the files is there already, or cannot be written.
        MissingDependencyError: `cryptography` is not installed.
    """
    require("a signature", "cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public_path = path.with_name(path.name + PUBLIC)
    if os.path.lexists(public_path):
        raise ConfigError("is there already, and is not overwritten", where=str(public_path))
    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase)
        if passphrase
        else serialization.NoEncryption()
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_new(path, key.private_bytes(pem, pkcs8, encryption), error=ConfigError)
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    write_new(public_path, key.public_key().public_bytes(pem, info), mode=0o644, error=ConfigError)
    return public_of(key, path.name)
