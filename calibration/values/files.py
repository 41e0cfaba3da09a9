"""The file of what values are worth, by sensor: YAML, with maps of pixels in an .npz beside it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from calibration.values.correction import BAD, Correction, Curve, PixelMaps
from perception.errors import AnySenseError, CalibrationError, names_hint
from perception.files.arrays import parse_npz
from perception.files.fields import check_fields
from perception.files.limits import MAX_ARRAY_BYTES
from perception.files.text import read_bytes, read_yaml
from perception.files.writing import write_bytes, write_yaml
from perception.frame import check_name
from perception.sensors.names import has_picture, is_kind

SCHEMA = 1
_ARRAYS = ("gain", "offset", "bad")


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Metres(_Fields):
    """Depth: true metres are a polynomial in seen ones, the constant first."""

    coefficients: tuple[float, ...] = Field(min_length=2, max_length=4)
    sigma: tuple[float, ...] = ()
    range_m: tuple[float, float]
    held_out_rms_m: float = 0.0


class Kelvin(_Fields):
    """Counts to kelvin, see `Curve`."""

    model: str
    parameters: dict[str, float]
    counts: tuple[float, float]
    sigma_k: float = 0.0
    held_out_rms_k: float = 0.0


class Pixels(_Fields):
    """Maps of pixels: an archive beside the file, and its SHA-256."""

    file: str
    sha256: str


class SensorValues(_Fields):
    """What is known of one sensor."""

    kind: str
    size: tuple[int, int] | None = None
    metres: Metres | None = None
    kelvin: Kelvin | None = None
    pixels: Pixels | None = None
    date: str = ""
    source: str = ""


class ValuesFile(_Fields):
    """The whole file."""

    schema_: Literal[1] = Field(alias="schema")
    sensors: dict[str, SensorValues]


@dataclass(frozen=True)
class Entry:
    """A sensor's entry with its maps, to be written."""

    values: SensorValues
    maps: PixelMaps | None = None


def read_values(path: Path) -> dict[str, SensorValues]:
    """The entries of a file by sensor, without their maps.

    Raises:
        CalibrationError: it is missing, damaged, or of a newer schema.
    """
    raw = read_yaml(path, error=CalibrationError)
    found = check_fields(ValuesFile, raw, where=str(path), error=CalibrationError)
    for name, own in found.sensors.items():
        check_name(name, str(path))
        if not (is_kind(own.kind) and has_picture(own.kind)):
            raise CalibrationError(f"no kind '{own.kind}'", where=f"{path}: sensors.{name}")
        if own.pixels is not None and Path(own.pixels.file).name != own.pixels.file:
            raise CalibrationError(
                f"'{own.pixels.file}' is no name of a file beside it",
                where=f"{path}: sensors.{name}",
            )
    return found.sensors


def load_correction(path: Path, sensor: str = "") -> Correction:
    """What is to be applied to a sensor's samples.

    Args:
        path: the file.
        sensor: its name; may be empty where the file has one alone.

    Raises:
        CalibrationError: the file or its maps are missing or damaged, or it has no such sensor.
    """
    known = read_values(path)
    if not sensor and len(known) == 1:
        sensor = next(iter(known))
    if sensor not in known:
        raise CalibrationError(
            f"no values of '{sensor}'" if sensor else "has several sensors",
            where=str(path),
            hint=names_hint(sensor, sorted(known)),
        )
    own = known[sensor]
    try:
        curve = (
            None
            if own.kelvin is None
            else Curve(own.kelvin.model, own.kelvin.parameters, own.kelvin.counts)
        )
        maps = (
            None if own.pixels is None else _maps(path.parent / own.pixels.file, own.pixels.sha256)
        )
    except AnySenseError as error:
        raise CalibrationError(
            error.message, where=error.where or f"{path}: sensors.{sensor}", hint=error.hint
        ) from error
    metres = own.metres
    return Correction(
        own.kind,
        own.size,
        () if metres is None else metres.coefficients,
        (0.0, float("inf")) if metres is None else metres.range_m,
        curve,
        maps,
    )


def _maps(path: Path, sha256: str) -> PixelMaps:
    content = read_bytes(path, limit=MAX_ARRAY_BYTES, error=CalibrationError)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CalibrationError(
            "is not the archive that the values were written with",
            where=str(path),
            hint="calibrate again, or copy both files",
        )
    found = parse_npz(content, _ARRAYS, where=str(path), error=CalibrationError)
    if (
        len(found) < len(_ARRAYS)
        or found["bad"].dtype != np.uint8
        or found["bad"].max(initial=0) > max(BAD)
    ):
        raise CalibrationError("holds no maps of pixels", where=str(path))
    gain, offset = (found[name].astype(np.float32) for name in _ARRAYS[:2])
    return PixelMaps(gain, offset, found["bad"])


def write_values(path: Path, entries: Mapping[str, Entry]) -> None:
    """Write sensors' entries; others of a file that exists stay.

    Raises:
        CalibrationError: what exists is no such file, or it cannot be written.
    """
    known = dict(read_values(path)) if path.exists() else {}
    for name, entry in entries.items():
        own = entry.values
        if entry.maps is not None:
            content = io.BytesIO()
            maps = entry.maps
            np.savez_compressed(content, gain=maps.gain, offset=maps.offset, bad=maps.bad)
            beside = path.with_name(f"{path.stem}.{name}.npz")
            write_bytes(beside, content.getvalue(), error=CalibrationError)
            digest = hashlib.sha256(content.getvalue()).hexdigest()
            own = own.model_copy(update={"pixels": Pixels(file=beside.name, sha256=digest)})
        known[name] = own
    write_yaml(path, {"schema": SCHEMA, "sensors": {n: _plain(v) for n, v in known.items()}})


def _plain(own: SensorValues) -> dict[str, Any]:
    plain: dict[str, Any] = own.model_dump(mode="json", exclude_defaults=True)
    return plain
