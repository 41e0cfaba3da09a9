"""Fleets for the tests: short recordings of two sensors, bags of them, a small bundle, and jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'anysense[fleet]'")
pytest.importorskip("fsspec", reason="needs fsspec: pip install 'anysense[fleet]'")
pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

import yaml
from fleet_kit import BOXES, CLASSES, write_fleet_bag, write_recording
from small_bundles import SmallBundles

from perception.cli.main import main


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of color and depth with the classes of the recordings."""

    def edit(content: dict[str, Any]) -> None:
        for task, classes in (("segmentation", CLASSES), ("detection", BOXES)):
            for entry, own in zip(content["classes"][task], classes, strict=True):
                entry["name"] = own.name

    small = SmallBundles(tmp_path_factory.mktemp("bundle"))
    return small(("rgb", "depth"), 3, 2, edit=edit)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bags in `bags`, one of them with a sensor that dies, and two recordings in `drives`."""
    root = tmp_path_factory.mktemp("fleet")
    write_fleet_bag(root, "a", 60, 1)
    write_fleet_bag(root, "b", 50, 2, range(12, 41))
    write_fleet_bag(root, "c", 25, 3)
    write_recording(root / "drives" / "one", 30, 4)
    write_recording(root / "drives" / "two", 20, 5, range(8, 14))
    return root


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def batch(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `anysense batch` on a job of these fields; gives its JSON, its status and what it said."""

    def run(*options: str, signed: Path | None = None, **fields: Any) -> dict[str, Any]:
        path = tmp_path / "job.yaml"
        encoding = fields.get("task") == "encode"
        content = {"schema": 1, "out": "out", "chunk_s": 1.5} | fields
        content |= {} if encoding else {"bundle": str(signed or bundle)}
        path.write_text(yaml.safe_dump(content))
        capsys.readouterr()
        status = main(["batch", str(path), *options, "--json", str(tmp_path / "report.json")])
        said = capsys.readouterr()
        report = tmp_path / "report.json"
        found = json.loads(report.read_text()) if report.exists() else {}
        report.unlink(missing_ok=True)
        return {**found, "status": status, "said": said.out, "error": said.err}

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 store, a real one of moto's over HTTP; who asks for it skips without moto."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    running.stop()
