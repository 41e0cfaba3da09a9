"""What results of calibrations say alike: whether they are trusted, how sure they are, how far off."""

from __future__ import annotations

import numpy as np

from perception.geometry.transforms import Float64


class Doubted:
    """A result that says what speaks against it.

    Attributes:
        doubts: why it is not to be trusted; empty where nothing speaks against it.
    """

    doubts: tuple[str, ...]

    @property
    def trusted(self) -> bool:
        """Whether nothing says that it is wrong."""
        return not self.doubts


def sigma_of(covariance: Float64) -> Float64:
    """(N,) standard deviations of an (N, N) covariance; what rounding brought below 0 counts as 0."""
    return np.sqrt(np.maximum(np.diag(covariance), 0))


def plain_sigma(sigma: Float64) -> dict[str, list[float]]:
    """Standard deviations of a pose, (6,) in metres and radians, for JSON, which has degrees."""
    return {"translation_m": sigma[:3].tolist(), "rotation_deg": np.degrees(sigma[3:]).tolist()}


def root_mean_square(values: Float64) -> float:
    """Of values of any shape; NaN of none."""
    return float(np.sqrt(np.mean(values**2)))
