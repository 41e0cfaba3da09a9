"""Tiny data sets in the formats of others, written as their publications and tools say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.data.folder import FolderRecording

Import = Callable[..., FolderRecording]
"""The fixture `imported`: `anysense data import` with these words."""


def picture(path: Path, height: int = 48, width: int = 64, *, seed: int = 0) -> Path:
    """A picture of noise, which no two seeds share."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    done, content = cv2.imencode(path.suffix.lower(), image)
    assert done
    path.write_bytes(content.tobytes())
    return path


def with_orientation(path: Path, orientation: int) -> None:
    """Put an EXIF block with this orientation into a JPEG."""
    entry = b"\x12\x01\x03\x00\x01\x00\x00\x00" + bytes([orientation, 0, 0, 0])
    tiff = b"II*\x00\x08\x00\x00\x00" + b"\x01\x00" + entry + b"\x00" * 4
    block = b"Exif\x00\x00" + tiff
    jpeg = path.read_bytes()
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    path.write_bytes(jpeg[:2] + segment + jpeg[2:])


def runs_of(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length code: down the columns, zeros first."""
    flat = mask.T.reshape(-1).astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return [0, *runs] if flat.size and flat[0] else runs


def text_of(runs: list[int]) -> str:
    """The same compressed, as COCO's API writes it."""
    text = ""
    for index, run in enumerate(runs):
        value, more = run - runs[index - 2] if index > 2 else run, True
        while more:
            bits = value & 31
            value >>= 5
            more = not (value == -1 if bits & 16 else value == 0)
            text += chr((bits | 32 if more else bits) + 48)
    return text


def coco_file(**changes: Any) -> dict[str, Any]:
    """One image of 64x48 with two boxes, of categories with gaps."""
    content: dict[str, Any] = {
        "info": {"description": "made up"},
        "images": [{"id": 7, "file_name": "a.jpg", "height": 48, "width": 64}],
        "categories": [
            {"id": 90, "name": "car", "supercategory": "vehicle"},
            {"id": 3, "name": "person", "supercategory": ""},
        ],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [4, 8, 10, 20], "iscrowd": 0,
             "area": 200, "segmentation": [[4, 8, 14, 8, 14, 28, 4, 28]]},
            {"id": 2, "image_id": 7, "category_id": 90, "bbox": [30, 10, 30, 20], "iscrowd": 0,
             "area": 600, "segmentation": [[30, 10, 60, 10, 60, 30, 30, 30]]},
        ],
    }  # fmt: skip
    return content | changes


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def coco(root: Path, **changes: Any) -> Path:
    """COCO's own layout with one split."""
    picture(root / "train2017" / "a.jpg")
    write_json(root / "annotations" / "instances_train2017.json", coco_file(**changes))
    return root


def yolo(root: Path, frames: int = 4, **changes: Any) -> Path:
    """Ultralytics' layout: the last picture of each split has no object, the one before no text."""
    for split, count in (("train", frames), ("val", 2)):
        for index in range(count):
            name = f"{split}{index}"
            picture(root / "images" / split / f"{name}.jpg", seed=index)
            rows = root / "labels" / split / f"{name}.txt"
            rows.parent.mkdir(parents=True, exist_ok=True)
            if index == count - 1:
                rows.write_text("")
            elif index != count - 2 or split == "val":
                rows.write_text("1 0.5 0.5 0.25 0.5\r\n0 0.2 0.2 0.1 0.1\r\n")
    content = {
        "path": ".",
        "train": "images/train",
        "val": "images/val",
        "names": {0: "person", 1: "car"},
    }
    content |= changes
    lines = "\r\n".join(f"{key}: {json.dumps(value)}" for key, value in content.items())
    (root / "data.yaml").write_bytes(b"\xef\xbb\xbf" + lines.encode())
    return root
