"""Folders and zips that are read by name: what is not plainly inside is not read."""

from __future__ import annotations

import os
import sqlite3
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.errors import BundleError, DataError
from perception.files.containers import Container, Folder, Zip, is_zip, stays_inside


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "marker").write_bytes(b"m")
    (root / "a.bin").write_bytes(b"12345")
    (root / "sub/b.bin").write_bytes(b"b")
    (tmp_path / "secret").write_bytes(b"secret")
    return root


def _zipped(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{inside}{file.relative_to(folder)}")
    return path


@pytest.fixture(params=["folder", "zip", "zip of a folder"])
def container(request: pytest.FixtureRequest, folder: Path, tmp_path: Path) -> Container:
    if request.param == "folder":
        return Folder(folder, BundleError)
    inside = "root/" if request.param == "zip of a folder" else ""
    return Zip(_zipped(folder, tmp_path / "x.zip", inside), "marker", BundleError)


def test_files_are_read_by_name(container: Container) -> None:
    assert container.read("a.bin") == b"12345" and container.read("sub/b.bin") == b"b"
    assert container.size("a.bin") == 5 and container.has("a.bin")
    assert container.names("sub") == ["sub/b.bin"] and container.names("nowhere") == []
    assert container.where("a.bin").endswith("/a.bin")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "missing"),
        ("é" * 200, "missing|too long"),
        ("sub", "no regular file|missing"),
        ("../secret", "outside"),
        ("sub/../a.bin", "outside"),
        ("/etc/passwd", "outside"),
        ("./a.bin", "outside"),
        ("", "outside"),
        ("sub//b.bin", "outside"),
        ("sub\\b.bin", "outside"),
        ("C:a.bin", "outside"),
        ("a.bin\0", "outside"),
        ("a\n.bin", "outside"),
        ("x" * 256, "outside"),
    ],
)
def test_what_is_not_plainly_inside_is_refused(
    container: Container, name: str, message: str
) -> None:
    for call in (container.read, container.size):
        with pytest.raises(BundleError, match=message) as caught:
            call(name)
        assert "\n" not in str(caught.value)
    assert not container.has(name)


@given(st.text(st.sampled_from("ab./\\:\0 \n~é"), max_size=12))
def test_names_that_stay_inside_lead_nowhere_else(name: str) -> None:
    if stays_inside(name):
        root = Path("/root/of/it")
        found = Path(os.path.normpath(root / name))
        assert found.is_relative_to(root) and found != root
        assert str(found.relative_to(root)) == name
    else:
        assert not name or set(name) & set("./\\:\0 \n")


def test_the_limit_is_exact(container: Container) -> None:
    assert container.read("a.bin", limit=5) == b"12345"
    with pytest.raises(BundleError, match="limit of 4"):
        container.read("a.bin", limit=4)


def test_links_pipes_and_devices_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "within").symlink_to(folder / "a.bin")
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    (folder / "linked").symlink_to(folder / "sub")
    os.mkfifo(folder / "pipe")
    files = Folder(folder)
    for name in ("out", "within", "dangling", "linked/b.bin"):
        with pytest.raises(DataError, match="is a link"):
            files.read(name)
    for name in ("out", "within", "dangling", "pipe"):
        assert files.has(name)  # what is there is refused, and not taken for missing
    with pytest.raises(DataError, match="is no regular file"):
        files.read("pipe")  # and does not wait for a writer
    with pytest.raises(DataError, match="is a link"):
        files.names("linked")
    (folder / "sub/also").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="also: is a link"):
        files.names("sub")


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert Folder(tmp_path / "current").read("a.bin") == b"12345"


def test_names_come_newest_first(folder: Path) -> None:
    for age, name in enumerate(("b", "c", "a")):
        (folder / "sub" / name).write_bytes(b"")
        os.utime(folder / "sub" / name, (1e9 - age, 1e9 - age))
    os.utime(folder / "sub/b.bin", (9e8, 9e8))
    assert Folder(folder).names("sub") == ["sub/b", "sub/c", "sub/a", "sub/b.bin"]


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.files.containers.MAX_ARCHIVE_FILES", 2)
    for name in "ab":
        (folder / "sub" / name).write_bytes(b"")
    with pytest.raises(DataError, match="more than 2 files"):
        Folder(folder).names("sub")


def test_only_what_begins_as_a_zip_is_one(folder: Path, tmp_path: Path) -> None:
    archive = _zipped(folder, tmp_path / "x.zip")
    database = tmp_path / "x.db"
    with sqlite3.connect(database) as connection:
        connection.execute("create table t (x)")
    connection.close()
    database.write_bytes(database.read_bytes() + archive.read_bytes())
    assert zipfile.is_zipfile(database)  # as Python sees it
    assert is_zip(archive) and not is_zip(database) and not is_zip(tmp_path)
    assert not is_zip(tmp_path / "nothing") and not is_zip(Path("a\0b"))
    with pytest.raises(BundleError, match="is a file, but no zip"):
        Zip(database, "marker", BundleError)


def test_a_zip_must_hold_the_marker_in_one_place(folder: Path, tmp_path: Path) -> None:
    (folder / "marker").unlink()
    with pytest.raises(BundleError, match="no marker"):
        Zip(_zipped(folder, tmp_path / "a.zip"), "marker", BundleError)
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("one/marker", b"1")
        archive.writestr("two/marker", b"2")
    with pytest.raises(BundleError, match="no marker"):
        Zip(path, "marker", BundleError)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("marker", b"top")
        archive.writestr("deep/deeper/marker", b"3")
    assert Zip(path, "marker", BundleError).read("marker") == b"top"


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("marker", b"")
        link = zipfile.ZipInfo("a.bin")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match=r"a\.bin.*is a link"):
        Zip(path, "marker", BundleError)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), method=st.sampled_from([0, 8, 12, 14]))
def test_a_damaged_zip_gives_its_error_or_the_same_bytes(
    folder: Path, tmp_path: Path, data: st.DataObject, method: int
) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("marker", b"m")
        archive.writestr("a.bin", bytes(range(256)) * 4)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        assert Zip(path, "marker", BundleError).read("a.bin") == bytes(range(256)) * 4
    except BundleError as error:
        assert "\n" not in str(error)
