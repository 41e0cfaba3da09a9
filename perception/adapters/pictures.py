"""Pictures in files and messages: one rule for formats, limits, bit depths, channels and orientation.

Only JPEG, PNG and (in files) TIFF are decoded.  Every header is read and compared with the limits of
`perception.files.limits` before a decoder sees the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.adapters import jpeg, png, tiff
from perception.adapters.exif import UPRIGHT, upright
from perception.adapters.quiet import quiet_decoders
from perception.errors import EncodingError
from perception.files.limits import check_bytes, check_pixels

_FEWEST_BITS = 12  # a picture of 16 bits that does not use the upper 4 is one of fewer
_COLOR_TOLERANCE = 16  # JPEG leaves a gray picture's channels a few counts apart

_DAMAGE = re.compile("Corrupt JPEG data: |(?=Premature end|Inconsistent progression|Invalid SOS)")
_NUMBERS = re.compile(r" *\b(0x[0-9a-f]+|[0-9]+)\b")

MESSAGE_FORMATS: Final = ("JPEG", "PNG")
FILE_FORMATS: Final = ("JPEG", "PNG", "TIFF")

_DECODED = ((jpeg.MAGIC, "JPEG"), (png.MAGIC, "PNG"), *((magic, "TIFF") for magic in tiff.MAGICS))
_FOREIGN = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (b"\xff\x0a", "a JPEG XL"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (b"v/1\x01", "an OpenEXR"),
    (b"#?RADIANCE", "a Radiance HDR"),
    (b"8BPS", "a Photoshop document"),
    (b"%PDF", "a PDF"),
    (b"\x93NUMPY", "a numpy array"),
    (b"FFF\0", "a FLIR FFF"),
    (b"Y\xa6j\x95", "a Sun raster"),
    (b"\0\x05\x16\x07", "an AppleDouble file (macOS keeps attributes in it)"),
    *((b"P%d" % n, "a PNM") for n in range(1, 8)),
)
_BRANDS = {
    b"heic": "a HEIC",
    b"heix": "a HEIC",
    b"hevc": "a HEIC",
    b"mif1": "a HEIC",
    b"msf1": "a HEIC",
    b"avif": "an AVIF",
    b"avis": "an AVIF",
}


def format_of(content: bytes, formats: tuple[str, ...] = FILE_FORMATS) -> str:
    """Which of `formats` the bytes are, by their first bytes; the file's name does not matter.

    Raises:
        EncodingError: another one, which is named, or none at all.
    """
    found = next((name for magic, name in _DECODED if content.startswith(magic)), None)
    if found in formats:
        return found
    expected = " or ".join([", ".join(formats[:-1]), formats[-1]])
    if found is None:
        found = next((name for magic, name in _FOREIGN if content.startswith(magic)), None)
    else:
        found = f"a {found}"
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        found = "a WebP"
    elif content[4:8] == b"ftyp":
        found = _BRANDS.get(content[8:12], "an ISO media file")
    if found is None:
        raise EncodingError("no complete image", hint=f"expected {expected}")
    raise EncodingError(f"is {found}, expected {expected}", hint="convert it")


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        stored: (H, W), or (H, W, 3) in R, G, B order, as stored; palettes are turned to their colors
            and an alpha channel is dropped.  uint8 or uint16, from TIFF also other integers and floats.
        orientation: 1..8 as EXIF (or TIFF) tells it.
        inverted: whether the file says that 0 is white; `stored` is as stored.
        spread: by what samples of less than 8 bits were multiplied to fill 0..255.
        radiometric: whose block of raw thermal values lies beside this preview (`FLIR`, `DJI`), or empty.
        damage: what the decoder says of a JPEG whose picture may be wrong in part; known only within
            `perception.files.stderr.native_lines_caught`, as in a command.
    """

    stored: NDArray[Any]
    orientation: int = UPRIGHT
    inverted: bool = False
    radiometric: str = ""
    spread: int = 1
    damage: str = ""

    def samples(self) -> NDArray[Any]:
        """The stored samples as numbers: 1 in a 1 bit picture is 1, not 255."""
        return self.stored if self.spread == 1 else self.stored // np.uint8(self.spread)

    def upright(self) -> NDArray[Any]:
        """The stored values, turned and mirrored as the orientation says."""
        same = self.orientation == UPRIGHT
        return self.stored if same else upright(self.stored, self.orientation)

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 R, G, B, upright; gray on all three channels, of 16 bits the upper 8.

        Raises:
            EncodingError: the values are neither 8 nor 16 bit.
        """
        image = self.upright()
        if image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)
        if image.dtype != np.uint8:
            raise EncodingError(f"{image.dtype} picture, expected 8 or 16 bit")
        if self.inverted:
            image = ~image
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image


def decode_picture(content: bytes, formats: tuple[str, ...] = FILE_FORMATS) -> Picture:
    """Decode the bytes of a picture in one of `formats`.

    Raises:
        EncodingError: another format, damaged, or it ends early.
        InputError: more pixels or bytes than the limits.
    """
    kind = format_of(content, formats)
    if kind == "TIFF":
        page = tiff.read_tiff(content)
        return Picture(page.values, page.orientation, page.inverted)
    if kind == "PNG":
        found = png.read_png(content)
        _check_size(found.width, found.height, found.bits)
        image, _ = _decode(png.picture_bytes(found), found.width, found.height, kind)
        spread = 1 if found.color == png.PALETTE else _spread(found.bits)
        return Picture(image, found.orientation, spread=spread)
    header = jpeg.read_header(content)
    _check_size(header.width, header.height, 8)
    jpeg.refuse_incomplete(content, header)
    image, damage = _decode(content, header.width, header.height, kind)
    return Picture(image, header.orientation, radiometric=header.radiometric, damage=damage)


def size_of(content: bytes) -> tuple[int, int, int]:
    """Height and width of the raster as stored, and the orientation 1..8, of a picture's header alone.

    Raises:
        EncodingError, InputError: see `decode_picture`.
    """
    kind = format_of(content)
    if kind == "TIFF":
        page = tiff.read_tiff(content)
        return page.values.shape[0], page.values.shape[1], page.orientation
    found = png.read_png(content) if kind == "PNG" else jpeg.read_header(content)
    check_pixels(found.width, found.height)
    return found.height, found.width, found.orientation


def remarks(content: bytes, *, turned: bool = True) -> list[str]:
    """What a user should know of a picture that can be decoded, though nothing is wrong with it.

    Args:
        content: the bytes of the file.
        turned: whether its orientation is applied, as to RGB and thermal pictures.

    Raises:
        EncodingError, InputError: see `decode_picture`.
    """
    kind = format_of(content)
    found = []
    if kind == "TIFF":
        orientation = tiff.read_tiff(content).orientation
    elif kind == "PNG":
        orientation = png.read_png(content).orientation
    else:
        header = jpeg.read_header(content)
        orientation = header.orientation
        if header.radiometric:
            found.append(radiometric_remark(header.radiometric))
    if orientation != UPRIGHT:
        done = "turned upright as it says" if turned else "not applied, the raster is as stored"
        found.append(f"has orientation {orientation} (EXIF): {done}")
    return found


def dim_remark(content: bytes) -> list[str]:
    """Whether a color picture of 16 bits holds fewer of them, so that the upper 8 say next to nothing.

    Raises:
        EncodingError, InputError: see `decode_picture`.
    """
    kind = format_of(content)
    if kind == "JPEG" or (kind == "PNG" and png.read_png(content).bits < 16):
        return []
    stored = decode_picture(content).stored
    if stored.dtype != np.uint16 or not 0 < (most := int(stored.max())) < 2**_FEWEST_BITS:
        return []
    bits = max(most.bit_length(), 8)
    return [f"has values up to {most}: {bits} bits in 16, whose upper 8 are taken? Scale it to 16"]


def radiometric_remark(maker: str) -> str:
    """What is to be said of a thermal camera's JPEG with raw values beside its picture."""
    return (
        f"is a radiometric JPEG ({maker}): its picture is a preview, not temperatures; "
        "extract the raw values to TIFF or .npy"
    )


