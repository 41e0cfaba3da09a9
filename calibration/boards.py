"""Calibration boards: what `--board` says, and where a board's points lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from perception.errors import ConfigError, names_hint
from perception.geometry.transforms import Float64

_FORMS = {
    "chessboard": "chessboard:COLSxROWS:SQUARE, inner corners and metres: chessboard:9x6:0.05",
    "circles": "circles:COLSxROWS:SPACING, asymmetric, spacing of the diagonal grid in metres: "
    "circles:4x11:0.04",
    "charuco": "charuco:COLSxROWS:SQUARE:MARKER[:DICTIONARY], squares and metres: "
    "charuco:8x6:0.04:0.03:5x5_100",
    "aprilgrid": "aprilgrid:COLSxROWS:TAG:GAP[:FAMILY], tags, metres, and the gap as a share of a tag: "
    "aprilgrid:6x6:0.088:0.3:36h11",
}
_DICTIONARIES = {"charuco": "5x5_100", "aprilgrid": "36h11"}
_FEWEST, _MOST = 2, 100
_LARGEST_M = 20.0


@dataclass(frozen=True)
class Board:
    """A flat board of points that can be told apart.

    Its frame: x along a row, y along a column, z into the board, the first point at the origin.

    Attributes:
        kind: `chessboard`, `circles` (asymmetric), `charuco` or `aprilgrid`.
        columns, rows: inner corners of a chessboard, circles, squares of a ChArUco board, or tags.
        square_m: side of a square, spacing of circles, or side of a tag, in metres.
        marker_m: side of a ChArUco board's markers, or the gap between tags, in metres.
        dictionary: of the markers or tags.

    Raises:
        ConfigError: sizes that cannot be.
    """

    kind: str
    columns: int
    rows: int
    square_m: float
    marker_m: float = 0.0
    dictionary: str = ""

    def __post_init__(self) -> None:
        if self.kind not in _FORMS:
            raise ConfigError(f"no board '{self.kind}'", hint=names_hint(self.kind, _FORMS))
        counts = sorted((self.columns, self.rows))
        if not (counts[0] >= _FEWEST and counts[1] <= _MOST):
            raise ConfigError(f"{self.columns}x{self.rows} are not {_FEWEST} to {_MOST} each")
        if not 0 < self.square_m <= _LARGEST_M:
            problem = f"{self.square_m:g} m is no size of a square"
            raise ConfigError(problem, hint="in metres: 0.05 is 5 cm")
        if self.kind == "charuco" and not 0 < self.marker_m < self.square_m:
            raise ConfigError("a marker is smaller than its square, and not nothing")
        if self.kind == "aprilgrid" and not 0 < self.marker_m <= 2 * self.square_m:
            raise ConfigError("the gap between tags is a share of the tag, such as 0.3")

    @cached_property
    def points(self) -> Float64:
        """(N, 3) float64 metres: where the point of each id lies; z is 0."""
        if self.kind == "aprilgrid":
            found = self._tag_corners()
        else:
            columns, rows = self.columns, self.rows
            if self.kind == "charuco":
                columns, rows = columns - 1, rows - 1
            row, column = np.divmod(np.arange(columns * rows), columns)
            if self.kind == "circles":
                column = 2 * column + row % 2
            found = np.column_stack([column, row]) * self.square_m
        return np.column_stack([found, np.zeros(len(found))])

    def _tag_corners(self) -> Float64:
        """Four corners of each tag, from its lower left on, as Kalibr numbers tags (row by row)."""
        pitch = self.square_m + self.marker_m
        row, column = np.divmod(np.arange(self.columns * self.rows), self.columns)
        first = np.column_stack([column, row]) * pitch
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * self.square_m
        return np.asarray((first[:, None] + corners).reshape(-1, 2), np.float64)

    @property
    def extent_m(self) -> float:
        """The largest distance of two points."""
        return float(np.hypot(*np.ptp(self.points[:, :2], axis=0)))

    @property
    def one_way(self) -> bool:
        """Whether it looks different upside down: its points are always numbered from the same end."""
        if self.kind == "chessboard":
            return (self.columns + self.rows) % 2 == 1
        return self.kind != "circles" or self.rows % 2 == 1

    def __str__(self) -> str:
        text = f"{self.kind}:{self.columns}x{self.rows}:{self.square_m:g}"
        if self.kind == "charuco":
            text += f":{self.marker_m:g}:{self.dictionary}"
        if self.kind == "aprilgrid":
            text += f":{self.marker_m / self.square_m:g}:{self.dictionary}"
        return text


def parse_board(text: str) -> Board:
    """The board that an argument such as `chessboard:9x6:0.05` says.

    Raises:
        ConfigError: no such kind, or sizes that are missing or cannot be.
    """
    kind, *parts = text.strip().split(":")
    if kind not in _FORMS:
        problem = f"no board '{kind}'" if kind else "no board is said"
        raise ConfigError(problem, where="--board", hint=names_hint(kind, _FORMS))
    hint = _FORMS[kind]
    sizes = {"chessboard": 1, "circles": 1}.get(kind, 2)
    most = 1 + sizes + (kind in _DICTIONARIES)
    if not 1 + sizes <= len(parts) <= most:
        raise ConfigError(f"'{text}' has {len(parts) + 1} parts", where="--board", hint=hint)
    counts = parts[0].lower().split("x")
    try:
        columns, rows = (int(count) for count in counts)
        numbers = [float(part) for part in parts[1 : 1 + sizes]]
    except ValueError as error:
        raise ConfigError(f"'{text}' holds no such sizes", where="--board", hint=hint) from error
    if not all(math.isfinite(number) for number in numbers):
        raise ConfigError(f"'{text}' holds no such sizes", where="--board", hint=hint)
    dictionary = parts[1 + sizes] if len(parts) > 1 + sizes else _DICTIONARIES.get(kind, "")
    second = numbers[1] if sizes == 2 else 0.0
    if kind == "aprilgrid":
        second *= numbers[0]
    try:
        return Board(kind, columns, rows, numbers[0], second, dictionary)
    except ConfigError as error:
        raise ConfigError(error.message, where="--board", hint=error.hint or hint) from error
