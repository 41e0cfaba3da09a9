"""A tree of coordinate frames with transforms that may change over time (as /tf and /tf_static give)."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort

import numpy as np

from perception.errors import CalibrationError
from perception.geometry.transforms import Float64, RigidTransform

_MAX_HISTORY = 500
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

    Args:
        history_ns: how far back transforms that change are kept.
    """

    def __init__(self, history_ns: int = 10_000_000_000) -> None:
        self.history_ns = history_ns
        self._edges: dict[str, _Edge] = {}
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
            CalibrationError: a name is empty, or both are the same.
        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        if not parent or not child or parent == child:
            raise CalibrationError(f"transform from '{child}' to '{parent}'", where="frames")
        with self._lock:
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent or edge.static != static:
                edge = self._edges[child] = _Edge(parent, static)
            edge.add(stamp_ns, transform, self.history_ns)

    def lookup(self, target: str, source: str, stamp_ns: int | None = None) -> RigidTransform:
        """The transform that takes points of frame `source` into frame `target`.

        Args:
            target, source: names of the frames.
            stamp_ns: at what time; None takes the newest of every step.

        Raises:
            CalibrationError: a frame is unknown, or nothing connects the two.
        """
        target, source = target.lstrip("/"), source.lstrip("/")
        if target == source:
            return RigidTransform.identity()
        with self._lock:
            up, down = self._to_root(source, stamp_ns), self._to_root(target, stamp_ns)
        for name, transform in up.items():
            if name in down:
                return down[name].inverse() @ transform
        unknown = [n for n, path in ((source, up), (target, down)) if len(path) == 1]
        hint = f"nothing is known of '{unknown[0]}'" if unknown else "they lie in separate trees"
        raise CalibrationError(
            f"no transform from '{source}' to '{target}'", where="frames", hint=hint
        )

    def _to_root(self, name: str, stamp_ns: int | None) -> dict[str, RigidTransform]:
        """Transforms from a frame to each of its ancestors, itself first."""
        path = {name: RigidTransform.identity()}
        transform = path[name]
        while name in self._edges and len(path) < _DEEPEST:
            edge = self._edges[name]
            transform, name = edge.at(stamp_ns) @ transform, edge.parent
            if name in path:
                raise CalibrationError(f"frames form a loop at '{name}'", where="frames")
            path[name] = transform
        return path
