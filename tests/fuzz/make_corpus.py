"""Makes the seeds of the corpus anew: python tests/fuzz/make_corpus.py

Every seed is made here from numbers, with what the tests make their files with; inputs called found_* once
broke a law, and are left alone.
"""

from __future__ import annotations

import importlib.util
import json
import random
import sqlite3
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import tifffile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import calibration_texts as texts_of
import foreign_sets as foreign
import yaml
from fuzz.packing import pack
from fuzz.targets import CORPUS, TARGETS
from small_bundles import SmallBundles, write

from calibration.formats.registry import write_calibration
from perception.data.base import Boxes, ClassInfo, TruthBoxes3d
from perception.data.folder import FolderWriter, folder_info
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform

HERE = Path(__file__).resolve().parent
_RNG = np.random.default_rng(0)


def test_module(path: str) -> ModuleType:
    """A module of the tests, for what it makes its files with."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), HERE.parent / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def save(target: str, name: str, data: bytes) -> None:
    """Write a seed."""
    assert len(data) <= 20_000, f"{target}/{name}: {len(data)} bytes"
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(data)


def ramp(dtype: type, channels: int = 0, height: int = 6, width: int = 8) -> np.ndarray:
    """Values that rise from pixel to pixel."""
    shape = (height, width, channels) if channels else (height, width)
    values = np.arange(np.prod(shape)).reshape(shape)
    return (values * 37 % 3000 + 500 if dtype != np.uint8 else values * 5 % 256).astype(dtype)


def images() -> None:
    """Raw messages of the usual encodings."""
    for kind, encoding, values in (
        (0, "rgb8", ramp(np.uint8, 3)),
        (0, "bgra8", ramp(np.uint8, 4)),
        (0, "mono8", ramp(np.uint8)),
        (0, "bayer_rggb8", ramp(np.uint8)),
        (0, "yuv422_yuy2", ramp(np.uint8, 2)),
        (0, "rgb16", ramp(np.uint16, 3)),
        (1, "16UC1", ramp(np.uint16)),
        (1, "32FC1", ramp(np.float32) / np.float32(500)),
        (2, "mono8", ramp(np.uint8)),
        (2, "mono16", ramp(np.uint16)),
        (2, "32FC1", ramp(np.float32)),
    ):
        step = values.strides[0]
        unit = "auto" if kind != 2 or values.dtype == np.uint8 else "counts16"
        if kind == 2 and values.dtype == np.float32:
            unit = "kelvin"
        first = f"{kind} {unit} {len(values)} {values.shape[1]} {step} 0 {encoding}\n"
        save(
            "image",
            f"{['rgb', 'depth', 'thermal'][kind]}_{encoding}",
            first.encode() + values.tobytes(),
        )


def coded(suffix: str, values: np.ndarray) -> bytes:
    done, content = cv2.imencode(suffix, values)
    assert done
    return bytes(content.tobytes())


def pictures() -> None:
    """Compressed messages, and files of each sort."""
    png, jpg = coded(".png", ramp(np.uint8, 3)), coded(".jpg", ramp(np.uint8, 3))
    deep = coded(".png", ramp(np.uint16))
    save("compressed", "jpeg", b"0 auto rgb8; jpeg compressed bgr8\n" + jpg)
    save("compressed", "png", b"0 auto png\n" + png)
    header = struct.pack("<iff", 0, 100.0, 0.1)
    save("compressed", "depth_png", b"1 auto 16UC1; compressedDepth png\n" + header + deep)
    save("compressed", "inverse_depth", b"1 auto 32FC1; compressedDepth png\n" + header + deep)
    depth = ramp(np.uint16)
    depth[2, 3:] = 0
    rvl = struct.pack("<II", 8, 6) + test_module("adapters/test_compressed.py").encode_rvl(depth)
    save("compressed", "depth_rvl", b"1 auto 16UC1; compressedDepth rvl\n" + header + rvl)
    save("compressed", "thermal_png", b"2 counts16 png\n" + deep)
    files: dict[str, bytes] = {
        "0  .png": png,
        "0  .jpg": jpg,
        "1  .png": deep,
        "2 counts16 .png": deep,
    }
    with tempfile.TemporaryDirectory() as place:
        tiff, npy, npz = Path(place, "a.tif"), Path(place, "a.npy"), Path(place, "a.npz")
        tifffile.imwrite(tiff, ramp(np.uint16))
        files["2 counts16 .tif"] = tiff.read_bytes()
        tifffile.imwrite(tiff, ramp(np.uint8, 3), compression="zlib")
        files["0  .tif"] = tiff.read_bytes()
        tifffile.imwrite(tiff, ramp(np.float32), compression="zlib")
        files["1 m .tiff"] = tiff.read_bytes()
        np.save(npy, ramp(np.float32) / 500)
        files["1 m .npy"] = npy.read_bytes()
        cloud = _RNG.uniform([4, -2, -1, 0], [9, 2, 1, 1], (12, 4)).astype(np.float32)
        np.save(npy, cloud)
        files["3  .npy"] = npy.read_bytes()
        np.savez(npz, points=cloud)
        files["3  .npz"] = npz.read_bytes()
        files["3  .bin"] = cloud.tobytes()
    for number, (first, content) in enumerate(files.items()):
        kind, _, suffix = first.split(" ")
        name = f"{number:02d}_{['rgb', 'depth', 'thermal', 'lidar'][int(kind)]}{suffix}"
        save("file", name, first.encode() + b"\n" + content)


def clouds() -> None:
    """PointCloud2 of several layouts, and PCD files of the three forms."""
    points = _RNG.uniform([4, -2, -1, 0], [9, 2, 1, 1], (12, 4)).astype(np.float32)
    fields = "x:0:7:1,y:4:7:1,z:8:7:1,intensity:12:7:1"
    save("cloud", "xyzi", f"12 1 16 192 0 {fields}\n".encode() + points.tobytes())
    swapped = f"6 2 16 96 1 {fields}\n".encode() + points.astype(">f4").tobytes()
    save("cloud", "big_endian", swapped)
    dtype = np.dtype(
        [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("intensity", "<u2"), ("ring", "u1")]
    )
    table = np.zeros(9, dtype)
    for index, name in enumerate("xyz"):
        table[name] = points[:9, index]
    table["intensity"], table["ring"] = 700, 3
    fields = "x:0:8:1,y:8:8:1,z:16:8:1,intensity:24:4:1,ring:26:2:1"
    save("cloud", "doubles", f"9 1 27 243 0 {fields}\n".encode() + table.tobytes())
    tests = test_module("adapters/test_pcd.py")
    save("pcd", "ascii", tests.pcd(tests.TEXT))
    save("pcd", "binary", tests.pcd(tests.ROWS.tobytes(), "binary"))
    columns = tests.ROWS.T.tobytes()
    packed = b"".join(  # literal runs of LZF, at most 32 bytes each
        bytes([len(part) - 1]) + part
        for part in (columns[i : i + 32] for i in range(0, len(columns), 32))
    )
    body = struct.pack("<II", len(packed), len(columns)) + packed
    save("pcd", "compressed", tests.pcd(body, "binary_compressed"))


def bags() -> None:
    """Two messages of each sort, as MCAP (by rosbags, and with chunks), sqlite3, and a folder."""
    kit_module = test_module("bags/conftest.py")
    with tempfile.TemporaryDirectory() as place:
        kit = kit_module.Kit(Path(place))
        start, ms = kit.start, kit.ms
        small, deep = ramp(np.uint8, 3, 4, 6), ramp(np.uint16, 0, 4, 6)
        messages = [
            ("/cam/rgb", kit.image(start, small), start),
            ("/cam/depth", kit.image(start, deep, "16UC1"), start + 5 * ms),
            ("/cam/info", kit.info(start, 6, 4), start + 6 * ms),
            ("/cam/small", kit.compressed(start, "png", coded(".png", small)), start + 7 * ms),
            ("/tf_static", kit.tf(start, ("a", "b", (0.0, 0.0, 0.0, 1.0))), start + 8 * ms),
        ]
        for storage in ("mcap", "sqlite3"):
            folder = kit.write(messages, storage)
            metadata = (folder / "metadata.yaml").read_text()
            slim(folder)
            file = next(p for p in folder.iterdir() if p.suffix in (".mcap", ".db3"))
            if storage == "mcap":
                builder = kit_module.McapBuilder().header()
                data = kit.serialized(messages[0][1])
                records = builder.channel(1, "/cam/rgb", messages[0][1].__msgtype__)
                records += builder.message(1, start, data)
                for coding in ("", "zstd", "lz4"):
                    one = kit_module.McapBuilder().header()
                    one.add(one.chunk(records, start, start, coding)).add(one.index(1))
                    save("mcap", f"chunk_{coding or 'plain'}", one.end())
                plain = kit_module.McapBuilder().header().add(records)
                save("mcap", "no_chunk", plain.end())
                small_bag = folder.with_name("small")
                small_bag.mkdir()
                (small_bag / file.name).write_bytes(plain.end())
                (small_bag / "metadata.yaml").write_text(metadata)
                save("bag", "folder_mcap", pack(small_bag, "folder"))
            else:
                save("sqlite", "rosbag2", file.read_bytes())
                save("bag", "file_sqlite", pack(folder, "file").replace(b"=== metadata", b"=== z"))
        save("bag", "file_ros1", b"file\n=== a.bag\n#ROSBAG V2.0\n" + bytes(64))


def slim(folder: Path) -> None:
    """Make sqlite's pages small and drop what is not needed to read the bag."""
    for path in folder.glob("*.db3"):
        with sqlite3.connect(path) as opened:
            opened.execute("PRAGMA page_size=512")
            opened.execute("VACUUM")
        opened.close()


