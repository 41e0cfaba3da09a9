"""docs/plugins/*.md, followed to the letter in a fresh folder: what they say works, and their code is that of
the sample distributions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import walkthrough
from distributions import installed, python
from walkthrough import Walk, brought_up_to_date, groundwork, steps_of

from perception.plugins import GROUPS

PAGES = sorted(p.name for p in walkthrough.PAGES.glob("*.md"))


def test_every_seam_has_a_page() -> None:
    assert {f"{group}.md" for group in GROUPS} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_the_sample_distribution_as_it_is(page: str) -> None:
    text = (walkthrough.PAGES / page).read_text(encoding="utf-8")
    assert text == brought_up_to_date(text), "run: python tests/walkthrough.py"
    steps = steps_of(text)
    assert sum(step.file.endswith("/pyproject.toml") for step in steps) == 1
    assert any("pip install" in command for step in steps for command in step.commands)
    assert text.count("```") == 2 * sum(bool(step.file) for step in steps), "a block of no file"
    assert len(steps_of(groundwork(text))) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page: str, tmp_path: Path) -> None:
    walk = Walk(tmp_path / "newcomer")
    walk.follow(page)
    assert walk.said


@pytest.mark.slow
def test_the_sample_model_passes_what_every_model_of_ours_must(tmp_path: Path) -> None:
    site = installed(tmp_path / "site", walkthrough.SAMPLES / "mean")
    tests = walkthrough.ROOT / "tests/models/zoo/test_every_model.py"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "mean", str(tests)]
    done = python(words, walkthrough.ROOT, site, timeout_s=900)
    assert done.returncode == 0, done.stdout[-3000:]
    counted = re.search(r"\b(\d+) passed", done.stdout)
    assert counted is not None and int(counted[1]) >= 7, done.stdout[-500:]
