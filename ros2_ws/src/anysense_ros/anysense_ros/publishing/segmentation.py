"""Labels as a mask and as colors, and their confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from vision_msgs.msg import LabelInfo, VisionClass

from anysense_ros.conversions import image
from anysense_ros.parameters import Settings
from anysense_ros.publishing.topics import Output, TaskPublisher, Topics
from perception.tasks.segmentation import Segmentation, colorize_labels

UNLABELED = 255
MASK, COLOR = "segmentation/mask", "segmentation/color"
CONFIDENCE, CAMERA = "segmentation/confidence", "segmentation/camera_info"
CLASSES = "segmentation/label_info"


class SegmentationPublisher(TaskPublisher):
    """`~/segmentation/...`; pixels below `output.min_confidence` are unlabeled."""

    @property
    def topics(self) -> Mapping[str, Any]:
        """See `TaskPublisher`."""
        return {MASK: Image, CONFIDENCE: Image, COLOR: Image, CAMERA: CameraInfo}

    @property
    def latched(self) -> Mapping[str, Any]:
        """The classes."""
        return {CLASSES: LabelInfo}

    def parts(self, heard: frozenset[str], settings: Settings) -> frozenset[str]:
        """Confidence for itself, and where a mask needs it."""
        masked = heard & {MASK, COLOR}
        sure = CONFIDENCE in heard or (masked and settings["output.min_confidence"] > 0)
        return frozenset(["labels"] * bool(masked) + ["confidence"] * bool(sure))

    def announce(self, topics: Topics, settings: Settings) -> None:
        """Publish the classes of the mask and the confidence below which it is unlabeled."""
        classes = [VisionClass(class_id=c.id, class_name=c.name) for c in self.spec.classes]
        threshold = settings["output.min_confidence"]
        topics.send(CLASSES, LabelInfo(header=Header(), class_map=classes, threshold=threshold))

    def publish(self, value: Segmentation | None, out: Output) -> None:
        """See `TaskPublisher`."""
        if out.heard(CAMERA) and (camera := out.camera_info) is not None:
            out.send(CAMERA, camera)
        if value is None:
            return
        labels, confidence = value.labels, value.confidence
        if confidence is not None and out.heard(CONFIDENCE):
            out.send(CONFIDENCE, image(confidence, out.header))
        least = out.settings["output.min_confidence"]
        if labels is None or (least > 0 and confidence is None):
            return  # nobody listened when the result was computed
        if least > 0:
            labels = np.where(confidence >= least, labels, np.uint8(UNLABELED))
        if out.heard(MASK):
            out.send(MASK, image(labels, out.header))
        if out.heard(COLOR):
            out.send(COLOR, image(colorize_labels(labels, self.spec.classes), out.header, "rgb8"))
