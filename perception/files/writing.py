"""Writing artefacts whole or not at all: beside the target, synced, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from perception.errors import AnySenseError, DataError
from perception.files.stopping import unstopped


@contextlib.contextmanager
def writing(
    path: str | Path, *, error: type[AnySenseError] = DataError, sync: bool = True
) -> Iterator[Path]:
    """A path beside `path` to write to; afterwards synced and renamed over it.

    The suffix is kept, since encoders choose by it.  An existing file's permissions stay, a new one
    gets those of the umask.  When the body raises, `path` is as it was and nothing is left beside it.
    A link is followed; a device or pipe (`/dev/stdout`) is written to as it is.

    Args:
        path: the file.
        error: the class of what is raised.
        sync: wait until the disk has it.  Without, a kill still leaves all or nothing, but a loss of power
            may leave an empty file: for the many small files of a recording.

    Raises:
        AnySenseError: of the class `error`: the disk is full, or the place cannot be written.
    """
    if _is_device(path):
        with _naming(path, error):
            yield Path(path)
        return
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem[:80]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        with _naming(path, error):
            yield partial
            if sync:
                _sync(partial)
            if target.exists():
                os.chmod(partial, stat.S_IMODE(target.stat().st_mode))
            os.replace(partial, target)
            if sync:
                _sync(target.parent)
    finally:
        with unstopped(), contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_folder(path: str | Path, *, error: type[AnySenseError] = DataError) -> Iterator[Path]:
    """A path of the same name, in a folder beside `path`, at which to make a folder.

    Afterwards its files are synced and it is renamed to `path`, which must not exist.  When the body
    raises, nothing is left.

    Raises:
        AnySenseError: of the class `error`: the disk is full, or the place cannot be written.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.part")
    try:
        with _naming(path, error):
            beside.mkdir(parents=True)
            yield beside / target.name
            for inner in sorted((beside / target.name).rglob("*")):
                _sync(inner)
            if target.exists():
                raise error("exists already", where=str(target))
            os.rename(beside / target.name, target)
            _sync(target.parent)
    finally:
        with unstopped():
            shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _naming(path: str | Path, error: type[AnySenseError]) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or problem
        raise error(f"cannot be written: {reason}", where=str(path)) from problem


def _is_device(path: str | Path) -> bool:
    """Whether something is there that is neither a file nor a folder, and must not be replaced by one."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(
    path: str | Path,
    content: bytes,
    *,
    error: type[AnySenseError] = DataError,
    sync: bool = True,
) -> None:
    """Write a file whole or not at all."""
    with writing(path, error=error, sync=sync) as partial:
        partial.write_bytes(content)


def write_unseen(
    path: str | Path, content: bytes, *, error: type[AnySenseError] = DataError
) -> None:
    """Write a file of a folder that nobody looks into before it is complete: a kill may leave a part of it.

    It takes a third of the calls of `write_bytes`.

    Raises:
        AnySenseError: of the class `error`: the disk is full, for example.
    """
    with _naming(path, error), open(path, "wb", buffering=0) as file:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def write_text(
    path: str | Path, text: str, *, error: type[AnySenseError] = DataError, sync: bool = True
) -> None:
    """Write UTF-8 text, whatever the locale, whole or not at all."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), error=error, sync=sync)


def write_yaml(
    path: str | Path,
    content: Any,
    *,
    error: type[AnySenseError] = DataError,
    sync: bool = True,
    **style: Any,
) -> None:
    """Write plain values as YAML, in the order given; `style` goes to `yaml.safe_dump`."""
    text: Any = yaml.safe_dump(content, **{"sort_keys": False, "allow_unicode": True} | style)
    write_text(path, text, error=error, sync=sync)


def write_json(path: str | Path, content: Any, *, error: type[AnySenseError] = DataError) -> None:
    """Write JSON, see `json_text`."""
    write_text(path, json_text(content) + "\n", error=error)


def json_text(content: Any) -> str:
    """JSON in ASCII; a number that JSON does not have (NaN) is an error, what it does not know a string."""
    return json.dumps(content, indent=2, allow_nan=False, default=str)


def without_nan(value: Any) -> Any:
    """The same with null for numbers that JSON does not have; keys and NumPy's numbers as JSON has them."""
    if isinstance(value, Mapping):
        return {str(k): without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [without_nan(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_image(
    path: str | Path,
    image: NDArray[Any],
    parameters: list[int] | None = None,
    *,
    error: type[AnySenseError] = DataError,
    sync: bool = True,
) -> None:
    """Encode a picture by the suffix of `path` and write it whole or not at all.

    Args:
        path: the file.
        image: (H, W), or (H, W, 1, 3 or 4) in R, G, B(, A) order, of a dtype that the format holds.
        parameters: OpenCV's, such as `[cv2.IMWRITE_PNG_COMPRESSION, 3]`.
        error: the class of what is raised.
        sync: see `writing`.

    Raises:
        AnySenseError: of the class `error`: it cannot be encoded or written.
    """
    content = image_bytes(image, Path(path).suffix, parameters, error=error, where=str(path))
    write_bytes(path, content, error=error, sync=sync)


def image_bytes(
    image: NDArray[Any],
    suffix: str,
    parameters: list[int] | None = None,
    *,
    error: type[AnySenseError] = DataError,
    where: str = "",
) -> bytes:
    """A picture encoded by the suffix of its file; see `write_image`.

    Raises:
        AnySenseError: of the class `error`: it cannot be encoded.
    """
    try:
        if image.ndim == 3 and image.shape[2] == 1:
            image = image[..., 0]
        if image.ndim == 3:
            image = cv2.cvtColor(
                image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
            )
        done, content = cv2.imencode(suffix, image, parameters or [])
    except cv2.error as problem:
        raise error(
            f"a {image.dtype} image of shape {image.shape} cannot be written as {suffix}",
            where=where,
        ) from problem
    if not done:
        raise error("cannot be encoded", where=where)
    return content.tobytes()


def tiff_bytes(image: NDArray[Any]) -> bytes:
    """A picture (H, W) or (H, W, 3) as TIFF with Deflate: smaller than PNG where there are few values."""
    import tifffile

    content = io.BytesIO()
    tifffile.imwrite(
        content, image, compression="zlib", compressionargs={"level": 9}, metadata=None
    )
    return content.getvalue()


class AppendedFile:
    """A new file that grows by whole records: what was appended is there whenever the writer is killed.

    Args:
        path: the file; an existing one is replaced.
        error: the class of what is raised.

    Raises:
        AnySenseError: of the class `error`: the place cannot be written.
    """

    def __init__(self, path: str | Path, *, error: type[AnySenseError] = DataError) -> None:
        self.path, self.error = Path(path), error
        with _naming(path, error):
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115

    def append(self, record: bytes) -> None:
        """Add a record, whole or not at all.

        Raises:
            AnySenseError: of the class `error`: the disk is full, for example.
        """
        start = self._file.tell()
        with _naming(self.path, self.error):
            try:
                if self._file.write(record) != len(record):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(start)
                    self._file.seek(start)
                raise

    def close(self) -> None:
        """Wait until the disk has it, and close it.

        Raises:
            AnySenseError: of the class `error`: the disk failed.
        """
        with _naming(self.path, self.error), self._file:
            os.fsync(self._file.fileno())
