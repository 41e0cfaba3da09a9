"""Harnesses of files that describe: bundles, rigs, configurations, recordings, data sets of others, bags."""

from __future__ import annotations

import hashlib
import math
import zipfile
from pathlib import Path

import numpy as np
import yaml
from fuzz.decoders import sound
from fuzz.packing import unpack

from calibration.formats.base import Options
from calibration.formats.registry import FORMATS, read_calibration, write_calibration
from calibration.values.files import load_correction, read_values
from calibration.values.points import read_points
from perception.adapters.messages import CLOUD, COMPRESSED, IMAGE
from perception.bags.files import messages_in, topics_of
from perception.bags.messages import parse
from perception.bags.storage import open_bag
from perception.corruptions.schedule import FaultSchedule
from perception.data.check import check_folder
from perception.data.folder import FolderRecording
from perception.errors import AnySenseError
from perception.evaluation.box_files import read_kitti, read_nuscenes
from perception.files.listing import is_file
from perception.frame import Sample
from perception.geometry.rig import load_rig, save_rig
from perception.importers.registry import open_source, parse_format
from perception.importers.taking import Wishes, take_over
from perception.metrics.boxes3d import kitti_score, nuscenes_score
from perception.runtime.bundle import Bundle
from perception.sensors.samples import to_sample
from perception.training.config import load_config

_MOST_MESSAGES = 200
_KINDS = {IMAGE: ("rgb", "depth", "thermal"), COMPRESSED: ("rgb", "depth"), CLOUD: ("lidar",)}


def rig(data: bytes, place: Path) -> str:
    """A rig file.  One that was read and is written again says the same."""
    path, again = place / "rig.yaml", place / "again.yaml"
    path.write_bytes(data)
    found = load_rig(path)
    save_rig(found, again)
    assert load_rig(again).to_dict() == found.to_dict()
    return f"{min(len(found.sensors), 4)} sensors"


def values(data: bytes, place: Path) -> str:
    """A file of what values are worth, each sensor's applied to a picture; or a table of reference points."""
    path = place / "values.yaml"
    path.write_bytes(data)
    if b"counts," in data[:200] or b"picture," in data[:200]:
        points = read_points(path)
        assert np.isfinite(points.counts).all() and (points.kelvin > 0).all()
        return f"{min(len(points.counts), 4)} points"
    known = read_values(path)
    for name, own in known.items():
        correction = load_correction(path, name)
        unit = "counts16" if own.kind == "thermal" else ""
        picture = np.linspace(0.5, 9000, 12, dtype=np.float32).reshape(3, 4)
        sample = Sample(own.kind, picture, unit=unit)
        if not correction.polynomial and own.kind != "thermal":
            continue
        done = correction.apply(sample)
        assert done.data.shape == picture.shape and done.data.dtype == np.float32
        assert 0 <= correction.beyond(sample) <= 1
    return f"{min(len(known), 4)} sensors"


def boxes(data: bytes, place: Path) -> str:
    """Boxes and their truth, judged as KITTI does it where they have its fields, else as nuScenes does."""
    path = place / "boxes.json"
    path.write_bytes(data)
    if b'"hwl"' in data:
        objects, found, overlap, frames = read_kitti(path, path)
        said = kitti_score(objects, found, overlap).to_dict()
        numbers = [v for levels in said.values() for own in levels.values() for v in own.values()]
        assert all(n is None or math.isnan(n) or 0 <= n <= 100 + 1e-9 for n in numbers)
        return f"kitti {min(frames, 4)}"
    truth, predictions, samples = read_nuscenes(path, path)
    score = nuscenes_score(truth, predictions)
    assert 0 <= score.nd_score <= 1 + 1e-9 and 0 <= score.mean_ap <= 1 + 1e-9
    return f"nuscenes {min(samples, 4)}"


def calibration(data: bytes, place: Path) -> str:
    """`[NAME]`, then a file or a folder of any format of calibrations; what was read can be written as each.

    A rig that comes back has what was written: the sensors' kinds at the least.
    """
    root = place / "given"
    root.mkdir()
    name = unpack(data, root).strip()
    path = root / name if name and is_file(root / name) else root
    known, found = read_calibration(path, Options((640, 480)))
    assert all("\n" not in line for line in found.remarks)
    save_rig(found.rig, place / "rig.yaml")
    assert load_rig(place / "rig.yaml").to_dict() == found.rig.to_dict()
    for to in FORMATS:
        out = place / f"out_{to}"
        try:
            files, lost = write_calibration(found.rig, out, to)
        except AnySenseError:
            continue
        assert files and all(line and "\n" not in line for line in lost)
        again, back = read_calibration(out)
        most = len(found.rig.sensors) + (to == "kitti")  # whose texts always have a LiDAR
        assert again.name == to and len(back.rig.sensors) <= most
    return f"{known.name} {min(len(found.rig.sensors), 4)}"


