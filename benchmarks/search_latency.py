"""How far the latency that `anysense search` predicts is off, on networks that it was not fitted to.

Networks of drawn sizes and precisions are exported and timed: some to fit the prediction to, as the search
does; the others, every second one of the smallest size, to compare with.  A search ends with networks that
the prediction takes for fast, so the precisions that it finds the fastest are timed as well.  Weights do not
matter: nothing is trained first.

    python benchmarks/search_latency.py --backend openvino --json latency-errors.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from perception.models.anyfuse import AnyFuse
from perception.models.elastic import extract
from perception.models.heads import specs_for
from perception.preprocess.contract import CHANNELS
from perception.search.evolution import rank_correlation
from perception.search.latency import LatencyModel, LatencyTables, time_network
from perception.search.search import MIXED
from perception.search.space import Candidate, SearchSpace


def say(what: str, done: int, total: int) -> None:
    """A line of progress that the next one replaces."""
    print(f"\r{what} {done}/{total}\033[K", end="", flush=True)


def errors(predicted: list[float], measured: list[float]) -> dict[str, float]:
    """Relative errors of predictions."""
    off = np.array(predicted) / np.array(measured) - 1
    return {
        "mean_absolute_error": round(float(np.abs(off).mean()), 3),
        "mean_error": round(float(off.mean()), 3),
        "largest_error": round(float(np.abs(off).max()), 3),
        "rank_correlation": round(rank_correlation(predicted, measured), 3),
    }


def seek(latency: LatencyModel, candidate: Candidate) -> Candidate:
    """The same sizes in the precisions that are predicted to be the fastest, block by block."""
    space, best = latency.space, candidate
    first = len(space.sizes) - len(space.blocks)
    for _ in range(3):
        before = best
        for index in range(first, len(space.sizes)):
            options = [
                space.repair((*best[:index], choice, *best[index + 1 :]))
                for choice in range(space.sizes[index])
            ]
            best = min(options, key=latency.milliseconds)
        if best == before:
            break
    return best


class Bench:
    """Networks of one super-network, timed."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.model = AnyFuse(("rgb", "depth"), specs_for(segmentation=40)).eval()
        self.images: dict[str, torch.Tensor] = {
            m: torch.randn(1, CHANNELS[m], *args.size) for m in self.model.modalities
        }
        args.tables.parent.mkdir(parents=True, exist_ok=True)
        self.space = SearchSpace(self.model)
        tables = LatencyTables(args.tables, args.backend, args.threads)
        self.latency = LatencyModel(self.space, tables)
        self.latency.prepare(self.model, self.images, say)

    def time(self, networks: list[Candidate], what: str) -> list[float]:
        """Milliseconds of each."""
        measured = []
        for index, one in enumerate(networks):
            say(what, index, len(networks))
            decoded = self.space.decode(one)
            small = extract(self.model, decoded.architecture)
            tables = self.latency.tables
            measured.append(time_network(small, decoded.int8, self.images, tables))
        return measured


def main() -> None:
    """Time, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"))
    parser.add_argument("--networks", type=int, default=8, help="to compare with (default: 8)")
    parser.add_argument("--tables", type=Path, default=Path("out/search-latency.json"))
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    bench = Bench(args)
    space, rng, other = bench.space, np.random.default_rng(0), np.random.default_rng(1)
    networks = [*space.corners(), *(space.draw(rng) for _ in range(MIXED))]
    drawn = [space.draw(other) for _ in range(args.networks)]
    sizes = len(space.sizes) - len(space.blocks)  # every other one as small as can be
    drawn[1::2] = [space.repair((*[0] * sizes, *one[sizes:])) for one in drawn[1::2]]
    fit_ms, ms = bench.time(networks, "timing to fit"), bench.time(drawn, "timing networks drawn")
    latency = bench.latency
    latency.fit_to([latency.table_sums(one) for one in networks], fit_ms)
    sought = [seek(latency, one) for one in drawn]
    sought_ms = bench.time(sought, "timing networks sought")
    found = {
        "backend": args.backend,
        "fit": [round(v, 4) for v in latency.fit],
        "drawn_ms": [round(v, 2) for v in ms],
        "drawn": errors([latency.milliseconds(c) for c in drawn], ms),
        "sought_ms": [round(v, 2) for v in sought_ms],
        "sought": errors([latency.milliseconds(c) for c in sought], sought_ms),
    }
    print()
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
