"""A training with a budget of minutes, or a signal in its way, leaves what can be used and gone on with."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from export.bundle_writer import ExportOptions, export_bundle
from perception.cli.main import main
from perception.errors import ConfigError, DataError
from perception.files.stopping import stoppable
from perception.training.budget import MOST_EPOCHS, RESERVE, Budget, Costs, time_of
from perception.training.checkpoint import BEST, LAST, load_checkpoint
from perception.training.config import TrainConfig
from perception.training.devices import set_up
from perception.training.loop import LOSSES_READ_EVERY, Trainer
from perception.training.optimizing import learning_rate

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
ROOT = Path(__file__).parents[2]


def _config(epochs: int = 40, every: int = 10, change: int = 30) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "name": "a",
            "tasks": ["segmentation"],
            "data": {"source": "folder:x"},
            "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 96}},
            "resolution": [
                {"crop": [64, 64]},
                {"from_epoch": change, "crop": [64, 128]},
            ],
            "model": {"freeze": [{"parts": ["backbone"], "epochs": 4}]},
            "epochs": epochs,
            "validate_every": every,
        }
    )


# How many epochs


def test_phases_keep_their_share_of_the_epochs() -> None:
    config = _config()
    longer, shorter = config.lasting(80), config.lasting(4)
    assert [p.from_epoch for p in longer.resolution] == [0, 60]
    assert (longer.epochs, longer.model.freeze[0].epochs) == (80, 8)
    assert [p.from_epoch for p in shorter.resolution] == [0, 3]
    assert shorter.model.freeze[0].epochs == 1
    assert (config.epochs, config.resolution[1].from_epoch) == (40, 30)
    assert config.lasting(20, instead_of=80).resolution[1].from_epoch == 8
    for epochs in (5, 16033, 8017, 99999):  # halves go up, however large the numbers are
        assert (
            _config(1000, 1000, 500).lasting(epochs).resolution[1].from_epoch == (epochs + 1) // 2
        )


def test_later_phases_and_validations_take_their_time() -> None:
    costs = Costs(epoch=2.0, area=64 * 64, saving=0.5, validation=3.0)
    assert time_of(_config(), 0, costs) == 30 * 2 + 10 * 4 + 40 * 0.5 + 4 * 3
    assert time_of(_config(), 35, costs) == 5 * 4 + 5 * 0.5 + 3
    assert time_of(_config(41), 0, costs) == 30 * 2 + 11 * 4 + 41 * 0.5 + 5 * 3


@given(
    minutes=st.floats(0.01, 600),
    epoch=st.floats(0.001, 1000),
    validation=st.floats(0, 100),
    done=st.integers(1, 2),
    epochs=st.integers(1, 300),
    every=st.integers(1, 50),
)
def test_what_fits_fits_and_one_more_would_not(
    minutes: float, epoch: float, validation: float, done: int, epochs: int, every: int
) -> None:
    config = _config(epochs, every, change=epochs // 2)
    costs = Costs(epoch, 64 * 64, 0.0, validation)
    budget = Budget(minutes)
    number = budget.epochs(config, done, costs)
    left = 60 * minutes
    assert number >= done
    assert number == done or time_of(config.lasting(number), done, costs) <= left
    one_more = time_of(config.lasting(number + 1), done, costs)
    assert number + 1 == MOST_EPOCHS or one_more > (left - 1) * (1 - RESERVE)


def test_the_rate_decays_only_where_the_end_is_known() -> None:
    spec = _config().optimizer.model_copy(update={"warmup_epochs": 0})
    assert learning_rate(spec, 30, None) == spec.lr
    assert learning_rate(spec, 20, 40) == pytest.approx(spec.lr * 0.5**0.9)
    assert learning_rate(spec, 40, 40) == 0


# Runs


def _trainer(config: TrainConfig, out: Path, minutes: float | None = None) -> Trainer:
    torch.set_num_threads(1)
    trainer = Trainer(config, out)
    if minutes is not None:
        trainer.budget = Budget(minutes)
    return trainer


def _end_after(trainer: Trainer, steps: int, end: Callable[[], None]) -> None:
    """Have `end` happen in the step of that number."""
    step, made = trainer.step, 0

    def counting(*given: object) -> object:
        nonlocal made
        made += 1
        loss = step(*given)  # type: ignore[arg-type]
        if made == steps:
            end()
        return loss

    trainer.step = counting  # type: ignore[method-assign, assignment]


def _time_passes(trainer: Trainer) -> Callable[[], None]:
    def end() -> None:
        assert trainer.budget is not None
        trainer.budget.end = time.monotonic()

    return end


@pytest.mark.slow
def test_a_budget_is_kept(record: Record, configure: Configure, tmp_path: Path) -> None:
    config = configure(record(10), epochs=3, validate_every=1000)
    trainer = _trainer(config, tmp_path / "run", 0.25)
    trainer.fit()
    assert trainer.budget is not None
    assert (
        trainer.budget.left > -5
    )  # what the last step and the files take on a machine that is busy
    state = load_checkpoint(tmp_path / "run" / LAST)
    assert state.progress["epoch"] <= state.config.epochs


def test_a_budget_fixes_the_epochs_and_stops_in_time_where_they_get_slower(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10)
    fields = {
        "epochs": 1000,
        "validate_every": 1000,
        "resolution": [
            {"crop": [64, 96], "scale": [1.0, 1.0], "batch": 2},
            {"from_epoch": 500, "crop": [64, 64], "scale": [1.0, 1.0], "batch": 4},
        ],
    }
    config = configure(root, **fields)
    trainer = _trainer(config, tmp_path / "run", 60)
    _end_after(trainer, 9, _time_passes(trainer))
    trainer.fit()
    state = load_checkpoint(tmp_path / "run" / LAST)
    assert trainer.plan is not None and trainer.plan.epochs is not None
    number = trainer.plan.epochs
    assert number > 10
    assert state.config.epochs == number == trainer.config.epochs
    assert state.config.resolution[1].from_epoch == (number + 1) // 2
    assert state.progress["budget"]["epochs"] == number
    assert (state.progress["epoch"], state.progress["within"]["step"]) == (2, 1)
    assert [row["lr"] for row in trainer.log] == [config.optimizer.lr] * 2
    assert load_checkpoint(tmp_path / "run" / BEST).progress["epoch"] == 2
    assert "epochs_per_minute" in (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    # It goes on under the old configuration, with or without minutes, and with more epochs.
    for minutes in (None, 0.3):
        again = _trainer(config, tmp_path / "run", minutes)
        again.resume()
        assert again.config.epochs == number and again.config.resolution == state.config.resolution
    more = _trainer(configure(root, **fields | {"epochs": 3}), tmp_path / "run")
    more.resume()
    assert more.config.epochs == 3
    with pytest.raises(ConfigError, match="seed was 0, is 4"):
        _trainer(configure(root, **fields, seed=4), tmp_path / "run").resume()
    more.fit()
    assert [row["epoch"] for row in more.log] == [1, 2, 3]


def test_stopped_before_the_epochs_are_fixed_it_measures_again(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    config = configure(record(10), epochs=3)
    trainer = _trainer(config, tmp_path / "run", 60)
    _end_after(trainer, 6, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), stoppable():
        trainer.fit()
    plan = load_checkpoint(tmp_path / "run" / LAST).progress["budget"]
    assert (plan["epochs"], plan["configured"]) == (None, 3)
    ordinary = _trainer(config, tmp_path / "run")
    ordinary.resume()
    assert not ordinary._measuring
    again = _trainer(config, tmp_path / "run", 60)
    again.resume()
    assert again._measuring
    _end_after(again, 3, _time_passes(again))
    again.fit()
    assert again.plan is not None and again.plan.epochs is not None and again.epoch == 2


def test_minutes_that_are_too_few_for_one_epoch_are_one_line(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    config = configure(record(20), epochs=5)
    trainer = _trainer(config, tmp_path / "run", minutes=0.02)
    step = trainer.step
    trainer.step = lambda *given: (time.sleep(0.3), step(*given))[1]  # type: ignore[method-assign]
    with pytest.raises(ConfigError) as caught:
        trainer.fit()
    line = str(caught.value)
    said = r"--minutes: 0.02 minutes are too short for one epoch, which takes \d+\.\d+ "
    assert re.match(said, line), line
    assert "\n" not in line and len(line) < 200
    over = _trainer(config, tmp_path / "over", minutes=1e-9)
    with pytest.raises(ConfigError, match=r"too short for one epoch \("):
        over.fit()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--minutes", "0"], "must be positive"),
        (["--minutes", "-3"], "must be positive"),
        (["--minutes", "nan"], "must be positive"),
        (["--minutes", "inf"], "must be positive"),
        (["--minutes", "1e99"], "must be positive"),
        (["--minutes", "x"], "must be positive"),
        (["--minutes", "9", "--epochs", "3"], "not allowed with argument"),
        (["--minutes", "9", "--smoke"], "--smoke: is one epoch by itself (leave --minutes out)"),
    ],
)
def test_wrong_minutes_are_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(ROOT / "configs/indoor-rgbd.yaml"), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


# Stopping within an epoch


def _same(one: Path, other: Path) -> None:
    a, b = (load_checkpoint(path / LAST) for path in (one, other))
    assert a.weights.keys() == b.weights.keys()
    assert all(torch.equal(a.weights[k], b.weights[k]) for k in a.weights)
    assert all(torch.equal(a.ema[k], b.ema[k]) for k in a.ema)
    assert [r["loss"] for r in a.progress["log"]] == [r["loss"] for r in b.progress["log"]]
    assert [r["lr"] for r in a.progress["log"]] == [r["lr"] for r in b.progress["log"]]


@pytest.mark.parametrize(("at", "workers"), [(1, 0), (7, 2), (8, 0)])
def test_stopped_at_any_step_it_ends_with_the_same_weights(
    at: int, workers: int, record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(10, lacks={("depth", 3), ("rgb", 5)})
    config = configure(root, epochs=3, workers=workers, precision="float32")
    whole = _trainer(config, tmp_path / "whole")
    whole.fit()
    stopped = _trainer(config, tmp_path / "parts")
    _end_after(stopped, at, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), stoppable():
        stopped.fit()
    state = load_checkpoint(tmp_path / "parts" / LAST)
    done = state.progress["epoch"] * whole.batches.steps(0) + state.progress["within"]["step"]
    assert done == at
    again = _trainer(config.model_copy(update={"workers": 2 - workers}), tmp_path / "parts")
    again.resume()
    again.fit()
    _same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_a_checkpoint_of_the_step(
    number: signal.Signals, record: Record, configure: Configure, tmp_path: Path
) -> None:
    config = configure(record(400), epochs=3, workers=2, validate_every=3)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "perception.cli.main", "train", str(tmp_path / "c.yaml")]
    command += ["--out", str(tmp_path / "run"), "--threads", "1", "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        for _ in range(1200):
            time.sleep(0.05)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if len(children) >= 2:
                break
        time.sleep(2)
        os.killpg(process.pid, number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error.count("\n") == 1 and error.startswith("anysense: "), error
    state = load_checkpoint(tmp_path / "run" / LAST)
    assert state.progress["within"]["step"] > 0
    export_bundle(tmp_path / "run", tmp_path / "bundle", ExportOptions())
    for pid in children:
        assert not Path(f"/proc/{pid}").exists()


def test_random_numbers_that_are_none_are_named(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    trainer = _trainer(configure(record(10)), tmp_path)
    trainer.underway.step = 1
    for text in ("?", "AAAA"):
        trainer.underway.generators = {"cpu": text}
        with pytest.raises(DataError, match="random numbers") as caught:
            trainer.fit()
        assert "\n" not in str(caught.value)


# Losses stay on the device


def test_losses_are_read_now_and_then_and_logged_the_same(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    config = configure(record(60), epochs=1, precision="float32")
    trainer = _trainer(config, tmp_path / "run")
    learn, losses, waited = trainer.learn, [], []

    def noting(*given: object) -> object:
        loss = learn(*given)  # type: ignore[arg-type]
        losses.append(float(loss))  # type: ignore[arg-type]
        waited.append(len(trainer.underway.unread))
        return loss

    trainer.learn = noting  # type: ignore[method-assign, assignment]
    trainer.fit()
    assert len(losses) > LOSSES_READ_EVERY == max(waited) + 1
    assert trainer.log[0]["loss"] == float(np.mean(losses))
    row = next(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert float(row["epochs_per_minute"]) == pytest.approx(60 / float(row["seconds"]))


def test_a_loss_that_is_not_finite_names_its_own_step(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    trainer = _trainer(configure(record(60)), tmp_path / "run")
    learn, made = trainer.learn, 0

    def spoiling(*given: object) -> object:
        nonlocal made
        made += 1
        loss = learn(*given)  # type: ignore[arg-type]
        return loss * torch.nan if made == 5 else loss  # type: ignore[operator]

    trainer.learn = spoiling  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigError, match="not finite any more in epoch 1, step 5"):
        trainer.fit()
    assert not (tmp_path / "run" / LAST).exists()


# GPUs


def test_what_is_of_a_gpu_changes_nothing_on_the_cpu(configure: Configure, tmp_path: Path) -> None:
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    spec = {"cudnn_benchmark": True, "tf32": False, "pinned_memory": True}
    config = configure(tmp_path, cuda=spec)
    set_up(torch.device("cpu"), config.cuda)
    assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32) == before
    assert json.loads(configure(tmp_path).model_dump_json())["cuda"]["pinned_memory"] is False
