"""How far the latency that `anysense search` predicts is off, on networks that it was not fitted to.

Networks of drawn sizes and precisions are exported and timed: some to fit the prediction to, as the search
does, the others to compare with.  Weights do not matter, so there is no super-network to train first.

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
from perception.preprocess.contract import CHANNELS
from perception.search.evolution import rank_correlation
from perception.search.latency import LatencyModel, LatencyTables, Terms, time_network
from perception.search.search import MIXED
from perception.search.space import SearchSpace


def say(what: str, done: int, total: int) -> None:
    """A line of progress that the next one replaces."""
    print(f"\r{what} {done}/{total}\033[K", end="", flush=True)


def errors(
    latency: LatencyModel, terms: list[Terms], measured: list[float], fitted: int
) -> dict[str, object]:
    """Fit to the first networks; relative errors on the others."""
    latency.fit_to(terms[:fitted], measured[:fitted])
    predicted = [float(np.dot(latency.fit, (*one, 1.0))) for one in terms[fitted:]]
    off = np.array(predicted) / np.array(measured[fitted:]) - 1
    return {
        "fit": [round(v, 4) for v in latency.fit],
        "mean_absolute_error": round(float(np.abs(off).mean()), 3),
        "mean_error": round(float(off.mean()), 3),
        "largest_error": round(float(np.abs(off).max()), 3),
        "rank_correlation": round(rank_correlation(predicted, measured[fitted:]), 3),
    }


def main() -> None:
    """Time, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("H", "W"))
    parser.add_argument("--networks", type=int, default=10, help="to compare with (default: 10)")
    parser.add_argument("--tables", type=Path, default=Path("out/search-latency.json"))
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = AnyFuse(("rgb", "depth"), seg_classes=40).eval()
    images: dict[str, torch.Tensor] = {
        m: torch.randn(1, CHANNELS[m], *args.size) for m in model.modalities
    }
    args.tables.parent.mkdir(parents=True, exist_ok=True)
    latency = LatencyModel(
        space := SearchSpace(model), LatencyTables(args.tables, args.backend, args.threads)
    )
    latency.prepare(model, images, say)
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    corners = [space.corner(large=a, int8=b) for a in (True, False) for b in (False, True)]
    networks = [*corners, *(space.draw(rng) for _ in range(MIXED))]
    fitted = len(networks)
    networks += [space.draw(other) for _ in range(args.networks)]
    measured = []
    for index, one in enumerate(networks):
        say("timing networks", index, len(networks))
        decoded = space.decode(one)
        small = extract(model, decoded.architecture)
        measured.append(time_network(small, decoded.int8, images, latency.tables))
    terms = [latency.terms(one) for one in networks]
    found = {
        "backend": args.backend,
        "networks": [
            {"ms": round(ms, 3), "float_ms": t[0], "int8_ms": t[1], "converted_millions": t[2]}
            for ms, t in zip(measured, terms, strict=True)
        ],
        "with_conversions": errors(latency, terms, measured, fitted),
        "without": errors(latency, [(a, b, 0.0) for a, b, _ in terms], measured, fitted),
    }
    print()
    print(json.dumps({k: v for k, v in found.items() if k != "networks"}, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
