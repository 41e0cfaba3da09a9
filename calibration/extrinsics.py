"""Where a LiDAR sits to a camera, from poses of a board that both saw: the procedure, without a guess."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.boards import Board
from calibration.detection import BoardView, Detections
from calibration.diagnosis import explain_mismatch, explain_no_plates
from calibration.fitting import rms
from calibration.joint import (
    BoardPose,
    Joint,
    Pair,
    board_pose,
    fit_joint,
    plate_alone,
)
from calibration.outcome import Doubted, plain_sigma, sigma_of
from calibration.pairing import Match, Places, match, nearest_rotation
from calibration.plates import Plate, PlateView, find_plates
from calibration.scans import read_points
from perception.errors import AnySenseError, CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

FEWEST_POSES = 4
"""Fewer leave none to check the others with."""

NO_PICTURE = "no picture of this name"

_GOOD_POSES = 10
_FOLDS = 5
_LEAST_TILT, _GOOD_TILT = 10.0, 25.0
_BLURRED, _BLURRED_PX = 0.35, 4.0  # of a square; a sharp edge takes some pixels, too
_AGREE = 0.5
_CAMERA_MISFIT = 0.002  # of the picture's width: the board is not where its own corners say
_OUTLIER, _OUTLIER_M, _OUTLIER_DEG = 4.0, 0.025, 3.0
_ROUNDS = 3
_DOUBT_SHARE = 0.006  # of the picture's width
_DOUBT_M, _DOUBT_DEG = 0.03, 0.5
_SCALE, _EXPLAINS = 0.03, 0.6  # of what is off, a scale may leave so much
_WIDER_M = 0.03
_OTHER_WAY = 0.7

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Extrinsics(Doubted):
    """Where a LiDAR sits to a camera, and what speaks for it.

    Attributes:
        joint: the fit over all poses.
        start: the transform before it, from the middles and normals of the plates alone.
        pairs: the poses that were used.
        left_out: those that were not, with the reason.
        centers_px: (V, 2) by which the plate's middle, as the LiDAR alone saw it, is off the board's.
        held_out_px: root mean square of the same where the pose was not in the fit (five parts).
        doubts: why the result is not to be trusted.
        remarks: what makes it worse than it could be, and what to record.
    """

    joint: Joint
    start: RigidTransform
    pairs: tuple[Pair, ...]
    left_out: dict[str, str]
    centers_px: Float64
    held_out_px: float
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def rms_px(self) -> float:
        """Root mean square distance in pixels of the plates' middles from the boards'."""
        return rms(self.centers_px)

    @property
    def sigma(self) -> Float64:
        """(6,) standard deviations: x, y, z in metres and rotations about the camera's axes in radians."""
        return sigma_of(self.joint.covariance)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `lidar_to_camera` (4, 4) into the optical frame, `rms_px`, `sigma`, ..."""
        return {
            "lidar_to_camera": self.joint.transform.matrix.tolist(),
            "rms_px": self.rms_px,
            "held_out_rms_px": self.held_out_px,
            "sigma": plain_sigma(self.sigma),
            "covariance": self.joint.covariance.tolist(),
            "scatter": self.joint.scatter,
            "line_bias_m": self.joint.noise.line_m,
            "edge_excess_m": self.joint.wider_m,
            "poses": {
                pair.name: {
                    "off_px": float(np.hypot(*off)),
                    "board_rms_px": pair.board.rms_px,
                    "points": int(pair.plate.counts.sum()),
                    "edges": len(pair.plate.edges),
                }
                for pair, off in zip(self.pairs, self.centers_px, strict=True)
            },
            "left_out": self.left_out,
            "doubts": list(self.doubts),
            "remarks": list(self.remarks),
            "trusted": self.trusted,
        }


def calibrate_lidar(
    detections: Detections,
    clouds: Mapping[str, Path],
    camera: CameraModel,
    board: Board,
    plate: Plate,
    progress: Progress | None = None,
) -> Extrinsics:
    """Find where a LiDAR sits to a camera.

    Args:
        detections: the board in the camera's pictures.
        clouds: files by stem; picture and cloud of one pose have one stem.
        camera: the camera's intrinsics.
        board: what the pictures show.
        plate: that the board is on.
        progress: called with a text, what is done, and of how much.

    Raises:
        CalibrationError: too few poses, all under one angle, or pictures and clouds that do not fit.
        ConfigError: the board has no room on the plate.
    """
    plate.check(board)
    tell = progress or (lambda *_: None)
    paired = pair_up(detections, PlateFinder(clouds, plate), camera, board, tell)
    pairs, left_out, seen = list(paired.pairs), paired.left_out, paired.seen
    tell("fitting", 0, 1 + _FOLDS)
    joint, pairs = _without_outliers(pairs, plate, paired.start, left_out)
    missed = []
    folds = min(_FOLDS, len(pairs))
    for fold in range(folds):
        tell("fitting", 1 + fold, 1 + folds)
        own = [pair for index, pair in enumerate(pairs) if index % folds != fold]
        rest = [pair for index, pair in enumerate(pairs) if index % folds == fold]
        part = fit_joint(own, plate, joint.transform)
        missed.append(centers_off(part, rest, plate, camera))
    done = Extrinsics(
        joint,
        paired.start,
        tuple(pairs),
        dict(sorted(left_out.items())),
        centers_off(joint, pairs, plate, camera),
        rms(np.concatenate(missed)),
    )
    doubts, remarks = judged(done, camera, seen)
    doubts += offset_doubts(done, plate)
    return replace(done, doubts=tuple(doubts), remarks=tuple(remarks))


class PlateFinder:
    """The plates in each of several clouds, which are looked for once.

    Args:
        clouds: files by stem.
        plate: that is looked for.
    """

    def __init__(self, clouds: Mapping[str, Path], plate: Plate) -> None:
        self.clouds, self.plate = clouds, plate
        self.points: Float64 = np.zeros((0, 3))
        self._found: dict[str, list[PlateView] | str] = {}

    def find(self, stem: str) -> list[PlateView] | str:
        """One or more plates in a cloud, or why there are none."""
        if stem not in self._found:
            try:
                self.points = read_points(self.clouds[stem])
            except AnySenseError as error:
                self._found[stem] = error.message
            else:
                found = find_plates(self.points, self.plate)
                self._found[stem] = found or "no plate of that size found in the cloud"
        return self._found[stem]


@dataclass(frozen=True)
class Paired:
    """Boards and plates of the same poses.

    Attributes:
        pairs: that move alike.
        start: from the LiDAR's frame to the camera's, from middles and normals alone.
        left_out: poses that are not among them, with the reason.
        seen: of how many poses both sensors show something.
    """

    pairs: tuple[Pair, ...]
    start: RigidTransform
    left_out: dict[str, str]
    seen: int


def pair_up(
    detections: Detections,
    plates: PlateFinder,
    camera: CameraModel,
    board: Board,
    tell: Progress,
) -> Paired:
    """Find which plate of each cloud is the board of the picture.

    Raises:
        CalibrationError: as `calibrate_lidar`.
    """
    plate = plates.plate
    boards, left_out = _boards(detections, plates.clouds, camera, board, plate)
    check_tilts([pose.places.normal for pose in boards.values()])
    found_in: dict[str, list[PlateView]] = {}
    for index, stem in enumerate(boards):
        tell("finding the plate", index, len(boards))
        views = plates.find(stem)
        if isinstance(views, str):
            left_out[stem] = views
        else:
            found_in[stem] = views
    seen = list(found_in)
    if len(seen) < FEWEST_POSES:
        raise explain_no_plates(len(seen), len(boards), plates.points, plate)
    known = [boards[stem].places for stem in seen]
    candidates = [[Places(v.center, v.normal) for v in found_in[stem]] for stem in seen]
    found = match(known, candidates)
    if found is None or found.count < max(FEWEST_POSES, _AGREE * len(seen)):
        raise explain_mismatch(known, candidates, found, board)
    pairs = _chosen(seen, boards, found_in, found, left_out)
    _check_scale(pairs, board)
    return Paired(tuple(pairs), found.transform, left_out, len(seen))


def usable(view: BoardView, camera: CameraModel, board: Board, plate: Plate) -> BoardPose | str:
    """The board's pose in a picture, or why it is not to be used.

    Raises:
        CalibrationError: the picture is not of the camera's size.
    """
    found = board_pose(camera, view, board, plate.pattern)
    if view.edge_px > max(_BLURRED_PX, _BLURRED * square_px(view, board)):
        return f"blurred: edges of {view.edge_px:.0f} px"
    if found is None or found.rms_px > max(2.0, _CAMERA_MISFIT * camera.width):
        off = "" if found is None else f", {found.rms_px:.1f} px off"
        return f"its corners are no board under these intrinsics{off}"
    return found


def _boards(
    detections: Detections,
    clouds: Mapping[str, Path],
    camera: CameraModel,
    board: Board,
    plate: Plate,
) -> tuple[dict[str, BoardPose], dict[str, str]]:
    """The board's pose by stem, of pictures that have a cloud."""
    left_out = {Path(name).stem: reason for name, reason in detections.left_out.items()}
    views = {Path(view.name).stem: view for view in detections.views}
    both = [stem for stem in views if stem in clouds]
    if not both:
        raise CalibrationError(
            f"no picture and cloud have the same name: '{next(iter(views), '')}' is none of the clouds, "
            f"such as '{next(iter(clouds))}'",
            hint="record one picture and one cloud of each pose while the board stands still, and name "
            "them alike",
        )
    for stem in set(views) - set(both):
        left_out[stem] = "no cloud of this name"
    for stem in set(clouds) - set(views) - set(left_out):
        left_out[stem] = NO_PICTURE
    poses: dict[str, BoardPose] = {}
    for stem in both:
        found = usable(views[stem], camera, board, plate)
        if isinstance(found, str):
            left_out[stem] = found
        else:
            poses[stem] = found
    if len(poses) < FEWEST_POSES:
        reasons = sorted({left_out[stem] for stem in both if stem in left_out})
        why = f"; others: {reasons[0]}" if reasons else ""
        raise CalibrationError(
            f"{len(poses)} usable poses, {FEWEST_POSES} are needed{why}",
            hint=detections.hint
            or "record 12 or more: the board at several distances, left, right, and tilted by 20 to 40 "
            "degrees, standing still and sharp",
        )
    return poses, left_out


