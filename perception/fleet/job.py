"""The file of a job: which recordings, what is done with them, and where the results go."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from perception.errors import ConfigError
from perception.files.fields import check_fields
from perception.files.text import read_bytes, read_yaml
from perception.geometry.rig import load_rig

SCHEMA = 1
FORMAT = 1
"""Of what a chunk leaves: another number, and nothing that was done before counts."""

_SECRET = re.compile("secret|password|token|^key$|credential", re.IGNORECASE)


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Workers(_Fields):
    """How many workers there are, and what each has of a machine.

    Attributes:
        count: of workers; on Ray as many as fit, at most so many.
        cpus: of each, and the threads of its engines.
        gpus: of each; a part of one where several share it.
        limit_s: a chunk that takes longer has failed (Ray only).
        copies_gb: 10^9 bytes that copies of recordings from elsewhere may take on a machine; None for nine
            tenths of what its disk can take.
    """

    count: int = Field(1, ge=1, le=100_000)
    cpus: int = Field(1, ge=1, le=1024)
    gpus: float = Field(0.0, ge=0, le=64, allow_inf_nan=False)
    limit_s: float = Field(3600.0, gt=0, le=1e7, allow_inf_nan=False)
    copies_gb: float | None = Field(None, gt=0, le=1e9, allow_inf_nan=False)


class Disagreement(_Fields):
    """Two sets of sensors, and the share of pixels from which on their labels differ too much."""

    between: tuple[tuple[str, ...], tuple[str, ...]]
    above: float = Field(0.3, ge=0, le=1)

    @field_validator("between", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        """`[rgb, thermal]` is as good as `[[rgb], [thermal]]`, and so is `rgb+depth`."""
        if not isinstance(value, list | tuple):
            return value
        return [v.split("+") if isinstance(v, str) else v for v in value]


class Keep(_Fields):
    """Which frames are kept as recordings that can be labelled.

    Attributes:
        degraded: those in a state other than `full`.
        misaligned: those with a sensor that does not fit the rig any more; watched for this.
        novelty: those of which a sensor is further from training than this; 1 is the edge of what is known.
        low_confidence: those whose mean confidence is below this.
        disagreement: those that two sets of sensors see differently.
        per_class: so many of each class, of which the class is least certain.
        least_share: of the pixels of a frame, that a class must have to count as seen.
        every_s: of the same reason, at least so far apart in one recording.
        most: of each reason in the whole job, those that show it most.
    """

    degraded: bool = False
    misaligned: bool = False
    novelty: float | None = Field(None, ge=0, le=1e6)
    low_confidence: float | None = Field(None, ge=0, le=1)
    disagreement: Disagreement | None = None
    per_class: int = Field(0, ge=0, le=100_000)
    least_share: float = Field(0.005, ge=0, le=1)
    every_s: float = Field(1.0, ge=0, le=1e6)
    most: int = Field(1000, ge=1, le=1_000_000)


class Trials(_Fields):
    """What `task: robustness` tries, as the options of `anysense robustness`."""

    frames: int | None = Field(40, ge=1)
    methods: tuple[str, ...] = ("leave-out",)
    corruptions: tuple[str, ...] | None = None
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    seed: int = Field(0, ge=0, le=2**32 - 1)


class Job(_Fields):
    """What is asked for; see docs/fleet.md.

    Attributes:
        schema_version: of this file.
        task: `label`, `evaluate`, `robustness` or `encode`.
        bundle: folder, zip or name; of `encode` none.
        recordings: bags or `KIND:DIR`, with `*`; here or at `s3://...` and the like; one may stand alone.
        out: folder for the results, here or there.
        chunk_s: of a recording, that one worker takes at a time.
        warm_up_s: what is played before each chunk; at least as long as a stream remembers.
        identity: what tells that a recording is the same: its `content`, or its size and time (`stat`).
        topics, inputs, rig: as `anysense replay` takes them.
        align: `off` takes pictures as they are.
        files: whether labels and boxes are also written as files.
        encode: into which format `task: encode` brings recordings.
        subsets: `all` or `full`, what `task: evaluate` judges.
        storage: options of fsspec by protocol, such as `{s3: {endpoint_url: ...}}`; credentials come from the
            environment.
    """

    schema_version: int = Field(SCHEMA, alias="schema")
    task: Literal["label", "evaluate", "robustness", "encode"] = "label"
    bundle: str = ""
    recordings: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    out: str = Field(min_length=1)
    chunk_s: float = Field(60.0, ge=0.1, le=86_400, allow_inf_nan=False)
    warm_up_s: float = Field(0.0, ge=0, le=3600, allow_inf_nan=False)
    identity: Literal["content", "stat"] = "content"
    device: str = "cpu"
    topics: dict[str, str] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    rig: str = ""
    align: Literal["auto", "off"] = "auto"
    files: bool = True
    encode: Literal["folder", "mcap"] = "folder"
    subsets: Literal["all", "full"] = "full"
    robustness: Trials = Field(default_factory=Trials)
    keep: Keep | None = None
    workers: Workers = Field(default_factory=Workers)
    storage: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("schema_version")
    @classmethod
    def _known(cls, value: int) -> int:
        if value != SCHEMA:
            raise ValueError(f"is {value}, this AnySense reads {SCHEMA}")
        return value

    @field_validator("recordings", mode="before")
    @classmethod
    def _one_alone(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("storage")
    @classmethod
    def _no_secrets(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for protocol, options in value.items():
            for name in options:
                if _SECRET.search(name):
                    raise ValueError(
                        f"{protocol}.{name} is a secret, which comes from the environment and not from a file"
                    )
        return value

    @property
    def answers(self) -> dict[str, Any]:
        """What decides what comes out of a chunk, as plain values: not who works on it, nor what is kept.

        Of a rig it is what the file says, wherever it lies.

        Raises:
            ConfigError: that cannot be read.
        """
        plain = self.model_dump(mode="json", by_alias=True)
        aside = ("recordings", "out", "workers", "storage", "identity", "bundle", "keep")
        kept = {name: value for name, value in plain.items() if name not in aside}
        if self.rig:
            content = read_bytes(self.rig, error=ConfigError)
            kept["rig"] = hashlib.sha256(content).hexdigest()
        watched = self.keep
        kept["watched"] = None if watched is None else watched.misaligned
        pairs = None if watched is None else watched.disagreement
        kept["compared"] = None if pairs is None else pairs.between
        return kept


def digest(content: Any) -> str:
    """SHA-256 of plain values, in hexadecimal."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_job(path: Path) -> Job:
    """Read the file of a job; places in it that are relative are relative to it.

    Raises:
        ConfigError: it is missing, or a field is wrong.
        CalibrationError: its rig cannot be read.
    """
    where = str(path)
    job = check_fields(Job, read_yaml(path, error=ConfigError), where=where, error=ConfigError)
    if job.task == "encode":
        if job.bundle:
            raise ConfigError("encode takes no bundle", where=f"{where}: bundle")
    elif not job.bundle:
        raise ConfigError(f"{job.task} needs one", where=f"{where}: bundle")
    if job.keep is not None and job.task != "label":
        raise ConfigError("goes with task: label", where=f"{where}: keep")
    base = path.resolve().parent
    bundle, rig = job.bundle, job.rig
    if rig:
        load_rig(base / rig)  # before anybody works with it
    if bundle and (base / bundle).exists():
        bundle = str(base / bundle)
    return job.model_copy(
        update={
            "bundle": bundle,
            "rig": str(base / rig) if rig else "",
            "out": _beside(base, job.out),
            "recordings": tuple(_recording(base, text) for text in job.recordings),
        }
    )


def _beside(base: Path, place: str) -> str:
    return place if "://" in place else os.path.normpath(base / Path(place).expanduser())


def _recording(base: Path, text: str) -> str:
    kind, place = kind_and_place(_beside(base, text) if (base / text).exists() else text)
    return f"{kind}:{_beside(base, place)}" if kind else _beside(base, place)


def kind_and_place(text: str) -> tuple[str, str]:
    """A recording's kind, nothing for bags, and where it is; times in names of bags have colons, too."""
    kind, colon, place = text.partition(":")
    if not colon or place.startswith("//") or "/" in kind.partition(",")[0]:
        return "", text
    return kind, place
