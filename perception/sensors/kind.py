"""What is known of a kind of sensor: one record, which a plug-in gives as well as we do.

A sample takes this road: `from_array`, `from_message` or `from_file` -> `validate` -> `resample`, or
`register` -> `Grid` -> `normalize` -> `refuse_blind` -> the network.  Training augments the `Grid`;
serving does not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from perception.errors import CalibrationError
from perception.frame import LEAST_RANGE_M, Sample
from perception.geometry.measured import PixelPoints, cloud_points

if TYPE_CHECKING:
    from perception.geometry.grid import ViewSpec
    from perception.geometry.views import Placement
    from perception.preprocess.contract import InputSpec

Tensors: TypeAlias = Mapping[str, NDArray[Any]]
"""Network inputs by name."""

Content = Literal["ok", "dark", "saturated"]
"""What a sample's values say of its sensor."""

Layer = Literal["sample", "grid"]
"""Where content faults act: on the sample as it was decoded, or on the grid."""

# Far beyond any sensor, and far from where float32 overflows.
Value = Annotated[float, Field(ge=-1e6, le=1e6)]
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]


class KindSpec(BaseModel):
    """Base of what a bundle says of a kind's preprocessing: known fields, finite, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class TensorSpec:
    """Shape, without the batch axis, and type of a network input: float32, uint8 or int32."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Grid:
    """A sample brought to the grid of its input, not yet normalized.

    Attributes:
        layers: by name, (H, W) or (H, W, C) of one size; a picture's is called `image`.
        unit: of its values, where the kind has several.
        own: what the kind's faults need to know of how it was made, such as a picture's `GridMap`; None
            once it has been moved.
    """

    layers: Mapping[str, NDArray[Any]]
    unit: str = ""
    own: Any = None

    @property
    def image(self) -> NDArray[Any]:
        """The layer of a picture."""
        return self.layers["image"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        height, width = next(iter(self.layers.values())).shape[:2]
        return height, width


@dataclass(frozen=True)
class Hints:
    """What a user says of raw data that it does not say itself.  A kind takes those of `SensorKind.hints`.

    Attributes:
        encoding: of an array, as in `sensor_msgs/image_encodings`.
        unit: of the values; empty or `auto` for what their type says.
        least_range_m: a range sensor's least range; what is nearer, (0, 0, 0) too, is no return.
        columns: float32 a point of a file without header.
        scale: metres per step of a file's integers.
        m_per_count8: the same of an 8 bit file, when `scale` is not given.
    """

    encoding: str = ""
    unit: str = ""
    least_range_m: float = LEAST_RANGE_M
    columns: int | None = None
    scale: float | None = None
    m_per_count8: float | None = None


@dataclass(frozen=True)
class ColorScale:
    """What the false colors of a picture stand for.

    Attributes:
        colormap: of OpenCV.
        ticks: places on it, from 0 to 1, with the values there.
        unit: of these, such as `m`; empty for counts.
    """

    colormap: int
    ticks: tuple[tuple[float, float], ...]
    unit: str = ""


@dataclass(frozen=True)
class Inspection:
    """What is to be said of a sample of a recording.

    Attributes:
        errors: mistakes that make it useless.
        remarks: what may be wrong; told once for all samples of which it is true.
        kept: for `SensorKind.judge`; None for nothing.
    """

    errors: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    kept: Any = None


def _by_layout(sample: Sample) -> tuple[int, int] | None:
    """Stands for one of the functions below, see `SensorKind.__post_init__`."""
    raise NotImplementedError


def _nothing(*given: Any) -> None:
    """No check."""


def _ok(sample: Sample, thresholds: Any) -> Content:
    return "ok"


@dataclass(frozen=True)
class SensorKind:
    """One kind of sensor.  What has no default a kind must say; the rest it may.

    Functions are given, never subclassed; `input` is the bundle's, with `input.preprocess` of type `spec`
    and `input.view`.

    Attributes:
        name: as in files, `[a-z][a-z0-9_]*`.
        spec: its preprocessing in `bundle.yaml`; all fields have defaults.
        tensors: (preprocess, view) -> the network's inputs by name; one that is called `image`, (C, H, W),
            for pictures.
        validate: (sample); raises `InputError`, `BlindError` or `CalibrationError` for what cannot be used.
        resample: (sample, input) -> `Grid`, of a sample that was validated.
        register: (sample, input, placement) -> `Grid`, what `resample` is for a picture of a camera that
            stands or looks otherwise than the one whose grid it is brought to; what that one sees and this
            one does not holds no value.  None: it is always resampled.
        distances: (sample) -> (H, W) float32 metres along the optical axis, of kinds whose pictures measure
            them: by these other sensors' pictures are registered.
        normalize: (grid, input, out); fills `out`, arrays of `tensors`' shapes.
        title: for people, such as `LiDAR`; `name` where it is empty.
        colors: its pictures show colors as eyes see them: results are drawn on them, and labels are in
            their pixels unless it is said.
        layout: of `Sample.data`: `image` (H, W) or (H, W, C), or `points` (N, C >= 3) whose first columns
            are x, y, z in metres.
        views: types of views that its inputs may have, the usual one first.  `projection` needs a camera
            and extrinsics to it.
        refuse_blind: (out, input, sensor); raises when a network would see nothing in `out`.
        source_size: (sample) -> (height, width) of the picture that results are given in, None for the
            input's grid; by default a picture's own, projected points' camera's.
        hints: fields of `Hints` that mean something to it.
        units: that its values may be said to be in, `auto` first; none where there is but one.
        from_array: (array, hints) -> `Sample`, of what drivers hand out.
        from_message: (message, hints) -> `Sample`, of a parsed ROS message.
        from_file: (path, hints) -> `Sample`.
        remarks: (path) -> what a user should know of a file that could be read.
        ros_types: message types that `from_message` takes, the usual one first.
        ros_definitions: texts of .msg files by type, of types that are none of ROS's common interfaces.
        suffixes: of its files, the one that is written first.
        files: what they may be, in words.
        file_unit: in which `to_file` writes, where there are several `units`.
        check: (sample, thresholds) -> `Content`; the thresholds are `health`, or the pipeline's
            `HealthConfig` where that is None.
        health: thresholds of its own.
        to_file: (sample, path, hints), the inverse of `from_file`; in `file_unit`.
        inspect: (sample) -> `Inspection`, for `anysense data check`; what `validate` says where it is None.
        judge: (what `inspect` kept of all samples of a sensor) -> what is wrong with the sensor.
        to_message: (sample, types) -> the inverse of `from_message`, of the first of `ros_types`; see
            `adapters.outgoing`.
        draw: (sample) -> (H, W, 3) uint8 RGB for people; by default see `sensors.drawing`.
        scale: (sample) -> what the false colors of `draw` stand for, None where there are none.
        warp: (grid, geometry) -> `Grid` without `own`, how training moves it by `geometry.warp(array,
            nearest, fill)`; by default each layer's pixels as they are, and 0 where there was nothing.
        apply: (fault, sample or grid, layer, severity, rng) -> the same, spoilt; severity 1 to 5.
        faults: names of those that `apply` knows; a mapping to `Severity` says how much there is of each.
        augment: (grid, chances, rng) -> `Grid`, random corruption in training; `chances` are those of
            `CorruptionSpec`.
        points: (sample, size, stride) -> the measured points with their pixels in a picture of that size,
            for sensors that measure distances; None of a sample that lacks the calibration.  By default
            those of `points` projected, and none of pictures.
        on_device: `module:attribute` of a `perception.runtime.engines.device_form.DeviceInput`, by which a
            GPU does what `normalize` does; for kinds without `refuse_blind`.
        frame_words: what words in the names of its coordinate frames begin with, by which files of others
            are read that know no kinds: `velodyne`.  Its own name is one.
        example: (size, rng) -> a random but plausible sample, for benchmarks, with the calibration that
            it needs; (height, width).
    """

    name: str
    spec: type[BaseModel]
    tensors: Callable[[Any, ViewSpec], Mapping[str, TensorSpec]]
    validate: Callable[[Sample], None]
    resample: Callable[[Sample, InputSpec], Grid]
    normalize: Callable[[Grid, InputSpec, Tensors], None]
    title: str = ""
    colors: bool = False
    layout: Literal["image", "points"] = "image"
    views: tuple[Literal["image", "projection", "birdseye"], ...] = ("image",)
    refuse_blind: Callable[[Tensors, InputSpec, str], None] = _nothing
    source_size: Callable[[Sample], tuple[int, int] | None] = _by_layout
    hints: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    from_array: Callable[[NDArray[Any], Hints], Sample] | None = None
    from_message: Callable[[Any, Hints], Sample] | None = None
    from_file: Callable[[Any, Hints], Sample] | None = None
    remarks: Callable[[Any], list[str]] = lambda path: []
    ros_types: tuple[str, ...] = ()
    ros_definitions: Mapping[str, str] = field(default_factory=dict)
    suffixes: tuple[str, ...] = ()
    files: str = ""
    file_unit: str = ""
    check: Callable[[Sample, Any], Content] = _ok
    health: Any = None
    to_file: Callable[[Sample, Any, Hints], None] | None = None
    inspect: Callable[[Sample], Inspection] | None = None
    judge: Callable[[list[Any]], list[str]] = lambda kept: []
    to_message: Callable[[Sample, Any], Any] | None = None
    draw: Callable[[Sample], NDArray[np.uint8]] | None = None
    scale: Callable[[Sample], ColorScale | None] = lambda sample: None
    warp: Callable[[Grid, Any], Grid] | None = None
    apply: Callable[[str, Any, Layer, int, np.random.Generator], Any] | None = None
    faults: Collection[str] = ()
    augment: Callable[[Grid, Mapping[str, float], np.random.Generator], Grid] | None = None
    register: Callable[[Sample, InputSpec, Placement], Grid] | None = None
    distances: Callable[[Sample], NDArray[np.float32]] | None = None
    points: Callable[[Sample, tuple[int, int], int], PixelPoints | None] | None = None
    on_device: str | None = None
    frame_words: tuple[str, ...] = ()
    example: Callable[[tuple[int, int], np.random.Generator], Sample] | None = None

    def __post_init__(self) -> None:
        if self.source_size is _by_layout:
            points = size_of_camera if self.projected else _no_size
            size = size_of_picture if self.has_picture else points
            object.__setattr__(self, "source_size", size)
        if self.points is None and not self.has_picture:
            object.__setattr__(self, "points", cloud_points)

    @property
    def called(self) -> str:
        """What people call it."""
        return self.title or self.name

    @property
    def has_picture(self) -> bool:
        """Whether its samples are pictures, whose camera is their own."""
        return self.layout == "image"

    @property
    def projected(self) -> bool:
        """Whether its points need a camera, and extrinsics to it, to become a network's input."""
        return self.views[0] == "projection"


def size_of_picture(sample: Sample) -> tuple[int, int]:
    """(height, width) of a picture."""
    return sample.data.shape[0], sample.data.shape[1]


def size_of_camera(sample: Sample) -> tuple[int, int]:
    """(height, width) of the picture of the camera that points are projected into.

    Raises:
        CalibrationError: there is none.
    """
    if sample.camera is None:
        raise CalibrationError(
            "no camera to project into", where=sample.sensor, hint="give a rig with intrinsics"
        )
    return sample.camera.height, sample.camera.width


def _no_size(sample: Sample) -> tuple[int, int] | None:
    """That of its camera, if it has one: points of no picture."""
    return None if sample.camera is None else (sample.camera.height, sample.camera.width)
