"""The demo's choice of a bundle, and its report on names that look like markup."""

from __future__ import annotations

import html.parser
import re
import shutil
from pathlib import Path

import pytest
import yaml

from perception.cli.main import main
from perception.data.base import ClassInfo, RecordingInfo
from perception.data.msrs import CLASSES
from perception.data.nyuv2 import CLASS_NAMES
from perception.data.rgbt_person import BACKGROUND, PERSON
from perception.demo.choice import choose_bundle
from perception.errors import ConfigError
from perception.frame import MODALITIES
from perception.sim.scene import DET_CLASSES, SEG_CLASSES

BUNDLES = Path(__file__).parents[2] / "bundles"


def _classes(*names: str) -> tuple[ClassInfo, ...]:
    return tuple(ClassInfo(i, n, (1, 2, 3)) for i, n in enumerate(names))


def _info(
    modalities: tuple[str, ...],
    seg: tuple[ClassInfo, ...] = (),
    det: tuple[ClassInfo, ...] = (),
    name: str = "yard",
    simulated: bool = False,
) -> RecordingInfo:
    return RecordingInfo("folder", name, modalities, seg, det, simulated=simulated)  # type: ignore[arg-type]


STREET = _classes("road", "sidewalk", "building", "person", "sky")

FITTING = {
    "NYU": (_info(("rgb", "depth"), _classes(*CLASS_NAMES), name="NYU Depth v2"), "indoor-rgbd"),
    "MSRS": (_info(("rgb", "thermal"), (), CLASSES, name="MSRS"), "road-rgbt"),
    "KITTI": (_info(("rgb", "lidar"), (), CLASSES), "road-rgbt"),
    "persons": (
        _info(("rgb", "thermal"), (BACKGROUND, PERSON), _classes("person")),
        "road-rgbt",
    ),
    "simulated": (_info(MODALITIES, SEG_CLASSES, DET_CLASSES, "drive", True), "sim-rgbdtl"),
    "simulated, no labels": (_info(("rgb", "depth"), simulated=True), "sim-rgbdtl"),
    "indoor folder": (_info(("rgb", "depth"), _classes("wall", "floor", "robot")), "indoor-rgbd"),
    "night folder": (_info(("rgb", "thermal"), (), _classes("car", "person")), "road-rgbt"),
    "street folder": (_info(("rgb", "depth"), STREET), "sim-rgbdtl"),
    "no labels, depth": (_info(("rgb", "depth")), "indoor-rgbd"),
    "no labels, depth alone": (_info(("depth",)), "indoor-rgbd"),
    "no labels, thermal": (_info(("thermal", "rgb")), "road-rgbt"),
    "no labels, lidar": (_info(("lidar",)), "sim-rgbdtl"),
}


@pytest.mark.parametrize("name", FITTING)
def test_the_bundle_that_fits_is_chosen(name: str) -> None:
    info, wanted = FITTING[name]
    assert [one.name for one in choose_bundle(info, [BUNDLES])] == [wanted]


def test_equal_choices_are_all_told() -> None:
    fits = choose_bundle(_info(("rgb",)), [BUNDLES])
    assert [one.name for one in fits] == ["indoor-rgbd", "road-rgbt"]
    assert fits[0].described() == "takes rgb"


def test_a_foreign_world_is_told() -> None:
    (one,) = choose_bundle(_info(("rgb", "depth"), STREET), [BUNDLES])
    assert "knows all 5 classes that are labeled" in one.described()
    assert "simulated or real" in one.described()
    (one,) = choose_bundle(
        _info(("rgb", "depth"), _classes(*(c.name for c in STREET), "unicorn")), [BUNDLES]
    )
    assert "knows 5 of 6 classes that are labeled" in one.described()


def test_none_fits(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/bundle.yaml").write_text("[")
    with pytest.raises(ConfigError, match="--bundle") as caught:
        choose_bundle(_info(("rgb",), _classes("unicorn")), [tmp_path, BUNDLES, tmp_path / "no"])
    line = str(caught.value)
    assert "broken cannot be read" in line and "indoor-rgbd knows none of its classes" in line
    # A class of another task, or of nothing in particular, is none in common.
    for info in (
        _info(("rgb",), (), _classes("wall", "floor")),
        _info(("rgb",), _classes("background")),
    ):
        with pytest.raises(ConfigError, match="no bundle fits"):
            choose_bundle(info, [BUNDLES])
    with pytest.raises(ConfigError, match="there is none"):
        choose_bundle(_info(("rgb",)), [tmp_path / "no"])


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_the_demo_tells_its_choice_and_escapes_names(
    tiny_bundle: Path,
    simulated: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundles/mine"))
    manifest = yaml.safe_load((bundle / "bundle.yaml").read_text())
    manifest["description"] = "</td><script>x</script>"
    manifest["training"] = {"data": "a drive", "licence": "' onload='alert(1)"}
    manifest["model"]["parameters"] = "many"
    manifest["tasks"]["segmentation"]["classes"][0]["name"] = "<img src=x onerror=y>"
    (bundle / "bundle.yaml").write_text(yaml.safe_dump(manifest))
    (bundle / "records.yaml").unlink(missing_ok=True)  # they are of the bundle before
    recording = Path(shutil.copytree(simulated, tmp_path / "rec"))
    info = yaml.safe_load((recording / "dataset.yaml").read_text())
    info["name"] = "[/red]<script>y</script>"
    (recording / "dataset.yaml").write_text(yaml.safe_dump(info))
    monkeypatch.setenv("ANYSENSE_BUNDLES", str(tmp_path / "bundles"))
    monkeypatch.setattr("perception.demo.choice.bundle_folders", lambda: [tmp_path / "bundles"])
    arguments = ["--data", f"folder:{recording}", "--out", str(tmp_path / "out")]
    assert main(["demo", *arguments, "--device", "onnxruntime-cpu", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "bundle mine: takes rgb, depth, thermal, lidar; knows 7 of 8 classes" in shown
    page = _Page()
    text = (tmp_path / "out/report.html").read_text("utf-8")
    page.feed(text)
    assert "script" not in page.tags and not {"onload", "onerror", "src='x"} & page.attributes
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert "[/red]&lt;script&gt;" in text
