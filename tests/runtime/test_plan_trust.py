"""Plans are programs: only those run that this machine built, or that the user trusts."""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perception.errors import BundleError, EngineError
from perception.frame import Sample
from perception.runtime.bundle import Bundle, GraphSource
from perception.runtime.engines import (
    built_here,
    cuda_driver,
    cuda_engine,
    measured,
    selection,
    tensorrt,
)
from perception.runtime.engines.base import UntrustedPlanError
from perception.runtime.engines.built_here import Note
from perception.runtime.engines.cuda_driver import Driver, Gpu
from perception.runtime.engines.plans import (
    FOLDER,
    PlanHeader,
    all_plans,
    keep_built,
    plan_file,
    verify_plans,
    write_plan,
)
from perception.runtime.engines.tensorrt import TensorRtEngine, fitting_plans
from perception.runtime.pipeline import Pipeline

GRAPH = "0" * 64
PLAN = b"a program"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own, as of another process: what was built before is not remembered."""
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(built_here, "_known", {})
    return tmp_path / "cache"


@pytest.fixture
def another_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: built_here._known.clear()


def _header(folder: Path, file: str, small: Any, kind: str = "tensorrt", **more: Any) -> Any:
    return PlanHeader(
        kind=kind,
        graph=file,
        onnx_sha256=small.sha256(folder / file),
        precision="fp16",
        shapes={},
        builder="10.0",
        compute_capabilities=("8.6",),
        **more,
    )


def _fill(folder: Path, small: Any, write: Any = write_plan, **more: Any) -> None:
    """Plans for all graphs of a bundle."""
    for file in ("encoder_rgb.onnx", "fuser.onnx"):
        write(folder / FOLDER, _header(folder, file, small, **more), PLAN)


def test_a_note_is_kept_by_graph_and_plan(cache: Path, another_process: Callable[[], None]) -> None:
    assert built_here.look_up(GRAPH, PLAN) is None
    assert built_here.note(GRAPH, PLAN, Note(False))
    assert built_here.note(GRAPH, PLAN + b"2", Note(True))
    for _ in range(2):
        assert built_here.look_up(GRAPH, PLAN) == Note(False)
        assert built_here.look_up(GRAPH, PLAN + b"2") == Note(True)
        assert built_here.look_up("1" * 64, PLAN) is None
        assert built_here.look_up(GRAPH, PLAN + b"3") is None
        another_process()
    notes = list((cache / "plans").iterdir())
    assert len(notes) == 2
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in notes)
    assert stat.S_IMODE((cache / "plans").stat().st_mode) & 0o022 == 0


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"host_code": 1}', '{"host_code": null}'])
def test_a_damaged_note_counts_for_nothing(
    cache: Path, another_process: Callable[[], None], damage: str
) -> None:
    built_here.note(GRAPH, PLAN, Note(False))
    another_process()
    (path,) = (cache / "plans").iterdir()
    path.write_text(damage)
    assert built_here.look_up(GRAPH, PLAN) is None
    path.write_text(json.dumps({"host_code": True, "more": 1}))
    assert built_here.look_up(GRAPH, PLAN) == Note(True)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_note_that_others_can_write_counts_for_nothing(
    cache: Path, another_process: Callable[[], None], mode: int
) -> None:
    built_here.note(GRAPH, PLAN, Note(False))
    another_process()
    (path,) = (cache / "plans").iterdir()
    path.chmod(mode)
    assert built_here.look_up(GRAPH, PLAN) is None
    path.chmod(0o644)
    assert built_here.look_up(GRAPH, PLAN) == Note(False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_note_of_another_user_counts_for_nothing(
    cache: Path, another_process: Callable[[], None]
) -> None:
    built_here.note(GRAPH, PLAN, Note(False))
    another_process()
    (path,) = (cache / "plans").iterdir()
    os.chown(path, 12345, 12345)
    assert built_here.look_up(GRAPH, PLAN) is None


def test_without_a_home_this_process_alone_remembers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    another_process: Callable[[], None],
    small: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(built_here, "_known", {})
    for name in (measured.CACHE_VARIABLE, "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    folder = small()
    header = _header(folder, "fuser.onnx", small)
    with caplog.at_level(logging.WARNING):
        keep_built(folder / FOLDER, header, PLAN)
    assert len(caplog.records) == 1 and "--trust-plans" in caplog.text
    source = GraphSource.of(folder / "fuser.onnx")
    assert len(fitting_plans(source, "tensorrt")) == 1
    another_process()
    with pytest.raises(UntrustedPlanError):
        fitting_plans(source, "tensorrt")


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built_here, "_known", {})
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(measured.CACHE_VARIABLE, str(tmp_path / "file/cache"))
    assert not built_here.note(GRAPH, PLAN, Note(False))
    assert built_here.look_up(GRAPH, PLAN) == Note(False)
    monkeypatch.setattr(built_here, "_known", {})
    assert built_here.look_up(GRAPH, PLAN) is None


def test_a_strangers_plan_is_refused_unless_it_is_trusted(cache: Path, small: Any) -> None:
    folder = small()
    _fill(folder, small, options={"version_compatible": "True"})
    bundle = Bundle.open(folder)
    source = bundle.source("fuser.onnx")
    with pytest.raises(UntrustedPlanError, match="not built on this machine.*--trust-plans") as e:
        fitting_plans(source, "tensorrt")
    assert "\n" not in str(e.value) and "fuser.tensorrt" in str(e.value)
    trusted = bundle.source("fuser.onnx", trust_plans=True)
    (found,) = fitting_plans(trusted, "tensorrt")
    assert (found.plan, found.host_code) == (PLAN, True)


def test_what_the_file_says_of_itself_does_not_let_it_run_code(cache: Path, small: Any) -> None:
    """Version compatible plans bring code; whether this one may run it, the note says."""
    folder = small()
    source = Bundle.open(folder).source("fuser.onnx")
    options = {"version_compatible": "True"}
    for host_code in (False, True):
        header = _header(folder, "fuser.onnx", small, gpu=str(host_code), options=options)
        keep_built(folder / FOLDER, header, PLAN, host_code=host_code)
    found = {p.header.gpu: p.host_code for p in fitting_plans(source, "tensorrt")}
    assert found == {"False": False, "True": True}


def test_plans_built_here_run_and_strangers_beside_them_do_not(cache: Path, small: Any) -> None:
    folder = small()
    own = keep_built(folder / FOLDER, _header(folder, "fuser.onnx", small), PLAN)
    os.utime(own, (1e9, 1e9))
    write_plan(folder / FOLDER, _header(folder, "fuser.onnx", small, gpu="newer"), b"evil")
    (found,) = fitting_plans(Bundle.open(folder).source("fuser.onnx"), "tensorrt")
    assert found.plan == PLAN
    # A plan that takes the place, and the name, of one that was built here is not the same plan.
    header = _header(folder, "fuser.onnx", small)
    write_plan(folder / FOLDER, header, b"evil")
    with pytest.raises(UntrustedPlanError):
        fitting_plans(Bundle.open(folder).source("fuser.onnx"), "tensorrt")


def test_a_plan_goes_with_the_graph_that_it_was_built_from(cache: Path, small: Any) -> None:
    """The same bytes under another graph's header are not trusted for that graph."""
    folder = small()
    fuser = _header(folder, "fuser.onnx", small)
    keep_built(folder / FOLDER, fuser, PLAN)
    write_plan(folder / FOLDER, _header(folder, "encoder_rgb.onnx", small), PLAN)
    bundle = Bundle.open(folder)
    assert fitting_plans(bundle.source("fuser.onnx"), "tensorrt")
    with pytest.raises(UntrustedPlanError):
        fitting_plans(bundle.source("encoder_rgb.onnx"), "tensorrt")
    assert {p.name: p.built_here() is not None for p in all_plans(bundle)} == {
        f"engines/{fuser.file}": True,
        f"engines/{_header(folder, 'encoder_rgb.onnx', small).file}": False,
    }
    assert verify_plans(bundle) == 2