def bundles() -> None:
    """Small bundles of both schemas."""
    with tempfile.TemporaryDirectory() as place:
        make = SmallBundles(Path(place))
        old = make(("rgb",), 2)
        new = make.named({"left": ("rgb", "camera"), "right": ("rgb", "camera")}, 2)
        records = {"bundle": SmallBundles.sha256(new / "bundle.yaml"), "accuracy": {"a": 1}}
        save("bundle", "schema1", pack(old, "folder asis"))
        save("bundle", "schema2", pack(new, "folder rehash"))
        save("bundle", "zip", pack(new, "zip asis"))
        (new / "records.yaml").write_text(yaml.safe_dump(records))
        save("bundle", "records", pack(new, "folder asis"))
        content = yaml.safe_load((new / "bundle.yaml").read_text())
        content["inputs"]["left"]["kind"] = "depth"
        (new / "records.yaml").unlink()
        save("bundle", "contradicts_graph", pack(write(new, content), "folder rehash"))


def texts() -> None:
    """Rigs, configurations, schedules."""
    camera = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
    rig = Rig(
        {
            "rgb": SensorCalibration(camera),
            "lidar": SensorCalibration(extrinsics=RigidTransform.identity(), time_offset_ns=5),
        }
    )
    text = yaml.safe_dump(rig.to_dict(), sort_keys=False)
    save("rig", "schema2", text.encode())
    old = HERE.parent / "old_files" / "schema1" / "rig_apart.yaml"
    save("rig", "schema1", old.read_bytes())
    for path in ("sim-stereo.yaml", "indoor-rgbd-robust.yaml", "fine-tune.yaml"):
        save("config", path, (HERE.parents[1] / "configs" / path).read_bytes())
    save(
        "schedule",
        "loop",
        b"events:\n  - {at: 5, for: 3, sensor: rgb, fault: motion_blur, severity: 4}\n"
        b"  - {at: 1, sensor: [depth, lidar], fault: delay, value: 0.25}\nloop: 30\nseed: 7\n",
    )


