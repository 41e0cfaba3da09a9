"""The threat model has the limits that are in force, and every limit of the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import limits as page

from perception.files import limits


def test_the_limits_are_those_of_the_code() -> None:
    assert page.in_page() == page.table(), "python tests/docs/limits.py writes it anew"


def test_every_limit_is_there() -> None:
    named = set(re.findall(r"^\| `(\w+)`", page.in_page(), re.MULTILINE))
    assert named == {name for name in vars(limits) if name.startswith("MAX_")} and len(named) > 20