def square_px(view: BoardView, board: Board) -> float:
    """The usual distance in pixels of points that are next to each other."""
    order = np.argsort(view.ids)
    ids, pixels = view.ids[order], view.pixels[order]
    following = np.diff(ids) == 1
    apart = np.linalg.norm(np.diff(pixels, axis=0), axis=1)[following]
    real = np.linalg.norm(np.diff(board.points[ids], axis=0), axis=1)[following]
    if not len(apart):
        return float("inf")
    return float(np.median(apart / real)) * board.square_m


def check_tilts(normals: Sequence[Float64]) -> float:
    """The largest angle between two of them, degrees.

    Raises:
        CalibrationError: they are all the same.
    """
    away = np.array(normals)
    tilt = float(np.degrees(np.arccos(np.clip(away @ away.T, -1, 1))).max())
    if tilt < _LEAST_TILT:
        raise CalibrationError(
            f"all views show the board under one angle, within {tilt:.0f} degrees: that does not hold the "
            "rotation",
            hint="record again: tilt the board by 20 to 40 degrees, about both axes and both ways",
        )
    return tilt


def _chosen(
    seen: Sequence[str],
    boards: Mapping[str, BoardPose],
    plates: Mapping[str, Sequence[PlateView]],
    found: Match,
    left_out: dict[str, str],
) -> list[Pair]:
    pairs = []
    for stem, choice in zip(seen, found.chosen, strict=True):
        if choice >= 0:
            pairs.append(Pair(stem, boards[stem], plates[stem][choice]))
        else:
            left_out[stem] = (
                "the plate in the cloud is not where other poses put the board of the picture: did it move "
                "between the two?"
            )
    return pairs


