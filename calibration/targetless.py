"""Where a LiDAR is to a camera, from scenes as they are and a rough guess: the procedure, without a board."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.alignment import BIAS_DEG, FEWEST_EDGES, LEAST_CONTRAST
from calibration.clues import Clues, edge_score, information
from calibration.joint import moved
from calibration.outcome import Doubted, plain_sigma, sigma_of
from calibration.search import STEPS, Bools, Search
from perception.errors import CalibrationError
from perception.geometry.camera import CameraModel
from perception.geometry.transforms import Float64, RigidTransform

FEWEST_FRAMES = 4
"""Fewer cannot be halved and compared."""

AXES = ("x", "y", "z")
GUESS_M, GUESS_DEG = 0.1, 1.5
"""Standard deviations of a guess that says none: twice as much is found."""

_BIAS_M = (0.02, 0.02, 0.02)  # what the method itself may be off, as `BIAS_DEG`
_HALVES = 3  # and as many other halves
_WIDE = np.array([0.08, 0.08, 0.12, *np.radians([0.5, 0.5, 0.6])])
_LONG = 13
_GOOD_FRAMES = 15
_OBSERVED = 0.5  # of the guess's sigma
_DOUBT_M, _DOUBT_DEG = 0.05, 0.5
_TOO_FAR = 3.0  # sigmas of the guess

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Scores:
    """How well clouds fit pictures at one pose.

    Attributes:
        edges: mean edge strength of pictures at edges of clouds, in standard deviations.
        information: mutual information of brightness and reflectivity, nats.
    """

    edges: float
    information: float


@dataclass(frozen=True)
class Targetless(Doubted):
    """Where a LiDAR is to a camera, and what speaks for it.

    Attributes:
        transform: from the LiDAR's frame to the camera's optical frame.
        covariance: (6, 6) of errors of x, y, z in metres and of rotations about the camera's axes in radians.
        guess, guess_sigma: what it was looked for about, and (6,) how far that may be off.
        kept: axes along which the translation is the guess's, as the scenes do not tell it.
        before, after: at the guess, and at the transform.
        held_out: the same in frames that were not fitted: mean over halves of the frames.
        wrong: the usual scores of poses that are wrong.
        frames, edges: how many there were.
        compared: what was compared with brightness: reflectivity, or range.
        doubts: why the result is not to be trusted.
        remarks: what makes it worse than it could be, and what to record.
    """

    transform: RigidTransform
    covariance: Float64
    guess: RigidTransform
    guess_sigma: Float64
    kept: tuple[str, ...]
    before: Scores
    after: Scores
    held_out: tuple[Scores, Scores]
    wrong: Scores
    frames: int
    edges: int
    compared: str
    doubts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def sigma(self) -> Float64:
        """(6,) standard deviations: x, y, z in metres and rotations about the camera's axes in radians."""
        return sigma_of(self.covariance)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: `lidar_to_camera` (4, 4) into the optical frame, `sigma`, `score`, ..."""
        return {
            "lidar_to_camera": self.transform.matrix.tolist(),
            "sigma": plain_sigma(self.sigma),
            "covariance": self.covariance.tolist(),
            "guess": self.guess.matrix.tolist(),
            "guess_sigma": plain_sigma(self.guess_sigma),
            "kept": list(self.kept),
            "score": {
                "before": vars(self.before),
                "after": vars(self.after),
                "wrong": vars(self.wrong),
            },
            "held_out_score": {
                "before": vars(self.held_out[0]),
                "after": vars(self.held_out[1]),
            },
            "frames": self.frames,
            "edges": self.edges,
            "compared": self.compared,
            "doubts": list(self.doubts),
            "remarks": list(self.remarks),
            "trusted": self.trusted,
        }


def guess_sigma(metres: float = GUESS_M, degrees: float = GUESS_DEG) -> Float64:
    """(6,) of a guess that is equally good along all axes."""
    return np.array([metres] * 3 + [np.radians(degrees)] * 3)


def calibrate_targetless(
    frames: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    camera: CameraModel,
    guess: RigidTransform,
    sigma: Float64 | None = None,
    progress: Progress | None = None,
    seed: int = 0,
) -> Targetless:
    """Find where a LiDAR sits to a camera from scenes as they are.

    Args:
        frames: in their order in time: gray pictures (H, W) of the camera's size, 0 to 255, each with the
            cloud (N, C >= 3) of its moment in the LiDAR's own frame: x, y, z in metres, then reflectivity if
            there is any.
        camera: its intrinsics.
        guess: from the LiDAR's frame to the camera's optical frame.
        sigma: (6,) how far the guess may be off, metres and radians; `guess_sigma()` by default.
        progress: called with a text, what is done, and of how much.
        seed: of what is drawn; answers of other seeds differ by less than their sigma.

    Raises:
        CalibrationError: too few frames, or too few edges in their clouds.
    """
    if len(frames) < FEWEST_FRAMES:
        raise CalibrationError(
            f"{len(frames)} frames with a picture and a cloud, {FEWEST_FRAMES} are needed",
            hint=f"record {_GOOD_FRAMES} or more of different places",
        )
    tell = progress or (lambda *_: None)
    tell("finding edges", 0, 1)
    clues = Clues(frames, camera, guess, seed)
    if clues.edges < FEWEST_EDGES:
        raise CalibrationError(
            f"{clues.edges} edges of clouds are near the picture, {FEWEST_EDGES} are needed",
            hint="record more frames, of scenes with things that stand out; or the guess is of other sensors",
        )
    own = guess_sigma() if sigma is None else sigma
    search = Search(clues, own, seed)
    at, everything = search.grid(), np.ones(6, bool)
    spreads = (own * [1, 1, 1, 0.5, 0.5, 1], 1.5 * STEPS, STEPS)
    for index, spread in enumerate(spreads):
        tell("searching", index, len(spreads))
        search.look(index, at)
        at = search.climb(at, np.minimum(spread, own), everything)
    found = _settled(search, at, everything, own, tell)
    hidden = everything.copy()
    hidden[:3] = found.sigma[:3] < _OBSERVED * own[:3]
    if not hidden.all():
        at = np.where(hidden, found.move, 0.0)
        at = search.climb(at, np.minimum(2 * STEPS, own), hidden)
        found = _settled(search, at, hidden, own, tell)
    return _judged(_told(search, found, hidden, guess, own, len(frames)), found.move)


@dataclass(frozen=True)
class _Settled:
    """A maximum: (6,) the move to it from the guess, its covariance, and fits of halves of the frames."""

    move: Float64
    covariance: Float64
    halves: list[tuple[Float64, Bools]]

    @property
    def sigma(self) -> Float64:
        return np.sqrt(np.diag(self.covariance))


def _settled(search: Search, at: Float64, free: Bools, own: Float64, tell: Progress) -> _Settled:
    """The mean of what halves of the frames say (bagging), and by how much they differ."""
    halves = _halved(search.clues.blocks)
    fits = []
    for index, half in enumerate(halves):
        tell("halves of the frames", index, len(halves))
        search.clues.keep(half)
        search.lean(by_chance=True)
        fits.append((search.climb(at, np.minimum(_WIDE, own), free, _LONG), half))
    search.clues.keep()
    search.lean(by_chance=False)
    moves = np.array([fit for fit, _ in fits])
    # Half the data is off the whole by as much as the whole is off the truth: a delete-half jackknife.
    covariance = (moves - at).T @ (moves - at) / len(moves)
    covariance += np.diag(np.square([*_BIAS_M, *np.radians(BIAS_DEG)]) * free)
    middle = (moves.mean(axis=0) + at) / 2
    for axis in np.flatnonzero(~free):  # what is not known of it makes the others wrong, too
        off = middle.copy()
        off[axis] += own[axis]
        dragged = search.climb(off, np.minimum(_WIDE, own), free, _LONG) - middle
        covariance += np.outer(dragged, dragged)
    return _Settled(middle, covariance, fits)


def _halved(blocks: int) -> list[Bools]:
    """Halves of the parts in time, each with the other half: even and odd, early and late ones, pairs."""
    index = np.arange(blocks)
    rules = [index % 2 == 0, index < blocks // 2, index % 4 < 2]
    both = [half for rule in rules[:_HALVES] for half in (rule, ~rule)]
    return [half for half in both if half.any() and not half.all()]


def _scores(search: Search, move: Float64) -> Scores:
    sums = search.clues.sums(move)
    return Scores(edge_score(sums.edges), information(sums.counts))


def _told(
    search: Search,
    found: _Settled,
    free: Bools,
    guess: RigidTransform,
    own: Float64,
    frames: int,
) -> Targetless:
    before, after = (_scores(search, move) for move in (np.zeros(6), found.move))
    held: list[tuple[Scores, Scores]] = []
    for move, half in found.halves:
        search.clues.keep(~half)
        held.append((_scores(search, np.zeros(6)), _scores(search, move)))
    search.clues.keep()
    unseen = [
        Scores(*np.mean([(pair[i].edges, pair[i].information) for pair in held], axis=0).tolist())
        for i in (0, 1)
    ]
    kept = tuple(axis for axis, told in zip(AXES, free[:3], strict=True) if not told)
    covariance = (found.covariance + found.covariance.T) / 2
    return Targetless(
        moved(guess, found.move), covariance, guess, own, kept, before, after,
        (unseen[0], unseen[1]), Scores(search.scale.edges, search.scale.information), frames,
        search.clues.edges, search.clues.by,
    )  # fmt: skip


def _judged(found: Targetless, move: Float64) -> Targetless:
    """With what says that the result is wrong, and what would make it better."""
    doubts, remarks = list[str](), list[str]()
    sigma = found.sigma
    if found.after.edges - found.wrong.edges < LEAST_CONTRAST:
        doubts.append(
            "edges fit nowhere near the guess: it is further off, pictures and clouds are not of one moment, "
            "or the intrinsics are of another camera"
        )
    turn = np.degrees(sigma[3:])
    if not turn.max() < _DOUBT_DEG:
        doubts.append(f"the rotation is known to {turn.max():.2f} degrees only: {_MORE}")
    if not sigma[:3].max() < _DOUBT_M:
        poor = [a for a, s in zip(AXES, sigma, strict=False) if not s < _DOUBT_M]
        doubts.append(
            f"the translation along {', '.join(poor)} is known to {100 * sigma[:3].max():.0f} cm only: "
            f"{_MORE}"
        )
    if (np.abs(move) > _TOO_FAR * found.guess_sigma).any():
        doubts.append(
            f"it is {100 * np.linalg.norm(move[:3]):.0f} cm and {np.degrees(np.linalg.norm(move[3:])):.1f} "
            "degrees off the guess, more than the guess may be off"
        )
    if found.held_out[1].edges < found.held_out[0].edges:
        doubts.append("frames that were not fitted fit the guess better")
    if found.kept:
        remarks.append(
            f"the translation along {', '.join(found.kept)} (of the camera) cannot be told here: "
            "it is that of the guess, with its sigma"
        )
    if found.frames < _GOOD_FRAMES:
        remarks.append(
            f"{found.frames} frames: {_GOOD_FRAMES} or more, of different places, are better"
        )
    return replace(found, doubts=tuple(doubts), remarks=tuple(remarks))


_MORE = "record more places, with things at 3 to 10 m that stand out from what is behind them"
