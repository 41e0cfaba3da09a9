"""The node's outputs: made only when somebody listens."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from anysense_msgs.msg import PerceptionStatus, SensorStatus
from geometry_msgs.msg import Pose, Vector3
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from vision_msgs.msg import (
    Detection2D,
    Detection2DArray,
    Detection3D,
    Detection3DArray,
    LabelInfo,
    ObjectHypothesisWithPose,
    VisionClass,
)

from anysense_ros.conversions import from_camera, header, image, labeled_cloud
from anysense_ros.parameters import Settings
from perception.frame import Frame, Kind, Sample
from perception.preprocess.sample import source_size
from perception.runtime.manifest import BundleManifest
from perception.runtime.result import Result, SensorReport
from perception.tasks.boxes2d import Detections
from perception.tasks.boxes3d import lift_boxes
from perception.tasks.segmentation import colorize_labels
from perception.tasks.spatial import pixel_points
from perception.viz.overlay import draw_result

UNLABELED = 255
SPATIAL: tuple[Kind, ...] = ("lidar", "depth")
"""The kinds that ~/points is made of, the first sensor that there is."""

STATES = {
    "full": PerceptionStatus.FULL,
    "degraded": PerceptionStatus.DEGRADED,
    "hold": PerceptionStatus.HOLD,
    "stop": PerceptionStatus.STOP,
}
TOPICS: dict[str, tuple[Any, str]] = {
    "segmentation/mask": (Image, "segmentation"),
    "segmentation/confidence": (Image, "segmentation"),
    "segmentation/color": (Image, "segmentation"),
    "segmentation/camera_info": (CameraInfo, "segmentation"),
    "overlay": (Image, ""),
    "camera_info": (CameraInfo, ""),
    "detections": (Detection2DArray, "boxes2d"),
    "detections_3d": (Detection3DArray, "boxes2d"),
    "points": (PointCloud2, "segmentation"),
}
"""Message type of each topic, and the task that a bundle must have for it; empty for none."""

_INFOS = ("camera_info", "segmentation/camera_info")
"""Where viewers look for it: beside the overlay and beside the mask."""

PICTURES = "images/"
"""Start of the topics of pictures that a bundle's model makes besides."""


