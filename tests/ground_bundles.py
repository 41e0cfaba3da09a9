"""Tiny bundles that see the ground from above, made without PyTorch, whose boxes can be foretold.

Points are counted by cell, pictures are lifted by their tables as brightness; where more than a few points
lie in two by two cells, or pictures are bright, there is a car.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from small_bundles import sha256

from perception.frame import Sample
from perception.geometry.camera import CameraModel
from perception.geometry.lifting import RAY_VALUES, TABLE_STRIDE
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import PreprocessContract

GROUND = {
    "x": [-12.8, 12.8],
    "y": [-12.8, 12.8],
    "z": [-1, 4],
    "cell_m": 0.4,
    "heights": [0.2, 1.4],
}
SIZE = (64, 96)
PILLARS, POINTS = 600, 8
CLASSES = [
    {"id": 0, "name": "car", "color": [220, 40, 40]},
    {"id": 1, "name": "person", "color": [40, 220, 40]},
]
SURROUND = {
    "front": ("rgb", "camera"),
    "left": ("rgb", "camera"),
    "back": ("rgb", "camera"),
    "right": ("rgb", "camera"),
    "roof": ("lidar", "cloud"),
}
"""Four cameras of one encoder, and a LiDAR."""

CAMERA = CameraModel(SIZE[1], SIZE[0], 60.0, 60.0, 47.5, 31.5)
_AHEAD = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0.0]])
_YAWS = {"front": 0.0, "left": np.pi / 2, "back": np.pi, "right": -np.pi / 2}


def placed(yaw: float = 0.0, at: tuple[float, float, float] = (0.0, 0.0, 1.4)) -> RigidTransform:
    """The optical frame of a camera that looks so far to the left, to the base frame."""
    c, s = np.cos(yaw), np.sin(yaw)
    return RigidTransform(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ _AHEAD, np.array(at))


def surround_rig() -> Rig:
    """The vehicle of `SURROUND`."""
    sensors = {
        name: SensorCalibration(
            CAMERA, kind="rgb", frame_id=f"{name}_optical", pose=Pose(placed(yaw))
        )
        for name, yaw in _YAWS.items()
    }
    roof = Pose(RigidTransform(np.eye(3), np.array([0, 0, 1.7])))
    sensors["roof"] = SensorCalibration(kind="lidar", frame_id="velo", pose=roof)
    return Rig(sensors, base="base_link", reference="front")


def cloud(*places: tuple[float, float], sensor: str = "roof", stamp_ns: int = 0) -> Sample:
    """Ground all around, one point in most cells, and eight points at each of these places (x, y) of base."""
    rng = np.random.default_rng(7)
    ground = rng.uniform((-12, -12, -1.7, 0), (12, 12, -1.6, 0.3), (400, 4))
    points = [ground]
    for x, y in places:
        points.append(rng.uniform((x - 0.1, y - 0.1, -1, 0), (x + 0.1, y + 0.1, 0, 1), (8, 4)))
    data = np.concatenate(points).astype(np.float32)
    return Sample("lidar", data, stamp_ns, "velo", sensor=sensor)


def picture(sensor: str, value: int = 20, stamp_ns: int = 0, seed: int = 0) -> Sample:
    """A picture about as bright as this."""
    noise = np.random.default_rng(seed).integers(-9, 10, (*SIZE, 3))
    data = np.clip(value + noise, 0, 255).astype(np.uint8)
    return Sample("rgb", data, stamp_ns, f"{sensor}_optical", sensor=sensor)


def _node(kind: str, inputs: list[str], output: str, **about: Any) -> Any:
    return helper.make_node(kind, inputs, [output], **about)


def _graph(nodes: list[Any], takes: dict[str, Any], gives: dict[str, Any], weights: Any) -> bytes:
    values = [
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in tensors.items()]
        for tensors in (takes, gives)
    ]
    held = [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "ground", *values, held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


FLOAT, INT = TensorProto.FLOAT, TensorProto.INT32


def _features(rows: int, columns: int) -> dict[str, Any]:
    shape = rows // 2, columns // 2
    return {"bev": (FLOAT, [1, 1, *shape]), "seen": (FLOAT, [1, 1, *shape])}


def points_encoder(rows: int, columns: int, pillars: int = PILLARS, points: int = POINTS) -> bytes:
    """Points counted in two by two cells."""
    nodes = [
        _node("Gather", ["pillars", "last"], "valid", axis=3),
        _node("ReduceSum", ["valid", "axes"], "counts", keepdims=0),
        _node("Cast", ["cells"], "whole", to=TensorProto.INT64),
        _node("Reshape", ["whole", "one_each"], "at"),
        _node("ScatterND", ["empty", "at", "counts"], "flat"),
        _node("Slice", ["flat", "zero", "end"], "cut"),
        _node("Reshape", ["cut", "map"], "counted"),
        _node("AveragePool", ["counted"], "mean", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Mul", ["mean", "four"], "bev"),
        _node("Identity", ["everywhere"], "seen"),
    ]
    weights = {
        "last": np.array(7),
        "axes": np.array([0, 2]),
        "one_each": np.array([pillars, 1]),
        "empty": np.zeros(rows * columns + 1, np.float32),
        "zero": np.array([0]),
        "end": np.array([rows * columns]),
        "map": np.array([1, 1, rows, columns]),
        "four": np.array(4, np.float32),
        "everywhere": np.ones((1, 1, rows // 2, columns // 2), np.float32),
    }
    takes = {"pillars": (FLOAT, [1, pillars, points, 8]), "cells": (INT, [1, pillars])}
    return _graph(nodes, takes, _features(rows, columns), weights)


def pictures_encoder(
    rows: int, columns: int, heights: int, channels: int = 3, size: tuple[int, int] = SIZE
) -> bytes:
    """Brightness where the cells are seen, and whether they are."""
    down, across = size[0] // TABLE_STRIDE, size[1] // TABLE_STRIDE
    places, square = down * across, [TABLE_STRIDE] * 2
    nodes = [
        _node(
            "AveragePool",
            ["image"],
            "coarse",
            kernel_shape=square,
            strides=square,
        ),
        _node("ReduceMean", ["coarse", "channel"], "gray", keepdims=0),
        _node("Reshape", ["gray", "flat"], "line"),
        _node("Concat", ["line", "nothing"], "padded", axis=0),
        _node("Gather", ["padded", "table"], "lifted"),
        _node("ReduceMean", ["lifted", "channel"], "ground", keepdims=1),
        _node("AveragePool", ["ground"], "mean", kernel_shape=[2, 2], strides=[2, 2]),
        _node("Mul", ["mean", "eight"], "bright"),
        # Distances and directions are taken in, and make no difference.
        _node("ReduceMean", ["ranges", "all"], "range"),
        _node("ReduceMean", ["rays", "every"], "ray"),
        _node("Add", ["range", "ray"], "where"),
        _node("Mul", ["where", "nought"], "no_matter"),
        _node("Add", ["bright", "no_matter"], "bev"),
        _node("Less", ["table", "places"], "there"),
        _node("Cast", ["there"], "share", to=FLOAT),
        _node("ReduceMean", ["share", "channel"], "part", keepdims=1),
        _node("AveragePool", ["part"], "seen", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    weights = {
        "channel": np.array([1]),
        "flat": np.array([places]),
        "nothing": np.zeros(1, np.float32),
        "eight": np.array(8, np.float32),
        "all": np.array([0, 1, 2]),
        "every": np.array([0, 1, 2, 3]),
        "nought": np.array(0, np.float32),
        "places": np.array(places, np.int32),
    }
    takes = {
        "image": (FLOAT, [1, channels, *size]),
        "table": (INT, [1, heights, rows, columns]),
        "ranges": (FLOAT, [1, rows, columns]),
        "rays": (FLOAT, [1, RAY_VALUES, down, across]),
    }
    return _graph(nodes, takes, _features(rows, columns), weights)


def ground_fuser(names: list[str], rows: int, columns: int) -> bytes:
    """What those present say, by how much they see; more than four points, or as bright, is a car."""
    nodes, weights = [], {"none": np.array(0, np.float32), "half": np.array(0.5, np.float32)}
    takes: dict[str, Any] = {"presence": (FLOAT, [len(names)])}
    values, shares = [], []
    for number, name in enumerate(names):
        takes |= {f"{name}.{n}": own for n, own in _features(rows, columns).items()}
        weights[f"at_{name}"] = np.array([number])
        nodes += [
            _node("Gather", ["presence", f"at_{name}"], f"p_{name}"),
            _node("Greater", [f"p_{name}", "half"], f"is_{name}"),
            _node("Mul", [f"{name}.bev", f"{name}.seen"], f"weighed_{name}"),
            _node("Where", [f"is_{name}", f"weighed_{name}", "none"], f"v_{name}"),
            _node("Where", [f"is_{name}", f"{name}.seen", "none"], f"s_{name}"),
        ]
        values.append(f"v_{name}")
        shares.append(f"s_{name}")
    shape = rows // 2, columns // 2
    fields = np.zeros((1, 10, *shape), np.float32)
    fields[:, 2] = 0.8
    fields[:, 3:6] = np.log([4.0, 1.8, 1.6])[:, None, None]
    fields[:, 7] = 1.0
    fields[:, 8] = 2.0
    nodes += [
        _node("Sum", values, "sum"),
        _node("Sum", shares, "seen"),
        _node("Add", ["seen", "little"], "divisor"),
        _node("Div", ["sum", "divisor"], "fused"),
        _node("Sub", ["fused", "four"], "car"),
        _node("Mul", ["car", "never"], "flat"),
        _node("Add", ["flat", "low"], "person"),
        _node("Concat", ["car", "person"], "boxes3d_heatmap", axis=1),
        _node("Identity", ["fields"], "boxes3d_fields"),
    ]
    weights |= {
        "little": np.array(1e-3, np.float32),
        "four": np.array(4, np.float32),
        "never": np.array(0, np.float32),
        "low": np.array(-9, np.float32),
        "fields": fields,
    }
    gives = {
        "boxes3d_heatmap": (FLOAT, [1, 2, *shape]),
        "boxes3d_fields": (FLOAT, [1, 10, *shape]),
    }
    return _graph(nodes, takes, gives, weights)


def ground_bundle(
    folder: Path,
    inputs: Mapping[str, tuple[str, str]] = SURROUND,
    ground: Mapping[str, Any] = GROUND,
    pillars: int = PILLARS,
    points: int = POINTS,
) -> Path:
    """A bundle of these inputs: kind and encoder by name."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"max_pillars": pillars, "max_points": points}
    listed: dict[str, Any] = {}
    for name, (kind, encoder) in inputs.items():
        view = {"type": "image", "height": SIZE[0], "width": SIZE[1], "birdseye": dict(ground)}
        if kind in ("lidar", "depth"):
            view = {"type": "birdseye", "birdseye": dict(ground)}
        preprocess = own if kind in ("lidar", "depth") else {}
        listed[name] = {"kind": kind, "encoder": encoder, "view": view, "preprocess": preprocess}
    contract = PreprocessContract.model_validate(listed)
    assert contract.birdseye is not None
    rows, columns = contract.birdseye.shape
    graphs = {}
    for name in contract:
        spec = contract[name]
        if "pillars" in spec.tensors:
            graphs[spec.encoder] = points_encoder(rows, columns, pillars, points)
        else:
            heights, channels = len(contract.birdseye.heights), spec.tensors["image"].shape[0]
            graphs[spec.encoder] = pictures_encoder(rows, columns, heights, channels)
    files = {f"encoder_{name}.onnx": graph for name, graph in graphs.items()}
    files["fuser.onnx"] = ground_fuser(list(contract), rows, columns)
    for file, graph in files.items():
        (folder / file).write_bytes(graph)
    content = {
        "schema": 2,
        "name": "ground",
        "inputs": listed,
        "tasks": {
            "boxes3d": {"classes": CLASSES, "birdseye": dict(ground), "score_threshold": 0.8}
        },
        "graphs": {
            "encoders": {name: {"file": f"encoder_{name}.onnx"} for name in graphs},
            "fuser": {"file": "fuser.onnx"},
            "presence": list(contract),
        },
        "files": {file: sha256(folder / file) for file in files},
    }
    (folder / "bundle.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder
