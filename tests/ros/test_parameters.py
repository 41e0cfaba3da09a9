"""Parameters of sensors with names, and files from before sensors had any."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from anysense_ros import parameters
from hypothesis import given
from hypothesis import strategies as st
from rclpy.context import Context
from rclpy.node import Node

from perception.errors import AnySenseError
from perception.frame import KINDS, RESERVED
from perception.runtime.manifest import BundleManifest, check_manifest
from perception.runtime.wiring import match_inputs

OLD = Path(__file__).parent / "old"
"""The parameter files of a release in which a sensor's name was its kind, and what they came to."""

PINNED = json.loads((OLD / "settings.json").read_text())
Declare = Callable[..., parameters.Settings]


@pytest.fixture
def declare(tmp_path: Path) -> Iterator[Declare]:
    """Gives the settings of a node with parameters, a file and a bundle."""
    context = Context()

    def settings(
        values: dict[str, Any] | None = None,
        file: Path | None = None,
        manifest: BundleManifest | None = None,
    ) -> parameters.Settings:
        nonlocal context
        if file is None:
            file = tmp_path / "parameters.yaml"
            file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
        context = Context()
        rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
        node = Node("perception_node", context=context)
        try:
            found = parameters.declare(node)
            assert set(parameters.current(node)) == set(found.values)
            return parameters.check(found.values, manifest) if manifest is not None else found
        finally:
            node.destroy_node()
            rclpy.try_shutdown(context=context)

    yield settings
    rclpy.try_shutdown(context=context)


def _bundle(inputs: dict[str, str]) -> BundleManifest:
    """The manifest of a bundle with inputs of these kinds."""
    encoders = {kind: {"file": "graph.onnx"} for kind in inputs.values()}
    return check_manifest(
        {
            "schema": 2,
            "name": "some",
            "inputs": {n: {"kind": k, "encoder": k} for n, k in inputs.items()},
            "tasks": {"segmentation": {"classes": [{"id": 0, "name": "all", "color": [0, 0, 0]}]}},
            "graphs": {
                "encoders": encoders,
                "fuser": {"file": "graph.onnx"},
                "presence": list(inputs),
            },
            "files": {"graph.onnx": "0" * 64},
        },
        "some",
    )


@pytest.mark.parametrize("name", sorted(PINNED))
def test_old_files_come_to_the_same_settings(declare: Declare, name: str) -> None:
    pinned = PINNED[name]
    bundle = _bundle({k: k for k in KINDS})
    for found in (declare(file=OLD / name), declare(file=OLD / name, manifest=bundle)):
        assert list(found.sensors) == pinned["inputs"]
        assert found.kinds == {s: s for s in found.sensors}
        assert {m: asdict(t) for m, t in found.timing.items()} == pinned["timing"]
        policy = pinned["policy"] | {
            "novelty_derating": 1.0
        }  # a later one, of bundles that tell novelty
        assert json.loads(json.dumps(asdict(found.policy))) == policy
        assert asdict(found.health) == pinned["health"]
        kinds = pinned["inputs"]
        for key, value in pinned["values"].items():
            if key in ("thermal.unit", "lidar.least_range_m") and key.split(".")[0] not in kinds:
                continue  # such a sensor is not there
            assert found.values[key] == value, key
    assert found.inputs == {s: s for s in found.sensors}


def test_all_parameters_of_old_are_still_there() -> None:
    old = set().union(*(p["values"] for p in PINNED.values()))
    assert old <= set(parameters.specs_for({k: k for k in KINDS}))


@pytest.mark.parametrize("file", sorted(p.name for p in OLD.glob("rig_*.yaml")))
def test_files_of_rigs_say_what_they_said(declare: Declare, file: str) -> None:
    config = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/config"
    assert declare(file=config / file) == declare(file=OLD / file)


