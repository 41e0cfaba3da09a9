"""Content faults: how much of each there is, on which pixels they act, and the table that a kind has.

A fault is one function for both layers: on a sample it acts on the sensor's own pixels or points, on a
grid on those that these were brought to.  Random fields are drawn in the sensor's pixels and go the same
way to the grid as the values did, so that a seed means the same fault on either layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import ConfigError
from perception.sensors.kind import Grid, Layer

Float = NDArray[np.float32]
Rng = np.random.Generator
S = TypeVar("S", bound=np.generic)
SEVERITIES = (1, 2, 3, 4, 5)

Agreement = Literal["equal", "near", "distribution", "sample"]
"""How a fault on a sample, then resampled, agrees with the same fault on the grid, for one seed.

`equal` but for rounding; `near`, as resampling does not commute with it, but the same places are hit;
only in `distribution`; or the fault is one of samples alone.
"""


Scenario = Literal["", "missing", "noise"]
"""See `Severity.scenario`."""


def check_severity(severity: int, where: str = "fault") -> None:
    """Refuse what is no severity.

    Raises:
        ConfigError: it is not one of 1 to 5.
    """
    if isinstance(severity, bool) or severity not in SEVERITIES:
        raise ConfigError(f"severity {str(severity)[:20]} is none of 1 to 5", where=where)


@dataclass(frozen=True)
class Severity:
    """How much of a fault there is at severities 1 to 5.

    Attributes:
        amounts: at each severity.
        unit: of the amounts; SI where there is one.
        text: what happens, for people.
        source: where model and amounts come from.
        layers: how the two layers agree.
        still: the same places are hit in every frame, as by dirt; else every frame draws anew.
        training: the range that augmentation in training draws the amount from.
        scenario: what it is of its kind in benchmarks of failing sensors: `missing`, a share of the data is
            not there, the amounts being the share; `noise`, the kind's usual noise; empty for neither.
    """

    amounts: tuple[float, float, float, float, float]
    unit: str
    text: str
    source: str
    layers: Agreement = "equal"
    still: bool = False
    training: tuple[float, float] = (0.0, 0.0)
    scenario: Scenario = ""

    def at(self, severity: int) -> float:
        """The amount.

        Raises:
            ConfigError: the severity is not one of 1 to 5.
        """
        check_severity(severity)
        return self.amounts[int(severity) - 1]


def always(text: str, layers: Agreement = "equal") -> Severity:
    """A fault that is there or is not, at all severities alike."""
    amounts = (1.0, 1.0, 1.0, 1.0, 1.0)
    return Severity(amounts, "", text, "the health state of this name", layers, still=True)


@dataclass(frozen=True)
class Pixels:
    """The pixels that values lie on: the sensor's own, or what these were resampled to.

    Attributes:
        source: (height, width) in the sensor's pixels.
        here: (height, width) of the values.
    """

    source: tuple[int, int]
    here: tuple[int, int]

    @staticmethod
    def own(values: NDArray[Any]) -> Pixels:
        """Those of a picture that has not been resampled."""
        size = (values.shape[0], values.shape[1])
        return Pixels(size, size)

    @property
    def scale(self) -> tuple[float, float]:
        """Pixels here (x, y) for each of the sensor's."""
        return self.here[1] / self.source[1], self.here[0] / self.source[0]

    def field(self, values: NDArray[S], *, nearest: bool = False) -> NDArray[S]:
        """A field over the sensor's pixels, brought here as `GridMap.to_grid` brings pictures."""
        if self.source == self.here:
            return values
        shrinks = self.here[0] < self.source[0] and self.here[1] < self.source[1]
        mode = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        drawn: NDArray[Any] = values.view(np.uint8) if values.dtype == np.bool_ else values
        return cv2.resize(drawn, self.here[::-1], interpolation=mode).astype(values.dtype)

    def centers(self) -> tuple[Float, Float]:
        """x (1, W) and y (H, 1) of the centers, 0..1 across the picture."""
        height, width = self.here
        x = (np.arange(width, dtype=np.float32) + 0.5) / np.float32(width)
        y = (np.arange(height, dtype=np.float32) + 0.5) / np.float32(height)
        return x[None, :], y[:, None]


def signed(amount: float, rng: Rng) -> float:
    """The amount, up or down."""
    return amount if rng.random() < 0.5 else -amount


def streams(rng: Rng, count: int) -> list[Rng]:
    """Generators of their own: how much is drawn from one changes nothing in the others."""
    return [np.random.default_rng(int(s)) for s in rng.integers(0, 2**63, count)]


