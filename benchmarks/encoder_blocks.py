"""CPU latency of the encoder blocks, and which of them no other beats in both latency and accuracy.

    python benchmarks/encoder_blocks.py --json blocks.json
    python benchmarks/encoder_blocks.py --scores miou.json

`--scores` is a JSON object of mIoU by block, from runs of configs/zoo/blocked.yaml that differ in
`model.options.block` alone.  All blocks are timed in turn, so that ratios hold on a busy machine.
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
    parser.add_argument("--scores", type=Path, help="JSON object: mIoU by block")
    parser.add_argument("--json", type=Path, help="write the rows here")
    args = parser.parse_args()
    rows = measure(args.channels, tuple(args.size), args.repeats, args.threads)
    if args.scores:
        mark_losers(rows, json.loads(args.scores.read_text()))
    for row in rows:
        line = f"{row['block']:6} {row['ms']:8.2f} ms {row['parameters']:8d} parameters"
        line += f" {row['gmac']:7.4f} GMAC"
        if row.get("miou") is not None:
            line += f"  mIoU {row['miou']:.3f}"
            line += f"  loses to {row['loses_to']}" if row["loses_to"] else "  earns its place"
        print(line)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
