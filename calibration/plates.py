"""The plate that a board is mounted on, found in a LiDAR's cloud without a guess where it is.

Flat pieces grow from seeds all over the cloud; those about as large as the plate are compared with its
outline, which lies half way between the last ray that hit it and the next one that passed it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from calibration.boards import Board
from calibration.scans import Scan
from perception.errors import ConfigError
from perception.geometry.transforms import Float64, RigidTransform

_LARGEST_M = 20.0
_HINT = "WIDTHxHEIGHT in metres, along the board's columns first: 0.61x0.85"
_OFFSET_HINT = "XxY in metres, along the board's columns first: 0.02x-0.05"

_SEED_SHARE, _PATCH_SHARE = 0.3, 0.45  # of the plate's shorter side
_FEWEST_LINES = 2.5
_FEWEST_HITS, _FEWEST_EDGES = 25, 8
_TRIES = 40
_FLAT_M, _FLAT_SHARE, _SURELY = 0.03, 0.6, 0.85
_BEHIND_M = 0.08
_LINK = 1.7
_TOO_LARGE, _TOO_SMALL = 0.72, 0.3
_GAP_STEPS = 4.2
_EDGE_M = 0.02
_NEAR_M, _NEAR_SHARE = 0.04, 0.6
_COVERED, _PIERCED = 0.85, 0.12
_MOST = 6
_STARTS, _FITTED = 3, 25
_SAME_COSINE = 0.98
_LEAST_NOISE_M = 0.002


@dataclass(frozen=True)
class Plate:
    """A rectangular plate with a board's pattern on it, in its middle or beside.

    Its frame: the origin in the middle, x along the board's rows of points, y along its columns, z into it.

    Attributes:
        width_m, height_m: along x and y.
        offset_m: along x and y, by how much the pattern's middle is off the plate's.

    Raises:
        ConfigError: sizes that cannot be.
    """

    width_m: float
    height_m: float
    offset_m: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not (0 < self.width_m <= _LARGEST_M and 0 < self.height_m <= _LARGEST_M):
            problem = f"{self.width_m:g}x{self.height_m:g} m is no size of a plate"
            raise ConfigError(problem, where="--plate", hint=_HINT)
        if not (np.abs(self.offset_m) < self.halves).all():  # NaN, too
            x, y = self.offset_m
            problem = f"{x:g}x{y:g} m is not on a plate of {self.width_m:g}x{self.height_m:g}"
            raise ConfigError(problem, where="--plate-offset", hint=_OFFSET_HINT)

    @property
    def pattern(self) -> Float64:
        """(3,) the pattern's middle in the plate's frame."""
        return np.array([*self.offset_m, 0.0])

    @property
    def halves(self) -> Float64:
        """(2,) half the width and half the height."""
        return np.array([self.width_m, self.height_m]) / 2

    @property
    def diagonal_m(self) -> float:
        """From corner to corner."""
        return math.hypot(self.width_m, self.height_m)

    def check(self, board: Board) -> None:
        """Refuse a plate on which the board has no room.

        Raises:
            ConfigError: it has none.
        """
        across = np.ptp(board.points[:, :2], axis=0)
        needed = across + (2 * board.square_m if board.kind in ("chessboard", "charuco") else 0)
        size = np.array([self.width_m, self.height_m])
        if self.offset_m != (0.0, 0.0) and not board.one_way:
            raise ConfigError(
                f"{board} looks the same upside down: to which side its pattern is off cannot be told",
                where="--plate-offset",
                hint="a chessboard of one even and one odd count, ChArUco, or an AprilGrid can tell",
            )
        if (needed <= size + 1e-6).all() and (
            needed + 2 * np.abs(self.offset_m) > size + 1e-6
        ).any():
            raise ConfigError(
                f"{board} so far off the middle reaches beyond {self.width_m:g}x{self.height_m:g}",
                where="--plate-offset",
                hint=_OFFSET_HINT,
            )
        if (needed > size + 1e-6).any():
            turned = bool((needed <= size[::-1] + 1e-6).all())
            raise ConfigError(
                f"{board} is {needed[0]:.3g}x{needed[1]:.3g} m, more than {self.width_m:g}x{self.height_m:g}",
                where="--plate",
                hint=f"{self.height_m:g}x{self.width_m:g} would do; {_HINT}" if turned else _HINT,
            )

    def __str__(self) -> str:
        return f"{self.width_m:g}x{self.height_m:g}"


def parse_plate(text: str, offset: str | None = None) -> Plate:
    """The plate that an argument such as `0.61x0.85` says, and by how much its pattern is off the middle.

    Raises:
        ConfigError: no two sizes, or no two offsets.
    """
    width, height = _two(text, "--plate", _HINT)
    return Plate(
        width, height, _two(offset, "--plate-offset", _OFFSET_HINT) if offset else (0.0, 0.0)
    )


def _two(text: str, option: str, hint: str) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in text.lower().split("x"))
    except ValueError as error:
        raise ConfigError(f"'{text}' is no size", where=option, hint=hint) from error
    return first, second


@dataclass(frozen=True)
class PlateView:
    """A plate in one cloud.

    Attributes:
        pose: from the plate's frame to the sensor's; a turn by 180 degrees about z cannot be seen.
        lines: (K, 4, 4) sums of [x, y, z, 1] by itself over the points on it, by scan line: all that a plane
            needs to know of them.
        noise_m: standard deviation of points about the middle of their line.
        line_off_m: (K,) how far the middle of each line is off the plane.
        edges: (M, 3) metres, where rays just miss it.
        edge_sigma_m: (M,) half way between two rays may be off by so much.
        misfit: root mean square distance of the edges from the outline, in metres.
    """

    pose: RigidTransform
    lines: Float64
    noise_m: float
    line_off_m: Float64
    edges: Float64
    edge_sigma_m: Float64
    misfit: float

    @property
    def counts(self) -> Float64:
        """(K,) points of each line."""
        return self.lines[:, 3, 3]

    @property
    def center(self) -> Float64:
        """(3,) metres."""
        return self.pose.translation

    @property
    def normal(self) -> Float64:
        """(3,) unit vector away from the sensor."""
        return self.pose.rotation[:, 2]


@dataclass(frozen=True)
class _Piece:
    """A flat piece of a cloud."""

    hits: NDArray[np.intp]
    center: Float64
    axes: Float64  # rows: two in the plane, and its normal away from the sensor


def outline_distance(places: Float64, halves: Float64) -> Float64:
    """(M,) signed distances of (M, 2) places from a rectangle's outline, positive outside of it."""
    off = np.abs(places) - halves
    outside = np.hypot(*np.maximum(off, 0).T)
    return np.asarray(np.where((off > 0).any(axis=1), outside, off.max(axis=1)))


