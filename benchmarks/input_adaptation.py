"""Would it help to bring a picture's brightness and contrast back to those of training, at test time?

It is the adaptation that can be done without gradients, and bounded.

    python benchmarks/input_adaptation.py BUNDLE --data KIND:DIR --split val [--frames 24] [--sensor rgb]

The mean and spread of each channel are those of the last frames (exponential, 0.9 a frame, begun with the
training frames' own); the picture is scaled and moved so that they become those of training frames, by a gain
within 1/b and b.  Judged are the sensor alone and all sensors, clean and under fewer and more light, for
bounds b of 1 (as it is), 1.5, 3 and 6.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.corruptions import corrupt
from perception.data.registry import open_recording, parse_data_argument
from perception.evaluation.evaluate import LOW_SCORE, Scorer
from perception.frame import Frame, Sample
from perception.runtime.pipeline import Pipeline

SHIFTS = [("clean", 0)] + [(f, s) for f in ("underexposure", "overexposure") for s in (2, 4, 5)]
BOUNDS = (1.0, 1.5, 3.0, 6.0)
KEPT = 0.9


class Aligned:
    """Pictures brought to a mean and spread, by what the last ones had.

    Args:
        mean, std: (C,) of training frames, in counts.
        bound: of the gain; 1 leaves pictures as they are.
    """

    def __init__(self, mean: NDArray[np.float64], std: NDArray[np.float64], bound: float) -> None:
        self._target = mean, std
        self._now = mean.copy(), std.copy()
        self._bound = bound

    def __call__(self, sample: Sample) -> Sample:
        if self._bound == 1:
            return sample
        (mean, std), values = self._target, sample.data.astype(np.float64)
        seen = values.mean(axis=(0, 1)), values.std(axis=(0, 1))
        self._now = tuple(KEPT * a + (1 - KEPT) * b for a, b in zip(self._now, seen, strict=True))  # type: ignore[assignment]
        gain = (std / np.maximum(self._now[1], 1e-3)).clip(1 / self._bound, self._bound)
        moved = (values - self._now[0]) * gain + self._now[0]
        most = 64 * np.log2(self._bound)
        moved += (mean - self._now[0]).clip(-most, most)
        return replace(sample, data=moved.clip(0, 255).astype(np.uint8))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--sensor", default="rgb")
    args = parser.parse_args()
    kind, root = parse_data_argument(args.data)
    train = open_recording(kind, root, split="train")
    recording = open_recording(kind, root, split=args.split)
    count = len(recording)
    chosen = [i * count // args.frames for i in range(min(args.frames, count))]
    shown = [
        train.frame(i)[args.sensor].data for i in range(0, len(train), max(1, len(train) // 60))
    ]
    mean = np.mean([p.mean(axis=(0, 1)) for p in shown], axis=0)
    std = np.mean([p.std(axis=(0, 1)) for p in shown], axis=0)
    pipeline = Pipeline.load(args.bundle, "cpu", threads=1, min_score=LOW_SCORE)
    print("| sensors | shift | " + " | ".join(f"b = {b:g}" for b in BOUNDS) + " |")
    print("|---|---|" + "---|" * len(BOUNDS))
    for whole in (False, True):
        for fault, severity in SHIFTS:
            cells = []
            for bound in BOUNDS:
                scorer, align = Scorer(pipeline, recording), Aligned(mean, std, bound)
                pipeline.wanted = scorer.parts
                for index in chosen:
                    frame = recording.frame(index)
                    own = frame[args.sensor]
                    own = corrupt(own, fault, severity, index) if severity else own
                    others = {s: v for s, v in frame.items() if whole and s in pipeline.sensors}
                    pipeline.reset()
                    result = pipeline(Frame({**others, args.sensor: align(own)}, frame.stamp_ns))
                    scorer.add(result, recording.truth(index))
                found = scorer.scores()
                best = next(found[k] for k in ("miou", "ap50") if found.get(k) is not None)
                cells.append(f"{100 * best:.1f}")
            name = "all" if whole else args.sensor
            print(
                f"| {name} | {fault}{f' {severity}' if severity else ''} | {' | '.join(cells)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
