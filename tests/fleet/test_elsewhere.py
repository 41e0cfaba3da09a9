"""Recordings and results in an S3 store (a real one of moto's, over HTTP): in, out, and when it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_kit import rows_in

pytest.importorskip("s3fs", reason="needs s3fs: pip install 'anysense[fleet]'")
pytest.importorskip("moto.server", reason="needs moto: pip install 'moto[s3]' flask flask-cors")

import boto3
import fsspec
import s3fs
import yaml

from perception.errors import ConfigError, DataError
from perception.fleet import places
from perception.fleet.places import Place, UnwritableError

Run = Callable[..., dict[str, Any]]
_SECRETS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests"}


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options for the store, with a bucket `fleet` in it."""
    for name, value in _SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    region = {"region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=server, **region).create_bucket(Bucket="fleet")
    return {"s3": {"endpoint_url": server, "client_kwargs": region}}


def test_recordings_and_results_there_are_as_here(
    batch: Run, fleet: Path, store: dict[str, Any], tmp_path: Path
) -> None:
    Place("s3://fleet/bags", store).put(fleet / "bags")
    Place("s3://fleet/drives", store).put(fleet / "drives")
    assert Place("s3://fleet/bags", store).names() == {"a.mcap", "b.mcap", "c.mcap"}
    keep = {"degraded": True}
    there = ["s3://fleet/bags/c.mcap", "folder:s3://fleet/drives/t*"]
    here = [f"{fleet}/bags/c.mcap", f"folder:{fleet}/drives/t*"]
    remote = batch(recordings=there, out="s3://fleet/out", storage=store, keep=keep)
    local = batch(recordings=here, out="here", keep=keep)
    assert remote["status"] == local["status"] == 0, remote["failed"]
    Place("s3://fleet/out", store).fetch(tmp_path / "there")
    assert rows_in(tmp_path / "there") == rows_in(tmp_path / "here")
    for folder in ("labels", "kept"):
        own = {p.relative_to(tmp_path / "here") for p in (tmp_path / "here" / folder).rglob("*.*")}
        assert own == {
            p.relative_to(tmp_path / "there") for p in (tmp_path / "there" / folder).rglob("*.*")
        }
    again = batch(recordings=there, out="s3://fleet/out", storage=store, keep=keep)
    assert again["skipped"] == remote["chunks"] and again["done"] == 0


def test_a_change_there_is_seen(batch: Run, fleet: Path, store: dict[str, Any]) -> None:
    place = Place("s3://fleet/changing/x.mcap", store)
    place.put(fleet / "bags/c.mcap")
    before = place.identity("content")
    assert before == place.identity("content") and before.startswith("listed:")
    place.put(fleet / "bags/a.mcap")
    assert place.identity("content") != before


def test_a_file_is_not_held_as_a_whole(
    store: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(9 * places.BLOCK))
    monkeypatch.setattr(places, "_MOST_SMALL", places.BLOCK)
    place = Place("s3://fleet/large", store)
    place.put(large)
    sizes = [len(block) for block in place.blocks()]
    assert sum(sizes) == 9 * places.BLOCK and max(sizes) <= places.BLOCK
    with pytest.raises(DataError, match="more than"):
        place.read()
    place.fetch(tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large.read_bytes()


def test_missing_credentials_are_one_line(
    batch: Run, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in _SECRETS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    found = batch(recordings=["s3://fleet/bags/*.mcap"], storage=store)
    assert found["status"] == 2
    (line,) = found["error"].strip().splitlines()
    assert "no credentials were found" in line and "AWS_ACCESS_KEY_ID" in line
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_is_not_there_is_one_line(batch: Run, store: dict[str, Any]) -> None:
    nowhere = {"s3": {**store["s3"], "endpoint_url": "http://127.0.0.1:9"}}
    found = batch(recordings=["s3://fleet/bags/*.mcap"], storage=nowhere)
    assert found["status"] == 2 and len(found["error"].strip().splitlines()) == 1


def test_a_bucket_that_is_not_there_is_one_line(
    batch: Run, fleet: Path, store: dict[str, Any]
) -> None:
    found = batch(recordings=[f"{fleet}/bags/c.mcap"], out="s3://missing/out", storage=store)
    assert found["status"] == 2 and "cannot be written" in found["error"]


def test_a_bucket_that_is_full_stops_the_job_and_what_is_done_stays(
    batch: Run, fleet: Path, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a quota does: after some megabytes every write is refused."""
    given, left = s3fs.S3FileSystem._call_s3, [60]

    async def refusing(self: Any, method: str, *more: Any, **options: Any) -> Any:
        left[0] -= method in ("put_object", "create_multipart_upload")
        if left[0] < 0:
            raise OSError(122, "Disk quota exceeded")
        return await given(self, method, *more, **options)

    fields = {
        "recordings": [f"{fleet}/bags/c.mcap"],
        "chunk_s": 0.8,
        "out": "s3://fleet/full",
        "storage": store,
    }
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refusing)
    found = batch(**fields)
    assert found["status"] == 2
    (line,) = found["error"].strip().splitlines()
    assert "quota exceeded" in line and "are done and stay so; the same command goes on" in line
    monkeypatch.undo()
    for name, value in _SECRETS.items():
        monkeypatch.setenv(name, value)
    done = {n.removesuffix(".json") for n in (Place("s3://fleet/full", store) / "done").names()}
    again = batch(**fields)
    assert again["status"] == 0 and again["skipped"] == len(done) > 0
    Place("s3://fleet/full", store).fetch(tmp_path / "full")
    batch(**{**fields, "out": "whole"})
    assert rows_in(tmp_path / "full") == rows_in(tmp_path / "whole")


def test_a_full_disk_here_is_one_line(
    batch: Run, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Path("/dev/full")
    if not small.exists():
        pytest.skip("there is no device that is always full")
    batch(recordings=[f"{fleet}/bags/c.mcap"])
    shutil.rmtree(tmp_path / "out/done")
    (tmp_path / "out/done").symlink_to(small)
    found = batch(recordings=[f"{fleet}/bags/c.mcap"])
    assert found["status"] == 2 and len(found["error"].strip().splitlines()) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield place
    finally:
        # Detached: a thread that was stopped may take a moment longer to let go of its file.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_disk_that_fills_up_stops_the_job_and_what_is_done_stays(
    batch: Run, fleet: Path, small_disk: Path, tmp_path: Path
) -> None:
    recordings = [f"{fleet}/bags/*.mcap"]
    found = batch(recordings=recordings, out=str(small_disk))
    assert found["status"] == 2
    (line,) = found["error"].strip().splitlines()
    assert "No space left on device" in line and "the same command goes on" in line
    done = {p.stem for p in (small_disk / "done").iterdir() if not p.name.startswith(".")}
    assert done and not list(small_disk.rglob("*.part"))
    shutil.copytree(small_disk, tmp_path / "moved")  # to a larger one
    again = batch(recordings=recordings, out="moved")
    assert again["status"] == 0 and again["skipped"] == len(done)
    batch(recordings=recordings, out="whole")
    assert rows_in(tmp_path / "moved") == rows_in(tmp_path / "whole")


def test_no_room_for_scratch_or_copies_is_said_of_the_recording(
    batch: Run, fleet: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").put(f"{fleet}/bags/c.mcap", "memory://full/c.mcap")
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    found = batch(recordings=["memory://full/*.mcap"])
    assert found["status"] == 3 and "copies on this machine may have" in found["failed"]["c"]
    (small_disk / "filled").write_bytes(bytes(290_000))
    found = batch(recordings=[f"{fleet}/bags/c.mcap"], out="scratch")
    assert found["status"] in (2, 3), found
    lines = [*found.get("failed", {}).values(), *found["error"].strip().splitlines()]
    assert any("No space left" in line for line in lines), lines
    assert all("internal error" not in line for line in lines), lines


def test_a_file_that_may_not_grow_is_one_line(bundle: Path, fleet: Path, tmp_path: Path) -> None:
    """As under `ulimit -f`: EFBIG, in a process of its own as the limit cannot be raised again."""
    job = {"schema": 1, "bundle": str(bundle), "out": "out", "chunk_s": 60, "files": False}
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump({**job, "recordings": [f"{fleet}/bags/a.mcap"]})
    )
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        "from perception.cli.main import main; sys.exit(main(['batch', 'job.yaml']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(
        [sys.executable, "-B", "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2, found
    (line,) = (line for line in found.stderr.splitlines() if "anysense: error" in line)
    assert "File too large" in line and "0 of 1 chunks are done and stay so" in line
    assert "Traceback" not in found.stderr and not list(tmp_path.rglob("*.part"))


def test_places_here_and_there_have_one_interface(store: dict[str, Any], tmp_path: Path) -> None:
    for place in (Place(str(tmp_path / "p")), Place("s3://fleet/p", store)):
        assert not place.exists() and place.names() == set()
        (place / "a/b.json").write(json.dumps({"x": 1}).encode())
        (place / "a/c.json").write(b"{}")
        assert json.loads((place / "a/b.json").read()) == {"x": 1}
        assert (place / "a").names() == {"b.json", "c.json"}
        assert list(place.files()) == ["a/b.json", "a/c.json"]
        assert [p.name for p in (place / "a/*.json").glob()] == ["b.json", "c.json"]
        (place / "a").remove()
        assert not (place / "a/b.json").exists()
        (place / "nothing").remove()
        with pytest.raises(DataError, match="cannot be read"):
            (place / "nothing").read()
    with pytest.raises(UnwritableError):
        (Place("/proc/x") / "y").write(b"")
    with pytest.raises(ConfigError, match="cannot be reached"):
        _ = Place("s4://x").system
