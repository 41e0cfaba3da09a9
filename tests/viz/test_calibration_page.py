"""The drawings of a calibration's page."""

from __future__ import annotations

import re

import numpy as np

from perception.geometry.camera import CameraModel
from perception.viz.intrinsics_page import straighten
from perception.viz.svg import Axes, bars, heat, plot, range_of, ticks, vectors


def test_a_straightened_picture_is_what_a_pinhole_camera_sees() -> None:
    bent = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5, "plumb_bob", (-0.3, 0.08, 0.0, 0.0, 0.0))
    plain = CameraModel(160, 120, 100.0, 100.0, 79.5, 59.5)
    rng = np.random.default_rng(1)
    picture = np.zeros((120, 160), np.uint8)
    ray = np.array([[0.35, 0.22, 1.0]])
    (at,), (want,) = bent.project(ray)[0], plain.project(ray)[0]
    x, y = np.rint(at).astype(int)
    picture[y - 1 : y + 2, x - 1 : x + 2] = 255
    picture[0] = rng.integers(0, 9, 160)
    found = straighten(picture, bent)
    row, column = np.unravel_index(int(np.argmax(found)), found.shape)
    assert np.hypot(*(want - at)) > 2, "the lens bends here"
    assert np.hypot(column - want[0], row - want[1]) < 2
    assert (straighten(picture, plain) == picture).all()


def test_counts_points_and_bars_are_where_they_belong() -> None:
    drawn = heat(np.array([[0.0, 5.0], [1.0, 0.0]]), (200, 100), np.array([[150.0, 20.0]]))
    assert re.findall(r">(\d)</text>", drawn) == ["0", "5", "1", "0"]
    assert drawn.count("cell empty") == 2 and "cx='150.0' cy='20.0'" in drawn
    drawn = vectors(np.array([[10.0, 20.0]]), np.array([[3.0, -4.0]]), (200, 100))
    assert "x1='10.0' y1='20.0' x2='13.0' y2='16.0'" in drawn
    drawn = bars({"a<": 1.0, "b": 0.5}, "px")
    assert [float(w) for w in re.findall(r"class='bar'.*?width='([\d.]+)'", drawn)] == [560, 280]
    assert "a&lt;" in drawn
    many = np.zeros((100_000, 2))
    assert len(vectors(many, many, (9, 9))) < 1_000_000, "a page that opens"


def test_points_and_curves_are_where_their_values_are() -> None:
    axes = Axes("counts", "K <", (0.0, 10.0), (-1.0, 1.0))
    places = axes.place(np.array([[0.0, -1.0], [10.0, 1.0], [5.0, 0.0]]))
    assert (places[0] + places[1] == 2 * places[2]).all()
    assert places[0][0] < places[1][0] and places[0][1] > places[1][1], "y rises upwards"
    line = np.array([[0.0, 0.0], [10.0, 0.5]])
    drawn = plot(axes, np.array([[5.0, 0.0]]), [line, line], bars=np.array([0.5]))
    assert drawn.count("<polyline") == 2 and drawn.count("dasharray") == 1
    assert f"cx='{places[2][0]:.1f}' cy='{places[2][1]:.1f}'" in drawn and "K &lt;" in drawn
    assert ">-0.5</text>" in drawn and ">4</text>" in drawn


def test_axes_go_over_round_numbers_and_all_values() -> None:
    assert ticks((0.0, 10.0)).tolist() == [0, 2, 4, 6, 8, 10]
    assert ticks((-0.013, 0.021)).tolist() == [-0.01, 0, 0.01, 0.02]
    low, high = range_of(np.array([2.0, np.nan]), np.array([5.0]))
    assert low < 2 and high > 5
    low, high = range_of(np.array([0.0]))
    assert low < 0 < high