def test_two_cameras_and_a_lidar(declare: Declare) -> None:
    bundle = _bundle({"left": "rgb", "right": "rgb", "roof": "lidar"})
    given = {
        "sensors": ["rear", "lidar", "right"],
        "rear": {"kind": "rgb", "input": "left", "offset_ms": -5.0, "weight": 2.0},
        "lidar.least_range_m": 0.5,
        "policy": {"required": ["rear"], "minimum": 3},
    }
    found = declare(given, manifest=bundle)
    assert found.sensors == ("lidar", "rear", "right")
    assert found.kinds == {"lidar": "lidar", "rear": "rgb", "right": "rgb"}
    assert found.inputs == {"lidar": "roof", "rear": "left", "right": "right"}
    assert found.timing["rear"].offset_ns == -5_000_000 and found.timing["rear"].weight == 2.0
    assert found.timing["right"] == parameters.SensorTiming()
    assert found.policy.required == ("rear",) and found.policy.minimum == 3
    assert found["lidar.least_range_m"] == 0.5
    assert "rear.unit" not in found.values and "rear.least_range_m" not in found.values
    assert declare(given).kinds == {"lidar": "lidar", "rear": "rgb", "right": ""}


def test_thermal_units_are_each_sensors_own(declare: Declare) -> None:
    bundle = _bundle({"low": "thermal", "high": "thermal"})
    values = {"sensors": ["high", "low"], "low.unit": "centikelvin", "high.kind": "thermal"}
    found = declare(values, manifest=bundle)
    assert (found["high.unit"], found["low.unit"]) == ("auto", "centikelvin")


def test_the_file_for_two_cameras(declare: Declare) -> None:
    file = Path(__file__).parents[2] / "ros2_ws/src/anysense_ros/config/rig_two_cameras.yaml"
    found = declare(file=file, manifest=_bundle({"left": "rgb", "right": "rgb"}))
    assert found.inputs == {"front": "left", "rear": "right"}


@pytest.mark.parametrize("name", ["a", "cam__1_", "x" * 63])
def test_names(declare: Declare, name: str) -> None:
    assert declare({"sensors": [name], f"{name}.kind": "thermal"}).kinds == {name: "thermal"}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"sensors": ["front"], "inputs": ["rgb"]}, "beside inputs"),
        ({"sensors": ["front"], "front.kind": "radar"}, "front.kind: 'radar' is unknown"),
        ({"sensors": ["front"], "front.tiemout_ms": 3.0}, "did you mean 'front.timeout_ms'?"),
        ({"sensors": ["front"], "rear.timeout_ms": 3.0}, "the sensors are front"),
        ({"sensors": ["front"], "front.kind": "rgb", "front.unit": "kelvin"}, "front.unit: there"),
        ({"sensors": ["rgb"], "rgb.kind": "depth"}, "rgb.kind: it is rgb"),
        ({"sensors": ["Front"]}, "'Front' is no name"),
        ({"sensors": ["1st"]}, "'1st' is no name"),
        ({"sensors": ["a.b"]}, "'a.b' is no name"),
        ({"sensors": ["x" * 64]}, "is no name"),
        ({"sensors": "front"}, "parameter sensors"),
        ({"sensors": ["front"], "front.kind": 3}, "parameter front.kind"),
        ({"sensors": ["front"], "policy.required": ["rgb"]}, "'rgb' is not among"),
        ({"sensors": ["front", "rear"], "policy.minimum": 3}, "only 2"),
        ({"sensors": ["front"], "policy.minimum": 17}, "policy.minimum"),
        ({"inputs": ["front"]}, "go into sensors"),
        ({"inputs": [""]}, "at least one"),
        ({"rgb.unit": "kelvin"}, "there is no such parameter"),
        *(({"sensors": [name]}, f"can be called '{name}'") for name in sorted(RESERVED)),
    ],
)
def test_what_is_refused(declare: Declare, values: dict[str, Any], line: str) -> None:
    with pytest.raises(AnySenseError) as caught:
        declare(values)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"sensors": ["front"]}, "front.input: bundle some takes no front (it takes left (rgb)"),
        ({"sensors": ["front"], "front.kind": "rgb"}, "takes no front"),  # left, or right?
        ({"sensors": ["rgb"]}, "inputs: bundle some takes no rgb"),
        (
            {"sensors": ["front"], "front.input": "middle"},
            "front: the bundle has no input 'middle'",
        ),
        (
            {"sensors": ["front"], "front.input": "left", "front.kind": "depth"},
            "is depth, input left is rgb",
        ),
        ({"sensors": ["left"], "left.kind": "thermal"}, "left is thermal"),
        ({"sensors": ["a", "left"], "a.input": "left"}, "left of bundle some is a's already"),
        ({"sensors": ["left"], "left.unit": "kelvin"}, "left.unit: left is rgb"),
        ({"sensors": ["left"], "left.least_range_m": 0.5}, "left.least_range_m: left is rgb"),
        ({"inputs": ["depth"]}, "takes no depth"),
    ],
)
def test_what_a_bundle_refuses(declare: Declare, values: dict[str, Any], line: str) -> None:
    bundle = _bundle({"left": "rgb", "right": "rgb", "roof": "lidar"})
    with pytest.raises(AnySenseError) as caught:
        declare(values, manifest=bundle)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@given(
    st.dictionaries(st.sampled_from([*KINDS, "front", "rear", "left"]), st.sampled_from(KINDS)),
    st.dictionaries(st.sampled_from([*KINDS, "left", "right"]), st.sampled_from(KINDS), min_size=1),
)
def test_sensors_are_for_the_inputs_that_they_are_for_in_recordings(
    sensors: dict[str, str], inputs: dict[str, str]
) -> None:
    """One rule, `match_inputs`; but where it leaves a sensor out, the node refuses it."""
    kinds = {n: n if n in KINDS else kind for n, kind in sensors.items()} or {"rgb": "rgb"}
    manifest = _bundle({n: n if n in KINDS else kind for n, kind in inputs.items()})
    matched = match_inputs(kinds, manifest.inputs.kinds)
    values = {n: s.default for n, s in parameters.specs_for(kinds).items()}
    values |= {"sensors": list(kinds), **{f"{n}.kind": k for n, k in kinds.items()}}
    fits = all(n in matched and manifest.inputs[matched[n]].kind == k for n, k in kinds.items())
    if fits:
        assert parameters.check(values, manifest).inputs == {n: matched[n] for n in kinds}
    else:
        with pytest.raises(AnySenseError, match=r"takes no|'s already|is not \("):
            parameters.check(values, manifest)


