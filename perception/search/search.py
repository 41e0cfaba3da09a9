"""The search itself: tables, rounds of prediction and evaluation, the front, and what is chosen of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle_writer import model_from_checkpoint, random_images
from perception.data.base import Recording
from perception.data.classes import require_same_classes
from perception.errors import ConfigError
from perception.files.text import read_json
from perception.files.writing import write_text
from perception.models.anyfuse import AnyFuse
from perception.search.accuracy import Judge
from perception.search.evolution import (
    RidgePredictor,
    evolve,
    pareto_fronts,
    rank_correlation,
)
from perception.search.latency import LatencyModel, LatencyTables, Progress, time_network
from perception.search.space import Candidate, SearchSpace
from perception.tasks.registry import judged
from perception.training.building import open_splits, recording_info
from perception.training.checkpoint import BEST, Checkpoint, load_checkpoint, save_checkpoint
from perception.training.config import MethodSpec
from perception.training.dataset import FusionDataset

OBJECTIVES = ("latency", "size")
"""What is minimized while accuracy is maximized."""

MIXED = 6
"""Networks of float and int8 that the latency's fit is made from, beside the four corners."""

STATE = "search.json"


@dataclass(frozen=True)
class SearchOptions:
    """How to search.

    Attributes:
        objectives: of `OBJECTIVES`.
        budgets_ms: latencies to choose the best sub-network within; none for some along the front.
        backend: that runs the networks, a name of the registry's.
        threads: CPU threads, None for all.
        initial: candidates evaluated before the first prediction.
        rounds: predictions, each followed by evaluations.
        per_round: candidates evaluated in each.
        verify: sub-networks of the front that are exported and timed.
        held_out: share of the frames, at their end, that choices are not made on.
        seed: of all random choices.
    """

    objectives: tuple[str, ...] = ("latency",)
    budgets_ms: tuple[float, ...] = ()
    backend: str = "onnxruntime-cpu"
    threads: int | None = None
    initial: int = 24
    rounds: int = 3
    per_round: int = 12
    verify: int = 6
    held_out: float = 0.5
    seed: int = 0


@dataclass
class Found:
    """A sub-network that was evaluated.

    Attributes:
        candidate: its genes.
        ms: predicted latency with all modalities, in milliseconds.
        megabytes: of its weights in a bundle.
        scores: by subset, on the frames that choices are made on.
        held_out: the same on the others; empty where it was not measured.
        measured_ms: latency of the exported network, or None.
        run: folder of its run, or None.
    """

    candidate: Candidate
    ms: float
    megabytes: float
    scores: dict[str, float]
    held_out: dict[str, float] = field(default_factory=dict)
    measured_ms: float | None = None
    run: str | None = None

    @property
    def score(self) -> float:
        """Mean over the subsets."""
        return float(np.mean(list(self.scores.values())))


@dataclass
class SearchReport:
    """The outcome.

    Attributes:
        found: everything evaluated.
        front: those that no other beats, by latency.
        whole: the super-network itself, in float.
        chosen: by label, those that became runs.
        fit: see `LatencyModel`.
        errors: of the predictors, on networks that they were not fitted to.
    """

    found: list[Found]
    front: list[Found]
    whole: Found
    chosen: dict[str, Found]
    fit: tuple[float, float, float]
    errors: dict[str, float]