def _check_size(width: int, height: int, bits: int) -> None:
    check_pixels(width, height)
    check_bytes(width * height * 4 * max(bits, 8) // 8)


def _decode(content: bytes, width: int, height: int, kind: str) -> tuple[NDArray[Any], str]:
    """The pixels, and what is wrong with a picture that was decoded all the same."""
    with quiet_decoders() as lines:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        except cv2.error:
            image = None
    if image is None or image.shape[:2] != (height, width):
        raise EncodingError(f"no complete image: the {kind} is damaged")
    return (bgr_to_rgb(image) if image.ndim == 3 else image), _damage(lines)


def _damage(lines: list[str]) -> str:
    """One line of what libjpeg wrote, without numbers: many pictures of a camera give the same."""
    told = next((line for line in lines if _DAMAGE.match(line)), None)
    if told is None:
        return ""
    what = _NUMBERS.sub("", _DAMAGE.sub("", told, count=1)).strip()
    return f"is a damaged JPEG, part of the picture may be wrong: {what}"


def bgr_to_rgb(image: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 3 or 4) in OpenCV's order to (H, W, 3) R, G, B; an alpha channel is dropped."""
    code = cv2.COLOR_BGRA2RGB if image.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(image, code)


def single_channel(image: NDArray[Any]) -> NDArray[Any]:
    """The values of a gray picture that may have been saved with three equal channels.

    Args:
        image: (H, W), or (H, W, 3 or 4), a fourth channel being alpha.

    Raises:
        EncodingError: the channels differ, as in a picture in false colors.
    """
    if image.ndim == 2:
        return image
    red, green, blue = (image[..., i] for i in range(3))
    highest = np.maximum(np.maximum(red, green), blue)
    lowest = np.minimum(np.minimum(red, green), blue)
    tolerance = _COLOR_TOLERANCE if image.dtype == np.uint8 else 0
    if not (highest - lowest <= tolerance).all():
        raise EncodingError(
            "is color-mapped: colors where one channel of values is expected",
            hint="false colors cannot be turned back; take the sensor's gray or raw data",
        )
    return np.ascontiguousarray(green)


def decode_labels(content: bytes) -> NDArray[Any]:
    """The samples that a gray or palette PNG stores, of any bit depth: they are the ids.

    Other than in a picture, a 1 bit sample of 1 stays 1 (not 255), and a palette index stays an index.
    The raster is never turned.

    Returns:
        (H, W) uint8, or uint16 of a 16 bit PNG.

    Raises:
        EncodingError: it is no PNG, has colors or alpha, or is damaged.
        InputError: more pixels than the limit.
    """
    kind = format_of(content)
    expected = "a gray or palette PNG, whose stored sample or index is the id"
    if kind != "PNG":
        raise EncodingError(f"labels are a {kind}, expected {expected}")
    found = png.read_png(content)
    if found.color not in (png.GRAY, png.PALETTE):
        what = "gray with alpha" if found.color == png.GRAY_ALPHA else "colors (RGB or RGBA)"
        raise EncodingError(f"labels are {what}, expected {expected}")
    _check_size(found.width, found.height, found.bits)
    gray = png.index_bytes(found) if found.color == png.PALETTE else png.picture_bytes(found)
    samples, _ = _decode(gray, found.width, found.height, kind)
    return Picture(samples, spread=_spread(found.bits)).samples()


def decode_rgba(content: bytes) -> NDArray[np.uint8]:
    """The four channels that a PNG stores, of which the last may be no alpha but another sensor's.

    Returns:
        (H, W, 4) uint8; the raster is never turned.

    Raises:
        EncodingError: it is no PNG of four 8 bit channels, or damaged.
        InputError: more pixels than the limit.
    """
    kind = format_of(content)
    found = png.read_png(content) if kind == "PNG" else None
    if found is None or found.color != png.RGBA or found.bits != 8:
        raise EncodingError("is no PNG of four 8 bit channels")
    _check_size(found.width, found.height, found.bits)
    with quiet_decoders():
        image = cv2.imdecode(
            np.frombuffer(png.picture_bytes(found), np.uint8), cv2.IMREAD_UNCHANGED
        )
    if image is None or image.shape != (found.height, found.width, 4):
        raise EncodingError("no complete image: the PNG is damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)  # type: ignore[return-value]


def _spread(bits: int) -> int:
    """By what decoders multiply samples of less than 8 bits."""
    return 255 // (2**bits - 1) if bits < 8 else 1
