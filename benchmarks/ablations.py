"""What choices of design and of the recipe are worth, with equal, short budgets.

    python benchmarks/ablations.py configs/indoor-rgbd-cpu.yaml --epochs 4
    python benchmarks/ablations.py configs/indoor-rgbd.yaml --compare recipe --seeds 3 --epochs 4 \
        --grid 96x128 --batch 8 --threads 1 --out out/recipe

Trains the configuration's model several times, changing one thing at a time, and prints the validation
score of every subset, with several seeds the mean and the spread.  `design` compares starts and encoders at
the first resolution.  `recipe` compares backbones in a first stage, then goes on from the smallest one's
weights with each of several last phases and weightings of the subsets.  `robust` goes on from one stage with
each option that is for lost and spoilt sensors.  A finished run is not made again, an interrupted one goes
on; what is found is in `ablations.json` after every run.  With `--faulty` it has the scores of all sensors
while one of them, by turns, has a fault of severity 3, too.

    python benchmarks/ablations.py configs/indoor-rgbd-robust.yaml --compare robust --seeds 3 --epochs 3 \
        --frames 343 --grid 192x256 --batch 8 --more 2 --more-frames 171 --threads 1 --faulty
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.errors import AnySenseError, ConfigError, names_hint
from perception.files.fields import check_fields
from perception.frame import subset_name, subsets_of
from perception.tasks.registry import judged
from perception.training.config import CurriculumSpec, TrainConfig, load_config

if TYPE_CHECKING:
    from perception.training.loop import Trainer

SHORT_AVERAGE = 0.98
"""Decay of the weights' average: what is scored must not reach back to the start of so short a run."""


@dataclass(frozen=True)
class Variant:
    """One thing that is changed.

    Attributes:
        change: fields of the configuration by dotted name, with their values.
        after: the variant whose weights it goes on from, for the configuration's last phase; None for a
            first stage, at the first resolution.
    """

    change: dict[str, Any] = field(default_factory=dict)
    after: str | None = None


FIRST: dict[str, Any] = {"resolution.0": "first", "optimizer.warmup_epochs": 0.5}
"""At the first resolution.  Without the warm-up, the first steps ruin weights that were trained before."""
TAUGHT: dict[str, Any] = {"method": {"name": "distill", "options": {"teachers": ["start"]}}}
"""By the weights that it goes on from."""
FAULTS = CurriculumSpec(probability=1.0, severity=(3, 3))
"""Under which `--faulty` judges."""

COMPARISONS: dict[str, dict[str, Variant]] = {
    "design": {
        "separate encoders, ImageNet": Variant(),
        "separate encoders, random": Variant({"model.pretrained": False}),
        "shared encoder, ImageNet": Variant({"model.options.encoders": "shared"}),
    },
    "recipe": {
        "lite0": Variant(),
        "lite2": Variant({"model.options.backbone": "lite2"}),
        "phase as configured": Variant(after="lite0"),
        "phase with 0.3 of the rate": Variant({"resolution.0.lr_factor": 0.3}, "lite0"),
        "phase at the first resolution": Variant({"resolution.0": "first"}, "lite0"),
        "subsets equally often": Variant({"full_set_probability": 0.333}, "lite0"),
        "rgb in half of the batches": Variant(
            {"subsets.probability": {"rgb": 0.5, "depth": 0.2, "rgb+depth": 0.3}}, "lite0"
        ),
        "rgb counts twice": Variant({"subsets.weight": {"rgb": 2.0}}, "lite0"),
        "phase with 0.3 of the rate, statistics kept": Variant(
            {"resolution.0.lr_factor": 0.3, "resolution.0.freeze_norm": True}, "lite0"
        ),
        "lite1": Variant({"model.options.backbone": "lite1"}),
    },
    "robust": {
        "start": Variant(),
        "plain": Variant(FIRST, "start"),
        "curriculum": Variant(FIRST | {"curriculum.probability": 0.5}, "start"),
        "teacher": Variant(FIRST | TAUGHT, "start"),
        "each sensor alone": Variant(FIRST | {"loss.alone": 0.5}, "start"),
        "by gap": Variant(FIRST | {"subsets.by_gap": 5.0, "validate_every": 1}, "start"),
        "lovasz": Variant(FIRST | {"loss.lovasz": 0.3}, "start"),
        "auxiliary heads 1.0": Variant(FIRST | {"loss.auxiliary": 1.0}, "start"),
        "no auxiliary heads": Variant(FIRST | {"loss.auxiliary": 0.0}, "start"),
        "curriculum and teacher": Variant(
            FIRST | TAUGHT | {"curriculum.probability": 0.5}, "start"
        ),
    },
}


