"""What `benchmarks/zoo.py` compares: studies, each a common configuration and the entries in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Entry:
    """A row of the table: what differs from the common configuration.

    Attributes:
        model: name in the registry.
        options: of the model.
        imagenet: start the encoders from ImageNet; False for models that cannot.
        lr: learning rate.
        modalities: that it takes.
        start_from: other entries, or paths from the study's folder, whose weights it takes over.
        frozen: parts that do not learn in the first 4 epochs.
        teachers: other entries that it is distilled from.
        method: a training method by name, with its usual arguments.
        tasks: instead of the common configuration's.
        pretrain: epochs of masked pre-training on the same frames without labels.
    """

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    imagenet: bool = True
    lr: float = 1e-3
    modalities: tuple[str, ...] = ("rgb", "depth")
    start_from: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    method: str = "plain"
    tasks: tuple[str, ...] = ()
    pretrain: int = 0


@dataclass(frozen=True)
class Study:
    """Entries that share everything but what each says.

    Attributes:
        config: the common configuration.
        entries: by name, in the order in which they can be trained.
    """

    config: str
    entries: dict[str, Entry]


_FULL = {"width": 1.0, "decoder_width": 128}
_HALF = {"width": 0.5}

_NYUV2 = {
    "anyfuse": Entry("anyfuse", _FULL),
    "anyfuse-random": Entry("anyfuse", _FULL, imagenet=False),
    "mixer": Entry("mixer", _FULL),
    "multimodn": Entry("multimodn", _FULL),
    "any2seg": Entry("any2seg", _FULL),
    "adapnet-rgb": Entry("adapnet++", _HALF, imagenet=False, modalities=("rgb",)),
    "adapnet-depth": Entry("adapnet++", _HALF, imagenet=False, modalities=("depth",)),
    "ssma": Entry(
        "ssma",
        _HALF,
        imagenet=False,
        start_from=("adapnet-rgb", "adapnet-depth"),
        frozen=("encoders",),
    ),
    "tokens": Entry("tokens", {"size": "micro"}, imagenet=False),
    "multimae": Entry("multimae", {"size": "micro"}, imagenet=False, pretrain=20),
    "prediction": Entry("anyfuse", _FULL | {"predict_missing": True}),
    "distilled": Entry("anyfuse", _FULL, teachers=("anyfuse", "mixer")),
}

# To be compared with the first study's AnyFuse, which is the same network without a block.
_BLOCKS = {
    kind: Entry("blocked", _FULL | {"block": kind}) for kind in ("lka", "hilo", "ulsam", "glmix")
}

_RGBT = ("rgb", "thermal")

_PERSONS = {
    "anyfuse": Entry("anyfuse", _FULL, modalities=_RGBT),
    "agm": Entry("anyfuse", _FULL, modalities=_RGBT, method="agm"),
    "fuller": Entry("anyfuse", _FULL, modalities=_RGBT, method="fuller"),
    "segmif": Entry(
        "segmif",
        {"width": 1.0, "decoder_width": 64, "edge": True},
        modalities=_RGBT,
        tasks=("segmentation",),
    ),
}

_NIGHT = {
    "anyfuse": Entry("anyfuse", _FULL, modalities=_RGBT),
    "featenhancer": Entry("featenhancer", _FULL | {"half": True}, modalities=_RGBT),
}

_DAY = {
    "rgb-by-day": Entry("anyfuse", _HALF, imagenet=False, lr=2e-3, modalities=("rgb",)),
    "thermal-by-day": Entry("anyfuse", _HALF, imagenet=False, lr=2e-3, modalities=("thermal",)),
}

STUDIES = {
    "nyuv2": Study("configs/zoo-nyuv2.yaml", _NYUV2),
    "blocks": Study("configs/zoo-nyuv2.yaml", _BLOCKS),
    "persons": Study("configs/zoo-persons.yaml", _PERSONS),
    "night": Study("configs/zoo-night.yaml", _NIGHT),
    "day": Study("configs/zoo-day.yaml", _DAY),
}
