"""Damages a small bundle in many ways, and says what comes of it: one JSON line.

python tests/runtime/fuzz_bundle.py FOLDER COUNT SEED [DEVICE [SCHEMA]]

Each time one to three things are changed: bytes of a file, bytes or nodes of a graph whose checksum is made
right again, or values of the manifest.  It must be refused by one line of `BundleError` or `EngineError`,
or run and give a result that is sound: finite, of the right shape, of classes that there are; the very
bytes of the undamaged bundle where nothing was changed that means something to the runtime.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_bundles import GRID, SmallBundles
from strange_values import STRANGE, change_value

from perception.errors import AnySenseError, BundleError, EngineError
from perception.frame import Sample
from perception.runtime.bundle import Bundle
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result

GRAPHS = ("encoder_rgb.onnx", "encoder_depth.onnx", "fuser.onnx")
MEANS_NOTHING = ("name", "version", "description", "licence", "simulated", "judged", "training")
MEANS_NOTHING += ("model", "precision", "quantization", "files", "schema")


def sample(kind: str) -> Sample:
    rng = np.random.default_rng(0)
    data = (
        rng.integers(20, 220, (*GRID, 3), dtype=np.uint8)
        if kind == "rgb"
        else rng.uniform(1, 9, GRID).astype(np.float32)
    )
    return Sample(kind, data, stamp_ns=1)  # type: ignore[arg-type]


FRAME = {m: sample(m) for m in ("rgb", "depth")}


def flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    how = rng.random()
    at = rng.randrange(len(changed))
    if how < 0.6:
        changed[at] ^= 1 << rng.randrange(8)
    elif how < 0.8:
        changed[at] = rng.randrange(256)
    elif how < 0.9:
        del changed[at : at + rng.randrange(1, 40)]
    else:
        changed[at:at] = rng.randbytes(rng.randrange(1, 40))
    return bytes(changed)


SIZES = (0, 1, -1, 2, 7, 1000, 2**31, -(2**31), 2**62, -(2**63))
OTHER_OPERATORS = (
    "GatherND", "ScatterND", "GatherElements", "Loop", "If", "LSTM", "GridSample", "RoiAlign", "Col2Im",
    "CenterCropPad", "Resize", "Concat", "Pad", "Softmax", "MatMul", "Slice", "Conv", "Nonsense", "",
)  # fmt: skip


def bend(content: bytes, rng: random.Random) -> bytes:
    """Change a graph so that it is well formed still, and wrong in a way that only a meaning can be."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    node, how = rng.choice(graph.node), rng.randrange(9)
    names = [t.name for t in (*graph.input, *graph.initializer)]
    names += [name for n in graph.node for name in n.output]
    if how == 0:
        del node.input[rng.randrange(len(node.input))]
    elif how == 1:
        node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nowhere"])
    elif how == 2:
        node.input.append(rng.choice(names))
    elif how == 3:
        node.output[0] = rng.choice(names)
    elif how == 4:
        node.op_type = rng.choice(OTHER_OPERATORS)
    elif how == 5:
        graph.node.insert(rng.randrange(len(graph.node)), copy.deepcopy(node))
    elif how == 6 and node.attribute and node.attribute[0].ints:
        ints = node.attribute[0].ints
        ints[rng.randrange(len(ints))] = rng.choice(SIZES)
    elif how == 7 and graph.initializer:
        weight = rng.choice(graph.initializer)
        weight.dims[:] = [*weight.dims[1:], rng.choice(SIZES)]
    elif graph.initializer:
        weight = rng.choice(graph.initializer)
        if weight.data_type == onnx.TensorProto.INT64:
            weight.raw_data = np.int64(rng.choice(SIZES)).tobytes()
        else:
            weight.data_type = rng.randrange(1, 20)
    return bytes(model.SerializeToString())


