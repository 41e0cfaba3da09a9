"""Training by several processes that `torchrun` starts: real ones, which meet through gloo."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent))

import record_losses

from perception.models.chance import ChannelDropout, rows_from, uniform
from perception.training.checkpoint import LAST, load_checkpoint
from perception.training.config import TrainConfig
from perception.training.distributed import Ranks
from perception.training.loading import EpochBatches
from perception.training.loop import Trainer
from perception.training.sharing import parts_of, share_of

Record = Callable[..., Path]
Configure = Callable[..., TrainConfig]
ROOT = Path(__file__).parents[2]
RECORDER = [str(Path(__file__).with_name("record_losses.py"))]
COMMAND = ["-m", "perception.cli.main", "train"]
FOURS = [{"crop": [64, 96], "scale": [0.9, 1.1], "batch": 4}]
FROZEN = [{**FOURS[0], "freeze_norm": True}]
HARD: dict[str, Any] = {
    "tasks": ["segmentation", "detection"],
    "precision": "float32",
    "resolution": FROZEN,
    "loss": {"lovasz": 0.3, "alone": 0.5},
    "curriculum": {"probability": 0.8, "severity": [3, 5]},
    "workers": 0,
}


def launched(processes: int, program: Sequence[str]) -> list[str]:
    """The command that starts a program as so many processes; as one, without `torchrun`."""
    if processes == 1:
        return [sys.executable, *program]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *run, *program]


def environment() -> dict[str, str]:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHELASTIC", "ANYSENSE"))}
    return {**known, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def done(
    processes: int, program: Sequence[str], status: int = 0
) -> subprocess.CompletedProcess[str]:
    """What became of it, which it has to end with this status."""
    found = subprocess.run(
        launched(processes, program),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert found.returncode == status, found.stderr[-3000:]
    return found


def written(config: TrainConfig, folder: Path) -> str:
    """The configuration as a file."""
    path = folder / f"{len(list(folder.glob('*.yaml')))}.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True)))
    return str(path)


def losses(folder: Path, rank: int = 0) -> list[float]:
    return json.loads((folder / f"losses-{rank}.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def gappy(record: Record) -> Path:
    """A recording in which frames lack sensors and truth, so that batches are of several sizes."""
    return record(27, kinds=2, unlabeled={1, 5, 6}, lacks={("depth", 2), ("depth", 9), ("rgb", 4)})


def compare(found: Sequence[float], wanted: Sequence[float], most: float = 1e-4) -> None:
    assert len(found) == len(wanted)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=most)


# Which frames are whose


@given(
    batch=st.lists(st.integers(0, 10**6), min_size=2, max_size=40, unique=True),
    ranks=st.integers(1, 9),
    size=st.integers(1, 40),
)
def test_shares_are_the_batch_each_frame_once(batch: list[int], ranks: int, size: int) -> None:
    """Joined in the order of the ranks and cut to its length, the shares of a part are the part."""
    parts = parts_of(batch, size)
    assert [f for part in parts for f in part][: len(batch)] == batch
    for part in parts:
        shares = [share_of(part, size, Ranks(rank, ranks)) for rank in range(ranks)]
        assert len({len(share) for share in shares}) == 1
        assert [f for share in shares for f in share][: len(part)] == part
        if len(part) == size and size % ranks == 0:  # nothing is computed twice
            assert sum(map(len, shares)) == size
        elif ranks > 1 and len(part) < size:
            assert len(shares[0]) >= 2


@given(
    frames=st.lists(st.sampled_from([("rgb",), ("rgb", "depth")]), min_size=12, max_size=40),
    ranks=st.integers(1, 3),
    accumulate=st.integers(1, 2),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_ranks_see_what_one_process_sees(
    frames: list[tuple[str, ...]], ranks: int, accumulate: int, epochs: int, seed: int
) -> None:
    config = TrainConfig.model_validate(
        {
            "name": "a",
            "tasks": ["segmentation"],
            "data": {"source": "folder:x"},
            "preprocess": {"modalities": ["rgb"], "grid": {"height": 64, "width": 96}},
            "resolution": [{"crop": [64, 96], "batch": 12}],
            "seed": seed,
            "epochs": epochs,
            "accumulate": accumulate,
        }
    )
    alone = list(EpochBatches(frames, config, range(epochs)))
    each = [
        list(EpochBatches(frames, config, range(epochs), ranks=Ranks(rank, ranks)))
        for rank in range(ranks)
    ]
    for place, part in enumerate(alone):
        shares = [own[place] for own in each]
        assert [draw for share in shares for draw in share][: len(part)] == part
        if len(part) == 12 // accumulate:  # disjoint and complete
            assert sum(map(len, shares)) == len(part) == len({d.frame for s in shares for d in s})


def test_models_draw_for_a_share_what_they_draw_for_all() -> None:
    maps, layer = torch.rand(6, 5, 3, 4), ChannelDropout(0.5)
    torch.manual_seed(3)
    whole = layer(maps), uniform(6, 2, device=maps.device), torch.rand(1)
    found = []
    for start in (0, 2, 4):
        torch.manual_seed(3)
        with rows_from(start, 6):
            own = layer(maps[start : start + 2]), uniform(2, 2, device=maps.device)
        found.append(own)
        assert torch.equal(torch.rand(1), whole[2])  # and as many of them
    assert torch.equal(torch.cat([own[0] for own in found]), whole[0])
    assert torch.equal(torch.cat([own[1] for own in found]), whole[1])
    assert (whole[0] == 0).flatten(2).all(2).any() and (whole[0] != 0).any()


# The same losses


def test_two_processes_have_the_losses_of_one(
    gappy: Path, configure: Configure, tmp_path: Path
) -> None:
    path = written(configure(gappy, epochs=1, **HARD), tmp_path)
    record_losses.main(path, str(tmp_path / "one"))
    done(2, [*RECORDER, path, str(tmp_path / "two")])
    compare(losses(tmp_path / "two"), losses(tmp_path / "one"))
    assert losses(tmp_path / "two", rank=1) == losses(tmp_path / "two")
    rows = [logged(tmp_path / name)[-1] for name in ("one", "two")]
    scores = [{k: v for k, v in row.items() if "/" in k} for row in rows]
    assert scores[0] == scores[1] and scores[0]["rgb+depth/miou"]


@pytest.mark.slow
def test_fifty_losses_are_those_of_one_process(
    gappy: Path, configure: Configure, tmp_path: Path
) -> None:
    path = written(configure(gappy, epochs=8, validate_every=4, **HARD), tmp_path)
    for processes in (1, 2):
        done(processes, [*RECORDER, path, str(tmp_path / str(processes))])
    found, wanted = losses(tmp_path / "2"), losses(tmp_path / "1")
    assert len(found) > 50
    compare(found, wanted)
    assert not np.allclose(found[:7], found[7:14], atol=1e-2)  # there is something to compare


METHODS = [
    {"name": "agm"},
    {"name": "fuller"},
    {"name": "distill", "options": {"average": True, "features": 0.5}},
    {"name": "sandwich"},
]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["name"])
def test_methods_have_the_losses_of_one_process(
    method: dict[str, Any], gappy: Path, configure: Configure, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {**HARD, "method": method}
    if method["name"] == "sandwich":
        options = {"width": 0.25, "decoder_width": 16}
        fields["model"] = {"pretrained": False, "options": options}
    path = written(configure(gappy, epochs=2, **fields), tmp_path)
    for processes in (1, 2):
        done(processes, [*RECORDER, path, str(tmp_path / str(processes))])
    # Sub-networks of a super-network normalize by their own frames, whatever is frozen.
    most = 0.02 if method["name"] == "sandwich" else 1e-3
    compare(losses(tmp_path / "2"), losses(tmp_path / "1"), most)
    assert losses(tmp_path / "2")[0] == pytest.approx(losses(tmp_path / "1")[0], abs=1e-4)
    ends = [json.loads((tmp_path / "2" / f"weights-{rank}.json").read_text()) for rank in (0, 1)]
    assert ends[0] == ends[1]
    logs = [logged(tmp_path / name)[-1] for name in ("1", "2")]
    told = [k for k in logs[0] if k.startswith(f"{method['name']}/")]
    assert told or method["name"] == "distill"
    for name in told:
        assert float(logs[0][name]) == pytest.approx(float(logs[1][name]), rel=1e-2, abs=most)


@pytest.mark.slow
def test_pretraining_has_the_losses_of_one_process(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    model = {"name": "multimae", "pretrained": False, "options": {"size": "micro"}}
    fields = {"precision": "float32", "resolution": FROZEN}
    path = written(configure(record(10), epochs=2, model=model, **fields), tmp_path)
    for processes in (1, 2):
        done(processes, [*RECORDER, path, str(tmp_path / str(processes)), "--pretrain"])
    compare(losses(tmp_path / "2"), losses(tmp_path / "1"))
    errors = [float(logged(tmp_path / n)[-1]["reconstruction"]) for n in ("1", "2")]
    assert errors[0] == pytest.approx(errors[1], abs=1e-4)


@pytest.mark.slow
def test_parts_of_a_batch_are_shared_as_whole_batches_are(
    gappy: Path, configure: Configure, tmp_path: Path
) -> None:
    path = written(configure(gappy, epochs=2, accumulate=2, **HARD), tmp_path)
    for processes in (1, 2):
        done(processes, [*RECORDER, path, str(tmp_path / str(processes))])
    compare(losses(tmp_path / "2"), losses(tmp_path / "1"))


@pytest.mark.parametrize("tasks", [["segmentation"], ["segmentation", "detection"]])
def test_parts_of_equal_truth_give_the_step_of_the_batch(
    record: Record, configure: Configure, tmp_path: Path, tasks: list[str]
) -> None:
    """Where every part has as much truth as the others, and normalizations are frozen: of labels, exactly."""
    torch.set_num_threads(1)
    fields = {"tasks": tasks, "precision": "float32", "resolution": FROZEN}
    fields["loss"] = {"class_balance": 0.0}
    root, ends = record(8, kinds=2), []
    for parts in (1, 2):
        config = configure(root, accumulate=parts, **fields)
        trainer = Trainer(config, tmp_path / str(parts))
        head = trainer.model.trunk.segmentation  # type: ignore[union-attr]
        head.dropout.p = 0.0  # it would draw for each part anew
        trainer.fit()
        ends.append(trainer)
    one, two = (trainer.log[0]["loss"] for trainer in ends)
    assert one == pytest.approx(two, rel=1e-5 if len(tasks) == 1 else 0.05)


@pytest.mark.slow
def test_batch_statistics_are_averaged(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    """Each rank normalizes by its own frames; all keep the same running statistics, and end alike."""
    fields = {"precision": "float32", "resolution": FOURS}
    path = written(configure(record(12), epochs=2, **fields), tmp_path)
    done(2, [*RECORDER, path, str(tmp_path / "run")])
    ends = [json.loads((tmp_path / "run" / f"weights-{r}.json").read_text()) for r in (0, 1)]
    assert ends[0] == ends[1]
    state = load_checkpoint(tmp_path / "run" / LAST)
    norms = [k for k in state.weights if k.endswith("running_mean")]
    assert any(float(state.weights[k].abs().max()) > 0 for k in norms)


# The command line


def logged(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def said(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("anysense: ")]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_all_with_one_line_and_the_run_goes_on(
    victim: int, record: Record, configure: Configure, tmp_path: Path
) -> None:
    frozen = [{**FROZEN[0], "batch": 6}]
    fields = {"precision": "float32", "resolution": frozen, "validate_every": 3}
    path = written(configure(record(48), epochs=6, **fields), tmp_path)
    out = tmp_path / "run"
    errors, status = disturbed(
        path, out, lambda launcher: os.kill(pid_of(launcher, victim), signal.SIGKILL)
    )
    assert status == 1
    told = ("another process of this training", "stopped: Terminated")  # torchrun stops who is left
    assert len(said(errors)) == 1 and any(one in said(errors)[0] for one in told)
    assert "Traceback" not in "".join(line for line in errors.splitlines() if "perception" in line)
    state = load_checkpoint(out / LAST)
    assert state.progress["epoch"] >= 1
    if victim:  # rank 0 kept the step that all had made
        assert state.progress["within"]["step"] in range(9)
    done(1, [*COMMAND, path, "--out", str(tmp_path / "whole")])
    wanted = load_checkpoint(tmp_path / "whole" / LAST)
    for processes in (1, 2, 3):
        copy = tmp_path / f"resumed{processes}"
        shutil.copytree(out, copy)
        result = done(processes, [*COMMAND, path, "--out", str(copy), "--resume"])
        assert result.stdout.count(f"wrote {copy}") == 1
        assert [row["epoch"] for row in logged(copy)] == [*"123456"]
        end = load_checkpoint(copy / LAST)
        for key, tensor in wanted.weights.items():
            torch.testing.assert_close(end.weights[key], tensor, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["all", "one"])
def test_a_signal_stops_all_ranks_after_the_same_step(
    whom: str, record: Record, configure: Configure, tmp_path: Path
) -> None:
    path = written(
        configure(record(48), epochs=50, precision="float32", resolution=FOURS), tmp_path
    )
    out = tmp_path / "run"
    errors, status = disturbed(
        path,
        out,
        lambda launcher: os.kill(
            launcher if whom == "all" else pid_of(launcher, 1), signal.SIGTERM
        ),
    )
    assert status != 0
    assert len(said(errors)) == 1 and "stopped: Terminated" in said(errors)[0]
    assert load_checkpoint(out / LAST).progress["within"]["step"] in range(13)


@pytest.mark.slow
def test_a_budget_is_that_of_all(record: Record, configure: Configure, tmp_path: Path) -> None:
    path = written(configure(record(8), epochs=500, resolution=FOURS), tmp_path)
    result = done(2, [*COMMAND, path, "--out", str(tmp_path / "run"), "--minutes", "0.4"])
    assert result.stdout.count("epochs fit into 0.4 minutes") == 1
    assert len(logged(tmp_path / "run")) >= 2


@pytest.mark.slow
def test_what_several_processes_cannot_do_is_one_line(
    record: Record, configure: Configure, tmp_path: Path
) -> None:
    root = record(8)
    uneven = written(configure(root, resolution=FOURS), tmp_path)
    few = written(configure(root), tmp_path)
    for processes, words, told in (
        (3, ["train", uneven], "a batch of 4 does not divide by 3 (3 processes)"),
        (2, ["train", few], "leaves one frame at a time (2 processes): normalization needs two"),
        (2, ["train", str(tmp_path / "nowhere.yaml")], "nowhere.yaml"),
        (2, ["train", few, "--epoch", "none"], "--epoch"),
        (2, ["adapt", "a", "--data", "folder:x", "--out", "b"], "anysense adapt: runs in one"),
    ):
        result = done(processes, ["-m", "perception.cli.main", *words], status=1)
        assert len(said(result.stderr)) == 1 and told in said(result.stderr)[0]
        assert "exitcode  : 2" in result.stderr
    assert not (Path("runs") / "tiny").exists()


def pid_of(launcher: int, rank: int) -> int:
    """The process of a rank, among the children of `torchrun`."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"there is no rank {rank}")


def disturbed(path: str, out: Path, disturb: Callable[[int], None]) -> tuple[str, int]:
    """What two processes say, and the status, when something is done to them in their second epoch."""
    running = subprocess.Popen(
        launched(2, [*COMMAND, path, "--out", str(out)]),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    ranks: list[int] = []
    try:
        end = time.monotonic() + 150
        while not (out / LAST).exists():
            assert running.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        ranks = [pid_of(running.pid, rank) for rank in (0, 1)]
        time.sleep(1)
        disturb(running.pid)
        _, errors = running.communicate(timeout=120)
    finally:
        for pid in (running.pid, *ranks):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return errors, running.returncode
