"""The perception node: sensor topics in, segmentation, boxes, points and status out."""

from __future__ import annotations

import gc
import math
import os
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import rclpy
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import SetParametersResult
from rclpy._rclpy_pybind11 import RCLError
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from anysense_ros import parameters, processes
from anysense_ros.calibration import Calibration
from anysense_ros.clocks import ForwardClock
from anysense_ros.codec import input_form
from anysense_ros.conversions import to_sample
from anysense_ros.diagnostics import ERROR, WARN
from anysense_ros.heap import Heap
from anysense_ros.publishing import Outputs
from anysense_ros.qos_events import QosEvents
from anysense_ros.reporting import Reporter
from anysense_ros.subscriptions import Subscriptions
from perception.errors import AnySenseError, InputError
from perception.frame import LEAST_RANGE_M, Sample
from perception.plugins import blamed
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.engines.base import first_line
from perception.runtime.manifest import BundleManifest
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import EngineEvent, Lateness, Result, SensorReport
from perception.runtime.stream import Listener, Moment, Stream
from perception.runtime.time_limit import stuck_calls
from perception.sensors.names import has_picture

try:
    from rclpy.event_handler import PublisherEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks

_LOOK_EVERY_S = 1.0
"""How often peers are looked for whose QoS does not fit."""

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PerceptionNode(LifecycleNode, Listener):  # type: ignore[misc]
    """Topics, parameters and lifecycle around a `Stream`, which does the work.

    Raises:
        ConfigError: a parameter is wrong.
    """

    def __init__(self) -> None:
        super().__init__("perception_node")
        self.settings = parameters.declare(self)
        self._reporter = Reporter(self, self._say)
        self._outputs: Outputs | None = None
        self._stream: Stream | None = None
        self._manifest: BundleManifest | None = None
        self._pipeline: Pipeline | None = None
        self._loader: threading.Thread | None = None
        self._calibration: Calibration | None = None
        self._forms: dict[str, tuple[Any, str]] = {}
        self._tf_static: Any = None
        self._tf: Any = None
        self._loading = "not configured"
        self._load_count = 0
        self._heap = Heap()
        self._events = QosEvents(self)
        self._topics = Subscriptions(self, self._events, self._on_incompatible)
        self._reporter.missed = self._topics.missed
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(
            self.settings["diagnostics.period_s"], self._report, clock=steady
        )
        self._events_timer = self.create_timer(_LOOK_EVERY_S, self._events.look, clock=steady)
        # Lookups happen on the stream's thread, subscriptions are the executor's.
        self._tf_wanted = self.create_guard_condition(self._listen_to_moving_frames)
        self.add_on_set_parameters_callback(self._on_parameters)

    # -- lifecycle ---------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check bundle and calibration, put up the outputs, and begin to load the engines."""
        try:
            bundle = Bundle.open(
                find_bundle(self.settings["bundle"]),
                require_signature=self.settings["require_signature"],
                trust=self.settings["trust_store"] or None,
            )
            self.settings = parameters.check(parameters.current(self), bundle.manifest)
            self._forms = {
                name: input_form(name, kind, self.settings[f"{name}.transport"])
                for name, kind in self.settings.kinds.items()
            }
            calibration = Calibration(
                self.settings["extrinsics"],
                self.settings["reference_frame"],
                self.settings.ns("tf.max_age_ms") or None,
                self.settings.kinds,
                bundle.manifest.inputs.views(self.settings.inputs),
                self.settings["align.mode"] != "off",
                bundle.manifest.inputs.grounded(self.settings.inputs),
                self.settings["base_frame"],
            )
            calibration.load(self.settings["calibration_file"])
            calibration.on_missing = self._tf_wanted.trigger
            events = PublisherEventCallbacks(
                incompatible_qos=partial(self._on_incompatible, "output"),
                use_default_callbacks=False,
            )
            self._outputs = Outputs(self, bundle.manifest, self.settings, events, self._events)
        except AnySenseError as error:
            self._say("error", str(error))
            self._reporter.diagnostics.set("engine", ERROR, str(error), {})
            self._reporter.diagnostics.flush()
            return _FAILURE
        self._manifest, self._calibration = bundle.manifest, calibration
        self._reporter.unaligned = calibration.unaligned
        self._reporter.no_output("inactive")
        self._begin_loading(bundle)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the sensors and start working."""
        assert self._calibration is not None and self._outputs is not None
        result = super().on_activate(state)
        self._reporter.no_output(f"none yet: {self._loading or 'no sensor was heard'}")
        self._stream = Stream(
            self.settings.stream(self._calibration.offset_ns),
            decode=self._decode,
            listener=self,
            clock=ForwardClock(self),
            lease_s=self.settings["qos.lease_ms"] / 1e3 or math.inf,
            threads=self.settings["threads"] or None,
        )
        if self._pipeline is not None:
            self._begin_work(self._pipeline)
        self._subscribe()
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop working; the engines stay loaded."""
        self._stop_work()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take everything down."""
        self.close()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take everything down for good."""
        self.close()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Take everything down; the node can be configured again."""
        self.close()
        return _SUCCESS

    def close(self) -> None:
        """Stop working and release engines and topics."""
        self._stop_work()
        self._load_count += 1  # what still loads is not wanted any more
        if self._loader is not None:
            self._loader.join()
            self._loader = None
        self._pipeline = self._calibration = self._manifest = None
        self._loading = "not configured"
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._reporter.ended()
        gc.unfreeze()
        gc.collect()  # publishers and their event handlers refer to each other

    def start(self) -> None:
        """With autostart: configure and activate."""
        if not self.settings["autostart"]:
            return
        if self.trigger_configure() == _SUCCESS:
            self.trigger_activate()

    def _stop_work(self) -> None:
        self._topics.drop_all()
        self._tf = self._tf_static = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
            self._reporter.inactive(self.settings.sensors)

    # -- engines -----------------------------------------------------------------------------

    def _begin_loading(self, bundle: Bundle) -> None:
        self._load_count += 1
        self._reporter.engine_log.reset()
        self._loading = "loading"
        self._loader = threading.Thread(
            target=self._load, args=(bundle, self._load_count), name="loader", daemon=True
        )
        self._loader.start()

    def _load(self, bundle: Bundle, number: int) -> None:
        def progress(line: str) -> None:
            self._loading = line
            self._reporter.diagnostics.set("engine", WARN, line, {"bundle": bundle.manifest.name})
            self._reporter.diagnostics.flush()

        settings = self.settings
        try:
            pipeline = Pipeline.load(
                bundle,
                settings["device"],
                sensors=settings.inputs,
                threads=settings["threads"] or None,
                policy=settings.policy,
                health=settings.health,
                alignment=settings.alignment,
                trust_plans=settings["trust_plans"],
                engine_timeout_s=settings["engine.timeout_ms"] / 1e3 or None,
                load_timeout_s=settings["engine.load_timeout_s"],
                progress=progress,
            )
        except Exception as error:  # backends raise what they like
            known = isinstance(error, AnySenseError)
            line = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
            self._loading = line
            self._say("error", line)
            self._reporter.diagnostics.set("engine", ERROR, line, {})
            self._reporter.diagnostics.flush()
            return
        if number != self._load_count:
            return
        # What is there now stays: the collector need not go through it again while frames run.
        gc.collect()
        gc.freeze()
        self._pipeline, self._loading = pipeline, ""
        self._say("info", f"{pipeline.manifest.name} is ready on {pipeline.backend}")
        try:
            self._begin_work(pipeline)
        except RCLError:
            if self.context.ok():  # otherwise the node has ended meanwhile
                raise

    def _begin_work(self, pipeline: Pipeline) -> None:
        stream, outputs = self._stream, self._outputs
        if stream is None or outputs is None:
            return
        stream.use(pipeline)
        outputs.announce(self.settings)
        pipeline.points_stride = self.settings["output.points_stride"]
        if self._calibration is not None:
            pipeline.base_frame = self._calibration.base
            pipeline.odometry = self._calibration.odometry if self.settings["odometry"] else None
        self._tell_engine()

    # -- topics ------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        s = self.settings
        qos = QoSProfile(
            depth=s["qos.depth"],
            reliability=ReliabilityPolicy[s["qos.reliability"].upper()],
            durability=DurabilityPolicy[s["qos.durability"].upper()],
        )
        for name, (form, suffix) in self._forms.items():
            topic = f"~/input/{name}{suffix}"
            self._topics.count(form, topic, partial(self._on_message, name), qos, name)
            if has_picture(s.kinds[name]):
                on_info = partial(self._on_camera, name)
                topic = f"~/input/{name}/camera_info"
                best = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
                self._topics.make(CameraInfo, topic, on_info, best, f"{name} camera_info")
        if s["odometry"] and self._calibration is not None:
            take = self._calibration.on_odometry
            self._topics.make(Odometry, "~/odometry", take, QoSProfile(depth=50), "odometry")
        self._listen_to_frames()

    def _listen_to_frames(self) -> None:
        """Subscribe to /tf_static where a sensor's place comes from there.

        /tf, which can take more time than the images, follows only when that is not enough.
        """
        calibration = self._calibration
        if calibration is None or not calibration.uses_tree(self.settings.kinds):
            self._topics.drop(self._tf, self._tf_static)
            self._tf = self._tf_static = None
        elif self._tf_static is None:
            latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            on_static = partial(self._on_tf, True)
            self._tf_static = self._topics.make(
                TFMessage, "/tf_static", on_static, latched, "tf_static"
            )

    def _listen_to_moving_frames(self) -> None:
        if self._tf_static is not None and self._tf is None:
            on_moving = partial(self._on_tf, False)
            self._tf = self._topics.make(TFMessage, "/tf", on_moving, QoSProfile(depth=100), "tf")

    def _on_message(self, name: str, message: Any) -> None:
        if self._stream is not None:
            with suppress(InputError):  # it has ended, as by a signal
                self._stream.push(name, message)

    def _on_camera(self, name: str, message: CameraInfo) -> None:
        if self._calibration is not None:
            self._calibration.on_camera(name, message)

    def _on_tf(self, static: bool, message: TFMessage) -> None:
        if self._calibration is not None:
            self._calibration.on_transforms(message, static)

    def _on_incompatible(self, part: str, event: Any) -> None:
        first = part not in self._reporter.incompatible
        self._reporter.incompatible[part] = event.total_count
        if first:
            self._say("warn", f"{part}: a peer's QoS does not fit ours, it gets no messages across")
        self._report()

    # -- what the stream calls, on its thread ------------------------------------------------

    def _decode(self, name: str, message: Any, moment: Moment) -> Sample:
        s, stream, calibration = self.settings.values, self._stream, self._calibration
        assert stream is not None and stream.core is not None and calibration is not None
        least = s.get(f"{name}.least_range_m", LEAST_RANGE_M)
        kind, unit = self.settings.kinds[name], s.get(f"{name}.unit", "auto")
        sample = to_sample(kind, message, unit, least_range_m=least, sensor=name)
        if sample.stamp_ns:
            return calibration.attach(sample)
        # Without a stamp (0): the stream gives it one, its place is that of the present.
        now = moment.clock_ns + stream.core.collector.clocks.base_ns
        return replace(calibration.attach(replace(sample, stamp_ns=now)), stamp_ns=None)

    def result(self, result: Result) -> None:
        """Publish an output or a heartbeat."""
        outputs, stream = self._outputs, self._stream
        if outputs is None or stream is None or stream.core is None:
            return
        manifest, settings = stream.core.pipeline.manifest, self.settings
        head = outputs.publish(result, settings)
        latency = (stream.clock.now_ns() - result.arrived_ns) / 1e6
        reports = stream.report()
        late = "" if result.lateness is None else result.lateness.line
        notes = [*self._reporter.unaligned.values(), *([late] if late else [])]
        notes += self._reporter.missing().values()
        outputs.status.output(head, result, reports, settings, manifest.name, latency, notes)
        self._reporter.output(result, reports, stream, outputs.status.sequence)

    def wanted(self) -> frozenset[str]:
        """The parts of results that somebody listens to."""
        return self._outputs.needed(self.settings) if self._outputs is not None else frozenset()

    def alive(self) -> None:
        """Say that the stream is at work."""
        if self._outputs is not None:
            self._outputs.assert_alive()

    def waiting(self) -> None:
        """Say that nothing runs, and why."""
        outputs, stream = self._outputs, self._stream
        if outputs is None or stream is None:
            return
        line = stream.engine_error or self._loading
        early = {n: stream.counters[f"early_{n}"] for n in self.settings.sensors}
        none = {n: SensorReport("lost", math.nan, c, 0, 0, c, 0) for n, c in early.items()}
        outputs.status.waiting(stream.report() or none, self.settings, line)
        loading = self._loader is not None and self._loader.is_alive()
        level = WARN if loading and not stream.engine_error else ERROR
        self._reporter.no_output(f"stop: {line}", level)

    def event(self, event: EngineEvent) -> None:
        """Log what happens to the engines; `EngineLog` hears who takes over, the rest is a state."""
        if event.kind == "stuck":
            self._on_stuck(event.text)
        if event.kind in ("failed", "reloaded"):
            self._say("error" if event.kind == "failed" else "warn", event.text)

    def _on_stuck(self, line: str) -> None:
        """A thread of this process computes until the process ends, which is up to `engine.stuck`."""
        self._reporter.diagnostics.set("engine", ERROR, line, {})
        self._reporter.diagnostics.flush()
        if self.settings["engine.stuck"] != "exit":
            self._say("error", line)
            return
        self._say("fatal", f"{line}; exit status {processes.EXIT_STUCK}, start the node again")
        os._exit(processes.EXIT_STUCK)  # nothing that waits for such a thread would come to an end

    def lateness(self, lateness: Lateness) -> None:
        """Log what is left out for want of time, and that nothing is any more."""
        level = "warn" if lateness.level else "info"
        line = lateness.line or "outputs are in time: nothing is left out"
        self._reporter.changes.note("late", f"{lateness.level} {lateness.sensors}", level, line)

    def problem(self, error: Exception) -> None:
        """Log what went wrong with one message, or in publishing."""
        if isinstance(error, RCLError):
            if rclpy.ok():
                self._reporter.changes.repeat("publishing", "error", f"cannot publish: {error}")
            elif self._stream is not None:  # a signal has taken the topics from under us
                self._stream.end()
            return
        error = blamed(error) or error
        prefix = "" if isinstance(error, AnySenseError) else f"unexpected {type(error).__name__}: "
        self._reporter.changes.repeat(type(error).__name__, "error", prefix + first_line(error))

    # -- diagnostics and parameters ----------------------------------------------------------

    def _report(self) -> None:
        """Everything, on the timer."""
        self._tell_engine()
        if self._stream is not None:
            self._reporter.sensors(self._stream)
        calibration = self._calibration
        if calibration is not None:
            self._reporter.calibration(calibration, self.settings.kinds)
            if self._tf is not None and not calibration.follows_changes():
                self._topics.drop(self._tf)  # /tf_static says it all
                self._tf = None
        self._reporter.publish()
        self._heap.look()

    def _tell_engine(self) -> None:
        stream = self._stream
        counters, error = ({}, "") if stream is None else (stream.counters, stream.engine_error)
        self._reporter.engine(counters, error, self._pipeline)

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        values = parameters.current(self)
        values.update({p.name: p.value for p in changes if p.name in values})
        try:
            settings = parameters.check(values, self._manifest)
            named = {p.name for p in changes}
            if "calibration_file" in named and self._calibration is not None:
                self._calibration.load(settings["calibration_file"])
        except AnySenseError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.settings = settings
        if self._calibration is not None:
            self._calibration.source = settings["extrinsics"]
            self._calibration.registered = settings["align.mode"] != "off"
            self._calibration.reference_frame = settings["reference_frame"]
            self._calibration.base_frame = settings["base_frame"]
            self._calibration.max_age_ns = settings.ns("tf.max_age_ms") or None
            if self._stream is not None:
                self._listen_to_frames()
                self._stream.configure(settings.stream(self._calibration.offset_ns))
        if self._pipeline is not None:
            self._pipeline.points_stride = settings["output.points_stride"]
            if self._calibration is not None:
                self._pipeline.base_frame = self._calibration.base
            if "output.min_confidence" in named and self._outputs:
                self._outputs.announce(settings)
        return SetParametersResult(successful=True)

    def _say(self, level: str, line: str) -> None:
        logger = self.get_logger()
        # rclpy ties a severity to each calling line, so every level has its own.
        if level == "fatal":
            logger.fatal(line)
        elif level == "error":
            logger.error(line)
        elif level == "warn":
            logger.warning(line)
        else:
            logger.info(line)


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros perception_node`."""
    # Sensors are encoded side by side; threads within a small image would only get in their way.
    cv2.setNumThreads(1)
    close = lambda node: node.close()  # noqa: E731
    status = processes.run(PerceptionNode, close, lambda node: node.start(), args)
    if stuck_calls():
        os._exit(status)  # C++ would abort the process beside a thread that does not end
    return status


if __name__ == "__main__":
    sys.exit(main())
