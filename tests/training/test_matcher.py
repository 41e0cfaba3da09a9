"""Training of the matcher: `anysense train` with a configuration that has `matcher`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from two_sensors import scene

from calibration.registration.network import DescriptorGraph
from perception.cli.main import main
from perception.errors import ConfigError, DataError
from perception.files.text import read_yaml
from perception.training.matcher.config import MatcherConfig, matcher_config
from perception.training.matcher.losses import centers, coarse_loss, fine_loss
from perception.training.matcher.network import DescriptorNetwork
from perception.training.matcher.pairs import Pair, crops_of, names_of
from perception.training.matcher.trainer import GRAPH, LAST, MatcherTrainer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def content(tmp_path: Path) -> dict[str, Any]:
    """A configuration of two short epochs on a few made-up pairs."""
    for part in ("rgb", "hot"):
        (tmp_path / "pairs" / part).mkdir(parents=True)
    for k in range(6):
        a, b = scene(k, 240, 180)
        cv2.imwrite(str(tmp_path / f"pairs/rgb/{k}.png"), cv2.merge([a, a, 255 - a]))
        raw = b.astype(np.uint16) * 7 + 21000
        cv2.imwrite(str(tmp_path / f"pairs/hot/{k}.png"), raw)
    source = {
        "folder": str(tmp_path / "pairs"),
        "a": "rgb",
        "b": "hot",
        "val": ["5"],
        "test": ["4"],
    }
    spec = {"sources": [source], "crop": 96, "batch": 2, "steps": 3}
    return {"name": "m", "matcher": spec, "epochs": 2, "bfloat16": False}


def _config(content: dict[str, Any]) -> MatcherConfig:
    return matcher_config(content, "c.yaml")


def _state(trainer: MatcherTrainer) -> np.ndarray:
    return np.concatenate(
        [v.float().numpy().ravel() for v in trainer.network.state_dict().values()]
    )


def test_the_command_trains_and_writes_a_graph_that_registration_takes(
    content: dict[str, Any], tmp_path: Path
) -> None:
    file, out, report = tmp_path / "c.yaml", tmp_path / "run", tmp_path / "r.json"
    file.write_text(yaml.safe_dump(content))
    words = ["train", str(file), "--out", str(out), "--threads", "1", f"--json={report}"]
    assert main(words) == 0
    rows = json.loads(report.read_text())["epochs"]
    assert len(rows) == 2 and all(np.isfinite(row["loss"]) for row in rows)
    assert 0 <= rows[-1]["coarse"] <= 1 and (out / "log.csv").exists()
    graph = DescriptorGraph(out / GRAPH, threads=1)
    seen = graph.describe(np.float32(scene(1)[0] / 255), np.ones((360, 480), bool))
    assert seen.coarse.shape == (45, 60, 64) and seen.fine.shape == (90, 120, 32)
    assert np.allclose(np.linalg.norm(seen.fine, axis=2), 1, atol=0.01)
    assert (
        b"/home" not in (out / GRAPH).read_bytes()
        and str(ROOT).encode() not in (out / GRAPH).read_bytes()
    )


def test_smoke_is_short_and_what_is_for_fusion_models_is_refused(
    content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**content, "epochs": 5000}))
    assert (
        main(["train", str(file), "--smoke", "--out", str(tmp_path / "s"), "--threads", "1"]) == 0
    )
    for option in (["--data", "folder:x"], ["--tensorboard"], ["--smoke", "--minutes", "3"]):
        capfd.readouterr()
        assert main(["train", str(file), *option]) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and option[0] in said


def test_a_resumed_run_ends_as_one_that_never_stopped(
    content: dict[str, Any], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    whole = MatcherTrainer(_config(content), tmp_path / "whole", "cpu")
    whole.fit()
    first = MatcherTrainer(_config(content), tmp_path / "parts", "cpu")
    first.config.epochs = 1
    share = first._done_share
    first._done_share = lambda step: share(step) / 2  # type: ignore[method-assign]
    first.fit()
    second = MatcherTrainer(_config(content), tmp_path / "parts", "cpu")
    second.resume()
    assert second.epoch == 1
    second.fit()
    for name in ("loss", "val_loss", "score"):
        assert [r[name] for r in second.log] == pytest.approx([r[name] for r in whole.log])
    assert np.allclose(_state(second), _state(whole), atol=1e-6)


def test_no_checkpoint_and_a_strange_one_are_refused(
    content: dict[str, Any], tmp_path: Path
) -> None:
    trainer = MatcherTrainer(_config(content), tmp_path / "run", "cpu")
    with pytest.raises(DataError, match="no checkpoint"):
        trainer.resume()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LAST).write_bytes(b"\xff" * 100)
    with pytest.raises(DataError, match=LAST):
        trainer.resume()


def test_minutes_end_it(content: dict[str, Any], tmp_path: Path) -> None:
    config = _config({**content, "epochs": 10_000})
    trainer = MatcherTrainer(config, tmp_path / "run", "cpu", minutes=0.05)
    trainer.fit()
    assert 0 < trainer.epoch < 200 and (tmp_path / "run" / GRAPH).exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"crop": 100}, "matcher.crop"),
        ({"bach": 8}, "matcher.bach"),
        ({"sources": []}, "matcher.sources"),
        ({"corners": 2}, "matcher.corners"),
    ],
)
def test_a_wrong_field_is_named(
    content: dict[str, Any], change: dict[str, Any], field: str
) -> None:
    content["matcher"] |= change
    with pytest.raises(ConfigError, match=field):
        _config(content)


def test_pairs_that_do_not_fit_are_refused(content: dict[str, Any], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "pairs/hot/2.png"), np.eye(50, dtype=np.uint8) * 200)
    with pytest.raises(DataError, match="2 differ in size"):
        MatcherTrainer(_config(content), tmp_path / "run", "cpu")
    (tmp_path / "pairs/hot/2.png").unlink()
    with pytest.raises(DataError, match="no picture for 2"):
        MatcherTrainer(_config(content), tmp_path / "run", "cpu")


def test_the_parts_of_the_data_are_apart(content: dict[str, Any]) -> None:
    source = _config(content).matcher.sources[0]
    parts = [names_of(source, split) for split in ("train", "val", "test")]
    assert parts == [["0", "1", "2", "3"], ["5"], ["4"]]


def test_crops_lie_as_their_homography_says(content: dict[str, Any]) -> None:
    """With one picture twice, the first crop warped onto the second is the second."""
    spec = _config(content).matcher.model_copy(update={"made_up": 0.0, "crop": 160})
    gray = cv2.GaussianBlur(scene(1)[0], (0, 0), 2)
    likeness = []
    for seed in range(12):
        drawn = crops_of(Pair("x", gray, gray), spec, np.random.default_rng(seed))
        size = (160, 160)
        warped = cv2.warpPerspective(drawn.a[0], drawn.a_to_b, size)
        seen = cv2.warpPerspective(drawn.valid_a.astype(np.uint8), drawn.a_to_b, size) > 0
        both = cv2.erode((seen & drawn.valid_b).astype(np.uint8), np.ones((15, 15))) > 0
        if both.sum() > 1000:
            likeness.append(np.corrcoef(warped[both], drawn.b[0][both])[0, 1])
    assert len(likeness) > 8 and np.median(likeness) > 0.9, likeness


def test_losses_know_right_descriptors_from_wrong_ones() -> None:
    """Descriptors that are a code of the place in B, moved by a shift of whole cells."""
    side, shift = 96, 16.0
    matrix = torch.eye(3)[None].clone()
    matrix[0, 0, 2] = shift
    valid = torch.ones(1, side, side, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for stride, loss in ((8, coarse_loss), (4, fine_loss)):
        n = side // stride
        at = centers(side, stride, torch.device("cpu"))
        waves = torch.randn(2, 200, generator=generator) * 0.3
        phase = torch.rand(200, generator=generator) * 6.28

        def code(points: torch.Tensor) -> torch.Tensor:
            made = torch.cos(points @ waves + phase) / 10  # noqa: B023
            return made.T.reshape(1, 200, n, n)  # noqa: B023

        more = (generator,) if stride == 4 else ()
        a, b = code(at + torch.tensor([shift, 0.0])), code(at)
        good, right = loss(a, b, matrix, valid, valid, 0.07, *more)  # type: ignore[operator]
        bad, wrong = loss(b, b, matrix, valid, valid, 0.07, *more)  # type: ignore[operator]
        assert right > 0.95 and wrong < 0.2 and good < bad - 1


def test_the_graph_gives_what_the_network_gives(tmp_path: Path) -> None:
    from perception.training.matcher.graph import write_graph

    torch.manual_seed(0)
    network = DescriptorNetwork().eval()
    write_graph(network, tmp_path / "m.onnx")
    image = torch.randn(1, 2, 64, 160)
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    with torch.no_grad():
        expected = network(image)
    for got, want in zip(session.run(None, {"image": image.numpy()}), expected, strict=True):
        assert np.abs(got - want.numpy()).max() < 5e-3
    assert (tmp_path / "m.onnx").stat().st_size < 5 * 2**20


def test_the_shipped_configuration_is_read() -> None:
    config = matcher_config(read_yaml(ROOT / "configs/matcher.yaml"), "matcher.yaml")
    assert config.name == "matcher" and all(s.val and s.test for s in config.matcher.sources)