class Outputs:
    """Publishers of everything the pipeline gives.

    Args:
        node: the node that publishes.
        manifest: the bundle's, whose tasks and pictures say which topics there are.
        settings: the node's parameters, for the QoS.
        events: callbacks for incompatible subscribers, None where rclpy has none.
    """

    def __init__(
        self, node: LifecycleNode, manifest: BundleManifest, settings: Settings, events: Any
    ) -> None:
        self._node = node
        qos = _watched(settings, 1, ReliabilityPolicy[settings["qos.outputs"].upper()])
        topics = {
            name: kind
            for name, (kind, task) in TOPICS.items()
            if not task or task in manifest.tasks
        }
        topics |= {f"{PICTURES}{name}": Image for name in manifest.images}
        self._publishers = {
            name: node.create_lifecycle_publisher(kind, f"~/{name}", qos, event_callbacks=events)
            for name, kind in topics.items()
        }
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._labels = None
        if manifest.tasks.segmentation is not None:
            self._labels = node.create_lifecycle_publisher(
                LabelInfo, "~/segmentation/label_info", latched, event_callbacks=events
            )
        self._status = node.create_lifecycle_publisher(
            PerceptionStatus,
            "~/status",
            _watched(settings, 10, ReliabilityPolicy.RELIABLE),
            event_callbacks=events,
        )
        self._lease_s = settings["qos.lease_ms"] / 1e3
        self._alive_at = 0.0
        self._header = Header()
        self._cloud_epoch, self._cloud_ns = 0, None  # of the last ~/points
        self.sequence = 0

    def destroy(self) -> None:
        """Take the topics down."""
        for publisher in filter(None, (*self._publishers.values(), self._labels, self._status)):
            self._node.destroy_lifecycle_publisher(publisher)

    def assert_alive(self) -> None:
        """Say, often enough for the lease, that whoever makes the outputs is at work."""
        now = time.monotonic()
        if self._lease_s and now - self._alive_at >= self._lease_s / 4:
            self._alive_at = now
            for publisher in (*self._publishers.values(), self._status):
                publisher.assert_liveliness()

    def announce(self, manifest: BundleManifest, threshold: float) -> None:
        """Publish the classes of the mask and the confidence below which it is unlabeled."""
        if self._labels is None:
            return
        classes = [VisionClass(class_id=c.id, class_name=c.name) for c in manifest.seg_classes]
        self._labels.publish(LabelInfo(header=Header(), class_map=classes, threshold=threshold))

    def publish(self, result: Result, manifest: BundleManifest, settings: Settings) -> Header:
        """Publish what the result holds on every topic that is listened to."""
        if result.reference is None:
            # In state hold the last output goes on to hold: whoever listens has it.
            return header(result.output_ns, self._header.frame_id)
        sample = result.samples[result.reference]
        camera = sample.camera if sample.kind == "lidar" else None
        frame_id = camera.frame_id if camera is not None else sample.frame_id
        self._header = header(result.output_ns, frame_id)
        self._segmentation(result, manifest, settings)
        for name, picture in result.images.items():
            if f"{PICTURES}{name}" in self._publishers and self._wanted(f"{PICTURES}{name}"):
                kind = "rgb8" if picture.shape[2] == 3 else ""
                self._send(f"{PICTURES}{name}", image(picture, self._header, kind))
        self._camera(sample)
        if self._wanted("overlay"):
            opacity = settings["output.overlay_opacity"]
            picture = draw_result(manifest, Frame(result.samples), result, opacity)
            self._send("overlay", image(picture, self._header, "rgb8"))
        if result.boxes is not None:
            self._boxes(result.boxes, manifest)
        self._space(result, manifest, settings)
        return self._header

    def _camera(self, sample: Sample) -> None:
        """The intrinsics of the pixels that mask, overlay and boxes are in."""
        wanted = [name for name in _INFOS if self._wanted(name)]
        if wanted and sample.camera is not None:
            message = from_camera(sample.camera, 0, "")
            message.header = self._header
            for name in wanted:
                self._send(name, message)

    def needed(self, settings: Settings) -> frozenset[str]:
        """What results must hold for those who listen, of `Pipeline.parts`."""
        heard = {name for name in self._publishers if self._wanted(name)}
        pictures = {name for name in heard if name.startswith(PICTURES)}
        heard -= {*pictures, *_INFOS}
        parts = {"images"} if pictures else set()
        if heard - {"segmentation/confidence", "detections", "detections_3d"}:
            parts.add("labels")
        masked = heard & {"segmentation/mask", "segmentation/color"}
        if heard & {"segmentation/confidence", "points"} or (
            masked and settings["output.min_confidence"] > 0
        ):
            parts.add("confidence")
        if heard & {"overlay", "detections", "detections_3d"}:
            parts.add("boxes")
        return frozenset(parts)

    def _wanted(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        return publisher is not None and bool(publisher.get_subscription_count())

    def _send(self, name: str, message: Any) -> None:
        self._publishers[name].publish(message)

    def _segmentation(self, result: Result, manifest: BundleManifest, settings: Settings) -> None:
        labels, confidence = result.labels, result.confidence
        if confidence is not None and self._wanted("segmentation/confidence"):
            self._send("segmentation/confidence", image(confidence, self._header))
        least = settings["output.min_confidence"]
        if labels is None or (least > 0 and confidence is None):
            return  # nobody listened when the result was computed
        if least > 0:
            labels = np.where(confidence >= least, labels, np.uint8(UNLABELED))
        if self._wanted("segmentation/mask"):
            self._send("segmentation/mask", image(labels, self._header))
        if self._wanted("segmentation/color"):
            colors = colorize_labels(labels, manifest.seg_classes)
            self._send("segmentation/color", image(colors, self._header, "rgb8"))

    def _boxes(self, boxes: Detections, manifest: BundleManifest) -> None:
        if not self._wanted("detections"):
            return
        names = {c.id: c.name for c in manifest.det_classes}
        out = Detection2DArray(header=self._header)
        for box, score, kind in zip(boxes.xyxy, boxes.scores, boxes.class_ids, strict=True):
            left, top, right, bottom = (float(v) for v in box)
            one = Detection2D(header=self._header, results=[_hypothesis(names, kind, score)])
            one.bbox.center.position.x = (left + right) / 2
            one.bbox.center.position.y = (top + bottom) / 2
            one.bbox.size_x, one.bbox.size_y = right - left, bottom - top
            out.detections.append(one)
        self._send("detections", out)

    def _space(self, result: Result, manifest: BundleManifest, settings: Settings) -> None:
        """Labeled points in their sensor's frame, and 3D boxes in the reference camera's."""
        samples = result.samples
        spatial = (n for kind in SPATIAL for n, s in samples.items() if s.kind == kind)
        name = next(spatial, None)
        if name is None or result.reference is None:
            return
        source, reference = samples[name], samples[result.reference]
        jump = settings.ns("sync.jump_ms")
        points_wanted = self._wanted("points") and self._new_cloud(result, name, jump)
        boxes_wanted = self._wanted("detections_3d")
        if not (points_wanted or boxes_wanted):
            return
        found = pixel_points(source, source_size(reference), settings["output.points_stride"])
        if found is None:
            return
        if points_wanted and result.labels is not None and result.confidence is not None:
            at = (found.row, found.column)
            head = header(result.source_ns[name], source.frame_id)
            message = labeled_cloud(found.points, result.labels[at], result.confidence[at], head)
            self._send("points", message)
        camera = reference.camera or source.camera
        if boxes_wanted and result.boxes is not None and camera is not None:
            names = {c.id: c.name for c in manifest.det_classes}
            out = Detection3DArray(header=self._header)
            lifted = lift_boxes(found, result.boxes, camera)
            for center, size, i in zip(lifted.center, lifted.size, lifted.index, strict=True):
                kind, score = result.boxes.class_ids[i], result.boxes.scores[i]
                pose = Pose()
                pose.position.x, pose.position.y, pose.position.z = (float(v) for v in center)
                hypothesis = _hypothesis(names, kind, score)
                hypothesis.pose.pose = pose
                one = Detection3D(header=self._header, results=[hypothesis])
                one.bbox.center = pose
                one.bbox.size = Vector3(**dict(zip("xyz", map(float, size), strict=True)))
                out.detections.append(one)
            self._send("detections_3d", out)

    def _new_cloud(self, result: Result, name: str, jump_ns: int) -> bool:
        """Whether ~/points has not had this sensor's sample, nor a newer one of another sensor."""
        stamp = result.source_ns[name]
        before = self._cloud_ns if result.epoch == self._cloud_epoch else None
        repeated = before is not None and 0 <= before - stamp <= jump_ns
        if name not in result.fresh or repeated:
            return False
        self._cloud_epoch, self._cloud_ns = result.epoch, stamp
        return True

    def status(
        self,
        head: Header,
        result: Result,
        reports: Mapping[str, SensorReport],
        settings: Settings,
        bundle: str,
        latency_ms: float,
        notes: Iterable[str] = (),
    ) -> None:
        """Publish ~/status for an output or a heartbeat; `notes` are warnings beside the result's."""
        self.sequence += 1
        message = PerceptionStatus(
            header=head,
            sequence=self.sequence,
            state=STATES[result.state],
            used=list(result.used),
            sensors=[_sensor(n, r, result, settings) for n, r in reports.items()],
            reason=result.reason,
            coverage=result.coverage,
            spread_ms=result.spread_ns / 1e6,
            latency_ms=latency_ms if result.used else math.nan,
            engine_ms=result.engine_ms,
            steps=list(result.timings),
            step_ms=list(result.timings.values()),
            bundle=bundle,
            backend=result.backend,
            warnings=[*result.lines, *notes],
        )
        self._status.publish(message)

    def waiting(self, reports: Mapping[str, SensorReport], settings: Settings, line: str) -> None:
        """Publish ~/status while there is no pipeline that runs; `line` says why."""
        self.sequence += 1
        nothing = Result()
        self._status.publish(
            PerceptionStatus(
                header=Header(stamp=self._node.get_clock().now().to_msg()),
                sequence=self.sequence,
                state=PerceptionStatus.STOP,
                sensors=[_sensor(n, r, nothing, settings) for n, r in reports.items()],
                reason="heartbeat",
                latency_ms=math.nan,
                bundle=settings["bundle"],
                warnings=[line],
            )
        )


def _watched(settings: Settings, depth: int, reliability: ReliabilityPolicy) -> QoSProfile:
    """QoS by which a subscriber can notice that outputs stop, or that the node hangs or is dead."""
    qos = QoSProfile(depth=depth, reliability=reliability)
    if settings["qos.deadline_ms"]:
        qos.deadline = Duration(nanoseconds=settings.ns("qos.deadline_ms"))
    if settings["qos.lease_ms"]:
        # By topic: the middleware's own threads would speak for a node that hangs.
        qos.liveliness = LivelinessPolicy.MANUAL_BY_TOPIC
        qos.liveliness_lease_duration = Duration(nanoseconds=settings.ns("qos.lease_ms"))
    return qos


def _hypothesis(names: Mapping[int, str], kind: Any, score: Any) -> ObjectHypothesisWithPose:
    out = ObjectHypothesisWithPose()
    out.hypothesis.class_id = names.get(int(kind), str(kind))
    out.hypothesis.score = float(score)
    return out


def _sensor(name: str, report: SensorReport, result: Result, settings: Settings) -> SensorStatus:
    used = name in result.used
    return SensorStatus(
        name=name,
        kind=settings.kinds[name],
        input=settings.inputs[name],
        health=report.health,
        used=used,
        age_ms=result.ages_ns.get(name, 0) / 1e6 if used else math.nan,
        silent_ms=report.silent_ms,
        received=report.received,
        taken=report.used,
        superseded=report.superseded,
        rejected=report.rejected,
        waiting=report.waiting,
        line=report.line or ("" if report.health == "ok" else f"{name}: sensor is {report.health}"),
    )
