"""Protocol Buffers' wire format: fields of a message as spans of its bytes, and fields written anew."""

from __future__ import annotations

from collections.abc import Iterator

Span = tuple[int, int]
Message = dict[int, list[tuple[int, Span]]]
"""Fields by number, each with its wire type; the span of a number is its value and its end."""


class DamagedError(Exception):
    """The bytes are no such message."""


def varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number that begins at a place, and where it ends."""
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise DamagedError("it is cut off, or damaged")


def fields_of(data: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, Span]]:
    """Number, wire type, start of the field with its tag, and span (or value) of each field."""
    at = start
    while at < end:
        begin = at
        tag, at = (data[at], at + 1) if data[at] < 0x80 else varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            if at < end and data[at] < 0x80:
                size, at = data[at], at + 1
            else:
                size, at = varint(data, at, end)
            span = (at, at + size)
            at += size
        elif wire == 0:
            value, at = varint(data, at, end)
            span = (value, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
            span = (at, at)
        else:
            raise DamagedError("it is damaged")
        if at > end or number == 0:
            raise DamagedError("it is cut off, or damaged")
        yield number, wire, begin, span


def text_at(data: memoryview, span: Span) -> str:
    """A text; what is no UTF-8 is replaced."""
    return str(data[span[0] : span[1]], "utf-8", "replace")


def message_at(data: memoryview, span: Span) -> Message:
    """Fields of a small message by number, each with its wire type."""
    found: Message = {}
    for number, wire, _, inner in fields_of(data, *span):
        found.setdefault(number, []).append((wire, inner))
    return found


def string_of(data: memoryview, message: Message, number: int) -> str:
    """A field's text, the last one where there are several; empty where there is none."""
    wire, span = message.get(number, [(2, (0, 0))])[-1]
    return text_at(data, span) if wire == 2 else ""


def integer_of(message: Message, number: int) -> int:
    """A field's number, the last one where there are several; 0 where there is none."""
    wire, span = message.get(number, [(0, (0, 0))])[-1]
    if wire != 0:
        return 0
    return span[0] - (1 << 64) if span[0] >> 63 else span[0]


def spans_of(message: Message, number: int) -> list[Span]:
    """Where the strings or messages of a field lie."""
    return [span for wire, span in message.get(number, []) if wire == 2]


def messages_of(data: memoryview, message: Message, *path: int) -> list[Message]:
    """The messages at the end of a path of fields."""
    level = [message]
    for number in path:
        level = [message_at(data, span) for message in level for span in spans_of(message, number)]
    return level


def field_of(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return key_of(number, len(content)) + content


def key_of(number: int, size: int) -> bytes:
    """Tag and length of a field of bytes."""
    out = bytearray()
    for value in (number << 3 | 2, size):
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)
