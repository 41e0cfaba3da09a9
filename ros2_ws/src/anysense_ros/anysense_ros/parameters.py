"""The perception node's parameters: names, ranges, descriptions, and what they mean to the library."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from perception.errors import AnySenseError, ConfigError, meant, names_hint
from perception.frame import check_name, in_order
from perception.runtime.alignment import Alignment
from perception.runtime.arrival import SensorTiming
from perception.runtime.drift import DriftPolicy
from perception.runtime.health import HealthConfig
from perception.runtime.lateness import LatePolicy
from perception.runtime.manifest import BundleManifest
from perception.runtime.policy import Policy
from perception.runtime.settings import StreamSettings
from perception.runtime.time_limit import LOAD_TIMEOUT_S
from perception.runtime.wiring import match_inputs
from perception.sensors.names import OURS, is_kind, kinds
from perception.sensors.registry import kind_of, usable_kinds
from perception.tasks.obstacles import ClassRoles, ObstacleRules
from perception.tasks.registry import every_part

TRANSPORTS = ("raw", "compressed")
RELIABILITIES = ("best_effort", "reliable", "system_default")
DURABILITIES = ("volatile", "transient_local", "system_default")
STUCK = ("reload", "exit")
ALIGNMENTS = ("auto", "off")
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
_RULES = ObstacleRules(ClassRoles.common(()))
_DRIFT = DriftPolicy()

WHICH = (
    Spec("inputs", [OURS[0]], "the sensors that this robot has, one of a kind", read_only=True),
    Spec("sensors", [""], "the same by names of their own, instead of inputs", read_only=True),
)

COMMON = (
    Spec("bundle", "", "folder, zip or name of the bundle to run", read_only=True),
    Spec("device", "auto", "auto, cpu, cuda, cuda:1 or the name of a backend", read_only=True),
    Spec("threads", 0, "CPU threads within an operator, 0 = all cores", 0, 256, read_only=True),
    Spec("trust_plans", False, "run TensorRT plans that came with the bundle", read_only=True),
    Spec("engine.timeout_ms", 0.0, "longest run of a graph; 0 = any", 0.0, 1e6, read_only=True),
    Spec(
        "engine.load_timeout_s", LOAD_TIMEOUT_S, "of a graph on the CPU", 0.1, 1e6, read_only=True
    ),
    Spec("engine.stuck", "reload", "what to do when a run cannot be ended", choices=STUCK),
    Spec("require_signature", False, "refuse a bundle that no trusted key signed", read_only=True),
    Spec("trust_store", "", "folder of trusted keys; '' = the user's", read_only=True),
    Spec("autostart", False, "configure and activate without being asked", read_only=True),
    Spec("calibration_file", "", "rig file (see docs/data.md), read anew when this is set"),
    Spec("extrinsics", "auto", "auto takes the rig file's, then TF's", choices=EXTRINSICS),
    Spec("reference_frame", "", "optical frame of the reference camera; '' = the first camera's"),
    Spec("base_frame", "", "the vehicle's; '' = the rig file's base, or base_link"),
    Spec("odometry", False, "take how the vehicle moves from ~/odometry", read_only=True),
    Spec("tf.max_age_ms", 2000.0, "oldest transform used from /tf; 0 = any", 0.0, 1e9),
    Spec("sync.deadline_ms", 80.0, "longest wait of a sample for the others", 1.0, _MS),
    Spec("sync.jump_ms", 1000.0, "a stamp further back than this is a clock set back", 1.0, 1e9),
    Spec("sync.max_skew_ms", 0.0, "reject stamps further from this clock; 0 = do not", 0.0, 1e9),
    Spec("sync.max_lead_ms", 50.0, "a stamp further ahead of this clock is wrong", 0.0, _MS),
    Spec("sync.heartbeat_ms", 200.0, "period of ~/status while no sensor speaks", 10.0, _MS),
    Spec("policy.required", [""], "sensors without which there is no output"),
    Spec("policy.minimum", 1, "least number of sensors for an output", 1, 16),
    Spec("policy.max_age_ms", 150.0, "how long a slower sensor's features are used", 0.001, _MS),
    Spec("policy.hold_ms", 1000.0, "how long the last output is held before stop", 0.0, _MS),
    Spec(
        "policy.derating",
        1.0,
        "factor on uncalibrated confidence for each missing sensor",
        0.01,
        1.0,
    ),
    Spec(
        "policy.novelty_derating",
        1.0,
        "power with which confidence falls with novelty, far from training; 0 = it does not",
        0.0,
        10.0,
    ),
    Spec(
        "align.mode",
        "auto",
        "auto = cameras elsewhere are warped; off = stretched",
        choices=ALIGNMENTS,
    ),
    Spec("align.plane_m", 0.0, "distance of things where no depth says it; 0 = far", 0.0, 1e6),
    Spec("align.ranges", True, "take distances from a depth picture where there is one"),
    Spec("align.tolerance_px", 1.0, "off by less, in pixels of the grid, is aligned", 0.01, 1000.0),
    Spec("late.deadline_ms", 0.0, "from the newest message to the output; 0 = none", 0.0, _MS),
    Spec("late.after", 3, "late outputs before something is left out", 1, 10_000),
    Spec("late.recover_after", 50, "early ones before it is taken up again", 1, 100_000),
    Spec("late.margin", 0.6, "share of the deadline that is early", 0.01, 0.99),
    Spec("late.keep", [""], "sensors that are never left out for want of time"),
    Spec("late.optional", [""], "parts of outputs that may be; none: boxes3d, points, energy"),
    Spec(
        "drift.period_s", 0.0, "between looks at whether the rig still fits; 0 = none", 0.0, 3600.0
    ),
    Spec("drift.most_deg", _DRIFT.most_deg, "that a sensor may be turned by", 0.01, 4.0),
    Spec("drift.most_ms", _DRIFT.most_ms, "that its stamps may be off", 1.0, 150.0),
    Spec("drift.leave_out", False, "a misaligned sensor takes no part in outputs"),
    Spec("qos.reliability", "best_effort", "of the inputs", read_only=True, choices=RELIABILITIES),
    Spec("qos.durability", "volatile", "of the inputs", read_only=True, choices=DURABILITIES),
    Spec("qos.depth", 1, "queue of the inputs; only the latest is used", 1, 100, read_only=True),
    Spec("qos.outputs", "reliable", "of the outputs", read_only=True, choices=RELIABILITIES),
    Spec("qos.deadline_ms", 1000.0, "offered on the outputs; 0 = none", 0.0, _MS, read_only=True),
    Spec("qos.lease_ms", 1000.0, "of the outputs' liveliness; 0 = none", 0.0, _MS, read_only=True),
    Spec("output.min_confidence", 0.0, "pixels below are unlabeled (255)", 0.0, 1.0),
    Spec("output.overlay_opacity", 0.55, "of the labels over the picture", 0.0, 1.0),
    Spec("output.points_stride", 2, "of ~/points from a depth image", 1, 32),
    Spec("output.marker_lifetime_s", 0.5, "of ~/markers_3d; 0 = for ever", 0.0, 60.0),
    Spec("obstacles.classes", "", "file of the roles of classes; '' = by their names"),
    Spec("obstacles.min_confidence", _RULES.min_confidence, "less sure is an obstacle", 0.0, 1.0),
    Spec("obstacles.ground_m", _RULES.ground_m, "so near the ground is none; 0 = off", 0.0, 10.0),
    Spec("obstacles.step_m", _RULES.step_m, "so high above the ground is one", 0.0, 100.0),
    Spec("obstacles.ground_range_m", _RULES.ground_range_m, "how far it is flat", 0.0, 1000.0),
    Spec("obstacles.organized", False, "a row and column for each pixel of the mask"),
    Spec("diagnostics.period_s", 1.0, "of /diagnostics; changes are sent at once", 0.05, 60.0),
)


def sensor_specs(name: str, kind: str) -> tuple[Spec, ...]:
    """The parameters of one sensor; of an unknown kind (empty): those of all kinds."""
    timing = SensorTiming()
    ms = 1e-6
    text = "the bundle's input that it is; '' = of its name, else the only one of its kind"
    known = kinds()
    records = (kind_of(kind),) if is_kind(kind) else usable_kinds()
    units = tuple(dict.fromkeys(unit for record in records for unit in record.units))
    unit = Spec(f"{name}.unit", "auto", "what 16 bit values are", choices=units)
    least = Spec(f"{name}.least_range_m", 0.01, "nearer than this is no return", 0.0, 1000.0)
    return (
        Spec(
            f"{name}.kind",
            "",
            "'' = its name, else its input's",
            read_only=True,
            choices=("", *known),
        ),
        Spec(f"{name}.input", "", text, read_only=True),
        Spec(f"{name}.transport", "raw", "topic type", read_only=True, choices=TRANSPORTS),
        Spec(f"{name}.offset_ms", 0.0, "added to its stamps", -_MS, _MS),
        Spec(f"{name}.window_ms", timing.window_ns * ms, "matching window", 0.0, _MS),
        Spec(f"{name}.timeout_ms", timing.timeout_ns * ms, "silence = lost", 1.0, _MS),
        Spec(f"{name}.weight", timing.weight, "share in coverage", 1e-6, 1e6),
        *([unit] if units else []),
        *([least] if any("least_range_m" in r.hints for r in records) else []),
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
    """All parameters, checked.

    Attributes:
        values: by name.
        kinds: by sensor, in order, its kind; empty where only the bundle can tell and was not asked.
        inputs: by sensor, the bundle's input that it is; empty before the bundle was asked.
        timing, policy, health, alignment: what the values mean to the library.
        obstacles: the same; None before the bundle was asked.
        late: the same; None without a deadline.
        drift: the same; None where it is not watched.
    """

    values: Mapping[str, Any]
    kinds: Mapping[str, str]
    inputs: Mapping[str, str]
    timing: Mapping[str, SensorTiming]
    policy: Policy
    health: HealthConfig
    obstacles: ObstacleRules | None = None
    late: LatePolicy | None = None
    alignment: Alignment | None = None
    drift: DriftPolicy | None = None

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    @property
    def sensors(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.kinds)

    def stream(self, offset_ns: Callable[[str], int]) -> StreamSettings:
        """What a stream takes of them; `offset_ns` is by sensor, to be added to its own."""
        return StreamSettings(
            {n: replace(t, offset_ns=t.offset_ns + offset_ns(n)) for n, t in self.timing.items()},
            self.ns("sync.deadline_ms"),
            self.ns("sync.heartbeat_ms"),
            self.ns("sync.jump_ms"),
            self.ns("sync.max_skew_ms") or None,
            self.ns("sync.max_lead_ms"),
            self.policy,
            self.health,
            self.late,
            self.alignment,
            self.drift,
        )

    def ns(self, name: str) -> int:
        """A parameter in milliseconds as nanoseconds."""
        return round(self.values[name] * 1e6)


def specs_for(kinds: Mapping[str, str]) -> dict[str, Spec]:
    """All parameters of a node with these sensors, by name; their kinds may be empty for unknown."""
    sensors = [s for name, kind in kinds.items() for s in sensor_specs(name, kind)]
    return {s.name: s for s in (*WHICH, *COMMON, *health_specs(), *sensors)}


def sensors_of(inputs: Sequence[str], sensors: Sequence[str]) -> tuple[str, ...]:
    """The sensors that the parameters of these names declare, in order.

    Raises:
        ConfigError, InputError: none, an unknown kind, or what no sensor can be called.
    """
    if named := [check_name(n, "sensors") for n in sensors if n]:
        return in_order(named)
    for name in filter(None, inputs):
        if not is_kind(name):
            hint = f"{names_hint(name, kinds())}; names of your own go into sensors"
            raise ConfigError(f"unknown kind of sensor '{name}'", where="inputs", hint=hint)
    if not any(inputs):
        raise ConfigError("needs at least one sensor", where="inputs")
    return in_order(n for n in inputs if n)


def check(values: Mapping[str, Any], manifest: BundleManifest | None = None) -> Settings:
    """Turn parameter values into settings.

    Args:
        values: by name.
        manifest: that of the bundle that is to run.

    Raises:
        ConfigError, InputError: a value that its range does not rule out, but that makes no sense.
    """
    names = sensors_of(values["inputs"], values["sensors"])
    own = {n: n if is_kind(n) else values[f"{n}.kind"] for n in names}
    _refuse_other_choices(values, own)
    inputs = _inputs(values, own, manifest) if manifest is not None else {}
    if manifest is not None:
        own = {n: manifest.inputs[inputs[n]].kind for n in names}
    _refuse_other_kinds(values, own)
    _refuse_other_choices(values, own)
    timing = {
        m: SensorTiming(
            *(round(values[f"{m}.{n}_ms"] * 1e6) for n in ("offset", "window", "timeout")),
            weight=values[f"{m}.weight"],
        )
        for m in names
    }
    policy = Policy(
        tuple(n for n in values["policy.required"] if n),
        values["policy.minimum"],
        values["policy.max_age_ms"],
        values["policy.hold_ms"],
        values["policy.derating"],
        values["policy.novelty_derating"],
    )
    policy.check(names)
    health = HealthConfig(**{f.name: values[f"health.{f.name}"] for f in fields(HealthConfig)})
    obstacles = _obstacles(values, manifest) if manifest is not None else None
    late = _late(values, names, manifest) if values["late.deadline_ms"] > 0 else None
    alignment = Alignment(
        values["align.mode"],
        values["align.plane_m"] or math.inf,
        values["align.ranges"],
        values["align.tolerance_px"],
    )
    drift = _drift(values) if values["drift.period_s"] > 0 else None
    return Settings(
        dict(values), own, inputs, timing, policy, health, obstacles, late, alignment, drift
    )


def _drift(values: Mapping[str, Any]) -> DriftPolicy:
    names = ("period_s", "most_deg", "most_ms", "leave_out")
    return DriftPolicy(**{name: values[f"drift.{name}"] for name in names})


def _late(
    values: Mapping[str, Any], sensors: Collection[str], manifest: BundleManifest | None
) -> LatePolicy:
    keep, optional = (tuple(filter(None, values[f"late.{n}"])) for n in ("keep", "optional"))
    parts = every_part(manifest.tasks.every) if manifest is not None else optional
    for name, given, known in (("keep", keep, sensors), ("optional", optional, parts)):
        if unknown := [n for n in given if n not in known]:
            hint = f"one of {', '.join(sorted(known))}"
            raise ConfigError(f"there is no '{unknown[0]}'", where=f"late.{name}", hint=hint)
    return LatePolicy(
        values["late.deadline_ms"] / 1e3,
        values["late.after"],
        values["late.recover_after"],
        values["late.margin"],
        keep,
        optional or None,
    )


def _obstacles(values: Mapping[str, Any], manifest: BundleManifest) -> ObstacleRules:
    path, classes = values["obstacles.classes"], manifest.seg_classes
    roles = ClassRoles.read(path, classes) if path else ClassRoles.common(classes)
    numbers = {f.name: values[f"obstacles.{f.name}"] for f in fields(ObstacleRules)[1:]}
    return ObstacleRules(roles, **numbers)


def _refuse_other_choices(values: Mapping[str, Any], sensors: Mapping[str, str]) -> None:
    for name, spec in specs_for(sensors).items():
        if spec.choices and values[name] not in spec.choices:
            hint = names_hint(values[name], list(filter(None, spec.choices)))
            raise ConfigError(f"'{values[name]}' is unknown", where=name, hint=hint)


def _inputs(
    values: Mapping[str, Any], kinds: Mapping[str, str], manifest: BundleManifest
) -> dict[str, str]:
    """By sensor, the bundle's input that it is; see `match_inputs`."""
    takes = manifest.inputs.kinds
    given = {n: wanted for n in kinds if (wanted := values[f"{n}.input"])}
    known = {n: kind or takes.get(given.get(n, n), "") for n, kind in kinds.items()}
    found = match_inputs(known, takes, given)
    for name, kind in known.items():
        where = "inputs" if is_kind(name) else f"{name}.input"
        hint = "it takes " + ", ".join(n if n == k else f"{n} ({k})" for n, k in takes.items())
        if name not in found:
            other = next((n for n, own in found.items() if own == name), None)
            line = f"{name} of bundle {manifest.name} is {other}'s already"
            line = line if other else f"bundle {manifest.name} takes no {name}"
            hint = hint if other else f"{meant(name, takes)} {hint}".lstrip()
            raise ConfigError(line, where=where, hint=hint)
        if kind != takes[found[name]]:
            line = f"{name} is {kind}, and {found[name]} of bundle {manifest.name} is not"
            raise ConfigError(line, where=where, hint=hint)
    return {name: found[name] for name in kinds}


