"""What the readers of single files make of each format, by values worked out by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from perception.adapters import files
from perception.adapters.files import load_labels
from perception.errors import AnySenseError, EncodingError
from perception.files.stderr import native_lines_caught
from perception.sensors.depth.decode import load_depth
from perception.sensors.lidar.decode import load_lidar
from perception.sensors.rgb.decode import load_rgb
from perception.sensors.samples import file_remarks
from perception.sensors.thermal.decode import load_thermal

STEPS = np.array([[100, 200, 250]])


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize(
    ("dtype", "scale", "scale_of_8_bits", "metres"),
    [
        (np.uint8, 0.5, None, [50, 100, 125]),
        (np.uint8, None, 0.25, [25, 50, 62.5]),
        (np.uint8, 0.5, 0.25, [50, 100, 125]),  # what is given for the file goes first
        (np.uint16, None, 0.25, [0.1, 0.2, 0.25]),  # millimetres, as without
        (np.uint16, 0.5, 0.25, [50, 100, 125]),
    ],
)
def test_which_scale_a_depth_map_gets(
    tmp_path: Path,
    suffix: str,
    dtype: type,
    scale: float | None,
    scale_of_8_bits: float | None,
    metres: list[float],
) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, STEPS.astype(dtype))
    else:
        cv2.imwrite(str(path), STEPS.astype(dtype))
    assert np.allclose(load_depth(path, scale, scale_of_8_bits).data, metres)
    if dtype is np.uint8:
        with pytest.raises(EncodingError, match="scale"):
            load_depth(path)


def test_arrays_are_known_by_their_first_bytes_and_by_their_name(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", STEPS.astype(np.uint16))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.npy").read_bytes())
    for name in ("a.npy", "a.png"):
        assert np.allclose(load_depth(tmp_path / name).data, [0.1, 0.2, 0.25])
        assert np.array_equal(load_thermal(tmp_path / name).data, STEPS)
        assert file_remarks(tmp_path / name, "depth") == []
    for name in ("b.npy", "b.NPY"):
        (tmp_path / name).write_bytes(b"no array")
        with pytest.raises(EncodingError, match="no numpy array"):
            load_depth(tmp_path / name)
    cv2.imwrite(str(tmp_path / "c.png"), STEPS.astype(np.uint16))
    (tmp_path / "c.npy").write_bytes((tmp_path / "c.png").read_bytes())
    with pytest.raises(EncodingError, match=r"c\.npy: is no numpy array"):
        load_depth(tmp_path / "c.npy")


def test_a_cloud_in_steps_of_five_millimetres(tmp_path: Path) -> None:
    steps = np.array([[1000, -400, 20], [200, 0, -200]], np.int16)
    np.savez(tmp_path / "a.npz", xyz_5mm=steps, intensity=np.array([255, 51], np.uint8))
    want = [[5, -2, 0.1, 1], [1, 0, -1, 0.2]]
    assert np.allclose(load_lidar(tmp_path / "a.npz").data, want)
    np.savez(tmp_path / "b.npz", points=np.array(want, np.float32), xyz_5mm=steps)
    assert np.allclose(load_lidar(tmp_path / "b.npz").data, want)  # as it is


@pytest.mark.parametrize(
    ("arrays", "what"),
    [
        ({"xyz_5mm": (2, 3)}, "holds no array 'points'"),
        ({"intensity": (2,)}, "holds no array 'points'"),
        ({"others": (2, 3)}, "holds no array 'points'"),
        ({"xyz_5mm": (2, 3), "intensity": (3,)}, r"xyz_5mm \(2, 3\) and intensity \(3,\) do not"),
        ({"xyz_5mm": (2, 3), "intensity": (2, 3)}, "do not fit"),
        ({"xyz_5mm": (6,), "intensity": (6,)}, "do not fit"),
        ({"xyz_5mm": (2, 3, 1), "intensity": (2,)}, "do not fit"),
    ],
)
def test_clouds_that_do_not_fit_together_are_named(
    tmp_path: Path, arrays: dict[str, tuple[int, ...]], what: str
) -> None:
    np.savez(tmp_path / "a.npz", **{k: np.ones(s, np.int16) for k, s in arrays.items()})
    with pytest.raises(EncodingError, match=rf"a\.npz: .*{what}"):
        load_lidar(tmp_path / "a.npz")


def test_integers_are_no_coordinates_and_other_files_no_clouds(tmp_path: Path) -> None:
    for dtype in (np.int16, np.uint8, np.int64):
        np.save(tmp_path / "a.npy", np.ones((5, 4), dtype))
        with pytest.raises(EncodingError, match=f"coordinates are {np.dtype(dtype)}"):
            load_lidar(tmp_path / "a.npy")
    for dtype in (np.float16, np.float32, np.float64):
        np.save(tmp_path / "a.npy", np.ones((5, 4), dtype))
        assert load_lidar(tmp_path / "a.npy").data.shape == (5, 4)
    (tmp_path / "a.las").write_bytes(b"LASF")
    with pytest.raises(EncodingError, match=r"a\.las: unknown cloud format"):
        load_lidar(tmp_path / "a.las")


def test_a_number_of_columns_goes_before_the_name(tmp_path: Path) -> None:
    stored = np.arange(1, 61, dtype="<f4").reshape(-1, 5)
    stored.tofile(tmp_path / "a.bin")
    assert np.array_equal(load_lidar(tmp_path / "a.bin", 5).data[:, :3], stored[:, :3])
    assert np.array_equal(load_lidar(tmp_path / "a.bin").data[:, 0], np.arange(1, 61, 4))


def test_a_turned_picture_is_told_by_what_is_done_with_it(tmp_path: Path) -> None:
    image = Image.new("L", (8, 6), 7)
    exif = image.getexif()
    exif[274] = 6
    image.save(tmp_path / "a.png", exif=exif)
    for modality, done, shape in (
        ("rgb", "turned upright", (8, 6, 3)),
        ("thermal", "turned upright", (8, 6)),
        ("depth", "not applied", (6, 8)),
    ):
        (told,) = file_remarks(tmp_path / "a.png", modality)  # type: ignore[arg-type]
        assert "orientation 6" in told and done in told
        load = {"rgb": load_rgb, "thermal": load_thermal}.get(modality)
        path = tmp_path / "a.png"
        assert (load(path) if load else load_depth(path, 0.1)).data.shape == shape
    assert load_labels(tmp_path / "a.png").shape == (6, 8)
    assert file_remarks(tmp_path / "a.png", "lidar") == []


def test_of_damaged_files_only_so_many_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_DAMAGED", {})
    monkeypatch.setattr(files, "MAX_ARCHIVE_FILES", 2)
    blurred = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8), (7, 7), 0
    )
    whole = cv2.imencode(".jpg", blurred)[1].tobytes()
    paths = [tmp_path / f"{i}.jpg" for i in range(4)]
    with native_lines_caught(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for path in paths:
            path.write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
            load_rgb(path)
    assert [str(path) in str(one.message) for path, one in zip(paths, told, strict=True)] == [
        True
    ] * 4
    assert [bool(file_remarks(path, "rgb")) for path in paths] == [True, True, False, False]


def test_of_a_radiometric_jpeg_it_is_said_that_this_is_a_preview(tmp_path: Path) -> None:
    gray = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (32, 1))
    block = b"FLIR\0\1\0\0FFF\0" + bytes(20)
    flir = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    path = tmp_path / "a.jpg"
    for image, raw in (
        (gray, b""),
        (gray, flir),
        (cv2.applyColorMap(gray, cv2.COLORMAP_JET), flir),
    ):
        plain = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
        path.write_bytes(plain[:2] + raw + plain[2:])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            if image.ndim == 3:
                with pytest.raises(EncodingError, match=r"a\.jpg: is a radiometric JPEG \(FLIR\)"):
                    load_thermal(path)
                continue
            assert np.abs(load_thermal(path).data.astype(int) - gray).max() <= 2
        assert [str(one.message).split(":")[0] for one in told] == (
            ["a thermal file is a radiometric JPEG (FLIR)"] if raw else []
        )


def test_every_reader_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"nothing")
    for load in (load_rgb, load_depth, load_thermal, load_labels):
        with pytest.raises(AnySenseError, match=r"a\.png: "):
            load(path)
