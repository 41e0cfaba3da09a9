"""Where a LiDAR and several cameras sit, from poses of a board: one bundle adjustment over all of them.

Unknown are the places of the other cameras and of the LiDAR by the first camera, the board's pose in each
view, and by how much the plate seems larger (`calibration.together_fit`). A pose counts that two sensors saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from calibration.boards import Board
from calibration.cameras import CameraPlace, Seen, agreed, doubts_of, near, upside_down
from calibration.detection import Detections
from calibration.extrinsics import (
    FEWEST_POSES,
    NO_PICTURE,
    Extrinsics,
    Paired,
    PlateFinder,
    Progress,
    centers_off,
    check_tilts,
    judged,
    offset_doubts,
    pair_up,
    pose_off,
    usable,
)
from calibration.fitting import rms
from calibration.joint import BoardPose, Pair
from calibration.outcome import Doubted
from calibration.plates import Plate, PlateView
from calibration.together_fit import RigFit, Views, lidar_to_camera
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

_FOLDS = 5
_ROUNDS = 5
_OUTLIER, _OUTLIER_PX, _OUTLIER_M, _OUTLIER_DEG = 4.0, 1.0, 0.025, 3.0


@dataclass(frozen=True)
class Together(Doubted):
    """Where sensors sit by the first camera, and what speaks for it.

    Attributes:
        places: of the other cameras, by name.
        lidars: where the LiDAR is to each camera, of poses that both saw; the first is the reference.
        covariance: (6S, 6S) of all places, other cameras in order and then the LiDAR, each as in
            `CameraPlace`.
        points_px: by camera, root mean square distance of its points from where the fit puts them.
        left_out: by sensor, poses that were not used, with the reason.
        doubts: why the result is not to be trusted.
        remarks: what makes it worse than it could be, and what to record.
    """

    places: dict[str, CameraPlace]
    lidars: dict[str, Extrinsics]
    covariance: Float64
    points_px: dict[str, float]
    left_out: dict[str, dict[str, str]]
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def reference(self) -> Extrinsics:
        """Where the LiDAR is to the first camera."""
        return next(iter(self.lidars.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: those of the LiDAR to the first camera, and `cameras`."""
        return {
            **self.reference.to_dict(),
            "cameras": {name: place.to_dict() for name, place in self.places.items()},
            "points_rms_px": self.points_px,
            "joint_covariance": self.covariance.tolist(),
            "left_out": self.left_out,
            "doubts": list(self.doubts),
            "remarks": list(self.remarks),
            "trusted": self.trusted,
        }


def calibrate_together(
    detections: Mapping[str, Detections],
    models: Mapping[str, CameraModel],
    clouds: Mapping[str, Path],
    board: Board,
    plate: Plate,
    lidar: str,
    progress: Progress | None = None,
) -> Together:
    """Place cameras and a LiDAR by the first camera.

    Args:
        detections: the board in each camera's pictures, by the camera's name; pictures and clouds of one
            pose have one stem.
        models: intrinsics by name.
        clouds: files by stem.
        board: what the pictures show.
        plate: that the board is on.
        lidar: the LiDAR's name.
        progress: called with a text, what is done, and of how much.

    Raises:
        CalibrationError: too few poses that sensors share, all under one angle, or that do not agree.
        ConfigError: the board has no room on the plate.
    """
    plate.check(board)
    tell = progress or (lambda *_: None)
    models = {name: models[name] for name in detections}
    left_out: dict[str, dict[str, str]] = {
        name: {Path(k).stem: v for k, v in own.left_out.items()} for name, own in detections.items()
    }
    left_out[lidar] = {}
    views = _begun(detections, models, PlateFinder(clouds, plate), board, left_out, lidar, tell)
    _keep_shared(views, left_out, lidar)
    tell("fitting", 0, 1 + _FOLDS)
    fit = RigFit(views)
    x = fit.solve(np.zeros(fit.count))
    for _ in range(_ROUNDS):
        if not _take_out(fit, x, views, left_out, lidar):
            break
        _keep_shared(views, left_out, lidar)
        views.start, views.lidar = fit.starts(x), fit.lidar_at(x)
        fit = RigFit(views)
        x = fit.solve(np.zeros(fit.count))
    held_out = _held_out(fit, x, views, tell)
    for stem in set(clouds) - set(views.plates) - set(left_out[lidar]):
        left_out[lidar][stem] = "no picture of this name shows the board"
    return _answer(fit, x, views, held_out, left_out, lidar)


