"""Tables of scores in percent, as HTML."""

from __future__ import annotations

from collections.abc import Iterable

from perception.files.text import html_text


def percent(value: float | None) -> str:
    """A share as percent, with one place."""
    return "-" if value is None else f"{100 * value:.1f}"


def share(value: float | None) -> str:
    """A share as whole percent."""
    return "-" if value is None else f"{100 * value:.0f} %"


def table(head: Iterable[str], rows: Iterable[str]) -> str:
    """A table that scrolls where it is too wide; of rows that are HTML already."""
    titles = "".join(f"<th>{html_text(h)}</th>" for h in head)
    return f"<div class='scroll'><table><tr>{titles}</tr>{''.join(rows)}</table></div>"


def cell(value: float | None, left: float | None) -> str:
    """A number, the redder the less is left of what it was."""
    if value is None:
        return "<td>-</td>"
    kept = 1.0 if left is None else min(max(left, 0.0), 1.0)
    return f"<td class='heat' style='--left:{kept:.3f}'>{percent(value)}</td>"
