"""Faults of sensors in training samples, which get more severe from epoch to epoch.

A curriculum in the sense of Bengio et al., ICML 2009; the faults are those that robustness is judged by.  One
sensor of each sample stays clean, so that there is always something to learn the truth from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from perception.corruptions import corrupt_grid
from perception.corruptions.content import severity_of
from perception.corruptions.training import grid_faults
from perception.sensors.faults import Rng
from perception.training.augment import OnGrid, RawSample
from perception.training.config import CurriculumSpec

STREAM = 11
"""Tells the curriculum's random numbers from those of the rest of the augmentation."""


def ceiling(spec: CurriculumSpec, epoch: int, epochs: int) -> int:
    """The highest severity in an epoch, counted from 0, of so many; 0 where no fault is drawn."""
    if not spec.probability:
        return 0
    low, high = spec.severity
    grown = epoch / max(1.0, spec.over * epochs)
    return min(high, low + int(grown * (high - low + 1)))


def faults_in(spec: CurriculumSpec, name: str, kind: str) -> tuple[str, ...]:
    """The faults that an input may have: those that are named, else all that come in degrees."""
    if name in spec.faults:
        return tuple(spec.faults[name])
    graded = []
    for fault in grid_faults(kind):
        severity = severity_of(kind, fault)
        if severity is None or len(set(severity.amounts)) > 1:
            graded.append(fault)
    return tuple(graded)


def spoilt(sample: RawSample, spec: CurriculumSpec, highest: int, rng: Rng) -> dict[str, Any]:
    """The sensors of a sample that have a fault now, by name, as `RawSample.sensors`.

    Args:
        sample: is not changed.
        spec: how often, and which.
        highest: severity, see `ceiling`.
        rng: of this sample of this epoch.

    Returns:
        All of them but one at most.
    """
    found: dict[str, Any] = {}
    for name, own in sample.sensors.items():
        faults = faults_in(spec, name, own.kind)
        # Drawn for every sensor, whatever becomes of the others.
        there, which, severity = rng.random(), rng.random(), rng.random()
        seed = int(rng.integers(2**32))
        if faults and there < spec.probability:
            assert isinstance(own, OnGrid)
            low = spec.severity[0]
            amount = low + int(severity * (highest - low + 1))
            fault = faults[int(which * len(faults))]
            found[name] = replace(own, grid=corrupt_grid(own.kind, own.grid, fault, amount, seed))
    if found and len(found) == len(sample.sensors):
        del found[list(found)[int(rng.integers(len(found)))]]
    return found


def one_clean(
    inputs: Mapping[str, Any],
    clean: Mapping[str, Any],
    faulty: Mapping[str, Tensor],
    subset: Sequence[str],
    start: int = 0,
) -> dict[str, Any]:
    """The inputs of a subset, one of which is clean in every sample of the batch.

    The sensor that a sample was left clean may be none of the subset.  Then one takes its place, each in
    turn.

    Args:
        inputs: of the batch by name, (N, ...), or tensors by name.
        clean: the same without faults, of the inputs that have some.
        faulty: by name, (M,) bool, which samples have one; empty where none has.
        subset: names.
        start: place of the N samples among those M.
    """
    chosen = {name: inputs[name] for name in subset}
    if not faulty:
        return chosen
    every = torch.stack([faulty[name] for name in subset]).all(0)
    own = range(start, start + len(tree_leaves(chosen)[0]))
    for place, sample in enumerate(every.nonzero().flatten().tolist()):
        if sample not in own:
            continue
        name = subset[place % len(subset)]
        if chosen[name] is inputs[name]:
            chosen[name] = tree_map(torch.clone, inputs[name])
        row = sample - start
        tree_map(lambda x, other, i=row: x[i].copy_(other[i]), chosen[name], clean[name])
    return chosen


def generator(seed: int, epoch: int, frame: int) -> Rng:
    """Of one sample of one epoch."""
    return np.random.default_rng((seed, epoch, frame, STREAM))
