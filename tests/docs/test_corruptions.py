"""The page of the corruptions has the severities that hold."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from perception.sensors.names import OURS

ROOT = Path(__file__).parents[2]


def test_the_tables_are_those_of_the_code() -> None:
    spec = importlib.util.spec_from_file_location("sheet", ROOT / "benchmarks/corruptions.py")
    assert spec is not None and spec.loader is not None
    sheet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sheet)
    page = (ROOT / "docs/corruptions.md").read_text(encoding="utf-8")
    assert page.endswith(sheet.table(OURS) + "\n"), "benchmarks/corruptions.py --table"
