"""The perception node: sensor topics in, segmentation, boxes, points and status out."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from anysense_ros import parameters, processes
from anysense_ros.calibration import IMAGES, Calibration
from anysense_ros.clocks import ForwardClock
from anysense_ros.diagnostics import ERROR, WARN
from anysense_ros.publishing import Outputs
from anysense_ros.reporting import Reporter
from anysense_ros.worker import Worker
from perception.errors import AnySenseError
from perception.frame import Modality
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.engines.base import first_line
from perception.runtime.pipeline import Pipeline
from perception.runtime.stream import Output, Stream

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

_SUCCESS, _FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class PerceptionNode(LifecycleNode):  # type: ignore[misc]
    """Topics, parameters and lifecycle around a `Worker`, which owns the pipeline.

    Raises:
        ConfigError: a parameter is wrong.
    """

    def __init__(self) -> None:
        super().__init__("perception_node")
        self.settings = parameters.declare(self)
        self._reporter = Reporter(self, self._say)
        self._outputs: Outputs | None = None
        self._worker: Worker | None = None
        self._pipeline: Pipeline | None = None
        self._loader: threading.Thread | None = None
        self._calibration: Calibration | None = None
        self._subscriptions_made: list[Any] = []
        self._tf_static: Any = None
        self._tf: Any = None
        self._loading = "not configured"
        self._load_count = 0
        self._timer = self.create_timer(
            self.settings["diagnostics.period_s"],
            self._report,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        # Lookups happen on the worker's thread, subscriptions are the executor's.
        self._tf_wanted = self.create_guard_condition(self._listen_to_moving_frames)
        self.add_on_set_parameters_callback(self._on_parameters)

    # -- lifecycle ---------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check bundle and calibration, put up the outputs, and begin to load the engines."""
        try:
            self.settings = parameters.check(parameters.current(self))
            bundle = Bundle.open(find_bundle(self.settings["bundle"]))
            foreign = [m for m in self.settings.inputs if m not in bundle.manifest.modalities]
            if foreign:
                raise AnySenseError(
                    f"bundle {bundle.manifest.name} takes no {foreign[0]}",
                    where="inputs",
                    hint=f"it takes {', '.join(bundle.manifest.modalities)}",
                )
            calibration = Calibration(
                self.settings["extrinsics"],
                self.settings["reference_frame"],
                self.settings.ns("tf.max_age_ms") or None,
            )
            calibration.load(self.settings["calibration_file"])
            calibration.on_missing = self._tf_wanted.trigger
        except AnySenseError as error:
            self._say("error", str(error))
            self._reporter.diagnostics.set("engine", ERROR, str(error), {})
            self._reporter.diagnostics.flush()
            return _FAILURE
        self._calibration = calibration
        # Every event handler costs the executor time at each message: only those that tell something.
        events = PublisherEventCallbacks(
            incompatible_qos=partial(self._on_incompatible, "output"), use_default_callbacks=False
        )
        self._outputs = Outputs(self, bundle.manifest, self.settings, events)
        self._reporter.no_output("inactive")
        self._begin_loading(bundle)
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the sensors and start working."""
        assert self._calibration is not None and self._outputs is not None
        result = super().on_activate(state)
        self._reporter.no_output(f"none yet: {self._loading or 'no sensor was heard'}")
        self._worker = Worker(
            self.settings,
            self._calibration,
            ForwardClock(self),
            self._publish,
            self._publish_waiting,
            self._wanted,
            self._outputs.assert_alive,
            self._say,
            self._reporter.changes.repeat,
        )
        self._worker.start()
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
        self._pipeline = None
        self._calibration = None
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
        for subscription in self._subscriptions_made:
            self.destroy_subscription(subscription)
        self._subscriptions_made.clear()
        self._tf = self._tf_static = None
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self._reporter.inactive(self.settings.inputs)

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
                bundle.path,
                settings["device"],
                threads=settings["threads"] or None,
                policy=settings.policy,
                health=settings.health,
                trust_plans=settings["trust_plans"],
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
        self._begin_work(pipeline)

    def _begin_work(self, pipeline: Pipeline) -> None:
        worker, outputs = self._worker, self._outputs
        if worker is None or outputs is None:
            return
        worker.use(pipeline)
        outputs.announce(pipeline.manifest, self.settings["output.min_confidence"])
        self._reporter.engine(worker, pipeline)

    # -- topics ------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        s = self.settings
        qos = QoSProfile(
            depth=s["qos.depth"],
            reliability=ReliabilityPolicy[s["qos.reliability"].upper()],
            durability=DurabilityPolicy[s["qos.durability"].upper()],
        )
        for modality in s.inputs:
            kind, topic = _input_topic(modality, s[f"{modality}.transport"])
            self._listen(kind, topic, partial(self._on_message, modality), qos, modality)
            if modality in IMAGES:
                on_info = partial(self._on_camera, modality)
                topic = f"~/input/{modality}/camera_info"
                best = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
                self._listen(CameraInfo, topic, on_info, best, f"{modality} camera_info")
        self._listen_to_frames()

    def _listen_to_frames(self) -> None:
        """Subscribe to /tf_static where a sensor's place comes from there.

        /tf, which can take more time than the images, follows only when that is not enough.
        """
        calibration = self._calibration
        if calibration is None or not calibration.needs_tree(self.settings.inputs):
            self._drop(self._tf, self._tf_static)
            self._tf = self._tf_static = None
        elif self._tf_static is None:
            latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            on_static = partial(self._on_tf, True)
            self._tf_static = self._listen(TFMessage, "/tf_static", on_static, latched, "tf_static")

    def _listen_to_moving_frames(self) -> None:
        if self._tf_static is not None and self._tf is None:
            on_moving = partial(self._on_tf, False)
            self._tf = self._listen(TFMessage, "/tf", on_moving, QoSProfile(depth=100), "tf")

    def _drop(self, *subscriptions: Any) -> None:
        for subscription in filter(None, subscriptions):
            self._subscriptions_made.remove(subscription)
            self.destroy_subscription(subscription)

    def _listen(
        self, kind: Any, topic: str, callback: Callable[[Any], None], qos: QoSProfile, part: str
    ) -> Any:
        events = SubscriptionEventCallbacks(
            incompatible_qos=partial(self._on_incompatible, part), use_default_callbacks=False
        )
        made = self.create_subscription(kind, topic, callback, qos, event_callbacks=events)
        self._subscriptions_made.append(made)
        return made

    def _on_message(self, modality: Modality, message: Any) -> None:
        if self._worker is not None:
            self._worker.put(modality, message)

    def _on_camera(self, modality: Modality, message: CameraInfo) -> None:
        if self._calibration is not None:
            self._calibration.on_camera(modality, message)

    def _on_tf(self, static: bool, message: TFMessage) -> None:
        if self._calibration is not None:
            self._calibration.on_transforms(message, static)

    def _on_incompatible(self, part: str, event: Any) -> None:
        first = part not in self._reporter.incompatible
        self._reporter.incompatible[part] = event.total_count
        if first:
            self._say("warn", f"{part}: a peer's QoS does not fit ours, it gets no messages across")
        self._report()

    # -- outputs, on the worker's thread -----------------------------------------------------

    def _publish(self, output: Output, stream: Stream) -> None:
        outputs, worker = self._outputs, self._worker
        if outputs is None or worker is None:
            return
        head = outputs.publish(output, stream.pipeline.manifest, worker.settings)
        now = worker.clock.now_ns()
        reports = stream.report(now)
        latency = (now - output.arrived_ns) / 1e6
        notes = worker.calibration.unaligned.values()
        outputs.status(head, output, reports, stream.pipeline.manifest.name, latency, notes)
        self._reporter.output(output, reports, worker, outputs.sequence)

    def _wanted(self) -> frozenset[str]:
        return self._outputs.needed(self.settings) if self._outputs is not None else frozenset()

    def _publish_waiting(self) -> None:
        outputs, worker = self._outputs, self._worker
        if outputs is None or worker is None:
            return
        line = worker.engine_error or self._loading
        reports = worker.stream.report(worker.clock.now_ns()) if worker.stream is not None else {}
        inputs = self.settings.inputs
        early = {m: worker.counters[f"early_{m}"] for m in inputs}
        outputs.waiting(inputs, reports, early, self.settings["bundle"], line)
        loading = self._loader is not None and self._loader.is_alive()
        level = WARN if loading and not worker.engine_error else ERROR
        self._reporter.no_output(f"stop: {line}", level)

    # -- diagnostics and parameters ----------------------------------------------------------

    def _report(self) -> None:
        """Everything, on the timer."""
        worker = self._worker
        self._reporter.engine(worker, self._pipeline)
        if worker is not None:
            self._reporter.sensors(worker)
        calibration = self._calibration
        if calibration is not None:
            self._reporter.calibration(calibration, self.settings.inputs)
            if self._tf is not None and not calibration.follows_changes():
                self._drop(self._tf)  # /tf_static says it all
                self._tf = None
        self._reporter.publish()

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        values = parameters.current(self)
        values.update({p.name: p.value for p in changes if p.name in values})
        try:
            settings = parameters.check(values)
            named = {p.name for p in changes}
            if "calibration_file" in named and self._calibration is not None:
                self._calibration.load(settings["calibration_file"])
        except AnySenseError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.settings = settings
        if self._calibration is not None:
            self._calibration.source = settings["extrinsics"]
            self._calibration.reference_frame = settings["reference_frame"]
            self._calibration.max_age_ns = settings.ns("tf.max_age_ms") or None
            if self._worker is not None:
                self._listen_to_frames()
        if self._worker is not None:
            self._worker.update(settings)
        threshold = settings["output.min_confidence"]
        if "output.min_confidence" in named and self._outputs and self._pipeline is not None:
            self._outputs.announce(self._pipeline.manifest, threshold)
        return SetParametersResult(successful=True)

    def _say(self, level: str, line: str) -> None:
        logger = self.get_logger()
        # rclpy ties a severity to each calling line, so every level has its own.
        if level == "error":
            logger.error(line)
        elif level == "warn":
            logger.warning(line)
        else:
            logger.info(line)


def _input_topic(modality: Modality, transport: str) -> tuple[Any, str]:
    if modality == "lidar":
        return PointCloud2, "~/input/lidar"
    if transport == "compressed":
        return CompressedImage, f"~/input/{modality}/compressed"
    return Image, f"~/input/{modality}"


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run anysense_ros perception_node`."""
    # Sensors are encoded side by side; threads within a small image would only get in their way.
    cv2.setNumThreads(1)
    return processes.run(PerceptionNode, lambda node: node.close(), lambda node: node.start(), args)


if __name__ == "__main__":
    sys.exit(main())
