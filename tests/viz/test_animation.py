"""Films: colors, sizes and bounds of what is written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.viz.animation import write_gif

Image = pytest.importorskip("PIL.Image")


def _frames(count: int, noise: float = 0.0) -> list[np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, 300), np.linspace(0, 1, 200))
    frames = []
    for i in range(count):
        shades = np.stack([255 * x, 255 * y, 128 + 0 * x], axis=2) + rng.normal(
            0, noise, (200, 300, 1)
        )
        image = shades.clip(0, 255).astype(np.uint8)
        cv2.circle(image, (20 + 10 * i, 100), 15, (230, 30, 40), -1)
        frames.append(image)
    return frames


def test_colors_are_close_and_frames_are_all_there(tmp_path: Path) -> None:
    frames = _frames(8)
    write_gif(frames, tmp_path / "f.gif")
    with Image.open(tmp_path / "f.gif") as film:
        assert (film.size, film.n_frames) == ((300, 200), 8)
        for i, frame in enumerate(frames):
            film.seek(i)
            shown = np.asarray(film.convert("RGB")).astype(int)
            error = np.abs(shown - frame)
            assert np.median(error) < 12 and np.percentile(error, 99) < 48
            assert error[95:105, 15 + 10 * i : 25 + 10 * i].max() < 40  # what moves


def test_a_film_of_one_color(tmp_path: Path) -> None:
    write_gif([np.full((40, 60, 3), 77, np.uint8)] * 3, tmp_path / "f.gif")
    with Image.open(tmp_path / "f.gif") as film:
        assert np.abs(np.asarray(film.convert("RGB")).astype(int) - 77).max() < 5


def test_it_is_thinned_out_until_it_fits(tmp_path: Path) -> None:
    write_gif(_frames(12, noise=40.0), tmp_path / "f.gif", max_bytes=120_000)
    with Image.open(tmp_path / "f.gif") as film:
        assert film.n_frames < 12
