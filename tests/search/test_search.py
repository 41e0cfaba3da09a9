"""`anysense search` from a super-network to runs, and its parts that need no network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from export.bundle_writer import model_from_checkpoint
from export.int8 import Int8Options, Quantizer
from perception.cli.main import main
from perception.data import open_recording
from perception.errors import ConfigError
from perception.models.anyfuse import AnyFuse
from perception.models.efficientnet_lite import MBConv
from perception.models.elastic import extract
from perception.models.heads import specs_for
from perception.models.layers import SeparableBlock
from perception.runtime.bundle import Bundle
from perception.runtime.pipeline import Pipeline
from perception.search.latency import LatencyModel, LatencyTables, non_negative, signature
from perception.search.search import MIXED, Found, _key, choose, split_frames
from perception.search.space import Candidate, SearchSpace
from perception.training.building import build_from_config, describe_recording
from perception.training.checkpoint import BEST, load_checkpoint, save_checkpoint
from perception.training.config import TrainConfig


class CountingTables(LatencyTables):
    """Instead of a clock: a millisecond for each weight in float, half of that in int8."""

    def measure(self, wanted: object, progress: object) -> None:
        pass

    def __init__(self) -> None:
        self.blocks = self  # type: ignore[assignment]

    def __getitem__(self, key: str) -> float:
        total = 0.0
        for part in key.split(" @ ")[0].split()[1:]:
            sizes, bits = part.split(":")
            total += float(np.prod([int(n) for n in sizes.split("/")[0].split("x")])) * (
                int(bits) / 32
            )
        return total


def test_prediction_is_the_sum_over_the_blocks_that_are_there() -> None:
    model = AnyFuse(("rgb", "depth"), specs_for(segmentation=4), width=0.25, decoder_width=32)
    space = SearchSpace(model)
    latency = LatencyModel(space, CountingTables())
    images = {"rgb": torch.zeros(1, 3, 64, 64), "depth": torch.zeros(1, 2, 64, 64)}
    latency.prepare(model, images, lambda *_: None)
    rng = np.random.default_rng(0)
    for candidate in [space.corner(large=True, int8=False), *(space.draw(rng) for _ in range(4))]:
        decoded = space.decode(candidate)
        small = extract(model, decoded.architecture)
        wanted = sum(
            m.weight.numel() * (0.25 if n in decoded.int8 else 1.0)
            for n, m in small.named_modules()
            if isinstance(m, nn.Conv2d) and not n.startswith("aux_heads")
        )
        assert sum(latency.table_sums(candidate)) == pytest.approx(wanted)
        latency.fit = (2.0, 2.0, 5.0)
        assert latency.milliseconds(candidate) == pytest.approx(2 * wanted + 5)
    in_float, in_int8 = latency.table_sums(space.corner(large=True, int8=True))
    assert in_float == 0 and in_int8 > 0
    latency.fit_to([(1, 0), (2, 0), (0, 2), (0, 4)], [3.0, 5, 7, 13])
    assert latency.fit == pytest.approx((2, 3, 1))
    latency.fit_to([(1, 0), (0, 1)], [2.0, 2])
    assert latency.fit == (2, 2, 0)


def test_no_part_of_the_fit_is_below_zero() -> None:
    latency = LatencyModel(
        SearchSpace(AnyFuse(("rgb",), specs_for(segmentation=2))), CountingTables()
    )
    sums = [(1.0, 0.0), (2.0, 0.0), (0.0, 2.0), (0.0, 4.0), (1.0, 1.0)]
    latency.fit_to(sums, [2 * a + 3 * b - 0.5 for a, b in sums])
    assert min(latency.fit[:2]) > 0 and latency.fit[2] == 0


@given(st.integers(0, 10_000))
def test_least_squares_without_negative_coefficients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design, y = rng.standard_normal((8, 3)), rng.standard_normal(8)
    found = non_negative(design, y)
    gradient = design.T @ (design @ found - y)
    assert (found >= 0).all()
    assert (gradient[found == 0] >= -1e-9).all(), "raising a zero would fit worse"
    assert np.abs(gradient[found > 0]).max(initial=0) < 1e-9


def test_signature_tells_apart_what_differs_in_time() -> None:
    block = MBConv(8, 8, 3, 1, 6)
    keys = {
        signature(block, (1, 8, 16, 16), ()),
        signature(block, (1, 8, 16, 16), ("expand_conv",)),
        signature(block, (1, 8, 32, 16), ()),
        signature(MBConv(8, 8, 5, 1, 6), (1, 8, 16, 16), ()),
        signature(MBConv(8, 8, 3, 2, 6), (1, 8, 16, 16), ()),
        signature(MBConv(8, 8, 3, 1, 4), (1, 8, 16, 16), ()),
        signature(SeparableBlock(8, 3), (1, 8, 16, 16), ()),
        signature(SeparableBlock(8, 3, dilation=2), (1, 8, 16, 16), ()),
    }
    assert len(keys) == 8
    assert signature(MBConv(8, 8, 3, 1, 6), (1, 8, 16, 16), ()) in keys


@pytest.mark.slow
def test_tables_are_measured_once_and_larger_blocks_take_longer(tmp_path: Path) -> None:
    tables = LatencyTables(tmp_path / "latency.json", "onnxruntime-cpu", 1, seconds=0.1)
    small, large = MBConv(8, 8, 3, 1, 2).eval(), MBConv(32, 32, 5, 1, 6).eval()
    wanted = [(small, (1, 8, 16, 16)), (large, (1, 32, 96, 96))]
    tables.measure(wanted, lambda *_: None)
    assert len(tables.blocks) == 6
    first, second = (tables.blocks[signature(u, s, ())] for u, s in wanted)
    assert second > 5 * first
    again = LatencyTables(tmp_path / "latency.json", "onnxruntime-cpu", 1)
    again.measure(wanted, lambda *_: pytest.fail("was timed again"))
    assert again.blocks == tables.blocks


def found(ms: float, score: float) -> Found:
    return Found((), ms, 1.0, {"rgb": score})


def test_choices_along_the_front_and_within_budgets() -> None:
    front = [found(1, 0.1), found(2, 0.3), found(4, 0.4), found(8, 0.5), found(9, 0.6)]
    assert choose(front, [4.5, 100]) == {"within-4.5ms": front[2], "within-100ms": front[4]}
    assert list(choose(front, []).values()) == [front[0], front[2], front[4]]
    assert list(choose(front[:1], []).values()) == [front[0]]
    with pytest.raises(ConfigError, match=r"--budget-ms.*within 0.5 ms, the fastest takes 1.0 ms"):
        choose(front, [0.5])


def test_frames_held_out_are_at_the_end() -> None:
    assert split_frames(5, 0.4) == ([0, 1, 2], [3, 4])
    assert split_frames(3, 0.0) == ([0, 1, 2], [])
    with pytest.raises(ConfigError, match="--held-out"):
        split_frames(1, 0.9)


def save_supernet(folder: Path, data: Path, **options: object) -> Path:
    info = open_recording("folder", data).info
    config = TrainConfig.model_validate(
        {
            "name": "super",
            "tasks": ["segmentation"],
            "model": {
                "pretrained": False,
                "options": {"width": 0.25, "decoder_width": 16, **options},
            },
            "method": {"name": "sandwich"},
            "data": {"source": f"folder:{data}", "val_source": f"folder:{data}"},
            "preprocess": {
                "modalities": ["rgb", "depth"],
                "grid": {"height": 64, "width": 96},
                "depth": {"max_m": 40.0},
            },
        }
    )
    torch.manual_seed(0)
    model = build_from_config(config, info, pretrained=False)
    folder.mkdir()
    progress = {"epoch": 1, "best": 0.0, "recording": describe_recording(info)}
    save_checkpoint(folder / BEST, config, model, model.state_dict(), None, progress)
    return folder


def fitted_networks(run: Path, seed: int) -> list[Candidate]:
    """The networks that the latency's fit is made from: the four corners and some drawn ones."""
    space = SearchSpace(model_from_checkpoint(load_checkpoint(run)))  # type: ignore[arg-type]
    corners = [space.corner(large=a, int8=b) for a in (True, False) for b in (True, False)]
    rng = np.random.default_rng(seed)
    return [*corners, *(space.draw(rng) for _ in range(MIXED))]


