"""`anysense view` with the real SDKs: a client of the live stream, and files read back."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.cli.main import main
from perception.data.folder import FolderWriter, folder_info

FRAMES = 5


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A short recording of color and depth."""
    folder = tmp_path_factory.mktemp("view") / "drive"
    info = folder_info(
        size=(48, 64),
        seg_classes=(),
        det_classes=(),
        name="drive",
        modalities=("rgb", "depth"),
        rate_hz=10.0,
    )
    random = np.random.default_rng(1)
    with FolderWriter(folder, info) as writer:
        for index in range(FRAMES):
            writer.add(
                f"{index:04d}",
                stamp_ns=(index + 1) * 100_000_000,
                rgb=random.integers(20, 220, (48, 64, 3), np.uint8),
                depth=random.uniform(1, 9, (48, 64)).astype(np.float32),
            )
    return f"folder:{folder}"


def _arguments(recording: str, bundle: Path, *more: str) -> list[str]:
    return ["view", "--data", recording, "--bundle", str(bundle), "--device", "cpu", *more]


def test_an_unknown_kind_of_file(recording: str, tiny_bundle: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "view.avi")
    assert main(_arguments(recording, tiny_bundle, "--out", out)) == 2


def test_a_file_for_foxglove(recording: str, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("foxglove")
    reader = pytest.importorskip("mcap.reader")
    out = tmp_path / "view.mcap"
    assert main(_arguments(recording, tiny_bundle, "--out", str(out))) == 0
    counts: dict[str, int] = {}
    with out.open("rb") as file:
        for schema, channel, message in reader.make_reader(file).iter_messages():
            counts[channel.topic] = counts.get(channel.topic, 0) + 1
            if channel.topic == "/status":
                assert json.loads(message.data)["state"] == "degraded"
            else:
                assert schema.name == "foxglove.RawImage"
    topics = ("/sensors/rgb", "/sensors/depth", "/overlay", "/status")
    assert counts == dict.fromkeys(topics, FRAMES)


def test_a_file_for_rerun(recording: str, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    out = tmp_path / "view.rrd"
    assert main(_arguments(recording, tiny_bundle, "--out", str(out))) == 0
    command = [sys.executable, "-m", "rerun_cli", "rrd", "print", "-v", str(out)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    for entity in ("/sensors/rgb", "/sensors/depth", "/overlay", "/status/total_ms"):
        assert entity in told
    assert "Image:buffer" in told


SHORT_DISK = (
    "import resource, sys; from perception.cli.main import main\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    "sys.exit(main(sys.argv[1:]))\n"
)


@pytest.mark.parametrize("name", ["view.mcap", "view.rrd"])
def test_a_full_disk_leaves_no_file(
    recording: str, tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("rerun" if name.endswith("rrd") else "foxglove")
    arguments = _arguments(recording, tiny_bundle, "--out", str(tmp_path / name))
    done = subprocess.run(
        [sys.executable, "-c", SHORT_DISK, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert f"{name}: cannot be written: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["view.mcap", "view.rrd"])
def test_what_goes_wrong_in_the_middle_leaves_no_file(
    recording: str, tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    pytest.importorskip("rerun" if name.endswith("rrd") else "foxglove")
    broken = tmp_path / "drive"
    shutil.copytree(recording.removeprefix("folder:"), broken)
    (picture,) = broken.glob("rgb/0003.*")
    picture.write_bytes(b"nothing")
    out = tmp_path / "made" / name
    arguments = _arguments(f"folder:{broken}", tiny_bundle, "--out", str(out))
    assert main(arguments) == 2
    assert list(tmp_path.iterdir()) == [broken]  # nor the folder that was made for it


@pytest.mark.slow
def test_the_live_stream(recording: str, tiny_bundle: Path) -> None:
    pytest.importorskip("foxglove")
    websockets = pytest.importorskip("websockets")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = _arguments(recording, tiny_bundle, "--port", str(port), "--loops", "0")
    process = subprocess.Popen([sys.executable, "-m", "perception.cli.main", *arguments])
    try:
        channels, counts = asyncio.run(_listen(websockets, port))
    finally:
        process.terminate()  # an interrupt is ignored where tests run in the background
        process.wait(60)
    schemas = {c["topic"]: c["schemaName"] for c in channels.values()}
    assert schemas["/overlay"] == schemas["/sensors/rgb"] == "foxglove.RawImage"
    assert {"/sensors/depth", "/status"} <= set(schemas)
    assert all(counts.get(number, 0) >= 2 for number in channels)


async def _listen(websockets: Any, port: int) -> tuple[dict[int, Any], dict[int, int]]:
    """Subscribe to every channel until two messages of each have come."""
    end = time.monotonic() + 180  # shared test machines are slow to start a process
    while True:
        try:
            link = await websockets.connect(
                f"ws://127.0.0.1:{port}", subprotocols=["foxglove.sdk.v1"], max_size=None
            )
            break
        except OSError:
            assert time.monotonic() < end, "nothing serves"
            await asyncio.sleep(0.1)
    channels: dict[int, Any] = {}
    counts: dict[int, int] = {}
    async with link:
        while len(channels) < 4 or any(counts.get(n, 0) < 2 for n in channels):
            message = await asyncio.wait_for(link.recv(), max(0.1, end - time.monotonic()))
            if isinstance(message, bytes):  # 1, the subscription, the time, the payload
                number = int.from_bytes(message[1:5], "little")
                counts[number] = counts.get(number, 0) + (message[0] == 1)
                continue
            told = json.loads(message)
            for channel in told.get("channels", []):
                channels[channel["id"]] = channel
                wanted = [{"id": channel["id"], "channelId": channel["id"]}]
                await link.send(json.dumps({"op": "subscribe", "subscriptions": wanted}))
    return channels, counts


def test_sensors_that_fail_on_request(recording: str, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("foxglove")
    reader = pytest.importorskip("mcap.reader")
    out = tmp_path / "view.mcap"
    faults = ("--fault", "depth:lost", "--fault", "rgb:noise:1")
    assert main(_arguments(recording, tiny_bundle, "--out", str(out), *faults)) == 0
    with out.open("rb") as file:
        messages = [(c.topic, m.data) for _, c, m in reader.make_reader(file).iter_messages()]
    statuses = [json.loads(data) for topic, data in messages if topic == "/status"]
    assert [status["used"] for status in statuses] == [["rgb"]] * FRAMES
    assert "/sensors/depth" not in {topic for topic, _ in messages}


@pytest.mark.parametrize("fault", ["depth", "depth:melt", "sonar:lost", "rgb:noise:9"])
def test_faults_that_make_no_sense(
    recording: str, tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("foxglove")
    out = str(tmp_path / "view.mcap")
    assert main(_arguments(recording, tmp_path, "--out", out, "--fault", fault)) == 2
    assert "Traceback" not in capsys.readouterr().err