def values() -> None:
    """Files of what values are worth, and tables of reference points."""
    curve = {"model": "planck", "parameters": {"R": 366545.0, "B": 1428.0, "O": -342.0, "F": 1.0}}
    line = {"model": "linear", "parameters": {"gain": 0.04, "offset": 90.0}}
    sensors = {
        "thermal": {"kind": "thermal", "kelvin": {**curve, "counts": [1700.0, 9000.0]}},
        "warm": {"kind": "thermal", "kelvin": {**line, "counts": [1700.0, 9000.0], "sigma_k": 0.2}},
        "depth": {
            "kind": "depth",
            "size": [4, 3],
            "metres": {"coefficients": [-0.01, 1.02, 0.001], "range_m": [0.5, 3.0]},
        },
    }
    text = yaml.safe_dump({"schema": 1, "sensors": sensors}, sort_keys=False)
    save("values", "sensors", text.encode())
    save(
        "values", "points", b"counts,kelvin,sigma_kelvin\n1700,255.1,0.2\n5000,325,\n9000,388,0.3\n"
    )
    save("values", "regions", b"picture,x,y,width,height,celsius\na.png,0,0,4,4,20\n")


def boxes() -> None:
    """Boxes and their truth in files of both fields."""
    rng = np.random.default_rng(5)
    placed = [
        {"sample": i // 4, "name": name, "center": rng.uniform(-9, 9, 3).round(2).tolist(),
         "wlh": [2.0, 4.5, 1.5], "yaw": 0.1 * i, "velocity": [1.0, 0.0 if i % 3 else None]}
        for i, name in enumerate(("car", "car", "barrier", "traffic_cone", "bus", "car"))
    ]  # fmt: skip
    found = [{**row, "score": 0.9 - 0.1 * i} for i, row in enumerate(placed)]
    truth = [{**row, "points": i, "attribute": "moving"} for i, row in enumerate(placed)]
    content = {"samples": 2, "truth": truth, "predictions": found}
    save("boxes", "nuscenes", json.dumps(content).encode())
    kinds = ("Car", "Van", "Pedestrian", "Person_sitting", "Cyclist", "DontCare")
    labels = [
        {"type": kind, "alpha": 0.1 * i, "bbox": [100.0 * i, 100.0, 100.0 * i + 60, 150.0],
         "hwl": [1.5, 1.8, 4.0], "xyz": [5.0 * i, 1.6, 20.0], "ry": 0.3 * i}
        for i, kind in enumerate(kinds)
    ]  # fmt: skip
    wanted = [{**row, "truncated": 0.1 * i, "occluded": i % 3} for i, row in enumerate(labels)]
    answers = [{**row, "score": 0.5 + 0.1 * i} for i, row in enumerate(labels[:5])]
    overlap = {"Car": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
    content = {"frames": 2, "truth": [wanted, []], "predictions": [answers, answers[:1]]}
    save("boxes", "kitti", json.dumps({**content, "overlap": overlap}).encode())


def calibrations() -> None:
    """Files of calibrations of each format."""
    camera = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5, "equidistant", (0.1, 0.0, 0.01, 0.0))
    moved = RigidTransform.from_quaternion_xyzw((0.5, -0.5, 0.5, 0.5), [0.1, 0.2, 0.3])
    plain = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
    sensors = {
        "rgb": SensorCalibration(plain, pose=Pose(moved)),
        "left": SensorCalibration(camera, kind="rgb", pose=Pose(RigidTransform.identity())),
        "lidar": SensorCalibration(pose=Pose(moved), time_offset_ns=5),
    }
    rig = Rig(sensors, "imu", "rgb")
    for name, suffix in (
        ("kalibr", ".yaml"), ("ros", ""), ("kitti", ""), ("kitti", ".txt"), ("opencv", ""),
        ("opencv", ".yml"), ("opencv", ".xml"), ("urdf", ".urdf"), ("autoware", ".yaml"),
        ("nuscenes", ""), ("rig", ".yaml"),
    ):  # fmt: skip
        with tempfile.TemporaryDirectory() as place:
            root = Path(place)
            write_calibration(rig, root / f"c{suffix}", name)
            whole = root if suffix else root / "c"
            save("calibration", f"{name}{suffix}", pack(whole, f"c{suffix}" if suffix else ""))
    for name, text in (
        ("camchain.yaml", texts_of.CAMCHAIN), ("robot.urdf", texts_of.ROBOT),
        ("tf.launch.xml", texts_of.LAUNCH), ("tf.yaml", yaml.safe_dump(texts_of.TF)),
    ):  # fmt: skip
        save("calibration", name, f"{name}\n=== {name}\n{text}".encode())
    kit = ("sensor_kit_calibration.yaml", texts_of.KIT), ("sensors_calibration.yaml", texts_of.BODY)
    packed = "".join(f"\n=== {name}\n{text}" for name, text in kit)
    save("calibration", "kit", packed.encode())