def find_plates(points: Float64, plate: Plate) -> list[PlateView]:
    """Everything in a cloud that might be the plate, the likeliest first; at most six.

    Args:
        points: (N, 3) float64 metres in the sensor's own frame.
        plate: what to find.
    """
    scan = Scan(points)
    found: list[PlateView] = []
    for piece in flat_pieces(scan, plate):
        if any(_same(view, piece.center, piece.axes[2]) for view in found):
            continue
        view = _fitted(scan, piece, plate)
        if view is not None and not any(_same(o, view.center, view.normal) for o in found):
            found.append(view)
    return sorted(found, key=lambda view: view.misfit)[:_MOST]


def _same(view: PlateView, center: Float64, normal: Float64) -> bool:
    """Whether a piece was found before, from another seed."""
    near = float(np.linalg.norm(view.center - center)) < _BEHIND_M
    return near and abs(float(view.normal @ normal)) > _SAME_COSINE


def flat_pieces(scan: Scan, plate: Plate) -> list[_Piece]:
    """Flat pieces of a cloud that are about as large as a plate."""
    short = min(plate.width_m, plate.height_m)
    lines = short / np.maximum(scan.spacing * scan.ranges, 1e-9)
    own = np.flatnonzero((lines > _FEWEST_LINES) & (scan.ranges > 0.1 * short))
    if len(own) < _FEWEST_HITS:
        return []
    near, rng = scan.points[own], np.random.default_rng(0)
    tree, free = cKDTree(near), np.ones(len(own), bool)
    cells = np.floor(near / (_SEED_SHARE * short)).astype(np.int64)
    seeds = np.unique(cells, axis=0, return_index=True)[1]
    pieces = []
    for seed in seeds[np.argsort(scan.ranges[own[seeds]])]:
        if not free[seed]:
            continue
        patch = np.array(tree.query_ball_point(near[seed], _PATCH_SHARE * short))
        plane = _plane(near[patch], rng)
        if plane is None:
            continue
        center, normal, share = plane
        around = np.array(tree.query_ball_point(near[seed], 1.3 * plate.diagonal_m))
        member = around[:0]
        thick = _FLAT_M
        for _ in range(3):
            flat = around[np.abs((near[around] - center) @ normal) < thick]
            reach = max(_LINK * scan.spacing, 4 * scan.step) * scan.ranges[own[seed]]
            member = _linked(near, flat, seed, center, normal, reach)
            if len(member) < _FEWEST_HITS:
                break
            center = near[member].mean(axis=0)
            _, spread, axes = np.linalg.svd(near[member] - center, full_matrices=False)
            normal = axes[2]
            thick = min(max(_FLAT_M, 3.5 * spread[2] / math.sqrt(len(member))), 2 * _FLAT_M)
        if len(member) < _FEWEST_HITS:
            continue
        size = np.linalg.norm(near[member] - center, axis=1).max()
        if size > _TOO_LARGE * plate.diagonal_m + reach:
            # A wall: what lies around the seed starts no piece of its own.
            around_seed = np.linalg.norm(near[member] - near[seed], axis=1)
            wide = 0.5 * plate.diagonal_m if share > _SURELY else 0.3 * short
            free[member[around_seed < wide]] = False
            continue
        close = np.linalg.norm(near[around] - center, axis=1) < size + 0.05
        free[around[close & (np.abs((near[around] - center) @ normal) < _BEHIND_M)]] = False
        if size > _TOO_SMALL * plate.diagonal_m:
            pieces.append(_piece(own[member], center, normal))
    return pieces


