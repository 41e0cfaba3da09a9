"""Accuracy of segmentation and detection."""

from perception.metrics.detection import DetectionScore, average_precision
from perception.metrics.segmentation import ConfusionMatrix

__all__ = ["ConfusionMatrix", "DetectionScore", "average_precision"]
