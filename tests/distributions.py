"""Distributions that bring plug-ins, as installers leave them, and commands that find them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def written(site: Path, name: str, entries: dict[str, dict[str, str]], code: str = "") -> Path:
    """A distribution `name` 1.0 in a folder of the path: entry points by group, and a module.

    The module is `brought_<name>`.
    """
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [
        line
        for group, own in entries.items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in own.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / f"brought_{name}.py").write_text(code)
    return site


def installed(site: Path, *sources: Path) -> Path:
    """The distributions in the folders `sources`, built and installed by pip into `site`.

    Nothing is fetched, and nothing is left in the folders.
    """
    copies = [site.with_name(f"{site.name}-sources") / source.name for source in sources]
    ignored = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    for source, copy in zip(sources, copies, strict=True):
        shutil.copytree(source, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(site)]
    done = subprocess.run(
        [*command, *map(str, copies)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    shutil.rmtree(copies[0].parent)
    return site


def python(
    words: list[str], cwd: Path, *sites: Path, timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """A Python process in `cwd` that finds AnySense and what lies in `sites`, and nothing else of ours."""
    path = os.pathsep.join(map(str, (*sites, ROOT)))
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def anysense(
    words: list[str], cwd: Path, *sites: Path, timeout_s: float = 600
) -> subprocess.CompletedProcess[str]:
    """The `anysense` command with these words, as `python` starts it."""
    return python(["-m", "perception.cli.main", *words], cwd, *sites, timeout_s=timeout_s)
