"""What readers and `data check` say of files that are right, but not what they seem."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from perception.cli.main import main
from perception.data.check import check_folder
from perception.data.files import read_labels
from perception.errors import EncodingError
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.samples import file_remarks
from perception.sensors.thermal.decode import load_thermal

GRAY = np.random.default_rng(0).integers(20, 220, (48, 64), dtype=np.uint8)


def jpeg(image: np.ndarray, *segments: tuple[int, bytes]) -> bytes:
    """A JPEG with further segments after its start."""
    content = cv2.imencode(".jpg", image)[1].tobytes()
    extra = b"".join(
        bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body for code, body in segments
    )
    return content[:2] + extra + content[2:]


FLIR = (0xE1, b"FLIR\0\1\0\0FFF\0" + bytes(2000))
DJI = (0xE3, bytes(60_000))


def folder(root: Path, modality: str, classes: int = 2, size: tuple[int, int] = (48, 64)) -> Path:
    (root / modality).mkdir(parents=True)
    info = {"schema": 1, "name": "t", "modalities": [modality], "height": size[0], "width": size[1]}
    info["seg_classes"] = [{"id": i, "name": f"c{i}", "color": [i, 2, 3]} for i in range(classes)]
    (root / "dataset.yaml").write_text(yaml.safe_dump(info))
    (root / "frames.csv").write_text("id,stamp_ns,tags\na,1,\nb,2,\n")
    return root


def warned(root: Path) -> list[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [(f.where, f.message) for f in check_folder(root) if f.severity == "warning"]


@pytest.mark.parametrize(("segments", "maker"), [([FLIR], "FLIR"), ([DJI] * 3, "DJI")])
def test_radiometric_jpegs_are_named(tmp_path: Path, segments: list, maker: str) -> None:  # type: ignore[type-arg]
    root = folder(tmp_path / "r", "thermal")
    path = root / "thermal" / "a.jpg"
    path.write_bytes(jpeg(GRAY, *segments))
    with pytest.warns(UserWarning, match=rf"radiometric JPEG \({maker}\).*not temperatures"):
        assert load_thermal(path).unit == "counts8"
    found = [text for where, text in warned(root) if where == "thermal/a.jpg"]
    assert len(found) == 1 and maker in found[0] and "preview" in found[0]
    colored = cv2.applyColorMap(GRAY, cv2.COLORMAP_INFERNO)
    path.write_bytes(jpeg(colored, *segments))
    with pytest.raises(EncodingError, match=rf"a\.jpg: is a radiometric JPEG \({maker}\)"):
        load_thermal(path)
    assert file_remarks(path, "rgb")


def test_an_ordinary_jpeg_is_nothing_remarkable(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(GRAY, (0xE1, b"Exif\0\0II*\0"), (0xE3, bytes(4000)), (0xE2, b"FLIR\0")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_thermal(path)
    assert file_remarks(path, "thermal") == []


def test_turned_pictures_are_told_once(tmp_path: Path) -> None:
    root = folder(tmp_path / "r", "rgb", size=(64, 48))
    image = Image.fromarray(np.dstack([GRAY] * 3))
    exif = image.getexif()
    exif[274] = 6
    for name in "ab":
        image.save(root / "rgb" / f"{name}.jpg", exif=exif)
    assert load_rgb(root / "rgb" / "a.jpg").data.shape == (64, 48, 3)
    found = [(where, text) for where, text in warned(root) if "orientation" in text]
    assert found == [
        ("rgb/a.jpg and 1 more", "has orientation 6 (EXIF): turned upright as it says")
    ]
    image.convert("L").save(root / "rgb" / "d.png", exif=exif)
    assert "not applied" in file_remarks(root / "rgb" / "d.png", "depth")[0]


def masks(root: Path, values: dict[str, list[int]]) -> Path:
    (root / "labels").mkdir()
    for name, ids in values.items():
        cv2.imwrite(str(root / "labels" / f"{name}.png"), np.resize(np.uint8(ids), (48, 64)))
        cv2.imwrite(str(root / "rgb" / f"{name}.png"), np.dstack([GRAY + len(name)] * 3))
    return root


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ({"a": [0, 255], "b": [0, 255]}, "2 of 2 files (a.png)"),
        ({"a": [0, 1, 255], "b": [0, 255]}, "1 of 2 files (b.png)"),
        ({"a": [0, 1, 255], "b": [0]}, ""),
        ({"a": [255], "b": [1, 255]}, ""),
    ],
)
def test_masks_of_black_and_white_are_told(
    tmp_path: Path, values: dict[str, list[int]], count: str
) -> None:
    root = masks(folder(tmp_path / "r", "rgb"), values)
    found = [text for where, text in warned(root) if where == "labels"]
    assert len(found) == bool(count)
    if count:
        assert found[0].startswith(f"{count} hold only 0 and 255, and 255 means ignore")
        name = count.split("(")[1][:1]
        with pytest.warns(UserWarning, match="only 0 and 255, and 255 means ignore"):
            labels = read_labels(root / "labels" / f"{name}.png", 2)
        assert set(np.unique(labels)) == {0, 255}


def test_with_one_class_black_and_white_is_right(tmp_path: Path) -> None:
    root = masks(folder(tmp_path / "r", "rgb", classes=1), {"a": [0, 255], "b": [0, 255]})
    assert not [text for where, text in warned(root) if where == "labels"]


def test_run_notes_what_is_remarkable(
    tmp_path: Path, tiny_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.jpg").write_bytes(jpeg(GRAY, FLIR))
    np.save(tmp_path / "d.npy", np.full((48, 64), 3.0, np.float32))
    out = tmp_path / "out"
    files = ["--thermal", str(tmp_path / "t.jpg"), "--depth", str(tmp_path / "d.npy")]
    options = ["--depth-scale", "0.01", "--device", "cpu", "--out", str(out)]
    assert main(["run", "--bundle", str(tiny_bundle), *files, *options]) == 0
    said = "".join(capfd.readouterr())
    assert "note:" in said and "radiometric JPEG (FLIR)" in said
    assert "floats is read as metres" in said
    assert cv2.imread(str(out / "labels.png"), cv2.IMREAD_UNCHANGED).shape == (48, 64)


def test_a_picture_that_cannot_be_written_fails_the_run(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.dstack([GRAY] * 3))[1].tobytes())
    out = tmp_path / "out"
    (out / "overlay.png").mkdir(parents=True)
    arguments = ["run", "--bundle", str(tiny_bundle), "--rgb", str(tmp_path / "a.png")]
    assert main([*arguments, "--device", "cpu", "--out", str(out)]) == 2
