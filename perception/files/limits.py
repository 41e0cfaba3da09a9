"""How much of anything is taken from a file or message that somebody else made.

Sizes are compared with what a header claims before anything is allocated or decoded.  The numbers are far
above what robots' sensors deliver and far below what fills a machine's memory.
"""

from __future__ import annotations

from typing import Final

from perception.errors import AnySenseError, InputError

MAX_PIXELS: Final = 2**26
"""Pixels of one picture, map, mask or `camera_info` (67 million, 8192 x 8192)."""

MAX_POINTS: Final = 2**24
"""Points of one cloud (16.8 million; a 128-beam scan has 0.3 million)."""

MAX_ARRAY_BYTES: Final = 2**30
"""Bytes of one decoded array or message (1 GiB)."""

MAX_JPEG_SCANS: Final = 64
"""Scans of one progressive JPEG, each of which passes over all pixels (encoders write about ten)."""

MAX_TIFF_SEGMENTS: Final = 2**16
"""Strips or tiles of one TIFF."""

MAX_SAMPLE_BYTES: Final = 2**29
"""Bytes of one file with a picture or cloud (512 MiB)."""

MAX_GRAPH_BYTES: Final = 2**31
"""Bytes of one ONNX file (2 GiB, which protobuf itself does not exceed)."""

MAX_TENSOR_BYTES: Final = 2**30
"""Bytes of all inputs, or of all outputs, of a graph (1 GiB)."""

MAX_TEXT_BYTES: Final = 2**26
"""Bytes of one text, YAML, JSON or CSV file (64 MiB)."""

MAX_KEY_BYTES: Final = 2**16
"""Bytes of one file with a key (64 KiB)."""

MAX_KEYS: Final = 1000
"""Keys in a trust store, and signatures of one bundle."""

MAX_SIGNATURE_BYTES: Final = 2**22
"""Bytes of the file with a bundle's signatures (4 MiB)."""

MAX_ANNOTATION_BYTES: Final = 2**31
"""Bytes of one JSON file with the labels of a whole data set (2 GiB; COCO's have 0.45, nuScenes' 1.3 GiB)."""

MAX_FRAME_BOXES: Final = 2000
"""Boxes of one frame, or of its truth, in a file of 3D boxes; each is held against each."""

MAX_YAML_NODES: Final = 2**20
"""Values in one YAML file with its aliases written out."""

MAX_XML_ELEMENTS: Final = 2**20
"""Elements in one XML file."""

MAX_HEADER_BYTES: Final = 2**24
"""Bytes of the header of a file of tensors (16 MiB)."""

MAX_ARCHIVE_BYTES: Final = 2**32
"""Bytes that an archive may unpack to, or that a checkpoint may have (4 GiB)."""

MAX_ARCHIVE_FILES: Final = 10_000
"""Files in one archive or bundle."""

MAX_FRAMES: Final = 10_000
"""Coordinate frames kept of /tf and /tf_static; of those that move, the ones heard last."""

MAX_TRANSFORMS: Final = 250_000
"""Transforms of all moving frames together that are kept for interpolation (about 150 MB)."""

MAX_NAME: Final = 1024
"""Characters of a name in a message, such as a coordinate frame's."""

MAX_STEPS: Final = 1_000_000
"""Times that one loop may run because a number in a file says so (heartbeats over a gap, for example)."""


def check_pixels(
    width: int, height: int, *, where: str = "", error: type[AnySenseError] = InputError
) -> None:
    """Refuse a picture whose header claims more than `MAX_PIXELS`, or less than one.

    Raises:
        AnySenseError: of the class `error`.
    """
    if width < 1 or height < 1:
        raise error(f"image of {width}x{height} pixels", where=where)
    if width * height > MAX_PIXELS:
        raise error(
            f"image of {width}x{height} pixels, more than the limit of {MAX_PIXELS}", where=where
        )


def check_points(count: int, *, where: str = "", error: type[AnySenseError] = InputError) -> None:
    """Refuse a cloud whose header claims more than `MAX_POINTS`, or a negative number.

    Raises:
        AnySenseError: of the class `error`.
    """
    if not 0 <= count <= MAX_POINTS:
        raise error(f"cloud of {count} points, outside 0..{MAX_POINTS}", where=where)


def check_bytes(
    count: int,
    limit: int = MAX_ARRAY_BYTES,
    *,
    where: str = "",
    error: type[AnySenseError] = InputError,
) -> None:
    """Refuse what would take more than `limit` bytes.

    Raises:
        AnySenseError: of the class `error`.
    """
    if count > limit:
        raise error(f"{count} bytes, more than the limit of {limit}", where=where)
