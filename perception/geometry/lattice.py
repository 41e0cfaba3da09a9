"""The pixels of a reference's grid, and how far away what they show is: of a depth picture, from wherever."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.geometry.grid import GridMap, GridSpec
from perception.geometry.sights import Cache, Float32, Key, Sight

_LATTICE_PIXELS = 40_000
"""Depth and what follows from it are computed for no more pixels than this, those between interpolated."""

STILL_M = 1e-5
"""What is nearer than this along the optical axis lies in the camera, or behind it."""


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
        self._splats = Cache()
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
        seen = (away > STILL_M) & (column > -0.5) & (row > -0.5)
        seen &= (column < columns - 0.5) & (row < rows - 0.5)
        if within is not None:
            seen &= within
        column, row, near = column[seen], row[seen], near[seen]
        out = np.zeros(rows * columns, np.float32)
        flat = np.rint(row).astype(np.intp) * columns + np.rint(column).astype(np.intp)
        np.maximum.at(out, flat, near)
        return cv2.morphologyEx(out.reshape(rows, columns), cv2.MORPH_CLOSE, self._closing)


_LATTICES = Cache()


def lattice_of(spec: GridSpec, reference: Sight) -> Lattice:
    """The lattice of a grid; the same one as long as nothing of the calibration changes."""
    key = (spec.height, spec.width, spec.fit, reference.key)
    return _LATTICES.get(key, lambda: Lattice(spec, reference))  # type: ignore[no-any-return]
