"""Why pictures and clouds of a board do not fit: what else would, is tried, and said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calibration.boards import Board
from calibration.pairing import Match, Places, match
from calibration.plates import Plate, find_plates
from perception.errors import CalibrationError
from perception.geometry.transforms import Float64

_UNITS = {"millimetres": 1e-3, "centimetres": 1e-2}
_SCALES = np.geomspace(0.4, 2.5, 20)
_SHIFTS = (1, -1, 2, -2)
_MOST = 0.7
_FLIP = np.array([-1.0, 1.0, 1.0])
_FAR_M = 300.0


def explain_no_plates(seen: int, poses: int, points: Float64, plate: Plate) -> CalibrationError:
    """The error for clouds of which too few show the plate.

    Args:
        seen: of how many it was found in.
        poses: of how many.
        points: one of the clouds.
        plate: what was looked for.
    """
    problem = f"a plate of {plate} m was found in {seen} of {poses} clouds only"
    far = float(np.median(np.linalg.norm(points, axis=1))) if len(points) else 0.0
    for unit, scale in _UNITS.items():
        if not seen and (far > _FAR_M or find_plates(points * scale, plate)):
            return CalibrationError(
                f"a plate of {plate} m was found in no cloud, half of whose points are beyond {far:.4g} m",
                hint=f"are these {unit}? record or convert clouds in metres",
            )
    return CalibrationError(
        problem,
        hint="is its size right, and are clouds in the LiDAR's own frame? record again: the plate free of "
        "walls and people, near enough for five or more scan lines",
    )


def explain_mismatch(
    boards: Sequence[Places],
    candidates: Sequence[Sequence[Places]],
    found: Match | None,
    board: Board,
) -> CalibrationError:
    """The error for boards and plates that do not move alike: mirrored, of another size, or mixed up."""
    count, least = 0 if found is None else found.count, _MOST * len(boards)
    mirrored = [Places(_FLIP * place.center, _FLIP * place.normal) for place in boards]
    if _agreeing(mirrored, candidates) > least:
        return CalibrationError(
            "the board moves as if seen in a mirror",
            hint="are the pictures mirrored? record them as the camera gives them",
        )
    counts = [
        _agreeing([Places(place.center * scale, place.normal) for place in boards], candidates)
        for scale in _SCALES
    ]
    best = int(np.argmax(counts))
    if counts[best] > least:
        good = _SCALES[np.array(counts) == counts[best]]
        scale = float(np.exp(np.mean(np.log(good))))
        return CalibrationError(
            f"the board moves about {1 / scale:.2g} times as far in the pictures as in the clouds",
            hint=f"are its squares {board.square_m:g} m? about {board.square_m * scale:.2g} would fit",
        )
    for shift in _SHIFTS:
        if _agreeing(boards[shift:] if shift > 0 else boards[:shift],
                     candidates[:-shift] if shift > 0 else candidates[-shift:]) > least:  # fmt: skip
            return CalibrationError(
                f"clouds fit the pictures {abs(shift)} {'after' if shift > 0 else 'before'} theirs",
                hint="picture and cloud of one pose must have one name: record them at the same time",
            )
    return CalibrationError(
        f"only {count} of {len(boards)} poses agree on where the sensors are",
        hint="picture and cloud of one name must show the same pose, standing still; are board, plate and "
        "intrinsics right?",
    )


def _agreeing(boards: Sequence[Places], candidates: Sequence[Sequence[Places]]) -> int:
    found = match(boards, candidates)
    return 0 if found is None else found.count