def test_plans_in_a_zip_are_plans_too(cache: Path, small: Any) -> None:
    folder = small()
    _fill(folder, small, keep_built)
    archive = shutil.make_archive(str(folder), "zip", folder)
    bundle = Bundle.open(archive)
    assert verify_plans(bundle) == 2
    assert fitting_plans(bundle.source("fuser.onnx"), "tensorrt")[0].plan == PLAN


def test_links_among_plans_are_refused(cache: Path, small: Any, tmp_path: Path) -> None:
    folder = small()
    _fill(folder, small, keep_built)
    shutil.move(folder / FOLDER, tmp_path / "outside")
    (folder / FOLDER).symlink_to(tmp_path / "outside")
    bundle = Bundle.open(folder)
    for call in (
        lambda: verify_plans(bundle),
        lambda: fitting_plans(bundle.source("fuser.onnx"), "tensorrt"),
        lambda: Pipeline.load(folder, "auto", threads=1),
    ):
        with pytest.raises(BundleError, match="engines: is a link"):
            call()
    (folder / FOLDER).unlink()
    (folder / FOLDER).mkdir()
    plan = next((tmp_path / "outside").glob("fuser.*"))
    (folder / FOLDER / plan.name).symlink_to(plan)
    with pytest.raises(BundleError, match=r"\.plan: is a link"):
        verify_plans(bundle)