@dataclass(frozen=True)
class Budget:
    """What every run gets.

    Attributes:
        epochs: of a first stage, and of a stage that goes on from one.
        grid: height and width instead of the configured ones; crops shrink with it.
        batch: instead of the configured one.
        frames: training frames, about, taken evenly, and validation frames in the same proportion.
        more_frames: training frames of a stage that goes on from one, instead.
    """

    epochs: int
    more: int
    grid: tuple[int, int] | None = None
    batch: int | None = None
    frames: int | None = None
    more_frames: int | None = None


def changed(config: TrainConfig, change: dict[str, Any]) -> TrainConfig:
    """The configuration with fields replaced, by dotted name.

    Raises:
        ConfigError: there is no such field, or a value does not fit.
    """
    content = config.model_dump(mode="json")
    for name, value in change.items():
        *path, last = name.split(".")
        place: Any = content
        for part in path:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
    return check_fields(TrainConfig, content, where="variant", error=ConfigError)


def prepared(
    config: TrainConfig, variant: Variant, budget: Budget, start: Path | None
) -> TrainConfig:
    """The configuration of a run.

    Args:
        config: the base.
        variant: what is changed.
        budget: how long it is; the learning rate decays to its end.
        start: the run that it goes on from; its rate begins where the configured one is when the last
            phase begins.
    """
    first, last = config.resolution[0], config.resolution[-1]
    phase, spec = (first if start is None else last), config.optimizer
    epochs = budget.epochs if start is None else budget.more
    part = 0.0 if start is None else last.from_epoch / config.epochs
    change = {
        "epochs": epochs,
        "validate_every": epochs,
        "resolution": [_phase(phase, config, budget)],
        "optimizer.lr": spec.lr * (1 - part) ** spec.power,
        "optimizer.warmup_epochs": min(spec.warmup_epochs, epochs / 8) if start is None else 0.0,
        "optimizer.ema_decay": SHORT_AVERAGE,
        "workers": 0,
    }
    if start is not None:
        change["model.start_from"] = [str(start)]
    if budget.grid is not None:
        for name in config.preprocess.names:
            change[f"preprocess.{name}.view.height"] = budget.grid[0]
            change[f"preprocess.{name}.view.width"] = budget.grid[1]
    own = dict(variant.change)
    if own.get("resolution.0") == "first":
        own["resolution.0"] = _phase(first, config, budget)
    if own.get("method") == TAUGHT["method"]:
        own["method"] = {"name": "distill", "options": {"teachers": [str(start)]}}
    return changed(config, {**change, **own})


def _phase(phase: Any, config: TrainConfig, budget: Budget) -> dict[str, Any]:
    grid = config.preprocess.grid
    height, width = budget.grid or (grid.height, grid.width)
    sides = (phase.crop[0] * height / grid.height, phase.crop[1] * width / grid.width)
    crop = [max(32, round(side / 32) * 32) for side in sides]
    batch = budget.batch or phase.batch
    return {**phase.model_dump(mode="json"), "from_epoch": 0, "crop": crop, "batch": batch}


