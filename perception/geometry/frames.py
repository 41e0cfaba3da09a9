"""A tree of coordinate frames with transforms that may change over time (as /tf and /tf_static give)."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Collection
from itertools import takewhile

import numpy as np

from perception.errors import CalibrationError
from perception.files.limits import MAX_FRAMES, MAX_NAME, MAX_TRANSFORMS
from perception.geometry.transforms import Float64, RigidTransform

_MAX_HISTORY = 500
_MOST_STILL = 1000
_SELF = RigidTransform.identity()
_DEEPEST = 100


class _Edge:
    """The transform from a frame to its parent, as samples over time."""

    def __init__(self, parent: str, static: bool) -> None:
        self.parent, self.static = parent, static
        self.samples: list[tuple[int, RigidTransform]] = []

    def add(self, stamp_ns: int, transform: RigidTransform, history_ns: int) -> None:
        if self.static:
            self.samples = [(stamp_ns, transform)]
            return
        if self.samples and self.samples[-1][0] - stamp_ns > history_ns:
            self.samples.clear()  # the clock was set back
        self.samples = [s for s in self.samples if s[0] != stamp_ns]
        insort(self.samples, (stamp_ns, transform), key=lambda s: s[0])
        oldest = self.samples[-1][0] - history_ns
        while len(self.samples) > _MAX_HISTORY or self.samples[0][0] < oldest:
            del self.samples[0]

    def at(self, stamp_ns: int | None) -> RigidTransform:
        """Interpolated at a stamp; the nearest sample beyond the ends, the newest for None."""
        if stamp_ns is None or self.static:
            return self.samples[-1][1]
        i = bisect_left(self.samples, stamp_ns, key=lambda s: s[0])
        if i == 0 or i == len(self.samples):
            return self.samples[min(i, len(self.samples) - 1)][1]
        (t0, before), (t1, after) = self.samples[i - 1], self.samples[i]
        return interpolate(before, after, (stamp_ns - t0) / (t1 - t0))


def _between(up: Collection[str], down: Collection[str]) -> tuple[str | None, list[str]]:
    """Where two paths to the root meet, and the frames on both before that; none if they do not."""
    meeting = next((name for name in up if name in down), None)
    paths = (up, down) if meeting is not None else ()
    return meeting, [n for path in paths for n in takewhile(lambda name: name != meeting, path)]


def interpolate(a: RigidTransform, b: RigidTransform, share: float) -> RigidTransform:
    """The transform `share` of the way from `a` to `b`: linear in position, slerp in rotation.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985.
    """
    p, q = np.array(a.quaternion_xyzw), np.array(b.quaternion_xyzw)
    cosine = float(p @ q)
    if cosine < 0:
        q, cosine = -q, -cosine
    mixed: Float64 = (1 - share) * p + share * q
    if cosine < 0.9995:
        angle = np.arccos(cosine)
        mixed = (np.sin((1 - share) * angle) * p + np.sin(share * angle) * q) / np.sin(angle)
    translation = (1 - share) * a.translation + share * b.translation
    return RigidTransform.from_quaternion_xyzw(mixed.tolist(), translation)


class FrameTree:
    """Frames by name, each with its transform to a parent.  Safe to use from several threads.

    Of more frames or transforms than `perception.files.limits` allows, those that move and were heard
    longest ago are forgotten.

    Args:
        history_ns: how far back transforms that change are kept.
    """

    def __init__(self, history_ns: int = 10_000_000_000) -> None:
        self.history_ns = history_ns
        self._edges: dict[str, _Edge] = {}
        self._moving: dict[str, None] = {}  # frames that change, the one heard longest ago first
        self._kept = 0  # transforms of those
        self._still: dict[tuple[str, str], RigidTransform] = {}  # looked up, of what does not move
        self._lock = threading.Lock()

    def set(
        self,
        parent: str,
        child: str,
        transform: RigidTransform,
        stamp_ns: int = 0,
        *,
        static: bool = False,
    ) -> None:
        """Note where a frame sits.

        Args:
            parent, child: names of the frames; a leading slash is dropped.
            transform: takes points of the child's frame into the parent's.
            stamp_ns: when this held.
            static: it holds at all times, and replaces what was known.

        Raises:
            CalibrationError: a name is empty or too long, both are the same, or there are too many
                frames that do not move.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if max(len(parent), len(child)) > MAX_NAME:
            raise CalibrationError(f"a name of more than {MAX_NAME} characters", where="frames")
        if not parent or not child or parent == child:
            raise CalibrationError(f"transform from '{child}' to '{parent}'", where="frames")
        with self._lock:
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent or edge.static != static:
                self._forget(child)
                self._make_room()
                edge = self._edges[child] = _Edge(parent, static)
                self._still.clear()
            before = len(edge.samples)
            edge.add(stamp_ns, transform, self.history_ns)
            if static:
                self._still.clear()
            else:
                self._moving.pop(child, None)
                self._moving[child] = None
                self._kept += len(edge.samples) - before
                while self._kept > MAX_TRANSFORMS and len(self._moving) > 1:
                    self._forget(next(iter(self._moving)))

    def _make_room(self) -> None:
        if len(self._edges) < MAX_FRAMES:
            return
        if not self._moving:
            raise CalibrationError(f"more than {MAX_FRAMES} frames", where="frames")
        self._forget(next(iter(self._moving)))

    def _forget(self, child: str) -> None:
        edge = self._edges.pop(child, None)
        self._still.clear()
        if edge is not None and not edge.static:
            del self._moving[child]
            self._kept -= len(edge.samples)

    def lookup(
        self,
        target: str,
        source: str,
        stamp_ns: int | None = None,
        *,
        max_age_ns: int | None = None,
    ) -> RigidTransform:
        """The transform that takes points of frame `source` into frame `target`.

        Args:
            target, source: names of the frames.
            stamp_ns: at what time; None takes the newest of every step.
            max_age_ns: how much older than `stamp_ns` the newest transform of a step that changes
                may be; None for any age.

        Raises:
            CalibrationError: a frame is unknown, nothing connects the two, or a step is too old.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        if target == source:
            return RigidTransform.identity()
        with self._lock:
            if (known := self._still.get((target, source))) is not None:
                return known
            up, down = self._to_root(source, stamp_ns), self._to_root(target, stamp_ns)
            meeting, steps = _between(up, down)
            if stamp_ns is not None and max_age_ns is not None:
                self._refuse_old(steps, stamp_ns, max_age_ns)
            if meeting is not None:
                found = down[meeting].inverse() @ up[meeting]
                if all(self._edges[n].static for n in steps):
                    if len(self._still) >= _MOST_STILL:
                        self._still.clear()
                    self._still[target, source] = found
                return found
        unknown = [n for n, path in ((source, up), (target, down)) if len(path) == 1]
        hint = f"nothing is known of '{unknown[0]}'" if unknown else "they lie in separate trees"
        raise CalibrationError(
            f"no transform from '{source}' to '{target}'", where="frames", hint=hint
        )

    def connects(self, target: str, source: str) -> bool:
        """Whether `lookup` would find a way, of any age."""
        try:
            self.lookup(target, source)
        except CalibrationError:
            return False
        return True

    def is_static(self, target: str, source: str) -> bool:
        """Whether two frames are connected by transforms that hold at all times."""
        target, source = target.lstrip("/"), source.lstrip("/")
        with self._lock:
            meeting, steps = _between(self._to_root(source, None), self._to_root(target, None))
            return meeting is not None and all(self._edges[n].static for n in steps)

    def _refuse_old(self, children: list[str], stamp_ns: int, max_age_ns: int) -> None:
        for child in children:
            edge = self._edges[child]
            age = stamp_ns - edge.samples[-1][0]
            if not edge.static and age > max_age_ns:
                raise CalibrationError(
                    f"the transform from '{child}' to '{edge.parent}' is {age / 1e9:.1f} s old",
                    where="frames",
                    hint=f"the limit is {max_age_ns / 1e9:g} s; has its publisher stopped?",
                )

    def _to_root(self, name: str, stamp_ns: int | None) -> dict[str, RigidTransform]:
        """Transforms from a frame to each of its ancestors, itself first."""
        path = {name: _SELF}
        transform = path[name]
        while name in self._edges and len(path) < _DEEPEST:
            edge = self._edges[name]
            transform, name = edge.at(stamp_ns) @ transform, edge.parent
            if name in path:
                raise CalibrationError(f"frames form a loop at '{name}'", where="frames")
            path[name] = transform
        return path
