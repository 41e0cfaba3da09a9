"""Float16 costs at most what is allowed: layers that lose more stay in float32."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from export.half_bundle import half_error, write_half
from perception.cli.main import main
from perception.errors import EngineError
from perception.runtime.bundle import Bundle
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all
from perception.runtime.engines.selection import load_engines

MakeBundle = Callable[..., Path]


def run_export(*arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
        status = main(["export", *map(str, arguments), "--threads", "1"])
    return status, out.getvalue(), errors.getvalue().strip()


def error_of(bundle: Path, source: Path) -> float:
    manifest = Bundle.open(source).manifest
    inputs, wiring = probe_inputs(manifest.inputs), manifest.wiring
    found, wanted = (
        run_all(load_engines(Bundle.open(b), "cpu", 1), inputs, wiring) for b in (bundle, source)
    )
    return relative_error(found, wanted)


def halves(graph: Path) -> set[str]:
    """Names of the weights that are float16."""
    model = onnx.load(graph)
    return {t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT16}


def test_what_overflows_stays_in_float32(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source, out = make_bundle(gain=3e5), tmp_path / "out"  # about a million between the layers
    assert half_error(Bundle.open(source)) == float("inf")
    choice = write_half(Bundle.open(source), out, threads=1)
    assert 0 < choice.error <= 0.02 and choice.error_all == float("inf")
    assert set(choice.kept) == {"rgb/raise", "rgb/lower"}
    assert halves(out / "encoder_rgb.onnx") == set() and halves(out / "fuser.onnx")
    assert error_of(out, source) <= 0.02, "the ReLU between them keeps their type"
    kept = Bundle.open(out).manifest.quantization["kept_float"]
    assert list(kept) == choice.kept


def test_within_the_limit_nothing_stays(make_bundle: MakeBundle, tmp_path: Path) -> None:
    choice = write_half(Bundle.open(make_bundle()), tmp_path / "out", threads=1)
    assert not choice.kept and 0 < choice.error < 0.002
    told = Bundle.open(tmp_path / "out").manifest.quantization
    assert told["error"] == pytest.approx(choice.error, rel=0.01) and told["max_error"] == 0.02


@pytest.mark.slow
def test_a_smaller_limit_holds_for_a_network(tiny_bundle: Path, tmp_path: Path) -> None:
    limit = 3e-4
    status, printed, error = run_export(
        tiny_bundle, "--precision", "fp16", "--max-error", limit, "--out", tmp_path / "out"
    )
    assert (status, error) == (0, "")
    told = Bundle.open(tmp_path / "out").manifest.quantization
    assert told["error"] <= limit and told["kept_float"]
    assert "layers stay in float32" in printed
    assert error_of(tmp_path / "out", tiny_bundle) <= limit


def test_a_limit_that_cannot_be_held_is_one_line_as_for_int8(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    status, _, error = run_export(
        make_bundle(), "--precision", "fp16", "--max-error", "1e-12", "--out", tmp_path / "out"
    )
    assert status == 2 and "--max-error" in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_real_frames_may_be_given(tiny_bundle: Path, simulated: Path, tmp_path: Path) -> None:
    given = ["--calib-data", f"folder:{simulated}"]
    status, _, error = run_export(
        tiny_bundle, "--precision", "fp16", *given, "--out", tmp_path / "out"
    )
    assert (status, error) == (0, "")
    status, _, error = run_export(
        tiny_bundle, "--precision", "fp16", "--calib-data", f"folder:{tmp_path}", "--out", "x"
    )
    assert status == 2 and "dataset.yaml" in error


def test_plans_in_float16_have_the_limit_too(make_bundle: MakeBundle) -> None:
    pytest.importorskip("tensorrt_rtx")
    source = make_bundle(gain=3e5)
    given = ["--engine", "tensorrt-rtx", "--compute-capability", "8.6", "--build-only"]
    status, _, error = run_export(source, *given)
    assert status == 2 and "\n" not in error
    assert "inf" in error and "--precision mixed" in error
    assert not (source / "engines").exists()


def test_a_bundle_that_is_slower_says_so(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import export.speed

    real = export.speed.time_all

    def slow(*arguments: object) -> float:
        # The new bundle is timed first in every turn.
        slow.turn += 1  # type: ignore[attr-defined]
        return real(*arguments) + (100 if slow.turn % 2 else 0)  # type: ignore[arg-type, attr-defined]

    slow.turn = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(export.speed, "time_all", slow)
    out = tmp_path / "out"
    status, printed, _ = run_export(make_bundle(), "--precision", "fp16", "--out", out)
    assert status == 0
    assert "fp16 is slower than float32 on onnxruntime-cpu here: 0.0" in printed
    (speed,) = Bundle.open(out).records.speed.values()
    assert 0 < speed["onnxruntime-cpu"] < 0.5


def test_the_speed_is_that_of_the_two_bundles(make_bundle: MakeBundle) -> None:
    from export.speed import compare_speed

    small = Bundle.open(make_bundle())
    same = compare_speed(small, small, ["onnxruntime-cpu"], 1)
    assert 0.2 < same["onnxruntime-cpu"] < 5
    assert np.isfinite(same["onnxruntime-cpu"])


def test_the_library_refuses_as_the_command_does(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="within an error of 1e-09"):
        write_half(Bundle.open(make_bundle()), tmp_path / "out", max_error=1e-9, threads=1)
