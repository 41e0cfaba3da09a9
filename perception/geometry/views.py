"""Pictures of one camera on the grid of another: what a sensor sees, pixel by pixel as the reference does.

Where the two stand apart, where a pixel lies in the other picture depends on how far away is what it shows:
that comes from a depth picture, or is taken to lie on a plane (Hartley and Zisserman, Multiple View Geometry,
2004, 13.1; a plane at infinity gives the homography of a rotation).  What cannot be known is no value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, GridSpec
from perception.geometry.lattice import STILL_M, Lattice, lattice_of
from perception.geometry.scratch import ScratchPool
from perception.geometry.sights import Cache, Float32, Key, Sight

NEAREST_M = 1.0
"""How near things may be, where it is asked whether two pictures are one."""

_OUT = np.float32(-1e5)
"""The coordinate of what is not to be seen: interpolated with any pixel it is still outside."""

_NO_DEPTH = np.float32(1e30)  # finite: OpenCV's border is, too, and would pass for a depth
_LEAST_OVERLAP = 0.05
_AREA_BEYOND = 1.5
_HIDDEN_PIXELS = 1.0
_ROWS_AT_A_TIME = 24


_MAPS = ScratchPool()


@dataclass(frozen=True, eq=False)
class Placement:
    """How a sample is brought to the grid of another sensor's picture.

    Attributes:
        view: from pixels to pixels.
        reference: the other sensor.
        near: 1/m of the view's lattice, of a depth picture; None: all is taken to be on the view's plane.
        ranger: the sensor that measured it.
    """

    view: View
    reference: str
    near: Float32 | None = None
    ranger: str = ""

    @property
    def line(self) -> str:
        """How, in words."""
        if self.ranger:
            return f"onto {self.reference} by {self.ranger}"
        plane = self.view.plane_m
        where = f"at {plane:g} m" if plane < np.inf else "far away"
        return (
            f"onto {self.reference}, things being {where}"
            if self.view.parallax
            else f"onto {self.reference}"
        )


class View:
    """A sensor's pictures on the grid of another: `ViewSpec.bind`.

    Args:
        lattice: of the grid that they are brought to.
        source: the sensor's.
        plane_m: how far away things are taken to be, along the reference's optical axis, where no depth
            says it; infinity for far scenes.

    Attributes:
        grid: how the reference's picture lies on the grid, which is now this sensor's, too.
        to_source: from the reference's optical frame to the sensor's.
        plane_m: see above.
        key: equal where everything is.
    """

    def __init__(self, lattice: Lattice, source: Sight, plane_m: float = np.inf) -> None:
        if not plane_m > 0:
            raise CalibrationError(f"a plane at {plane_m} m", hint="a positive distance, or inf")
        self.lattice, self.source = lattice, source
        self.key: Key = (lattice.key, source.key, plane_m)
        self.grid = lattice.grid
        self.to_source = lattice.reference.to(source)
        self.plane_m = plane_m
        self._plane = np.float32(1 / plane_m)
        self._shift = self.to_source.translation.astype(np.float32)
        sx, sy = self.grid.scale
        reference = lattice.reference.camera
        self._finer = min(
            source.camera.fx / (reference.fx * sx), source.camera.fy / (reference.fy * sy)
        )
        height, width = source.size
        shrink = 1 / self._finer if self._finer > _AREA_BEYOND else 1.0
        self._size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
        self._camera = source.camera.scaled(self._size[1] / width, self._size[0] / height)

    @property
    def parallax(self) -> float:
        """By how many source pixels what is at `NEAREST_M` lies elsewhere than what is infinitely far."""
        return float(np.linalg.norm(self.to_source.translation)) * self.source.camera.fx / NEAREST_M

    def turned(self, rays: Float32) -> Float32:
        """Rays (3, R, C) in the source's frame."""
        rotation = self.to_source.rotation.astype(np.float32)
        return np.einsum("ij,jrc->irc", rotation, rays).astype(np.float32)

    def _coordinates(self, turned: Float32, near: Any, camera: CameraModel) -> tuple[Any, Any, Any]:
        """Source pixels u, v, and z, of what is seen along rays at inverse depths; `_OUT` for nothing."""
        with np.errstate(all="ignore"):
            x, y, z = (
                _plus(axis, float(s), near) for axis, s in zip(turned, self._shift, strict=True)
            )
            x /= z
            y /= z
            u, v, within = camera.pixels_of(x, y)
            seen = z > STILL_M  # False for NaN
            if within is not None:
                seen &= within
            if not seen.all():
                nowhere = ~seen
                u[nowhere] = _OUT
                v[nowhere] = _OUT
        return u, v, z

    @cached_property
    def _fixed(self) -> tuple[Float32, Float32]:
        """Source pixels of every grid pixel, things being on the plane."""
        height, width = self.grid.grid
        rays = self.lattice.rays(np.arange(height), np.arange(width))
        u, v, _ = self._coordinates(self.turned(rays), self._plane, self._camera)
        return np.ascontiguousarray(u), np.ascontiguousarray(v)

    @cached_property
    def _turned(self) -> Float32:
        return self.turned(self.lattice.own_rays)

    @cached_property
    def overlap(self) -> float:
        """Share of the reference's picture that the sensor sees, things being on the plane."""
        u, v = self._fixed
        height, width = self._size
        seen = (u > -0.5) & (v > -0.5) & (u < width - 0.5) & (v < height - 0.5)
        return float(seen[: self.grid.scaled[0], : self.grid.scaled[1]].mean())

    @property
    def sees(self) -> bool:
        """Whether there is anything of it on the grid worth telling."""
        return self.overlap >= _LEAST_OVERLAP

    @cached_property
    def off_px(self) -> float:
        """By how many grid pixels stretching the picture would put things elsewhere, at most.

        Of things on the plane and of such at `NEAREST_M`, over a lattice of places; infinity where most
        of them are not seen at all.
        """
        height, width = self.grid.scaled
        rows, columns = np.linspace(0, height - 1, 7), np.linspace(0, width - 1, 9)
        rays = self.lattice.rays(rows, columns)
        turned, plain = self.turned(rays), GridMap.fit(self.source.size, _as_spec(self.grid))
        known = np.isfinite(rays).all(axis=0)
        most = 0.0
        for near in (self._plane, np.float32(1 / NEAREST_M)):
            u, v, _ = self._coordinates(turned, near, self.source.camera)
            seen = known & (u > _OUT / 2)
            if seen.sum() * 2 < known.sum():
                return float("inf")
            sx, sy = plain.scale
            across = (u + 0.5) * sx - 0.5 - columns[None, :]
            down = (v + 0.5) * sy - 0.5 - rows[:, None]
            most = max(most, float(np.hypot(across, down)[seen].max(initial=0.0)))
        return most

    def to_grid(
        self,
        image: NDArray[Any],
        *,
        nearest: bool = False,
        fill: float = 0.0,
        near: Float32 | None = None,
    ) -> NDArray[Any]:
        """A picture of the sensor on the grid.

        Args:
            image: (H, W) or (H, W, C).
            nearest: take pixels as they are, as of labels, in place of mixing four.
            fill: what there is nothing of: outside of the picture, behind the sensor, hidden from it.
            near: 1/z of the lattice's pixels, see `Lattice.inverse_depth`; None: all on the plane.

        Returns:
            (height, width) or (height, width, C) of the grid.
        """
        if image.shape[:2] != self._size:
            mode = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
            image = cv2.resize(image, self._size[::-1], interpolation=mode)
        mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
        channels = 1 if image.ndim == 2 else image.shape[2]
        about: dict[str, Any] = {
            "borderMode": cv2.BORDER_CONSTANT,
            "borderValue": (fill,) * min(4, channels),
        }
        if near is None:
            return cv2.remap(image, *self._fixed, mode, **about)
        out = np.empty((*self.grid.grid, *image.shape[2:]), image.dtype)
        for rows, u, v in self._by_depth(near):
            cv2.remap(image, u, v, mode, dst=out[rows], **about)
        return out

    def _by_depth(self, near: Float32) -> Iterator[tuple[slice, Float32, Float32]]:
        """Source pixels of some rows of the grid after the other, with `_OUT` where something nearer
        hides what is there.

        Rows are few at a time, so that their maps stay in the cache.
        """
        near = _completed(near, self._plane)
        u, v, z = self._coordinates(self._turned, near, self._camera)
        if (hidden := self._hidden(u, v, z, near)) is not None:
            u[hidden] = _OUT
            v[hidden] = _OUT
        step, (height, width) = self.lattice.step, self.grid.grid
        columns = slice(step, step + width)
        with _MAPS.lend() as scratch:
            for top in range(0, self.lattice.shape[0] - 2, _ROWS_AT_A_TIME):
                few = slice(top, top + _ROWS_AT_A_TIME + 2)  # one more on each side
                first = top * step
                count = min(_ROWS_AT_A_TIME * step, height - first)
                maps = [
                    _finer(a[few], step, scratch.array, name) for a, name in ((u, "u"), (v, "v"))
                ]
                x, y = (a[step : step + count, columns] for a in maps)
                yield slice(first, first + count), x, y

    def _hidden(
        self, u: Float32, v: Float32, z: Float32, near: Float32
    ) -> NDArray[np.bool_] | None:
        """Which pixels of the lattice show what the sensor does not: something nearer lies before it.

        Of all that falls into one cell of the source's picture the nearest is seen, and what lies so far
        behind it that it would be seen elsewhere is not.  Cells are as large as four grid pixels each
        way, so that each in the picture has a point.
        """
        pixels = float(np.linalg.norm(self._shift)) * self._camera.fx
        most = float(near.max(initial=0.0))
        if pixels * most <= _HIDDEN_PIXELS:
            return None
        every = max(1, 4 // self.lattice.step)
        part = slice(every // 2, None, every)
        u, v, z, near = (a[part, part] for a in (u, v, z, near))
        finer = self._finer if self._camera is self.source.camera else min(self._finer, 1.0)
        cell = max(1.0, 4.0 * finer)
        height, width = self._size
        columns, rows = int(width / cell) + 1, int(height / cell) + 1
        with np.errstate(all="ignore"):
            seen = (u > -0.5) & (v > -0.5) & (u < width - 0.5) & (v < height - 0.5)
            at = np.flatnonzero(seen)
            column = (u.ravel().take(at) + 0.5) / np.float32(cell)
            row = (v.ravel().take(at) + 0.5) / np.float32(cell)
            flat = row.astype(np.intp) * columns + column.astype(np.intp)
            ours = near.ravel().take(at) / z.ravel().take(at)  # 1/z in the source's frame
        first = np.zeros(rows * columns, np.float32)
        np.maximum.at(first, flat, ours)
        behind = (first.take(flat) - ours) * np.float32(pixels) > max(_HIDDEN_PIXELS, cell / 2)
        if not behind.any():
            return None
        few = np.zeros(u.shape, bool)
        few.ravel()[at[behind]] = True
        found = np.zeros(self.lattice.shape, bool)
        around = few.repeat(every, 0).repeat(every, 1)[: found.shape[0], : found.shape[1]]
        found[: around.shape[0], : around.shape[1]] = around
        return found


def _as_spec(grid: GridMap) -> GridSpec:
    """The grid of a map, as plain resampling would bring any picture to it."""
    height, width = grid.grid
    stretched = grid.scaled == grid.grid
    return GridSpec.model_construct(
        height=height, width=width, fit="stretch" if stretched else "letterbox"
    )


def _completed(near: Float32, plane: np.float32) -> Float32:
    """Inverse depths with what is not known: as the furthest close by, which is right beside edges, else
    on the plane."""
    unknown = cv2.compare(near, 0, cv2.CMP_EQ)
    if not cv2.countNonZero(unknown):
        return near
    nothing = np.full(near.shape, _NO_DEPTH, np.float32)
    far = cv2.copyTo(nothing, unknown, near.copy())
    around = cv2.erode(far, np.ones((7, 7), np.uint8))
    nothing.fill(plane)
    around = cv2.copyTo(nothing, cv2.compare(around, float(_NO_DEPTH), cv2.CMP_GE), around)
    return cv2.copyTo(around, unknown, near.copy())


def _finer(few: Float32, step: int, array: Callable[..., Any], name: str) -> Float32:
    """`step` x `step` values for each, interpolated, in an array of a name that is used again."""
    if step == 1:
        return few
    rows, columns = few.shape[0] * step, few.shape[1] * step
    out: Float32 = array(name, (rows, columns), np.float32)
    return cv2.resize(few, (columns, rows), dst=out, interpolation=cv2.INTER_LINEAR)


def _plus(axis: Float32, share: float, near: Any) -> Float32:
    """axis + share * near, in one pass where both are arrays."""
    if isinstance(near, np.ndarray):
        return cv2.scaleAdd(near, share, axis)
    return axis + np.float32(share) * near


_VIEWS = Cache()


def bound(spec: GridSpec, source: Sight, reference: Sight, plane_m: float = np.inf) -> View:
    """See `ViewSpec.bind`."""
    key = (spec.height, spec.width, spec.fit, reference.key, source.key, plane_m)
    make = lambda: View(lattice_of(spec, reference), source, plane_m)  # noqa: E731
    return _VIEWS.get(key, make)  # type: ignore[no-any-return]
