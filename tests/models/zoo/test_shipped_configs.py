"""Every shipped configuration of the zoo, from training to a picture, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perception.cli.main import main

CONFIGS = sorted((Path(__file__).parents[3] / "configs" / "zoo").glob("*.yaml"))
SUFFIX = {"rgb": ".jpg", "depth": ".png", "thermal": ".png", "lidar": ".npz"}


def _small(config: Path, simulated: Path, folder: Path) -> tuple[Path, list[str]]:
    """A copy for small pictures, and its modalities: nothing else differs from what is shipped."""
    fields = yaml.safe_load(config.read_text())
    fields["preprocess"]["grid"] = {"height": 96, "width": 128}
    fields["resolution"] = [{"crop": [64, 96], "scale": [0.8, 1.3], "batch": 2}]
    fields["data"] = {"source": f"folder:{simulated}"}
    path = folder / config.name
    path.write_text(yaml.safe_dump(fields))
    return path, fields["preprocess"]["modalities"]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_train_export_run(config: Path, simulated: Path, tmp_path: Path) -> None:
    small, modalities = _small(config, simulated, tmp_path)
    run, bundle, out = tmp_path / "run", tmp_path / "bundle", tmp_path / "out"
    assert main(["train", str(small), "--smoke", "--out", str(run)]) == 0
    assert main(["export", str(run), "--out", str(bundle)]) == 0
    files = []
    for modality in modalities:
        files += [f"--{modality}", str(next((simulated / modality).iterdir()))]
    rig = ["--rig", str(simulated / "rig.yaml")]
    command = ["run", "--bundle", str(bundle), *files, *rig, "--out", str(out)]
    assert main([*command, "--device", "cpu"]) == 0
    assert (out / "overlay.png").is_file()


@pytest.mark.slow
def test_a_smoke_run_simulates_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = next(path for path in CONFIGS if path.stem == "tokens")
    fields = yaml.safe_load(config.read_text())
    fields["resolution"][0]["batch"] = 2
    Path("tokens.yaml").write_text(yaml.safe_dump(fields))
    assert main(["train", "tokens.yaml", "--smoke", "--out", "run"]) == 0
    assert "simulated frames in run/smoke-data" in capsys.readouterr().out
    assert main(["train", "tokens.yaml", "--out", "other"]) == 2
    assert "data/sim/train" in capsys.readouterr().err
