"""Arithmetic of accuracy, from arrays: confusion matrices, average precision, calibration of confidence."""

from perception.metrics.auroc import auroc
from perception.metrics.confidence import ConfidenceHistogram, Reliability
from perception.metrics.detection import DetectionScore, average_precision, matched
from perception.metrics.fitted import Fitted
from perception.metrics.scaling import FittedScaling, fit_scaling, fit_scalings
from perception.metrics.segmentation import ConfusionMatrix
from perception.metrics.temperature import FittedTemperature, fit_temperature

__all__ = [
    "ConfidenceHistogram",
    "ConfusionMatrix",
    "DetectionScore",
    "Fitted",
    "FittedScaling",
    "FittedTemperature",
    "Reliability",
    "auroc",
    "average_precision",
    "fit_scaling",
    "fit_scalings",
    "fit_temperature",
    "matched",
]
