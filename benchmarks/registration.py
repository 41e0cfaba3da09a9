"""Registration of pictures of different sensors under homographies that are known, beside other ways.

    python benchmarks/registration.py --split test --corners 0.06
    python benchmarks/registration.py --split test --corners 0.20 --degrees 20

For each aligned pair the second picture is warped by a homography: turned, then its corners moved by up
to a share of the size. The error is the mean distance of the corners of A, as the way maps them, from where
they belong, in pixels. The split is that of configs/matcher.yaml; both directions are run.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from calibration.detection import read_gray
from calibration.registration.network import SHIPPED, DescriptorGraph
from calibration.registration.pictures import SIDE
from calibration.registration.register import register
from perception.files.shipped import find_config
from perception.files.text import read_yaml

Gray = np.ndarray
Way = Callable[[Gray, Gray], "np.ndarray | None"]


@dataclass(frozen=True)
class Case:
    """Two pictures and the homography from the first to the second."""

    name: str
    a: Gray
    b: Gray
    truth: np.ndarray


def split_names(folder: str, split: str) -> list[str]:
    """Names of a folder's pairs in a split of the matcher's configuration."""
    sources = read_yaml(find_config("matcher"))["matcher"]["sources"]
    source = next(s for s in sources if Path(s["folder"]).name == Path(folder).name)
    names = sorted(p.stem for p in (Path(folder) / "rgb").iterdir())
    held = {
        part: [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in source.get(part, []))]
        for part in ("val", "test")
    }
    held["train"] = [n for n in names if n not in held["val"] and n not in held["test"]]
    return names if split == "all" else held[split]


def cases(folder: str, split: str, corners: float, degrees: float, limit: int) -> Iterator[Case]:
    """The pairs of a split, warped; every second one the other way round."""
    names = split_names(folder, split)
    step = max(1, len(names) // limit) if limit else 1
    for index, name in enumerate(names[::step]):
        first, second = (
            read_gray(next((Path(folder) / part).glob(f"{name}.*"))) for part in ("rgb", "thermal")
        )
        if index % 2:
            first, second = second, first
        height, width = second.shape
        rng = np.random.default_rng([7, index])
        truth = homography(width, height, corners, degrees, rng)
        yield Case(name, first, cv2.warpPerspective(second, truth, (width, height)), truth)


def homography(
    width: int, height: int, corners: float, degrees: float, rng: np.random.Generator
) -> np.ndarray:
    """A turn about the middle, then every corner moved by up to a share of the size."""
    at = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * rng.uniform(-1, 1), 1.0)
    to = at @ turn[:, :2].T + turn[:, 2]
    to = to + rng.uniform(-1, 1, (4, 2)) * corners * [width, height]
    return cv2.getPerspectiveTransform(at.astype(np.float32), to.astype(np.float32))


def corner_error(found: np.ndarray | None, case: Case) -> float:
    """Mean distance in pixels; infinite where nothing was found."""
    if found is None or not np.isfinite(found).all():
        return float("inf")
    height, width = case.a.shape
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    gap = cv2.perspectiveTransform(corners, found) - cv2.perspectiveTransform(corners, case.truth)
    return float(np.linalg.norm(gap, axis=2).mean())


def by_keypoints(maker: Callable[[], object], norm: int) -> Way:
    """Keypoints, ratio test, MAGSAC++."""

    def way(a: Gray, b: Gray) -> np.ndarray | None:
        detector = maker()
        found = [detector.detectAndCompute(x, None) for x in (a, b)]  # type: ignore[attr-defined]
        if any(d is None or len(d) < 4 for _, d in found):
            return None
        pairs = cv2.BFMatcher(norm).knnMatch(found[0][1], found[1][1], k=2)
        good = [p[0] for p in pairs if len(p) == 2 and p[0].distance < 0.8 * p[1].distance]
        if len(good) < 4:
            return None
        at = np.float64([found[0][0][m.queryIdx].pt for m in good])
        to = np.float64([found[1][0][m.trainIdx].pt for m in good])
        return cv2.findHomography(at, to, cv2.USAC_MAGSAC, 5.0)[0]

    return way


def _edges(gray: Gray) -> Gray:
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 2)
    size = cv2.magnitude(cv2.Sobel(smooth, -1, 1, 0), cv2.Sobel(smooth, -1, 0, 1))
    return np.clip(size / max(float(np.percentile(size, 98)), 1e-6), 0, 1).astype(np.float32)


def _same_size(way: Way) -> Way:
    def wrapped(a: Gray, b: Gray) -> np.ndarray | None:
        scale = np.diag([b.shape[1] / a.shape[1], b.shape[0] / a.shape[0], 1.0])
        found = way(cv2.resize(a, (b.shape[1], b.shape[0])), b)
        return None if found is None else found @ scale

    return wrapped


def by_phase(a: Gray, b: Gray) -> np.ndarray | None:
    """A shift by phase correlation of edges."""
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(_edges(a), _edges(b), window)
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1.0]])


def by_ecc(a: Gray, b: Gray) -> np.ndarray | None:
    """ECC on edges, from a pyramid's top, started where phase correlation ends."""
    start = np.linalg.inv(by_phase(a, b))
    for scale in (0.25, 0.5, 1.0):
        small = [cv2.resize(_edges(x), None, fx=scale, fy=scale) for x in (a, b)]
        zoom = np.diag([scale, scale, 1.0])
        warp = (zoom @ start @ np.linalg.inv(zoom)).astype(np.float32)
        stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 1e-5)
        try:
            _, warp = cv2.findTransformECC(
                small[1], small[0], warp, cv2.MOTION_HOMOGRAPHY, stop, None, 5
            )
        except cv2.error:
            return None
        start = np.linalg.inv(zoom) @ warp.astype(np.float64) @ zoom
    return np.linalg.inv(start)