def _refuse_other_kinds(values: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
    """Refuse values that were set for sensors which, by name or bundle, are of another kind."""
    for name, kind in kinds.items():
        if values[f"{name}.kind"] not in ("", kind):
            raise ConfigError(f"it is {kind}", where=f"{name}.kind")
        known = {s.name for s in sensor_specs(name, kind)}
        for spec in sensor_specs(name, ""):
            if spec.name not in known and values.get(spec.name, spec.default) != spec.default:
                raise ConfigError(f"{name} is {kind}, which has none", where=spec.name)


def declare(node: Node) -> Settings:
    """Declare all parameters on a node and check what it was started with.

    Raises:
        ConfigError, InputError: a parameter is unknown, or its value has the wrong type, lies out of
            range or makes no sense.
    """
    given = given_to(node)
    if all(spec.name in given for spec in WHICH):
        raise ConfigError("is given beside inputs", where="sensors", hint="one of the two says all")
    for spec in WHICH:
        declare_one(node, spec)
    found: dict[str, str] = {}
    for name in sensors_of(*(node.get_parameter(spec.name).value for spec in WHICH)):
        own = given.get(f"{name}.kind")
        kind = name if is_kind(name) or own is None else str(own.value)
        found[name] = kind if is_kind(kind) else ""
    _refuse_unknown(given, found)
    for spec in specs_for(found).values():
        declare_one(node, spec)
    return check(current(node))


def given_to(node: Node) -> Mapping[str, Any]:
    """The parameters that a node was started with, also those that it never declares."""
    return dict(node._parameter_overrides)  # no public way tells those


def _refuse_unknown(given: Collection[str], sensors: Mapping[str, str]) -> None:
    """Refuse what the command line or a parameter file sets and no parameter is called.

    Parameters of kinds that are not among the inputs are known: one file may serve several robots.
    """
    known = specs_for({**{own.name: own.name for own in usable_kinds()}, **sensors})
    own = {spec.name.partition(".")[2] for spec in sensor_specs("x", "")}
    refuse_unknown(given, known, sensors, own)


def refuse_unknown(
    given: Collection[str],
    known: Collection[str],
    sensors: Collection[str] = (),
    own: Collection[str] = (),
) -> None:
    """Refuse what a node was started with and has no parameter of.

    Args:
        given: names on the command line or in a parameter file.
        known: all that there are.
        sensors: of the node.
        own: what each of them has parameters of, as after its name and a dot.

    Raises:
        ConfigError: there is one.
    """
    for name in given:
        if name in known or name in _ROS_OWN or name.startswith("qos_overrides."):
            continue
        hint = meant(name, known) or "ros2 param list shows all"
        sensor, _, rest = name.partition(".")
        if sensor not in sensors and rest in own:
            hint += f"; the sensors are {', '.join(sensors)}"
        raise ConfigError("there is no such parameter", where=f"parameter {name}", hint=hint)


def declare_one(node: Node, spec: Spec) -> None:
    """Declare a parameter.

    Raises:
        ConfigError: what it was given has another type, or is out of range.
    """
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
    names = sensors_of(*(node.get_parameter(spec.name).value for spec in WHICH))
    known = specs_for(dict.fromkeys(names, ""))
    return {name: node.get_parameter(name).value for name in known if node.has_parameter(name)}