def _fake(monkeypatch: pytest.MonkeyPatch, gpus: int) -> list[Any]:
    """As if TensorRT and a GPU were here; what would be loaded is noted instead."""
    gpu = Gpu(0, "RTX 3060", "8.6", 1, False)
    driver = Driver("13.0", (gpu,) * gpus, "" if gpus else "no NVIDIA driver")
    for module in (cuda_driver, selection):
        monkeypatch.setattr(module, "examine_driver", lambda: driver)
    monkeypatch.setattr(tensorrt, "find_spec", lambda name: object())
    monkeypatch.setattr(tensorrt, "import_module", lambda name: SimpleNamespace(__version__="10.0"))
    loaded: list[Any] = []

    class Memory:
        def current(self) -> Any:
            raise EngineError("no such GPU")

    def memory(device: int) -> Memory:
        loaded.append(device)
        return Memory()

    monkeypatch.setattr(cuda_engine, "cuda_memory", memory)
    return loaded


@pytest.mark.parametrize("gpus", [0, 1])
def test_auto_leaves_strangers_plans_aside_and_says_so_where_they_would_run(
    cache: Path,
    small: Any,
    rgb: Sample,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gpus: int,
) -> None:
    folder = small()
    _fill(folder, small)
    touched = _fake(monkeypatch, gpus)
    with caplog.at_level(logging.WARNING):
        result = Pipeline.load(folder, "auto", threads=1)({"rgb": rgb})
    assert result.backend.startswith(("onnxruntime", "openvino")) and not touched
    lines = [r.getMessage() for r in caplog.records]
    assert len(lines) == gpus
    assert all("not built on this machine" in x and "next backend" in x for x in lines)


@pytest.mark.parametrize(("how", "tried"), [("strange", 0), ("trusted", 1), ("built", 1)])
def test_nothing_of_a_strangers_plan_reaches_tensorrt(
    cache: Path, small: Any, monkeypatch: pytest.MonkeyPatch, how: str, tried: int
) -> None:
    folder = small()
    _fill(folder, small, keep_built if how == "built" else write_plan)
    touched = _fake(monkeypatch, 1)
    error = UntrustedPlanError if how == "strange" else EngineError
    with pytest.raises(error, match="not built on this" if how == "strange" else "no such GPU"):
        Pipeline.load(folder, "tensorrt", threads=1, trust_plans=how == "trusted")
    assert len(touched) == tried


