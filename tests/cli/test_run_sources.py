"""`anysense run` on folders, patterns, videos, cameras, bags and recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perception.cli import sources
from perception.cli.main import main
from perception.cli.sources import Files, pair, source_of
from perception.errors import AnySenseError, ConfigError

CPU = ("--device", "onnxruntime-cpu", "--threads", "1")
RGB, DEPTH, THERMAL = "rgb", "depth", "thermal"


def _run(bundle: Path, out: Path, *arguments: object) -> int:
    line = ["run", "--bundle", bundle, "--out", out, *CPU, *arguments]
    return main([str(word) for word in line])


def _reported(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    said = capsys.readouterr()
    return json.loads(said.out)  # type: ignore[no-any-return]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if "error: " in line]
    assert len(errors) == 1 and "Traceback" not in said, said
    return errors[0]


def _video(path: Path, frames: int = 6, *, gray: bool = False, rate: float = 10.0) -> Path:
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, (96, 64))
    rng = np.random.default_rng(1)
    for _ in range(frames):
        coarse = rng.integers(0, 255, (4, 6, 1 if gray else 3), np.uint8)
        picture = cv2.resize(np.repeat(coarse, 3, axis=2) if gray else coarse, (96, 64))
        writer.write(picture)
    writer.release()
    return path


def test_a_recording_gives_everything_that_is_asked_for(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film.avi"
    data = ("--data", f"folder:{simulated}", "--limit", 4, "--video", film, "--json")
    assert _run(tiny_bundle, tmp_path / "out", *data) == 0
    content = _reported(capsys)
    assert (content["frames"], content["answered"], content["paired"]) == (4, 4, "recording")
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    names = [line["frame"] for line in lines]
    assert len(set(names)) == 4 and {"used", "state", "timings_ms"} <= lines[0].keys()
    for what in ("overlay", "labels", "confidence"):
        assert sorted(p.stem for p in (out / what).iterdir()) == sorted(names)
    labels = cv2.imread(str(out / "labels" / f"{names[0]}.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint8 and labels.ndim == 2
    reader = cv2.VideoCapture(str(film))
    frames = 0
    while reader.read()[0]:
        frames += 1
    assert frames == 4


def test_boxes_are_what_cocos_own_tools_read(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    data = ("--data", f"folder:{simulated}", "--limit", 2, "--write", "boxes", "results")
    assert _run(tiny_bundle, tmp_path / "out", *data) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} <= {"boxes.json", "results.jsonl"}
    if not (out / "boxes.json").exists():
        pytest.skip("this bundle has no boxes")
    found = coco.COCO(str(out / "boxes.json"))
    assert len(found.getImgIds()) == 2
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(found.getAnnIds()) == sum(len(line["boxes"]) for line in lines)
    for image in found.loadImgs(found.getImgIds()):
        assert image["width"] > 0 and image["height"] > 0


def test_folders_pair_by_name_and_go_on_where_one_is_missing(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {k: tmp_path / k for k in (RGB, DEPTH)}
    for kind, folder in folders.items():
        folder.mkdir()
        for source in sorted((simulated / kind).iterdir())[: 4 if kind == RGB else 3]:
            (folder / source.name).write_bytes(source.read_bytes())
    broken = sorted(folders[DEPTH].iterdir())[1]
    broken.write_bytes(b"no picture")
    given = ("--rgb", folders[RGB], "--depth", folders[DEPTH], "--json")
    assert _run(tiny_bundle, tmp_path / "out", *given) == 0
    said = capsys.readouterr()
    content = json.loads(said.out)
    assert content["paired"] == "name" and content["answered"] == 4
    assert content["used"] == {"rgb+depth": 2, "rgb": 2}
    assert "1 of 4 frames lack a sensor" in said.err and broken.name in said.err


def test_a_pattern_and_several_files(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted((simulated / RGB).iterdir())[:3]
    assert _run(tiny_bundle, tmp_path / "a", "--rgb", *files, "--write", "results", "--json") == 0
    assert _reported(capsys)["frames"] == 3
    pattern = simulated / RGB / "00000[01].png"
    given = ("--sensor", f"rgb={pattern}", "--write", "results", "--json")
    assert _run(tiny_bundle, tmp_path / "b", *given) == 0
    assert _reported(capsys)["frames"] == 2


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video(
    suffix: str, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = _video(tmp_path / f"v{suffix}")
    given = ("--rgb", video, "--write", "overlay", "--json")
    assert _run(tiny_bundle, tmp_path / "out", *given) == 0
    assert _reported(capsys)["frames"] == 6
    assert len(list((tmp_path / "out/overlay").iterdir())) == 6


def test_two_videos_go_together_by_time(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, fast = (
        _video(tmp_path / "a.avi", 4, rate=10),
        _video(tmp_path / "b.avi", 9, gray=True, rate=20),
    )
    given = ("--rgb", slow, "--thermal", fast, "--write", "results", "--json")
    assert _run(tiny_bundle, tmp_path / "out", *given) == 0
    content = _reported(capsys)
    assert content["frames"] == 4 and content["used"] == {"rgb+thermal": 4}


def test_a_camera_is_read_until_it_ends(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A video stands for the camera that this machine may lack: what is opened is all that differs."""
    video, opened = _video(tmp_path / "v.avi"), []
    real = cv2.VideoCapture

    def capture(place: object) -> Any:
        opened.append(place)
        return real(str(video))

    monkeypatch.setattr(sources.cv2, "VideoCapture", capture)
    given = ("--rgb", "0", "--limit", 3, "--write", "results", "--json")
    assert _run(tiny_bundle, tmp_path / "out", *given) == 0
    assert _reported(capsys)["frames"] == 3 and set(opened) == {0}


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("9", "9: no camera can be opened (is it plugged in, and used by no other program? "),
        ("/dev/video9", "/dev/video9: no camera can be opened (is it plugged in, and "),
        ("/dev/v4l/by-id/none", "/dev/v4l/by-id/none: no camera can be opened (is it plugged in"),
        ("/dev/null", "/dev/null: no camera can be opened (is it plugged in"),
        ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x: no camera can be opened (nothing answers"),
        ("VIDEO", "is no video that can be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_line_with_nothing_beside_it(
    place: str, words: str, tiny_bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if Path("/dev/video9").exists():
        pytest.skip("there is such a camera")
    if place == "VIDEO":
        place = str(tmp_path / "v.mp4")
        Path(place).write_bytes(b"\0\0\0\x18ftypmp42" + bytes(2000))
    assert _run(tiny_bundle, tmp_path / "out", "--rgb", place) == 2
    said = capfd.readouterr()
    assert said.err.startswith("anysense: error: ") and said.err.count("\n") == 1, said.err
    assert words in said.err and not (tmp_path / "out").exists()


def test_a_bag(
    tiny_bundle: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rosbags")
    bag = tmp_path / "bag"
    assert main(["record", "--data", f"folder:{simulated}", "--limit", "3", "--out", str(bag)]) == 0
    capsys.readouterr()
    given = ("--bag", bag, "--write", "overlay", "results", "--json")
    assert _run(tiny_bundle, tmp_path / "out", *given) == 0
    content = _reported(capsys)
    assert content["frames"] == 3 == len(list((tmp_path / "out/overlay").iterdir()))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rgb", "EMPTY"), "file"),
        (("--rgb", "x/*.png"), "no file fits"),
        (("--rgb", "NOVIDEO"), "is no video that can be opened"),
        (("--rgb", "/dev/null"), "camera"),
        (("--rgb", "DATA"), "--data folder:"),
        (("--lidar", "0"), "a camera is no lidar"),
        (("--thermal", "COLORS"), "in false colors: no thermal"),
        (("--rgb", "RGB", "--data", "folder:DATA"), "two sources of all sensors"),
        (("--bag", "x", "--data", "folder:DATA"), "two sources of all sensors"),
        (("--bag", "NOVIDEO"), "v.mp4"),
        (("--rgb", "RGB", "--video", "film.gif"), "'.gif' is unknown"),
        (("--rgb", "A", "--depth", "B"), "cannot be paired (rgb 2, depth 3)"),
        (("--rgb", "A", "--depth", "B", "--pair", "order"), "equally many"),
        (("--rgb", "BROKEN"), "broken.png"),
        (("--rgb", "ALLBROKEN"), "no sensor was usable"),
        (("--rgb", "RGB", "--write", "everything"), "--write"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: tuple[str, ...],
    words: str,
    tiny_bundle: Path,
    simulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"RGB": simulated / "rgb/000000.png", "COLORS": _video(tmp_path / "c.avi", 1)}
    places |= {"BROKEN": tmp_path / "broken.png", "NOVIDEO": tmp_path / "v.mp4"}
    for name in ("EMPTY", "A", "B", "ALLBROKEN"):
        places[name] = tmp_path / name
        places[name].mkdir()
    places["DATA"] = simulated
    for path in (
        places["BROKEN"],
        places["NOVIDEO"],
        *(places["ALLBROKEN"] / f"{i}.png" for i in "12"),
    ):
        path.write_bytes(b"nothing of the sort")
    for folder, names in (("A", ("x", "y")), ("B", ("1", "2", "3"))):
        for name in names:
            (tmp_path / folder / f"{name}.png").write_bytes(places["RGB"].read_bytes())
    line = []
    for word in arguments:
        kind, colon, place = word.rpartition(":")
        line.append(f"{kind}{colon}{places.get(place, place)}")
    assert _run(tiny_bundle, tmp_path / "out", *line) == 2
    assert words in _error(capsys)
    assert not list(tmp_path.glob("**/.*.part*"))


def _files(sensor: str, *names: str) -> Files:
    return Files(sensor, RGB, tuple(Path(f"{sensor}/{name}") for name in names))


@pytest.mark.parametrize(
    ("first", "second", "rule", "frames"),
    [
        (["a.png"], ["b.png"], "one of each", [("a", (0, 0))]),
        (["1.png", "2.png"], ["2.jpg", "1.jpg"], "name", [("1", (0, 1)), ("2", (1, 0))]),
        (["1.png", "2.png"], ["2.png", "3.png"], "name", [("1", (0,)), ("2", (1, 0)), ("3", (1,))]),
        (["left_9.png", "left_10.png"], ["right-10.png", "right-9.png"], "name",
         [("9", (0, 1)), ("10", (1, 0))]),
        (["1700000000.00.png", "1700000000.10.png"], ["1700000000.09.png", "1700000000.31.png"],
         "stamp", [("1700000000.00", (0,)), ("1700000000.10", (1, 0))]),
        (["a.png", "b.png"], ["x.png", "y.png"], "order", [("a", (0, 0)), ("b", (1, 1))]),
    ],
)  # fmt: skip
def test_files_pair(
    first: list[str], second: list[str], rule: str, frames: list[tuple[str, tuple[int, ...]]]
) -> None:
    found = pair([_files("left", *first), _files("right", *second)])
    assert found.rule == rule
    assert [(name, tuple(places.values())) for name, places in found.frames] == frames


NAMES = st.lists(
    st.one_of(st.text("ab_1.", min_size=1, max_size=5), st.integers(10**18, 2 * 10**18).map(str)),
    min_size=1,
    max_size=6,
)


@given(NAMES, NAMES, st.sampled_from(sources.RULES))
def test_no_file_is_used_wrongly_whatever_they_are_called(
    first: list[str], second: list[str], rule: Any
) -> None:
    given = [_files(s, *(f"{n}.png" for n in names)) for s, names in (("a", first), ("b", second))]
    try:
        found = pair(given, rule)
    except ConfigError:
        return
    assert found.frames
    for _, places in found.frames:
        assert places and all(
            0 <= i < len(s.paths) for s in given for i in [places.get(s.sensor, 0)]
        )
    if found.rule in ("name", "order"):
        for source in given:
            used = [p[source.sensor] for _, p in found.frames if source.sensor in p]
            assert sorted(used) == list(range(len(source.paths)))


@given(st.text(st.characters(exclude_characters="/*"), min_size=1, max_size=20))
def test_any_word_is_a_source_or_one_line(word: str) -> None:
    try:
        source_of(RGB, RGB, [word])
    except (AnySenseError, ValueError) as error:
        assert isinstance(error, AnySenseError) or "null" in str(error)


def test_pictures_that_are_passed_over_are_told(tmp_path: Path) -> None:
    for name in ("a.png", "b.HEIC", "c.heic", "film.MOV", "notes.txt", ".d.heic"):
        (tmp_path / name).write_bytes(b"x")
    found = source_of(RGB, RGB, [str(tmp_path)])
    assert isinstance(found, Files) and found.paths == (tmp_path / "a.png",)
    assert found.passed_over == (f"2 .heic in {tmp_path}", f"1 .mov in {tmp_path}")
