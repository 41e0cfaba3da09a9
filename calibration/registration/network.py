"""The matcher's graph: from a picture at working size to dense descriptors, by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from calibration.registration.pictures import Float32, Mask, normalized, padded
from perception.errors import DataError, EngineError
from perception.files.limits import MAX_GRAPH_BYTES
from perception.files.listing import is_file
from perception.files.text import read_bytes

COARSE_STRIDE, FINE_STRIDE = 8, 4

SHIPPED = Path(__file__).parent / "matcher.onnx"
"""Our graph; `anysense train configs/matcher.yaml` makes it. Trained on research data: no wheel has it."""

_IN_CLONE = Path("calibration/registration/matcher.onnx")


@dataclass(frozen=True)
class Features:
    """Descriptors of a picture, of length 1.

    Attributes:
        coarse: (h / 8, w / 8, C) float32.
        fine: (h / 4, w / 4, D) float32.
        coarse_valid, fine_valid: of which cells most pixels show something.
    """

    coarse: Float32
    fine: Float32
    coarse_valid: Mask
    fine_valid: Mask


class DescriptorGraph:
    """A loaded graph.

    Args:
        path: ONNX file that takes `image` (1, 2, H, W) and gives `coarse` and `fine`.
        threads: of the CPU; 0 for as many as there are cores.

    Raises:
        DataError: the file cannot be read.
        EngineError: it is no such graph.
    """

    def __init__(self, path: Path = SHIPPED, threads: int = 0) -> None:
        self.path = path
        if path == SHIPPED and not is_file(path) and is_file(_IN_CLONE):
            path = self.path = _IN_CLONE  # a wheel that runs in a clone
        if path == SHIPPED and not is_file(path):
            raise DataError(
                "the matcher that is trained on research data does not come with a wheel",
                where=str(path),
                hint="--matcher runs/matcher/matcher.onnx, made by anysense train matcher",
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        content = read_bytes(path, limit=MAX_GRAPH_BYTES)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            names = [v.name for v in self._session.get_outputs()]
            fits = names == ["coarse", "fine"] and self._session.get_inputs()[0].name == "image"
        except Exception as error:  # ONNX Runtime has classes of its own for every cause
            raise EngineError(f"is no graph that can be run: {error}", where=str(path)) from error
        if not fits:
            raise EngineError("is no matcher: it gives no 'coarse' and 'fine'", where=str(path))

    def describe(self, gray: Float32, valid: Mask) -> Features:
        """Descriptors of a picture.

        Args:
            gray: (h, w), see `Prepared`.
            valid: (h, w).
        """
        image = padded(normalized(gray, valid))
        try:
            coarse, fine = self._session.run(None, {"image": image[None]})
        except Exception as error:
            raise EngineError(f"cannot be run: {error}", where=str(self.path)) from error
        height, width = gray.shape
        return Features(
            _cropped(coarse, height, width, COARSE_STRIDE),
            _cropped(fine, height, width, FINE_STRIDE),
            _cells(valid, COARSE_STRIDE),
            _cells(valid, FINE_STRIDE),
        )


def _cropped(values: NDArray[Any], height: int, width: int, stride: int) -> Float32:
    part = values[0, :, : height // stride, : width // stride]
    return np.ascontiguousarray(part.transpose(1, 2, 0), np.float32)


def _cells(valid: Mask, stride: int) -> Mask:
    height, width = (n // stride for n in valid.shape)
    cells = valid[: height * stride, : width * stride].reshape(height, stride, width, stride)
    return np.asarray(cells.mean((1, 3)) > 0.5)
