"""How a stream behaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perception.errors import ConfigError
from perception.runtime.alignment import Alignment
from perception.runtime.arrival import SensorTiming
from perception.runtime.drift import DriftPolicy
from perception.runtime.health import HealthConfig
from perception.runtime.lateness import LatePolicy
from perception.runtime.policy import Policy


@dataclass(frozen=True)
class StreamSettings:
    """How a stream behaves; all times in nanoseconds.

    Attributes:
        sensors: timing by sensor.
        deadline_ns: longest wait of any sample for the others.
        heartbeat_ns: while no sensor gives anything to make an output of, a result in state hold or
            stop comes this often.
        jump_ns, max_skew_ns: as for `Collector`.
        max_lead_ns: as for `SensorClocks`.
        policy, health, alignment: None leaves the pipeline's.
        late: how long a result may take, and what is left out when it takes longer; None: as long as it
            takes.  No sample waits for others longer than half of that.
        drift: how it is watched whether sensors still fit the rig; None: it is not.

    Raises:
        ConfigError: a time is not positive.
    """

    sensors: Mapping[str, SensorTiming]
    deadline_ns: int = 80_000_000
    heartbeat_ns: int = 200_000_000
    jump_ns: int = 1_000_000_000
    max_skew_ns: int | None = None
    max_lead_ns: int = 50_000_000
    policy: Policy | None = None
    health: HealthConfig | None = None
    late: LatePolicy | None = None
    alignment: Alignment | None = None
    drift: DriftPolicy | None = None

    def __post_init__(self) -> None:
        for name in ("deadline_ns", "heartbeat_ns", "jump_ns"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive", where="stream")

    @property
    def wait_ns(self) -> int:
        """Longest wait of any sample for the others, with the deadline of the result in view."""
        if self.late is None:
            return self.deadline_ns
        return max(1, min(self.deadline_ns, round(self.late.deadline_s * 5e8)))
