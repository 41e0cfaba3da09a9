"""Fits what `anysense calibrate register` makes its confidence of, on validation pairs of its own recipe.

    python benchmarks/registration_trust.py

Pairs are warped by little and by much; others are of two scenes, or of a scene and noise or a ramp, which
no homography joins. An answer is
right where the corners are within 2 % of the diagonal. Prints the coefficients for
calibration/registration/trust.py, and how answers that are trusted fare, each fifth predicted from the rest.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from registration import Case, cases, corner_error

from calibration.registration.network import SHIPPED, DescriptorGraph
from calibration.registration.register import TRUSTED, register

WARPS = ((0.03, 0.0), (0.06, 0.0), (0.1, 10.0), (0.2, 20.0), (0.3, 40.0))
_PARTS = 5
_RIDGE = 0.3


def rows(
    folder: str, limit: int, graph: DescriptorGraph
) -> tuple[list[dict[str, float]], list[bool]]:
    """Evidence and whether the answer is right: of pairs, and of pictures of two scenes."""
    facts, right = [], []
    for share, degrees in WARPS:
        before: Case | None = None
        for case in cases(folder, "val", share, degrees, limit):
            found = register(case.a, case.b, graph)
            facts.append(found.evidence)
            right.append(corner_error(found.matrix, case) < 0.02 * float(np.hypot(*case.a.shape)))
            if before is not None:
                facts.append(register(before.a, case.b, graph).evidence)
                right.append(False)
            before = case
            for other in structureless(case, len(right)):
                facts.append(register(case.a, other, graph).evidence)
                right.append(False)
    return facts, right


def structureless(case: Case, seed: int) -> list[np.ndarray]:
    """By turns noise and a ramp, each of the second picture's size."""
    rng = np.random.default_rng(seed)
    height, width = case.b.shape
    if seed % 2:
        return [rng.integers(0, 255, (height, width)).astype(np.uint8)]
    slope = rng.normal(0, 9, 2)
    return [
        (slope[0] * np.arange(height)[:, None] + slope[1] * np.arange(width)).astype(np.float32)
    ]


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Logistic regression with a small ridge, by Newton's method; the first coefficient is the offset."""
    x = np.hstack([np.ones((len(x), 1)), x])
    w = np.zeros(x.shape[1])
    ridge = np.diag([0.0, *np.full(x.shape[1] - 1, _RIDGE)])
    for _ in range(40):
        p = 1 / (1 + np.exp(-x @ w))
        w -= np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + ridge, x.T @ (p - y) + ridge @ w)
    return w


def main() -> None:
    """Run, fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", nargs="+", default=["data/roadscene", "data/msrs"])
    parser.add_argument("--limit", type=int, default=20, help="pairs of each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graph", type=Path, default=SHIPPED)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    graph = DescriptorGraph(args.graph, args.threads)
    facts, right = [], []
    for folder in args.data:
        more = rows(folder, args.limit, graph)
        facts += more[0]
        right += more[1]
    names = list(facts[0])
    x, y = np.array([[f[n] for n in names] for f in facts]), np.array(right, float)
    part = np.random.default_rng(0).permutation(len(y)) % _PARTS
    p = np.zeros(len(y))
    for k in range(_PARTS):
        w = fitted(x[part != k], y[part != k])
        p[part == k] = 1 / (1 + np.exp(-w[0] - x[part == k] @ w[1:]))
    trusted = p >= TRUSTED
    print(f"{len(y)} answers, {y.mean():.1%} right; trusted {trusted.mean():.1%}")
    print(
        f"right among trusted {y[trusted].mean():.1%}, trusted of right {trusted[y > 0].mean():.1%}"
    )
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (p >= low) & (p < low + 0.2)
        share = f"{y[inside].mean():.1%}" if inside.any() else "-"
        print(f"confidence {low:.1f} to {low + 0.2:.1f}: {inside.sum()} answers, {share} right")
    w = fitted(x, y)
    print({n: round(float(v), 3) for n, v in zip(["offset", *names], w, strict=True)})


if __name__ == "__main__":
    main()