def smooth_field(size: tuple[int, int], cells: int, rng: Rng) -> Float:
    """A random field (H, W) that changes slowly: normal values on `cells` x `cells` points, between them
    interpolated."""
    lattice = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(cv2.resize(lattice, size[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def largest_share(field: Float, share: float) -> NDArray[np.bool_]:
    """Where a field has its largest values, so many that they are `share` of all."""
    if share <= 0 or not field.size:
        return np.zeros(field.shape, bool)
    return field >= np.quantile(field, 1 - min(share, 1.0))


def single_pixels(size: tuple[int, int], share: float, rng: Rng) -> NDArray[np.bool_]:
    """Pixels of a sensor (H, W), each with probability `share`."""
    drawn: NDArray[np.bool_] = rng.random(size, dtype=np.float32) < share
    return drawn


def blocks(size: tuple[int, int], share: float, rng: Rng, count: int = 12) -> NDArray[np.bool_]:
    """Rectangles that together cover about `share` of a sensor's pixels (H, W)."""
    height, width = size
    mask = np.zeros(size, bool)
    drawn = rng.random((count, 4))
    side = np.sqrt(share / 0.8 / count) * (1 + share)  # what overlaps is made up for
    for y, x, taller, _ in drawn:
        ratio = 0.5 + taller
        tall, wide = side * ratio * height, side / ratio * width
        top, left = y * height - tall / 2, x * width - wide / 2
        rows = slice(max(0, round(top)), max(0, round(top + tall)))
        mask[rows, max(0, round(left)) : max(0, round(left + wide))] = True
    return mask


def covered(
    values: NDArray[Any], mask: NDArray[np.bool_], fill: float | np.float32, pixels: Pixels
) -> Float:
    """Values with `fill` where the sensor's pixels are masked, and a mixture where these are resampled."""
    share = pixels.field(mask.astype(np.float32))
    share = share.reshape(*share.shape, *(1,) * (values.ndim - 2))
    with np.errstate(invalid="ignore"):  # of an infinite value nothing is left, too
        mixed = np.where(share > 0, values * (1 - share) + np.float32(fill) * share, values)
    return np.asarray(np.where(share < 1, mixed, np.float32(fill)), np.float32)


MASKED = Severity(
    (0.05, 0.1, 0.2, 0.3, 0.4),
    "share of pixels",
    "single pixels that say nothing",
    "range of the augmentation in training",
    still=True,
    training=(0.05, 0.4),
)
"""Pixels without a value, of any kind of picture."""


RANDOM_MISSING = Severity(
    (0.1, 0.2, 0.3, 0.4, 0.5),
    "share of the picture",
    "patches at random places that are not there, other ones in every frame",
    "Liao et al., CVPR Workshops 2025: random-missing modality, r = 0.1, 0.3 and 0.5 at severities 1, 3, 5; "
    "the patches' size is ours",
    "near",
    scenario="missing",
)
"""Part of a picture that did not arrive, of any kind of picture."""

_PATCHES = 40  # along the longer side: 16 pixels of 640


def missing_patches(size: tuple[int, int], share: float, rng: Rng) -> NDArray[np.bool_]:
    """Square patches of a sensor's pixels (H, W), each gone with probability `share`."""
    side = max(1, round(max(size) / _PATCHES))
    drawn = rng.random([-(-length // side) for length in size], dtype=np.float32) < share
    gone: NDArray[np.bool_] = drawn.repeat(side, axis=0).repeat(side, axis=1)
    return gone[: size[0], : size[1]]


def training_mask(size: tuple[int, int], rng: Rng) -> NDArray[np.bool_]:
    """As training draws it: a few random rectangles, or a random share of single pixels."""
    if rng.random() < 0.5:
        share = rng.uniform(*MASKED.training)
        return rng.random(size, dtype=np.float32) < share
    mask = np.zeros(size, bool)
    for _ in range(int(rng.integers(1, 5))):
        h, w = (int(rng.integers(s // 16, s // 3)) for s in size)
        y, x = int(rng.integers(0, size[0] - h)), int(rng.integers(0, size[1] - w))
        mask[y : y + h, x : x + w] = True
    return mask


class ContentFault(NamedTuple):
    """A fault of a kind: `function(values, amount, pixels, rng)` gives values of the same form."""

    severity: Severity
    function: Callable[[Any, float, Any, Rng], Any]


class ContentFaults(Mapping[str, Severity]):
    """The content faults of a kind: a mapping from their names to how much there is of each."""

    def __init__(self, faults: Mapping[str, ContentFault]) -> None:
        self._faults = MappingProxyType(dict(faults))

    def __getitem__(self, name: str) -> Severity:
        return self._faults[name].severity

    def __iter__(self) -> Iterator[str]:
        return iter(self._faults)

    def __len__(self) -> int:
        return len(self._faults)

    def run(self, name: str, values: Any, amount: float, where: Any, rng: Rng) -> Any:
        """The fault's function on values.

        Raises:
            KeyError: there is no such fault.
        """
        return self._faults[name].function(values, amount, where, rng)


def on_pictures(
    faults: ContentFaults, settled: Callable[[Any, str], Any] = lambda values, unit: values
) -> Callable[[str, Any, Layer, int, Rng], Any]:
    """`SensorKind.apply` of a kind of pictures.

    Args:
        faults: what it knows.
        settled: (values, unit) -> what the sensor can say of these, such as counts within their range.
    """

    def apply(fault: str, value: Any, layer: Layer, severity: int, rng: Rng) -> Any:
        amount = faults[fault].at(severity)
        values = value.data if layer == "sample" else value.image
        if not values.size:
            return value
        if layer == "sample":
            out = faults.run(fault, values, amount, Pixels.own(values), rng)
            return replace(value, data=settled(out, value.unit))
        pixels = (
            Pixels.own(values) if value.own is None else Pixels(value.own.source, value.own.scaled)
        )
        height, width = pixels.here  # what lies beyond is padding
        out = values.copy()
        spoilt = faults.run(fault, values[:height, :width], amount, pixels, rng)
        out[:height, :width] = settled(spoilt, value.unit)
        return replace(value, layers={**value.layers, "image": out})

    return apply


def augmenting(
    change: Callable[[NDArray[Any], Mapping[str, float], Rng], NDArray[Any]],
) -> Callable[[Grid, Mapping[str, float], Rng], Grid]:
    """`SensorKind.augment` of a kind of pictures, from what it does to the values."""

    def augment(grid: Grid, chances: Mapping[str, float], rng: Rng) -> Grid:
        return replace(grid, layers={**grid.layers, "image": change(grid.image, chances, rng)})

    return augment
