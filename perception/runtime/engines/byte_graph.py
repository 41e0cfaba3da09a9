"""A camera's bytes to its network's input as a graph, so that a quarter of the data goes to the GPU."""

from __future__ import annotations

import numpy as np

from perception.preprocess.contract import InputSpec
from perception.runtime.engines.device_form import DeviceInput
from perception.runtime.onnx_model import model, node, type_number


def byte_graph(input: InputSpec) -> bytes:
    """From `image`, (1, H, W, 3) uint8 RGB, to the tensor of that name, (1, 3, H, W) float32.

    Args:
        input: one of kind rgb, whose preprocessing says mean and standard deviation.
    """
    height, width = input.view.height, input.view.width
    nodes = [
        node("Cast", ["image_bytes"], "values", to=type_number("float32")),
        node("Sub", ["values", "mean"], "centered"),
        node("Div", ["centered", "std"], "scaled"),
        node("Transpose", ["scaled"], "image", perm=[0, 3, 1, 2]),
    ]
    # The input cannot bear the output's name within a graph.
    return model(
        nodes,
        {"image_bytes": ("uint8", [1, height, width, 3])},
        {"image": ("float32", [1, 3, height, width])},
        {
            "mean": np.array(input.preprocess.mean, np.float32),
            "std": np.array(input.preprocess.std, np.float32),
        },
    )


ON_DEVICE = DeviceInput({"image": "image_bytes"}, byte_graph)
