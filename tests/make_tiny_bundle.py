"""Writes the tests' tiny bundle to a folder, for tests that run where torch is not installed.

python tests/make_tiny_bundle.py FOLDER
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from conftest import export_tiny_bundle

if __name__ == "__main__":
    target = Path(sys.argv[1])
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    export_tiny_bundle(target)
