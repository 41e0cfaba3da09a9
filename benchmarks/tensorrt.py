"""Times a run on an NVIDIA GPU against PyTorch, and checks what its plans compute.

    python benchmarks/tensorrt.py RUN [--data KIND:DIR] [--frames N] [--json FILE]

RUN is a training run or checkpoint.  It is exported, plans are built in float16, and with batch 1 these
take turns: PyTorch eager in float16, TensorRT's bare execution, and the whole pipeline.  Where TensorRT is
missing, ONNX Runtime's CUDA provider stands in for it.  Held against: TensorRT at least 3 times as fast as
PyTorch, the pipeline at most 15% slower than bare execution, and with --data a change of at most 0.3
points of mIoU or AP50 against ONNX Runtime float32.  The exit status is 0 when all hold, 3 when one does
not, and 2 with one line where nothing can be measured, as without a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from perception.cli.arguments import output_file, thin_out
from perception.errors import AnySenseError, ConfigError
from perception.runtime.engines.base import BackendMissingError
from perception.runtime.engines.cuda_driver import examine_driver

MIN_SPEEDUP, MAX_OVERHEAD, MAX_LOSS = 3.0, 0.15, 0.3
WARMUP = 20


def main() -> int:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="training run or checkpoint")
    parser.add_argument("--data", metavar="KIND:DIR", help="labeled recording for the parity")
    parser.add_argument("--split", default="val", choices=("all", "train", "val"))
    parser.add_argument("--limit", type=int, help="only this many frames of it")
    parser.add_argument("--frames", type=int, default=200, help="timed frames (default: 200)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    args = parser.parse_args()
    try:
        found = _measure(args)
    except AnySenseError as error:
        print(f"tensorrt: error: {error}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if _judge(found) else 3


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    output_file(args.json)
    if args.frames < 1:
        raise ConfigError("must be at least 1", where="--frames")
    driver = examine_driver()
    if driver.problem:
        raise BackendMissingError(driver.problem, hint="this benchmark needs an NVIDIA GPU")
    if not args.run.exists():
        raise ConfigError("no such run or checkpoint", where=str(args.run))
    import torch

    if not torch.cuda.is_available():
        raise BackendMissingError(
            f"PyTorch {torch.__version__} cannot use the GPU", hint="install a CUDA build of torch"
        )
    from export.bundle_writer import ExportOptions, export_bundle

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        export_bundle(args.run, bundle, ExportOptions())
        backend = _prepare(bundle)
        times = _take_turns(args.run, bundle, backend, args.frames)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        found: dict[str, Any] = {
            "gpu": driver.gpus[0].name,
            "compute_capability": driver.gpus[0].compute_capability,
            "cuda": driver.cuda,
            "torch": torch.__version__,
            "backend": backend,
            "frames": args.frames,
            "p50_ms": medians,
            "p99_ms": {n: float(np.percentile(v, 99)) for n, v in times.items()},
            "speedup": medians["pytorch float16"] / medians["engines"],
            "overhead": medians["pipeline"] / medians["engines"] - 1,
        }
        if args.data:
            found["lost"] = _lost(args, bundle, backend)
    return found


def _prepare(bundle: Path) -> str:
    """Build plans where TensorRT is there; the backend to measure."""
    from export.engine_builder import BuildOptions, build_plans
    from perception.runtime.bundle import Bundle

    for kind, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        if find_spec(module) is None:
            continue
        print(f"building plans with {kind}")
        build_plans(Bundle.open(bundle), BuildOptions(kind))  # type: ignore[arg-type]
        return kind
    print("TensorRT is not installed; ONNX Runtime's CUDA provider is measured in the place of it")
    return "onnxruntime-cuda"


def _take_turns(run: Path, bundle: Path, backend: str, frames: int) -> dict[str, list[float]]:
    import torch

    from export.bundle_writer import model_from_checkpoint
    from perception.runtime.benchmark import synthetic_frame
    from perception.runtime.engines.probe import probe_inputs
    from perception.runtime.pipeline import Pipeline
    from perception.runtime.wiring import FUSER, PRESENCE
    from perception.training.checkpoint import load_checkpoint

    pipeline = Pipeline.load(bundle, backend)
    model = model_from_checkpoint(load_checkpoint(run)).cuda().half()
    images, wiring = probe_inputs(pipeline.manifest.inputs), pipeline.manifest.wiring
    held = {n: torch.from_numpy(x).cuda().half() for n, x in images.items()}

    def eager() -> None:
        with torch.inference_mode():
            model(held)
        torch.cuda.synchronize()

    presence = wiring.present(images)

    def engines() -> None:
        # As the pipeline runs them, features staying on the GPU, and nothing around it.
        feeds: dict[str, Any] = {PRESENCE: presence}
        for name, image in images.items():
            given = pipeline.engines[name].run_linked(wiring.feeds(name, image))
            feeds |= wiring.features(name, given)
        pipeline.engines[FUSER].run(feeds)

    prepared = synthetic_frame(pipeline, 0)

    def whole() -> None:
        pipeline.reset()
        pipeline(prepared)

    turns: dict[str, Callable[[], None]] = {
        "pytorch float16": eager,
        "engines": engines,
        "pipeline": whole,
    }
    times: dict[str, list[float]] = {name: [] for name in turns}
    for index in range(WARMUP + frames):
        for name, work in turns.items():
            start = time.perf_counter_ns()
            work()
            if index >= WARMUP:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


def _lost(args: argparse.Namespace, bundle: Path, backend: str) -> float:
    """Points that the worst subset loses against ONNX Runtime float32."""
    from perception.data.registry import open_recording, parse_data_argument
    from perception.evaluation.backends import judge_backends
    from perception.runtime.bundle import Bundle

    kind, root = parse_data_argument(args.data)
    recording = open_recording(kind, root, split=args.split)
    if args.limit:
        thin_out(recording, args.limit, "--limit")
    subsets = Bundle.open(bundle).manifest.subsets
    _, judged = judge_backends(bundle, recording, [backend], subsets)
    return max(j.record.lost for j in judged.values())


def _judge(found: dict[str, Any]) -> bool:
    print(f"{found['gpu']}, {found['backend']}: " + ", ".join(
        f"{name} {ms:.2f} ms" for name, ms in found["p50_ms"].items()
    ))  # fmt: skip
    limits = [
        ("speedup over PyTorch eager float16", found["speedup"], found["speedup"] >= MIN_SPEEDUP),
        ("pipeline over bare execution", found["overhead"], found["overhead"] <= MAX_OVERHEAD),
    ]
    if "lost" in found:
        limits.append(("points lost", found["lost"], found["lost"] <= MAX_LOSS))
    for name, value, good in limits:
        print(f"{name}: {value:.3f} ({'within' if good else 'beyond'} the limit)")
    return all(good for *_, good in limits)


if __name__ == "__main__":
    sys.exit(main())
