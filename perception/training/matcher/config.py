"""The configuration of a matcher's training: what stands under `matcher:` in a YAML file, and beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from perception.errors import ConfigError
from perception.files.fields import check_fields

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class PairSource(_Spec):
    """Aligned pictures of two sensors: files of the same name in two folders.

    `val` and `test` are patterns of names without suffix (`FLIR_08*`); what matches neither is learned
    from, every `every`-th of it. Pictures of `a` may be turned into those of a made-up sensor, those of `b`
    are taken as they are; without `b` all the others are made up.
    """

    folder: Path
    a: str
    b: str | None = None
    val: list[str] = Field(default_factory=list)
    test: list[str] = Field(default_factory=list)
    every: int = Field(1, ge=1)
    weight: float = Field(1.0, gt=0)


class MatcherSpec(_Spec):
    """What is learned from.

    `made_up` is the share of pairs whose second picture is a made-up sensor's; corners move by up to
    `corners` of the size, and pictures turn by up to `degrees` and grow by up to `scale` (a factor).
    """

    sources: list[PairSource] = Field(min_length=1)
    crop: int = Field(160, ge=96, le=1024, multiple_of=32)
    batch: int = Field(8, ge=2, le=512)
    steps: int = Field(200, ge=1, le=100_000)
    made_up: float = Field(0.25, ge=0, le=1)
    corners: float = Field(0.15, ge=0, le=0.4)
    degrees: float = Field(25.0, ge=0, le=180)
    scale: float = Field(1.3, ge=1, le=4)
    temperature: float = Field(0.07, gt=0, le=1)


class MatcherConfig(_Spec):
    """A run: the configuration's file."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    matcher: MatcherSpec
    epochs: int = Field(20, ge=1, le=100_000)
    lr: float = Field(2e-3, gt=0, le=1)
    weight_decay: float = Field(0.01, ge=0, le=1)
    seed: int = Field(0, ge=0, lt=2**32)
    bfloat16: bool = True


def matcher_config(content: Any, where: str) -> MatcherConfig:
    """The configuration in a file's content.

    Raises:
        ConfigError: a field is wrong; it is named.
    """
    return check_fields(MatcherConfig, content, where=where, error=ConfigError)
