"""Time stamps as KITTI writes them: a date and a time of day in each line of a text."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from perception.errors import DataError
from perception.files.text import read_text


def read_stamps(path: Path) -> list[int | None]:
    """Nanosecond stamps of a KITTI `timestamps` file: one UTC date and time per line, the frame's number.

    An empty line stands for a frame that the sensor lacks.

    Raises:
        DataError: the file is missing or has another form.
    """
    stamps: list[int | None] = []
    for number, line in enumerate(read_text(path).rstrip().split("\n"), 1):
        if not line.strip():
            stamps.append(None)
            continue
        whole, _, fraction = line.strip().partition(".")
        try:
            moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
            stamps.append(int(moment.timestamp()) * 10**9 + int(fraction[:9].ljust(9, "0")))
        except (ValueError, OverflowError) as error:
            raise DataError("not a time stamp", where=f"{path}:{number}") from error
    return stamps
