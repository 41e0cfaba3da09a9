"""An export leaves the old bundle or the new one, and touches nothing that is no bundle."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from export.bundle_folder import check_target, replacing_bundle
from export.half_bundle import write_half
from export.int8 import write_changed
from perception.cli.main import main
from perception.errors import AnySenseError, BundleError, ConfigError
from perception.runtime.bundle import Bundle, record

ROOT = Path(__file__).parents[2]
MakeBundle = Callable[..., Path]


def digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its path."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def run_export(*arguments: object) -> tuple[int, str]:
    """Exit status and stderr."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        status = main(["export", *map(str, arguments), "--threads", "1"])
    return status, errors.getvalue().strip()


def start(*arguments: object, limit: int | None = None) -> subprocess.Popen[str]:
    """The command in a process whose files may be no larger than `limit` bytes."""

    def prepare() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "perception.cli.main", "export", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=prepare,
    )  # fmt: skip


WAYS = {
    "fp16": ["--precision", "fp16"],
    "copy": ["--subset", "single", "rgb"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("limit", [100, 30_000, 300_000])
def test_a_full_disk_leaves_the_old_bundle(
    way: str, limit: int, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(tiny_bundle, out)
    before = digest(out)
    done = start(tiny_bundle, *WAYS[way], "--out", out, limit=limit)
    _, errors = done.communicate(timeout=300)
    assert done.returncode == 2
    assert len(errors.strip().splitlines()) == 1 and "File too large" in errors
    assert digest(out) == before and os.listdir(tmp_path) == ["out"]


@pytest.mark.slow
def test_killed_at_any_moment_a_bundle_is_whole(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_export(tiny_bundle, *WAYS["fp16"], "--out", out) == (0, "")
    for delay in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
        process = start(tiny_bundle, *WAYS["copy"], "--out", out)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        Bundle.open(out)  # verifies every file
    assert run_export(tiny_bundle, *WAYS["copy"], "--out", out) == (0, "")
    assert os.listdir(tmp_path) == ["out"]


def test_what_goes_wrong_in_the_middle_leaves_the_old_bundle(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = Bundle.open(make_bundle())
    out = make_bundle("old", name="old")
    before = digest(out)
    models = {"rgb": onnx.load(source.file("encoder_rgb.onnx")), "fuser": onnx.ModelProto()}
    with pytest.raises(AnySenseError):
        write_changed(source, models, out, "fp16", {})

    def fail(folder: Path) -> None:
        assert Bundle.open(folder).manifest.precision == "fp16", "it is complete by then"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half(source, out, threads=1, finish=fail)
    assert digest(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "small"]


def test_what_a_person_put_into_a_bundle_stays(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source, out = make_bundle(), make_bundle("out", name="old")
    (out / "LICENCE.txt").write_text("mine")
    (out / "notes" / "a").mkdir(parents=True)
    (out / "notes" / "a" / "b.md").write_text("mine, too")
    (out / "engines").mkdir()
    (out / "engines" / "fuser.tensorrt.0000000000000000.plan").write_text("of the old graphs")
    (out / "stale.onnx").write_text("of an older export")
    write_half(Bundle.open(source), out, threads=1)
    assert Bundle.open(out).manifest.precision == "fp16"
    assert sorted(digest(out)) == [
        "LICENCE.txt", "bundle.yaml", "encoder_rgb.onnx", "fuser.onnx", "notes/a/b.md",
    ]  # fmt: skip
    assert (out / "notes/a/b.md").read_text() == "mine, too"


def test_a_damaged_bundle_may_be_replaced(make_bundle: MakeBundle) -> None:
    out = make_bundle("out")
    (out / "bundle.yaml").write_bytes(b"\xff\0: [")
    write_half(Bundle.open(make_bundle()), out, threads=1)
    Bundle.open(out)


@pytest.mark.parametrize("kind", ["files", "run", "file"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_no_bundle_is_left_alone(
    kind: str, way: str, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
        before = {"": "mine"}
    else:
        out.mkdir()
        (out / ("x.onnx" if kind == "files" else "best.safetensors")).write_text("mine")
        before = digest(out)
    status, error = run_export(make_bundle(), *WAYS[way], "--out", out)
    assert status == 2 and "\n" not in error and "out: " in error
    assert (digest(out) if out.is_dir() else {"": out.read_text()}) == before


def test_targets_that_are_the_source_or_around_it(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_bundle()
    (tmp_path / "link").symlink_to(source)
    for out, told in (
        (source, "is the source"),
        (tmp_path / "link", "is the source"),
        (source / "sub" / "sub", "lies in the source"),
        (tmp_path / "link" / "x", "lies in the source"),
        (tmp_path, "holds the source"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_target(out, source)
    here = tmp_path / "here" / "now"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    for out in (Path("."), Path(".."), here):
        with pytest.raises(ConfigError, match="the current folder, or above it"):
            check_target(out, source)
    check_target(Path("new"), source)
    before = digest(source)
    for way in WAYS.values():
        for out in (source / "sub", tmp_path, "."):
            status, error = run_export(source, *way, "--out", out)
            assert status == 2 and "\n" not in error
    status, error = run_export(source, "--serve", "triton", "--out", source / "repository")
    assert status == 2 and "lies in the source" in error
    assert digest(source) == before


def test_folders_that_nobody_can_write_to(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = make_bundle()
    file = tmp_path / "file"
    file.write_text("mine")
    long = tmp_path / ("n" * 300)
    for out in ("/proc/out", "/dev/null", "/dev/null/out", file / "out", long):
        for way in WAYS.values():
            status, error = run_export(source, *way, "--out", out)
            assert status == 2 and "\n" not in error and str(out) in error, out
    assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_bundle_is_not_replaced(make_bundle: MakeBundle) -> None:
    out = make_bundle("out")
    out.chmod(0o555)
    with pytest.raises(BundleError, match="read-only"), replacing_bundle(out):
        pass


def test_a_bundle_with_more_graphs_is_another_one(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source, out = make_bundle(), tmp_path / "out"
    record(source, accuracy={"some data": {"subsets": {"rgb": {"miou": 0.5}}}})
    before = digest(source)
    status, error = run_export(source, "--subset", "single")
    assert status == 2 and "has no graph single" in error and "--out DIR" in error
    assert run_export(source, "--subset", "single", "--out", out)[0] == 0
    assert digest(source) == before
    assert Bundle.open(out).manifest.graphs.single is not None
    assert Bundle.open(out).records.accuracy == Bundle.open(source).records.accuracy
    assert sorted(digest(out)) == sorted([*before, "single.onnx"])


def test_what_is_for_runs_is_refused_with_a_bundle(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = make_bundle()
    for option in ("--name=x", "--version=2", "--weights=float32", "--licence=MIT", "--dynamic"):
        status, error = run_export(source, "--subset", "single", option, "--out", tmp_path / "o")
        assert status == 2 and option.split("=")[0] in error and "run or checkpoint" in error


def test_a_zip_is_a_source(make_bundle: MakeBundle, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", make_bundle())
    for way in WAYS:
        assert run_export(archive, *WAYS[way], "--out", tmp_path / way) == (0, "")
        Bundle.open(tmp_path / way)
    assert run_export(archive, "--serve", "triton", "--out", tmp_path / "triton") == (0, "")
    assert run_export(archive, "--serve", "isaac-ros", "--out", tmp_path / "isaac") == (0, "")
    assert run_export(archive, "--report", tmp_path / "r", "--bench-frames", "1") == (0, "")
    status, error = run_export(archive, "--subset", "single")
    assert status == 2 and "has no graph single" in error and "--out DIR" in error
    for way in WAYS:
        status, error = run_export(archive, *WAYS[way], "--out", archive)
        assert status == 2 and "\n" not in error


def test_graphs_of_other_names_are_told_by_them(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "out"
    assert run_export(make_bundle(), "--subset", "single", "--out", source) == (0, "")
    text = (source / "bundle.yaml").read_text().replace("single.onnx", "whole.onnx")
    (source / "bundle.yaml").write_text(text)
    (source / "single.onnx").rename(source / "whole.onnx")
    assert run_export(source, "--subset", "single") == (0, "")
    assert "whole.onnx" in capsys.readouterr().out


def test_names_that_are_no_text(make_bundle: MakeBundle, tmp_path: Path) -> None:
    source = make_bundle().rename(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe9"))
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/o\xe9"))
    for way in WAYS.values():
        assert run_export(source, *way, "--out", out)[0] == 0
        Bundle.open(out)
    assert run_export(source, "--serve", "triton", "--out", out / "triton")[0] == 0
    status, error = run_export(source, "--serve", "isaac-ros", "--out", out / "isaac")
    assert status == 2 and "is no UTF-8" in error and not (out / "isaac").exists()
