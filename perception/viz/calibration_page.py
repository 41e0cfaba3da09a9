"""Parts of HTML pages about a calibration: a page needs nothing but its own file."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.files.text import html_text
from perception.files.writing import image_bytes, write_text

_STYLE = Path(__file__).with_name("page.css")

Image = NDArray[np.uint8]


def write_page(path: Path, title: str, body: str) -> None:
    """Write a page with the style of all; the title is text, the body HTML."""
    write_text(
        path,
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html_text(title)}</title><style>{_STYLE.read_text('utf-8')}</style></head>"
        f"<body><main>{body}</main></body></html>",
    )


def header(title: str, lead: str) -> str:
    """The heading, of two texts."""
    return (
        f"<header><p class='brand'>AnySense</p><h1>{html_text(title)}</h1>"
        f"<p class='lead'>{html_text(lead)}</p></header>"
    )


def section(title: str, body: str) -> str:
    """A part of a page, HTML below a text."""
    return f"<section><h2>{html_text(title)}</h2>{body}</section>"


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Numbers to be seen first, each with what it is."""
    cells = "".join(
        f"<div class='tile'><b>{html_text(a)}</b><span>{html_text(b)}</span></div>"
        for a, b in pairs
    )
    return f"<section><div class='tiles'>{cells}</div></section>"


def table(head: Iterable[str], rows: Iterable[Iterable[object]], kind: str = "") -> str:
    """A table of texts; the first column names the rows."""
    titles = "".join(f"<th>{html_text(h)}</th>" for h in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{html_text(value)}</td>" for value in rest)
        lines.append(f"<tr><th>{html_text(first)}</th>{cells}</tr>")
    return (
        f"<div class='scroll'><table class='{kind}'><tr>{titles}</tr>{''.join(lines)}</table></div>"
    )


def verdict_of(trusted: bool, remarks: Collection[str]) -> str:
    """Whether a calibration can be trusted, in words."""
    if not trusted:
        return "not to be trusted"
    return "with reservations" if remarks else "can be trusted"


def placement(rows: Iterable[Iterable[object]], matrix: NDArray[np.float64]) -> str:
    """Where a LiDAR sits to a camera.

    Args:
        rows: for each axis its name, the translation and its sigma (m), sigma of the rotation about it (deg).
        matrix: (4, 4), from the LiDAR's frame into the camera's optical frame.
    """
    head = ("axis", "translation, m", "its sigma, m", "sigma of the rotation about it, deg")
    text = "From the LiDAR's frame into the camera's optical frame: x right, y down, z forward."
    whole = [
        (axis, *(f"{value:.6f}" for value in row)) for axis, row in zip("xyz1", matrix, strict=True)
    ]
    return (
        table(head, rows)
        + note(text)
        + "<h3>As a matrix</h3>"
        + table(("4x4", "", "", "", ""), whole)
    )


def notices(lines: Iterable[str], none: str) -> str:
    """Texts that should not be missed, or what is said where there are none."""
    told = "".join(f"<p class='notice'>{html_text(line)}</p>" for line in lines)
    return told or f"<p>{html_text(none)}</p>"


def note(text: str) -> str:
    """A remark below something."""
    return f"<p class='note'>{html_text(text)}</p>"


def figure(drawing: str) -> str:
    """An SVG drawing in its frame."""
    return f"<figure>{drawing}</figure>"


def picture(image: Image, caption: str) -> str:
    """A picture (H, W) or (H, W, 3) uint8 RGB within the page, with a text below it."""
    content, text = base64.b64encode(image_bytes(image, ".jpg")).decode(), html_text(caption)
    return (
        f"<figure><img alt='{text}' src='data:image/jpeg;base64,{content}'>"
        f"<figcaption>{text}</figcaption></figure>"
    )


def pictures(parts: Iterable[str]) -> str:
    """Pictures side by side."""
    return f"<div class='pictures'>{''.join(parts)}</div>"
