"""Pictures of one camera on the grid of another: what a sensor sees, pixel by pixel as the reference does.

Where the two stand apart, where a pixel lies in the other picture depends on how far away is what it shows:
that comes from a depth picture, or is taken to lie on a plane (Hartley and Zisserman, Multiple View Geometry,
2004, 13.1; a plane at infinity gives the homography of a rotation).  What cannot be known is no value.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import CalibrationError
from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.grid import GridMap, GridSpec
from perception.geometry.scratch import ScratchPool
from perception.geometry.transforms import RigidTransform

Float32 = NDArray[np.float32]
Key = tuple[Any, ...]

NEAREST_M = 1.0
"""How near things may be, where it is asked whether two pictures are one."""

_LATTICE_PIXELS = 40_000
"""Depth and what follows from it are computed for no more pixels than this, those between interpolated."""

_OUT = np.float32(-1e5)
"""The coordinate of what is not to be seen: interpolated with any pixel it is still outside."""

_NO_DEPTH = np.float32(1e30)  # finite: OpenCV's border is, too, and would pass for a depth
_STILL_M = 1e-5
_ROUNDED = 5
"""Digits of rotations and metres by which two transforms are one: below a hundredth of a pixel."""

_LEAST_OVERLAP = 0.05
_AREA_BEYOND = 1.5
_HIDDEN_PIXELS = 1.0
_ROWS_AT_A_TIME = 24


_MAPS = ScratchPool()


@dataclass(frozen=True, eq=False)
class Sight:
    """Where the pixels of a sensor's pictures look.

    Attributes:
        camera: its intrinsics, for pictures of this very size.
        extrinsics: from its optical frame to that of the rig's reference; None for the same frame.
    """

    camera: CameraModel
    extrinsics: RigidTransform | None = None

    @staticmethod
    def of(sample: Sample) -> Sight | None:
        """That of a picture; None without intrinsics, or where they are of another size."""
        camera = sample.camera
        if camera is None or (camera.height, camera.width) != sample.data.shape[:2]:
            return None
        return Sight(camera, sample.extrinsics)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        return self.camera.height, self.camera.width

    @cached_property
    def key(self) -> Key:
        """Equal for what makes no difference to any pixel."""
        c, at = self.camera, self.extrinsics or RigidTransform.identity()
        place = np.round(np.append(at.rotation, at.translation), _ROUNDED) + 0.0  # no -0.0
        return c.width, c.height, c.fx, c.fy, c.cx, c.cy, c.distortion, place.tobytes()

    def to(self, other: Sight) -> RigidTransform:
        """From this optical frame to that of another."""
        ours, theirs = (s.extrinsics or RigidTransform.identity() for s in (self, other))
        return theirs.inverse() @ ours

    def angle_to(self, other: Sight) -> float:
        """Radians between the optical axes."""
        return float(np.arccos(np.clip(self.to(other).rotation[2, 2], -1, 1)))


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


class Lattice:
    """The pixels of a reference's grid, coarser where they are many, and how far away what they show is.

    A lattice pixel stands for `step` x `step` of the grid; there is one more of them on each side, so that
    what is interpolated between them reaches the border.

    Args:
        spec: the grid.
        reference: whose picture lies on it.

    Attributes:
        grid: how the picture lies on it.
        step: grid pixels for one of the lattice, each way.
        shape: (rows, columns) of the lattice, the border included.
        key: equal where everything is.
    """

    def __init__(self, spec: GridSpec, reference: Sight) -> None:
        self.reference = reference
        self.key: Key = (spec.height, spec.width, spec.fit, reference.key)
        self._splats = _Cache()
        self.grid = GridMap.fit(reference.size, spec)
        height, width = self.grid.grid
        self.step = 1
        while height * width / self.step**2 > _LATTICE_PIXELS:
            self.step += 1
        self.shape = (-(-height // self.step) + 2, -(-width // self.step) + 2)

    def pixels(self, rows: NDArray[Any], columns: NDArray[Any]) -> tuple[Any, Any]:
        """Coordinates u, v in the reference's picture of grid pixels."""
        sx, sy = self.grid.scale
        return (columns + 0.5) / sx - 0.5, (rows + 0.5) / sy - 0.5

    def rays(self, rows: NDArray[Any], columns: NDArray[Any]) -> Float32:
        """(3, R, C) float32: where the grid's pixels meet the plane z = 1, NaN outside of the picture."""
        u, v = self.pixels(*np.meshgrid(rows, columns, indexing="ij"))
        height, width = self.grid.source
        inside = (u > -1) & (v > -1) & (u < width) & (v < height)
        found = self.reference.camera.unproject(np.column_stack([u.ravel(), v.ravel()]), 1.0)
        found[~inside.ravel()] = np.nan
        return np.ascontiguousarray(found.T.reshape(3, *u.shape), np.float32)

    @cached_property
    def centers(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows and columns of the grid that the lattice's pixels stand for."""
        half = (self.step - 1) / 2
        rows, columns = (np.arange(n, dtype=np.float64) - 1 for n in self.shape)
        return rows * self.step + half, columns * self.step + half

    @cached_property
    def own_rays(self) -> Float32:
        """`rays` of the lattice; the border's, outside of what lens models are for, go on as those within."""
        rows, columns = self.centers
        found = np.pad(self.rays(rows[1:-1], columns[1:-1]), ((0, 0), (1, 1), (1, 1)))
        for edge, next_, after in ((0, 1, 2), (-1, -2, -3)):
            found[:, edge, :] = 2 * found[:, next_, :] - found[:, after, :]
        for edge, next_, after in ((0, 1, 2), (-1, -2, -3)):
            found[:, :, edge] = 2 * found[:, :, next_] - found[:, :, after]
        return found.astype(np.float32)

    @cached_property
    def _nearest(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        u, v = self.pixels(*self.centers)
        height, width = self.grid.source
        rows = np.floor(v + 0.5).clip(0, height - 1).astype(np.intp)
        return rows, np.floor(u + 0.5).clip(0, width - 1).astype(np.intp)

    def inverse_depth(self, depth: Float32, sight: Sight | None) -> Float32:
        """1/z of the lattice's pixels in the reference's frame, 0 where it is not known.

        Args:
            depth: (H, W) metres along the optical axis; what is not finite or not positive is unknown.
            sight: of the sensor that measured it; None where its pixels are the reference's.

        Returns:
            `shape` float32, 1/m.
        """
        with np.errstate(all="ignore"):
            if sight is not None:
                splat = self._splats.get(sight.key, lambda: _Splat(self, sight))
                return splat.inverse_depth(depth)
            if depth.shape != self.grid.source:
                depth = cv2.resize(depth, self.grid.source[::-1], interpolation=cv2.INTER_NEAREST)
            rows, columns = self._nearest
            found = depth.take(rows, axis=0).take(columns, axis=1)
            near = np.float32(1) / found
            near[~((found > 0) & (found < np.inf))] = 0
            return near

    def depth_of(self, near: Float32) -> Float32:
        """(height, width) metres on the grid of `inverse_depth`, NaN where it is not known."""
        with np.errstate(divide="ignore"):
            z = np.float32(1) / near[1:-1, 1:-1]
        z[~(z < np.inf)] = np.nan
        height, width = self.grid.grid
        if self.step > 1:
            whole = (z.shape[1] * self.step, z.shape[0] * self.step)
            z = cv2.resize(z, whole, interpolation=cv2.INTER_NEAREST)
        return np.ascontiguousarray(z[:height, :width])


class _Splat:
    """Points of a depth picture, each brought to the lattice's pixel that shows it; the nearest one wins."""

    def __init__(self, lattice: Lattice, sight: Sight) -> None:
        self._lattice = lattice
        height, width = sight.size
        self._stride = 1
        while height * width / self._stride**2 > _LATTICE_PIXELS:
            self._stride += 1
        v, u = np.mgrid[0 : height : self._stride, 0 : width : self._stride]
        rays = sight.camera.unproject(np.column_stack([u.ravel(), v.ravel()]), 1.0)
        to = sight.to(lattice.reference)
        self._turned = np.ascontiguousarray((rays @ to.rotation.T).T, np.float32)
        self._shift = to.translation.astype(np.float32)
        # Cracks between points that lie further apart than the lattice's pixels are closed.
        sx, _ = lattice.grid.scale
        ours = lattice.reference.camera.fx * sx / lattice.step
        apart = ours / (sight.camera.fx / self._stride)
        side = 2 * min(8, max(1, int(np.ceil(apart)))) + 1
        self._closing = np.ones((side, side), np.uint8)

    def inverse_depth(self, depth: Float32) -> Float32:
        lattice = self._lattice
        z = np.ascontiguousarray(depth[:: self._stride, :: self._stride]).ravel()
        kept = np.flatnonzero((z > 0) & (z < np.inf))
        z = z.take(kept)
        x, y, away = (
            axis.take(kept) * z + shift
            for axis, shift in zip(self._turned, self._shift, strict=True)
        )
        near = np.float32(1) / away
        x *= near
        y *= near
        u, v, within = lattice.reference.camera.pixels_of(x, y)
        sx, sy = lattice.grid.scale
        half = (lattice.step - 1) / 2
        # u in the picture -> grid -> lattice, whose first pixel is the border's.
        column = ((u + 0.5) * sx - 0.5 - half) / lattice.step + 1
        row = ((v + 0.5) * sy - 0.5 - half) / lattice.step + 1
        rows, columns = lattice.shape
        seen = (away > _STILL_M) & (column > -0.5) & (row > -0.5)
        seen &= (column < columns - 0.5) & (row < rows - 0.5)
        if within is not None:
            seen &= within
        column, row, near = column[seen], row[seen], near[seen]
        out = np.zeros(rows * columns, np.float32)
        flat = np.rint(row).astype(np.intp) * columns + np.rint(column).astype(np.intp)
        np.maximum.at(out, flat, near)
        return cv2.morphologyEx(out.reshape(rows, columns), cv2.MORPH_CLOSE, self._closing)


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
            seen = z > _STILL_M  # False for NaN
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


_KEPT = 32
"""Views that are kept: of all sensors and references of a robot, and of a calibration before."""


class _Cache:
    """What was made of keys, the last ones of them.  Safe to use from several threads."""

    def __init__(self) -> None:
        self._made: dict[Key, Any] = {}
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Any]) -> Any:
        """What was made of a key before, else now; two threads may make the same at a time."""
        with self._lock:
            found = self._made.get(key)
        if found is None:
            found = make()
        with self._lock:
            self._made.pop(key, None)
            self._made[key] = found
            while len(self._made) > _KEPT:
                del self._made[next(iter(self._made))]
        return found


_LATTICES, _VIEWS = _Cache(), _Cache()


def lattice_of(spec: GridSpec, reference: Sight) -> Lattice:
    """The lattice of a grid; the same one as long as nothing of the calibration changes."""
    key = (spec.height, spec.width, spec.fit, reference.key)
    return _LATTICES.get(key, lambda: Lattice(spec, reference))  # type: ignore[no-any-return]


def bound(spec: GridSpec, source: Sight, reference: Sight, plane_m: float = np.inf) -> View:
    """See `ViewSpec.bind`."""
    key = (spec.height, spec.width, spec.fit, reference.key, source.key, plane_m)
    make = lambda: View(lattice_of(spec, reference), source, plane_m)  # noqa: E731
    return _VIEWS.get(key, make)  # type: ignore[no-any-return]