def _check_scale(pairs: Sequence[Pair], board: Board) -> None:
    """Refuse a board whose squares are not as large as it is said: then it moves too far, or too little."""
    seen = np.array([pair.board.pose.translation for pair in pairs])
    real = np.array([pair.plate.center for pair in pairs])
    seen, real = seen - seen.mean(axis=0), real - real.mean(axis=0)
    turn = nearest_rotation(seen.T @ real)
    scale = float(np.sum(seen * (real @ turn.T)) / np.sum(real**2))
    off, plain = (float(np.sum((seen - f * real @ turn.T) ** 2)) for f in (scale, 1.0))
    if abs(scale - 1) > _SCALE and off < _EXPLAINS**2 * plain:
        raise CalibrationError(
            f"the board moves {scale:.2f} times as far in the pictures as in the clouds",
            hint=f"are its squares {board.square_m:g} m? {board.square_m / scale:.3g} would fit; else the "
            "intrinsics are of another camera",
        )


def pose_off(joint: Joint, pair: Pair, plate: Plate) -> tuple[float, float]:
    """Metres and degrees by which the plate, as the LiDAR alone saw it, is off the board."""
    alone, _ = plate_alone(plate, pair.plate, joint.noise, joint.wider_m)
    put = joint.transform @ alone
    off = float(np.linalg.norm(put.translation - pair.board.pose.translation))
    cosine = float(put.rotation[:, 2] @ pair.board.pose.rotation[:, 2])
    return off, float(np.degrees(np.arccos(min(1.0, cosine))))


