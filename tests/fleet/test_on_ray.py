"""`anysense batch` on a Ray cluster of this machine: two workers give what one gives, whoever dies."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleet_kit import files_in, rows_in

# A token of another cluster's would be asked for otherwise; Ray looks once, when it is imported.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
pytest.importorskip("ray", reason="needs ray: pip install 'anysense[fleet]'")

from perception.cli.main import main
from perception.errors import ConfigError
from perception.fleet import ray_workers
from perception.fleet.job import Job, read_job
from perception.fleet.ray_workers import RayWorkers
from perception.fleet.run import run_job
from perception.fleet.work import Worker
from perception.runtime.trust import demanded

ROOT = Path(__file__).parents[2]
STORE = 80 * 10**6
"""Bytes of the cluster's object store: about the least that Ray takes."""

Run = Callable[..., dict[str, Any]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster with two CPUs, for clients."""
    port = free_port()
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--port", str(free_port()), "--ray-client-server-port", str(port), "--num-cpus=2"]
    command += ["--object-store-memory", str(STORE), "--include-dashboard=false"]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        head = subprocess.Popen(
            [*command, "--temp-dir", folder],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not _answers(f"ray://127.0.0.1:{port}", head):
                pytest.skip("no Ray cluster can be started here in two minutes")
            yield f"ray://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):  # it may have given up by itself
                os.killpg(head.pid, signal.SIGKILL)  # asked to end, it takes its time
            head.wait(20)


def _answers(address: str, head: subprocess.Popen[bytes]) -> bool:
    end = time.monotonic() + 120
    while time.monotonic() < end and head.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 1).close()
            return True
        except OSError:  # on a busy machine a node takes a while
            time.sleep(0.5)
    return False


@pytest.fixture
def job(bundle: Path, fleet: Path, tmp_path: Path) -> Callable[..., Job]:
    """Reads a job of all recordings for two workers."""

    def read(**fields: Any) -> Job:
        content = {
            "schema": 1,
            "bundle": str(bundle),
            "recordings": [f"{fleet}/bags/*.mcap", f"folder:{fleet}/drives/*"],
            "out": "out",
            "chunk_s": 1.5,
            "workers": {"count": 2},
        } | fields
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(content))
        return read_job(path)

    return read


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers are waited for: on a busy machine one takes more than 5 s, and comes later."""
    monkeypatch.setattr(ray_workers, "_HELLO_S", 60.0)


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_two_workers_of_which_both_are_killed_lose_nothing_and_do_nothing_twice(
    job: Callable[..., Job], cluster: str, batch: Run, tmp_path: Path
) -> None:
    wanted = job()
    workers = RayWorkers(wanted, cluster)
    pids = {int(w["pid"]) for w in workers.workers}
    assert len(pids) == 2
    killed: list[int] = []

    def step(what: str, done: int, total: int) -> None:
        if what == "working" and done == total // 3 and not killed:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    try:
        report = run_job(wanted, workers, step)
    finally:
        workers.close()
    assert len(killed) == 2 and not report.failed and report.borders == []
    batch(recordings=list(wanted.recordings), out="here")
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "here")
    assert files_in(tmp_path / "out/labels") == files_in(tmp_path / "here/labels")
    assert report.rows == len(rows_in(tmp_path / "here"))


@pytest.mark.slow
@pytest.mark.usefixtures("patient")
def test_the_command_goes_on_where_another_stopped(
    cluster: str, batch: Run, fleet: Path, tmp_path: Path
) -> None:
    first = batch(recordings=[f"{fleet}/bags/a.mcap"])
    found = batch("--on", cluster, "--workers", "2", recordings=[f"{fleet}/bags/*.mcap"])
    assert found["status"] == 0, found["error"]
    assert found["skipped"] == first["chunks"] and "2 workers on 1 machines" in found["said"]
    batch(recordings=[f"{fleet}/bags/*.mcap"], out="here")
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "here")


@pytest.mark.slow
def test_a_worker_that_hangs_costs_its_chunk_alone(
    job: Callable[..., Job], cluster: str, fleet: Path
) -> None:
    wanted = job(recordings=[f"{fleet}/bags/c.mcap"], workers={"count": 1, "limit_s": 15})
    workers = RayWorkers(wanted, cluster)
    pid = int(workers.workers[0]["pid"])

    def step(what: str, done: int, total: int) -> None:
        if what == "looking at recordings":
            os.kill(pid, signal.SIGSTOP)

    try:
        report = run_job(wanted, workers, step)
    finally:
        workers.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert report.failed == {"c, part 1 of 2": "took longer than 15 s"} and report.done == 1


@pytest.mark.slow
def test_a_worker_of_another_version_is_one_line(
    job: Callable[..., Job], cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ray_workers.versions()
    monkeypatch.setattr(ray_workers, "versions", lambda: {**own, "code": "of another day"})
    with pytest.raises(ConfigError, match="runs code .*, this is of another day.*install the same"):
        RayWorkers(job(), cluster)


@pytest.mark.slow
def test_a_worker_with_another_bundle_is_one_line(
    job: Callable[..., Job],
    cluster: str,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = shutil.copytree(bundle, tmp_path / "bundle")
    wanted = job(bundle=str(elsewhere))
    own = Worker(wanted)
    known = own.given
    manifest = elsewhere / "bundle.yaml"

    def other() -> str:
        """As if this machine had what now lies there, and the workers' another."""
        manifest.write_text(manifest.read_text().replace("name: small", "name: other"))
        return known

    monkeypatch.setattr(Worker, "given", property(lambda self: other()))
    try:
        with pytest.raises(ConfigError, match="has another bundle or rig .the same for all"):
            RayWorkers(wanted, cluster)
        manifest.unlink()
        monkeypatch.setattr(Worker, "given", "f" * 64)
        with pytest.raises(ConfigError, match="the worker on .* has not what it takes: .*bundle"):
            RayWorkers(wanted, cluster)
    finally:
        own.close()


@pytest.mark.slow
def test_more_than_the_cluster_has_is_one_line(
    job: Callable[..., Job], cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_workers, "_START_S", 6.0)
    with pytest.raises(ConfigError, match="no worker with 64 CPUs and 0 GPUs could be started"):
        RayWorkers(job(workers={"cpus": 64}), cluster)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("ray://127.0.0.1:9", "the head cannot be reached: Connection refused"),
        ("ray://127.0.0.1", "is no address of a cluster"),
        ("127.0.0.1:x", "is no address of a cluster"),
        ("elsewhere", "is no place to work"),
        ("ray://no.such.host.invalid:10001", "the head cannot be reached"),
    ],
)
def test_a_head_that_is_not_there_is_one_line(
    job: Callable[..., Job],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    where: str,
    line: str,
) -> None:
    job()
    assert main(["batch", str(tmp_path / "job.yaml"), "--on", where]) == 2
    (only,) = capsys.readouterr().err.strip().splitlines()
    assert line in only
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_ask_for_signatures_as_who_starts_them(
    job: Callable[..., Job], cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "given", "f" * 64)  # this process does not look
    line = "has not what it takes: .*no-store: there is no such trust store"
    with demanded(True, tmp_path / "no-store"), pytest.raises(ConfigError, match=line):
        RayWorkers(job(), cluster)  # whose processes were started without
