"""A kind that another distribution brings, whose network takes several tensors of several types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_bundles import FEATURES, GRID, SmallBundles

import perception
from export.bundle_graphs import GraphChoice, with_graphs
from perception import plugins
from perception.errors import AnySenseError, BundleError, InputError
from perception.frame import Frame, Sample, in_order
from perception.geometry.camera import CameraModel
from perception.geometry.live import LiveCalibration
from perception.geometry.rig import Rig, SensorCalibration
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import PreprocessContract
from perception.preprocess.sample import empty_tensors, preprocess_sample
from perception.runtime.benchmark import measure
from perception.runtime.bundle import Bundle
from perception.runtime.engines.probe import probe_inputs
from perception.runtime.pipeline import Pipeline
from perception.sensors.names import is_kind, kinds
from perception.sensors.registry import KINDS

CELL = 8  # as echoes.py has it
ROWS, COLUMNS = GRID[0] // CELL, GRID[1] // CELL
INPUTS = {"rgb": ("rgb", "camera"), "left": ("echoes", "sound"), "right": ("echoes", "sound")}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    """Put a distribution's entry point on the path."""
    info = folder / "site" / "brings_echoes-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brings-echoes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[anysense.sensors]\n{entry}\n")
    monkeypatch.syspath_prepend(str(folder / "site"))
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    plugins.plugins.cache_clear()


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution, installed."""
    install(tmp_path, monkeypatch, "echoes = echoes:ECHOES")
    yield
    plugins.plugins.cache_clear()
    KINDS._loaded.pop("echoes", None)


def encoder(place: int = TensorProto.INT32, most: int = 16) -> onnx.ModelProto:
    """Strengths put where `place` says (-1 nowhere), and doubled where `picture` has something."""
    info, cells = helper.make_tensor_value_info, ROWS * COLUMNS
    nodes = [
        helper.make_node("Cast", ["place"], ["wide"], to=TensorProto.INT64),
        helper.make_node("ScatterElements", ["flat", "wide", "strength"], ["put"], axis=1),
        helper.make_node("Reshape", ["put", "shape"], ["map"]),
        helper.make_node("Cast", ["picture"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["mask", "shape"], ["seen"]),
        helper.make_node("Add", ["seen", "one"], ["gain"]),
        helper.make_node("Mul", ["map", "gain"], ["louder"]),
        helper.make_node("Concat", ["louder"] * FEATURES, ["f"], axis=1),
    ]
    weights = {
        "flat": np.zeros((1, cells), np.float32),
        "shape": np.array([1, 1, ROWS, COLUMNS]),
        "one": np.ones((), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "sound",
        [
            info("strength", TensorProto.FLOAT, [1, most]),
            info("place", place, [1, most]),
            info("picture", TensorProto.UINT8, [1, ROWS, COLUMNS]),
        ],
        [info("f", TensorProto.FLOAT, [1, FEATURES, ROWS, COLUMNS])],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def bundle(folder: Path, graph: onnx.ModelProto | None = None, **edit: Any) -> Path:
    made = {"encoder_sound.onnx": graph or encoder()}
    small = SmallBundles(folder)
    # The fuser and the camera's encoder as usual; the one of sound is put in their place.
    usual = {"rgb": INPUTS["rgb"], "left": ("rgb", "sound"), "right": ("rgb", "sound")}

    def of_echoes(content: dict[str, Any]) -> None:
        for name in ("left", "right"):
            content["inputs"][name] |= {"kind": "echoes", "preprocess": {"scale": 2.0} | edit}

    return small.named(usual, graphs=made, edit=of_echoes)


def frame(*names: str, seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    samples = {n: Sample("echoes", rng.random((9, 4), np.float32), 1, sensor=n) for n in names}
    return Frame({**samples, "rgb": Sample("rgb", colors, 1)}, 1)


def wanted_feature(sample: Sample) -> np.ndarray:
    cells = np.zeros((ROWS, COLUMNS), np.float32)
    for x, y, _, strength in sample.data:
        at = int(y * ROWS), int(x * COLUMNS)
        cells[at] = max(cells[at], strength)
    return cells


@pytest.mark.usefixtures("brought")
def test_a_plug_ins_kind_is_one_of_the_kinds(tmp_path: Path) -> None:
    assert kinds() == ("rgb", "depth", "thermal", "lidar", "echoes")
    assert is_kind("echoes") and KINDS["echoes"].called == "Echo sounder"
    assert in_order(("echoes", "lidar", "rgb")) == ("rgb", "lidar", "echoes")
    sample = perception.sample_of("echoes", np.ones((2, 4)), sensor="left", stamp_ns=5)
    assert (sample.kind, sample.sensor, sample.stamp_ns) == ("echoes", "left", 5)
    with pytest.raises(InputError, match="^left: echoes has no unit"):
        perception.sample_of("echoes", np.ones((2, 4)), unit="kelvin", sensor="left")
    short = PreprocessContract(modalities=["rgb", "echoes"], echoes={"most": 3})
    assert short["echoes"].preprocess.most == 3
    again = PreprocessContract.model_validate(short.model_dump())
    assert again == short and again["echoes"].tensors["place"].dtype == "int32"


@pytest.mark.usefixtures("brought")
def test_tensors_of_three_types_go_through_the_pipeline(tmp_path: Path) -> None:
    pipeline = Pipeline.load(bundle(tmp_path), "onnxruntime-cpu")
    pipeline.warm_up()
    given = frame("left", "right")
    got = pipeline.encode(given["left"])
    assert not isinstance(got, perception.SensorWarning) and got is not None
    feature = np.asarray(got.features["left.f"])
    cells = wanted_feature(given["left"])
    assert np.allclose(feature[0], np.broadcast_to(cells / 2 * (1 + (cells > 0)), feature[0].shape))
    both = pipeline(given)
    assert both.used == ("rgb", "left", "right") and both.state == "full" and not both.warnings
    for names in (("left",), ("right",), ()):
        part = pipeline(Frame({n: given[n] for n in ("rgb", *names)}, 2))
        assert part.used == ("rgb", *names)
        assert not np.array_equal(part.confidence, both.confidence)
    alone = pipeline(Frame({"left": given["left"]}, 3))
    assert alone.reference == "left" and alone.labels is not None
    assert alone.labels.shape == GRID  # no picture of its own: that of its grid


@pytest.mark.usefixtures("brought")
def test_buffers_are_filled_anew_for_every_sample(tmp_path: Path) -> None:
    pipeline = Pipeline.load(bundle(tmp_path), "onnxruntime-cpu")
    frames = [frame("left", seed=s) for s in range(4)]
    first = [np.array(pipeline.encode(f["left"], trust=True).features["left.f"]) for f in frames]  # type: ignore[union-attr]
    again = [np.array(pipeline.encode(f["left"], trust=True).features["left.f"]) for f in frames]  # type: ignore[union-attr]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[1])


@pytest.mark.usefixtures("brought")
def test_its_own_check_and_its_own_threshold_tell_its_health(tmp_path: Path) -> None:
    pipeline = Pipeline.load(bundle(tmp_path), "onnxruntime-cpu")
    faint = Sample("echoes", np.full((5, 4), 0.001, np.float32), 1, sensor="left")
    result = pipeline(Frame({"left": faint, "rgb": frame()["rgb"]}, 1))
    assert result.health["left"] == "dark" and result.used == ("rgb",)
    empty = Sample("echoes", np.zeros((0, 4), np.float32), 2, sensor="right")
    assert pipeline(Frame({"right": empty}, 2)).health["right"] == "dark"
    wrong = Sample("echoes", np.zeros((3, 2), np.float32), 3, sensor="right")
    assert pipeline(Frame({"right": wrong}, 3)).health["right"] == "malformed"


@pytest.mark.usefixtures("brought")
def test_it_is_measured_and_probed_with_its_example(tmp_path: Path) -> None:
    pipeline = Pipeline.load(bundle(tmp_path), "onnxruntime-cpu")
    table = measure({"p": pipeline}, frames=2, warmup=1)["p"]["subsets"]
    assert "rgb+left+right" in table and "left" in table
    probed = probe_inputs(pipeline.manifest.inputs)
    assert probed["left"]["place"].dtype == np.int32 and probed["left"]["strength"].any()
    assert isinstance(probed["rgb"], np.ndarray)


@pytest.mark.usefixtures("brought")
def test_a_rig_and_live_calibration_take_it_with_or_without_a_place() -> None:
    sample = frame("left")["left"]
    live = LiveCalibration(kinds={"rgb": "rgb", "left": "echoes"})
    assert live.attach(sample) is sample  # it is not projected: nothing need be known
    camera = CameraModel(64, 48, 50.0, 50.0, 32.0, 24.0)
    place = RigidTransform.identity()
    rig = Rig(
        {"rgb": SensorCalibration(camera), "left": SensorCalibration(None, place, kind="echoes")}
    )
    assert rig.cameras == ["rgb"]
    assert rig.attach(sample).extrinsics is not None


@pytest.mark.usefixtures("brought")
def test_one_graph_for_all_takes_each_tensor_by_the_inputs_name(tmp_path: Path) -> None:
    choice = GraphChoice(single=True, subsets=(("rgb", "left"),))
    errors = with_graphs(Bundle.open(bundle(tmp_path)), tmp_path / "more", choice, 1)
    assert set(errors) == {"single", "rgb+left"} and max(errors.values()) < 1e-5
    more = Bundle.open(tmp_path / "more")
    graph = onnx.load(tmp_path / "more" / more.manifest.graphs.subsets["rgb+left"].file)
    assert {v.name for v in graph.graph.input} == {
        "rgb",
        "left.strength",
        "left.place",
        "left.picture",
    }


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(("device", "most"), [("openvino-f32", 1e-5), ("openvino", 0.01)])
def test_another_backend_takes_integers_as_well(tmp_path: Path, device: str, most: float) -> None:
    pytest.importorskip("openvino")
    made, given = bundle(tmp_path), frame("left", "right")
    wanted = Pipeline.load(made, "onnxruntime-cpu")(given)
    pipeline = Pipeline.load(made, device, trust_plans=True)
    assert {s.name: s.dtype for s in pipeline.engines["left"].inputs} == {
        "strength": "float32",
        "place": "int32",
        "picture": "uint8",
    }
    got = pipeline(given)
    assert got.used == wanted.used and got.confidence is not None
    assert wanted.confidence is not None
    assert np.abs(got.confidence - wanted.confidence).max() < most


@pytest.mark.usefixtures("brought")
def test_arrays_pushed_into_a_stream(tmp_path: Path) -> None:
    with perception.Stream.open(bundle(tmp_path), device="cpu") as stream:
        rng = np.random.default_rng(0)
        stream.push("left", rng.random((9, 4)))
        stream.push("rgb", rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
        seen: set[str] = set()
        for result in stream:
            seen |= set(result.used)
            if seen >= {"rgb", "left"}:
                break


@pytest.mark.usefixtures("brought")
@pytest.mark.parametrize(
    ("graph", "edit", "line"),
    [
        (encoder(TensorProto.INT64), {}, "place is not float32, but int64"),
        (encoder(TensorProto.UINT8), {}, "input place is not int32, but uint8"),
        (encoder(TensorProto.FLOAT), {}, "input place is not int32, but float32"),
        (encoder(most=8), {}, "takes strength of shape"),
        (None, {"most": 8}, "takes strength of shape"),
        (None, {"most": 0}, "inputs.left.preprocess.most"),
        (None, {"loudest": 1}, "inputs.left.preprocess.loudest"),
    ],
)
def test_a_graph_or_a_value_that_is_not_the_kinds_is_refused(
    tmp_path: Path, graph: onnx.ModelProto | None, edit: dict[str, Any], line: str
) -> None:
    with pytest.raises(BundleError, match=line) as caught:
        Pipeline.load(bundle(tmp_path, graph, **edit), "onnxruntime-cpu")
    assert len(str(caught.value).splitlines()) == 1


def test_a_bundle_of_a_kind_that_nobody_brings(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="unknown kind of sensor 'echoes'") as caught:
        Pipeline.load(bundle(tmp_path), "onnxruntime-cpu")
    assert "lidar" in str(caught.value)


@pytest.mark.parametrize(
    "entry", ["echoes = echoes:CELL", "sonar = echoes:ECHOES", "echoes = no:X"]
)
def test_a_record_that_is_none_is_one_line_that_names_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    install(tmp_path, monkeypatch, entry)
    name = entry.split()[0]
    try:
        with pytest.raises(AnySenseError, match="brings-echoes 1.0") as caught:
            perception.sample_of(name, np.ones((2, 4)))
        assert len(str(caught.value).splitlines()) == 1
    finally:
        plugins.plugins.cache_clear()


@pytest.mark.parametrize("kind", kinds()[:4])
def test_our_own_kinds_have_an_example_that_every_step_takes(kind: str) -> None:
    contract = PreprocessContract(modalities=[kind], grid={"height": 32, "width": 64})
    own = KINDS[kind]
    assert own.example is not None
    sample = own.example((40, 60), np.random.default_rng(0))
    out = empty_tensors(contract[kind])
    assert preprocess_sample(sample, contract[kind], out) is out
    assert {n: (a.shape, a.dtype.name) for n, a in out.items()} == {
        n: ((1, *t.shape), t.dtype) for n, t in contract[kind].tensors.items()
    }
    assert all(np.isfinite(array).all() for array in out.values())
    from perception.runtime.health import HealthMonitor

    assert HealthMonitor().check(sample) == "ok"
