"""The pose from one camera to another, from a picture of each and the depth of one: matches of the descriptor
network, perspective from points, and, as depth says where all of A is seen by B, the same again from nearer.

Neighbouring matches share what they are off by, so that sigma is a jackknife over parts of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from calibration.joint import differences, moved
from calibration.outcome import Doubted, plain_sigma, sigma_of
from calibration.registration.matching import Matches, everywhere, nearby
from calibration.registration.network import DescriptorGraph, Features
from calibration.registration.pictures import Prepared, prepare
from calibration.registration.register import register
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

_RANSAC_PX, _NEAR_PX = 8.0, 3.0  # at working size
_TRIED = 5000
_ROUNDS = 3
_CELLS, _SMOOTH = 4, 1.5
_BORDER = 32.0  # windows that reach over the edge of a picture are drawn inwards
_JUMP = 0.05  # of the depth within three pixels: an edge, whose depth is that of either side
_FEWEST = 12
_PARTS = 4
_CAUCHY = 1.5
_STEPS = 40
_GOOD_INLIERS, _GOOD_SHARE, _GOOD_PARTS = 40, 0.4, 5
_DOUBT_DEG, _DOUBT_SHARE = 1.0, 0.03


@dataclass(frozen=True)
class PoseFit(Doubted):
    """Where camera A is as B sees it.

    Attributes:
        transform: from A's optical frame to B's.
        covariance: (6, 6) of x, y, z in metres and rotations about B's axes in radians.
        inliers: matches within 3 pixels at working size.
        matches: that have depth.
        rms_px: root mean square of the inliers, in pixels of B.
        depth_m: the usual depth of the inliers.
        doubts: why it is not to be trusted.
    """

    transform: RigidTransform
    covariance: Float64
    inliers: int
    matches: int
    rms_px: float
    depth_m: float
    doubts: tuple[str, ...] = ()

    @property
    def sigma(self) -> Float64:
        """(6,) standard deviations."""
        return sigma_of(self.covariance)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "a_to_b": self.transform.matrix.tolist(),
            "sigma": plain_sigma(self.sigma),
            "covariance": self.covariance.tolist(),
            "inliers": self.inliers,
            "matches": self.matches,
            "rms_px": self.rms_px,
            "distance_m": self.depth_m,
            "doubts": list(self.doubts),
            "trusted": self.trusted,
        }


@dataclass(frozen=True)
class _Pair:
    """Both pictures at working size, what describes them, A's depth and the cameras."""

    first: Prepared
    second: Prepared
    of_b: Features
    depth: Float64
    cameras: tuple[CameraModel, CameraModel]

    @property
    def scale(self) -> float:
        """Pixels of B in one at working size."""
        return float(1 / self.second.to_work[0, 0])

    def seen(self, matches: Matches) -> tuple[Float64, Float64, Float64]:
        """(N, 3) points in A's frame, (N, 2) pixels of B and weights, of matches that have depth."""
        if not len(matches.a):
            return np.zeros((0, 3)), np.zeros((0, 2)), np.zeros(0)
        a = _mapped(np.linalg.inv(self.first.to_work), matches.a)
        b = _mapped(np.linalg.inv(self.second.to_work), matches.b)
        z = _sampled(self.depth, a)
        points = self.cameras[0].unproject(a, z)
        good = np.isfinite(points).all(axis=1) & (z > 0)
        return points[good], b[good], matches.weight[good]


