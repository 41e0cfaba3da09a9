"""What results are drawn on, and the legends beside them."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_bundles import SmallBundles

from perception.frame import Frame, Sample
from perception.runtime.pipeline import Pipeline
from perception.sensors.registry import KINDS, kind_of
from perception.tasks.boxes2d import draw_boxes
from perception.tasks.detections import Detections
from perception.tasks.spec import ClassSpec
from perception.viz import legend
from perception.viz.overlay import background, shown_sensor

RGB, THERMAL, DEPTH = "rgb", "thermal", "depth"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    kinds = {RGB: (RGB, RGB), THERMAL: (THERMAL, THERMAL)}
    folder = SmallBundles(tmp_path_factory.mktemp("b")).named(kinds, name="pair")
    return Pipeline.load(folder, "onnxruntime-cpu", threads=1)


def _rgb(level: int, size: tuple[int, int] = (48, 64)) -> Sample:
    noise = RNG.integers(0, 12, (*size, 3))
    return Sample(RGB, np.clip(level + noise, 0, 255).astype(np.uint8))


def _thermal(size: tuple[int, int] = (48, 64)) -> Sample:
    values = RNG.uniform(280, 310, size).astype(np.float32)
    return Sample(THERMAL, values, unit="kelvin")


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        ({RGB: _rgb(120), THERMAL: _thermal()}, RGB),
        ({RGB: _rgb(12), THERMAL: _thermal()}, THERMAL),  # at night
        ({RGB: _rgb(12), THERMAL: _thermal((96, 128))}, THERMAL),  # of another size
        ({RGB: _rgb(12), THERMAL: _thermal((96, 60))}, RGB),  # of another shape: looks otherwise
        ({RGB: _rgb(12)}, RGB),
        (
            {RGB: Sample(RGB, np.zeros((48, 64, 3), np.uint8)), THERMAL: _thermal()},
            THERMAL,
        ),  # blind
    ],
)
def test_a_result_is_drawn_on_what_shows_something(
    pipeline: Pipeline, frame: dict[str, Sample], shown: str
) -> None:
    pipeline.reset()
    given = Frame(frame)
    result = pipeline(given)
    assert shown in result.used
    assert shown_sensor(pipeline.manifest, given, result) == shown
    picture = legend.draw_explained(pipeline.manifest, given, result)
    assert picture.shape[0] == given[result.reference].data.shape[0]  # type: ignore[index]


def test_a_film_is_of_one_size(pipeline: Pipeline) -> None:
    shapes = set()
    for frame in ({RGB: _rgb(120), THERMAL: _thermal()}, {RGB: _rgb(120)}, {RGB: _rgb(3)}):
        pipeline.reset()
        given = Frame(frame)
        shapes.add(legend.draw_explained(pipeline.manifest, given, pipeline(given)).shape)
    assert len(shapes) == 1


def test_scales_say_what_the_colors_are() -> None:
    rows = np.linspace(2.0, 10.0, 200, dtype=np.float32)[:, None].repeat(20, axis=1)
    own = kind_of(DEPTH).scale(Sample(DEPTH, rows))
    assert own is not None and own.unit == "m"
    near, far = own.ticks[-1][1], own.ticks[0][1]
    assert 2.0 <= near < 2.3 and 8.5 < far <= 10.0
    middle = own.ticks[1][1]
    gray = background(Frame({DEPTH: Sample(DEPTH, rows)}), DEPTH)[..., 0]
    row = int(np.abs(rows[:, 0] - middle).argmin())
    assert abs(int(gray[row, 0]) - 127) <= 3  # the place in the middle of the bar
    assert (np.diff(gray[:, 0].astype(int)) <= 0).all()  # farther is never brighter
    warm = kind_of(THERMAL).scale(_thermal())
    assert warm is not None and warm.unit == "°C"
    assert all(6 < value < 38 for _, value in warm.ticks)
    counts = kind_of(THERMAL).scale(Sample(THERMAL, np.eye(20, dtype=np.float32), unit="counts8"))
    assert counts is not None and counts.unit == ""
    assert kind_of(RGB).scale(_rgb(100)) is None


@pytest.mark.parametrize("kind", sorted(KINDS.own))
def test_nothing_to_scale_is_no_fault(kind: str) -> None:
    nothing = np.full((20, 20), np.nan, np.float32)
    if kind in (DEPTH, THERMAL):
        assert kind_of(kind).scale(Sample(kind, nothing, unit="kelvin")) is None


def test_labels_of_a_scale_do_not_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []

    def put(image: object, text: str, place: tuple[int, int], size: float, color: object) -> None:
        drawn.append((place[0], place[0] + legend.text_width(text, size)))

    monkeypatch.setattr(legend, "put_text", put)
    from perception.sensors.kind import ColorScale

    for height in (48, 120, 480, 2160):
        for low, high, unit in ((0.11, 0.12, "m"), (-12345.678, 98765.4, "°C"), (1, 255, "")):
            drawn.clear()
            ticks = ((0.0, low), (0.5, (low + high) / 2), (1.0, high))
            panel = legend._Panel(height, ["car"])
            panel.drawn([], [], ColorScale(cv2.COLORMAP_JET, ticks, unit))
            for (_, end), (start, stop) in itertools.pairwise(drawn):
                assert end <= start and stop <= panel.width


def test_the_degree_sign_is_drawn() -> None:
    with_sign = np.zeros((40, 200, 3), np.uint8)
    legend.put_text(with_sign, "21 °C", (5, 30), 0.6, (255, 255, 255))
    without = np.zeros((40, 200, 3), np.uint8)
    legend.put_text(without, "21 ?C", (5, 30), 0.6, (255, 255, 255))
    assert with_sign.any() and not np.array_equal(with_sign, without)
    assert legend.text_width("21 °C", 0.6) > legend.text_width("21 C", 0.6)


def test_names_of_boxes_do_not_cover_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[int, int, int, int]] = []
    rectangle = cv2.rectangle

    def note(image, start, end, color, thick, *rest):  # type: ignore[no-untyped-def]
        if thick == -1:
            placed.append((*start, *end))
        return rectangle(image, start, end, color, thick, *rest)

    monkeypatch.setattr(cv2, "rectangle", note)
    left = RNG.uniform(0, 500, (30, 2))
    boxes = np.hstack([left, left + RNG.uniform(5, 120, (30, 2))]).astype(np.float32)
    scores = np.linspace(0.9, 0.3, 30, dtype=np.float32)
    found = Detections(boxes, scores, np.zeros(30, np.int64))
    draw_boxes(
        np.zeros((480, 640, 3), np.uint8), found, [ClassSpec(id=0, name="car", color=(9, 9, 9))]
    )
    assert 5 < len(placed) <= 30
    for i, (l1, t1, r1, b1) in enumerate(placed):
        assert l1 >= 0 and t1 >= 0 and r1 <= 640 and b1 <= 480
        for l2, t2, r2, b2 in placed[:i]:
            assert l1 >= r2 or l2 >= r1 or t1 >= b2 or t2 >= b1


def test_a_class_name_that_is_long_or_foreign_fits(tmp_path: Path) -> None:
    panel = legend._Panel(240, ["car"])
    long = ClassSpec(id=0, name="Überholspur " * 8 + "x", color=(1, 2, 3))
    picture = panel.drawn(
        ["full", "used " + ", ".join(["camera_front"] * 9)], [(long, "3 %")] * 40, None
    )
    assert picture.shape == (240, panel.width, 3)


def test_the_key_of_a_film_has_the_classes_of_the_result_and_one_size(pipeline: Pipeline) -> None:
    keys = []
    for sensors in ({RGB: _rgb(90)}, {THERMAL: _thermal()}):
        result = pipeline(Frame(sensors))
        keys.append(legend.draw_key(pipeline.manifest, result, (180, 240)))
        spec = pipeline.manifest.tasks.segmentation
        assert spec is not None and result.labels is not None
        for number in np.unique(result.labels):
            assert (keys[-1] == spec.classes[number].color).all(axis=2).any()
    assert [key.shape for key in keys] == [(180, 240, 3)] * 2
