"""What pyproject.toml cannot say: where things lie in the wheel.

In the source tree `export` and `calibration` are top-level packages, and bundles, configurations and the
demo's drive lie beside them.  In everybody's site-packages those two names would collide with any script
called export.py, so that a wheel has them as `anysense.export` and `anysense.calibration`, and the
data in `anysense/` as well.  An editable install leaves all where it is.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
TOP = "anysense"
MOVED = ("export", "calibration")
"""Top-level packages of the source tree that lie in `anysense` in a wheel."""

DATA = ("bundles/sim-bev", "bundles/sim-rgbdtl", "bundles/sim-stereo", "configs", "recordings")
"""What goes along: of the bundles those that were trained on simulated data alone, which anybody may ship."""

_REFERENCE = re.compile(rf"({'|'.join(MOVED)})(\.\w+)+:\w+")


def moved_imports(source: str, where: str) -> str:
    """A module's text with the moved packages imported from where they lie in a wheel.

    Args:
        source: the module.
        where: names it in errors.

    Raises:
        SystemExit: it imports one in a way that cannot be moved by its name alone.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        old = ""
        if isinstance(node, ast.Import):
            if any(alias.name.split(".")[0] in MOVED for alias in node.names):
                sys.exit(f"{where}:{node.lineno}: write `from {MOVED[0]}.x import y`")
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            old = node.module if node.module.split(".")[0] in MOVED else ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            old = node.value if _REFERENCE.fullmatch(node.value) else ""
        if old:
            line = lines[node.lineno - 1].encode()  # columns are counted in bytes
            head, tail = line[: node.col_offset].decode(), line[node.col_offset :].decode()
            lines[node.lineno - 1] = head + tail.replace(old, f"{TOP}.{old}", 1)
    return "".join(lines)


class BuildPy(build_py):
    """Builds modules with their imports moved, and lays the data beside them."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # what an older tree left there
        super().run()
        if self.editable_mode:
            return
        for name in DATA:
            target = Path(self.build_lib, TOP, name)
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns(".*"))

    def build_module(self, module, module_file, package):  # type: ignore[no-untyped-def]
        built, copied = super().build_module(module, module_file, package)
        source = Path(module_file).read_text(encoding="utf-8")
        moved = moved_imports(source, str(module_file))
        if moved != source:
            Path(built).write_text(moved, encoding="utf-8")
        return built, copied


def layout(editable: bool) -> tuple[list[str], dict[str, str]]:
    """The packages, and where those lie that are not where their names say."""
    tops = ("perception", TOP, *MOVED)
    found = find_packages(str(ROOT), include=[pattern for t in tops for pattern in (t, f"{t}.*")])
    if editable:
        return found, {}
    moved = [name for name in found if name.split(".")[0] in MOVED]
    packages = [f"{TOP}.{name}" if name in moved else name for name in found]
    return packages, {f"{TOP}.{name}": name.replace(".", "/") for name in moved}


if __name__ == "__main__":
    packages, places = layout(bool({"editable_wheel", "develop"} & set(sys.argv)))
    setup(packages=packages, package_dir=places, cmdclass={"build_py": BuildPy})
