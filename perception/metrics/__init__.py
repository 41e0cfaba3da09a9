"""Arithmetic of accuracy, from arrays: confusion matrices, average precision, calibration of confidence."""

from perception.metrics.confidence import ConfidenceHistogram, Reliability
from perception.metrics.detection import DetectionScore, average_precision, matched
from perception.metrics.segmentation import ConfusionMatrix
from perception.metrics.temperature import FittedTemperature, fit_temperature

__all__ = [
    "ConfidenceHistogram",
    "ConfusionMatrix",
    "DetectionScore",
    "FittedTemperature",
    "Reliability",
    "average_precision",
    "fit_temperature",
    "matched",
]