def config(data: bytes, place: Path) -> str:
    """A configuration of a training; what it says in full is the same configuration."""
    path = place / "config.yaml"
    path.write_bytes(data)
    found = load_config(path)
    said = found.model_dump(mode="json")
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    assert load_config(path).model_dump(mode="json") == said
    return "config"


def schedule(data: bytes, place: Path) -> str:
    """A schedule of faults: at no time is a fault active twice."""
    path = place / "faults.yaml"
    path.write_bytes(data)
    found = FaultSchedule.read(path)
    for at in (0.0, 1.5, 1e6):
        for sensor in {event.sensor for event in found.events[:20]}:
            faults = [event.fault for event in found.active(sensor, at)]
            assert len(faults) == len(set(faults))
    return "schedule"


def bundle(data: bytes, place: Path) -> str:
    """`folder|zip asis|rehash`, then its files; with `rehash` the manifest gets their checksums.

    No backend is asked: `tests/runtime/fuzz_bundle.py` does that, in a process that may crash.
    """
    folder = place / "bundle"
    folder.mkdir()
    way = unpack(data, folder).split()
    manifest = folder / "bundle.yaml"
    if "rehash" in way and manifest.is_file():
        _rehash(manifest)
    path = folder
    if "zip" in way:
        path = place / "bundle.zip"
        with zipfile.ZipFile(path, "w") as packed:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                packed.write(file, file.relative_to(folder))
    opened = Bundle.open(path)
    for name in opened.manifest.files:
        opened.read(name)
    return "bundle"


def _rehash(manifest: Path) -> None:
    try:
        content = yaml.safe_load(manifest.read_bytes())
        names = [n for n in content["files"] if (manifest.parent / n).is_file()]
        for name in names:
            digest = hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest()
            content["files"][name] = digest
        manifest.write_text(yaml.safe_dump(content, sort_keys=False))
    except Exception:  # what the fuzzer made of it is for the reader to refuse
        return


def folder(data: bytes, place: Path) -> str:
    """A recording in the folder format, with boxes and labels; what `data check` passes can be read."""
    root = place / "recording"
    root.mkdir()
    unpack(data, root)
    errors = [f for f in check_folder(root) if f.severity == "error"]
    try:
        recording = FolderRecording(root)
        for index in range(min(len(recording), 20)):
            for sample in recording.frame(index).values():
                sound(sample, sample.kind)
            recording.truth(index)
    except AnySenseError as error:
        assert errors, f"`data check` finds no fault, and reading does: {error}"
        raise
    return "faults" if errors else "recording"


def importer(data: bytes, place: Path) -> str:
    """`KIND[,OPTIONS] [FILE]`, then a data set; what was taken over can be opened."""
    root = place / "set"
    root.mkdir()
    first = unpack(data, root).split(" ")
    kind, _ = parse_format(f"{first[0]}:{root}")
    inside = [p for p in sorted(root.rglob("*")) if len(first) > 1 and p.name == first[1]]
    report = take_over(
        open_source(kind, inside[0] if inside else root),
        place / "out",
        Wishes(limit=20),
        lambda items, _: items,
    )
    for name in report.recordings:
        FolderRecording(place / "out" / name)
    return kind.partition(",")[0]


def _read_bag(path: Path) -> str:
    topics = topics_of(path)
    count = 0
    with open_bag(path) as opened:
        for message in messages_in(opened):
            assert message.topic in topics
            count += 1
            if count > _MOST_MESSAGES:
                break
            for kind in _KINDS.get(message.type, ()):
                try:
                    sound(to_sample(kind, parse(message)), kind)
                except AnySenseError:  # one message, which does not end a bag
                    continue
    return "messages" if count else "empty"


def mcap(data: bytes, place: Path) -> str:
    """An MCAP file."""
    path = place / "bag.mcap"
    path.write_bytes(data)
    return _read_bag(path)


def sqlite(data: bytes, place: Path) -> str:
    """A rosbag2 file with sqlite3 storage."""
    path = place / "bag.db3"
    path.write_bytes(data)
    return _read_bag(path)


def bag(data: bytes, place: Path) -> str:
    """A folder of rosbag2, or with the first line `file` the first of its files: any storage, ROS 1, too."""
    root = place / "bag"
    root.mkdir()
    first = unpack(data, root)
    files = sorted(p for p in root.iterdir() if p.is_file())
    return _read_bag(files[0] if first == "file" and files else root)
