"""What changes between two looks at it: recordings, rigs, choices; and names that are not as one thinks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from fleet_kit import rows_in

from perception.data.folder import FolderRecording
from perception.fleet.job import read_job
from perception.fleet.run import Here, run_job
from perception.fleet.work import Look, Outcome, Task

Run = Callable[..., dict[str, Any]]


class _Meddled(Here):
    """Replaces a recording once all have been looked at."""

    def __init__(self, job: object, path: Path, other: Path) -> None:
        super().__init__(job)  # type: ignore[arg-type]
        self.path, self.other = path, other

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        given = list(tasks)
        if given and not isinstance(given[0], Look):
            if self.path.is_dir():
                shutil.rmtree(self.path)
                shutil.copytree(self.other, self.path)
            else:
                shutil.copy(self.other, self.path)
        yield from super().run(given)


def test_a_bag_that_changes_after_it_was_looked_at_is_not_done(
    bundle: Path, fleet: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copy(fleet / "bags/a.mcap", tmp_path / "x.mcap"))
    _changes(str(own), own, fleet / "bags/c.mcap", bundle, tmp_path)


def test_a_folder_that_changes_after_it_was_looked_at_is_not_done(
    bundle: Path, fleet: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(fleet / "drives/one", tmp_path / "x"))
    _changes(f"folder:{own}", own, fleet / "drives/two", bundle, tmp_path)


def _changes(recording: str, own: Path, other: Path, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    content = {"schema": 1, "bundle": str(bundle), "out": "out", "chunk_s": 1.5}
    path.write_text(yaml.safe_dump({**content, "recordings": [recording]}))
    job = read_job(path)
    executor = _Meddled(job, own, other)
    report = run_job(job, executor)
    executor.close()
    assert report.done == 0 and len(report.failed) == report.chunks > 0
    assert all("has changed since it was looked at" in why for why in report.failed.values())
    assert not (tmp_path / "out/rows").exists()
    here = Here(job)
    again = run_job(job, here)  # the same command does it anew
    here.close()
    assert not again.failed and again.done == again.chunks


def _rig(center: float) -> str:
    camera = {"width": 64, "height": 48, "intrinsics": [50.0, 50.0, center, 24.0]}
    return yaml.safe_dump({"sensors": {name: {"camera": camera} for name in ("rgb", "depth")}})


def test_another_rig_is_another_job_wherever_its_file_lies(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    bag = [f"{fleet}/bags/c.mcap"]
    (tmp_path / "rig.yaml").write_text(_rig(32.0))
    shutil.copy(tmp_path / "rig.yaml", tmp_path / "same.yaml")
    assert batch(recordings=bag, rig="rig.yaml")["done"] == 2
    assert batch(recordings=bag, rig="same.yaml")["skipped"] == 2
    (tmp_path / "rig.yaml").write_text(_rig(20.0))
    found = batch(recordings=bag, rig="rig.yaml")
    assert found["status"] == 2 and "rig differs" in found["error"]


@pytest.mark.parametrize(("content", "line"), [(None, "no such file"), ("sensors: 5", "sensors")])
def test_a_rig_that_cannot_be_read_is_one_line_before_any_work(
    content: str | None, line: str, batch: Run, fleet: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "rig.yaml").write_text(content)
    found = batch(recordings=[f"{fleet}/bags/*.mcap"], rig="rig.yaml")
    (only,) = found["error"].strip().splitlines()
    assert found["status"] == 2 and "rig.yaml" in only and line in only


def test_nothing_of_a_recording_that_changed_is_left(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    bag = shutil.copy(fleet / "bags/a.mcap", tmp_path / "x.mcap")
    for task in ("label", "encode"):
        shutil.copy(fleet / "bags/a.mcap", bag)
        batch(task=task, recordings=["x.mcap"], out=task)
        shutil.copy(fleet / "bags/c.mcap", bag)
        assert batch(task=task, recordings=["x.mcap"], out=task)["replaced"]
    frames = {row["frame"] for row in rows_in(tmp_path / "label")}
    labels = tmp_path / "label/labels/x"
    assert {p.stem for p in (labels / "labels").iterdir()} == frames
    assert {p.stem for p in (labels / "boxes").iterdir()} <= frames
    made = tmp_path / "encode/recordings/x"
    assert {p.stem for p in (made / "rgb").iterdir()} == set(FolderRecording(made).ids)


def test_recordings_that_another_choice_had_kept_go(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    bags = [f"{fleet}/bags/[ab].mcap"]
    batch(recordings=bags, keep={"low_confidence": 1.0})
    assert {p.name for p in (tmp_path / "out/kept").iterdir()} == {"a", "b"}
    batch(recordings=bags, keep={"degraded": True})
    assert {p.name for p in (tmp_path / "out/kept").iterdir()} == {"b"}


def test_an_empty_note_of_a_job_is_none(batch: Run, fleet: Path, tmp_path: Path) -> None:
    batch(recordings=[f"{fleet}/bags/c.mcap"])
    (tmp_path / "out/job.json").write_bytes(b"")  # as a loss of power leaves it
    assert batch(recordings=[f"{fleet}/bags/c.mcap"])["skipped"] == 2
    assert (tmp_path / "out/job.json").stat().st_size


def test_a_name_that_is_no_text_costs_nobody_anything(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    try:
        shutil.copy(fleet / "bags/c.mcap", tmp_path / "r" / os.fsdecode(b"caf\xe9.mcap"))
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    shutil.copy(fleet / "bags/c.mcap", tmp_path / "r/ok.mcap")
    found = batch(recordings=["r/*.mcap"])
    assert found["status"] == 0 and found["frames"] == 50
    rows = pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()
    assert {row["outcome"] for row in rows} == {"done"}


def test_names_are_no_longer_than_file_systems_take(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    for folder in ("測" * 70, "x"):
        (tmp_path / "r" / folder).mkdir(parents=True)
        shutil.copy(fleet / "bags/c.mcap", tmp_path / "r" / folder / f"{'試' * 60}.mcap")
    found = batch(recordings=["r/*/*.mcap"])
    assert found["status"] == 0 and found["frames"] == 50, found["failed"]


@pytest.mark.parametrize("name", ["run[1].mcap", "2026-01-02T10:11:12.mcap", "d:1/x.mcap"])
def test_bags_are_called_as_they_like(name: str, batch: Run, fleet: Path, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(fleet / "bags/c.mcap", tmp_path / name)
    found = batch(recordings=[name])
    assert found["status"] == 0 and found["frames"] == 25, found["error"]


def test_what_came_out_is_no_recording(batch: Run, fleet: Path, tmp_path: Path) -> None:
    shutil.copytree(fleet / "drives", tmp_path / "drives")
    for _ in range(2):
        found = batch(recordings=["folder:drives/*"], out="drives/labelled")
        assert found["status"] == 0 and found["recordings"] == 2


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"recordings": ["BAGS/*.mcap"], "keep": {"disagreement": {"between": ["rgb", "dept"]}}},
            "keep.disagreement: there is no 'dept' (did you mean 'depth'",
        ),
        (
            {"task": "robustness", "robustness": {"methods": ["leave"]}},
            "robustness.methods: 'leave' is no method",
        ),
        (
            {"task": "robustness", "robustness": {"severities": [3, 9]}},
            "robustness.severities: 9 is none of 1 to 5",
        ),
    ],
)
def test_what_no_recording_could_be_asked_for_is_one_line_before_any_work(
    fields: dict[str, Any], line: str, batch: Run, fleet: Path, tmp_path: Path
) -> None:
    given = {"recordings": [f"folder:{fleet}/drives/*"]} | fields
    given["recordings"] = [r.replace("BAGS", f"{fleet}/bags") for r in given["recordings"]]
    found = batch(**given)
    (only,) = found["error"].strip().splitlines()
    assert found["status"] == 2 and line in only
    assert not (tmp_path / "out").exists()
