"""Bundles of schema 1: one input of each kind, and what was measured of a bundle in `bundle.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perception.errors import BundleError, names_hint
from perception.frame import KINDS

SCHEMA_1 = 1
RECORDS = ("accuracy", "parity", "backends")
"""What schema 1 kept in `bundle.yaml`, and schema 2 keeps beside it."""

_TASKS = {"segmentation": "segmentation", "detection": "boxes2d"}


def from_schema_1(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A manifest of schema 1 as one of schema 2, without what was measured.

    Encoder, input and kind have one name, features are called `<kind>_<feature>`, and `presence` tells
    of rgb, depth, thermal and lidar, whatever the bundle takes.  Values are checked afterwards.

    Raises:
        BundleError: its own fields contradict each other.
    """
    old = {k: v for k, v in content.items() if k not in RECORDS}
    names, inputs = old.pop("modalities", None), old.get("inputs")
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise BundleError("modalities: expected a list of names", where=where)
    if isinstance(inputs, Mapping) and list(names) != inputs.get("modalities"):
        raise BundleError("modalities and inputs.modalities differ", where=where)
    if isinstance(old.get("graphs"), Mapping):
        old["graphs"] = _graphs(old["graphs"], names, where)
    images = old.pop("images", [])
    tasks = _tasks(old.get("tasks"), old.pop("classes", {}), old.pop("detection", {}), where)
    if images:
        tasks["pictures"] = {"names": images}
    training = old.get("training")
    if isinstance(training, Mapping) and isinstance(training.get("licence"), str):
        text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in training["licence"])
        old["licence"] = {"data": text[:1000]}  # there it was any text
    return {**old, "schema": 2, "tasks": tasks}


def _graphs(graphs: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    if isinstance(graphs.get("encoders"), Mapping) and set(graphs["encoders"]) != set(names):
        raise BundleError("graphs.encoders must name every modality, and no other", where=where)
    return {**graphs, "presence": list(KINDS), "separator": "_"}


def _tasks(tasks: Any, classes: Any, boxes: Any, where: str) -> dict[str, Any]:
    """What schema 2 says of tasks: of what `tasks`, `classes` and `detection` held."""
    if not isinstance(tasks, list | tuple) or not tasks or not isinstance(classes, Mapping):
        raise BundleError("tasks: a list of segmentation and detection, with classes", where=where)
    new: dict[str, Any] = {}
    for task in tasks:
        if not isinstance(task, str) or task not in _TASKS or _TASKS[task] in new:
            hint = names_hint(task, _TASKS)
            raise BundleError(f"tasks: '{task}' is unknown, or given twice", where=where, hint=hint)
        own = boxes if task == "detection" else {}
        if not isinstance(own, Mapping):
            raise BundleError("detection: expected a table", where=where)
        if not classes.get(task):
            raise BundleError(f"classes.{task} is empty", where=where)
        new[_TASKS[task]] = {"classes": classes[task], **own}
    foreign = sorted(map(str, set(classes) - set(_TASKS)))
    if foreign:
        hint = names_hint(foreign[0], _TASKS)
        raise BundleError(f"classes.{foreign[0]}: no such task", where=where, hint=hint)
    return new


def in_schema_1(place: Sequence[str]) -> list[str]:
    """Where a field of schema 2 was in schema 1."""
    match list(place):
        case ["tasks", "pictures", *rest]:
            return ["images", *rest[1:]]
        case ["tasks", task, "classes", *rest]:
            return ["classes", "detection" if task == "boxes2d" else task, *rest]
        case ["tasks", "boxes2d", *rest]:
            return ["detection", *rest]
        case ["inputs", _, "view", *rest]:
            return ["inputs", "grid", *rest]
        case ["inputs", kind, "preprocess", *rest]:
            return ["inputs", kind, *rest]
    return list(place)
