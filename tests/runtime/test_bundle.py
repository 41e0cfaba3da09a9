"""Bundles that are damaged, too new, or reach outside."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perception.errors import AnySenseError, BundleError
from perception.runtime.bundle import MANIFEST, Bundle, find_bundle
from perception.runtime.pipeline import Pipeline


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def _edit(folder: Path, **changes: object) -> None:
    path = folder / MANIFEST
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))


def test_a_good_bundle_verifies(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    assert set(bundle.manifest.files) == {p.name for p in tiny_bundle.glob("*.onnx")}


@pytest.mark.parametrize("name", ["encoder_rgb.onnx", "fuser.onnx", "single.onnx"])
def test_one_changed_byte_is_found_and_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        Pipeline.load(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "fuser.onnx").unlink()
    with pytest.raises(BundleError, match=r"fuser\.onnx"):
        Bundle.open(copy)


def test_a_newer_schema_asks_for_an_upgrade(copy: Path) -> None:
    _edit(copy, schema=2, something_new=True)
    with pytest.raises(BundleError, match="newer"):
        Bundle.open(copy)


@pytest.mark.parametrize("outside", ["../secret.onnx", "/etc/passwd", "a/../../b", ""])
def test_paths_out_of_the_bundle_are_refused(copy: Path, outside: str) -> None:
    raw = yaml.safe_load((copy / MANIFEST).read_text())
    raw["graphs"]["fuser"]["file"] = outside
    raw["files"][outside] = "0" * 64
    (copy / MANIFEST).write_text(yaml.safe_dump(raw))
    with pytest.raises(BundleError, match="outside"):
        Bundle.open(copy)


def test_links_out_of_the_bundle_are_refused(copy: Path, tmp_path: Path) -> None:
    shutil.move(copy / "fuser.onnx", tmp_path / "elsewhere.onnx")
    (copy / "fuser.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(BundleError, match="link"):
        Bundle.open(copy)


def test_zip_members_that_lead_outside_are_refused(copy: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(copy / MANIFEST, MANIFEST)
        archive.writestr("../evil.txt", "x")
    with pytest.raises(BundleError, match="outside"):
        Bundle.open(path)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_inconsistent_manifests_are_refused(copy: Path) -> None:
    _edit(copy, modalities=["rgb"])
    with pytest.raises(BundleError, match="modalities"):
        Bundle.open(copy)


def test_graphs_that_are_no_onnx_are_refused_with_one_line(copy: Path) -> None:
    import hashlib

    (copy / "fuser.onnx").write_bytes(b"not a graph")
    raw = yaml.safe_load((copy / MANIFEST).read_text())
    raw["files"]["fuser.onnx"] = hashlib.sha256(b"not a graph").hexdigest()
    (copy / MANIFEST).write_text(yaml.safe_dump(raw))
    with pytest.raises(AnySenseError) as caught:
        Pipeline.load(copy)
    assert "\n" not in str(caught.value)


def test_unknown_names_say_where_was_looked() -> None:
    with pytest.raises(BundleError, match="looked in"):
        find_bundle("no-such-bundle")


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_manifest_content_gives_a_bundle_error(content: str | bytes, tmp_path: Path) -> None:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    (tmp_path / MANIFEST).write_bytes(raw)
    with pytest.raises(BundleError) as caught:
        Bundle.open(tmp_path)
    assert "\n" not in str(caught.value)
