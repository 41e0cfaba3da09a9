"""Commands that are told to stop in the midst of their work leave what was there, and nothing half made.

No test rests on time: a process says that it has come to a certain file and waits there, or has written
what a test waits for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from perception.cli.main import main
from perception.runtime.bundle import Bundle

ROOT = Path(__file__).parents[2]
STATUS = {signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGINT: 130}
LINE = {
    signal.SIGTERM: "anysense: stopped: Terminated",
    signal.SIGHUP: "anysense: stopped: Hangup",
    signal.SIGINT: "anysense: interrupted",
}
PATIENCE_S = 240.0

HALTING = """
import os, re, signal, sys
told, wanted, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]

def halt(event, arguments):
    if event == wanted and not halted and re.search(path, str(arguments[0])):
        halted.append(True)
        os.write(told, b"x")
        os.read(waiting, 1)

halted = []
waiting, woken = os.pipe()
os.set_blocking(woken, False)
signal.set_wakeup_fd(woken)
sys.addaudithook(halt)
from perception.cli.main import main
sys.exit(main(sys.argv[4:]))
"""
"""Runs a command that, about to do `wanted` to a file like `path`, says so and waits for a signal."""


@dataclass
class Place:
    """Where a command works; what it is given lies elsewhere."""

    folder: Path
    scratch: Path
    bundle: Path
    data: Path
    config: Path
    bag: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"


@pytest.fixture(scope="module")
def given(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A configuration and a bag."""
    folder = tmp_path_factory.mktemp("given")
    config = {
        "name": "stopped",
        "tasks": ["segmentation"],
        "model": {
            "name": "anyfuse",
            "pretrained": False,
            "options": {"width": 0.25, "decoder_width": 16},
        },
        "data": {"source": f"folder:{simulated}"},
        "preprocess": {"modalities": ["rgb"], "grid": {"height": 96, "width": 128}},
        "resolution": [{"crop": [64, 96], "scale": [0.8, 1.0], "batch": 4}],
        "epochs": 500,
        "optimizer": {"warmup_epochs": 0},
        "workers": 1,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if importlib.util.find_spec("rosbags") is not None:
        assert main(["record", "--data", f"folder:{simulated}", "--out", str(folder / "bag")]) == 0
    return {"config": folder / "config.yaml", "bag": folder / "bag"}


@pytest.fixture
def place(
    given: dict[str, Path], tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> Iterator[Place]:
    folder = tmp_path / "folder"
    folder.mkdir()
    # A short path: the sockets of training's workers are made in it.
    with tempfile.TemporaryDirectory(prefix="stop-", dir="/tmp") as scratch:
        yield Place(folder, Path(scratch), tiny_bundle, simulated, given["config"], given["bag"])


def _start(place: Place, *command: object, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(place.scratch)}
    return subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, text=True, env=environment, cwd=place.folder, **options,
    )  # type: ignore[call-overload,no-any-return]  # fmt: skip


def _stopped(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send the signal; the command ends with one line, and with the status that says why."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors.splitlines()) == (STATUS[number], [LINE[number]])


def _digest(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def _nothing_temporary(place: Place) -> None:
    others = {".ses"}  # ONNX Runtime's own
    assert set(os.listdir(place.scratch)) <= others
    hidden = [p for p in place.folder.rglob("*") if p.name.startswith(".") or ".part" in p.name]
    assert hidden == []


def _export(place: Place) -> list[object]:
    shutil.copytree(place.bundle, place.out)
    return ["export", place.bundle, "--precision", "fp16", "--threads", 1, "--out", place.out]


def _graphs(place: Place) -> list[object]:
    return ["export", place.bundle, "--subset", "rgb", "--out", place.out, "--threads", 1]


def _serve(place: Place) -> list[object]:
    return ["export", place.bundle, "--serve", "triton", "--out", place.out, "--threads", 1]


def _eval(place: Place) -> list[object]:
    shutil.copytree(place.bundle, place.out)
    data = ["--data", f"folder:{place.data}", "--limit", 1, "--threads", 1]
    return ["eval", place.out, *data, "--device", "onnxruntime-cpu", "--record"]


def _run(place: Place) -> list[object]:
    place.out.mkdir()
    (place.out / "result.json").write_text("old")
    (place.out / "overlay.png").write_text("old")
    rgb = ["--rgb", place.data / "rgb/000000.png", "--device", "onnxruntime-cpu", "--threads", 1]
    return ["run", "--bundle", place.bundle, *rgb, "--out", place.out]


def _record(place: Place) -> list[object]:
    pytest.importorskip("rosbags")
    return ["record", "--data", f"folder:{place.data}", "--out", place.out]


def _train(place: Place) -> list[object]:
    place.out.mkdir()
    (place.out / "log.csv").write_text("old")
    return ["train", place.config, "--device", "cpu", "--threads", 1, "--out", place.out]


def _make_sim(place: Place) -> list[object]:
    return ["data", "make-sim", "--frames", 2, "--size", "64x48", "--out", place.out]


def _demo(place: Place) -> list[object]:
    place.out.mkdir()
    for name in ("frames.csv", "report.html", "drive.gif"):
        (place.out / name).write_text("old")
    data = ["--data", f"folder:{place.data}", "--device", "onnxruntime-cpu", "--threads", 1]
    return ["demo", "--bundle", place.bundle, *data, "--out", place.out]


def _bench(place: Place) -> list[object]:
    place.out.mkdir()
    (place.out / "b.json").write_text("old")
    options = ["--frames", 1, "--warmup", 0, "--threads", 1, "--device", "onnxruntime-cpu"]
    return ["bench", place.bundle, *options, "--json", place.out / "b.json"]


def _view(place: Place) -> list[object]:
    pytest.importorskip("foxglove")
    data = ["--data", f"folder:{place.data}", "--device", "onnxruntime-cpu", "--threads", 1]
    place.out.mkdir()
    return ["view", "--bundle", place.bundle, *data, "--out", place.out / "v.mcap"]


PART = r"\.part(/|\.|$)"
HALTS: dict[str, tuple[Callable[[Place], list[object]], str, str]] = {
    "export, a graph": (_export, "open", PART),
    "export, the swap": (_export, "os.rename", r"/\.out\.[0-9a-f]{8}\.part$"),
    "export, more graphs": (_graphs, "open", PART),
    "export --serve": (_serve, "open", "anysense-serve-.*/"),
    "eval --record": (_eval, "open", PART),
    "eval --record, the swap": (_eval, "os.rename", PART),
    "run": (_run, "open", PART),
    "run, the swap": (_run, "os.rename", PART),
    "record": (_record, "open", PART),
    "record, the swap": (_record, "os.rename", PART),
    "train, a checkpoint": (_train, "os.rename", PART),
    "demo, a table": (_demo, "os.rename", r"frames.*\.part"),
    "demo, a film": (_demo, "open", r"drive.*\.part"),
    "make-sim": (_make_sim, "open", r"rgb.*\.part"),
    "make-sim, the swap": (_make_sim, "os.rename", r"rgb.*\.part"),
    "bench --json": (_bench, "open", PART),
    "view --out": (_view, "open", PART),
}


CASES = [(work, signal.SIGTERM) for work in HALTS]
CASES += [(work, signal.SIGINT) for work in HALTS if "," not in work]


@pytest.mark.slow
@pytest.mark.parametrize(("work", "number"), CASES, ids=str)
def test_stopped_while_it_writes(work: str, number: signal.Signals, place: Place) -> None:
    prepare, event, path = HALTS[work]
    command = prepare(place)
    before = _digest(place.folder)
    reading, writing = os.pipe()
    process = _start(place, "-c", HALTING, writing, event, path, *command, pass_fds=(writing,))
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as told:
            assert select.select([told], [], [], PATIENCE_S)[0], "never came to it"
            assert told.read(1) == b"x", process.communicate()
        _stopped(process, number)
    finally:
        process.kill()
    _nothing_temporary(place)
    after = _digest(place.folder)
    if work == "export, the swap":  # which is not stopped once it has begun
        assert Bundle.open(place.out).manifest.precision == "fp16"
        return
    if work == "demo, a film":
        before.pop("out/frames.csv")  # the new one was whole by then
    assert {name: after.get(name) for name in before} == before
    if prepare not in (_train, _demo, _make_sim):  # of which whole files stay
        assert after == before


def _wait(process: subprocess.Popen[str], done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS, ids=lambda n: n.name)
def test_training_with_workers(number: signal.Signals, place: Place) -> None:
    place.out.mkdir()
    command = ["train", place.config, "--device", "cpu", "--threads", 1, "--out", place.out]
    process = _start(place, "-m", "perception.cli.main", *command)
    try:
        _wait(process, (place.out / "last.safetensors").is_file)
        _stopped(process, number)
    finally:
        process.kill()
    _nothing_temporary(place)
    from perception.training.checkpoint import load_checkpoint

    assert load_checkpoint(place.out).progress["epoch"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS, ids=lambda n: n.name)
def test_a_replay_keeps_whole_lines(number: signal.Signals, place: Place) -> None:
    pytest.importorskip("rosbags")
    path = place.out / "status.jsonl"
    read, write = os.pipe()
    options = ["--threads", 1, "--device", "onnxruntime-cpu", "--overlays", "--out", place.out]
    command = ["replay", place.bag, "--bundle", place.bundle, *options]
    halt = ["-c", HALTING, write, "os.rename", "overlay_00003"]
    process = _start(place, *halt, *command, pass_fds=(write,))
    os.close(write)
    try:
        with os.fdopen(read, "rb") as told:
            assert told.read(1) == b"x", process.communicate()
        _stopped(process, number)
    finally:
        process.kill()
    _nothing_temporary(place)
    assert path.read_text().endswith("}\n") and len(path.read_text().splitlines()) == 4
    assert sorted(p.name for p in place.out.iterdir()) == [
        *(f"overlay_{n:05}.png" for n in range(3)), "status.jsonl",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("number", STATUS, ids=lambda n: n.name)
def test_serving_ends(number: signal.Signals, place: Place) -> None:
    pytest.importorskip("foxglove")
    data = ["--data", f"folder:{place.data}", "--device", "onnxruntime-cpu", "--threads", 1]
    command = ["view", "--bundle", place.bundle, *data, "--port", 0, "--loops", 0]
    process = _start(place, "-u", "-m", "perception.cli.main", *command)
    try:
        assert process.stdout is not None
        assert "open Foxglove at" in process.stdout.readline()
        _stopped(process, number)
    finally:
        process.kill()
    _nothing_temporary(place)


IMPORTING = """
import os, signal, sys

def interrupt(event, arguments):
    if event == "import" and arguments[0] == wanted and not done:
        done.append(True)
        os.kill(os.getpid(), signal.SIGINT)

done, wanted = [], sys.argv[1]
sys.addaudithook(interrupt)
from perception.cli.start import main
sys.argv[1:] = ["bundles", "list"]
status = main()
assert done, wanted
sys.exit(status)
"""


@pytest.mark.parametrize(
    "module",
    ["perception.cli.main", "perception.cli.arguments", "rich", "numpy", "cv2", "pydantic"],
)
def test_an_interrupt_while_modules_are_imported_is_one_line(module: str) -> None:
    """They take a second or more where the machine has other work."""
    assert 'anysense = "perception.cli.start:main"' in (ROOT / "pyproject.toml").read_text()
    run = subprocess.run(
        [sys.executable, "-c", IMPORTING, module], capture_output=True, text=True, cwd=ROOT
    )
    assert (run.returncode, run.stderr) == (130, "anysense: interrupted\n")
