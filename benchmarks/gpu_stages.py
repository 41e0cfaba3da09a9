"""The stages of `gpu_check.py`; each gives what it found as plain values."""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from perception.frame import Frame, Sample, subset_name, subsets_of
from perception.runtime.benchmark import measure, synthetic_frame
from perception.runtime.bundle import Bundle, find_bundle
from perception.runtime.engines.cuda_driver import examine_driver
from perception.runtime.engines.cuda_features import VARIABLE
from perception.runtime.engines.probe import probe_inputs, relative_error
from perception.runtime.engines.registry import REFERENCE
from perception.runtime.engines.selection import load_engines
from perception.runtime.pipeline import Pipeline
from perception.runtime.wiring import FUSER, PRESENCE

ROOT = Path(__file__).resolve().parents[1]


def env(args: argparse.Namespace) -> dict[str, Any]:
    """What is here."""
    driver = examine_driver()
    packages = (
        "onnxruntime",
        "onnxruntime-gpu",
        "torch",
        "numpy",
        "onnx",
        "cuda-bindings",
        "pydantic",
    )
    doctor = subprocess.run(
        [sys.executable, "-m", "perception.cli.main", "doctor", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    print(doctor.stdout[-6000:], doctor.stderr[-2000:])
    usable = json.loads(doctor.stdout)["usable_backends"] if doctor.returncode == 0 else []
    return {
        "date": str(date.today()),
        "gpu": ", ".join(g.name for g in driver.gpus) or driver.problem,
        "cuda": driver.cuda,
        "cpu": f"{os.cpu_count()} cores",
        "versions": ", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {_version(p)}" for p in packages)]
        ),
        "usable_backends": usable,
        "doctor_stderr": doctor.stderr[-500:],
    }


def half(args: argparse.Namespace) -> dict[str, Any]:
    """Float16 bundles, made of the float32 ones."""
    from export.half_bundle import write_half

    made: dict[str, Any] = {}

    def make(bundle: Path) -> None:
        start = time.monotonic()
        choice = write_half(Bundle.open(bundle), _half_of(args, bundle), max_error=0.05, threads=4)
        made[bundle.name] = (
            f"{time.monotonic() - start:.1f} s, {len(choice.layers)} layers in float32"
        )
        print(bundle.name, made[bundle.name], flush=True)

    workers = [threading.Thread(target=make, args=(b,)) for b in _bundles(args)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"made": made}


