"""`anysense bundle upgrade`: the manifest of today, the graphs of then, and nothing half done."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_bundles import SmallBundles

import export.bundle_folder
import perception
from perception.cli.main import main
from perception.data.folder import FolderRecording
from perception.errors import BundleError
from perception.runtime.bundle import Bundle, record, sha256_of
from perception.runtime.manifest import check_manifest
from perception.runtime.records import BundleRecords

OLD = Path(__file__).parents[1] / "old_files" / "schema1"
SHIPPED = Path(__file__).parents[2] / "bundles"


def upgrade(*arguments: object) -> tuple[int, str]:
    """Exit status and what was printed anywhere."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = main(["bundle", "upgrade", *map(str, arguments)])
    return status, " ".join(said.getvalue().split())


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / "bundle", tmp_path / "old"))


def assert_same(new: Path) -> None:
    before, after = Bundle.open(OLD / "bundle"), Bundle.open(new)
    assert yaml.safe_load((new / "bundle.yaml").read_text())["schema"] == 2
    assert after.manifest == before.manifest
    digest = sha256_of(new / "bundle.yaml")
    assert after.records == before.records.model_copy(update={"bundle": digest})
    assert after.records.backends["openvino"].passed and after.records.accuracy
    for file in before.manifest.graph_files():
        assert (new / file).read_bytes() == (OLD / "bundle" / file).read_bytes()


def test_in_place_all_else_stays(old: Path) -> None:
    (old / "LICENCE.txt").write_text("mine")
    (old / "engines").mkdir()
    (old / "engines" / "fuser.plan").write_text("built here")
    (old / "notes").symlink_to(old / "engines")
    before = content(old)
    assert upgrade(old)[0] == 0
    assert_same(old)
    after = content(old)
    assert sorted(after) == sorted([*before, "records.yaml"])
    assert all(after[name] == value for name, value in before.items() if name != "bundle.yaml")
    assert (old / "notes").is_symlink()
    assert os.listdir(old.parent) == ["old"]
    status, said = upgrade(old)
    assert status == 0 and "nothing to do" in said
    assert content(old) == after


def test_answers_are_the_same(old: Path) -> None:
    assert upgrade(old)[0] == 0
    frame = FolderRecording(OLD / "recording").frame(0)
    found = [
        perception.Pipeline.load(path, "onnxruntime", threads=1)(frame)
        for path in (OLD / "bundle", old)
    ]
    for name in ("labels", "confidence"):
        np.testing.assert_array_equal(*(getattr(r, name) for r in found))
    np.testing.assert_array_equal(*(r.boxes.xyxy for r in found))  # type: ignore[union-attr]


def test_to_another_folder_and_from_a_zip(old: Path, tmp_path: Path) -> None:
    before = content(old)
    assert upgrade(old, "--out", tmp_path / "new")[0] == 0
    assert_same(tmp_path / "new")
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", old)
    status, said = upgrade(archive)
    assert status == 2 and "is a zip" in said and "--out" in said
    assert upgrade(archive, "--out", tmp_path / "new")[0] == 0  # a bundle that is there is replaced
    assert_same(tmp_path / "new")
    assert content(old) == before


def test_what_was_measured_since_goes_along(old: Path) -> None:
    record(old, accuracy={"other data": {"subsets": {"rgb": {"miou": 0.5}}}})
    assert yaml.safe_load((old / "bundle.yaml").read_text())["schema"] == 1
    known = set(Bundle.open(old).records.accuracy)
    assert upgrade(old)[0] == 0
    assert set(Bundle.open(old).records.accuracy) == known > {"other data"}


