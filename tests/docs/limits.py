"""The limits of docs/threat-model.md: `python tests/docs/limits.py` writes the table anew from the code."""

from __future__ import annotations

import ast
import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from perception.files import limits

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/threat-model.md"
START, END = "<!-- limits -->\n", "<!-- end of limits -->\n"


def table() -> str:
    """Every constant of `perception/files/limits.py`, with what is said of it there."""
    body = ast.parse(Path(limits.__file__).read_text("utf-8")).body
    lines = ["| limit | value | of what |", "|---|---|---|"]
    for found, after in pairwise(body):
        if not isinstance(found, ast.AnnAssign) or not isinstance(found.target, ast.Name):
            continue
        name = found.target.id
        text = after.value.value if isinstance(after, ast.Expr) else ""  # type: ignore[attr-defined]
        assert text, f"{name}: nothing is said of it"
        value = f"{getattr(limits, name):,}".replace(",", " ")
        lines.append(f"| `{name}` | {value} | {' '.join(str(text).split()).rstrip('.')} |")
    return "\n".join(lines) + "\n"


def in_page(page: Path = PAGE, start: str = START, end: str = END) -> str:
    """What a page has between two marks."""
    return page.read_text(encoding="utf-8").partition(start)[2].partition(end)[0]


def write(page: Path, start: str, end: str, text: str) -> None:
    """Put a text between two marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(start)
    page.write_text(f"{before}{start}{text}{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    write(PAGE, START, END, table())