def recordings() -> None:
    """A recording of two frames with labels and boxes, one to be ignored."""
    classes = (ClassInfo(0, "road", (1, 2, 3)), ClassInfo(1, "car", (4, 5, 6)))
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "recording")
        info = folder_info(
            name="small",
            size=(24, 32),
            sensors={"rgb": "rgb", "depth": "depth"},
            seg_classes=classes,
            det_classes=classes,
        )
        rig = Rig({"rgb": SensorCalibration(CameraModel(32, 24, 30.0, 30.0, 15.5, 11.5))})
        with FolderWriter(root, info, rig) as writer:
            for index in range(2):
                boxes = Boxes.of(
                    np.array([[2, 3, 12, 13], [14, 4, 30, 20]], np.float32),
                    [0, 1],
                    ignore=[False, True],
                )
                writer.add(
                    f"{index:03d}",
                    {
                        "rgb": ramp(np.uint8, 3, 24, 32) // 100 + np.uint8(40 + index),
                        "depth": np.full((24, 32), 2.5, np.float32),
                    },
                    stamp_ns=index * 10**8,
                    tags=("train" if index else "val", "seq:a"),
                    labels=np.full((24, 32), index, np.uint8),
                    boxes=boxes,
                )
        save("folder", "two_frames", pack(root, "recording"))


