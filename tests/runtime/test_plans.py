"""Plan files: what is damaged, stale or another one's never reaches TensorRT."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.errors import EngineError
from perception.files.containers import Folder
from perception.runtime.engines.base import BackendMissingError
from perception.runtime.engines.cuda_driver import Gpu
from perception.runtime.engines.plans import (
    FOLDER,
    PlanFile,
    PlanHeader,
    locked,
    plans_for,
    write_plan,
)
from perception.runtime.engines.tensorrt import FittingPlan, TensorRtEngine, choose_plan

HEADER = PlanHeader(
    kind="tensorrt-rtx",
    graph="fuser.onnx",
    onnx_sha256="0" * 64,
    precision="fp16",
    shapes={"presence": (4,)},
    builder="1.0",
    compute_capabilities=("8.6", "8.9"),
)
PLAN = bytes(range(256)) * 20


def _file(path: Path) -> PlanFile:
    return PlanFile(Folder(path.parent, EngineError), path.name)


def _read(path: Path) -> tuple[PlanHeader, bytes]:
    return _file(path).check(_file(path).content())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = write_plan(tmp_path, HEADER, PLAN)
    header, plan = _read(path)
    assert plan == PLAN
    assert header.key == HEADER.key
    assert header.plan_bytes == len(PLAN)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_key_changes_with_everything_that_matters_and_nothing_else() -> None:
    changes = {
        "onnx_sha256": "1" * 64,
        "precision": "fp32",
        "shapes": {"presence": (5,)},
        "builder": "1.1",
        "compute_capabilities": ("8.6",),
        "gpu": "RTX",
        "driver": "13.0",
        "options": {"dla": "0"},
        "kind": "tensorrt",
        "graph": "encoder_rgb.onnx",
    }
    keys = {HEADER.model_copy(update={k: v}).key for k, v in changes.items()}
    assert len(keys | {HEADER.key}) == len(changes) + 1
    assert HEADER.model_copy(update={"seconds": 9.0, "plan_bytes": 3}).key == HEADER.key


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path: Path, position: int, bit: int) -> None:
    path = write_plan(tmp_path, HEADER, PLAN)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        header, plan = _read(path)
    except EngineError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
    else:  # only the note of how long it took does not matter
        assert plan == PLAN
        assert header.key == HEADER.key


@pytest.mark.parametrize("size", [0, 5, 18, 100, 2000])
def test_a_cut_off_plan_is_found(tmp_path: Path, size: int) -> None:
    path = write_plan(tmp_path, HEADER, PLAN)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(EngineError, match=path.name):
        _read(path)


def test_a_plan_under_anothers_name_is_found(tmp_path: Path) -> None:
    path = write_plan(tmp_path, HEADER, PLAN)
    other = write_plan(tmp_path, HEADER.model_copy(update={"precision": "fp32"}), PLAN)
    path.write_bytes(other.read_bytes())
    with pytest.raises(EngineError, match="another one's"):
        _read(path)


def test_a_plan_of_another_graph_is_stale(tmp_path: Path) -> None:
    path = write_plan(tmp_path, HEADER, PLAN)
    assert _file(path).fits("0" * 64).precision == "fp16"
    with pytest.raises(EngineError, match="another graph"):
        _file(path).fits("1" * 64)


def test_the_engine_checks_the_plan_before_it_looks_for_a_gpu(tmp_path: Path) -> None:
    onnx = tmp_path / "fuser.onnx"
    onnx.write_bytes(b"graph")
    with pytest.raises(BackendMissingError, match="no tensorrt-rtx plan"):
        TensorRtEngine(onnx, "tensorrt-rtx")
    path = write_plan(tmp_path / FOLDER, HEADER, PLAN)
    assert [str(p) for p in plans_for(onnx, "tensorrt-rtx")] == [str(path)]
    with pytest.raises(EngineError, match="another graph"):
        TensorRtEngine(onnx, "tensorrt-rtx")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match="cut off"):
        TensorRtEngine(onnx, "tensorrt-rtx")


def test_only_a_plan_for_this_version_and_gpu_is_chosen() -> None:
    gpu = Gpu(0, "RTX 3060", "8.6", 1, False)
    onnx = "fuser.onnx"
    old = HEADER.model_copy(update={"builder": "0.9"})
    plans = [FittingPlan(old, b"a"), FittingPlan(HEADER, b"b")]
    assert choose_plan(plans, "1.0", gpu, onnx).plan == b"b"
    for wrong, reason in (
        ({"builder": "0.9"}, "built by TensorRT 0.9, here is 1.0"),
        ({"gpu": "A100"}, "built for A100, here is RTX 3060"),
        ({"compute_capabilities": ("12.0",)}, "compute capability 12.0, here is 8.6"),
    ):
        with pytest.raises(EngineError, match=reason):
            choose_plan([FittingPlan(HEADER.model_copy(update=wrong), b"")], "1.0", gpu, onnx)
    lenient = {"builder": "0.9", "options": {"version_compatible": "True"}}
    assert choose_plan([FittingPlan(HEADER.model_copy(update=lenient), b"c")], "1.0", gpu, onnx)


def _count_up(folder: Path, rounds: int) -> None:
    counter = folder / "counter"
    for _ in range(rounds):
        with locked(folder, "x"):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_only_one_process_builds_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_up, args=(tmp_path, 20)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert (tmp_path / "counter").read_text() == "40"


def test_waiting_for_another_builder_ends(tmp_path: Path) -> None:
    late = locked(tmp_path, "x", patience_s=0.1)
    with locked(tmp_path, "x"), pytest.raises(EngineError, match="too long"), late:
        pass
