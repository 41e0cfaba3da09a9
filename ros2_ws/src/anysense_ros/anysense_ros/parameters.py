"""The perception node's parameters: names, ranges, descriptions, and what they mean to the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from perception.adapters.thermal import UNITS
from perception.errors import AnySenseError, ConfigError
from perception.frame import MODALITIES, Modality, as_modality
from perception.runtime.collector import SensorTiming
from perception.runtime.health import HealthConfig
from perception.runtime.policy import Policy

TRANSPORTS = ("raw", "compressed")
RELIABILITIES = ("best_effort", "reliable", "system_default")
DURABILITIES = ("volatile", "transient_local", "system_default")
EXTRINSICS = ("auto", "tf", "file")

_ROS_OWN = ("use_sim_time", "start_type_description_service")
"""Parameters that every node has."""


@dataclass(frozen=True)
class Spec:
    """One parameter: its default gives the type; `low` and `high` bound numbers."""

    name: str
    default: Any
    text: str
    low: float | None = None
    high: float | None = None
    read_only: bool = False
    choices: tuple[str, ...] = ()

    def descriptor(self) -> ParameterDescriptor:
        """As ROS describes it."""
        out = ParameterDescriptor(description=self.text, read_only=self.read_only)
        if self.choices:
            out.additional_constraints = "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                limits = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                out.floating_point_range = [limits]
            else:
                span = IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
                out.integer_range = [span]
        return out


_MS = 60_000.0

COMMON = (
    Spec("bundle", "", "folder, zip or name of the bundle to run", read_only=True),
    Spec("device", "auto", "auto, cpu, cuda or the name of a backend", read_only=True),
    Spec("threads", 0, "CPU threads within an operator, 0 = all cores", 0, 256, read_only=True),
    Spec("trust_plans", False, "run TensorRT plans that came with the bundle", read_only=True),
    Spec("autostart", False, "configure and activate without being asked", read_only=True),
    Spec("inputs", ["rgb"], "the sensors that this robot has", read_only=True),
    Spec("calibration_file", "", "rig file (see docs/data.md), read anew when this is set"),
    Spec("extrinsics", "auto", "auto takes the rig file's, then TF's", choices=EXTRINSICS),
    Spec("reference_frame", "", "optical frame of the reference camera; '' = the first camera's"),
    Spec("tf.max_age_ms", 2000.0, "oldest transform used from /tf; 0 = any", 0.0, 1e9),
    Spec("sync.deadline_ms", 80.0, "longest wait of a sample for the others", 1.0, _MS),
    Spec("sync.jump_ms", 1000.0, "a stamp further back than this is a clock set back", 1.0, 1e9),
    Spec("sync.max_skew_ms", 0.0, "reject stamps further from this clock; 0 = do not", 0.0, 1e9),
    Spec("sync.max_lead_ms", 50.0, "a stamp further ahead of this clock is wrong", 0.0, _MS),
    Spec("sync.heartbeat_ms", 200.0, "period of ~/status while no sensor speaks", 10.0, _MS),
    Spec("policy.required", [""], "sensors without which there is no output"),
    Spec("policy.minimum", 1, "least number of sensors for an output", 1, 4),
    Spec("policy.max_age_ms", 150.0, "how long a slower sensor's features are used", 0.001, _MS),
    Spec("policy.hold_ms", 1000.0, "how long the last output is held before stop", 0.0, _MS),
    Spec("policy.derating", 1.0, "factor on confidence for each missing sensor", 0.01, 1.0),
    Spec("qos.reliability", "best_effort", "of the inputs", read_only=True, choices=RELIABILITIES),
    Spec("qos.durability", "volatile", "of the inputs", read_only=True, choices=DURABILITIES),
    Spec("qos.depth", 1, "queue of the inputs; only the latest is used", 1, 100, read_only=True),
    Spec("qos.outputs", "reliable", "of the outputs", read_only=True, choices=RELIABILITIES),
    Spec("qos.deadline_ms", 1000.0, "offered on the outputs; 0 = none", 0.0, _MS, read_only=True),
    Spec("qos.lease_ms", 1000.0, "of the outputs' liveliness; 0 = none", 0.0, _MS, read_only=True),
    Spec("output.min_confidence", 0.0, "pixels below are unlabeled (255)", 0.0, 1.0),
    Spec("output.overlay_opacity", 0.55, "of the labels over the picture", 0.0, 1.0),
    Spec("output.points_stride", 2, "of ~/points from a depth image", 1, 32),
    Spec("diagnostics.period_s", 1.0, "of /diagnostics; changes are sent at once", 0.05, 60.0),
    Spec("thermal.unit", "auto", "what 16 bit values are", choices=UNITS),
    Spec("lidar.least_range_m", 0.01, "nearer than this is no return", 0.0, 1000.0),
)


def sensor_specs(modality: Modality) -> tuple[Spec, ...]:
    """The parameters of one input."""
    timing = SensorTiming()
    ms = 1e-6
    return (
        Spec(f"{modality}.transport", "raw", "topic type", read_only=True, choices=TRANSPORTS),
        Spec(f"{modality}.offset_ms", 0.0, "added to its stamps", -_MS, _MS),
        Spec(f"{modality}.window_ms", timing.window_ns * ms, "matching window", 0.0, _MS),
        Spec(f"{modality}.timeout_ms", timing.timeout_ns * ms, "silence = lost", 1.0, _MS),
        Spec(f"{modality}.weight", timing.weight, "share in coverage", 1e-6, 1e6),
    )


def health_specs() -> tuple[Spec, ...]:
    """The thresholds of `HealthConfig`."""
    text = "see HealthConfig"
    least = {"frozen_after": 0}  # off
    return tuple(
        Spec(
            f"health.{f.name}",
            f.default,
            text,
            least.get(f.name, 1 if isinstance(f.default, int) else 0.0),
            65535,
        )
        for f in fields(HealthConfig)
    )


@dataclass(frozen=True)
class Settings:
    """All parameters, checked."""

    values: Mapping[str, Any]
    inputs: tuple[Modality, ...]
    timing: Mapping[Modality, SensorTiming]
    policy: Policy
    health: HealthConfig

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def ns(self, name: str) -> int:
        """A parameter in milliseconds as nanoseconds."""
        return round(self.values[name] * 1e6)


def specs_for(inputs: Sequence[str]) -> dict[str, Spec]:
    """All parameters of a node with these inputs, by name."""
    sensors = [s for m in MODALITIES if m in inputs for s in sensor_specs(m)]
    return {s.name: s for s in (*COMMON, *health_specs(), *sensors)}


def check(values: Mapping[str, Any]) -> Settings:
    """Turn parameter values into settings.

    Raises:
        ConfigError: a value that its range does not rule out, but that makes no sense.
    """
    named = [n for n in values["inputs"] if n]
    if not named:
        raise ConfigError("needs at least one sensor", where="inputs")
    for name in named:
        as_modality(name)
    inputs = tuple(m for m in MODALITIES if m in named)
    for name, spec in specs_for(inputs).items():
        if spec.choices and values[name] not in spec.choices:
            raise ConfigError(
                f"'{values[name]}' is unknown", where=name, hint=", ".join(spec.choices)
            )
    required = tuple(n for n in values["policy.required"] if n)
    missing = [n for n in required if n not in inputs]
    if missing:
        raise ConfigError(f"'{missing[0]}' is not among the inputs", where="policy.required")
    if values["policy.minimum"] > len(inputs):
        raise ConfigError(f"there are only {len(inputs)} inputs", where="policy.minimum")
    timing = {
        m: SensorTiming(
            *(round(values[f"{m}.{n}_ms"] * 1e6) for n in ("offset", "window", "timeout")),
            weight=values[f"{m}.weight"],
        )
        for m in inputs
    }
    policy = Policy(
        required,
        values["policy.minimum"],
        values["policy.max_age_ms"],
        values["policy.hold_ms"],
        values["policy.derating"],
    )
    health = HealthConfig(**{f.name: values[f"health.{f.name}"] for f in fields(HealthConfig)})
    return Settings(dict(values), inputs, timing, policy, health)


def declare(node: Node) -> Settings:
    """Declare all parameters on a node and check what it was started with.

    Raises:
        ConfigError: a value has the wrong type, lies out of range or makes no sense.
    """
    _refuse_unknown(node)
    for spec in (*COMMON, *health_specs()):
        _declare(node, spec)
    for name in node.get_parameter("inputs").value:
        if name in MODALITIES:
            for spec in sensor_specs(as_modality(name)):
                _declare(node, spec)
    return check(current(node))


def _refuse_unknown(node: Node) -> None:
    """Refuse what the command line or a parameter file sets and no parameter is called.

    Parameters of sensors that are not among the inputs are known: one file may serve several robots.
    """
    known = specs_for(MODALITIES)
    for name in node._parameter_overrides:  # no public way tells those that were never declared
        if name in known or name in _ROS_OWN or name.startswith("qos_overrides."):
            continue
        near = get_close_matches(name, known, 1)
        raise ConfigError(
            "there is no such parameter",
            where=f"parameter {name}",
            hint=f"did you mean {near[0]}?" if near else "ros2 param list shows all",
        )


def _declare(node: Node, spec: Spec) -> None:
    if node.has_parameter(spec.name):
        return
    try:
        node.declare_parameter(spec.name, spec.default, spec.descriptor())
    except (ParameterException, AnySenseError, ValueError) as error:
        kind = type(spec.default).__name__
        hint = f"expected {kind}"
        if spec.low is not None and spec.high is not None and kind != "str":
            hint += f" from {spec.low:g} to {spec.high:g}"
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(line, where=f"parameter {spec.name}", hint=hint) from error


def current(node: Node) -> dict[str, Any]:
    """The values that the node has now."""
    names = specs_for(node.get_parameter("inputs").value)
    return {name: node.get_parameter(name).value for name in names}