class Search:
    """One search, which goes on where it was interrupted.

    Args:
        run: run folder or checkpoint of a super-network.
        recording: labeled frames.
        out: folder for everything; the same search there before is gone on with.
        options: see there.
        progress: called with what is being done, how far it is, and how far it will be.

    Raises:
        ConfigError: the run is no super-network, the recording does not fit, or the folder holds
            another search.
    """

    def __init__(
        self,
        run: Path,
        recording: Recording,
        out: Path,
        options: SearchOptions,
        progress: Progress = lambda what, done, total: None,
    ) -> None:
        self.run_folder = run
        self.checkpoint: Checkpoint = load_checkpoint(run)
        config = self.checkpoint.config
        model = model_from_checkpoint(self.checkpoint)
        self.space = SearchSpace(model)  # type: ignore[arg-type]
        assert isinstance(model, AnyFuse)
        if lacking := recording.info.lacking(model.kinds):
            raise ConfigError(f"has {lacking}, which the model takes", where="--data")
        trained = recording_info(self.checkpoint.progress)
        require_same_classes(trained, recording.info, config.tasks, what="the run", where="--data")
        self.model, self.out, self.options, self.progress = model, out, options, progress
        train, _ = open_splits(config)
        learned, scored = (
            FusionDataset(frames, config.preprocess, config.corruption, config.seed)
            for frames in (train, recording)
        )
        scored.keep(lambda index: scored.modalities(index) == config.preprocess.modalities)
        if not len(recording):
            sensors = ", ".join(config.preprocess.modalities)
            raise ConfigError(f"no frame has all of {sensors}", where="--data")
        self.frames, self.kept_back = split_frames(len(recording), options.held_out)
        self.judge = Judge(model, learned, scored, config.tasks, precision=config.precision)
        self.images = random_images(config.preprocess)
        tables = LatencyTables(out / "latency.json", options.backend, options.threads)
        self.latency = LatencyModel(self.space, tables)
        self._state: dict[str, Any] = {"settings": self._settings(recording), "timed": {}}
        self._state |= {"scores": {}, "held_out": {}}
        if (out / STATE).exists():
            before = _read_state(out / STATE)
            if before["settings"] != self._state["settings"]:
                raise ConfigError(
                    "holds a search with other settings", where=str(out), hint="use another --out"
                )
            self._state = before

    def _settings(self, recording: Recording) -> dict[str, Any]:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.checkpoint.ema.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        searched = {k: v for k, v in asdict(self.options).items() if k not in ("rounds", "verify")}
        plain: dict[str, Any] = json.loads(json.dumps(searched))
        return {**plain, "weights": digest.hexdigest(), "frames": list(recording.ids)}

    def run(self) -> SearchReport:
        """Search, and write the runs that are chosen.

        Raises:
            ConfigError: nothing that was found is within a budget.
        """
        self.latency.prepare(self.model, self.images, self.progress)
        corners = self.space.corners()
        # Mixed ones as well: a backend may save nothing where float and int8 take turns.
        rng = np.random.default_rng(self.options.seed)
        whole_networks = [*corners, *(self.space.draw(rng) for _ in range(MIXED))]
        measured = []
        for index, known in enumerate(whole_networks):
            self.progress("timing whole networks", index, len(whole_networks))
            measured.append(self._timed(known))
        self.latency.fit_to([self.latency.table_sums(known) for known in whole_networks], measured)
        self._known: list[Candidate] = []
        predictor = self._rounds(corners)
        found = [self._found(c) for c in self._known]
        values = np.array([self._objectives(f.candidate, -f.score) for f in found])
        front = sorted((found[i] for i in pareto_fronts(values)[0]), key=lambda f: f.ms)
        chosen = choose(front, self.options.budgets_ms)
        whole = next(f for f in found if f.candidate == corners[0])
        self._measure(whole, front, chosen)
        for label, one in chosen.items():
            one.run = str(self._write_run(label, one))
        fitted = set(whole_networks)
        errors = self._errors(predictor, [f for f in front if f.candidate not in fitted])
        return SearchReport(found, front, whole, chosen, self.latency.fit, errors)

    def _rounds(self, corners: Sequence[Candidate]) -> RidgePredictor:
        rng = np.random.default_rng(self.options.seed)
        wanted = list(corners)
        while len(wanted) < max(self.options.initial, len(corners)):
            wanted = list(dict.fromkeys([*wanted, self.space.draw(rng)]))
        self._evaluate(wanted, "evaluating the first candidates")
        predictor = RidgePredictor(self.space.sizes)
        known = wanted
        for number in range(self.options.rounds):
            scores = np.array([self._score(c) for c in known])
            predictor.fit(known, scores)
            rng = np.random.default_rng((self.options.seed, number + 1))
            front = evolve(
                self.space.sizes,
                lambda genomes: np.array(
                    [
                        self._objectives(g, -p)
                        for g, p in zip(genomes, predictor.predict(genomes), strict=True)
                    ]
                ),
                rng,
                start=known,
                repair=self.space.repair,
            )
            fresh = sorted(set(front) - set(known), key=self.latency.milliseconds)
            count = min(self.options.per_round, len(fresh))
            picked = [fresh[round(i)] for i in np.linspace(0, len(fresh) - 1, count)]
            self._evaluate(picked, f"round {number + 1} of {self.options.rounds}")
            known = known + picked
        predictor.fit(known, np.array([self._score(c) for c in known]))
        self._known = known
        return predictor

    def _objectives(self, candidate: Candidate, loss: float) -> list[float]:
        ms = self.latency.milliseconds(candidate)
        kinds = {"latency": ms, "size": self.latency.stored_bytes(candidate) / 1e6}
        most = max(self.options.budgets_ms, default=np.inf)
        # What no budget allows is worse in everything, the more so the further it is away.
        beyond = 1e3 * max(0.0, ms / most - 1)
        return [loss + beyond, *(kinds[name] + beyond for name in self.options.objectives)]

    def _evaluate(self, candidates: Sequence[Candidate], what: str) -> None:
        for index, candidate in enumerate(candidates):
            self.progress(what, index, len(candidates))
            if _key(candidate) not in self._state["scores"]:
                self._state["scores"][_key(candidate)] = self._judged(candidate, self.frames)
                self._save()

    def _judged(self, candidate: Candidate, frames: Sequence[int]) -> dict[str, float]:
        decoded = self.space.decode(candidate)
        return self.judge.scores(self.judge.network(decoded), decoded.int8, frames)

    def _score(self, candidate: Candidate) -> float:
        return float(np.mean(list(self._state["scores"][_key(candidate)].values())))

    def _timed(self, candidate: Candidate) -> float:
        key = _key(candidate)
        if key not in self._state["timed"]:
            decoded = self.space.decode(candidate)
            network = self.judge.network(decoded)
            self._state["timed"][key] = time_network(
                network, decoded.int8, self.images, self.latency.tables
            )
            self._save()
        return float(self._state["timed"][key])

    def _found(self, candidate: Candidate) -> Found:
        return Found(
            candidate,
            self.latency.milliseconds(candidate),
            self.latency.stored_bytes(candidate) / 1e6,
            self._state["scores"][_key(candidate)],
            measured_ms=self._state["timed"].get(_key(candidate)),
        )

    def _measure(self, whole: Found, front: list[Found], chosen: dict[str, Found]) -> None:
        count = min(self.options.verify, len(front))
        spread = [front[round(i)] for i in np.linspace(0, len(front) - 1, count)]
        wanted = list({f.candidate: f for f in [*chosen.values(), *spread]}.values())
        for index, one in enumerate(wanted):
            self.progress("timing sub-networks of the front", index, len(wanted))
            one.measured_ms = self._timed(one.candidate)
        judged = [whole, *wanted] if self.kept_back else []
        for index, one in enumerate(judged):
            self.progress("scoring on the frames held out", index, len(judged))
            key = _key(one.candidate)
            if key not in self._state["held_out"]:
                self._state["held_out"][key] = self._judged(one.candidate, self.kept_back)
                self._save()
            one.held_out = self._state["held_out"][key]

    def _errors(self, predictor: RidgePredictor, front: list[Found]) -> dict[str, float]:
        timed = [(f.ms, f.measured_ms) for f in front if f.measured_ms is not None]
        truth = [self._score(c) for c in self._known]
        errors = {"accuracy_rank_correlation": rank_correlation(predictor.left_out.tolist(), truth)}
        if timed:
            ms, real = (list(column) for column in zip(*timed, strict=True))
            errors["latency_rank_correlation"] = rank_correlation(ms, real)
            errors["latency_relative_error"] = float(np.mean([abs(m - r) / r for m, r in timed]))
            errors["latency_networks"] = len(timed)
        return errors

    def _write_run(self, label: str, found: Found) -> Path:
        decoded = self.space.decode(found.candidate)
        config = self.checkpoint.config.model_copy(deep=True)
        config.name = f"{config.name}-{label}"
        config.method = MethodSpec()
        config.model.pretrained, config.model.start_from = False, [str(self.run_folder)]
        config.model.options = decoded.architecture.options(self.model.options)
        config.model.int8 = list(decoded.int8)
        network = self.judge.network(decoded)
        scores = found.held_out or found.scores
        progress = {
            **self.checkpoint.progress,
            "command": f"anysense search {self.run_folder}",
            "best": float(np.mean(list(scores.values()))),
            "scores": {name: {self._metric(): value} for name, value in scores.items()},
        }
        folder = self.out / label
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder / BEST, config, network, network.state_dict(), None, progress)
        return folder

    def _metric(self) -> str:
        tasks = self.checkpoint.config.tasks
        return "mean" if len(tasks) > 1 else next(iter(judged(tasks)), "score")

    def _save(self) -> None:
        write_text(self.out / STATE, json.dumps(self._state, indent=1), error=ConfigError)


