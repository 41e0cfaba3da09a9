"""CPU latency of the encoder blocks, and which of them no other beats in both latency and accuracy.

    python benchmarks/encoder_blocks.py
    python benchmarks/encoder_blocks.py --runs runs/zoo/nyuv2/anyfuse runs/zoo/blocks/* --plot blocks.png

`--runs` are run folders that differ in `model.options.block` alone; a run of `anyfuse` is the one without
a block.  Their score is the mean mIoU over all subsets of sensors after the last epoch.  All blocks are
timed in turn, so that ratios hold on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from export.folding import fold_batch_norm
from export.graphs import GraphSpec
from export.onnx_writer import write_onnx
from perception.models.complexity import count_gmac, count_parameters
from perception.models.zoo.encoder_blocks import BLOCKS, make_block
from perception.training.checkpoint import LAST, load_checkpoint


class _Alone(torch.nn.Module):
    def __init__(self, block: torch.nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        y: torch.Tensor = self.block(inputs["x"])
        return y


def _sessions(
    channels: int, size: tuple[int, int], threads: int
) -> dict[str, ort.InferenceSession]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in BLOCKS:
            if kind == "none":
                continue
            block = fold_batch_norm(make_block(kind, channels))
            path = Path(folder) / f"{kind}.onnx"
            spec = GraphSpec(path.name, block, {"x": torch.randn(1, channels, *size)}, ["y"])
            write_onnx(spec, path, half_storage=False)
            found[kind] = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return found


def measure(channels: int, size: tuple[int, int], repeats: int, threads: int) -> list[dict]:
    """Median milliseconds, parameters and GMAC of each block, quickest first."""
    sessions = _sessions(channels, size, threads)
    x = np.random.default_rng(0).standard_normal((1, channels, *size)).astype(np.float32)
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    for turn in range(repeats + 3):
        for kind, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"x": x})
            if turn >= 3:
                times[kind].append(1000 * (time.perf_counter() - start))
    rows = [{"block": "none", "ms": 0.0, "parameters": 0, "gmac": 0.0}]
    for kind, values in times.items():
        block = make_block(kind, channels)
        rows.append(
            {
                "block": kind,
                "ms": float(np.median(values)),
                "parameters": count_parameters(block),
                "gmac": count_gmac(_Alone(block), {"x": torch.from_numpy(x)}),
            }
        )
    return sorted(rows, key=lambda row: row["ms"])


def read_scores(runs: list[Path]) -> dict[str, float]:
    """By block, the mean mIoU over all subsets after a run's last epoch; other folders are skipped."""
    scores = {}
    for run in runs:
        if not (run / LAST).is_file():
            continue
        state = load_checkpoint(run / LAST)
        last = state.progress["log"][-1]
        subsets = [value for name, value in last.items() if name.endswith("/miou")]
        scores[state.config.model.options.get("block", "none")] = float(np.mean(subsets))
    return scores


def plot(rows: list[dict], path: Path, title: str) -> None:
    """Latency that a block adds against the score of the network with it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axis = figure.subplots()
    known = [row for row in rows if row["miou"] is not None]
    kept = sorted((r for r in known if not r["loses_to"]), key=lambda r: r["ms"])
    axis.step(
        [r["ms"] for r in kept],
        [100 * r["miou"] for r in kept],
        where="post",
        color="tab:blue",
        label="Pareto front",
    )
    for row in known:
        color = "0.5" if row["loses_to"] else "tab:blue"
        place = (row["ms"], 100 * row["miou"])
        axis.scatter(*place, color=color)
        axis.annotate(row["block"], place, xytext=(5, 5), textcoords="offset points")
    axis.set(xlabel="milliseconds that the block adds to an encoder", title=title)
    axis.set(ylabel="mIoU, mean over subsets, %")
    axis.margins(x=0.12, y=0.15)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=120)


def mark_losers(rows: list[dict], scores: dict[str, float]) -> None:
    """Set `miou` and `loses_to`: a block that is no slower and more accurate, or None."""
    for row in rows:
        row["miou"] = scores.get(row["block"])
    for row in rows:
        row["loses_to"] = next(
            (
                other["block"]
                for other in rows
                if other["miou"] is not None
                and row["miou"] is not None
                and other["ms"] <= row["ms"]
                and other["miou"] > row["miou"]
            ),
            None,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--channels", type=int, default=112, help="of the map (default: 112)")
    parser.add_argument("--size", type=int, nargs=2, default=(30, 40), metavar=("H", "W"))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=Path, nargs="+", help="run folders to take mIoU from")
    parser.add_argument("--plot", type=Path, help="with --runs: write a picture of the front here")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    rows = measure(args.channels, tuple(args.size), args.repeats, args.threads)
    if args.runs:
        mark_losers(rows, read_scores(args.runs))
    for row in rows:
        line = f"{row['block']:6} {row['ms']:8.2f} ms {row['parameters']:8d} parameters"
        line += f" {row['gmac']:7.4f} GMAC"
        if row.get("miou") is not None:
            line += f"  mIoU {row['miou']:.3f}"
            line += f"  loses to {row['loses_to']}" if row["loses_to"] else "  earns its place"
        print(line)
    if args.plot and args.runs:
        height, width = args.size
        plot(rows, args.plot, f"{args.channels} channels at {height}x{width}, NYU Depth v2")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