def _begun(
    detections: Mapping[str, Detections],
    models: Mapping[str, CameraModel],
    finder: PlateFinder,
    board: Board,
    left_out: dict[str, dict[str, str]],
    lidar: str,
    tell: Progress,
) -> Views:
    """Boards, plates, and where each sensor is as most poses say."""
    known: dict[str, dict[str, BoardPose]] = {name: {} for name in detections}
    for name, own in detections.items():
        for view in own.views:
            stem = Path(view.name).stem
            pose = usable(view, models[name], board, finder.plate)
            if isinstance(pose, str):
                left_out[name][stem] = pose
            else:
                known[name][stem] = pose
    first, *others = detections
    paired = {first: pair_up(detections[first], finder, models[first], board, tell)}
    for name in others:
        try:
            paired[name] = pair_up(detections[name], finder, models[name], board, tell)
        except CalibrationError:  # it may still be placed by the first camera
            continue
    plates: dict[str, PlateView] = {}
    for both in paired.values():
        for pair in both.pairs:
            plates.setdefault(pair.name, pair.plate)
    for both in paired.values():
        for stem, reason in both.left_out.items():
            if stem in finder.clouds and stem not in plates and reason != NO_PICTURE:
                left_out[lidar].setdefault(stem, reason)
    for name in detections:
        for stem in left_out[name]:  # told there
            left_out[lidar].pop(stem, None)
    plates = dict(sorted(plates.items()))
    start = {name: _first_place(name, first, known, paired) for name in others}
    views = Views(
        models,
        board,
        finder.plate,
        known,
        plates,
        start,
        paired[first].start,
        [],
        paired[first].seen,
    )
    _look(views, left_out)
    return views


def _first_place(
    name: str,
    first: str,
    known: Mapping[str, Mapping[str, BoardPose]],
    paired: Mapping[str, Paired],
) -> RigidTransform:
    """From a camera to the first one, by poses that both saw, else by way of the LiDAR."""
    shared = [stem for stem in known[first] if stem in known[name]]
    if len(shared) >= FEWEST_POSES:
        check_tilts([known[first][stem].pose.rotation[:, 2] for stem in shared])
        own, other = ([_seen(known, one, stem) for stem in shared] for one in (first, name))
        return agreed(own, other, name)[0]
    if name in paired:
        return paired[first].start @ paired[name].start.inverse()
    raise CalibrationError(
        f"{first} and {name} share {len(shared)} poses of the board, {FEWEST_POSES} are needed, and "
        f"{name} has too few with the LiDAR as well",
        hint="pictures and clouds of one pose must have one name: record 10 or more poses that both see",
    )


def _seen(known: Mapping[str, Mapping[str, BoardPose]], name: str, stem: str) -> Seen:
    pose = known[name][stem]
    return Seen(stem, name, pose.view, pose.pose)


def _look(views: Views, left_out: dict[str, dict[str, str]]) -> None:
    """Take the views that agree about where the board is, the way round that fits the others."""
    found: list[Seen] = []
    for stem in dict.fromkeys(stem for own in views.known.values() for stem in own):
        ways = [_seen(views.known, n, stem) for n, own in views.known.items() if stem in own]
        places = [views.start.get(one.camera, RigidTransform.identity()) for one in ways]
        middles = [(at @ one.pose).translation for at, one in zip(places, ways, strict=True)]
        if stem in views.plates:
            middles.append(views.lidar.apply(views.plates[stem].center[None])[0])
        # The board begins where it is nearest to what all sensors say, and the fit holds on to that.
        apart = [sum(float(np.linalg.norm(a - b)) for b in middles) for a in middles[: len(ways)]]
        order = np.argsort(apart, kind="stable").tolist()
        lead, at = ways[order[0]], places[order[0]]
        found.append(lead)
        for index in order[1:]:
            to_lead = at.inverse() @ places[index]
            both = (ways[index], upside_down(ways[index]))
            fitting = [one for one in both if near(to_lead, lead.pose @ one.pose.inverse(), lead)]
            if fitting:
                found.append(fitting[0])
            else:
                reason = f"shows another pose than {lead.camera}: did the board move?"
                left_out[ways[index].camera][stem] = reason
    views.seen = found


def _keep_shared(views: Views, left_out: dict[str, dict[str, str]], lidar: str) -> None:
    """Drop poses that one sensor saw, and refuse sensors that are left with too few."""
    saw: dict[str, set[str]] = {}
    for one in views.seen:
        saw.setdefault(one.stem, set()).add(one.camera)
    alone = {stem for stem, names in saw.items() if len(names) + (stem in views.plates) < 2} | (
        set(views.plates) - set(saw)
    )
    for stem in alone:
        for name in saw.get(stem, {lidar}):
            left_out[name][stem] = "no other sensor saw the board there"
    kept = views.without(alone)
    views.seen, views.plates = kept.seen, kept.plates
    counts = {name: sum(one.camera == name for one in views.seen) for name in views.models}
    counts[lidar] = sum(
        one.camera == views.first and one.stem in views.plates for one in views.seen
    )
    for name, count in counts.items():
        if count < FEWEST_POSES:
            raise CalibrationError(
                f"{name} is left with {count} poses that agree, {FEWEST_POSES} are needed",
                hint="record again, standing still",
            )


