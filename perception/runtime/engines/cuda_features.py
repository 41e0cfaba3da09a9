"""Which ways of running on a GPU are used: all that were seen to work, unless somebody says otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields

from perception.errors import ConfigError, names_hint

VARIABLE = "ANYSENSE_CUDA"


@dataclass(frozen=True)
class CudaFeatures:
    """What is done on the GPU.

    Attributes:
        bind: ONNX Runtime runs on our stream and between our addresses, so that features stay there.
        graphs: what it queues is recorded as a CUDA graph.
        bytes: cameras' pictures are copied as bytes, and normalized there.
        labels: labels and their confidence are computed there, and only these are copied.
    """

    bind: bool = True
    graphs: bool = True
    bytes: bool = True
    labels: bool = True


def features() -> CudaFeatures:
    """Those of the environment variable `ANYSENSE_CUDA`, such as `bind,graphs`; or the default.

    Empty means none.

    Raises:
        ConfigError: it names something else.
    """
    said = os.environ.get(VARIABLE)
    if said is None:
        return CudaFeatures()
    known = [f.name for f in fields(CudaFeatures)]
    named = [name.strip() for name in said.split(",") if name.strip()]
    for name in named:
        if name not in known:
            raise ConfigError(f"'{name}' is none", where=VARIABLE, hint=names_hint(name, known))
    return CudaFeatures(**{name: name in named for name in known})
