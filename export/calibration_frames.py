"""Frames to measure on: which of a recording are taken, and what is done where they lack a sensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perception.data.base import Recording
from perception.errors import ConfigError
from perception.frame import Frame
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.sample import preprocess_sample
from perception.runtime.modular import Tensors
from perception.runtime.wiring import IMAGE

Progress = Callable[[str, int, int], None]

_MOST, _LEAST_CHECKED = 24, 3


def network_inputs(frame: Frame, contract: PreprocessContract) -> Tensors:
    """Preprocessed inputs of those of the contract's that the frame has.

    Returns:
        (1, C, H, W) of an input that takes a picture; else tensors by name.
    """
    made: dict[str, Any] = {}
    for name, spec in contract.items():
        if name in frame:
            own = preprocess_sample(frame[name], spec)
            made[name] = own[IMAGE] if set(own) == {IMAGE} else own
    return made


def require_sensors(recording: Recording, contract: PreprocessContract) -> None:
    """Refuse a recording that says itself that it lacks a sensor, or has one of another kind.

    Raises:
        ConfigError: names the sensor.
    """
    if lacking := recording.info.lacking(contract.kinds):
        raise ConfigError(f"has {lacking}, which the bundle takes", where="--calib-data")


def usual_frames(available: int) -> int:
    """How many frames to calibrate on where nobody says: 24, or what a short recording can spare."""
    checked = _LEAST_CHECKED if available >= 3 * _LEAST_CHECKED else max(1, available // 3)
    return max(1, min(_MOST, available - checked))


def pick_frames(recording: Recording, calibrate: int, check: int) -> tuple[list[int], list[int]]:
    """Indices of frames to calibrate on and of others to check on, evenly spread.

    Frames that were not calibrated on show the error that new frames will have.  Where `check` of them
    are not left, one at least must be.

    Raises:
        ConfigError: there are too few.
    """
    count = len(recording)
    check = max(1, min(check, count - calibrate))
    total = calibrate + check
    if calibrate < 1 or count < total:
        frames = "1 frame is" if count == 1 else f"{count} frames are"
        raise ConfigError(
            f"{frames} too few to calibrate on {calibrate} and check on {check}",
            where="--calib-data",
        )
    picked = [i * count // total for i in range(total)]
    checked = picked[:: max(1, total // check)][:check]
    return [i for i in picked if i not in checked], checked


def inputs_of(
    recording: Recording,
    contract: PreprocessContract,
    picked: Sequence[int],
    avoid: Sequence[int] = (),
    progress: Progress = lambda what, done, total: None,
) -> Iterator[tuple[int, Tensors]]:
    """Network inputs of the frames picked, each with its index; more where these lack a sensor.

    A frame gives the sensors that it has.  What none of those picked has is looked for in the others.

    Args:
        recording: the frames.
        contract: its inputs are those that at least one frame must have.
        picked: indices.
        avoid: indices that are taken last where more frames are needed.
        progress: called while more frames are looked for.

    Raises:
        ConfigError: no frame of the recording has one of the sensors.
    """
    lacking, views = set(contract.names), contract.views()
    for index in picked:
        inputs = network_inputs(recording.seen(index, views), contract)
        lacking -= set(inputs)
        if inputs:
            yield index, inputs
    others = [i for i in range(len(recording)) if i not in set(picked)]
    others.sort(key=lambda i: i in set(avoid))  # stable: in their order otherwise
    for done, index in enumerate(others):
        if not lacking:
            return
        progress(f"looking for frames with {sorted(lacking)[0]}", done, len(others))
        frame = recording.seen(index, views)
        if lacking & set(frame):
            inputs = network_inputs(frame, contract)
            lacking -= set(inputs)
            yield index, inputs
    if lacking:
        raise ConfigError(
            f"no frame has {sorted(lacking)[0]}, which the bundle takes", where="--calib-data"
        )
