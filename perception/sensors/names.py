"""Which kinds of sensors there are, by name alone: nothing is imported to tell."""

from __future__ import annotations

from perception.plugins import plugins

OURS = ("rgb", "depth", "thermal", "lidar")
"""Those that come with AnySense, in canonical order."""


def kinds() -> tuple[str, ...]:
    """All of them: ours, then those of other distributions by name."""
    return (*OURS, *(name for name in plugins("sensors") if name not in OURS))


def is_kind(name: object) -> bool:
    """Whether there is a kind of that name."""
    return isinstance(name, str) and (name in OURS or name in plugins("sensors"))


def has_picture(name: str) -> bool:
    """Whether sensors of a kind have pixels of their own; its record is imported to tell."""
    from perception.sensors.registry import kind_of

    return kind_of(name).has_picture


def is_projected(name: str) -> bool:
    """Whether sensors of a kind are seen in a camera's picture; its record is imported to tell."""
    from perception.sensors.registry import kind_of

    return kind_of(name).projected