def _take_out(
    fit: RigFit, x: Float64, views: Views, left_out: dict[str, dict[str, str]], lidar: str
) -> bool:
    """Leave out, of each pose that does not fit, the sensor that is off most; whether there was one."""
    worst: dict[str, tuple[float, str, str]] = {}

    def tell(stem: str, sensor: str, share: float, reason: str) -> None:
        if share > 1 and share > worst.get(stem, (0.0,))[0]:
            worst[stem] = share, sensor, reason

    missed = np.array([rms(part) for part in fit.bundle.missed(x[: fit.bundle.count])])
    for name in views.models:
        own = np.array([one.camera == name for one in views.seen])
        most = max(_OUTLIER_PX, _OUTLIER * float(np.median(missed[own])))
        for index in np.flatnonzero(own):
            reason = f"{missed[index]:.1f} px off, others less than {most:.1f}"
            tell(views.seen[index].stem, name, missed[index] / most, reason)
    joint, pairs = fit.joint(x), fit.boards(x)
    off = np.array([pose_off(joint, pair, views.plate) for pair in pairs])
    usual = np.median(off, axis=0)
    limits = np.maximum(_OUTLIER * usual, [_OUTLIER_M, _OUTLIER_DEG])
    for pair, (metres, degrees) in zip(pairs, off, strict=True):
        reason = (
            f"{100 * metres:.1f} cm and {degrees:.1f} degrees off, others {100 * usual[0]:.1f} and "
            f"{usual[1]:.1f}"
        )
        tell(pair.name, lidar, float(max(metres / limits[0], degrees / limits[1])), reason)
    for stem, (_, sensor, reason) in worst.items():
        left_out[sensor][stem] = reason
        if sensor == lidar:
            del views.plates[stem]
        else:
            views.seen = [s for s in views.seen if (s.stem, s.camera) != (stem, sensor)]
    return bool(worst)


def _of_camera(views: Views, name: str, stems: Sequence[str]) -> list[Pair]:
    """Poses that a camera and the LiDAR saw, with the board as that camera saw it."""
    turned = {one.stem: one for one in views.seen if one.camera == name}
    found = []
    for stem in stems:
        if stem in turned and stem in views.plates:
            board = replace(views.known[name][stem], pose=turned[stem].pose)
            found.append(Pair(stem, board, views.plates[stem]))
    return found


def _held_out(fit: RigFit, x: Float64, views: Views, tell: Progress) -> dict[str, float]:
    """By camera, how far plates' middles are off in poses that were not fitted (five parts)."""
    missed: dict[str, list[Float64]] = {name: [] for name in views.models}
    stems, base = fit.stems, replace(views, start=fit.starts(x), lidar=fit.lidar_at(x))
    folds = min(_FOLDS, len(stems))
    for fold in range(folds):
        tell("fitting", 1 + fold, 1 + folds)
        out = stems[fold::folds]
        part = RigFit(base.without(set(out)))
        own = part.solve(np.zeros(part.count))
        joint, starts = part.joint(own), part.starts(own)
        for name, model in views.models.items():
            to_camera = (
                starts[name].inverse() @ joint.transform if name in starts else joint.transform
            )
            pairs = _of_camera(views, name, out)
            if pairs:
                seen_by = replace(joint, transform=to_camera)
                missed[name].append(centers_off(seen_by, pairs, views.plate, model))
    return {
        name: rms(np.concatenate(parts)) if parts else float("nan")
        for name, parts in missed.items()
    }


def _answer(
    fit: RigFit,
    x: Float64,
    views: Views,
    held_out: Mapping[str, float],
    left_out: dict[str, dict[str, str]],
    lidar: str,
) -> Together:
    covariance, scatter = fit.covariance(x)
    points = fit.bundle.by_camera(fit.bundle.missed(x[: fit.bundle.count]))
    places, lidars = {}, {}
    at, starts, names = fit.lidar_at(x), fit.starts(x), fit.bundle.names
    last = np.arange(6) + 6 * len(names)
    for name, model in views.models.items():
        to_camera, known = at, covariance[np.ix_(last, last)]
        before = views.lidar
        if name in starts:
            own = np.arange(6) + 6 * names.index(name)
            both = np.r_[own, last]
            to_camera, known = lidar_to_camera(starts[name], at, covariance[np.ix_(both, both)])
            before = views.start[name].inverse() @ views.lidar
            count = sum(one.camera == name for one in views.seen)
            own_known = covariance[np.ix_(own, own)]
            places[name] = CameraPlace(starts[name], own_known, points[name], count)
        joint = replace(fit.joint(x, known, scatter), transform=to_camera)
        pairs = _of_camera(views, name, fit.stems)
        off = centers_off(joint, pairs, views.plate, model) if pairs else np.zeros((0, 2))
        own_out = {**left_out[lidar], **left_out[name]}
        lidars[name] = Extrinsics(joint, before, tuple(pairs), own_out, off, held_out[name])
    reference = lidars[views.first]
    doubts, remarks = judged(reference, views.models[views.first], views.both)
    doubts += offset_doubts(reference, views.plate)
    lidars[views.first] = replace(reference, doubts=tuple(doubts), remarks=tuple(remarks))
    doubts += doubts_of(places, points, views.models)
    ordered = {name: dict(sorted(own.items())) for name, own in left_out.items()}
    return Together(places, lidars, covariance, points, ordered, tuple(doubts), tuple(remarks))
