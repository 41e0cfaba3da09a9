"""Arguments of `Pipeline.load` and `Stream.open` that are nearly right: one line, and not later."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_bundles import SmallBundles

from perception.errors import ConfigError
from perception.frame import Frame, Sample
from perception.runtime.lateness import LatePolicy
from perception.runtime.pipeline import Pipeline
from perception.runtime.policy import Policy
from perception.runtime.stream import Stream


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"device": None}, "device: None is no name of a device"),
        ({"device": 0}, "device: 0 is no name of a device"),
        ({"sensors": ["rgb"]}, "sensors: a list, expected inputs of the bundle by sensor"),
        ({"threads": "2"}, "threads: '2' is no number of threads"),
        ({"threads": 2.5}, "threads: 2.5 is no number of threads"),
        ({"threads": 0}, "threads: 0 is no number of threads"),
        ({"threads": -1}, "threads: -1 is no number of threads"),
        ({"wanted": "labels"}, "wanted: is one word, expected several \\({'labels'}\\)"),
        ({"min_score": "0.3"}, "min_score: '0.3' is not within 0 and 1"),
        ({"min_score": float("nan")}, "min_score: nan is not within 0 and 1"),
        ({"min_score": 30}, "min_score: 30 is not within 0 and 1"),
    ],
)
def test_a_pipeline_refuses_them(small: SmallBundles, given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        Pipeline.load(small(), **{"device": "cpu", **given})


def test_numbers_of_numpy_are_as_good(small: SmallBundles, rgb: Sample) -> None:
    given: dict[str, Any] = {"threads": np.int64(1), "min_score": np.float32(0.5)}
    bundle = small(("rgb", "depth"), detection=2)
    plain = Pipeline.load(bundle, "cpu", threads=1, min_score=0.5)(Frame({"rgb": rgb}))
    found = Pipeline.load(bundle, "cpu", **given)(Frame({"rgb": rgb}))
    assert found.boxes is not None and plain.boxes is not None
    assert np.array_equal(found.boxes.scores, plain.boxes.scores)
    rates: dict[str, Any] = {"rgb": np.float32(30), "depth": np.int64(15)}
    late: Any = np.float32(0.5)
    with Stream.open(bundle, rates, device="cpu", threads=1, deadline_s=late) as stream:
        stream.push("rgb", rgb)
        assert next(iter(stream)).used == ("rgb",)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"sensors": ["rgb"]}, "sensors: a list, expected rates in Hz by sensor"),
        ({"sensors": "rgb"}, "sensors: a str, expected rates in Hz by sensor"),
        ({"deadline_s": "0.1"}, "deadline_s: '0.1' is no number of seconds"),
    ],
)
def test_a_stream_refuses_them(small: SmallBundles, given: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line), Stream.open(small(), device="cpu", **given):
        pass


def test_one_required_sensor_is_no_list_of_letters() -> None:
    with pytest.raises(ConfigError, match=r"policy.required: is one name, .*\('rgb',\)"):
        Policy(required="rgb")  # type: ignore[arg-type]


def test_deadlines_of_any_number() -> None:
    policy = LatePolicy(0.25)
    assert LatePolicy.of(policy) is policy and LatePolicy.of(None) is None
    given: Any = np.float32(0.25)
    assert LatePolicy.of(given) == policy
