"""The example of docs/add-a-model.md is a working model."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import torch

from export.graphs import graph_specs
from export.onnx_writer import write_onnx
from export.parity import check_parity
from perception.models.heads import specs_for
from perception.models.registry import MODELS, build_model

PAGE = Path(__file__).parents[3] / "docs/add-a-model.md"


@pytest.mark.slow
def test_the_documented_example_builds_and_exports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)[0]
    module = types.ModuleType("documented_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    monkeypatch.setitem(MODELS.own, "mean", module.MeanFusion)
    model = build_model(
        "mean", ("rgb", "depth"), specs_for(segmentation=5), pretrained=False, options={"width": 8}
    )
    images = {"rgb": torch.randn(1, 3, 32, 64), "depth": torch.randn(1, 2, 32, 64)}
    for spec in graph_specs(model, images):
        write_onnx(spec, tmp_path / spec.file)
    assert len(check_parity(model, tmp_path, images)) == 3