def contract(args: argparse.Namespace) -> dict[str, Any]:
    """The tests that every backend is held to, on this one."""
    summary: dict[str, str] = {}
    crashed: list[str] = []

    def test(name: str, value: str) -> None:
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-x" if args.quick else "--maxfail=30"),
            *("-p", "no:cacheprovider", "tests/runtime/test_engine_contract.py"),
            *("tests/runtime/test_buffers.py", "tests/runtime/test_quiet.py", "--tb=short"),
            *(
                "-k",
                f"({args.backend} or tf32 or gpu or beside_pytorch or real_one) and not which_backend",
            ),
        ]
        where = {"cwd": ROOT, "env": {**os.environ, VARIABLE: value}}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=90, check=False, **where
            )
        except subprocess.TimeoutExpired:
            summary[name] = "not done within 90 s"
            crashed.append(name)
            return
        print(
            f"----- {name}: {done.returncode}", done.stdout[-9000:], done.stderr[-3000:], flush=True
        )
        summary[name] = (done.stdout.strip().splitlines() or ["nothing"])[-1]
        if done.returncode < 0:
            summary[name] += f", ended by signal {-done.returncode}"
            crashed.append(name)
        _keep(args, "contract", {"summary": summary, "crashed": crashed})

    workers = [threading.Thread(target=test, args=one) for one in _features(args)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return {"summary": summary, "crashed": crashed}


def parity(args: argparse.Namespace) -> dict[str, Any]:
    """Every subset of every bundle against ONNX Runtime on the CPU."""
    rows: list[dict[str, Any]] = []
    for path in _bundles(args):
        reference = Pipeline.load(path, REFERENCE)
        frames = _frames(args, reference)
        wanted = {
            s: [_call(reference, f, s) for f in frames] for s in subsets_of(reference.sensors)
        }
        for name, value in _features(args):
            with _set(value):
                pipeline = Pipeline.load(path, args.backend, tf32="exact" not in name)
                errors = _errors(path, args.backend)
            for subset, expected in wanted.items():
                found = [_call(pipeline, f, subset) for f in frames]
                pairs = list(zip(found, expected, strict=True))
                rows.append(
                    {
                        "bundle": path.name,
                        "features": name,
                        "subset": subset_name(subset),
                        "error": errors[subset_name(subset)],
                        "labels": float(np.mean([_equal(a.labels, b.labels) for a, b in pairs])),
                        "confidence": max(_apart(a.confidence, b.confidence) for a, b in pairs),
                        "boxes": "/".join(
                            f"{len(a.boxes or ())}:{len(b.boxes or ())}" for a, b in pairs
                        ),
                        "backend": found[0].backend,
                    }
                )
            _keep(args, "parity", {"rows": rows})
    return {"rows": rows}


def bench(args: argparse.Namespace) -> dict[str, Any]:
    """Whole pipelines with every setting, in turn, float32 and float16."""
    rows: list[dict[str, Any]] = []
    for path in _bundles(args):
        pipelines: dict[str, Pipeline] = {}
        for precision, folder in (("fp32", path), ("fp16", _half_of(args, path))):
            if not folder.exists():
                continue
            for name, value in _features(args):
                with _set(value):
                    pipelines[f"{precision} {name}"] = Pipeline.load(folder, args.backend)
        many = len(subsets_of(next(iter(pipelines.values())).sensors)) > 7
        found = measure(
            pipelines, max(1, args.frames // (3 if many else 1)), 2 if args.quick else 6
        )
        for name, one in found.items():
            full = one["subsets"][subset_name(pipelines[name].sensors)]
            rows.append(
                {
                    "bundle": path.name,
                    "features": name,
                    "total": full["total_ms"]["p50"],
                    "p99": full["total_ms"]["p99"],
                    "engine": full["engine_ms"]["p50"],
                    "steps": full["steps_ms"],
                    "subsets": {s: r["total_ms"]["p50"] for s, r in one["subsets"].items()},
                    "backend": pipelines[name].backend,
                }
            )
            print(rows[-1], flush=True)
        _keep(args, "bench", {"rows": rows})
    return {"rows": rows}


def raw(args: argparse.Namespace) -> dict[str, Any]:
    """ONNX Runtime alone on the same graphs, nothing of ours around it, inputs where it runs."""
    from gpu_raw import chains

    rows: dict[str, Any] = {}
    for path in _bundles(args):
        for precision, folder in (("fp32", path), ("fp16", _half_of(args, path))):
            if folder.exists():
                for name, work in chains(Bundle.open(folder), args.backend, args.all_options):
                    label = f"{path.name} {precision}, {name}"
                    try:
                        rows[label] = _p50(work, 5 if args.quick else 60)
                    except Exception as error:
                        rows[label] = f"{type(error).__name__}: {error}"[:300]
                    print(label, rows[label], flush=True)
                    _keep(args, "raw", {"rows": rows})
    return {"rows": rows}


def torch(args: argparse.Namespace) -> dict[str, Any]:
    """PyTorch on the same networks; weights are random, which does not change how long they take."""
    import torch as pytorch

    from perception.data.base import ClassInfo, RecordingInfo
    from perception.training.building import build_from_config
    from perception.training.config import load_config

    device = "cuda" if pytorch.cuda.is_available() else "cpu"
    rows: dict[str, Any] = {}
    for path in _bundles(args):
        config_file = ROOT / "configs" / f"{path.name}.yaml"
        if not config_file.is_file():
            continue
        manifest, config = Bundle.open(path).manifest, load_config(config_file)
        classes = [
            tuple(ClassInfo(c.id, c.name, getattr(c, "color", (0, 0, 0))) for c in found)
            for found in (manifest.seg_classes, manifest.det_classes)
        ]
        info = RecordingInfo("folder", "x", dict(manifest.inputs.kinds), *classes)
        model = build_from_config(config, info, pretrained=False).eval().to(device)
        inputs = {
            n: pytorch.from_numpy(x).to(device) for n, x in probe_inputs(manifest.inputs).items()
        }
        for name, cast in (("float32", lambda x: x.float()), ("float16", lambda x: x.half())):
            if device == "cpu" and name == "float16":
                continue
            held, network = {n: cast(x) for n, x in inputs.items()}, cast(model)

            def eager(network: Any = network, held: Any = held) -> None:
                with pytorch.inference_mode():
                    network(held)
                if device == "cuda":
                    pytorch.cuda.synchronize()

            rows[f"{path.name}, eager {name} on {device}"] = _p50(eager, 3 if args.quick else 50)
            print(rows, flush=True)
        _keep(args, "torch", {"rows": rows})
    return {"rows": rows}


def copies(args: argparse.Namespace) -> dict[str, Any]:
    """How long page-locked copies of the bundles' inputs and outputs take."""
    from perception.runtime.engines import cuda_driver_calls as calls
    from perception.runtime.engines.cuda_memory import cuda_memory

    if not examine_driver().gpus:
        return {"rows": {}, "note": examine_driver().problem}
    sizes: dict[str, int] = {}
    for path in _bundles(args):
        for name, array in probe_inputs(Bundle.open(path).manifest.inputs).items():
            sizes[f"{path.name} {name}, float32"] = array.nbytes
            sizes[f"{path.name} {name}, uint8"] = array.size
    sizes |= {
        "logits, 40 classes at 120x160": 40 * 120 * 160 * 4,
        "labels 240x320, uint8": 240 * 320,
    }
    memory, rows = cuda_memory(0), {}
    with memory.current():
        _, stream = memory.stream()
        most = max(sizes.values())
        owner, address = memory.allocate(most)
        host = memory.pinned(most)
        plain = np.ones(most, np.uint8)
        for name, size in sizes.items():

            def up(size: int = size) -> None:
                calls.upload(address, host.ctypes.data, size, stream)
                calls.wait(stream)

            def down(size: int = size) -> None:
                calls.download(host.ctypes.data, address, size, stream)
                calls.wait(stream)

            def stage(size: int = size) -> None:
                np.copyto(host[:size], plain[:size])

            rows[name] = [size, _p50(up, 50), _p50(down, 50), _p50(stage, 50)]
        del owner
    return {"rows": rows}


def soak(args: argparse.Namespace) -> dict[str, Any]:
    """A stream at full rate whose sensors die and come back, alone and together."""
    with _set(_features(args)[-1][1]):
        return _soak(args)


def _soak(args: argparse.Namespace) -> dict[str, Any]:
    from perception.runtime.stream import Stream

    path = _bundles(args)[-1]
    counts = {"results": 0, "without_output": 0, "exceptions": 0}
    last, gaps, backends, states = [time.monotonic()], [0.0], set[str](), dict[str, int]()

    def hear(result: Any) -> None:
        now = time.monotonic()
        gaps.append(now - last[0])
        last[0] = now
        counts["results"] += 1
        counts["without_output"] += result.reference is None
        backends.add(result.backend)
        states[result.state] = states.get(result.state, 0) + 1

    stop, dead = threading.Event(), set[str]()
    with Stream.open(path, device=args.backend, on_result=hear) as stream:
        pipeline = stream.core.pipeline  # type: ignore[union-attr]
        frames = [synthetic_frame(pipeline, seed) for seed in range(4)]

        def drive(sensor: str, rate: float) -> None:
            index = 0
            while not stop.wait(1 / rate):
                index += 1
                if sensor not in dead:
                    sample: Sample = frames[index % len(frames)][sensor]
                    stream.push(sensor, _unstamped(sample))

        drivers = [
            threading.Thread(target=drive, args=(s, rate), daemon=True)
            for s, rate in zip(pipeline.sensors, (30, 15, 30, 10) * 4, strict=False)
        ]
        for driver in drivers:
            driver.start()
        dice, begin, seconds = random.Random(0), time.monotonic(), 3.0 if args.quick else args.soak
        early = early_gpu = 0.0
        while time.monotonic() - begin < seconds:
            time.sleep(min(1.5, seconds / 3))
            dead.clear()
            dead.update(s for s in pipeline.sensors if dice.random() < 0.4)
            if not early and time.monotonic() - begin > seconds / 4:
                early, early_gpu = _memory(), _gpu_memory()
        stop.set()
        for driver in drivers:
            driver.join(5)
        time.sleep(0.5)
        report = stream.report()
        balanced = all(
            r.received == r.used + r.superseded + r.rejected + r.waiting for r in report.values()
        )
        return {
            "seconds_of_soak": time.monotonic() - begin,
            **counts,
            "longest_gap_s": max(gaps[2:] or [0.0]),
            "backends": sorted(backends),
            "states": states,
            "balanced": balanced,
            "engine_failures": stream.counters["engine_failures"],
            "errors": stream.counters["errors"],
            "memory_mb": [early, _memory()],
            "gpu_memory_mb": [early_gpu, _gpu_memory()],
            "features": os.environ.get(VARIABLE, "as they are"),
            "received": {s: r.received for s, r in report.items()},
            "used": {s: r.used for s, r in report.items()},
        }


def _unstamped(sample: Sample) -> Sample:
    from dataclasses import replace

    return replace(sample, stamp_ns=None)


def _memory() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _gpu_memory() -> float:
    """Megabytes of the GPU's memory that are taken, by whomever."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return float(done.stdout.split()[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return 0.0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _bundles(args: argparse.Namespace) -> list[Path]:
    return [find_bundle(name) for name in args.bundles.split(",")]


def _half_of(args: argparse.Namespace, bundle: Path) -> Path:
    return Path(args.work) / f"{bundle.name}-fp16"


def _features(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Names of settings, and the values of the variable."""
    return [(name, "" if name == "none" else name) for name in args.features.split(";")]


@contextmanager
def _set(value: str) -> Iterator[None]:
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = value
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def _keep(args: argparse.Namespace, stage: str, found: Mapping[str, Any]) -> None:
    """What is known when the stage does not come to its end."""
    (args.work / f"{stage}.partial.json").write_text(json.dumps(found))


def _frames(args: argparse.Namespace, pipeline: Pipeline) -> list[Frame]:
    """Real frames where they were brought along, otherwise made up."""
    file = args.samples / f"{pipeline.bundle.path.name}.npz" if args.samples else None
    made = [synthetic_frame(pipeline, seed) for seed in range(1 if args.quick else 2)]
    if file is None or not file.is_file():
        return made
    arrays = dict(np.load(file))
    units = {"thermal": "counts8"}
    frames = []
    for index in range(len(next(iter(arrays.values())))):
        samples = {
            s: Sample(k, arrays[s][index], index, unit=units.get(k, ""))
            for s, k in pipeline.kinds.items()
        }
        frames.append(Frame(samples, index))
    return frames


def _call(pipeline: Pipeline, frame: Frame, subset: tuple[str, ...]) -> Any:
    pipeline.reset()
    return pipeline(Frame({s: frame[s] for s in subset}, frame.stamp_ns))


def _errors(path: Path, backend: str) -> dict[str, float]:
    """Relative error of the fuser's outputs by subset, on made-up inputs."""
    bundle = Bundle.open(path)
    wiring, images = bundle.manifest.wiring, probe_inputs(bundle.manifest.inputs)
    outputs = []
    for name in (backend, REFERENCE):
        engines = load_engines(bundle, name)
        features = {
            n: wiring.features(n, engines[wiring.encoders[n]].run(wiring.feeds(n, x)))
            for n, x in images.items()
        }
        absent = {s.name: np.zeros(s.shape, s.dtype) for s in engines[FUSER].inputs}  # type: ignore[arg-type]
        found = {}
        for subset in subsets_of(tuple(images)):
            feeds: dict[str, Any] = {**absent, PRESENCE: wiring.present(subset)}
            for one in subset:
                feeds |= features[one]
            found[subset_name(subset)] = engines[FUSER].run(feeds)
        outputs.append(found)
    return {s: relative_error(outputs[0][s], outputs[1][s]) for s in outputs[0]}


def _equal(found: Any, wanted: Any) -> float:
    return 1.0 if found is None or wanted is None else float((found == wanted).mean())


def _apart(found: Any, wanted: Any) -> float:
    return 0.0 if found is None or wanted is None else float(np.abs(found - wanted).max())


def _p50(work: Callable[[], object], rounds: int) -> float:
    """Median milliseconds."""
    times = []
    for index in range(rounds + min(10, rounds)):
        start = time.perf_counter_ns()
        work()
        if index >= min(10, rounds):
            times.append((time.perf_counter_ns() - start) / 1e6)
    return float(np.median(times))