def by_mutual_information(a: Gray, b: Gray) -> np.ndarray | None:
    """Corners of the homography moved one by one while the mutual information grows, coarse to fine."""
    matrix = by_phase(a, b)
    height, width = b.shape
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    to = cv2.perspectiveTransform(corners[None].astype(np.float64), matrix)[0]
    for scale, steps in ((0.25, (16, 8, 4)), (0.5, (4, 2, 1))):
        small = [
            cv2.resize(x, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for x in (a, b)
        ]
        best = _information(small, corners, to, scale)
        for step in steps:
            for _ in range(4):
                before = best
                for corner in range(4):
                    for axis, sign in ((0, 1), (0, -1), (1, 1), (1, -1)):
                        tried = to.copy()
                        tried[corner, axis] += sign * step
                        value = _information(small, corners, tried, scale)
                        if value > best:
                            best, to = value, tried
                if best <= before:
                    break
    return cv2.getPerspectiveTransform(corners, to.astype(np.float32))


def _information(small: list[Gray], corners: np.ndarray, to: np.ndarray, scale: float) -> float:
    matrix = cv2.getPerspectiveTransform(
        (corners * scale).astype(np.float32), (to * scale).astype(np.float32)
    )
    size = small[1].shape[1], small[1].shape[0]
    inside = cv2.warpPerspective(np.full_like(small[0], 255), matrix, size) == 255
    if inside.mean() < 0.4:
        return -1.0
    warped = cv2.warpPerspective(small[0], matrix, size)
    joint = np.histogram2d(warped[inside] >> 3, small[1][inside] >> 3, bins=32)[0]
    joint /= joint.sum()
    alone = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    used = joint > 0
    return float((joint[used] * np.log(joint[used] / alone[used])).sum())


def measure(found: list[float], seconds: list[float], used: list[float]) -> dict[str, float]:
    """Success at 3, 5 and 10 px, areas under the curve up to 5 and 10 px, the median, and milliseconds."""
    errors = np.array(found)
    row = {f"success@{t}": float((errors < t).mean()) for t in (3, 5, 10)}
    row |= {f"auc@{t}": float(np.clip(1 - errors / t, 0, 1).mean()) for t in (5, 10)}
    return row | {"median_px": float(np.median(errors)), "ms": 1e3 * float(np.median(seconds)),
                  "cpu_ms": 1e3 * float(np.median(used))}  # fmt: skip


def main() -> None:
    """Run the ways and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="data/roadscene")
    parser.add_argument("--split", default="test", choices=("train", "val", "test", "all"))
    parser.add_argument("--corners", type=float, default=0.06, help="share of the size")
    parser.add_argument("--degrees", type=float, default=0.0)
    parser.add_argument("--limit", type=int, default=0, help="pairs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--graph", type=Path, default=SHIPPED)
    parser.add_argument("--ways", default="sift,orb,phase,ecc,mi,anysense")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    graph = DescriptorGraph(args.graph, args.threads)
    ways: dict[str, Way] = {
        "sift": by_keypoints(lambda: cv2.SIFT_create(2000), cv2.NORM_L2),
        "orb": by_keypoints(lambda: cv2.ORB_create(2000), cv2.NORM_HAMMING),
        "phase": _same_size(by_phase),
        "ecc": _same_size(by_ecc),
        "mi": _same_size(by_mutual_information),
        "anysense": lambda a, b: register(a, b, graph).matrix,
    }
    chosen = args.ways.split(",")
    errors: dict[str, list[float]] = {name: [] for name in chosen}
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    used: dict[str, list[float]] = {name: [] for name in chosen}
    for case in cases(args.data, args.split, args.corners, args.degrees, args.limit):
        for name in chosen:
            begun, cpu = time.perf_counter(), time.process_time()
            found = ways[name](case.a, case.b)
            seconds[name].append(time.perf_counter() - begun)
            used[name].append(time.process_time() - cpu)
            errors[name].append(corner_error(found, case))
    table = {name: measure(errors[name], seconds[name], used[name]) for name in chosen}
    print(f"{len(errors[chosen[0]])} pairs of {args.data} ({args.split}), corners {args.corners}, "
          f"degrees {args.degrees}, working size {SIDE}")  # fmt: skip
    for name, row in table.items():
        print(f"{name:10s}", "  ".join(f"{k} {v:.3g}" for k, v in row.items()))
    if args.json:
        args.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