def test_what_cannot_be_upgraded_stays_and_is_told(
    old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.md").write_text("mine")
    for out, told in (
        (old, "is the source"),
        (old / "a", "lies in"),
        (tmp_path / "mine", "no bundle"),
    ):
        before = content(tmp_path)
        status, said = upgrade(old, "--out", out)
        assert status == 2 and told in said
        assert content(tmp_path) == before
    with monkeypatch.context() as patch:
        patch.chdir(old)
        status, said = upgrade(".")
        assert status == 2 and "current folder" in said
    text = (old / "bundle.yaml").read_text()
    for damaged in (
        text.replace("schema: 1", "schema: 3"),
        text[: len(text) // 2],
        "",
        "[]",
        "a: b",
    ):
        (old / "bundle.yaml").write_text(damaged)
        before = content(old)
        status, said = upgrade(old)
        assert status == 2 and "bundle.yaml" in said and "Traceback" not in said
        assert content(old) == before
    (old / "bundle.yaml").write_text(text)
    graph = old / "fuser.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    status, said = upgrade(old)
    assert status == 2 and "fuser.onnx" in said and "checksum" in said
    assert upgrade(tmp_path / "nowhere")[0] == 2


def test_what_goes_wrong_in_the_middle_changes_nothing(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, before = export.bundle_folder.write_bundle, content(old)

    def other(folder: Path, manifest: Any, records: BundleRecords) -> None:
        real(folder, manifest.model_copy(update={"version": "9"}), records)

    def killed(folder: Path, manifest: Any, records: BundleRecords) -> None:
        real(folder, manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr(export.bundle_folder, "write_bundle", other)
    status, said = upgrade(old)
    assert status == 2 and "without loss" in said
    monkeypatch.setattr(export.bundle_folder, "write_bundle", killed)
    with pytest.raises(KeyboardInterrupt):
        export.bundle_folder.upgrade_bundle(old)
    assert content(old) == before and os.listdir(old.parent) == ["old"]


def test_shipped_bundles_are_of_the_present_schema() -> None:
    for folder in sorted(SHIPPED.iterdir()):
        bundle = Bundle.open(folder)
        assert yaml.safe_load((folder / "bundle.yaml").read_text())["schema"] == 2, folder.name
        assert bundle.records.accuracy and bundle.records.parity, folder.name


def test_records_of_another_bundle_are_refused(small: SmallBundles) -> None:
    folder = small.named({"left": ("rgb", "camera"), "right": ("rgb", "camera")})
    record(folder, accuracy={"data": {"subsets": {}}})
    path = folder / "bundle.yaml"
    path.write_text(path.read_text().replace("name: small", "name: other"))
    status = io.StringIO()
    with contextlib.redirect_stderr(status):
        assert main(["bundle", "verify", str(folder)]) == 2
    assert "records.yaml: is of another bundle.yaml" in status.getvalue()
    (folder / "records.yaml").unlink()
    assert not Bundle.open(folder).records.accuracy
    for text in (
        "[]",
        "schema: 7",
        "a: [",
        "schema: 1\nbundle: 0\n",
        "\0",
        "x" * 100,
        "parity: {a: b}",
    ):
        (folder / "records.yaml").write_text(text)
        with pytest.raises(BundleError, match=r"records\.yaml") as caught:
            Bundle.open(folder)
        assert "\n" not in str(caught.value)


def test_a_measurement_changes_no_byte_of_the_identity(small: SmallBundles) -> None:
    folder = small.named({"left": ("rgb", "camera")})
    before = (folder / "bundle.yaml").read_bytes()
    record(folder, accuracy={"a": {"x": 1.0}}, speed={"cpu": {"openvino": 1.5}})
    record(folder, accuracy={"b": {"x": 2.0}})
    bundle = Bundle.open(folder)
    assert dict(bundle.records.accuracy) == {"a": {"x": 1.0}, "b": {"x": 2.0}}
    assert bundle.records.speed["cpu"] == {"openvino": 1.5}
    assert (folder / "bundle.yaml").read_bytes() == before


_GOOD = yaml.safe_load((OLD / "bundle" / "bundle.yaml").read_text())
_PLACES = [
    (key, *([inner] if isinstance(value, dict) else []))
    for key, value in _GOOD.items()
    for inner in (value if isinstance(value, dict) else [None])
]
_JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=8) | st.integers() | st.sampled_from(list(_GOOD)), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@example([(("training", "data"), float("inf"))])
@given(
    st.lists(st.tuples(st.sampled_from(_PLACES), _JUNK | st.just("gone")), min_size=1, max_size=3)
)
def test_a_manifest_of_schema_1_is_one_or_one_line(
    changes: list[tuple[tuple[str, ...], Any]],
) -> None:
    changed = yaml.safe_load(yaml.safe_dump(_GOOD))
    for place, value in changes:
        table = changed
        for key in place[:-1]:
            table = table.get(key) if isinstance(table, dict) else None
        if isinstance(table, dict):
            if value == "gone":
                table.pop(place[-1], None)
            else:
                table[place[-1]] = value
    try:
        manifest = check_manifest(changed, "m")
    except BundleError as error:
        assert "\n" not in str(error) and str(error).startswith("m")
    else:
        written = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert check_manifest(yaml.safe_load(yaml.safe_dump(written)), "m") == manifest
