"""A pipeline's encoders and its fuser: what they are fed, and what becomes of their failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perception.errors import EngineError
from perception.frame import MODALITIES, Modality
from perception.preprocess.grid import GridMap
from perception.runtime.engines.base import Engine, Feed, NonFiniteError, Tensor
from perception.runtime.interpret import check_outputs
from perception.runtime.manifest import BundleManifest


@dataclass(frozen=True)
class Encoded:
    """What is kept of a sample: its features, and where its pixels lie on the grid.

    Attributes:
        features: the encoder's outputs by name.
        grid: where the sample's pixels lie on the reference grid.
        stamp_ns: the sample's stamp.
        timings: milliseconds by step (`preprocess_<m>`, `check_<m>`, `encode_<m>`).
    """

    features: Mapping[str, Feed]
    grid: GridMap
    stamp_ns: int
    timings: dict[str, float] = field(default_factory=dict)


class Networks:
    """The engines of one bundle.

    Args:
        manifest: the bundle's.
        encoders, fuser: its engines.
        counters: `engine_failures` is counted there.

    Attributes:
        engines: by modality, and `fuser`.
        buffers: for each encoder an array of its input, to be filled by the caller.
    """

    def __init__(
        self,
        manifest: BundleManifest,
        encoders: Mapping[Modality, Engine],
        fuser: Engine,
        counters: Counter[str],
    ) -> None:
        self._manifest, self._counters = manifest, counters
        self.engines: dict[str, Engine] = {}
        self.use(encoders, fuser)
        self._absent = {
            spec.name: np.zeros([d or 1 for d in spec.shape], np.float32) for spec in fuser.inputs
        }
        self.buffers: dict[Modality, NDArray[np.float32]] = {
            m: np.empty(manifest.inputs.input_shape(m), np.float32) for m in encoders
        }

    def use(self, encoders: Mapping[Modality, Engine], fuser: Engine) -> None:
        """Take other engines of the same bundle from now on."""
        self.engines = {"fuser": fuser, **{str(m): engine for m, engine in encoders.items()}}

    @property
    def backend(self) -> str:
        """Name of the backend that runs; several joined by '+' when one had to take over."""
        return "+".join(dict.fromkeys(e.backend for e in self.engines.values()))

    def encode(self, modality: Modality) -> Mapping[str, Feed]:
        """The features of what lies in the modality's buffer.

        Raises:
            EngineError: the backend failed.
        """
        with self._counted():
            return self.engines[modality].run_linked({modality: self.buffers[modality]})

    def fuse(
        self, used: tuple[Modality, ...], encoded: MutableMapping[Modality, Encoded]
    ) -> dict[str, Tensor]:
        """The fuser's outputs, which are finite and as large as the manifest says.

        Args:
            used: the modalities to use, in canonical order.
            encoded: their features; those to blame for a failure are taken out.

        Raises:
            EngineError: they are not, or the backend failed.  Features that are to blame for it are
                dropped, and their encoders go on with another backend where they can.
        """
        with self._counted():
            try:
                outputs = self.engines["fuser"].run(*self._feeds(used, encoded))
            except NonFiniteError as error:
                for modality in used:
                    if set(error.feeds) & set(encoded[modality].features):
                        del encoded[modality]
                        self.engines[modality].give_up(error)
                raise
            check_outputs(self._manifest, outputs)
        return outputs

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except EngineError:
            self._counters["engine_failures"] += 1
            raise

    def _feeds(
        self, used: tuple[Modality, ...], encoded: Mapping[Modality, Encoded]
    ) -> tuple[dict[str, Feed], set[str]]:
        """The fuser's inputs, and the names of those that stand for absent sensors."""
        feeds: dict[str, Feed] = dict(self._absent)
        feeds["presence"] = np.array([m in used for m in MODALITIES], np.float32)
        for modality in used:
            feeds.update(encoded[modality].features)
        return feeds, {name for name in feeds if feeds[name] is self._absent.get(name)}
