"""Writing, archives and folders."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import BundleError, DataError
from perception.files import archives
from perception.files.archives import open_zip
from perception.files.limits import check_bytes, check_pixels, check_points
from perception.files.listing import (
    SampleFolder,
    is_file,
    is_folder,
    is_there,
    list_files,
    list_ids,
)
from perception.files.writing import (
    write_image,
    write_json,
    write_text,
    write_unseen,
    write_yaml,
    writing,
    writing_folder,
)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "a/" * 3000, "none"])
def test_a_name_that_nothing_can_have_is_not_there(tmp_path: Path, name: str) -> None:
    assert not any(asked(tmp_path / name) for asked in (is_there, is_file, is_folder))
    (tmp_path / "a").write_text("")
    assert is_there(tmp_path / "a") and is_file(tmp_path / "a") and not is_folder(tmp_path / "a")
    assert is_there(tmp_path) and is_folder(tmp_path) and not is_file(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), writing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_leaves_the_old_file() -> None:
    with pytest.raises(DataError, match="No space left"), writing("/dev/shm/anysense-x") as partial:
        partial.symlink_to("/dev/full")
        with partial.open("w") as file:
            file.write("x")
    assert not os.path.lexists("/dev/shm/anysense-x")


def test_devices_and_pipes_are_written_to_not_replaced(tmp_path: Path) -> None:
    before = os.stat("/dev/null")
    write_text("/dev/null", "x")
    assert os.path.samestat(os.stat("/dev/null"), before)
    device = os.stat("/dev/full").st_rdev
    with pytest.raises(DataError, match="/dev/full: cannot be written: No space left"):
        write_text("/dev/full", "x")
    assert os.stat("/dev/full").st_rdev == device
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "a.txt")
    for text in ("one", "two"):
        write_text(tmp_path / "link.txt", text)
        assert (tmp_path / "real" / "a.txt").read_text() == text
    assert (tmp_path / "link.txt").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["link.txt", "real"]


def test_folders_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "made" / "bag"
    with pytest.raises(RuntimeError), writing_folder(target) as partial:
        partial.mkdir()
        (partial / "a").write_text("half")
        raise RuntimeError
    assert list((tmp_path / "made").iterdir()) == []
    with writing_folder(target) as partial:
        assert partial.name == "bag"
        partial.mkdir()
        (partial / "a").write_text("whole")
    assert (target / "a").read_text() == "whole"
    with pytest.raises(DataError, match="bag: exists already"), writing_folder(target) as partial:
        partial.mkdir()
    assert os.listdir(tmp_path / "made") == ["bag"]


def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    old = os.umask(0o027)
    try:
        write_text(path, "a")
        assert path.stat().st_mode & 0o777 == 0o640
        path.chmod(0o604)
        write_text(path, "b")
        assert path.stat().st_mode & 0o777 == 0o604
    finally:
        os.umask(old)


def test_a_place_that_is_none(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "a.txt", tmp_path):
        with pytest.raises(BundleError, match="cannot be written"):
            write_text(path, "a", error=BundleError)


def test_pictures(tmp_path: Path) -> None:
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[..., 0] = 200
    write_image(tmp_path / "a.png", rgb)
    assert (cv2.imread(str(tmp_path / "a.png"))[0, 0] == (0, 0, 200)).all()
    for name, image in (
        ("a.xyz", rgb),
        ("a.png", np.zeros((0, 0), np.uint8)),
        ("a.jpg", np.zeros((4, 4, 5))),
    ):
        with pytest.raises(DataError):
            write_image(tmp_path / name, image)


def test_values(tmp_path: Path) -> None:
    write_yaml(tmp_path / "a.yaml", {"größe": [1]})
    assert (tmp_path / "a.yaml").read_text(encoding="utf-8") == "größe:\n- 1\n"
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})


def _zip(path: Path, names: list[str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "x" * 100)
    return path


def test_archives_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in (["/a"], ["../a"], ["a\\..\\b"]):
        with (
            pytest.raises(BundleError, match="outside"),
            open_zip(_zip(tmp_path / "a.zip", names), error=BundleError),
        ):
            pass
    with (
        pytest.raises(DataError, match="more than 150"),
        open_zip(_zip(tmp_path / "a.zip", ["a", "b"]), limit=150),
    ):
        pass
    monkeypatch.setattr(archives, "MAX_ARCHIVE_FILES", 1)
    with pytest.raises(DataError, match="2 files"), open_zip(_zip(tmp_path / "a.zip", ["a", "b"])):
        pass


def test_archives_with_links_or_passwords(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("a")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="link"), open_zip(path):
        pass
    content = bytearray(_zip(path, ["a"]).read_bytes())
    content[content.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"), open_zip(path):
        pass


@pytest.mark.parametrize("position", range(0, 200, 7))
def test_damaged_archives_are_one_line(tmp_path: Path, position: int) -> None:
    path = _zip(tmp_path / "a.zip", ["a"])
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0xFF
    path.write_bytes(content)
    try:
        with open_zip(path) as archive:
            for name in archive.namelist():
                archive.read(name)
    except DataError as error:
        assert "a.zip" in str(error)


def test_folders(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "Thumbs.db", "._a.png", ".DS_Store", "c.txt", "d.pcd.bin"):
        (tmp_path / name).touch()
    assert list_ids(tmp_path, (".png", ".jpg")) == ["a", "b"]
    assert list_files(tmp_path, (".bin", ".pcd.bin")) == {"d": tmp_path / "d.pcd.bin"}
    samples = SampleFolder(tmp_path, (".png", ".jpg"))
    assert samples.find("b") == tmp_path / "b.JPG" and samples.find("x") is None
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"a.jpg and a.png"):
        list_ids(tmp_path, (".png", ".jpg"))
    with pytest.raises(DataError, match="no .bmp file"):
        list_ids(tmp_path, (".bmp",))
    with pytest.raises(DataError, match="no such folder"):
        list_ids(tmp_path / "x", (".bmp",))


def test_limits() -> None:
    check_pixels(8192, 8192)
    for size in ((8193, 8192), (0, 5), (70_000, 70_000), (-1, -1)):
        with pytest.raises(DataError):
            check_pixels(*size, error=DataError)
    check_points(0)
    for count in (-1, 10**12):
        with pytest.raises(ValueError, match="cloud"):
            check_points(count)
    check_bytes(10, 10)
    with pytest.raises(ValueError, match="limit"):
        check_bytes(11, 10)


def test_names_are_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    wanted = ["1", "2", "9", "10", "010", "100", "a", "a1b2", "a1b10", "a2", "b"]
    for name in reversed(wanted):
        (tmp_path / f"{name}.png").touch()
    got = list_ids(tmp_path, (".png",))
    assert sorted(got[3:5]) == ["010", "10"]  # of equal numbers, by letters
    assert [int(n) for n in got[:6]] == [1, 2, 9, 10, 10, 100] and got[6:] == wanted[6:]
    padded = [f"{n:05}D" for n in range(0, 400, 7)]
    for name in padded:
        (tmp_path / "x" / f"{name}.png").parent.mkdir(exist_ok=True)
        (tmp_path / "x" / f"{name}.png").touch()
    assert list_ids(tmp_path / "x", (".png",)) == sorted(padded)


def test_what_nobody_looks_at_yet_is_written_under_its_name(tmp_path: Path) -> None:
    write_unseen(tmp_path / "a.txt", b"one")
    write_unseen(str(tmp_path / "a.txt"), b"2")
    assert (tmp_path / "a.txt").read_bytes() == b"2" and os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(DataError, match="none/b.txt: cannot be written: No such file"):
        write_unseen(tmp_path / "none" / "b.txt", b"")
    if Path("/dev/full").exists():
        with pytest.raises(BundleError, match="cannot be written: No space left"):
            write_unseen("/dev/full", b"x", error=BundleError)
