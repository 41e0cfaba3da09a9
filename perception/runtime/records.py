"""`records.yaml`: what was measured of a bundle, beside what the bundle is.

It names the SHA-256 of the `bundle.yaml` that it is of, may be rewritten, and can only narrow what the
runtime chooses from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from perception.errors import BundleError
from perception.files.containers import Container, Folder
from perception.files.limits import MAX_TEXT_BYTES
from perception.files.text import decode_text, parse_yaml
from perception.files.writing import write_yaml
from perception.runtime.manifest import DIGEST, Notes, validated
from perception.runtime.schema1 import RECORDS as SCHEMA_1_FIELDS
from perception.tasks.spec import Frozen, Spec

MANIFEST, RECORDS = "bundle.yaml", "records.yaml"


class BackendRecord(Spec):
    """What was measured of a backend on labeled frames, against ONNX Runtime on the same graphs.

    Attributes:
        passed: no score fell by more than the tolerance.
        lost: the largest fall of a score over all subsets, in points (hundredths); negative when
            every score rose.
        tolerance: the fall that was allowed, in points.
        probe_error: relative error on the made-up frame of `perception.runtime.engines.probe`.
        frames: how many frames were scored.
        data: which ones.
        change: by subset and score, the change in points.
    """

    passed: bool
    lost: float
    tolerance: float
    probe_error: float = Field(ge=0, allow_inf_nan=False)
    frames: int = Field(ge=1)
    data: str = ""
    change: Frozen[str, Frozen[str, float]] = Field(default_factory=lambda: MappingProxyType({}))


class BundleRecords(Spec):
    """What was measured of a bundle.

    Attributes:
        bundle: SHA-256 of the `bundle.yaml` that this is of.
        accuracy: scores on data sets, for people and tools.
        parity: by form and subset, the largest difference of the graphs from PyTorch.
        backends: by name; one that computes in less than float32 is chosen only where it passed here.
        speed: by machine and backend, how many times as fast as the float32 bundle it was made from.
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    bundle: str = Field("0" * 64, pattern=DIGEST)
    accuracy: Notes = Field(default_factory=dict)
    parity: Frozen[str, float] = Field(default_factory=lambda: MappingProxyType({}))
    backends: Frozen[str, BackendRecord] = Field(default_factory=lambda: MappingProxyType({}))
    speed: Notes = Field(default_factory=dict)


def read_records(
    files: Container,
    identity: bytes,
    manifest: Any,
    covered: Callable[[str, bytes], bool] = lambda name, content: True,
) -> BundleRecords:
    """What was measured of a bundle: nothing, where nothing lies beside `bundle.yaml`.

    Args:
        files: the bundle's.
        identity: the bytes of its `bundle.yaml`.
        manifest: what they hold; in schema 1 the records, too.
        covered: whether a file of this name and content is one that may be read.

    Raises:
        BundleError: they are damaged, another bundle's, or not covered.
    """
    where, digest = files.where(RECORDS), hashlib.sha256(identity).hexdigest()
    if not files.has(RECORDS):
        kept = {}
        if isinstance(manifest, Mapping):
            kept = {k: manifest[k] for k in SCHEMA_1_FIELDS if k in manifest}
        content = {"schema": 1, "bundle": digest, **kept}
        return validated(BundleRecords, content, files.where(MANIFEST), "records")
    found = files.read(RECORDS, MAX_TEXT_BYTES)
    if not covered(RECORDS, found):
        raise BundleError(
            "is not what was signed", where=where, hint="remove it, or sign the bundle again"
        )
    text = decode_text(found, where=where, error=BundleError)
    content = parse_yaml(text, where=where, error=BundleError)
    records = validated(BundleRecords, content, where, "records")
    if records.bundle != digest:
        raise BundleError(
            f"is of another {MANIFEST} (SHA-256 {records.bundle[:12]}...)",
            where=where,
            hint="copy both from one place, or delete it: what it holds was measured of another bundle",
        )
    return records


def write_records(folder: Path, records: BundleRecords) -> None:
    """Write `records.yaml` of the bundle in `folder`, whole or not at all.

    Raises:
        BundleError: there is no bundle, or it cannot be written; what was there is as it was.
    """
    identity = Folder(folder, BundleError).read(MANIFEST, MAX_TEXT_BYTES)
    digest = hashlib.sha256(identity).hexdigest()
    content = records.model_copy(update={"bundle": digest}).model_dump(mode="json", by_alias=True)
    kept = {k: v for k, v in content.items() if v or k == "schema"}
    write_yaml(folder / RECORDS, kept, error=BundleError, width=100, default_flow_style=None)
