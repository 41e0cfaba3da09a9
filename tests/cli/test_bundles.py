"""Bundles by name: the list, what may be done with each, what a typo and a failure leave."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from perception.cli.main import main
from perception.errors import BundleError, ConfigError
from perception.files.shipped import find_config, shipped
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.licences import may_ship, permissive
from perception.runtime.manifest import Licence
from perception.runtime.shelf import entries, headline

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("text", ["Apache-2.0", "MIT", "Apache-2.0 (simulated by AnySense)"])
def test_licences_that_allow_a_product(text: str) -> None:
    assert permissive(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unknown",
        "research use only: trained on NYU Depth v2",
        "CC-BY-NC-4.0",
        "MIT non-commercial",
        "MIT (for research)",
        "Apache-2.0 (code only)",
        "Apache-2.0 AND CC-BY-NC-4.0",
        "apache",
        "GPL-3.0-only",
    ],
)
def test_licences_that_do_not(text: str) -> None:
    assert not permissive(text)
    assert not may_ship(Licence(weights="MIT", data=text))
    assert not may_ship(Licence(weights=text, data="MIT"))


def test_the_list_says_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles/broken").mkdir(parents=True)
    (tmp_path / "bundles/broken/bundle.yaml").write_text("schema: 99\n")
    (tmp_path / "bundles/empty").mkdir()
    assert main(["bundles", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["bundles"]
    found = {one["name"]: one for one in listed}
    assert "empty" not in found
    assert "schema" in found["broken"]["problem"]
    stereo = found["sim-stereo"]
    assert stereo["sensors"] == {"depth": "depth", "left": "rgb", "right": "rgb"}
    assert stereo["tasks"] == ["segmentation", "boxes2d"]
    assert stereo["licence"]["may_ship"] is True
    assert stereo["scores"]["mIoU"] == pytest.approx(0.554, abs=1e-3)
    on_disk = sum(f.stat().st_size for f in Path(stereo["path"]).iterdir())
    assert 0.99 * on_disk < stereo["size"] <= on_disk
    assert main(["bundles", "--json", "list.json"]) == 0
    assert json.loads(Path("list.json").read_text())["bundles"] == listed
    shown = capsys.readouterr().out
    assert "sim-stereo" in shown and "broken" in shown


def test_only_simulated_weights_may_be_shipped() -> None:
    """What the wheel holds, and nothing else of ours."""
    ours = {one.name: one for one in entries([shipped("bundles")])}
    for name, one in ours.items():
        assert not one.problem
        if not one.simulated:
            assert not one.may_ship, name


def test_the_page_on_installation_says_the_same() -> None:
    page = (ROOT / "docs/install.md").read_text("utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (.+) \|$", page, re.M)
    table = {name: [c.strip() for c in rest.split("|")] for name, rest in rows if "Apache" in rest}
    ours = entries([ROOT / "bundles"])
    assert table.keys() == {one.name for one in ours}
    for one in ours:
        code, weights, data, product = table[one.name]
        assert code == one.code and product == ("yes" if one.may_ship else "no"), one.name
        assert one.weights.startswith(weights), one.name
        source = "simulated" if one.simulated else data.split(":")[0]
        assert source in one.data, one.name


def test_scores_are_those_of_the_runtime_with_most_sensors() -> None:
    titles = {"miou": "mIoU", "ap50": "AP50"}
    trained = {"subsets": {"rgb+depth": {"miou": 0.9}}}
    judged = {"subsets": {"rgb": {"miou": 0.1}, "rgb+depth": {"miou": 0.5, "ap50": None}}}
    records = {"a val, PyTorch": trained, "a val": judged}
    assert headline(records, titles) == ("a val", {"mIoU": 0.5})
    assert headline({"a val, PyTorch": trained}, titles) == ("a val, PyTorch", {"mIoU": 0.9})
    for strange in ({}, {"a": 1}, {"a": {"subsets": []}}, {"a": {"subsets": {"rgb": 3}}}):
        assert headline(strange, titles) == ("", {})


def test_zips_are_listed(tmp_path: Path) -> None:
    source = shipped("bundles") / "sim-stereo"
    shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    (one,) = entries([tmp_path])
    assert one.name == "packed.zip" and not one.problem
    assert one.size == (tmp_path / "packed.zip").stat().st_size
    assert one.tasks == ("segmentation", "boxes2d")


def test_a_typo_suggests_a_name() -> None:
    with pytest.raises(BundleError, match="did you mean 'sim-rgbdtl'.*sim-stereo.*looked in"):
        find_bundle("sim-rgbdlt")
    with pytest.raises(ConfigError, match="did you mean 'sim-stereo'"):
        find_config("sim-sterio")


def test_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("sim-stereo") == ROOT / "configs/sim-stereo.yaml"
    assert find_config("zoo/ssma") == ROOT / "configs/zoo/ssma.yaml"
    (tmp_path / "own").write_text("name: own\n")
    assert find_config("own") == Path("own")
    assert find_config(Path("absent.yaml")) == Path("absent.yaml")  # says itself that it is missing
    for path in ("configs/sim-stereo.yaml", "sim-stereo.yaml", "configs/zoo/ssma.yaml"):
        with pytest.raises(
            ConfigError, match="no such file .ours is called '.*'; .* copy /"
        ) as caught:
            find_config(Path(path))
        name = str(caught.value).split("'")[1]
        assert find_config(name).is_file() and str(find_config(name)) in str(caught.value)
    (tmp_path / "sim-stereo.yaml").touch()
    assert find_config(Path("sim-stereo.yaml")) == Path("sim-stereo.yaml")


def test_licences_are_told_where_a_bundle_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "info", "sim-stereo"]) == 0
    assert (
        "code Apache-2.0; weights Apache-2.0; data Apache-2.0 (simulated by AnySense): "
        "may be part of a product" in capsys.readouterr().out
    )
    assert main(["bundle", "info", "indoor-rgbd"]) == 0
    assert "not for a product without asking" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--bundle", "no-such-bundle", "--out", "deep/er/out"],
        ["demo", "--data", "folder:nowhere", "--out", "deep/er/out"],
        ["run", "--bundle", "no-such-bundle", "--rgb", "a.png", "--out", "deep/er/out"],
        ["train", "sim-stereo", "--data", "folder:nowhere", "--out", "deep/er/out"],
        ["eval", "nothing", "--data", "folder:nowhere", "--json", "deep/er/out.json"],
    ],
)
def test_a_command_that_fails_leaves_no_folder(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    assert main(command) == 2
    assert [p.name for p in tmp_path.rglob("*")] == ["deep"]


def test_a_failure_leaves_what_has_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kept.txt").write_text("mine")
    assert main(["demo", "--bundle", "no-such-bundle", "--out", "out"]) == 2
    assert (tmp_path / "out/kept.txt").exists()


def test_a_drive_that_cannot_be_simulated_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "mujoco", None)
    for command in (["demo", "--simulate"], ["data", "make-sim", "--out", "drive"]):
        assert main(command) == 2
        assert "pip install 'anysense[sim]'" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_a_demo_of_a_recording_simulates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--data", "folder:x", "--frames", "20"]) == 2
    assert "--data names one" in capsys.readouterr().err


def test_bundles_of_the_wheel_are_those_anybody_may_ship() -> None:
    text = (ROOT / "setup.py").read_text()
    packed = [n for n in (p.name for p in (ROOT / "bundles").iterdir()) if f"bundles/{n}" in text]
    assert packed
    for name in packed:
        manifest = Bundle.open(ROOT / "bundles" / name, verify=False).manifest
        assert manifest.simulated
        assert may_ship(manifest.licence)
        training = yaml.safe_dump(dict(manifest.training))
        assert "simulated" in training


def test_a_path_that_is_nearly_right_suggests_its_neighbor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(shipped("bundles") / "sim-stereo", tmp_path / "mine")
    with pytest.raises(BundleError, match=r"no such bundle \(did you mean 'mine'\?\)"):
        find_bundle(str(tmp_path / "mien"))
    assert main(["export", str(tmp_path / "mien"), "--out", str(tmp_path / "out")]) == 2
    assert "checkpoint or bundle (did you mean 'mine'?)" in capsys.readouterr().err


def test_scores_are_shown_in_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "info", "sim-stereo"]) == 0
    shown = capsys.readouterr().out
    records = Bundle.open(find_bundle("sim-stereo")).records
    for title, found in records.accuracy.items():
        assert f"accuracy: {title}" in shown
        for subset, scores in found["subsets"].items():
            cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in scores.values()]
            assert any(
                subset in line and all(cell in line for cell in cells)
                for line in shown.splitlines()
            ), subset


def test_bundles_are_listed_where_they_are_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundles", "list"]) == 0
    listed = capsys.readouterr().out
    assert main(["bundle", "list"]) == 0
    assert capsys.readouterr().out == listed