def register_pose(
    a: NDArray[Any],
    b: NDArray[Any],
    depth: NDArray[np.float32],
    cameras: tuple[CameraModel, CameraModel],
    graph: DescriptorGraph,
    names: tuple[str, str] = ("A", "B"),
) -> PoseFit:
    """Find where camera A is as camera B sees it.

    Args:
        a, b: (H, W) pictures of any sensors.
        depth: (H, W) metres along A's optical axis, in A's pixels; what is not finite is not known.
        cameras: intrinsics of both.
        graph: what describes pictures.
        names: of the pictures, for errors.

    Raises:
        InputError: a picture that cannot be used.
        CalibrationError: sizes that differ from a camera's, or too few matches that have depth.
    """
    for image, camera, name in zip((a, b), cameras, names, strict=True):
        _check_size(image, camera, name)
    _check_size(depth, cameras[0], "depth of A")
    first, second = prepare(a, name=names[0]), prepare(b, name=names[1])
    of_b = graph.describe(second.gray, second.valid)
    pair = _Pair(first, second, of_b, np.asarray(depth, np.float64), cameras)
    matches = _first_matches(a, b, pair, graph, names)
    transform = _ransac(pair, matches)
    for _ in range(_ROUNDS):
        found = _again(pair, transform, graph)
        if len(pair.seen(found)[0]) < _FEWEST:
            break
        matches = found
        transform = _refined(pair, matches, transform)
    return _judged(pair, matches, _refined(pair, matches, transform))


def _check_size(image: NDArray[Any], camera: CameraModel, name: str) -> None:
    if image.shape[:2] != (camera.height, camera.width):
        raise CalibrationError(
            f"is {image.shape[1]}x{image.shape[0]}, its camera {camera.width}x{camera.height}",
            where=name,
            hint="intrinsics, picture and depth of A have one size",
        )


def _mapped(matrix: NDArray[Any], points: Float64) -> Float64:
    return np.asarray(cv2.perspectiveTransform(points[None].astype(np.float64), matrix)[0])


def _sampled(depth: Float64, pixels: Float64) -> Float64:
    """(N,) depth at pixels; NaN at edges of things, and where there is none."""
    known = np.isfinite(depth) & (depth > 0)
    near = cv2.erode(np.where(known, depth, 0.0), np.ones((3, 3)))
    far = cv2.dilate(np.where(known, depth, np.inf), np.ones((3, 3)))
    plain = known & (near > 0) & (far - near < _JUMP * near)
    x, y = np.rint(pixels).astype(np.int64).T
    inside = (x >= 0) & (y >= 0) & (x < depth.shape[1]) & (y < depth.shape[0])
    found = np.full(len(pixels), np.nan)
    at = y[inside], x[inside]
    found[inside] = np.where(plain[at], depth[at], np.nan)
    return found


def _first_matches(
    a: NDArray[Any], b: NDArray[Any], pair: _Pair, graph: DescriptorGraph, names: tuple[str, str]
) -> Matches:
    """Those of everything with everything, and those near the homography that is likeliest."""
    of_a = graph.describe(pair.first.gray, pair.first.valid)
    parts = [everywhere(of_a, pair.of_b)]
    whole = register(a, b, graph, names).matrix
    matrix = pair.second.to_work @ whole @ np.linalg.inv(pair.first.to_work)
    height, width = pair.second.shape
    gray = cv2.warpPerspective(pair.first.gray, matrix, (width, height))
    valid = cv2.warpPerspective(pair.first.valid.astype(np.uint8), matrix, (width, height)) > 0
    if valid.mean() > 0.02:
        warped = graph.describe(np.asarray(gray, np.float32), valid)
        parts.append(nearby(warped, pair.of_b, matrix, _CELLS, _SMOOTH))
    return Matches(*(np.concatenate([getattr(p, n) for p in parts]) for n in ("a", "b", "weight")))


def _ransac(pair: _Pair, matches: Matches) -> RigidTransform:
    points, pixels, _ = pair.seen(matches)
    camera = pair.cameras[1]
    rays = camera.unproject(pixels, 1.0)[:, :2]
    good = np.isfinite(rays).all(axis=1)
    if good.sum() >= _FEWEST:
        found, turn, move, inliers = cv2.solvePnPRansac(
            points[good],
            np.ascontiguousarray(rays[good]),
            np.eye(3),
            None,
            iterationsCount=_TRIED,
            reprojectionError=_RANSAC_PX * pair.scale / camera.fx,
            confidence=0.9999,
            flags=cv2.SOLVEPNP_SQPNP,
        )
        if found and inliers is not None and len(inliers) >= _FEWEST // 2:
            return RigidTransform(cv2.Rodrigues(turn)[0], move.ravel())
    raise CalibrationError(
        f"{int(good.sum())} matches have depth, and no pose fits {_FEWEST // 2} of them",
        hint="pictures of one scene with structure in both, and depth where it is",
    )