QUICK = ["--initial", "5", "--rounds", "1", "--per-round", "2", "--verify", "1"]
QUICK += ["--held-out", "0.3", "--backend", "onnxruntime-cpu"]


@pytest.mark.slow
def test_search_resumes_and_its_runs_are_exported_and_run(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_supernet(tmp_path / "super", simulated)
    out = tmp_path / "found"
    argv = ["search", str(run), "--data", f"folder:{simulated}", "--out", str(out), *QUICK]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "front-1" in printed and "latency relative error" in printed
    pareto = json.loads((out / "pareto.json").read_text())
    front = pareto["front"]
    assert [f["predicted_ms"] for f in front] == sorted(f["predicted_ms"] for f in front)
    assert [f["score"] for f in front] == sorted(f["score"] for f in front)
    assert len(front) + len(pareto["others"]) >= 5
    # The errors of the predictors are over networks that the fit has not seen: what was timed besides.
    fitted = {_key(c) for c in fitted_networks(run, seed=0)}
    timed = json.loads((out / "search.json").read_text())["timed"]
    assert fitted < timed.keys(), "the fit's networks, and some of the front"
    assert pareto["predictors"]["latency_networks"] == len(timed.keys() - fitted)
    assert 0 <= pareto["predictors"]["latency_relative_error"] < 100
    assert (out / "pareto.png").stat().st_size > 5000

    state = (out / "search.json").read_bytes()
    assert main(argv) == 0, "goes on with what is there"
    assert (out / "search.json").read_bytes() == state
    assert main([*argv, "--seed", "1"]) == 2
    assert "search with other settings" in capsys.readouterr().err

    chosen = next(f for f in front if f["chosen_as"])
    folder = out / chosen["chosen_as"]
    config = load_checkpoint(folder).config
    assert config.model.int8 == chosen["int8"]
    assert main(["export", str(folder), "--out", str(tmp_path / "bundle")]) == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.training["command"].startswith("anysense search")
    pipeline = Pipeline.load(str(bundle.path), device="cpu")
    result = pipeline(open_recording("folder", simulated).frame(0))
    assert result.used == ("rgb", "depth")

    recording = open_recording("folder", simulated)
    only = frozenset(["trunk.late.0.0.project_conv", "encoders.rgb.stem.conv"])
    quantizer = Quantizer(bundle, recording, Int8Options(4, only=only))
    assert {layer.module for _, layer in quantizer.layers()} == only
    none = Quantizer(bundle, recording, Int8Options(4, only=frozenset()))
    with pytest.raises(ConfigError, match="none of its layers"):
        none.run(tmp_path / "int8")


def test_files_of_a_search_that_are_none_are_one_line(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = save_supernet(tmp_path / "super", simulated)
    for name, content, told in (
        ("search.json", b"\xff\xfe\0", "search.json"),
        ("search.json", b"{", "not JSON"),
        ("search.json", b"[]", "is no state of a search"),
        ("search.json", b'{"settings": {}, "timed": [], "scores": {}, "held_out": {}}', "no state"),
        (
            "search.json",
            b'{"settings": {}, "timed": {"0": "x"}, "scores": {}, "held_out": {}}',
            "no s",
        ),
        ("latency.json", b"null", "is no latency table"),
        ("latency.json", b'{"blocks": {"a": NaN}}', "is no latency table"),
        ("latency.json", b'{"blocks": {}, "backend": "abacus"}', "measured with backend abacus"),
        ("latency.json", b"[" * 100_000, "nested too deeply"),
    ):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        (out / name).write_bytes(content)
        argv = ["search", str(run), "--data", f"folder:{simulated}", "--out", str(out), *QUICK]
        assert main(argv) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and told in error and name in error, content
        assert (out / name).read_bytes() == content
        (out / name).unlink()


def test_a_table_that_cannot_be_written_stays(tmp_path: Path) -> None:
    tables = LatencyTables(tmp_path / "latency.json", "onnxruntime-cpu", 1)
    tables.blocks = {"a": 1.0}
    tables._save()
    before = tables.path.read_bytes()
    tables.path = tmp_path / "nowhere" / "latency.json"
    with pytest.raises(ConfigError, match="cannot be written"):
        tables._save()
    assert (tmp_path / "latency.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["latency.json"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--objectives", "speed"], "--objectives: no objective 'speed' (one of latency, size)"),
        (["--budget-ms", "0"], "--budget-ms: must be positive"),
        (["--budget-ms", "5", "--objectives", "size"], "--budget-ms: needs the objective latency"),
        (["--initial", "2"], "--initial: must be at least 4"),
        (["--held-out", "1"], "--held-out: must be 0 or more"),
        (["--backend", "abacus"], "unknown device 'abacus'"),
    ],
)
def test_bad_arguments_give_one_line(
    extra: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["search", str(tmp_path), "--data", "folder:none", "--out", str(tmp_path / "out")]
    assert main([*argv, *extra]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_refuses_runs_and_recordings_that_do_not_fit(
    simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", f"folder:{simulated}", "--out", str(tmp_path / "out")]
    assert main(["search", str(tmp_path / "nothing"), *data]) == 2
    assert "no such checkpoint" in capsys.readouterr().err
    shared = save_supernet(tmp_path / "shared", simulated, encoders="shared")
    assert main(["search", str(shared), *data]) == 2
    assert "separate encoders" in capsys.readouterr().err
