"""Recordings brought into another format: bags as folders, and folders as bags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.bags.files import messages_of, write_bag
from perception.data.registry import open_recording
from perception.fleet.job import Job
from perception.fleet.plan import Source
from perception.fleet.rows import Row
from perception.importers.bag import bag
from perception.importers.recording import recording
from perception.importers.taking import Wishes, take_over

ENCODED = "recordings"


def transcode(job: Job, source: Source, here: Path, folder: Path) -> list[Row]:
    """Write a recording into `recordings/NAME` of a folder.

    Raises:
        AnySenseError: it cannot be read, or cannot be had in that format.
    """
    target = folder / ENCODED / source.name
    if job.encode == "mcap":
        opened = open_recording(source.kind, here)
        target.parent.mkdir(parents=True)
        write_bag(target, messages_of(opened))
        return [{"recording": source.name, "frames": len(opened)}]
    topics: dict[str, Any] = dict(job.topics)
    found = bag(here, **topics) if source.is_bag else recording(here, source.kind)
    report = take_over(found, target, Wishes(name=source.name))
    return [{"recording": source.name, "frames": report.frames}]