def damage(folder: Path, rng: random.Random) -> bool:
    """Change something; whether graphs' meaning may have changed with it."""
    graphs = False
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        how = rng.random()
        manifest = folder / "bundle.yaml"
        if how < 0.1:
            path = folder / rng.choice((*GRAPHS, "bundle.yaml"))
            path.write_bytes(flip(path.read_bytes(), rng))
            continue
        try:
            content = yaml.safe_load(manifest.read_bytes())
            assert isinstance(content, dict) and content
        except Exception:  # it was damaged before
            continue
        if how < 0.55:
            path = folder / rng.choice(GRAPHS)
            try:
                path.write_bytes((bend if rng.random() < 0.5 else flip)(path.read_bytes(), rng))
            except Exception:  # what was damaged before can be too broken to be bent
                path.write_bytes(flip(path.read_bytes(), rng))
            if isinstance(content.get("files"), dict):
                content["files"][path.name] = SmallBundles.sha256(path)
            graphs = True
        elif how < 0.65:
            content[rng.choice(("training", "model", "accuracy"))] = {"x": rng.choice(STRANGE)}
        else:
            change_value(content, rng)
        manifest.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    return graphs


def fault(result: Result, pipeline: Pipeline) -> str:
    """What is not sound about a result; empty when all is."""
    manifest = pipeline.manifest
    if not set(result.used) or result.state not in ("full", "degraded"):
        return f"state {result.state}"
    size = FRAME["rgb" if "rgb" in result.used else "depth"].data.shape[:2]
    if manifest.seg_classes:
        if result.labels is None or result.labels.shape != size:
            return "labels of another shape"
        if int(result.labels.max()) >= len(manifest.seg_classes):
            return f"class {result.labels.max()}"
        if not np.isfinite(result.confidence).all() or (result.confidence > 1 + 1e-5).any():  # type: ignore[operator, arg-type]
            return "confidence"
    if manifest.det_classes:
        boxes = result.boxes
        if (
            boxes is None
            or not np.isfinite(boxes.xyxy).all()
            or not np.isfinite(boxes.scores).all()
        ):
            return "boxes"
        if len(boxes) and int(boxes.class_ids.max()) >= len(manifest.det_classes):
            return "class of a box"
    return ""


def same(one: Result, other: Result) -> bool:
    assert one.boxes is not None and other.boxes is not None
    pairs = [
        (one.labels, other.labels),
        (one.confidence, other.confidence),
        (one.boxes.xyxy, other.boxes.xyxy),
        (one.boxes.scores, other.boxes.scores),
        (one.boxes.class_ids, other.boxes.class_ids),
    ]
    return all(a is not None and b is not None and a.tobytes() == b.tobytes() for a, b in pairs)


def meaning(bundle: Bundle) -> dict[str, Any]:
    content = bundle.manifest.model_dump(mode="json", by_alias=True)
    return {k: v for k, v in content.items() if k not in MEANS_NOTHING}


def main(
    folder: Path, count: int, seed: int, device: str = "cpu", schema: str = "1"
) -> dict[str, Any]:
    make = SmallBundles(folder)
    good = make(("rgb", "depth"), 3, 2, name="good")
    if schema == "2":
        good = make.named({"rgb": ("rgb", "rgb"), "depth": ("depth", "depth")}, 3, 2, name="good")
    wanted = Pipeline.load(good, device, threads=1)(FRAME)
    meant = meaning(Bundle.open(good))
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    for index in range(count):
        rng = random.Random(f"{seed} {index}")
        bad = folder / "bad"
        shutil.rmtree(bad, ignore_errors=True)
        shutil.copytree(good, bad)
        graphs = damage(bad, rng)
        try:
            pipeline = Pipeline.load(bad, device, threads=1)
            result = pipeline(FRAME)
        except (BundleError, EngineError) as error:
            outcomes["BundleError" if isinstance(error, BundleError) else "EngineError"] += 1
            if "\n" in str(error) or len(str(error)) > 2000:
                failures.append(f"{index}: not one line: {str(error)[:200]}")
            continue
        except AnySenseError as error:
            failures.append(f"{index}: {type(error).__name__}: {error}")
            continue
        except Exception as error:
            failures.append(f"{index}: {type(error).__name__}: {str(error)[:200]}")
            continue
        problem = fault(result, pipeline)
        if problem:
            failures.append(f"{index}: {problem}")
        unchanged = not graphs and meaning(pipeline.bundle) == meant
        outcomes["same" if unchanged else "sound"] += 1
        if unchanged and not same(result, wanted):
            failures.append(f"{index}: other output, though nothing that matters was changed")
    return {"outcomes": dict(outcomes), "failures": failures}


if __name__ == "__main__":
    place, number, start, *where = sys.argv[1:]
    sys.stdout.write(json.dumps(main(Path(place), int(number), int(start), *where)) + "\n")
