"""`tasks` of bundle.yaml: specs by task, each as its task reads it."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    RootModel,
    model_serializer,
    model_validator,
)

from perception.errors import ConfigError
from perception.tasks.boxes2d import Boxes2dSpec
from perception.tasks.pictures import PicturesSpec
from perception.tasks.registry import OURS, TASKS, with_implied
from perception.tasks.segmentation import SegmentationSpec
from perception.tasks.spec import TaskSpec


class _Named:
    """What a file says of a task, and of which."""

    def __init__(self, task: str, content: Any) -> None:
        self.task, self.content = task, content


def _as_spec(value: Any) -> Any:
    if not isinstance(value, _Named):
        return value
    try:
        task = TASKS.named(value.task)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return task.spec.model_validate(value.content)


class TaskSpecs(RootModel[Mapping[str, Annotated[TaskSpec, BeforeValidator(_as_spec)]]]):
    """What comes out, by task: ours in their order, then the others as they are listed."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        names = [*(n for n in OURS if n in value), *(n for n in value if n not in OURS)]
        return {n: _Named(str(n), value[n]) for n in names if value[n] is not None}

    @model_validator(mode="after")
    def _consistent(self) -> TaskSpecs:
        if not any(TASKS[n].alone or TASKS[n].direct(spec) for n, spec in self.root.items()):
            raise ValueError(f"needs {' or '.join(n for n in OURS if TASKS[n].alone)}")
        with_implied(self.root)
        object.__setattr__(self, "root", MappingProxyType(dict(self.root)))
        return self

    @model_serializer
    def _plain(self) -> dict[str, Any]:
        return {n: s.model_dump(exclude_none=True) for n, s in self.root.items()}

    def __getitem__(self, name: str) -> TaskSpec:
        return self.root[name]

    def __contains__(self, name: object) -> bool:
        return name in self.root

    def __iter__(self) -> Iterator[str]:  # type: ignore[override]
        return iter(self.root)

    def __len__(self) -> int:
        return len(self.root)

    def items(self) -> ItemsView[str, TaskSpec]:
        """Specs by task."""
        return self.root.items()

    @cached_property
    def every(self) -> Mapping[str, TaskSpec]:
        """With those that follow from them, each after those whose values it needs."""
        return MappingProxyType(with_implied(self.root))

    @property
    def segmentation(self) -> SegmentationSpec | None:
        """That of semantic segmentation."""
        found = self.root.get("segmentation")
        return found if isinstance(found, SegmentationSpec) else None

    @property
    def boxes2d(self) -> Boxes2dSpec | None:
        """That of 2D boxes."""
        found = self.root.get("boxes2d")
        return found if isinstance(found, Boxes2dSpec) else None

    @property
    def pictures(self) -> PicturesSpec | None:
        """That of the pictures that the model makes besides."""
        found = self.root.get("pictures")
        return found if isinstance(found, PicturesSpec) else None
