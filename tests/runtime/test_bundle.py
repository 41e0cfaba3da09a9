"""Bundles that are damaged, too new, or reach outside."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from perception.errors import AnySenseError, BundleError
from perception.files.containers import Folder
from perception.frame import Sample
from perception.runtime.bundle import MANIFEST, Bundle, GraphSource, find_bundle, record
from perception.runtime.pipeline import Pipeline


def needs_openvino(value: str) -> Any:
    skip = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")
    return pytest.param(value, marks=skip)


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


def test_a_listed_file_that_is_no_graph_is_compared_too(small: Any) -> None:
    def listed(content: dict[str, Any]) -> None:
        content["files"]["notes.txt"] = hashlib.sha256(b"read me").hexdigest()

    folder = small(edit=listed)
    (folder / "notes.txt").write_bytes(b"read me")
    Bundle.open(folder)
    (folder / "notes.txt").write_bytes(b"read us")
    with pytest.raises(BundleError, match=r"notes\.txt: content does not match"):
        Bundle.open(folder)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "fuser.onnx").unlink()
    with pytest.raises(BundleError, match=r"fuser\.onnx"):
        Bundle.open(copy)


def test_a_newer_schema_asks_for_an_upgrade(copy: Path) -> None:
    _edit(copy, schema=3, something_new=True)
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


def _outside(small: Any, listed: bool) -> Path:
    """A bundle whose encoder keeps its weights in `weights/w.bin`."""
    graph = small.encoder("rgb")
    tensor = graph.graph.initializer[0]
    content = numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights/w.bin")

    def edit(manifest: dict[str, Any]) -> None:
        folder = small.folder / "outside"
        (folder / "weights").mkdir(exist_ok=True)
        (folder / "weights/w.bin").write_bytes(content)
        if listed:
            manifest["files"]["weights/w.bin"] = hashlib.sha256(content).hexdigest()

    path: Path = small(graphs={"encoder_rgb.onnx": graph}, edit=edit, name="outside")
    return path


def test_weights_in_a_file_that_is_not_listed_are_refused(small: Any) -> None:
    folder = _outside(small, listed=False)
    for verify in (True, False):
        with pytest.raises(BundleError, match=r"encoder_rgb\.onnx: keeps weights in 'weights/w"):
            bundle = Bundle.open(folder, verify=verify)
            bundle.source("encoder_rgb.onnx").read_bytes()


@pytest.mark.parametrize("device", ["onnxruntime", needs_openvino("openvino-f32")])
def test_weights_in_a_listed_file_are_loaded_as_they_were_hashed(
    small: Any, rgb: Sample, device: str
) -> None:
    folder = _outside(small, listed=True)
    wanted = Pipeline.load(small(), device, threads=1)({"rgb": rgb})
    for bundle in (folder, shutil.make_archive(str(folder), "zip", folder)):
        found = Pipeline.load(bundle, device, threads=1)({"rgb": rgb})
        assert np.array_equal(found.confidence, wanted.confidence)  # type: ignore[arg-type]
    content = bytearray((folder / "weights/w.bin").read_bytes())
    content[0] ^= 1
    (folder / "weights/w.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"weights/w\.bin: content does not match"):
        Pipeline.load(folder, device, threads=1)
    (folder / "weights/w.bin").unlink()
    with pytest.raises(BundleError, match=r"weights/w\.bin: file is missing"):
        Pipeline.load(folder, device, threads=1)


def test_what_a_backend_gets_is_what_was_hashed(
    small: Any, rgb: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that changes after it was verified is noticed when it is loaded."""
    folder = small()
    verify = Bundle.verify

    def then_changed(self: Bundle) -> None:
        verify(self)
        (folder / "fuser.onnx").write_bytes(small.fuser(seed=9).SerializeToString())

    monkeypatch.setattr(Bundle, "verify", then_changed)
    with pytest.raises(BundleError, match=r"fuser\.onnx: content does not match"):
        Pipeline.load(folder, "cpu", threads=1)


def test_another_device_is_given_the_same_graphs_or_none(small: Any, rgb: Sample) -> None:
    folder = small()
    pipeline = Pipeline.load(folder, "cpu", threads=1)
    before = pipeline({"rgb": rgb})
    engines = dict(pipeline.engines)
    (folder / "encoder_rgb.onnx").write_bytes(small.encoder("rgb", seed=9).SerializeToString())
    with pytest.raises(BundleError, match=r"encoder_rgb\.onnx: content does not match"):
        pipeline.use_device("cpu")
    assert pipeline.engines == engines
    after = pipeline({"rgb": rgb})
    assert np.array_equal(before.confidence, after.confidence)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["bundle.yaml", "fuser.onnx", "encoder_rgb.onnx"])
@pytest.mark.parametrize("kind", ["outside", "inside", "folder", "pipe", "directory"])
def test_only_regular_files_are_read(small: Any, tmp_path: Path, name: str, kind: str) -> None:
    folder = small()
    original = tmp_path / "elsewhere"
    if kind == "folder":  # the whole bundle behind a link is the user's own doing
        (tmp_path / "link").symlink_to(folder)
        Bundle.open(tmp_path / "link")
        return
    shutil.move(folder / name, original)
    if kind == "outside":
        (folder / name).symlink_to(original)
    elif kind == "inside":
        shutil.copy(original, folder / "other")
        (folder / name).symlink_to("other")
    elif kind == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).mkdir()
    with pytest.raises(BundleError, match=rf"{re.escape(name)}: is (a link|no regular file)"):
        Bundle.open(folder)


