"""Arithmetic of accuracy, from arrays: confusion matrices and average precision."""

from perception.metrics.detection import DetectionScore, average_precision
from perception.metrics.segmentation import ConfusionMatrix

__all__ = ["ConfusionMatrix", "DetectionScore", "average_precision"]
