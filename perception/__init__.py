"""AnySense: segmentation and detection from any subset of RGB, depth, thermal and LiDAR.

import perception

with perception.Stream.open("indoor-rgbd", sensors={"rgb": 30, "depth": 15}) as stream:
    stream.push("rgb", bgr, encoding="bgr8")  # from any thread
    for result in stream: ...

pipeline = perception.Pipeline.load("indoor-rgbd")
result = pipeline({"rgb": perception.sample_of("rgb", bgr, "bgr8")})
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perception.errors import AnySenseError as AnySenseError
    from perception.frame import KINDS as KINDS
    from perception.frame import MODALITIES as MODALITIES
    from perception.frame import Frame as Frame
    from perception.frame import Sample as Sample
    from perception.runtime.alignment import Alignment as Alignment
    from perception.runtime.bundle import Bundle as Bundle
    from perception.runtime.collector import Collector as Collector
    from perception.runtime.collector import SensorTiming as SensorTiming
    from perception.runtime.pipeline import Pipeline as Pipeline
    from perception.runtime.policy import Policy as Policy
    from perception.runtime.result import Result as Result
    from perception.runtime.result import SensorWarning as SensorWarning
    from perception.runtime.stream import Listener as Listener
    from perception.runtime.stream import Stream as Stream
    from perception.runtime.stream import StreamSettings as StreamSettings
    from perception.sensors.samples import sample_of as sample_of
    from perception.tasks.detections import Detections as Detections

__version__ = "0.1.0"

_EXPORTS = {
    "AnySenseError": "perception.errors",
    "Alignment": "perception.runtime.alignment",
    "Bundle": "perception.runtime.bundle",
    "Collector": "perception.runtime.collector",
    "Detections": "perception.tasks.values",
    "Frame": "perception.frame",
    "KINDS": "perception.frame",
    "Listener": "perception.runtime.stream",
    "MODALITIES": "perception.frame",
    "Pipeline": "perception.runtime.pipeline",
    "Policy": "perception.runtime.policy",
    "Result": "perception.runtime.result",
    "Sample": "perception.frame",
    "SensorTiming": "perception.runtime.collector",
    "SensorWarning": "perception.runtime.result",
    "Stream": "perception.runtime.stream",
    "StreamSettings": "perception.runtime.stream",
    "sample_of": "perception.sensors.samples",
}

__all__ = [*_EXPORTS]


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `import perception` stays light for tools that need a part.
    if name not in _EXPORTS:
        raise AttributeError(f"module 'perception' has no attribute '{name}'")
    return getattr(import_module(_EXPORTS[name]), name)