def test_a_change_of_device_keeps_what_the_user_said(
    cache: Path, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small()
    _fill(folder, small)
    touched = _fake(monkeypatch, 1)
    for trust, error in ((False, "not built on this machine"), (True, "no such GPU")):
        pipeline = Pipeline.load(folder, "cpu", threads=1, trust_plans=trust)
        with pytest.raises(EngineError, match=error):
            pipeline.use_device("tensorrt")
    assert len(touched) == 1


def test_the_engine_lets_a_plan_run_code_only_where_it_is_noted(
    cache: Path, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down to the runtime's switch, with TensorRT's classes replaced by ones that write it down."""
    seen: list[bool] = []

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> None:
            seen.append(self.engine_host_code_allowed)

    class Logger:
        ERROR = 0

        def __init__(self, level: int) -> None: ...

    trt = SimpleNamespace(Runtime=Runtime, Logger=Logger, CudaGraphStrategy=None)
    folder = small()
    header = _header(folder, "fuser.onnx", small, options={"version_compatible": "True"})
    for allowed in (False, True):
        engine = TensorRtEngine.__new__(TensorRtEngine)
        with pytest.raises(EngineError, match="refuses the plan"):
            engine._load(trt, tensorrt.FittingPlan(header, PLAN, allowed), "here")
    assert seen == [False, True]


def _anysense(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", *map(str, arguments)]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--bundle", "B", "--rgb", "x.png", "--out", "o"),
        ("eval", "B", "--data", "folder:D"),
        ("bench", "B"),
        ("bench-zoo", "B", "--data", "folder:D"),
        ("demo", "--data", "folder:D"),
        ("replay", "BAG", "--bundle", "B", "--out", "o"),
        ("view", "--data", "folder:D", "--bundle", "B"),
        ("export", "B"),
    ],
)
def test_every_command_that_takes_a_device_takes_trust(command: tuple[str, ...]) -> None:
    from perception.cli.main import build_parser

    parser = build_parser()
    assert parser.parse_args([*command]).trust_plans is False
    assert parser.parse_args([*command, "--trust-plans"]).trust_plans is True


def test_verify_says_which_plans_were_built_elsewhere(small: Any, tmp_path: Path) -> None:
    folder = small()
    _fill(folder, small)
    done = _anysense("bundle", "verify", folder, ANYSENSE_CACHE=str(tmp_path / "c"))
    assert done.returncode == 0 and "2 plans are whole" in done.stdout
    assert "2 of them were not built on this machine" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="no TensorRT for RTX")
def test_a_real_plan_is_trusted_where_it_was_built_and_nowhere_else(
    small: Any, tmp_path: Path
) -> None:
    folder = small()
    build = ("export", folder, "--engine", "tensorrt-rtx", "--compute-capability", "8.6")
    here, there = ({"ANYSENSE_CACHE": str(tmp_path / n)} for n in ("here", "there"))
    first = _anysense(*build, "--build-only", **here)
    assert first.returncode == 0, first.stderr
    assert "built in" in first.stdout
    assert "there already" in _anysense(*build, "--build-only", **here).stdout
    assert "not built" not in _anysense("bundle", "verify", folder, **here).stdout
    assert "2 of them were not built" in _anysense("bundle", "verify", folder, **there).stdout
    # Another machine builds its own in the place of the stranger's.
    again = _anysense(*build, "--build-only", **there)
    assert again.returncode == 0 and "there already" not in again.stdout
    assert "not built" not in _anysense("bundle", "verify", folder, **there).stdout


def test_the_whole_file_is_what_is_noted() -> None:
    """A header that is changed makes another plan, whatever its own checksum says."""
    one = PlanHeader(
        kind="tensorrt",
        graph="g.onnx",
        onnx_sha256=GRAPH,
        precision="fp16",
        shapes={},
        builder="10.0",
        compute_capabilities=(),
    )
    other = one.model_copy(update={"seconds": 1.0})
    assert plan_file(one, PLAN) != plan_file(other, PLAN)
