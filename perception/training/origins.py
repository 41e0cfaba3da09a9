"""Whose weights a run started from or was taught by: their licences hold for what it makes, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from perception.errors import DataError
from perception.runtime.bundle import Bundle
from perception.runtime.licences import may_ship, permissive
from perception.runtime.manifest import Licence
from perception.training.checkpoint import load_checkpoint
from perception.training.config import ModelSpec
from perception.training.starting import bundle_of

KEY: Final = "origins"
"""Where a checkpoint's progress has them; it lacks the key where there are none."""

_MOST: Final = 1000
"""Characters of a licence in a manifest."""


class Origin(BaseModel):
    """A bundle whose weights were taken over, or that taught, with its licence as it was then."""

    name: str
    licence: Licence
    taught: bool = False


_ORIGINS = TypeAdapter(list[Origin])


def origins_of(spec: ModelSpec, teachers: Sequence[str] = ()) -> list[Origin]:
    """The bundles that `spec.start_from` and `teachers` list, and those that the runs in these are of.

    Raises:
        AnySenseError: a bundle or a checkpoint cannot be read.
    """
    found: list[Origin] = []
    named = [(name, False) for name in spec.start_from] + [(name, True) for name in teachers]
    for name, taught in named:
        if (path := bundle_of(name)) is None:
            before = origins_in(load_checkpoint(Path(name)).progress)
            found += [o.model_copy(update={"taught": o.taught or taught}) for o in before]
        else:
            manifest = Bundle.open(path).manifest
            found.append(Origin(name=manifest.name, licence=manifest.licence, taught=taught))
    return list({origin.model_dump_json(): origin for origin in found}.values())


def origins_in(progress: Mapping[str, Any]) -> list[Origin]:
    """Those that a checkpoint's progress tells.

    Raises:
        DataError: what it tells is none.
    """
    try:
        return _ORIGINS.validate_python(progress.get(KEY, []))
    except ValidationError as error:
        raise DataError(
            "the checkpoint does not say what it started from", where=f"progress.{KEY}"
        ) from error


def told(origins: Sequence[Origin]) -> dict[str, Any]:
    """What a checkpoint's progress tells of them; nothing where there are none."""
    return {KEY: _ORIGINS.dump_python(list(origins))} if origins else {}


def weights_licence(own: str, origins: Sequence[Origin]) -> str:
    """The licence of weights: `own`, and those of the origins that a product may not ship.

    The text is then no SPDX identifier, whatever `own` is, so that nothing takes the weights for free.
    """
    text = own
    for taught, how in ((False, "started from"), (True, "taught by")):
        kept = [o for o in origins if o.taught == taught and not may_ship(o.licence)]
        if kept:
            text += f"; {how} {', '.join(f'{o.name} ({_reason(o.licence)})' for o in kept)}"
    return own if text == own else text[:_MOST]


def _reason(licence: Licence) -> str:
    if permissive(licence.weights):
        return f"trained on data: {licence.data}"
    return licence.weights
