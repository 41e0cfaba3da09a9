"""Pictures that decoders go on with although they are damaged: named once, and nothing else on stderr."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.adapters.compressed import decode_compressed_image
from perception.errors import EncodingError
from perception.files.stderr import native_lines, native_lines_caught
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.samples import file_remarks

Captured = pytest.CaptureFixture[str]


def _picture() -> np.ndarray:
    random = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    return cv2.GaussianBlur(random, (7, 7), 0)


def _jpeg() -> bytes:
    return cv2.imencode(".jpg", _picture())[1].tobytes()


def _cut() -> bytes:
    whole = _jpeg()
    return whole[: len(whole) // 2] + b"\xff\xd9"


def _garbled() -> bytes:
    broken = bytearray(_jpeg())
    broken[len(broken) // 2 : len(broken) // 2 + 8] = bytes(range(1, 9))
    return bytes(broken)


def _png() -> bytes:
    """A PNG whose checksums are right, but not its compressed data."""
    whole = cv2.imencode(".png", _picture())[1].tobytes()
    start = whole.index(b"IDAT")
    (length,) = struct.unpack(">I", whole[start - 4 : start])
    body = bytearray(whole[start + 4 : start + 4 + length])
    body[length // 2] ^= 255
    checksum = struct.pack(">I", zlib.crc32(b"IDAT" + bytes(body)))
    return whole[: start + 4] + bytes(body) + checksum + whole[start + 8 + length :]


@pytest.mark.parametrize(("make", "word"), [(_cut, "premature end"), (_garbled, "bytes before")])
def test_a_damaged_file_is_named_once(
    tmp_path: Path, capfd: Captured, make: object, word: str
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(make())  # type: ignore[operator]
    with native_lines_caught(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert load_rgb(path).data.shape == (240, 320, 3)
    (line,) = (str(w.message) for w in told)
    assert line.startswith(f"{path} is a damaged JPEG") and word in line
    assert not re.search("[0-9]", line.removeprefix(str(path)))
    assert any(word in remark for remark in file_remarks(path, "rgb"))
    assert capfd.readouterr().err == ""
    path.write_bytes(_jpeg())
    with native_lines_caught(), warnings.catch_warnings():
        warnings.simplefilter("error")
        load_rgb(path)
    assert file_remarks(path, "rgb") == []


def test_damaged_messages_are_named_by_kind(capfd: Captured) -> None:
    with native_lines_caught(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        for _ in range(5):
            decode_compressed_image(_cut(), "jpeg")
    assert len(told) == 1 and "damaged JPEG" in str(told[0].message)
    with native_lines_caught(), pytest.raises(EncodingError, match="the PNG is damaged"):
        decode_compressed_image(_png(), "png")
    assert capfd.readouterr().err == ""


def test_in_a_program_that_uses_the_library_stderr_stays_its_own(capfd: Captured) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode_compressed_image(_cut(), "jpeg")
    assert "Corrupt JPEG data" in capfd.readouterr().err


def test_what_others_write_meanwhile_appears(capfd: Captured) -> None:
    written, stop = [], threading.Event()

    def write() -> None:
        while not stop.wait(0.0005):
            written.append(f"line {len(written)}\n")
            os.write(2, written[-1].encode())

    other = threading.Thread(target=write)
    with native_lines_caught(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other.start()
        threads = [
            threading.Thread(
                target=lambda: [decode_compressed_image(_cut(), "jpeg") for _ in range(30)]
            )
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        end = time.monotonic() + 60
        while len(written) <= 5 and time.monotonic() < end:
            time.sleep(0.01)
        stop.set()
        other.join()
    assert sorted(capfd.readouterr().err.splitlines()) == sorted(w.strip() for w in written)
    assert len(written) > 5


def test_a_process_without_stderr_and_a_forked_one() -> None:
    script = (
        "import os, re, sys\n"
        "from perception.files.stderr import native_lines, native_lines_caught\n"
        "def lines():\n"
        "    with native_lines(re.compile('a')) as found:\n"
        "        os.write(2, b'abc\\nxyz\\n')\n"
        "    return found\n"
        "with native_lines_caught():\n"
        "    assert lines() == ['abc']\n"
        "    child = os.fork()\n"
        "    assert lines() == ['abc']\n"
        "    if not child: os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    os.close(2)\n"
        "    with native_lines(re.compile('a')) as found: pass\n"
        "    assert found == []\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr.split() == ["xyz"] * 3


def test_errors_in_the_body_leave_stderr_as_it_was(capfd: Captured) -> None:
    pattern = re.compile("a")
    with pytest.raises(ValueError), native_lines_caught(), native_lines(pattern):
        os.write(2, b"abc\nxyz\n")
        raise ValueError
    os.write(2, b"after\n")
    assert capfd.readouterr().err.split() == ["xyz", "after"]
