"""How differently two sets of sensors see the same frame."""

from __future__ import annotations

import numpy as np

from perception.errors import ConfigError, names_hint
from perception.frame import Frame
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result


class Comparison:
    """Runs a bundle on two sets of a frame's sensors.

    Args:
        pipeline: one of its own, whose memory of frames before nobody shares.
        between: the two sets.

    Raises:
        ConfigError: one names a sensor that the bundle does not take.
    """

    def __init__(
        self, pipeline: Pipeline, between: tuple[tuple[str, ...], tuple[str, ...]]
    ) -> None:
        for name in (name for names in between for name in names):
            if name not in pipeline.sensors:
                hint = names_hint(name, pipeline.sensors)
                raise ConfigError(f"there is no '{name}'", where="keep.disagreement", hint=hint)
        self._pipeline, self._between = pipeline, between

    def of(self, result: Result) -> float | None:
        """The share of pixels that the two label otherwise; None where a sensor was not used."""
        found = []
        for names in self._between:
            if not set(names) <= set(result.samples):
                return None
            self._pipeline.reset()
            given = Frame({name: result.samples[name] for name in names})
            labels = self._pipeline(given).labels
            if labels is None:
                return None
            found.append(labels)
        one, other = found
        if one.shape != other.shape:
            rows = np.arange(one.shape[0]) * other.shape[0] // one.shape[0]
            columns = np.arange(one.shape[1]) * other.shape[1] // one.shape[1]
            other = other[rows[:, None], columns[None, :]]
        return float((one != other).mean())
