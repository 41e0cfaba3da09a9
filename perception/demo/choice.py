"""Which bundle fits a recording: by its sensors, its classes and what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.data.base import RecordingInfo
from perception.errors import AnySenseError, ConfigError
from perception.runtime.bundle import Bundle, bundle_folders, bundles_in
from perception.runtime.manifest import BundleManifest
from perception.tasks.matching import BACKGROUND
from perception.tasks.registry import OURS, TASKS


@dataclass(frozen=True)
class Fit:
    """How a bundle and a recording go together.

    Attributes:
        name: of the bundle's folder or file.
        path: of the bundle.
        sensors: that the bundle takes and the recording has.
        lacking: that the bundle takes and the recording has not.
        classes: names that both know, in the same task.
        labeled: how many classes the recording has.
        same_data: the bundle was trained on data of this name.
        same_world: both are simulated, or both are not.
    """

    name: str
    path: Path
    sensors: tuple[str, ...]
    lacking: tuple[str, ...]
    classes: tuple[str, ...]
    labeled: int
    same_data: bool
    same_world: bool

    @property
    def fault(self) -> str:
        """Why the bundle is no choice; empty when it is one."""
        if not self.sensors:
            return "takes none of its sensors"
        return "" if self.classes or not self.labeled else "knows none of its classes"

    @property
    def rank(self) -> tuple[int, ...]:
        """The higher, the better it fits."""
        sensors = len(self.sensors), -len(self.lacking)
        return int(self.same_data), len(self.classes), int(self.same_world), *sensors

    def described(self) -> str:
        """The choice in words."""
        words = [f"takes {', '.join(self.sensors)}"]
        if self.labeled:
            known = len(self.classes)
            some = "all" if known == self.labeled else f"{known} of"
            words.append(f"knows {some} {self.labeled} classes that are labeled")
        if self.same_data:
            words.append("was trained on data of this name")
        if not self.same_world:
            words.append("comes from the other world: simulated or real")
        return "; ".join(words)


def fit(path: Path, manifest: BundleManifest, info: RecordingInfo) -> Fit:
    """Compare a bundle with a recording."""
    shared: dict[str, None] = {}
    labeled = {c.name for task in {*OURS, *manifest.tasks} for c in TASKS[task].classes_of(info)}
    for task, spec in manifest.tasks.items():
        names = {c.name for c in spec.labels} - {BACKGROUND}
        theirs = TASKS[task].classes_of(info)
        shared |= dict.fromkeys(c.name for c in theirs if c.name in names)
    sensors = info.shared(manifest.inputs.kinds)
    trained_on = str(manifest.training.get("data", "")).split(" (")[0]
    return Fit(
        path.name,
        path,
        sensors,
        tuple(name for name in manifest.inputs if name not in sensors),
        tuple(shared),
        max(len(labeled - {BACKGROUND}), bool(labeled)),
        trained_on == info.name,
        manifest.simulated == info.simulated,
    )


def choose_bundle(info: RecordingInfo, folders: Sequence[Path] | None = None) -> list[Fit]:
    """The bundles that fit a recording equally well, and better than all others.

    Args:
        info: of the recording.
        folders: to look in; None for those of `find_bundle`.

    Raises:
        ConfigError: none fits.
    """
    fits: list[Fit] = []
    reasons: list[str] = []
    for name, path in bundles_in(bundle_folders() if folders is None else folders).items():
        try:
            one = fit(path, Bundle.open(path, verify=False).manifest, info)
        except AnySenseError:
            reasons.append(f"{name} cannot be read")
            continue
        if one.fault:
            reasons.append(f"{name} {one.fault}")
        else:
            fits.append(one)
    if not fits:
        raise ConfigError(
            f"no bundle fits this recording: {'; '.join(reasons) or 'there is none'}",
            where=info.name,
            hint="name one with --bundle",
        )
    best = max(one.rank for one in fits)
    return [one for one in fits if one.rank == best]
