"""A bundle's engines run once on made-up input, to compare and to time backends."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.grid import BirdseyeSpec
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.preprocess.sample import preprocess_sample
from perception.runtime.engines.base import Engine, Tensor, with_numbers
from perception.runtime.wiring import FUSER, IMAGE, PRESENCE, Wiring
from perception.sensors.registry import kind_of

Given = Any  # Tensor | Mapping[str, NDArray[Any]]; most callers know which
"""What an input's encoder takes: its `image`, or tensors by name."""

_CELL = 32

TINY_GRAPH = bytes.fromhex(
    "080812003a4b0a0c0a0178120179220452656c751201675a1b0a017812160a14080112100a0208010a0208010a02"
    "08020a020802621b0a017912160a14080112100a0208010a0208010a0208020a02080242040a001011"
)
"""An ONNX model of one operator, Relu on float32 (1, 1, 2, 2), to try a backend with no other package."""


def probe_inputs(contract: PreprocessContract, seed: int = 0) -> dict[str, Given]:
    """Smooth random network inputs by input, the same on every machine.

    Blotches rather than white noise: pictures are smooth, and noise drives a network into regions
    where it never works.

    Returns:
        (1, C, H, W) of an input that takes a picture; else tensors by name, those of the kind's example.
    """
    rng = np.random.default_rng(seed)
    return {name: _probe(spec, rng) for name, spec in contract.items()}


def _probe(input: InputSpec, rng: np.random.Generator) -> Given:
    tensors = input.tensors
    if set(tensors) != {IMAGE} or tensors[IMAGE].dtype != "float32":
        if input.sensor.example is None:
            return {n: np.zeros((1, *t.shape), t.dtype) for n, t in tensors.items()}
        sample = input.sensor.example((input.view.height, input.view.width), rng)
        if input.view.birdseye is not None:
            sample = placed_example(sample, input.view.birdseye)
        return dict(preprocess_sample(sample, input))
    channels, height, width = tensors[IMAGE].shape
    coarse = rng.normal(size=(height // _CELL + 1, width // _CELL + 1, channels))
    fine = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    planes = fine.reshape(height, width, channels).transpose(2, 0, 1)
    return np.ascontiguousarray(planes)[None]


def placed_example(sample: Sample, ground: BirdseyeSpec) -> Sample:
    """An example, in the axes of a camera that looks ahead, somewhere on a vehicle."""
    width, height = sample.data.shape[1], sample.data.shape[0]
    camera = sample.camera
    if camera is None and kind_of(sample.kind).has_picture:
        camera = CameraModel(width, height, width / 2, width / 2, width / 2, height / 2)
    ahead = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])
    x = ground.x[0] + (ground.x[1] - ground.x[0]) / 4
    pose = RigidTransform(ahead, np.array([x, sum(ground.y) / 2, max(0.0, ground.z[0]) + 1.5]))
    return replace(sample, camera=camera, pose=sample.pose or pose)


def run_all(
    engines: Mapping[str, Engine], inputs: Mapping[str, Given], wiring: Wiring
) -> dict[str, Tensor]:
    """The fuser's outputs for all inputs.

    Args:
        engines: by encoder, and `fuser`.
        inputs: by input, (1, C, H, W) or tensors by name.
        wiring: the bundle's.
    """
    feeds: dict[str, Tensor] = {PRESENCE: wiring.present(inputs)}
    for name, given in inputs.items():
        outputs = engines[wiring.encoders[name]].run(wiring.feeds(name, given))
        feeds.update(wiring.features(name, outputs))
    return engines[FUSER].run(with_numbers(feeds, engines[FUSER].inputs))


def time_all(engines: Mapping[str, Engine], inputs: Mapping[str, Given], wiring: Wiring) -> float:
    """Milliseconds of one `run_all`."""
    start = time.perf_counter_ns()
    run_all(engines, inputs, wiring)
    return (time.perf_counter_ns() - start) / 1e6


def relative_error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """The largest root mean square error of an output, over that output's root mean square.

    Of integers it is the share that differs.  NaN or infinite values give infinity.
    """
    return max(_relative(got[name], value) for name, value in wanted.items())


def _relative(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    if wanted.dtype.kind in "iu":
        return float((got != wanted).mean())
    if not np.isfinite(got).all():
        return float("inf")
    difference = (got.astype(np.float64) - wanted) ** 2
    scale = float(np.sqrt((wanted.astype(np.float64) ** 2).mean()))
    return float(np.sqrt(difference.mean())) / max(scale, 1e-6)