def _piece(hits: NDArray[np.intp], center: Float64, normal: Float64) -> _Piece:
    normal = normal * np.sign(normal @ center or 1.0)
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first /= np.linalg.norm(first)
    return _Piece(hits, center, np.stack([first, np.cross(normal, first), normal]))


def _plane(points: Float64, rng: np.random.Generator) -> tuple[Float64, Float64, float] | None:
    """Center, normal and share of the points of the plane that most of a patch lies in."""
    if len(points) < 12:
        return None
    picked = points[rng.integers(0, len(points), (_TRIES, 3))]
    normals = np.cross(picked[:, 1] - picked[:, 0], picked[:, 2] - picked[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    good = lengths > 1e-6
    if not good.any():
        return None
    normals, picked = normals[good] / lengths[good, None], picked[good]
    off = np.abs(points @ normals.T - np.sum(picked[:, 0] * normals, axis=1))
    inner = off < _FLAT_M
    best = int(inner.sum(axis=0).argmax())
    share = float(inner[:, best].mean())
    if share < _FLAT_SHARE:
        return None
    own = points[inner[:, best]]
    center = own.mean(axis=0)
    _, spread, axes = np.linalg.svd(own - center, full_matrices=False)
    if spread[1] < 2 * spread[2] or spread[1] < 0.2 * spread[0]:
        return None  # a line of points: any plane about it would do
    return center, axes[2], share


def _linked(
    points: Float64,
    flat: NDArray[np.intp],
    seed: int,
    center: Float64,
    normal: Float64,
    reach: float,
) -> NDArray[np.intp]:
    """Those of `flat` that hang together with what is nearest to the seed."""
    if not len(flat):
        return flat
    off = points[flat] - center
    within = off - np.outer(off @ normal, normal)
    pairs = cKDTree(within).query_pairs(reach, output_type="ndarray")
    count = len(flat)
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (count, count))
    labels = connected_components(links, directed=False)[1]
    nearest = np.linalg.norm(points[flat] - points[seed], axis=1).argmin()
    return flat[labels == labels[nearest]]


def _fitted(scan: Scan, piece: _Piece, plate: Plate) -> PlateView | None:
    """The plate where this piece is; None where it does not look like one."""
    first, second, normal = piece.axes
    depth = float(normal @ piece.center)
    slope = scan.rays @ normal
    with np.errstate(divide="ignore", invalid="ignore"):
        at = depth / slope  # where each ray meets the plane
    meets = slope > 0.05
    places = np.where(meets[:, None], scan.rays * np.where(meets, at, 0)[:, None], 0) - piece.center
    flat = np.column_stack([places @ first, places @ second])
    local = np.flatnonzero(meets & (np.hypot(*flat.T) < 0.95 * plate.diagonal_m))
    beyond = (scan.ranges - at) * slope
    noise = float(np.std((scan.points[piece.hits] - piece.center) @ normal))
    on = np.zeros(len(scan.points), bool)
    on[local] = np.abs(beyond[local]) < max(_FLAT_M, 3.5 * noise)
    passed = np.zeros(len(scan.points), bool)
    passed[local] = beyond[local] > _BEHIND_M
    hits = piece.hits[on[piece.hits]]
    if len(hits) < _FEWEST_HITS:
        return None
    edges, sigma = _edges(scan, hits, local, on, passed, flat)
    if len(edges) < _FEWEST_EDGES:
        return None
    best = _rectangle(edges, flat[hits], plate)
    if best is None:
        return None
    x, misfit = best
    turned = (flat[local] - x[:2]) @ _turn(x[2])
    inside = outline_distance(turned, plate.halves) < -0.03
    pierced = (passed[local] & inside).sum() / max(1, (on[local] & inside).sum())
    own = outline_distance((flat[hits] - x[:2]) @ _turn(x[2]), plate.halves) < 0.05
    if pierced > _PIERCED or own.mean() < _COVERED or _empty(turned[on[local]], plate):
        return None
    return _view(scan, piece, plate, hits[own], edges, sigma, x, misfit)


def _turn(angle: float) -> Float64:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _empty(hits: Float64, plate: Plate) -> bool:
    """Whether a quarter of the plate got no hit at all."""
    inner = hits[outline_distance(hits, plate.halves) < 0]
    quarter = (inner[:, 0] > 0) * 2 + (inner[:, 1] > 0)
    return len(np.unique(quarter)) < 4


def _edges(
    scan: Scan,
    hits: NDArray[np.intp],
    local: NDArray[np.intp],
    on: NDArray[np.bool_],
    passed: NDArray[np.bool_],
    flat: Float64,
) -> tuple[Float64, Float64]:
    """(M, 2) places in the plane half way between a hit and the next ray that passed, and their sigma."""
    found, sigma = [], []
    for side, sign in zip(scan.beside(hits, local, _GAP_STEPS), (1, -1), strict=True):
        there = side >= 0
        beside = there & passed[side] & ~on[side]
        mine, other = flat[hits[beside]], flat[side[beside]]
        found.append((mine + other) / 2)
        sigma.append(np.linalg.norm(mine - other, axis=1) / math.sqrt(12))
        # Where nothing came back at all, the next ray is one step on.
        lost = hits[~there]
        x, y, _ = scan.points[lost].T
        along = np.column_stack([-y, x, 0 * x]) * sign * scan.step
        step = along @ _basis(scan, hits, flat).T
        found.append(flat[lost] + step / 2)
        sigma.append(np.linalg.norm(step, axis=1) / math.sqrt(12) * 2)
    return np.concatenate(found), np.maximum(np.concatenate(sigma), _LEAST_NOISE_M)


def _basis(scan: Scan, hits: NDArray[np.intp], flat: Float64) -> Float64:
    """(2, 3) how places in the plane change with points, from the hits themselves."""
    points = scan.points[hits] - scan.points[hits].mean(axis=0)
    places = flat[hits] - flat[hits].mean(axis=0)
    return np.asarray(np.linalg.lstsq(points, places, rcond=1e-3)[0].T)


def _rectangle(edges: Float64, hits: Float64, plate: Plate) -> tuple[Float64, float] | None:
    """Middle and angle of the plate in the plane, and the misfit."""
    middle, _, angle = cv2.minAreaRect(hits.astype(np.float32))
    starts = [
        np.array([*middle, turn])
        for turn in np.radians(angle) + np.radians([0, 90, 30, 60, 120, 150])
    ]

    def missed(x: Float64) -> Float64:
        return outline_distance((edges - x[:2]) @ _turn(x[2]), plate.halves)

    def cost(x: Float64) -> float:
        return float(np.minimum(np.abs(missed(x)), 2 * _NEAR_M).sum())

    best: tuple[Float64, float] | None = None
    for start in sorted(starts, key=cost)[:_STARTS]:
        done = least_squares(missed, start, loss="soft_l1", f_scale=_EDGE_M, max_nfev=_FITTED)
        off = np.abs(missed(done.x))
        if (off < _NEAR_M).mean() < _NEAR_SHARE:
            continue
        misfit = float(np.sqrt(np.mean(np.minimum(off, _NEAR_M) ** 2)))
        if best is None or misfit < best[1] - 1e-9:
            best = done.x, misfit
    return best


def _view(
    scan: Scan,
    piece: _Piece,
    plate: Plate,
    hits: NDArray[np.intp],
    edges: Float64,
    sigma: Float64,
    x: Float64,
    misfit: float,
) -> PlateView:
    off = (scan.points[hits] - piece.center) @ piece.axes[2]
    spread = 1.4826 * float(np.median(np.abs(off - np.median(off))))
    hits = hits[np.abs(off - np.median(off)) < 3 * max(spread, _LEAST_NOISE_M)]
    points = scan.points[hits]
    normal = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][2]
    off = (points - points.mean(axis=0)) @ normal
    elevation = np.sort(scan.angles[hits, 1])
    starts = elevation[1:][np.diff(elevation) > scan.spacing / 2]
    label = np.searchsorted(starts, scan.angles[hits, 1], side="right")
    rows = np.column_stack([points, np.ones(len(points))])
    counts = np.bincount(label)
    means = np.bincount(label, off) / counts
    lines = np.zeros((len(counts), 4, 4))
    np.add.at(lines, label, rows[:, :, None] * rows[:, None])
    free = max(1, len(points) - len(counts))
    noise = float(np.sqrt(np.sum((off - means[label]) ** 2) / free))
    turn = _turn(x[2])
    axes = turn.T @ piece.axes[:2]
    rotation = np.column_stack([axes[0], axes[1], np.cross(axes[0], axes[1])])
    near = np.abs(outline_distance((edges - x[:2]) @ turn, plate.halves)) < 2 * _NEAR_M
    return PlateView(
        RigidTransform(rotation, piece.center + x[:2] @ piece.axes[:2]),
        lines,
        max(noise, _LEAST_NOISE_M),
        means,
        piece.center + edges[near] @ piece.axes[:2],
        sigma[near],
        misfit,
    )
