"""`anysense models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perception.cli.main import main
from perception.models.registry import MODELS


@pytest.mark.slow
def test_models_lists_every_model_with_its_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "models.json"
    assert main(["models", "--json", str(path), "--size", "64", "96", "--classes", "5"]) == 0
    content = json.loads(path.read_text())
    rows = {row["name"]: row for row in content["models"]}
    assert list(rows) == list(MODELS)
    fields = {"name", "kind", "source", "modalities", "tasks", "parameters", "gmac", "exportable"}
    assert all(fields <= row.keys() for row in rows.values())
    assert rows["ssma"]["parameters"] > 1.8 * rows["adapnet++"]["parameters"]
    assert "ssma" in capsys.readouterr().out


def test_models_refuses_sizes_that_no_model_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--size", "50", "64"]) == 2
    assert "--size: sides must be positive multiples of 32" in capsys.readouterr().err
    assert main(["models", "--classes", "0"]) == 2
