"""A robot that turns at irregular times, and how sensors of it stamp what they see."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.timing.motion import Motion, motion_of

START = 1_700_000_000 * 10**9
_STEP, _SPARE = 0.001, 2.0


@dataclass(frozen=True)
class Turning:
    """Angles of a robot over time: `times` (N,) seconds, `angles` (N, 3) radians."""

    times: NDArray
    angles: NDArray

    def at(self, times: NDArray) -> NDArray:
        """(M, 3) angles."""
        return np.stack([np.interp(times, self.times, one) for one in self.angles.T], axis=1)


def turning(rng: np.random.Generator, seconds: float, rate: float = 0.3) -> Turning:
    """Rates of turning that wander within about 1 Hz, mostly about the upright axis; rad/s."""
    from scipy.signal import lfilter

    count = int((seconds + 2 * _SPARE) / _STEP)
    rates, keep = rng.standard_normal((count, 3)), np.exp(-2 * np.pi * _STEP)
    for _ in range(2):
        rates = lfilter([1 - keep], [1, -keep], rates, axis=0)
    rates *= rate / rates.std() * np.array([0.3, 0.2, 1.0])
    return Turning(np.arange(count) * _STEP - _SPARE, np.cumsum(rates, axis=0) * _STEP)


@dataclass(frozen=True)
class Timing:
    """How a sensor samples: rate, share of samples that are lost, and jitter of its stamps in seconds.

    `offset` is added to its stamps to get the true time, which its clock runs from by `drift`.
    """

    hz: float
    offset: float = 0.0
    dropped: float = 0.03
    jitter: float = 0.001
    drift: float = 0.0

    def sample(self, rng: np.random.Generator, seconds: float) -> tuple[NDArray, NDArray]:
        """True times in seconds, and stamps in nanoseconds."""
        true = np.arange(rng.uniform(0, 1 / self.hz), seconds, 1 / self.hz)
        true = true[rng.random(len(true)) >= self.dropped]
        stamps = true - self.offset - self.drift * (true - seconds / 2)
        stamps = np.sort(stamps + rng.normal(0, self.jitter, len(true)))
        return true, START + (stamps * 1e9).astype(np.int64)


def seen(
    rng: np.random.Generator, robot: Turning, seconds: float, timing: Timing, noise: float
) -> Motion:
    """What a sensor that sits at any angle tells of the turns; noise of each turn in radians."""
    mounted = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    true, stamps = timing.sample(rng, seconds)
    turns = np.diff(robot.at(true) @ mounted, axis=0)
    turns += rng.normal(0, noise, turns.shape)
    return motion_of(stamps.tolist(), list(turns))


class Panorama:
    """Far things all around, seen by a camera with a focal length of its width."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        self.height, self.width = size
        noise = np.pad(rng.random((256, 1024)).astype(np.float32), 32, mode="wrap")
        coarse, fine = (cv2.GaussianBlur(noise, (0, 0), wide)[32:-32, 32:-32] for wide in (6, 1.5))
        self._far = (coarse - coarse.mean()) / coarse.std() + (fine - fine.mean()) / fine.std()

    def picture(self, angles: NDArray) -> NDArray[np.uint8]:
        """(H, W) gray: from the pitch, roll and yaw of the robot."""
        v, u = np.mgrid[: self.height, : self.width].astype(np.float64)
        rays = np.stack([u - self.width / 2, v - self.height / 2, np.full(u.shape, self.width)], -1)
        pitch, roll, yaw = angles
        turn = [cv2.Rodrigues(np.array(a))[0] for a in ([0, yaw, 0], [pitch, 0, 0], [0, 0, roll])]
        x, y, z = np.moveaxis(rays @ (turn[0] @ turn[1] @ turn[2]).T, -1, 0)
        column = (np.arctan2(x, z) / (2 * np.pi) % 1 * 1024).astype(np.float32)
        row = (np.arctan2(y, np.hypot(x, z)) / np.pi * 256 + 128).astype(np.float32)
        seen = cv2.remap(self._far, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        return np.clip(128 + 50 * seen, 0, 255).astype(np.uint8)
