"""Unpacking: every byte comes back, and not one more than is allowed."""

from __future__ import annotations

import io
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from perception.bags.decompress import unpack, unpack_stream
from perception.errors import DataError

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

CODINGS = st.sampled_from(["zstd", "lz4"])
PARTS = st.lists(st.binary(max_size=3000), min_size=1, max_size=4)


def _packed(data: bytes, coding: str) -> bytes:
    if coding == "lz4":
        import lz4.frame

        return lz4.frame.compress(data)
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(data)


@given(CODINGS, PARTS)
def test_frames_one_behind_the_other_come_back_whole(coding: str, parts: list[bytes]) -> None:
    packed, whole = b"".join(_packed(p, coding) for p in parts), b"".join(parts)
    for data in (packed, memoryview(packed)):
        assert bytes(unpack(data, coding, len(whole), where="a")) == whole
    assert bytes(unpack(whole, "", len(whole), where="a")) == whole


@given(CODINGS, st.binary(min_size=1, max_size=5000))
def test_the_limit_is_kept_to_the_byte(coding: str, data: bytes) -> None:
    for kind, packed in ((coding, _packed(data, coding)), ("", data)):
        with pytest.raises(DataError, match=f"a: unpacks to more than {len(data) - 1} bytes"):
            unpack(packed, kind, len(data) - 1, where="a")


@given(CODINGS, st.binary(min_size=1, max_size=3000), st.floats(0, 1))
def test_what_is_cut_off_or_has_more_behind_it_is_refused(
    coding: str, data: bytes, share: float
) -> None:
    packed = _packed(data, coding)
    cut = packed[: max(1, int(share * (len(packed) - 1)))]
    for broken in (cut, packed + b"rubbish"):
        with pytest.raises(DataError, match="^a: .*" + coding) as caught:
            unpack(broken, coding, 2**20, where="a")
        assert str(caught.value.__cause__ or "") in str(caught.value)
    with pytest.raises(DataError, match="compressed with 'brotli'"):
        unpack(packed, "brotli", 2**20, where="a")


@settings(max_examples=6, deadline=None)
@given(CODINGS, st.integers(1, 5 * 2**20))
@example("zstd", 3 * 2**20)
@example("lz4", 2**20 + 1)
def test_a_stream_comes_in_pieces(coding: str, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    pieces = list(unpack_stream(io.BytesIO(_packed(data, coding)), coding, where="a"))
    assert b"".join(pieces) == data
    assert all(0 < len(piece) <= 2**20 for piece in pieces)


def test_nothing_is_nothing() -> None:
    for coding in ("zstd", "lz4", ""):
        assert bytes(unpack(b"", coding, 0, where="a")) == b""