def _again(pair: _Pair, transform: RigidTransform, graph: DescriptorGraph) -> Matches:
    """Matches of A, as B would see it from where it is, with B in windows around."""
    origin = _origins(pair, transform)
    known: NDArray[np.bool_] = np.isfinite(origin[..., 0])
    maps = np.where(known[..., None], origin, -1).astype(np.float32)
    gray = cv2.remap(pair.first.gray, maps[..., 0], maps[..., 1], cv2.INTER_LINEAR)
    if known.mean() < 0.02:
        return Matches(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    warped = graph.describe(np.asarray(gray, np.float32), known)
    found = nearby(warped, pair.of_b, np.eye(3), _CELLS, _SMOOTH)
    if not len(found.a):
        return found
    x, y = np.rint(found.a).astype(np.int64).T
    from_a = origin[np.clip(y, 0, len(origin) - 1), np.clip(x, 0, origin.shape[1] - 1)]
    shift = found.a - np.column_stack([x, y])
    good = np.isfinite(from_a).all(axis=1)
    for places in (found.a, found.b):
        low, high = places.min(axis=1), (np.array(origin.shape[1::-1]) - 1 - places).min(axis=1)
        good &= (low > _BORDER) & (high > _BORDER)
    inner = np.array(pair.first.shape[::-1]) - 1 - _BORDER
    good &= ((from_a > _BORDER) & (from_a < inner)).all(axis=1)
    return Matches(from_a[good] + shift[good], found.b[good], found.weight[good])


def _origins(pair: _Pair, transform: RigidTransform) -> Float64:
    """(h, w, 2) at B's working size, which place of A at its working size is seen there; NaN for none."""
    height, width = pair.first.shape
    y, x = np.mgrid[0:height, 0:width]
    work = np.column_stack([x.ravel(), y.ravel()]).astype(np.float64)
    pixels = _mapped(np.linalg.inv(pair.first.to_work), work)
    column, row = np.rint(pixels).astype(np.int64).T
    column, row = (
        np.clip(column, 0, pair.depth.shape[1] - 1),
        np.clip(row, 0, pair.depth.shape[0] - 1),
    )
    points = transform.apply(pair.cameras[0].unproject(pixels, pair.depth[row, column]))
    seen, valid = pair.cameras[1].project(np.nan_to_num(points, nan=-1.0))
    at = np.rint(_mapped(pair.second.to_work, np.nan_to_num(seen))).astype(np.int64)
    size = pair.second.shape
    valid &= np.isfinite(points).all(axis=1)
    valid &= (at >= 0).all(axis=1) & (at[:, 0] < size[1]) & (at[:, 1] < size[0])
    order = np.flatnonzero(valid)[np.argsort(-points[valid, 2])]  # what is nearest is written last
    origin = np.full((*size, 2), np.nan)
    origin[at[order, 1], at[order, 0]] = work[order]
    return _filled(origin)


def _filled(origin: Float64) -> Float64:
    """Gaps of a pixel between places that moved apart get the mean of those around."""
    known = np.isfinite(origin[..., 0]).astype(np.float64)
    near = cv2.boxFilter(known, -1, (3, 3), normalize=False)
    total = cv2.boxFilter(np.nan_to_num(origin), -1, (3, 3), normalize=False)
    fill = (known == 0) & (near >= 3)
    found = origin.copy()
    found[fill] = (total / np.maximum(near, 1)[..., None])[fill]
    return found


def _missed(
    pair: _Pair, transform: RigidTransform, points: Float64, pixels: Float64
) -> tuple[Float64, NDArray[np.bool_]]:
    """(N, 2) pixels at working size by which points are off, and which are seen at all."""
    put, valid = pair.cameras[1].project(transform.apply(points))
    return np.where(valid[:, None], pixels - put, 1e4) / pair.scale, valid


def _refined(pair: _Pair, matches: Matches, start: RigidTransform) -> RigidTransform:
    points, pixels, weight = pair.seen(matches)
    root = np.sqrt(weight / max(float(weight.max(initial=0)), 1e-9))[:, None]

    def residuals(x: Float64) -> Float64:
        return (_missed(pair, moved(start, x), points, pixels)[0] * root).ravel()

    done = least_squares(
        residuals, np.zeros(6), loss="cauchy", f_scale=_CAUCHY, x_scale="jac", max_nfev=_STEPS
    )
    return moved(start, done.x)


def _judged(pair: _Pair, matches: Matches, transform: RigidTransform) -> PoseFit:
    points, pixels, weight = pair.seen(matches)
    missed, valid = _missed(pair, transform, points, pixels)
    near = valid & (np.linalg.norm(missed, axis=1) < _NEAR_PX)
    if near.sum() < _FEWEST // 2:
        raise CalibrationError("too few matches agree on a pose", hint="do both show one scene?")
    camera = pair.cameras[1]
    part = np.floor((pixels + 0.5) / [camera.width, camera.height] * _PARTS).astype(int)
    part = np.clip(part, 0, _PARTS - 1) @ [1, _PARTS]
    covariance = _jackknifed(pair, transform, points[near], pixels[near], weight[near], part[near])
    found = PoseFit(
        transform,
        covariance,
        int(near.sum()),
        len(points),
        float(np.sqrt(np.mean(np.sum(missed[near] ** 2, axis=1)))) * pair.scale,
        float(np.median(points[near, 2])),
    )
    share, parts = float(weight[near].sum() / weight.sum()), len(np.unique(part[near]))
    doubts = []
    if found.inliers < _GOOD_INLIERS or share < _GOOD_SHARE:
        doubts.append(f"{found.inliers} of {found.matches} matches with depth agree on a pose")
    if parts < _GOOD_PARTS:
        doubts.append(f"they lie in {parts} of {_PARTS**2} parts of the picture")
    move = float(np.linalg.norm(found.sigma[:3]))
    turn = float(np.degrees(np.linalg.norm(found.sigma[3:])))
    if not (move < _DOUBT_SHARE * found.depth_m and turn < _DOUBT_DEG):
        doubts.append(f"it is known to {100 * move:.1f} cm and {turn:.2f} degrees only")
    return PoseFit(**{**vars(found), "doubts": tuple(doubts)})


def _jackknifed(
    pair: _Pair,
    transform: RigidTransform,
    points: Float64,
    pixels: Float64,
    weight: Float64,
    part: NDArray[np.int64],
) -> Float64:
    """(6, 6) by leaving out parts of the picture, to first order; at least that of the residuals."""

    def put(x: Float64) -> Float64:
        return _missed(pair, moved(transform, x), points, pixels)[0].ravel()

    root = np.repeat(np.sqrt(weight), 2)
    slope, off = differences(put, np.zeros(6)) * root[:, None], put(np.zeros(6)) * root
    total, whole = slope.T @ slope, np.linalg.pinv(slope.T @ slope, hermitian=True)
    moves = []
    for own in np.unique(part):
        rows = np.repeat(part == own, 2)
        inner, right = slope[rows].T @ slope[rows], slope[rows].T @ off[rows]
        moves.append(np.linalg.lstsq(total - inner, right, rcond=None)[0])
    apart = np.array(moves) - np.mean(moves, axis=0)
    between = (len(moves) - 1) / len(moves) * apart.T @ apart
    middle = slope.T @ (slope * (off**2)[:, None])
    plain = whole @ middle @ whole
    scatter = float(np.trace(np.linalg.pinv(plain, hermitian=True) @ between)) / 6
    return np.asarray(plain * max(1.0, scatter))
