"""Signing a bundle: what is checked before, and what the signature covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perception.errors import BundleError
from perception.runtime.bundle import Bundle
from perception.runtime.engines.plans import all_plans, verify_plans
from perception.runtime.records import MANIFEST, RECORDS
from perception.runtime.signatures import SIGNATURES, left_aside, sign
from perception.runtime.trust import PublicKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


@dataclass(frozen=True)
class Signed:
    """What was done.

    Attributes:
        key: that signed.
        files: how many files the signature covers, `bundle.yaml` too.
        signatures: how many there are now.
    """

    key: PublicKey
    files: int
    signatures: int


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey, name: str) -> Signed:
    """Write a signature of a bundle's folder beside its `bundle.yaml`.

    It covers all files that `bundle.yaml` lists, `records.yaml`, and the plans that are there.

    Args:
        bundle: the bundle.
        key: to sign with.
        name: of the key.

    Raises:
        BundleError: it is a zip, damaged, or holds files that nothing lists: where signatures are asked
            for it would be refused.
        EngineError: a plan in it is damaged or stale.
    """
    if not bundle.is_folder:
        raise BundleError(
            "is a zip", where=str(bundle.path), hint="sign the folder, then zip it with bundle.sig"
        )
    bundle.verify()
    verify_plans(bundle)
    also = [plan.name for plan in all_plans(bundle)]
    also += [RECORDS] if bundle.files.has(RECORDS) else []
    known = {MANIFEST, SIGNATURES, *bundle.manifest.files, *also}
    for other in bundle.files.everything():
        if other not in known and not left_aside(other):
            raise BundleError(
                f"is not listed in {MANIFEST}", where=bundle.files.where(other), hint="remove it"
            )
    public, count = sign(bundle.path, also, key, name)
    return Signed(public, 1 + len(bundle.manifest.files) + len(also), count)
