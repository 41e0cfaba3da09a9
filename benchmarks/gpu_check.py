"""Everything that only a GPU can show, in a few minutes: contract, parity, times, copies, a soak.

    bash benchmarks/gpu_check.sh --out DIR [--budget 600] [--stages env,parity,...]

Each stage is a process of its own with a limit; one that fails or hangs does not stop the next.  After every
stage DIR/gpu_check.json and DIR/gpu_check.md hold what is known so far.  `--backend onnxruntime-cpu --quick`
walks through all of it where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ("indoor-rgbd", "road-rgbt", "sim-rgbdtl")
STAGES: dict[str, float] = {
    "env": 40,
    "contract": 120,
    "half": 60,
    "parity": 90,
    "soak": 140,
    "bench": 200,
    "copies": 30,
    "torch": 60,
    "raw": 120,
}
"""Seconds that each may take at most."""


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_check"))
    parser.add_argument(
        "--work", type=Path, help="folder for what is made on the way (default: out/work)"
    )
    parser.add_argument("--budget", type=float, default=600, help="seconds for all stages")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--bundles", default=",".join(BUNDLES), help="names or folders")
    parser.add_argument("--backend", default="onnxruntime-cuda")
    parser.add_argument(
        "--features",
        default="none;bind,graphs,bytes,labels",
        help="settings of ANYSENSE_CUDA to compare, separated by semicolons",
    )
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--samples", type=Path, help="folder with real frames, NAME.npz by bundle")
    parser.add_argument("--soak", type=float, default=75, help="seconds of the soak")
    parser.add_argument("--all-options", action="store_true", help="of ONNX Runtime, in stage raw")
    parser.add_argument("--quick", action="store_true", help="a few frames only")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run the stages, or, in a process of its own, one of them."""
    args = arguments()
    args.work = args.work or args.out / "work"
    args.work.mkdir(parents=True, exist_ok=True)
    if args.stage:
        sys.path.insert(0, str(ROOT))
        sys.path.insert(0, str(ROOT / "benchmarks"))
        import gpu_stages

        found = getattr(gpu_stages, args.stage)(args)
        (args.work / f"{args.stage}.json").write_text(json.dumps(found))
        return 0
    start, results = time.monotonic(), dict[str, Any]()
    for name in args.stages.split(","):
        left = args.budget - (time.monotonic() - start)
        limit = min(STAGES[name], left)
        if limit < 5:
            results[name] = {"error": "no time left"}
            continue
        say(start, f"{name} (at most {limit:.0f} s)")
        results[name] = run(name, args, limit)
        failed = results[name].get("error")
        say(start, f"{name}: {failed or 'done'} in {results[name]['seconds']:.1f} s")
        if crashed := results[name].get("crashed"):  # they would take the others along
            kept = [f for f in args.features.split(";") if f not in crashed]
            args.features = ";".join(kept)
        write(args.out, results)
    return 0 if all("error" not in r for r in results.values()) else 3


def run(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """What a stage found, or its error; never raises."""
    done = args.work / f"{name}.json"
    done.unlink(missing_ok=True)
    log, begun = args.out / "gpu_check.log", time.monotonic()
    command = [sys.executable, "-u", __file__, *sys.argv[1:]]
    command += ["--features", args.features, "--stage", name]
    found: dict[str, Any] = {}
    with log.open("a") as file:
        file.write(f"===== {name}\n")
        file.flush()
        try:
            subprocess.run(command, timeout=limit, check=True, stdout=file, stderr=file, cwd=ROOT)
        except subprocess.TimeoutExpired:
            found["error"] = f"not done within {limit:.0f} s"
        except subprocess.CalledProcessError as error:
            found["error"] = f"exit status {error.returncode}"
    partial = args.work / f"{name}.partial.json"
    for file_ in (partial, done):
        if file_.is_file():
            found |= json.loads(file_.read_text())
    if "error" in found:
        found["log"] = log.read_text().rpartition(f"===== {name}\n")[2][-1500:]
    return {**found, "seconds": time.monotonic() - begun}


def say(start: float, line: str) -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)


def write(out: Path, results: dict[str, Any]) -> None:
    """What is known so far, for programs and for people."""
    (out / "gpu_check.json").write_text(json.dumps(results, indent=1))
    (out / "gpu_check.md").write_text(table(results))


def table(results: dict[str, Any]) -> str:
    """All stages as Markdown."""
    lines = ["# GPU check", ""]
    env = results.get("env", {})
    lines += [f"{env.get('gpu', 'no GPU')}; {env.get('versions', '')}; {env.get('date', '')}", ""]
    for name, found in results.items():
        if "error" in found:
            lines += [
                f"**{name}**: {found['error']}",
                "",
                "```",
                found.get("log", "")[-600:],
                "```",
                "",
            ]
    for name, text in results.get("contract", {}).get("summary", {}).items():
        lines.append(f"- contract, `{name}`: {text}")
    lines.append("")
    if rows := results.get("parity", {}).get("rows"):
        lines += ["| bundle | features | subset | error | labels equal | confidence | boxes |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [
            f"| {r['bundle']} | {r['features']} | {r['subset']} | {r['error']:.1e} | "
            f"{r['labels']:.4%} | {r['confidence']:.4f} | {r['boxes']} |"
            for r in rows
        ]
        lines.append("")
    if rows := results.get("bench", {}).get("rows"):
        lines += [
            "| bundle | features | all: total ms | p99 | engine | steps |",
            "|---|---|---|---|---|---|",
        ]
        for r in rows:
            steps = ", ".join(f"{k} {v:.2f}" for k, v in r["steps"].items() if v >= 0.02)
            lines.append(
                f"| {r['bundle']} | {r['features']} | {r['total']:.2f} | {r['p99']:.2f} | "
                f"{r['engine']:.2f} | {steps} |"
            )
        lines.append("")
    for stage, title in (("raw", "graphs alone"), ("torch", "PyTorch")):
        if rows := results.get(stage, {}).get("rows"):
            lines += [f"| {title} | p50 ms |", "|---|---|"]
            lines += [
                f"| {name} | {ms if isinstance(ms, str) else f'{ms:.3f}'} |"
                for name, ms in rows.items()
            ]
            lines.append("")
    if rows := results.get("copies", {}).get("rows"):
        lines += ["| copy | bytes | to the GPU ms | back ms |", "|---|---|---|---|"]
        lines += [f"| {n} | {r[0]} | {r[1]:.3f} | {r[2]:.3f} |" for n, r in rows.items()]
        lines.append("")
    if soak := results.get("soak"):
        lines += [f"- soak: {json.dumps({k: v for k, v in soak.items() if k != 'log'})}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("ANYSENSE_CACHE", "/tmp/anysense-gpu-check")
    sys.exit(main())
