"""LZF, the compression of PCD's `binary_compressed` (Marc Lehmann's liblzf, format of version 1)."""

from __future__ import annotations

from perception.errors import EncodingError

_LONG = 7  # of a reference's three bits of length: another byte adds to it


def decompress_lzf(content: bytes, size: int) -> bytes:
    """Unpack exactly `size` bytes.

    A control byte below 32 is followed by one more literal bytes than it says.  Otherwise its upper three
    bits are the length of a copy less 2 (7: the next byte is added), and its lower five with the byte that
    follows how far back in the output the copy begins, less 1.

    Raises:
        EncodingError: it ends early, refers to before its beginning, or unpacks to another size.
    """
    out = bytearray()
    position = 0
    try:
        while position < len(content):
            control = content[position]
            position += 1
            if control < 32:
                literal = content[position : position + control + 1]
                position += control + 1
                if position > len(content):
                    raise IndexError
                out += literal
            else:
                length = control >> 5
                if length == _LONG:
                    length += content[position]
                    position += 1
                start = len(out) - ((control & 31) << 8) - content[position] - 1
                position += 1
                if start < 0:
                    raise IndexError
                _copy(out, start, length + 2)
            if len(out) > size:
                raise IndexError
    except IndexError as error:
        raise EncodingError("compressed data are damaged") from error
    if len(out) != size:
        raise EncodingError(f"compressed data unpack to {len(out)} bytes, not {size}")
    return bytes(out)


def _copy(out: bytearray, start: int, length: int) -> None:
    """Append `length` bytes from `start` on, which may reach into what is being appended."""
    available = len(out) - start
    part = bytes(out[start : start + length])
    if length > available:
        part = (part * (length // available + 1))[:length]
    out += part