def _read_state(path: Path) -> dict[str, Any]:
    """What an earlier search has written.

    Raises:
        ConfigError: the file is another one.
    """
    content = read_json(path, error=ConfigError)
    kinds = {"settings": dict, "timed": dict, "scores": dict, "held_out": dict}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise ConfigError("is no state of a search", where=str(path), hint="use another --out")
    timed = content["timed"].values()
    scores = [v for n in ("scores", "held_out") for v in content[n].values()]
    numbers = [*timed, *(x for s in scores if isinstance(s, dict) for x in s.values())]
    if not all(isinstance(s, dict) and s for s in scores) or not all(
        isinstance(x, int | float) for x in numbers
    ):
        raise ConfigError("holds no scores of a search", where=str(path), hint="use another --out")
    return content


def _key(candidate: Candidate) -> str:
    return "".join(map(str, candidate))


def split_frames(count: int, held_out: float) -> tuple[list[int], list[int]]:
    """Indices of the frames to choose on, and of those, at the end, to report on.

    They are not mixed, because neighboring frames may show the same scene.

    Raises:
        ConfigError: there are too few.
    """
    first = count - round(count * held_out)
    if first < 1:
        raise ConfigError("leaves no frame to choose on", where="--held-out")
    return list(range(first)), list(range(first, count))


def choose(front: Sequence[Found], budgets_ms: Sequence[float]) -> dict[str, Found]:
    """What becomes a run: the best within each budget, or else the ends and the middle of the front.

    Args:
        front: at least one, by latency.
        budgets_ms: may be empty.

    Raises:
        ConfigError: nothing is within a budget.
    """
    if not budgets_ms:
        count = min(3, len(front))
        places = sorted({round(i) for i in np.linspace(0, len(front) - 1, count)})
        return {f"front-{number}": front[i] for number, i in enumerate(places, start=1)}
    chosen = {}
    for budget in budgets_ms:
        within = [f for f in front if f.ms <= budget]
        if not within:
            raise ConfigError(
                f"no sub-network is within {budget:g} ms, the fastest takes {front[0].ms:.1f} ms",
                where="--budget-ms",
            )
        chosen[f"within-{budget:g}ms"] = max(within, key=lambda f: f.score)
    return chosen
