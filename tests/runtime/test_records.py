"""What was measured of a bundle lies beside what it is, and is of that bundle or refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_bundles import SmallBundles
from strange_values import STRANGE

from perception.errors import BundleError
from perception.runtime.bundle import Bundle, record, write_bundle
from perception.runtime.records import BackendRecord, BundleRecords

PASSED = BackendRecord(passed=True, lost=0.2, tolerance=1.0, probe_error=0.01, frames=9)
INPUTS = {"left": ("rgb", "color"), "right": ("rgb", "color")}


@pytest.fixture(params=[1, 2])
def folder(request: pytest.FixtureRequest, small: SmallBundles) -> Path:
    """A bundle of either schema without measurements."""
    return small.named(INPUTS) if request.param == 2 else small(("rgb", "depth"))


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "bundle.yaml").read_bytes()).hexdigest()


def test_a_bundle_without_records_was_not_measured(folder: Path) -> None:
    records = Bundle.open(folder).records
    assert (records.accuracy, records.parity, records.backends) == ({}, {}, {})
    assert records.bundle == _digest(folder)


def test_what_is_recorded_is_read_and_the_bundle_stays_the_same(folder: Path) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    record(folder, accuracy={"val": {"subsets": {"rgb": {"miou": 0.5}}}}, backends={"x": PASSED})
    record(folder, parity={"modular": 1e-6}, accuracy={"test": {"frames": 3}})
    found = Bundle.open(folder).records
    assert set(found.accuracy) == {"val", "test"} and found.parity == {"modular": 1e-6}
    assert found.backends == {"x": PASSED} and found.bundle == _digest(folder)
    record(folder, accuracy={"val": {"frames": 4}})
    assert Bundle.open(folder).records.accuracy == {"val": {"frames": 4}, "test": {"frames": 3}}
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert after.pop("records.yaml") and after == before
    archive = shutil.make_archive(str(folder), "zip", folder)
    assert Bundle.open(archive).records == Bundle.open(folder).records


def test_records_of_another_bundle_are_refused_until_they_are_deleted(folder: Path) -> None:
    record(folder, accuracy={"val": {}})
    content = (folder / "bundle.yaml").read_text()
    (folder / "bundle.yaml").write_text(content + "# the same, but for a word\n")
    for call in (lambda: Bundle.open(folder), lambda: record(folder, accuracy={"x": {}})):
        with pytest.raises(
            BundleError, match=r"records\.yaml: is of another bundle\.yaml .*delete"
        ):
            call()
    (folder / "records.yaml").unlink()
    assert Bundle.open(folder).records.accuracy == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"records"),
        ("a: [", r"records\.yaml"),
        ("- 1", r"records\.yaml"),
        ("\x00", r"records\.yaml"),
        ("schema: 2", r"records\.yaml: schema: "),
        ("schema: 1\nmore: 1", r"records\.yaml: more: "),
        ("schema: 1\nparity: {x: much}", r"records\.yaml: parity\.x: "),
        ("schema: 1\nbackends: {x: {passed: true}}", r"records\.yaml: backends\.x\.lost: "),
        ("schema: 1\nbundle: abc", r"records\.yaml: bundle: "),
        ("schema: 1", r"records\.yaml: is of another"),
    ],
)
def test_damaged_records_are_refused_in_one_line(folder: Path, text: str, message: str) -> None:
    (folder / "records.yaml").write_text(text)
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value) and "records.yaml" in str(caught.value)


@pytest.mark.parametrize("make", ["link", "outside", "pipe"])
def test_records_are_a_regular_file(folder: Path, tmp_path: Path, make: str) -> None:
    record(folder, accuracy={"val": {}})
    path = folder / "records.yaml"
    path.rename(tmp_path / "elsewhere.yaml" if make == "outside" else folder / "kept.yaml")
    if make == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "elsewhere.yaml" if make == "outside" else "kept.yaml")
    with pytest.raises(BundleError, match=r"records\.yaml: is (a link|no regular file)"):
        Bundle.open(folder)


def test_schema_1_kept_them_in_the_manifest(small: SmallBundles) -> None:
    measured = {"val": {"subsets": {"rgb": {"miou": 0.5}}}}

    def edit(content: dict[str, Any]) -> None:
        content["accuracy"], content["parity"] = measured, {"modular rgb": 1e-5}
        content["backends"] = {"x": PASSED.model_dump(mode="json")}

    folder = small(edit=edit)
    found = Bundle.open(folder).records
    assert found.accuracy == measured and found.parity == {"modular rgb": 1e-5}
    assert found.backends == {"x": PASSED}
    # What is added lies beside them, with all that they held.
    record(folder, accuracy={"more": {}})
    after = Bundle.open(folder).records
    assert after.accuracy == {**measured, "more": {}}
    assert (after.parity, after.backends) == (found.parity, found.backends)
    written = yaml.safe_load((folder / "records.yaml").read_text())
    assert set(written) == {"schema", "bundle", "accuracy", "parity", "backends"}


def test_damaged_records_of_schema_1_name_the_manifest(small: SmallBundles) -> None:
    folder = small(edit=lambda content: content.update(parity={"x": "much"}))
    with pytest.raises(BundleError, match=r"bundle\.yaml: parity\.x: "):
        Bundle.open(folder)


def test_a_new_bundle_is_written_with_and_without(small: SmallBundles, tmp_path: Path) -> None:
    opened = Bundle.open(small.named(INPUTS))
    (tmp_path / "a").mkdir()
    for records, there in ((None, False), (BundleRecords(), False)):
        write_bundle(tmp_path / "a", opened.manifest, records)
        assert (tmp_path / "a/records.yaml").exists() is there
    write_bundle(tmp_path / "a", opened.manifest, BundleRecords(accuracy={"x": {}}))
    written = yaml.safe_load((tmp_path / "a/records.yaml").read_text())
    assert written == {"schema": 1, "bundle": _digest(tmp_path / "a"), "accuracy": {"x": {}}}


@given(table=st.sampled_from(["accuracy", "parity", "backends", "bundle", "schema", "x"]),
       value=st.sampled_from(STRANGE))  # fmt: skip
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_values_are_refused_in_one_line_or_read(folder: Path, table: str, value: Any) -> None:
    content = {"schema": 1, "bundle": _digest(folder), table: value}
    (folder / "records.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    try:
        assert isinstance(Bundle.open(folder).records, BundleRecords)
    except BundleError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
