"""`anysense bundle keygen` and `sign`: keys, and signatures of bundles."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path

from perception.cli.arguments import give_json
from perception.cli.console import note, say
from perception.cli.parsing import Commands, add_command
from perception.errors import ConfigError
from perception.files.limits import MAX_KEY_BYTES
from perception.files.text import read_bytes
from perception.runtime.trust import PASSPHRASE_VARIABLE, PUBLIC


def add_actions(actions: Commands) -> None:
    """Register the actions."""
    keygen = add_command(
        actions,
        "keygen",
        "make a pair of Ed25519 keys to sign bundles with",
        more=f"The private key is FILE, for its owner alone; the public one is FILE{PUBLIC}, and belongs "
        "into the trust store of every robot. Neither is ever overwritten.",
        example="anysense bundle keygen release.key",
    )
    keygen.add_argument("key", type=Path, metavar="FILE", help="of the private key")
    keygen.add_argument(
        "--passphrase",
        action="store_true",
        help=f"encrypt the private key (passphrase: ${PASSPHRASE_VARIABLE}, or it is asked for)",
    )
    keygen.set_defaults(run=run_keygen)
    sign = add_command(
        actions,
        "sign",
        "sign a bundle: bundle.sig beside its bundle.yaml",
        more="All its files are checked first. Signatures of other keys on the same content stay.",
        example="anysense bundle sign bundles/mine --key release.key",
    )
    sign.add_argument("bundle", help="folder or name of a bundle")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="private key")
    sign.set_defaults(run=run_sign)


def run_keygen(args: argparse.Namespace) -> int:
    """Make keys; what is there already is an error."""
    from perception.runtime.trust import make_keys

    secret = _new_passphrase() if args.passphrase else None
    made = make_keys(args.key, secret)
    public = args.key.with_name(args.key.name + PUBLIC)
    say(f"{args.key}: private key; keep it to yourself")
    say(f"{public}: public key {made.id}; copy it into trust stores")
    give_json(args, {"private": str(args.key), "public": str(public), "key": made.id})
    return 0


def run_sign(args: argparse.Namespace) -> int:
    """Sign; a damaged bundle is an error that names the file."""
    from perception.runtime.bundle import Bundle, find_bundle
    from perception.runtime.signing import sign_bundle
    from perception.runtime.trust import is_encrypted, read_private

    content = read_bytes(args.key, limit=MAX_KEY_BYTES, error=ConfigError)
    secret = _passphrase(args.key) if is_encrypted(content) else None
    key = read_private(args.key, secret)
    if os.name == "posix" and args.key.stat().st_mode & 0o077:
        note(f"{args.key}: can be read by others (chmod 600 {args.key})")
    path = find_bundle(args.bundle)
    signed = sign_bundle(Bundle.open(path), key, args.key.name)
    by = f"key {signed.key.id[:8]}"
    say(f"{path}: {signed.files} files are signed by {by}; {signed.signatures} signatures in all")
    give_json(
        args,
        {
            "bundle": str(path),
            "key": signed.key.id,
            "files": signed.files,
            "signatures": signed.signatures,
        },
    )
    return 0


def _passphrase(path: Path) -> bytes | None:
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if not given and sys.stdin is not None and sys.stdin.isatty():
        given = getpass.getpass(f"passphrase of {path.name}: ")
    return given.encode() if given else None


def _new_passphrase() -> bytes:
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if not given and sys.stdin is not None and sys.stdin.isatty():
        given = getpass.getpass("passphrase: ")
        if getpass.getpass("once more: ") != given:
            raise ConfigError("the two are not the same", where="--passphrase")
    if not given:
        raise ConfigError(
            "there is no passphrase", where="--passphrase", hint=f"{PASSPHRASE_VARIABLE} gives one"
        )
    return given.encode()
