"""What coordinate frames are called, and what that says of the sensor, for formats that know no kinds."""

from __future__ import annotations

import re
from collections.abc import Collection

from perception.errors import AnySenseError, InputError
from perception.frame import check_name
from perception.sensors.names import is_kind, kinds
from perception.sensors.registry import kind_of

_BODIES = {"camera_link", "camera_optical_link", "camera_optical_frame", "camera_base_link"}
"""Last words of `camera0/camera_link`: whose name comes before."""

_ENDINGS = (
    "_optical_frame", "_optical_link", "_optical", "_base_link", "_link", "_frame",
)  # fmt: skip
_LONGEST = 56


def is_optical(frame: str) -> bool:
    """Whether a frame's name says that it is a camera's optical frame (REP 103)."""
    return "optical" in frame.lower()


def guessed_kind(name: str) -> str:
    """The kind of sensor that a name tells of; empty where it tells of none.

    A word counts at its start: `pandar` in `pandar40p_top`.  Of several, the kind is taken that is not
    the first: `camera_depth_optical_frame` is depth.
    """
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    known = [*kinds()[1:], kinds()[0]]
    for kind in known:
        told = (kind, *_words_of(kind))
        if any(word.startswith(t) for word in words for t in told):
            return kind
    return ""


def _words_of(kind: str) -> tuple[str, ...]:
    try:
        return kind_of(kind).frame_words
    except AnySenseError:  # a broken plug-in harms nobody who does not use it
        return ()


def name_of(frame: str, taken: Collection[str] = (), kind: str = "") -> str:
    """What a sensor may be called whose frame is called so: `cam_front` of `cam_front_optical_frame`.

    Args:
        frame: any text.
        taken: names that others have.
        kind: of the sensor: one that is called as a kind is of that kind.
    """
    head, _, last = frame.strip("/").rpartition("/")
    text = head if head and last in _BODIES else frame.strip("/")
    text = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")
    for ending in _ENDINGS:
        text = text.removesuffix(ending)
    text = text[:_LONGEST].strip("_")
    if not re.match("[a-z]", text):
        text = f"sensor_{text}".rstrip("_")
    found, count = text, 1
    while found in taken or not _may_be_called(found, kind):
        count += 1
        found = f"{text}_{count}"
    return found


def _may_be_called(name: str, kind: str) -> bool:
    try:
        check_name(name)
    except InputError:
        return False
    return not (kind and is_kind(name) and name != kind)
