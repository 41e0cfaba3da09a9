"""What a bundle says of a task, and the pieces that such specs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WrapSerializer

from perception.data.base import ClassInfo
from perception.metrics.fitted import Fitted

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T", bound="TaskSpec")


def _write_plain(value: Any, handler: Any) -> Any:
    return handler(dict(value))


Frozen = Annotated[
    Mapping[K, V],
    AfterValidator(lambda found: MappingProxyType(dict(found))),
    WrapSerializer(_write_plain),
]
"""A mapping that cannot be changed, written as a plain one."""


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be printable text without spaces at its ends")
    return text


Label = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
"""A short name for people, of any script."""

_Channel = Annotated[int, Field(ge=0, le=255)]


class Spec(BaseModel):
    """Fields that cannot be changed; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, frozen=True)


class ClassSpec(Spec):
    """One class: its id in the output, name and RGB color."""

    id: int = Field(ge=0, le=254)
    name: Label
    color: tuple[_Channel, _Channel, _Channel]

    def info(self) -> ClassInfo:
        """As a `ClassInfo`."""
        return ClassInfo(self.id, self.name, self.color)


def _by_id(classes: tuple[ClassSpec, ...]) -> tuple[ClassSpec, ...]:
    """The classes in the order of the network's outputs, whatever order they are listed in."""
    ordered = tuple(sorted(classes, key=lambda c: c.id))
    for wanted, found in enumerate(ordered):
        if found.id != wanted:
            what = f"id {found.id} is given twice" if found.id < wanted else f"no id {wanted}"
            raise ValueError(f"{what}: ids must be 0 to {len(classes) - 1}, each once")
    return ordered


Classes = Annotated[tuple[ClassSpec, ...], AfterValidator(_by_id)]
"""Classes in the order of a network's outputs."""


def class_name(classes: Sequence[ClassSpec], number: int) -> str:
    """The name of a class by its id; the id where there is none of it."""
    return classes[number].name if 0 <= number < len(classes) else str(number)


class TaskSpec(Spec):
    """What a bundle says of a task.  Every task has a subclass of its own; one without fields will do."""

    def check(self, inputs: Sequence[str]) -> None:
        """Refuse what does not fit a bundle with these inputs.

        Raises:
            ValueError: says what.
        """

    @property
    def labels(self) -> tuple[ClassSpec, ...]:
        """Its classes by id; empty where it has none."""
        found: tuple[ClassSpec, ...] = getattr(self, "classes", ())
        return found

    def calibrated(self, names: Iterable[str]) -> bool:
        """Whether confidence from these inputs was calibrated, so that it tells of those that are missing."""
        return False

    def with_temperatures(self: T, temperatures: Mapping[str, float]) -> T:
        """The same with these temperatures, by subset of the inputs, beside its others.

        Raises:
            ValueError: it has none, or one is out of range.
        """
        raise ValueError("has no temperatures")

    def with_fitted(self: T, fitted: Mapping[str, Fitted]) -> T:
        """The same with what a `TemperatureFit` found, by subset of the inputs, beside its others.

        Raises:
            ValueError: it holds nothing of the kind, or a number is out of range.
        """
        return self.with_temperatures({s: f.numbers["temperature"] for s, f in fitted.items()})

    def described(self) -> str:
        """One line for people; empty where there is nothing to say."""
        names = [c.name for c in self.labels]
        return f"{len(names)} classes: {', '.join(names)}" if names else ""