class Runs:
    """Trains variants, keeping the frames in memory from one to the next."""

    def __init__(
        self,
        config: TrainConfig,
        budget: Budget,
        out: Path,
        threads: int | None,
        *,
        faulty: bool = False,
        start: Path | None = None,
        device: str = "cpu",
    ) -> None:
        self.config, self.budget, self.out = config, budget, out
        self.device = device
        self.faulty, self.start = faulty, start
        self._frames: dict[int | None, tuple[dict[int, Any], dict[int, Any]]] = {}
        if threads:
            import torch

            torch.set_num_threads(threads)

    def folder(self, name: str, seed: int) -> Path:
        """Where a variant's run is."""
        plain = name.replace(", ", "-").replace(" ", "-").lower()
        return self.out / (plain if seed == self.config.seed else f"{plain}-{seed}")

    def scores(self, name: str, variant: Variant, seed: int) -> dict[str, float]:
        """Train unless the folder has the finished run; the last epoch's row of scores."""
        from perception.training.loop import Trainer

        start = None if variant.after is None else self.start or self.folder(variant.after, seed)
        config = prepared(self.config, variant, self.budget, start)
        folder = self.folder(name, seed)
        trainer = Trainer(config.model_copy(update={"seed": seed}), folder, self.device)
        sets = (trainer.train_set, trainer.val_set)
        frames = self.budget.frames
        every = [max(1, len(sets[0]) // (frames or len(sets[0])))] * 2
        if start is not None and self.budget.more_frames is not None:
            frames = self.budget.more_frames
            every[0] = max(1, len(sets[0]) // frames)
        for one, step in zip(sets, every, strict=True):
            one.recording.ids = one.recording.ids[::step]
        trainer.train_set._cache, trainer.val_set._cache = self._frames.get(frames, ({}, {}))
        if (folder / "last.safetensors").is_file():
            trainer.resume()
        trainer.fit()
        self._frames[frames] = (trainer.train_set._cache, trainer.val_set._cache)
        with (folder / "log.csv").open(newline="") as file:
            last = list(csv.DictReader(file))[-1]
        subsets = {subset_name(s) for s in subsets_of(config.preprocess.modalities)}
        found = {k: float(v) for k, v in last.items() if k.partition("/")[0] in subsets and v}
        return found | (under_faults(trainer) if self.faulty else {})


def under_faults(trainer: Trainer) -> dict[str, float]:
    """Scores of the averaged weights with all sensors of each validation frame, one of which has a fault."""
    import torch

    from perception.training.curriculum import generator, spoilt
    from perception.training.dataset import collate, network_inputs, on_device
    from perception.training.precision import autocast
    from perception.training.validate import Meters

    model, data, config = trainer.model, trainer.val_set, trainer.config
    model.load_state_dict(trainer.average.state)
    model.eval()
    meters = Meters(data, model.tasks)
    for index in range(len(data)):
        raw = data.raw(index)
        faults = spoilt(raw, FAULTS, FAULTS.severity[1], generator(0, 0, index))
        sample = replace(raw, sensors={**raw.sensors, **faults})
        item = (network_inputs(sample, config.preprocess), {})
        inputs = on_device(
            collate([item]).inputs, trainer.device, memory_format=torch.channels_last
        )
        with torch.no_grad(), autocast(trainer.device, config.precision):
            meters.add(index, model(inputs))
    return {f"faulty/{k}": v for k, v in meters.scores().items() if k in judged(model.tasks)}


Found = dict[str, dict[str, dict[str, float]]]
"""By variant, by seed, the scores."""


def lines(found: Found) -> list[str]:
    """The mean of each variant's scores over its seeds, in percent, and their standard deviation."""
    said = []
    for name, by_seed in found.items():
        row = []
        for score in next(iter(by_seed.values())):
            values = [100 * scores[score] for scores in by_seed.values() if score in scores]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            row.append(f"{score} {statistics.mean(values):.2f}{spread}")
        said.append(f"{name} ({len(by_seed)}): {'  '.join(row)}")
    return said


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return int(height), int(width)


def main() -> int:
    """Train the variants and print their scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--compare", choices=sorted(COMPARISONS), default="design")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these variants alone")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--more", type=int, default=1, help="epochs of what goes on from a stage")
    parser.add_argument("--seeds", type=int, default=1, help="how many")
    parser.add_argument("--first-seed", type=int, metavar="SEED", help="instead of the configured")
    parser.add_argument("--grid", type=_size, metavar="HxW", help="smaller frames, sides of 32")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--frames", type=int, help="training frames, about, taken evenly")
    parser.add_argument("--more-frames", type=int, help="of what goes on from a stage")
    parser.add_argument(
        "--start", type=Path, metavar="RUN", help="what all go on from, instead of first stages"
    )
    parser.add_argument(
        "--faulty", action="store_true", help="judge with a fault in one sensor, too"
    )
    parser.add_argument("--out", type=Path, default=Path("out/ablations"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
    args = parser.parse_args()
    found: Found = {}
    try:
        if min(args.epochs, args.more, args.seeds, args.frames or 1, args.more_frames or 1) < 1:
            raise ConfigError("--epochs, --more, --seeds and frames must be positive")
        config = load_config(args.config)
        budget = Budget(
            args.epochs, args.more, args.grid, args.batch, args.frames, args.more_frames
        )
        if args.first_seed is not None:
            config.seed = args.first_seed
        runs = Runs(
            config,
            budget,
            args.out,
            args.threads,
            faulty=args.faulty,
            start=args.start,
            device=args.device,
        )
        chosen = _chosen(COMPARISONS[args.compare], args.only)
        if args.start is not None:
            chosen = {n: v for n, v in chosen.items() if v.after is not None}
        for seed in range(config.seed, config.seed + args.seeds):
            for name, variant in chosen.items():
                found.setdefault(name, {})[str(seed)] = runs.scores(name, variant, seed)
                text = json.dumps(found, indent=2) + "\n"
                (args.out / "ablations.json").write_text(text, encoding="utf-8")
    except AnySenseError as error:
        print(f"ablations: error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines(found)))
    return 0


def _chosen(variants: dict[str, Variant], only: list[str] | None) -> dict[str, Variant]:
    for name in only or ():
        if name not in variants:
            raise ConfigError(f"no variant '{name}'", hint=names_hint(name, variants))
    return {n: v for n, v in variants.items() if not only or n in only}


if __name__ == "__main__":
    sys.exit(main())
