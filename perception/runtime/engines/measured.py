"""What was measured on this machine, kept so that the next start need not measure again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from perception.errors import AnySenseError
from perception.files.writing import write_text

CACHE_VARIABLE = "ANYSENSE_CACHE"
_MOST = 200
_RULES = "2: none that computes wrongly"  # what was measured before they changed is left aside

_known: dict[str, dict[str, float]] = {}


def cache_folder() -> Path:
    """Where AnySense keeps what it measured or built: `$ANYSENSE_CACHE`, or the user's cache."""
    own = os.environ.get(CACHE_VARIABLE)
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "anysense"


def key(
    files: Mapping[str, str], backends: Mapping[str, str], threads: int | None, extra: str
) -> str:
    """The key of a measurement: these graphs, this CPU, these backends, whose modules are given."""
    parts = [
        *(f"{n}={h}" for n, h in sorted(files.items())),
        *backends,
        *(f"{module}={_version(module)}" for module in sorted(set(backends.values()))),
        cpu_name(),
        str(os.cpu_count()),
        str(threads),
        _RULES,
        extra,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def recall(wanted: str) -> dict[str, float] | None:
    """Milliseconds by backend as measured before, or None."""
    if wanted not in _known:
        found = _read().get(wanted)
        if found is None:
            return None
        _known[wanted] = found
    return _known[wanted]


def remember(wanted: str, milliseconds: dict[str, float]) -> None:
    """Keep a measurement, for this process and, where the folder can be written, for later ones."""
    _known[wanted] = milliseconds
    content = {**_read(), wanted: milliseconds}
    for old in list(content)[:-_MOST]:
        del content[old]
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: a reader in another process sees the old or the new file.
        write_text(path, json.dumps(content), sync=False)
    except (AnySenseError, OSError, RuntimeError):
        return  # no home, a full disk: the next start measures again


def cpu_name() -> str:
    """The CPU's model as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "CPU part", "Model")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _path() -> Path:
    return cache_folder() / "backends.json"


def _read() -> dict[str, dict[str, float]]:
    try:
        content = json.loads(_path().read_text())
    except (OSError, ValueError, RuntimeError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        k: v
        for k, v in content.items()
        if isinstance(v, dict) and v and all(isinstance(x, int | float) for x in v.values())
    }


def _version(module: str) -> str:
    package = module.split(".")[0]
    try:
        return version(package)
    except PackageNotFoundError:
        pass  # its distribution is called otherwise, as `onnxruntime-gpu` is
    names = packages_distributions().get(package, ())
    return ",".join(f"{name} {version(name)}" for name in sorted(set(names))) or "-"