def flatten(root: Path) -> None:
    """Make pictures of noise plain and clouds short: what they show means nothing to an importer."""
    for path in root.rglob("*"):
        if path.suffix in (".png", ".jpg") and path.stat().st_size > 700:
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), np.full_like(image, 90 if image.ndim == 3 else 1))
        elif path.suffix == ".bin" and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:800])


def sets() -> None:
    """Data sets of others, of each importer."""
    modules = {
        name: test_module(f"importers/test_{name}.py")
        for name in ("cityscapes", "kitti_object", "semantic_kitti", "sunrgbd", "nuscenes", "rgbt")
    }
    makers: dict[str, Callable[[Path], object]] = {
        "coco": foreign.coco,
        "coco,labels=true": foreign.coco,
        "yolo": lambda root: foreign.yolo(root, 2),
        "cityscapes": modules["cityscapes"].cityscapes,
        "kitti_object": modules["kitti_object"].kitti_object,
        "semantic_kitti": lambda root: modules["semantic_kitti"].semantic_kitti(root, False),
        "sunrgbd": modules["sunrgbd"].sunrgbd,
        "nuscenes": modules["nuscenes"].nuscenes,
        "mfnet": modules["rgbt"].mfnet,
        "pst900": modules["rgbt"].pst900,
    }
    for first, make in makers.items():
        with tempfile.TemporaryDirectory() as place:
            make(Path(place))
            flatten(Path(place))
            name = first.replace(",", "_").replace("=", "_")
            save("importer", name, pack(Path(place), first))


def events() -> None:
    """Sensors in step, out of step, silent for a while, and with a clock set back."""
    rng = random.Random(0)
    for target, head in (("collector", b"\2\2"), ("stream", b"")):
        steady, noise = bytearray(head), bytearray(head)
        for index in range(40):
            steady += bytes([10, index % 3 | 16 * (index % 9), 0x60]) + bytes([200, 0, 0])
            noise += bytes([rng.randrange(256), rng.randrange(256), rng.randrange(256)])
        save(target, "steady", bytes(steady))
        save(target, "noise", bytes(noise))
        one = b"".join(
            bytes([10, 16 * (i % 9), 0x60 if i != 20 else 0xDD, 200, 0, 0]) for i in range(40)
        )
        save(target, "one_sensor_clock_set_back", bytes(head) + one)


def space() -> None:
    """Points with times, and a recording with boxes in space and poses."""
    rng = np.random.default_rng(5)
    kind = np.dtype([("xyz", "<f4", 3), ("t", "<u4")])
    table = np.zeros(12, kind)
    table["xyz"] = rng.uniform([4, -2, -1], [9, 2, 1], (12, 3))
    table["t"] = np.arange(12) * 8_000_000
    fields = "x:0:7:1,y:4:7:1,z:8:7:1,t:12:6:1"
    save("cloud", "times", f"12 1 16 192 0 {fields}\n".encode() + table.tobytes())
    place = RigidTransform(np.eye(3), np.array([0.0, 0, 1.8]))
    rig = Rig({"lidar": SensorCalibration(None, None, pose=Pose(place))}, "base_link")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "recording"
        info = folder_info(
            name="space",
            size=(24, 32),
            sensors={"lidar": "lidar"},
            seg_classes=(),
            det_classes=(ClassInfo(0, "car", (200, 0, 0)),),
        )
        with FolderWriter(root, info, rig) as writer:
            for index in range(2):
                boxes = TruthBoxes3d.of(
                    [[6.0, 0, -1]],
                    [[4.0, 2, 1.6]],
                    [0.3],
                    [0],
                    velocity=[[1.0, 0]],
                    track=[7],
                    frame="lidar",
                )
                writer.add(
                    f"{index:03d}",
                    {"lidar": np.column_stack([table["xyz"], np.ones(12, np.float32)])},
                    stamp_ns=index * 10**8,
                    boxes3d=boxes,
                    times={"lidar": table["t"] * np.float32(1e-9)},
                    pose=RigidTransform(np.eye(3), np.array([0.5 * index, 0, 0])),
                )
        save("folder", "in_space", pack(root, "recording"))


def main() -> None:
    for target in TARGETS:
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if not path.name.startswith("found_"):
                path.unlink()
    for make in (
        images,
        pictures,
        clouds,
        bags,
        bundles,
        texts,
        calibrations,
        values,
        boxes,
        recordings,
        sets,
        events,
        space,
    ):
        make()


if __name__ == "__main__":
    main()
