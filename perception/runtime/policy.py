"""Which sensors take part, and what to do when too few are left."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from perception.errors import ConfigError, meant
from perception.frame import check_name
from perception.runtime.result import PipelineState

WHERE = "policy.required", "policy.minimum"


@dataclass(frozen=True)
class Policy:
    """A deployment's rules.

    Attributes:
        required: sensors without which the output is held, then stopped.
        minimum: least number of sensors for an output.
        max_age_ms: in a stream, features older than this are left out.
        hold_ms: how long the last result goes on being given when too few sensors are left.
        derating: factor on the confidence for each expected sensor that is missing, where the bundle has no
            temperature for the sensors that are left: a calibrated confidence is lower by itself.
        novelty_derating: the power with which confidence falls with the novelty of inputs that are far from
            training (`Result.novelty`), where the bundle can tell; 0 leaves it as it is.
    """

    required: tuple[str, ...] = ()
    minimum: int = 1
    max_age_ms: float = 200.0
    hold_ms: float = 500.0
    derating: float = 1.0
    novelty_derating: float = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.required, str):
            hint = f"('{self.required}',)"
            raise ConfigError("is one name, expected several", where="policy.required", hint=hint)
        for name in self.required:
            check_name(name, "policy.required")
        if not (self.minimum >= 1 and self.max_age_ms > 0 and self.hold_ms >= 0):  # nor NaN
            raise ConfigError(
                "minimum and max_age_ms must be positive, hold_ms not negative", where="policy"
            )
        if not 0 < self.derating <= 1:
            raise ConfigError("derating must be in (0, 1]", where="policy")
        if not 0 <= self.novelty_derating <= 10:
            raise ConfigError("novelty_derating must be in [0, 10]", where="policy")

    def check(self, sensors: Collection[str], where: tuple[str, str] = WHERE) -> None:
        """Refuse to require what is not among these, or more than there are: no output would ever come.

        Args:
            sensors: their names.
            where: what the user calls `required` and `minimum`.

        Raises:
            ConfigError: the first that is not, or how many there are.
        """
        for name in self.required:
            if name not in sensors:
                what = f"'{name}' is not among {', '.join(sensors)}"
                raise ConfigError(what, where=where[0], hint=meant(name, sensors))
        if self.minimum > len(sensors):
            there = "is only 1 sensor" if len(sensors) == 1 else f"are only {len(sensors)} sensors"
            raise ConfigError(f"there {there}", where=where[1])

    def enough(self, usable: Collection[str]) -> bool:
        """Whether these suffice for an output."""
        return len(usable) >= self.minimum and all(r in usable for r in self.required)

    def state(
        self,
        usable: Collection[str],
        wanted: Collection[str],
        since_last_ms: float,
    ) -> PipelineState:
        """The state for the sensors usable now.

        Args:
            usable: those at hand and healthy.
            wanted: all that are expected.
            since_last_ms: time since the last computed result, infinity when there is none.
        """
        if not self.enough(usable):
            return "hold" if since_last_ms <= self.hold_ms else "stop"
        return "full" if set(wanted) <= set(usable) else "degraded"

    def confidence_factor(self, used: Collection[str], wanted: Collection[str]) -> float:
        """What confidences are multiplied with that were not calibrated for the sensors used."""
        return float(self.derating ** len(set(wanted) - set(used)))

    def familiarity(self, novelty: Collection[float]) -> float:
        """What confidences are multiplied with where inputs are far from training.

        Args:
            novelty: of the sensors used, where it is known.

        Returns:
            1 where none is beyond 1; otherwise the mean over them of 1 / novelty^`novelty_derating`.
        """
        if self.novelty_derating == 0 or not any(n > 1 for n in novelty):
            return 1.0
        factors = [max(1.0, n) ** -self.novelty_derating for n in novelty]
        return float(sum(factors) / len(factors))
