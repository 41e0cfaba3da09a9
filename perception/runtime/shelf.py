"""What bundles there are: those that are found by name, each in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perception.errors import AnySenseError
from perception.files.containers import Zip
from perception.runtime.bundle import Bundle, bundle_folders, bundles_in
from perception.runtime.engines.openvino_int8 import doubts_in
from perception.runtime.licences import CODE, may_ship
from perception.runtime.manifest import Licence
from perception.tasks.registry import judged

_TRAINERS = ", PyTorch"  # ends the name of what training itself measured, before any export


@dataclass(frozen=True)
class Entry:
    """A bundle that is found by its name.

    Attributes:
        name: by which it is found.
        path: of its folder or zip.
        problem: why it cannot be read; then nothing else is known.
        description: what it is.
        sensors: kinds by input.
        tasks: what it gives.
        size: bytes of its files; of a zip those of the file.
        scores: with all sensors, by title; fractions of 1.
        scored_on: data set and split of them.
        simulated: trained on simulated data.
        code, weights, data: licences.
        may_ship: whether a product may be shipped on it, see `runtime.licences`.
        doubts: what OpenVINO would compute wrongly of it, and what to do; empty for nothing.
    """

    name: str
    path: Path
    problem: str = ""
    description: str = ""
    sensors: Mapping[str, str] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    size: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    scored_on: str = ""
    simulated: bool = False
    code: str = CODE
    weights: str = Licence().weights
    data: str = Licence().data
    may_ship: bool = False
    doubts: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain values; licences in a table of their own."""
        plain = asdict(self) | {"path": str(self.path), "tasks": list(self.tasks)}
        licence = {what: plain.pop(what) for what in ("code", "weights", "data", "may_ship")}
        return {**plain, "licence": licence}


def entries(folders: Iterable[Path] | None = None) -> list[Entry]:
    """All bundles in these folders, by default those of `find_bundle`; of two of one name, the first."""
    found = bundles_in(bundle_folders() if folders is None else folders)
    return [_entry(name, path) for name, path in found.items()]


def _entry(name: str, path: Path) -> Entry:
    try:
        bundle = Bundle.open(path, verify=False)
        manifest = bundle.manifest
        names = ["bundle.yaml", *manifest.files]
        zipped = isinstance(bundle.files, Zip)
        size = path.stat().st_size if zipped else sum(bundle.files.size(n) for n in names)
        scored_on, scores = headline(bundle.records.accuracy, judged(manifest.tasks))
        doubts = doubts_in(bundle)
    except (AnySenseError, OSError) as error:
        return Entry(name, path, problem=str(error))
    return Entry(
        name,
        path,
        description=manifest.description,
        sensors=dict(manifest.inputs.kinds),
        tasks=tuple(manifest.tasks),
        size=size,
        scores=scores,
        scored_on=scored_on,
        simulated=manifest.simulated,
        weights=manifest.licence.weights,
        data=manifest.licence.data,
        may_ship=may_ship(manifest.licence),
        doubts=doubts,
    )


def headline(
    accuracy: Mapping[str, Any], titles: Mapping[str, str]
) -> tuple[str, dict[str, float]]:
    """The scores to name a bundle by: most sensors, most tasks, of the runtime rather than of training.

    Args:
        accuracy: that of its records, which may hold anything.
        titles: of scores that count.

    Returns:
        What they were measured on, and the scores by title; nothing where there are none.
    """
    best: tuple[str, dict[str, float]] = ("", {})
    for name in sorted(accuracy, key=lambda n: n.endswith(_TRAINERS)):  # keeps the order otherwise
        content = accuracy[name]
        subsets = content.get("subsets") if isinstance(content, Mapping) else None
        if not isinstance(subsets, Mapping) or not subsets:
            continue
        most = subsets[max(subsets, key=lambda subset: str(subset).count("+"))]
        values = most if isinstance(most, Mapping) else {}
        found = {
            title: float(values[score])
            for score, title in titles.items()
            if isinstance(values.get(score), int | float)
        }
        if len(found) > len(best[1]):
            best = name, found
    return best
