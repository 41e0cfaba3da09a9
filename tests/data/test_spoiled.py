"""Spoiled recordings: the check reads on and ends in order, whatever the bytes of a file are."""

from __future__ import annotations

import contextlib
import io
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.cli.main import main
from perception.data.base import Boxes, ClassInfo
from perception.data.check import Finding, check_folder
from perception.data.folder import FolderWriter, folder_info
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

SIZE = (24, 32)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\x1b[31m", "../../etc/passwd", "1e9", [], [1], [[]], {}, {"a": 1}, [None] * 12, "é" * 300,
)  # fmt: skip


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module", autouse=True)
def memory_before() -> int:
    """The most memory that the process ever had, in kibibytes, before this file's tests."""
    return _peak()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of all sensors, with labels, boxes and a rig; the check finds nothing."""
    root = tmp_path_factory.mktemp("hostile") / "rec"
    rng = np.random.default_rng(0)
    height, width = SIZE
    classes = tuple(ClassInfo(i, f"c{i}", (i, 2, 3)) for i in (1, 2, 5))
    info = folder_info(
        size=SIZE,
        seg_classes=classes,
        det_classes=classes,
        name="hostile",
        modalities=("rgb", "depth", "thermal", "lidar"),
        thermal_unit="centikelvin",
    )
    camera = CameraModel(width, height, 20, 20, width / 2, height / 2)
    rig = Rig(
        {
            "rgb": SensorCalibration(camera, None, "camera"),
            "lidar": SensorCalibration(camera, RigidTransform.identity(), "lidar", 5),
        }
    )
    with FolderWriter(root, info, rig) as writer:
        for index in range(2):
            writer.add(
                f"{index:03}",
                stamp_ns=10**9 * (index + 1),
                tags=("day",),
                rgb=rng.integers(0, 255, (*SIZE, 3), np.uint8),
                depth=rng.uniform(1, 9, SIZE).astype(np.float32),
                thermal=rng.uniform(280, 310, SIZE).astype(np.float32),
                lidar=rng.uniform(1, 5, (40, 4)).astype(np.float32),
                labels=rng.choice([0, 1, 2, 255], SIZE).astype(np.uint8),
                boxes=Boxes.of(np.array([[1, 1, 9, 9]], np.float32), np.array([2])),
                boxes3d=[{"class": 1, "center": [3, 3, 3], "size": [3, 2, 2], "yaw": 0.5}],
            )
    assert _check(root) == (0, f"{root}: 0 errors, 0 warnings\n", [])
    return root


def _check(root: Path) -> tuple[int, str, list[Finding]]:
    """Exit status, all output and the findings of `anysense data check`."""
    out = io.StringIO()
    kept: list[Finding] = []

    def keeping(*arguments: Any) -> list[Finding]:
        kept.extend(check_folder(*arguments))
        return kept

    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("perception.data.check.check_folder", keeping)
        status = main(["data", "check", str(root)])
    return status, out.getvalue(), kept


@contextlib.contextmanager
def _changed(path: Path, content: bytes | None) -> Iterator[None]:
    before = path.read_bytes()
    try:
        path.unlink() if content is None else path.write_bytes(content)
        yield
    finally:
        path.write_bytes(before)


def _in_order(root: Path) -> None:
    status, output, findings = _check(root)
    assert status in (0, 2), output
    assert "Traceback" not in output and "internal error" not in output
    for finding in findings:  # what the check says of an exception that no reader foresees
        assert not re.search(r"cannot be read: \w+(Error|Exception)", finding.message), finding


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.is_file())


@settings(max_examples=250)
@given(data=st.data())
def test_spoiled_bytes(whole: Path, data: st.DataObject) -> None:
    files = _files(whole)
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        match data.draw(st.sampled_from(("flip", "cut", "insert", "number", "repeat"))):
            case "flip" if at < len(content):
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[at:]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=8))
            case "number":
                content[at : at + 4] = data.draw(
                    st.sampled_from(
                        (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"9999")
                    )
                )
            case _:
                content += content[at : at + 64]
    with _changed(path, bytes(content)):
        _in_order(whole)


@settings(max_examples=60)
@given(data=st.data())
def test_files_in_the_place_of_others(whole: Path, data: st.DataObject) -> None:
    files = _files(whole)
    path, other = data.draw(st.sampled_from(files)), data.draw(st.sampled_from([*files, None]))
    content = None if other is None else other.read_bytes()
    with _changed(path, content):
        _in_order(whole)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    if isinstance(value, dict):
        return {k: _replaced(v, path[1:], new) if k == path[0] else v for k, v in value.items()}
    return [_replaced(v, path[1:], new) if i == path[0] else v for i, v in enumerate(value)]


@settings(max_examples=250)
@given(data=st.data(), name=st.sampled_from(("dataset.yaml", "rig.yaml")))
def test_odd_values_in_fields(whole: Path, data: st.DataObject, name: str) -> None:
    content = yaml.safe_load((whole / name).read_text())
    place = data.draw(st.sampled_from(list(_places(content))))
    odd = _replaced(content, place, data.draw(st.sampled_from(ODD)))
    with _changed(whole / name, yaml.safe_dump(odd).encode()):
        _in_order(whole)


@settings(max_examples=150)
@given(
    cells=st.lists(
        st.tuples(
            st.one_of(st.text(max_size=12), st.sampled_from(("000", "001", "..", "a/b", "\\"))),
            st.one_of(st.text(max_size=12), st.integers().map(str), st.floats().map(str)),
            st.text(max_size=8),
        ),
        max_size=4,
    ),
    delimiter=st.sampled_from(",;\t|"),
)
def test_odd_tables_of_frames(
    whole: Path, cells: list[tuple[str, str, str]], delimiter: str
) -> None:
    lines = [delimiter.join(row) for row in [("id", "stamp_ns", "tags"), *cells]]
    with _changed(whole / "frames.csv", "\n".join(lines).encode("utf-8", "surrogatepass")):
        _in_order(whole)


@settings(max_examples=150)
@given(st.lists(st.lists(st.one_of(st.floats().map(str), st.text(max_size=6)), max_size=7)))
def test_odd_box_files(whole: Path, rows: list[list[str]]) -> None:
    text = "\n".join(" ".join(row) for row in rows)
    with _changed(whole / "boxes/000.txt", text.encode("utf-8", "surrogatepass")):
        _in_order(whole)


def test_memory_stays_bounded(whole: Path, memory_before: int) -> None:
    """After all of the above: no claim in a header was believed."""
    _in_order(whole)
    assert _peak() - memory_before < 2**20  # kibibytes
