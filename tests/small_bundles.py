"""Bundles of a few kilobytes, made without PyTorch, that a test can bend in any way.

`small(...)` makes one of schema 1, `small.named({"left": ("rgb", "camera"), ...})` one of the present schema.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from perception.frame import MODALITIES
from perception.preprocess.contract import InputSpec
from perception.runtime.wiring import IMAGE, Wiring

GRID = (32, 64)
FEATURES = 3
Edit = Callable[[dict[str, Any]], None]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Sequence[int | str | None] | None],
    outputs: dict[str, Sequence[int | str | None] | None],
    weights: dict[str, np.ndarray],
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    def values(tensors: dict[str, Sequence[int | str | None] | None]) -> list[Any]:
        return [helper.make_tensor_value_info(n, dtype, s) for n, s in tensors.items()]

    graph = helper.make_graph(
        list(nodes),
        "small",
        values(inputs),
        values(outputs),
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def encoder(
    modality: str = "rgb", seed: int = 0, image: str = "", feature: str = ""
) -> onnx.ModelProto:
    """A 1x1 convolution of the sensor's channels, at an eighth of the grid."""
    image, feature = image or modality, feature or f"{modality}_f"
    rng = np.random.default_rng(seed)
    height, width = GRID
    channels = InputSpec(kind=modality, view={"height": height, "width": width}).shape[1]
    weight = rng.normal(size=(FEATURES, channels, 1, 1)) / 50
    return model(
        [helper.make_node("Conv", [image, "w"], [feature], strides=[8, 8])],
        {image: [1, channels, height, width]},
        {feature: [1, FEATURES, height // 8, width // 8]},
        {"w": weight.astype(np.float32)},
    )


def fuser(
    modalities: Sequence[str] = ("rgb",),
    segmentation: int = 3,
    detection: int = 0,
    stride: int = 8,
    seed: int = 1,
    presence: Sequence[str] = MODALITIES,
    separator: str = "_",
) -> onnx.ModelProto:
    """Features of those present, summed, to class logits and boxes."""
    rng = np.random.default_rng(seed)
    height, width = GRID[0] // 8, GRID[1] // 8
    nodes, weights = [], {"zero": np.zeros((), np.float32), "half": np.array(0.5, np.float32)}
    parts = []
    for modality in modalities:
        weights[f"at_{modality}"] = np.array([presence.index(modality)], np.int64)
        nodes += [
            helper.make_node("Gather", ["presence", f"at_{modality}"], [f"p_{modality}"]),
            helper.make_node("Greater", [f"p_{modality}", "half"], [f"is_{modality}"]),
            helper.make_node(
                "Where", [f"is_{modality}", f"{modality}{separator}f", "zero"], [f"g_{modality}"]
            ),
        ]
        parts.append(f"g_{modality}")
    nodes.append(helper.make_node("Sum", parts, ["fused"]))
    outputs: dict[str, Sequence[int | str | None] | None] = {}
    heads = {"seg_logits": segmentation}
    if detection:
        heads |= {f"det_cls_{stride}": detection, f"det_box_{stride}": 4}
    for name, channels in heads.items():
        if channels:
            weights[f"w_{name}"] = rng.normal(size=(channels, FEATURES, 1, 1)).astype(np.float32)
            nodes.append(helper.make_node("Conv", ["fused", f"w_{name}"], [name]))
            outputs[name] = [1, channels, height, width]
    inputs: dict[str, Sequence[int | str | None] | None] = {"presence": [len(presence)]}
    inputs |= {f"{m}{separator}f": [1, FEATURES, height, width] for m in modalities}
    return model(nodes, inputs, outputs, weights)


def manifest(
    folder: Path,
    modalities: Sequence[str] = ("rgb",),
    segmentation: int = 3,
    detection: int = 0,
) -> dict[str, Any]:
    """A manifest of what lies in the folder."""

    def table(count: int) -> list[dict[str, Any]]:
        return [{"id": i, "name": f"class {i}", "color": [i, 2 * i, 3]} for i in range(count)]

    tasks = ["segmentation"] * bool(segmentation) + ["detection"] * bool(detection)
    return {
        "schema": 1,
        "name": "small",
        "tasks": tasks,
        "modalities": list(modalities),
        "inputs": {
            "modalities": list(modalities),
            "grid": {"height": GRID[0], "width": GRID[1]},
        },
        "classes": {"segmentation": table(segmentation), "detection": table(detection)},
        "graphs": {
            "encoders": {m: {"file": f"encoder_{m}.onnx"} for m in modalities},
            "fuser": {"file": "fuser.onnx"},
        },
        "detection": {"strides": [8]},
        "files": {p.name: sha256(p) for p in sorted(folder.glob("*.onnx"))},
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "bundle.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


class SmallBundles:
    """Makes bundles: `small(modalities, segmentation, detection, graphs={file: model}, edit=...)`."""

    encoder, fuser, model = staticmethod(encoder), staticmethod(fuser), staticmethod(model)
    sha256, write = staticmethod(sha256), staticmethod(write)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self,
        modalities: Sequence[str] = ("rgb",),
        segmentation: int = 3,
        detection: int = 0,
        *,
        graphs: dict[str, onnx.ModelProto] | None = None,
        edit: Edit = lambda content: None,
        name: str = "small",
    ) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        made = {f"encoder_{m}.onnx": encoder(m, i) for i, m in enumerate(modalities)}
        made["fuser.onnx"] = fuser(modalities, segmentation, detection)
        for file, graph in {**made, **(graphs or {})}.items():
            (folder / file).write_bytes(graph.SerializeToString())
        content = manifest(folder, modalities, segmentation, detection)
        edit(content)
        return write(folder, content)

    def named(
        self,
        inputs: Mapping[str, tuple[str, str]],
        segmentation: int = 3,
        detection: int = 0,
        *,
        graphs: dict[str, onnx.ModelProto] | None = None,
        edit: Edit = lambda content: None,
        name: str = "named",
    ) -> Path:
        """A bundle of the present schema: by input its kind and its encoder, which may be shared."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        wiring = Wiring.of({n: own for n, (_, own) in inputs.items()})
        kinds = {own: kind for kind, own in inputs.values()}
        made = {
            f"encoder_{own}.onnx": encoder(kind, i, IMAGE, "f")
            for i, (own, kind) in enumerate(kinds.items())
            if f"encoder_{own}.onnx" not in (graphs or {})
        }
        order = wiring.presence
        made["fuser.onnx"] = fuser(
            order, segmentation, detection, presence=order, separator=wiring.separator
        )
        for file, graph in {**made, **(graphs or {})}.items():
            (folder / file).write_bytes(graph.SerializeToString())
        old = manifest(folder, ("rgb",), segmentation, detection)
        view = old["inputs"]["grid"]
        tasks = {"segmentation": {"classes": old["classes"]["segmentation"]}}
        boxes = {"boxes2d": {"classes": old["classes"]["detection"], "strides": [8]}}
        content = {
            "schema": 2,
            "name": "small",
            "inputs": {
                n: {"kind": kind, "encoder": own, "view": view, "preprocess": {}}
                for n, (kind, own) in inputs.items()
            },
            "tasks": (tasks if segmentation else {}) | (boxes if detection else {}),
            "graphs": {
                "encoders": {own: {"file": f"encoder_{own}.onnx"} for own in kinds},
                "fuser": {"file": "fuser.onnx"},
                "presence": list(order),
            },
            "files": old["files"],
        }
        edit(content)
        return write(folder, content)

    def with_heights(self, name: str = "heights") -> Path:
        """A bundle of `left` whose fuser also gives what the task of `tests/plugins/height` reads."""
        graph = fuser(("left",), presence=("left",), separator=".")
        nodes = graph.graph.node
        weights = {
            "axes": np.array([1], np.int64),
            "twice": np.array([1, 1, 2, 2], np.float32),
        }
        graph.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
        nodes.append(helper.make_node("ReduceMean", ["fused", "axes"], ["mean"], keepdims=1))
        nodes.append(helper.make_node("Resize", ["mean", "", "twice"], ["finer"], mode="nearest"))
        nodes.append(helper.make_node("Sigmoid", ["finer"], ["height"]))
        shape = [1, 1, GRID[0] // 4, GRID[1] // 4]
        found = helper.make_tensor_value_info("height", TensorProto.FLOAT, shape)
        graph.graph.output.append(found)

        def edit(content: dict[str, Any]) -> None:
            content["tasks"]["height"] = {"max_m": 2.0}

        inputs = {"left": ("rgb", "camera")}
        return self.named(inputs, graphs={"fuser.onnx": graph}, edit=edit, name=name)