def test_a_folder_of_links_within_is_refused(small: Any, tmp_path: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["graphs"]["fuser"]["file"] = "sub/fuser.onnx"
        manifest["files"]["sub/fuser.onnx"] = manifest["files"].pop("fuser.onnx")

    folder = small(edit=edit)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(folder / "fuser.onnx", tmp_path / "elsewhere/fuser.onnx")
    (folder / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="sub: is a link"):
        Bundle.open(folder)
    (folder / "sub").unlink()
    shutil.move(tmp_path / "elsewhere", folder / "sub")
    Bundle.open(folder)


def test_a_zip_is_read_without_being_unpacked(
    small: Any, rgb: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small()
    (folder / "README.md").write_text("not listed, and not read")
    wanted = Pipeline.load(folder, "cpu", threads=1)({"rgb": rgb})
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for inside in ("", "small/"):
        path = tmp_path / "b.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, inside + file.name)
        pipeline = Pipeline.load(path, "auto", threads=1)
        assert list(temporary.iterdir()) == []
        found = pipeline({"rgb": rgb})
        assert np.allclose(found.confidence, wanted.confidence, atol=0.01)  # type: ignore[arg-type]
        assert not pipeline.bundle.is_folder and pipeline.bundle.path == path
        with pytest.raises(BundleError, match="is a zip"):
            pipeline.bundle.file("fuser.onnx")
        pipeline.use_device("onnxruntime", threads=1)
    assert list(temporary.iterdir()) == []


def test_what_is_not_listed_is_not_read(small: Any) -> None:
    folder = small()
    (folder / "secret").write_bytes(b"x")
    bundle = Bundle.open(folder)
    for name in ("secret", "bundle.yaml", "../small/fuser.onnx", "nothing"):
        with pytest.raises(BundleError, match="not listed"):
            bundle.read(name)
    assert bundle.read("fuser.onnx") == (folder / "fuser.onnx").read_bytes()
    assert bundle.size("fuser.onnx") == (folder / "fuser.onnx").stat().st_size
    assert bundle.file("fuser.onnx") == folder / "fuser.onnx"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"text"), "is a file, but no zip"),
        (lambda p: p.write_bytes(b""), "is a file, but no zip"),
        (lambda p: p.mkdir(), r"bundle\.yaml: file is missing"),
        (lambda p: os.mkfifo(p), "no such bundle"),
        (lambda p: p.symlink_to(p), "no such bundle"),
        (lambda p: None, "no such bundle"),
    ],
)
def test_what_is_no_bundle_is_said_in_one_line(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "x")
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(tmp_path / "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "", "no/such", "~", "."])
def test_any_name_may_be_looked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError):
        Bundle.open(find_bundle(name))


def test_bundles_are_found_by_name_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("first/only", "first/both", "second/both", "work/bundles/own", "work/here"):
        (tmp_path / place).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    folders = os.pathsep.join([str(tmp_path / "first"), "", str(tmp_path / "second")])
    monkeypatch.setenv("ANYSENSE_BUNDLES", folders)
    assert find_bundle("only") == tmp_path / "first/only"
    assert find_bundle("both") == tmp_path / "first/both"
    assert find_bundle("own") == Path("bundles/own")
    assert find_bundle("here") == Path("here")
    assert find_bundle(str(tmp_path / "second/both")) == tmp_path / "second/both"
    assert find_bundle("sim-rgbdtl").name == "sim-rgbdtl"  # beside the source
    for missing in ("first/only", "second"):  # a path is no name
        with pytest.raises(
            BundleError, match=rf"{missing}: no such bundle.*first.*second.*bundles"
        ):
            find_bundle(missing)


def test_a_graphs_checksum_is_the_listed_one_or_that_of_its_content(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"content")
    files, own = Folder(tmp_path, BundleError), hashlib.sha256(b"content").hexdigest()
    for listed, wanted in (
        (None, own),  # a tool's file, that stands alone
        ({}, own),
        ({"b.onnx": "b" * 64}, own),
        ({"a.onnx": "a" * 64}, "a" * 64),  # which is compared when it is read
    ):
        source = GraphSource(files, "a.onnx", listed)
        assert source.sha256 == wanted
    with pytest.raises(BundleError, match="does not match its checksum"):
        source.read_bytes()


def _anysense(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "perception.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_verifies_graphs_against_the_manifest(small: Any) -> None:
    good = _anysense("bundle", "verify", small())
    assert good.returncode == 0 and "2 files match" in good.stdout and not good.stderr
    bad = _anysense(
        "bundle", "verify", small(graphs={"fuser.onnx": small.fuser(segmentation=9)}, name="bad")
    )
    assert bad.returncode == 2 and len(bad.stderr.strip().splitlines()) == 1
    assert "seg_logits of shape (1, 9, 4, 8)" in bad.stderr


def test_a_full_disk_leaves_manifest_and_records_as_they_were(small: Any) -> None:
    """With a limit on the size of files standing for a disk that is full."""
    folder = small()
    record(folder, accuracy={"before": {"a": 0}})
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    script = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from perception.runtime.bundle import Bundle, record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n"
        f"    record(Path({str(folder)!r}), accuracy={{'x': {{'a': 1}}}})\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("BundleError") and done.stdout.count("\n") == 1, done.stderr
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert set(before) == {"bundle.yaml", "records.yaml", "encoder_rgb.onnx", "fuser.onnx"}
    Bundle.open(folder)


def test_a_record_into_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.yaml: file is missing"):
        record(tmp_path, accuracy={"x": {}})
