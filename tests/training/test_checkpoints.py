"""Checkpoints: written whole or not at all, and whatever is read as one is taken or refused in one line."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from export.bundle_writer import model_from_checkpoint
from perception.cli.main import main
from perception.errors import AnySenseError, ConfigError, DataError
from perception.training import run as running
from perception.training.building import recording_info
from perception.training.checkpoint import BEST, LAST, load_checkpoint, load_weights
from perception.training.config import TrainConfig
from perception.training.curves import is_written
from perception.training.loop import Trainer

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]


@pytest.fixture
def run(record: Record, configure: Configure, tmp_path: Path) -> Path:
    """A run of one epoch."""
    Trainer(configure(record(10)), tmp_path / "run").fit()
    return tmp_path / "run"


def _parts(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k).clone() for k in file.keys()}, dict(file.metadata())  # noqa: SIM118


def _refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        load_checkpoint(path)
    line = str(caught.value)
    assert str(path) in line and "\n" not in line and len(line) < 600
    return line


def test_a_new_file_has_the_permissions_of_the_umask_and_an_old_one_keeps_its_own(
    run: Path, record: Record, configure: Configure
) -> None:
    umask = os.umask(0)
    os.umask(umask)
    wanted = 0o666 & ~umask
    assert {stat.S_IMODE(p.stat().st_mode) for p in run.iterdir()} == {wanted}
    (run / LAST).chmod(0o640)
    trainer = Trainer(configure(record(10, name="again"), epochs=1), run)
    trainer._save()
    assert stat.S_IMODE((run / LAST).stat().st_mode) == 0o640
    assert {p.name for p in run.iterdir()} == {LAST, "log.csv", "curves.png"}


def _header(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write(path: Path, header: object, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def test_damaged_and_foreign_files_are_named(run: Path, tmp_path: Path) -> None:
    whole = (run / BEST).read_bytes()
    path = tmp_path / "bad.safetensors"
    for content, said in (
        (b"", "cut off"),
        (b"\x08\0\0", "cut off"),
        (whole[: len(whole) // 2], "damaged or no checkpoint"),
        (whole[:100], "cut off"),
        (whole + b"more", "damaged or no checkpoint"),
        (b"\xff" * 64, "cut off"),
        (struct.pack("<Q", 3) + b"[1]" + b"\0" * 90, "damaged or no checkpoint"),
        (struct.pack("<Q", 40) + b"[" * 40, "damaged or no checkpoint"),
        (b"PK\x03\x04" + whole, "cut off|damaged"),
        (b"\x80\x02}q\x00." * 40, "cut off"),
    ):
        path.write_bytes(content)
        line = _refused(path)
        assert any(part in line for part in said.split("|")), line
    save_file({"weight": torch.zeros(3)}, path)
    assert "no AnySense checkpoint" in _refused(path)
    assert "is no regular file" in _refused(Path("/dev/null"))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no such checkpoint"):
        load_checkpoint(empty)


def test_sizes_are_compared_before_anything_is_read(run: Path, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.safetensors"
    with sparse.open("wb") as file:
        file.truncate(100 * 2**30)
    assert "more than the limit" in _refused(sparse)
    long_header = tmp_path / "header.safetensors"
    with long_header.open("wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**30 + 8)
    assert "header: 1073741824 bytes, more than the limit" in _refused(long_header)
    header, data = _header(run / BEST)
    name = next(k for k in header if k != "__metadata__")
    header[name]["shape"] = [2**40, 2**20]
    assert "damaged or no checkpoint" in _refused(
        _write(tmp_path / "shape.safetensors", header, data)
    )


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("config", "{", "its configuration is no JSON"),
        ("config", "[1]", "configuration: expected fields with names"),
        ("config", "{}", "configuration: name: this field is missing"),
        ("config", "[" * 100_000, "its configuration is no JSON"),
        ("progress", "{", "its progress is no JSON"),
        ("progress", "[1]", "its progress has no fields"),
        ("progress", "9" * 5000, "progress"),
    ],
)
def test_wrong_metadata_is_named(key: str, text: str, said: str, run: Path, tmp_path: Path) -> None:
    tensors, metadata = _parts(run / BEST)
    save_file(tensors, tmp_path / "b.safetensors", metadata | {key: text})
    assert said in _refused(tmp_path / "b.safetensors")


def test_a_configuration_of_a_later_version_is_named(run: Path, tmp_path: Path) -> None:
    tensors, metadata = _parts(run / BEST)
    config = json.loads(metadata["config"]) | {"quantum": True}
    save_file(tensors, tmp_path / "b.safetensors", metadata | {"config": json.dumps(config)})
    assert "configuration: quantum: no such field" in _refused(tmp_path / "b.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, run: Path, tmp_path: Path) -> None:
    tensors, metadata = _parts(run / BEST)
    name = next(k for k in tensors if k.endswith("conv.weight"))
    tensors[name].view(-1)[1] = value
    save_file(tensors, tmp_path / "b.safetensors", metadata)
    assert f"'{name}' holds numbers that are not finite" in _refused(tmp_path / "b.safetensors")


def test_weights_of_another_model_are_refused(run: Path, tmp_path: Path) -> None:
    tensors, metadata = _parts(run / BEST)
    name = next(k for k in tensors if k.endswith("stem.conv.weight"))
    changes = {
        f"has no '{name.removeprefix('ema.')}'": {k: v for k, v in tensors.items() if k != name},
        "has 'more' besides": tensors | {"ema.more": torch.zeros(1)},
        f"'{name.removeprefix('ema.')}' is (1, 1)": tensors | {name: torch.zeros(1, 1)},
    }
    for said, changed in changes.items():
        save_file(changed, tmp_path / "b.safetensors", metadata)
        with pytest.raises(DataError, match="weights of another model") as caught:
            model_from_checkpoint(load_checkpoint(tmp_path / "b.safetensors"))
        assert said in str(caught.value)
    model = torch.nn.Linear(2, 2)
    load_weights(model, {"weight": torch.ones(2, 2), "bias": torch.ones(2)}, "here")
    assert model.weight.eq(1).all()


def test_a_checkpoint_must_say_what_it_was_trained_on() -> None:
    for progress in ({}, {"recording": 3}, {"recording": {"kind": "folder"}}):
        with pytest.raises(DataError, match="trained on"):
            recording_info(progress)


@given(place=st.floats(0, 1), value=st.binary(min_size=1, max_size=12))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_file_is_taken_or_refused_in_one_line(
    place: float, value: bytes, changed_run: bytes, tmp_path: Path
) -> None:
    content = bytearray(changed_run)
    start = int(place * (len(content) - 1))
    content[start : start + len(value)] = value
    path = tmp_path / "b.safetensors"
    path.write_bytes(content)
    try:
        model_from_checkpoint(load_checkpoint(path))
    except AnySenseError as error:
        assert "\n" not in str(error)


@pytest.fixture
def changed_run(run: Path) -> bytes:
    """A checkpoint whose header is most of it, so that changes often fall there."""
    return (run / BEST).read_bytes()[: 1 << 22]


# Resuming


def test_a_run_is_not_resumed_with_what_does_not_fit(
    run: Path, record: Record, configure: Configure
) -> None:
    root = record(10, name="again")
    config = json.loads(_parts(run / LAST)[1]["config"])
    source = config["data"]["source"]

    def resume(**changes: object) -> str:
        given = configure(root, data={"source": source}, **changes)
        with pytest.raises((ConfigError, DataError)) as caught:
            Trainer(given, run).resume()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "another configuration: seed was 0, is 4" in resume(seed=4)
    assert "optimizer.lr was 0.001, is 0.5" in resume(optimizer={"warmup_epochs": 0, "lr": 0.5})
    phase = {"crop": [64, 96], "scale": [1.0, 1.0]}
    assert "resolution.0.batch was 2, is 4" in resume(resolution=[{**phase, "batch": 4}])
    assert "resolution was [{" in resume(resolution=[{**phase, "batch": 2}] * 2)
    tensors, metadata = _parts(run / LAST)
    progress = json.loads(metadata["progress"])
    for change, said in (
        ({"epoch": "soon"}, "progress: epoch"),
        ({"epoch": -1}, "progress: epoch"),
        ({"log": 3}, "progress: log"),
        ({"ema_steps": None}, "progress: ema_steps"),
        ({"method": {"a": "b"}}, "progress: method.a"),
    ):
        text = json.dumps(progress | change)
        save_file(tensors, run / LAST, metadata | {"progress": text})
        assert said in resume()
    for key, value in (
        ("optimizer.99999.exp_avg", torch.zeros(1)),
        ("optimizer.0.exp_avg", torch.zeros(1, 2, 3)),
        ("optimizer.x.exp_avg", torch.zeros(1)),
        ("optimizer.0.other", torch.zeros(())),
        ("optimizer.0", torch.zeros(())),
    ):
        save_file(tensors | {key: value}, run / LAST, metadata)
        assert f"'{key}' is not of this model" in resume()
    (run / LAST).unlink()
    assert "no such checkpoint" in resume()


def test_older_runs_without_a_best_epoch_are_taken_up(
    run: Path, record: Record, configure: Configure
) -> None:
    tensors, metadata = _parts(run / LAST)
    progress = json.loads(metadata["progress"]) | {"best": -1.0}
    del progress["method"]
    save_file(tensors, run / LAST, metadata | {"progress": json.dumps(progress)})
    source = json.loads(metadata["config"])["data"]["source"]
    config = configure(record(10, name="x"), data={"source": source}, epochs=2)
    trainer = Trainer(config, run)
    trainer.resume()
    trainer.fit()
    assert [row["epoch"] for row in trainer.log] == [1, 2]
    assert trainer.best > 0


# Interruptions


@contextmanager
def _disk_of(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_leaves_the_last_state(run: Path, record: Record, configure: Configure) -> None:
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    source = json.loads(_parts(run / LAST)[1]["config"])["data"]["source"]
    config = configure(record(10, name="x"), data={"source": source}, epochs=2)
    trainer = Trainer(config, run)
    trainer.resume()
    with _disk_of(30_000), pytest.raises(DataError, match="cannot be written") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value) and str(run) in str(caught.value)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    again = Trainer(config, run)
    again.resume()
    again.fit()
    assert again.epoch == 2


def test_a_failed_picture_or_table_is_said_and_leaves_the_old_one(
    run: Path, record: Record, configure: Configure
) -> None:
    trainer = Trainer(configure(record(10, name="x")), run)
    trainer.log = [{"epoch": 1, "loss": 1.0, "rgb/miou": 0.5}]
    from perception.training.curves import plot_curves

    before = (run / "curves.png").read_bytes()
    with _disk_of(5_000), pytest.raises(DataError, match="curves.png: cannot be written"):
        plot_curves(trainer.log, run / "curves.png")
    assert (run / "curves.png").read_bytes() == before
    assert not list(run.glob(".*"))


def test_what_a_killed_run_was_writing_is_swept_away(
    run: Path, record: Record, configure: Configure
) -> None:
    for name in (".last.1a2b3c4d.part.safetensors", ".tmpAbC123", ".curves.00000000.part.png"):
        (run / name).write_bytes(b"half")
    (run / "notes.txt").write_text("mine")
    Trainer(configure(record(10, name="x")), run).fit()
    assert not list(run.glob(".*"))
    assert (run / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_a_killed_training_goes_on(record: Record, configure: Configure, tmp_path: Path) -> None:
    config = configure(record(10), epochs=400)
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    out = tmp_path / "run"
    command = [sys.executable, "-m", "perception.cli.main", "train", str(path), "--out", str(out)]
    for turn in range(3):
        reached = load_checkpoint(out / LAST).progress["epoch"] if turn else 0
        more = ["--resume"] if turn else []
        with subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL) as process:
            mark = (out / LAST).stat().st_mtime_ns if turn else 0
            for _ in range(3000):
                time.sleep(0.05)
                if (out / LAST).exists() and (out / LAST).stat().st_mtime_ns != mark:
                    break
            time.sleep(0.013 * (turn + 1))
            process.kill()
        state = load_checkpoint(out / LAST)
        assert state.progress["epoch"] > reached
        assert load_checkpoint(out / BEST).progress["epoch"] <= state.progress["epoch"] + 1
        reached = state.progress["epoch"]
        # The kill may have fallen between the checkpoint and the log, which has all but the last then.
        assert _epochs_of(out) in ([*range(1, reached)], [*range(1, reached + 1)])
    done = state.progress["epoch"]
    again = Trainer(config.model_copy(update={"epochs": done}), out)
    again.resume()
    again.fit()
    assert _epochs_of(out) == [*range(1, done + 1)]


def _epochs_of(run: Path) -> list[int]:
    """Those that its table lists."""
    if not (run / "log.csv").exists():
        return []
    with (run / "log.csv").open() as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


class _Killed(BaseException):
    """Nothing is done after it, as after a signal that cannot be caught."""


@pytest.mark.parametrize(
    ("name", "kept", "told"),
    [("save_checkpoint", 1, [1]), ("write_log", 2, [1]), ("plot_curves", 2, [1, 2])],
)
@pytest.mark.parametrize("epochs", [2, 3])
def test_the_log_of_a_run_killed_while_it_was_kept_is_whole_when_it_goes_on(
    record: Record,
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kept: int,
    told: list[int],
    epochs: int,
) -> None:
    """Killed just before the checkpoint, table or picture of epoch 2; `epochs` are to be made then."""
    root, out = record(5, modalities=("rgb",)), tmp_path / "run"
    inputs = {"modalities": ["rgb"], "grid": {"height": 64, "width": 96}}
    trainer = Trainer(configure(root, epochs=3, preprocess=inputs), out)
    before = getattr(running, name)

    def die(*given: Any) -> Any:
        if trainer.epoch == 2:
            raise _Killed
        return before(*given)

    with monkeypatch.context() as patch:
        patch.setattr(running, name, die)
        with pytest.raises(_Killed):
            trainer.fit()
    assert load_checkpoint(out / LAST).progress["epoch"] == kept and _epochs_of(out) == told
    again = Trainer(configure(root, epochs=epochs, preprocess=inputs), out)
    again.resume()
    again.fit()
    assert _epochs_of(out) == [*range(1, epochs + 1)]
    assert is_written(load_checkpoint(out / LAST).progress["log"], out)


def test_the_command_line_says_it_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / BEST).write_bytes((run / BEST).read_bytes()[:1000])
    assert main(["export", str(run), "--out", str(tmp_path / "bundle")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("anysense: error: ") and error.count("\n") == 1
    assert "best.safetensors" in error
    assert not (tmp_path / "bundle").exists()