def _without_outliers(
    pairs: list[Pair], plate: Plate, start: RigidTransform, left_out: dict[str, str]
) -> tuple[Joint, list[Pair]]:
    """The fit without poses that do not fit, the worst of which go first."""
    joint = fit_joint(pairs, plate, start)
    for _ in range(_ROUNDS):
        off = np.array([pose_off(joint, pair, plate) for pair in pairs])
        usual = np.median(off, axis=0)
        most = np.maximum(_OUTLIER * usual, [_OUTLIER_M, _OUTLIER_DEG])
        bad = (off > most).any(axis=1)
        if not bad.any() or (~bad).sum() < FEWEST_POSES:
            break
        worst = (off / most).max(axis=1)
        bad &= worst > worst.max() / 2
        for index in np.flatnonzero(bad):
            metres, degrees = off[index]
            left_out[pairs[index].name] = (
                f"{100 * metres:.1f} cm and {degrees:.1f} degrees off, others {100 * usual[0]:.1f} and "
                f"{usual[1]:.1f}"
            )
        pairs = [pair for pair, out in zip(pairs, bad, strict=True) if not out]
        joint = fit_joint(pairs, plate, joint.transform)
    return joint, pairs


def centers_off(joint: Joint, pairs: Sequence[Pair], plate: Plate, camera: CameraModel) -> Float64:
    """(V, 2) pixels: the plates' middles, as the LiDAR alone saw them, less those of the boards."""
    alone = [plate_alone(plate, pair.plate, joint.noise, joint.wider_m)[0] for pair in pairs]
    real = joint.transform.apply(np.array([pose.translation for pose in alone]))
    seen = np.array([pair.board.pose.translation for pair in pairs])
    return np.asarray(camera.project(real)[0] - camera.project(seen)[0])


def offset_doubts(done: Extrinsics, plate: Plate) -> list[str]:
    """What says that the pattern is off the plate's middle to the other side."""
    if not _fits_other_way(done, plate):
        return []
    x, y = plate.offset_m
    return [
        f"the pattern seems to be off the plate's middle the other way: --plate-offset {-x:g}x{-y:g}?"
    ]


def _fits_other_way(done: Extrinsics, plate: Plate) -> bool:
    """Whether poses agree better where the pattern is off the plate's middle to the other side."""
    if plate.offset_m == (0.0, 0.0):
        return False
    back = RigidTransform(np.eye(3), 2 * plate.pattern)
    turned = [
        replace(pair, board=replace(pair.board, pose=pair.board.pose @ back)) for pair in done.pairs
    ]
    other = fit_joint(turned, plate, done.joint.transform)
    missed = [
        float(np.median([pose_off(joint, pair, plate)[0] for pair in pairs]))
        for joint, pairs in ((done.joint, done.pairs), (other, turned))
    ]
    return missed[1] < _OTHER_WAY * missed[0]


def judged(done: Extrinsics, camera: CameraModel, seen: int) -> tuple[list[str], list[str]]:
    """What says that the result is wrong, and what would make it better."""
    doubts, remarks = [], []
    move = float(np.linalg.norm(done.sigma[:3]))
    turn = float(np.degrees(np.linalg.norm(done.sigma[3:])))
    if not done.held_out_px < _DOUBT_SHARE * camera.width:
        doubts.append(f"poses that were not fitted are {done.held_out_px:.1f} px off")
    if not (move < _DOUBT_M and turn < _DOUBT_DEG):
        doubts.append(
            f"it is known to {100 * move:.1f} cm and {turn:.2f} degrees only: record more poses, nearer, "
            "wider apart and tilted more"
        )
    if len(done.pairs) < 2 / 3 * seen:
        doubts.append(f"only {len(done.pairs)} of {seen} poses agree")
    if len(done.pairs) < _GOOD_POSES:
        remarks.append(f"{len(done.pairs)} poses: {_GOOD_POSES} or more are better")
    tilt = check_tilts([pair.board.places.normal for pair in done.pairs])
    if tilt < _GOOD_TILT:
        remarks.append(
            f"the board's normals differ by {tilt:.0f} degrees at most: tilt it by 20 to 40"
        )
    if abs(done.joint.wider_m) > _WIDER_M:
        remarks.append(
            f"the plate seems {100 * done.joint.wider_m:+.1f} cm larger on each side: is its size right?"
        )
    return doubts, remarks