NAMES = st.sampled_from([*KINDS, "front", "rear", "roof", "left", "right"])
MAYBE_KIND = st.sampled_from(["", *KINDS])


@given(
    st.dictionaries(NAMES, st.tuples(MAYBE_KIND, st.just("") | NAMES), min_size=1, max_size=5),
    st.dictionaries(NAMES, st.sampled_from(KINDS), min_size=1, max_size=5),
)
def test_sensors_find_inputs_of_their_kind_or_are_refused(
    sensors: dict[str, tuple[str, str]], inputs: dict[str, str]
) -> None:
    manifest = _bundle({n: n if n in KINDS else kind for n, kind in inputs.items()})
    takes = manifest.inputs.kinds
    values = {n: s.default for n, s in parameters.specs_for(dict.fromkeys(sensors, "")).items()}
    values |= {"sensors": list(sensors)}
    for name, (kind, wanted) in sensors.items():
        values |= {f"{name}.kind": kind, f"{name}.input": wanted}
    try:
        found = parameters.check(values, manifest)
    except AnySenseError as error:
        assert "\n" not in str(error)
        # What is called and made like the bundle's own inputs is never refused.
        assert any(n not in takes or w or k not in ("", takes[n]) for n, (k, w) in sensors.items())
        return
    assert set(found.sensors) == set(found.inputs) == set(sensors)
    assert len(set(found.inputs.values())) == len(sensors)
    for name, (kind, wanted) in sensors.items():
        own = found.inputs[name]
        assert found.kinds[name] == takes[own] and kind in ("", takes[own])
        assert name not in KINDS or takes[own] == name
        assert own == wanted or not wanted
        assert wanted or own == name or list(takes.values()).count(takes[own]) == 1
