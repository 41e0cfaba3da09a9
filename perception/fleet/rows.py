"""What comes out of a chunk, as rows of Parquet: one for each output, score or trial."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import DataError
from perception.extras import require
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result
from perception.tasks.boxes2d import BOXES2D
from perception.tasks.segmentation import SEGMENTATION

if TYPE_CHECKING:
    import pyarrow

Row = dict[str, Any]

LOW = 0.5
"""Confidence below which a pixel counts in `low_share`."""

_MOST_COUNTED = 1 << 24
"""What OpenCV counts in float32, exactly up to here."""


def schema_of(task: str) -> pyarrow.Schema:
    """The columns of a task's rows; docs/fleet.md says what they mean."""
    require("a fleet", "pyarrow")
    import pyarrow as pa

    words, numbers = pa.list_(pa.string()), pa.map_(pa.string(), pa.float32())
    box = pa.struct(
        [("class", pa.string()), ("score", pa.float32()), ("confidence", pa.float32())]
        + [(side, pa.float32()) for side in ("x0", "y0", "x1", "y1")]
    )
    columns: dict[str, list[tuple[str, Any]]] = {
        "label": [
            ("recording", pa.string()),
            ("frame", pa.string()),
            ("stamp_ns", pa.int64()),
            ("state", pa.string()),
            ("used", words),
            ("present", words),
            ("health", pa.map_(pa.string(), pa.string())),
            ("ages_ms", pa.map_(pa.string(), pa.float64())),
            ("confidence", pa.float32()),
            ("low_share", pa.float32()),
            ("shares", numbers),
            ("class_confidence", numbers),
            ("boxes", pa.list_(box)),
            ("novelty", numbers),
            ("disagreement", pa.float32()),
        ],
        "evaluate": [
            ("recording", pa.string()),
            ("subset", pa.string()),
            ("class", pa.string()),
            ("score", pa.string()),
            ("value", pa.float64()),
            ("frames", pa.int64()),
            ("judged", pa.int64()),
        ],
        "robustness": [
            ("recording", pa.string()),
            ("method", pa.string()),
            ("trial", pa.string()),
            ("score", pa.string()),
            ("value", pa.float64()),
            ("clean", pa.float64()),
            ("frames", pa.int64()),
        ],
    }
    return pa.schema(columns.get(task, [("recording", pa.string()), ("frames", pa.int64())]))


def parquet_of(task: str, rows: Sequence[Row]) -> bytes:
    """Rows as a Parquet file; the same rows give the same bytes."""
    require("a fleet", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = schema_of(task)
    plain = [{n: _pairs(v) for n, v in row.items()} for row in rows]
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(plain, schema), content, compression="zstd")
    return content.getvalue()


def _pairs(value: Any) -> Any:
    return list(value.items()) if isinstance(value, Mapping) else value


def rows_of(content: bytes, where: str, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of a Parquet file of ours; maps are lists of pairs.

    Raises:
        DataError: it is none, or lacks a column.
    """
    require("a fleet", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(content), columns=columns and list(columns))
        if columns is not None and table.column_names != list(columns):
            missing = next(name for name in columns if name not in table.column_names)
            raise DataError(f"has no column {missing}", where=where)
        found: list[Row] = table.to_pylist()
        return found
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"is no Parquet file: {error}",
            where=where,
            hint="remove it, and its chunk is done again",
        ) from error


def label_row(
    recording: str, frame: str, result: Result, manifest: BundleManifest, differ: float | None
) -> Row:
    """The row of a result: nothing of how long it took, so that it is the same wherever it is made.

    Args:
        recording: its name.
        frame: the name of its files.
        result: what came out.
        manifest: of the bundle.
        differ: the share of pixels that two sets of sensors label otherwise; None where that was not asked.
    """
    return {
        "recording": recording,
        "frame": frame,
        "stamp_ns": result.output_ns,
        "state": result.state,
        "used": list(result.used),
        "present": list(result.present),
        "health": dict(result.health),
        "ages_ms": {m: age / 1e6 for m, age in result.ages_ns.items()},
        **_pixels(result, manifest),
        "boxes": _boxes(result, manifest),
        "novelty": {m: float(v) for m, v in result.novelty.items() if math.isfinite(v)},
        "disagreement": differ,
    }


def _pixels(result: Result, manifest: BundleManifest) -> Row:
    labels, confidence = result.labels, result.confidence
    empty: Row = {"confidence": None, "low_share": None, "shares": {}, "class_confidence": {}}
    spec = manifest.tasks.every.get(SEGMENTATION.name)
    if labels is None or spec is None or not labels.size:
        return empty
    size = labels.size
    counts = _counts(labels)
    shares = {c.name: counts[c.id] / size for c in spec.labels if counts[c.id]}
    if confidence is None:
        return {**empty, "shares": shares}
    sums = np.bincount(labels.reshape(-1), weights=confidence.reshape(-1), minlength=256)
    means = {c.name: sums[c.id] / counts[c.id] for c in spec.labels if counts[c.id]}
    return {
        "confidence": float(sums.sum()) / size,
        "low_share": cv2.countNonZero(cv2.compare(confidence, LOW, cv2.CMP_LT)) / size,
        "shares": shares,
        "class_confidence": means,
    }


def _counts(labels: NDArray[np.uint8]) -> list[int]:
    """How often each of 256 labels is there; OpenCV counts them while other threads go on."""
    if labels.size > _MOST_COUNTED:
        return np.bincount(labels.reshape(-1), minlength=256).tolist()
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256])
    found: list[int] = counts.reshape(-1).astype(int).tolist()  # a column, or not, by version
    return found


def _boxes(result: Result, manifest: BundleManifest) -> list[Row]:
    found, spec = result.boxes, manifest.tasks.every.get(BOXES2D.name)
    if found is None or spec is None:
        return []
    names = [c.name for c in spec.labels]
    sure = found.scores if found.confidence is None else found.confidence
    return [
        {
            "class": names[int(kind)],
            "score": float(score),
            "confidence": float(confidence),
            **{k: float(v) for k, v in zip(("x0", "y0", "x1", "y1"), xyxy, strict=True)},
        }
        for xyxy, kind, score, confidence in zip(
            found.xyxy, found.class_ids, found.scores, sure, strict=True
        )
    ]
