"""Calibration on what is there: short recordings, mixed sizes, and frames that lack a sensor."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.calibration_frames import (
    inputs_of,
    network_inputs,
    pick_frames,
    require_sensors,
    usual_frames,
)
from export.half_bundle import choose_float_layers
from export.int8 import Int8Options, Quantizer
from perception.cli.main import main
from perception.data.base import Recording
from perception.data.registry import open_recording
from perception.errors import ConfigError
from perception.frame import MODALITIES, Frame
from perception.preprocess.contract import InputSpec, PreprocessContract
from perception.runtime.bundle import Bundle


class Lacking(Recording):
    """A recording some of whose frames lack sensors.

    Args:
        whole: the frames.
        lacks: whether frame `index` lacks a modality.
        count: how many frames; those of `whole` are repeated.
    """

    def __init__(self, whole: Recording, lacks, count: int | None = None) -> None:  # type: ignore[no-untyped-def]
        ids = [str(i) for i in range(len(whole) if count is None else count)]
        super().__init__(whole.root, whole.info, ids)
        self.whole, self.lacks = whole, lacks
        self.read: list[int] = []

    def frame(self, index: int) -> Frame:
        self.read.append(index)
        found = self.whole.frame(index % len(self.whole))
        return Frame({m: s for m, s in found.items() if not self.lacks(index, m)})

    def truth(self, index: int):  # type: ignore[no-untyped-def]
        return self.whole.truth(index % len(self.whole))


@pytest.fixture
def whole(simulated: Path) -> Recording:
    return open_recording("folder", simulated)


@pytest.mark.parametrize("available", range(2, 60))
def test_what_is_usual_can_be_picked(available: int, whole: Recording) -> None:
    recording = Lacking(whole, lambda i, m: False, available)
    calibrate = usual_frames(available)
    calibrated, checked = pick_frames(recording, calibrate, 3)
    assert len(calibrated) == calibrate and 1 <= len(checked) <= 3
    assert not set(calibrated) & set(checked)
    assert {*calibrated, *checked} <= set(range(available))
    if available >= 27:
        assert (calibrate, len(checked)) == (24, 3)


def test_too_few_are_told(whole: Recording) -> None:
    for count, told in ((1, "1 frame is too few"), (0, "0 frames are too few")):
        with pytest.raises(ConfigError, match=told):
            pick_frames(Lacking(whole, lambda i, m: False, count), usual_frames(count), 3)


def test_frames_are_looked_for_only_where_a_sensor_lacks(tiny_bundle: Path, whole) -> None:  # type: ignore[no-untyped-def]
    contract = Bundle.open(tiny_bundle).manifest.inputs
    complete = Lacking(whole, lambda i, m: False, 30)
    assert [i for i, _ in inputs_of(complete, contract, [3, 9])] == [3, 9]
    assert complete.read == [3, 9]
    late = Lacking(whole, lambda i, m: m == "depth" and i < 20, 30)
    assert [i for i, _ in inputs_of(late, contract, [3, 9])] == [3, 9, 20]
    avoiding = Lacking(whole, lambda i, m: m == "depth" and i < 20, 30)
    assert [i for i, _ in inputs_of(avoiding, contract, [3], avoid=[20, 21])] == [3, 22]
    only = Lacking(whole, lambda i, m: m == "depth" and i != 20, 30)
    assert [i for i, _ in inputs_of(only, contract, [3], avoid=[20])] == [3, 20]
    never = Lacking(whole, lambda i, m: m in ("depth", "lidar"), 5)
    with pytest.raises(ConfigError, match="--calib-data: no frame has depth, which the bundle"):
        list(inputs_of(never, contract, [3]))


def quantizer(bundle: Path, recording: Recording, frames: int = 3) -> Quantizer:
    return Quantizer(Bundle.open(bundle), recording, Int8Options(frames, threads=1))


def test_a_frame_that_lacks_a_sensor_counts_with_what_it_has(tiny_bundle: Path, whole) -> None:  # type: ignore[no-untyped-def]
    recording = Lacking(whole, lambda i, m: m == "depth" and i % 2 == 1)
    measured = quantizer(tiny_bundle, recording, 6)
    thresholds = measured._calibrate()
    assert len(set(measured.calibrated)) == 6
    assert all(t > 0 for graph in thresholds.values() for t in graph.values())
    complete = quantizer(tiny_bundle, whole, 6)._calibrate()
    # RGB was there in every frame: what is said of its encoder is the same.
    assert thresholds["rgb"] == complete["rgb"] and thresholds["depth"] != complete["depth"]
    model = measured.measure.models["rgb"]
    assert measured.measure.error({"rgb": model}) == 0.0
    assert all(np.isfinite(v).all() for c in measured.measure._checks for o in c.wanted.values()
               for v in o.values())  # fmt: skip


def test_where_none_of_those_picked_has_it_others_are_taken(tiny_bundle: Path, whole) -> None:  # type: ignore[no-untyped-def]
    recording = Lacking(whole, lambda i, m: m == "thermal" and i != 13)
    measured = quantizer(tiny_bundle, recording)
    thresholds = measured._calibrate()
    assert 13 in measured.calibrated and len(measured.calibrated) == 4
    assert all(np.isfinite(t) for t in thresholds["thermal"].values())
    assert measured.measure.error({}) == 0.0  # the only frame with thermal is checked on, too
    assert any("thermal" in c.inputs for c in measured.measure._checks)
    assert len(recording) == 14


def test_which_layers_need_float32_is_measured_on_such_frames(tiny_bundle: Path, whole) -> None:  # type: ignore[no-untyped-def]
    recording = Lacking(whole, lambda i, m: m == "lidar" and i != 5)
    choice = choose_float_layers(Bundle.open(tiny_bundle), recording, 3, 0.5, 1)
    assert 0 < choice.error < 0.5
    short = Lacking(whole, lambda i, m: False, 1)
    assert choose_float_layers(Bundle.open(tiny_bundle), short, 3, 0.5, 1).error > 0


def test_an_empty_frame_is_passed_over(tiny_bundle: Path, whole) -> None:  # type: ignore[no-untyped-def]
    contract = Bundle.open(tiny_bundle).manifest.inputs
    recording = Lacking(whole, lambda i, m: i == 0)
    assert [i for i, _ in inputs_of(recording, contract, [0, 1])] == [1]
    assert set(network_inputs(recording.frame(1), contract)) == set(MODALITIES)


def quantize(bundle: Path, data: Path, out: Path, *more: str) -> tuple[int, str, str]:
    printed, errors = io.StringIO(), io.StringIO()
    command = ["export", str(bundle), "--precision", "int8", "--calib-data", f"folder:{data}"]
    command += ["--judge-frames", "1", "--max-error", "0.5", "--threads", "1", "--out", str(out)]
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(printed):
        status = main([*command, *more])
    return status, printed.getvalue(), errors.getvalue().strip()


def shortened(data: Path, out: Path, frames: int) -> Path:
    shutil.copytree(data, out)
    lines = (out / "frames.csv").read_text().splitlines()
    (out / "frames.csv").write_text("\n".join(lines[: frames + 1]) + "\n")
    return out


@pytest.mark.slow
def test_the_command_on_a_recording_with_gaps(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    data = shortened(simulated, tmp_path / "data", 3)
    for path in (data / "depth").glob("000001.*"):
        path.unlink()
    status, printed, error = quantize(tiny_bundle, data, tmp_path / "out")
    assert (status, error) == (0, "")
    assert "calibrated on 2 frames, all that the recording can spare; 24 are usual" in printed
    assert Bundle.open(tmp_path / "out").manifest.quantization["frames"] == 2


@pytest.mark.parametrize("frames", [0, 1])
def test_a_recording_of_one_frame_is_one_line(
    frames: int, tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    data = shortened(simulated, tmp_path / "data", frames)
    status, _, error = quantize(tiny_bundle, data, tmp_path / "out")
    assert status == 2 and "\n" not in error and "frame" in error
    assert not (tmp_path / "out").exists()


def test_a_sensor_that_no_frame_has_is_one_line(
    tiny_bundle: Path, simulated: Path, tmp_path: Path
) -> None:
    data = shortened(simulated, tmp_path / "data", 6)
    for path in (data / "depth").iterdir():
        path.unlink()
    status, _, error = quantize(tiny_bundle, data, tmp_path / "out")
    warning, error = error.splitlines()  # of a recording without what it lists
    assert status == 2 and "depth" in warning and "depth" in error
    assert not (tmp_path / "out").exists()


def test_sensors_of_another_kind_are_none_to_calibrate_on(whole: Recording) -> None:
    contract = PreprocessContract({"left": InputSpec(kind="rgb"), "depth": InputSpec(kind="depth")})
    for sensors, line in (
        ({"left": "rgb", "depth": "depth", "rear": "rgb"}, ""),
        (
            {"left": "thermal", "depth": "depth"},
            "has no rgb left (it is thermal), which the bundle",
        ),
        ({"left": "thermal"}, "has no depth, rgb left (it is thermal), which the bundle takes"),
        ({"rgb": "rgb", "depth": "depth"}, "has no left, which the bundle takes"),
    ):
        recording = Lacking(whole, lambda i, m: False)
        recording.info = replace(whole.info, sensors=sensors, labels_of="")
        if not line:
            require_sensors(recording, contract)
            continue
        with pytest.raises(ConfigError) as caught:
            require_sensors(recording, contract)
        assert str(caught.value).startswith(f"--calib-data: {line}")
