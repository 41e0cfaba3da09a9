"""Two cameras that share an encoder, and depth: exported, joined, in other precisions, and run."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_bundles import SmallBundles

from export.bundle_graphs import GraphChoice, subset_file, with_graphs
from export.half_bundle import write_half
from export.int8 import Int8Options, Quantizer
from export.sensitivity import Sensitivity
from export.serving import write_triton
from perception.cli.main import main
from perception.data.base import ClassInfo, Recording, RecordingInfo, Truth
from perception.errors import BundleError
from perception.frame import Frame, Sample, subset_name, subsets_of
from perception.models.heads import specs_for
from perception.preprocess.contract import PreprocessContract
from perception.runtime.bundle import Bundle
from perception.runtime.engines.probe import probe_inputs, relative_error, run_all
from perception.runtime.engines.selection import load_engines

VIEW = {"height": 64, "width": 96}
INPUTS = {
    "left": {"kind": "rgb", "encoder": "camera", "view": VIEW},
    "right": {"kind": "rgb", "encoder": "camera", "view": VIEW},
    "depth": {"kind": "depth", "view": VIEW},
}
NAMES = ("depth", "left", "right")
SMALL = {"left": ("rgb", "camera"), "right": ("rgb", "camera"), "depth": ("depth", "depth")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained AnyFuse, exported in every form."""
    torch = pytest.importorskip("torch")
    from export.folding import fold_batch_norm
    from export.graphs import graph_specs, modular_graphs
    from export.onnx_writer import write_onnx
    from perception.models.anyfuse import AnyFuse
    from perception.runtime.wiring import Wiring

    torch.manual_seed(0)
    contract = PreprocessContract.model_validate(INPUTS)
    model = AnyFuse(contract, specs_for(segmentation=5, boxes2d=2), width=0.25, decoder_width=32)
    for place, parameter in model.named_parameters():
        if ".score." in place and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    folded = fold_batch_norm(model.eval())
    folder: Path = tmp_path_factory.mktemp("shared")
    images = {n: torch.from_numpy(x) for n, x in probe_inputs(contract).items()}
    for spec in graph_specs(folded, images):
        write_onnx(spec, folder / spec.file)
    from export.bundle_graphs import write_composed
    from export.parity import check_parity

    wiring = Wiring.of(model.encoder_of)
    choice = GraphChoice(single=True, subsets=tuple(subsets_of(NAMES)))
    graphs = write_composed(folder, modular_graphs(wiring), wiring, choice)
    rows = check_parity(folded, folder, images, graphs)  # type: ignore[arg-type]
    assert {(r.form, r.subset) for r in rows} == {
        (form, subset_name(s))
        for form in ("modular", "single", "own graph")
        for s in subsets_of(NAMES)
    }
    assert max(r.max_abs for r in rows) < 1e-4
    return folder


def names(values: object) -> list[str]:
    return [v.name for v in values]  # type: ignore[attr-defined]


def test_graphs_bear_the_names_of_inputs_and_the_encoder_is_there_once(folder: Path) -> None:
    files = {p.name for p in folder.glob("*.onnx")}
    assert {"encoder_camera.onnx", "encoder_depth.onnx", "fuser.onnx", "single.onnx"} < files
    assert "encoder_left.onnx" not in files and "encoder_rgb.onnx" not in files
    camera = onnx.load(folder / "encoder_camera.onnx").graph
    features = names(camera.output)
    assert names(camera.input) == ["image"] and features == names(
        onnx.load(folder / "encoder_depth.onnx").graph.output
    )
    fuser = onnx.load(folder / "fuser.onnx").graph
    assert set(names(fuser.input)) == {"presence"} | {f"{n}.{f}" for n in NAMES for f in features}
    presence = next(v for v in fuser.input if v.name == "presence")
    assert [d.dim_value for d in presence.type.tensor_type.shape.dim] == [3]


def test_joined_graphs_hold_the_weights_once(folder: Path) -> None:
    single = onnx.load(folder / "single.onnx").graph
    assert names(single.input) == ["presence", *NAMES]
    size = {p.name: p.stat().st_size for p in folder.glob("*.onnx")}
    parts = ("encoder_camera.onnx", "encoder_depth.onnx", "fuser.onnx")
    assert size["single.onnx"] < 1.15 * sum(size[p] for p in parts)
    for subset in (("left",), ("right",), ("left", "right")):
        graph = onnx.load(folder / subset_file(subset)).graph
        assert names(graph.input) == list(subset)
        owners = {n.split("/")[0] for n in names(graph.node)}
        assert owners == {*subset, "fuser"}
    both, one = (size[subset_file(s)] for s in (("left", "right"), ("left",)))
    assert both - one < 0.5 * size["encoder_camera.onnx"]


def test_no_two_subsets_have_one_file() -> None:
    odd = ("a", "b", "a_b", "rgb", "depth", "rgb_depth")
    files = [subset_file(s) for s in [*subsets_of(odd[:4]), *subsets_of(odd[2:]), ("rgb", "depth")]]
    assert len(set(files)) == len({f.lower() for f in files}) == len(dict.fromkeys(files))
    assert subset_file(("rgb", "depth")) == "subset_rgb_depth.onnx"
    assert (
        len({subset_file(s) for s in (("a", "b"), ("a_b",), ("rgb", "depth"), ("rgb_depth",))}) == 4
    )


def test_the_two_sides_are_told_apart(small: SmallBundles) -> None:
    bundle = Bundle.open(small.named(SMALL, 3, 2))
    images, wiring = probe_inputs(bundle.manifest.inputs), bundle.manifest.wiring
    engines = load_engines(bundle, "onnxruntime", 1)
    assert set(engines) == {"camera", "depth", "fuser"}
    only = {n: run_all(engines, {n: images[n]} | _blank(images, n), wiring) for n in NAMES}
    assert relative_error(only["left"], only["right"]) > 0.01


def _blank(images: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {n: np.zeros_like(x) for n, x in images.items() if n != name}


def test_a_bundle_with_more_graphs_and_in_float16(small: SmallBundles, tmp_path: Path) -> None:
    source = Bundle.open(small.named(SMALL, 3, 2))
    choice = GraphChoice(single=True, subsets=tuple(subsets_of(NAMES)))
    assert max(with_graphs(source, tmp_path / "all", choice, 1).values()) < 1e-6
    write_half(source, tmp_path / "half", threads=1)
    half = Bundle.open(tmp_path / "half")
    assert half.manifest.precision == "fp16" and half.manifest.inputs == source.manifest.inputs
    images, wiring = probe_inputs(source.manifest.inputs), source.manifest.wiring
    found, wanted = (
        run_all(load_engines(b, "onnxruntime", 1), images, wiring) for b in (half, source)
    )
    assert 0 < relative_error(found, wanted) < 0.02


def test_a_layer_of_a_shared_encoder_is_measured_through_both(small: SmallBundles) -> None:
    bundle = Bundle.open(small.named(SMALL))
    measure = Sensitivity(bundle, [probe_inputs(bundle.manifest.inputs)], 1)
    other = onnx.ModelProto()
    other.CopyFrom(measure.models["camera"])
    weight = onnx.numpy_helper.to_array(other.graph.initializer[0])
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight * 1.5, "w"))
    assert measure.error({"camera": other}, "camera") == pytest.approx(0.5, rel=0.01)
    assert measure.error({"camera": other}, "depth") < 0.5  # of all three together
    assert measure.error(dict(measure.models)) == 0.0


def test_bytes_of_both_cameras(small: SmallBundles, tmp_path: Path) -> None:
    with_graphs(Bundle.open(small.named(SMALL)), tmp_path / "b", GraphChoice(single=True), 1)
    model = write_triton(Bundle.open(tmp_path / "b"), tmp_path / "out", uint8_rgb=True)
    graph = onnx.load(model / "1" / "model.onnx").graph
    types = {v.name: v.type.tensor_type.elem_type for v in graph.input}
    assert types["left"] == types["right"] == onnx.TensorProto.UINT8
    assert types["depth"] == types["presence"] == onnx.TensorProto.FLOAT


def test_info_tells_of_it(small: SmallBundles) -> None:
    said = io.StringIO()
    folder = small.named(SMALL, edit=lambda c: c.update(judged=["left+right", "left"]))
    with contextlib.redirect_stdout(said):
        assert main(["bundle", "info", str(folder)]) == 0
        assert main(["bundle", "verify", str(folder)]) == 0
    text = " ".join(said.getvalue().split())
    for wanted in ("left │ rgb │ camera", "right │ rgb │ camera", "judged with left+right, left",
                   "left, right, depth", "weights unknown"):  # fmt: skip
        assert wanted in text, text


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("graphs", "presence"), ["left", "depth"], "presence must name every input"),
        (("graphs", "presence"), ["left", "left", "right", "depth"], "presence must name"),
        (("graphs", "separator"), "_", "no input shares an encoder"),
        (("judged",), ["right+left"], "no subset of the inputs"),
        (("judged",), ["middle"], "no subset of the inputs"),
        (("reference",), ["middle"], "reference names what is no input"),
        (("inputs", "left", "kind"), "sonar", "inputs.left.kind"),
        (("inputs", "right", "view"), {"height": 64, "width": 64}, "right"),
        (("inputs", "left", "encoder"), "side", "graphs.encoders must name"),
        (("inputs", "left", "encoder"), "fuser", "fuser"),
    ],
)
def test_what_contradicts_itself_is_told(
    place: tuple[str, ...], value: object, told: str, small: SmallBundles
) -> None:
    def edit(content: dict) -> None:  # type: ignore[type-arg]
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    with pytest.raises(BundleError, match=told) as caught:
        Bundle.open(small.named(SMALL, edit=edit))
    assert "\n" not in str(caught.value)


def test_an_encoder_cannot_be_called_as_another_graph(small: SmallBundles) -> None:
    """Engines are found by these names."""
    shared = {"left": ("rgb", "fuser"), "right": ("rgb", "fuser")}
    with pytest.raises(BundleError, match="fuser"):
        Bundle.open(small.named(shared))


class Pictures(Recording):
    """Noise from two cameras and depth; the right one is as bright as it is told."""

    def __init__(self, root: Path, bright: int) -> None:
        kinds = {"left": "rgb", "right": "rgb", "depth": "depth"}
        classes = (ClassInfo(0, "a", (0, 0, 0)),)
        super().__init__(
            root, RecordingInfo("folder", "noise", kinds, classes), ["a", "b", "c", "d"]
        )  # type: ignore[arg-type]
        self.bright = bright

    def frame(self, index: int) -> Frame:
        rng = np.random.default_rng(index)
        left = rng.integers(100, 140, (32, 64, 3), dtype=np.uint8)
        right = rng.integers(0, self.bright, (32, 64, 3), dtype=np.uint8)
        depth = rng.uniform(1, 5, (32, 64)).astype(np.float32)
        samples = {"left": Sample("rgb", left, 1), "right": Sample("rgb", right, 1)}
        return Frame({**samples, "depth": Sample("depth", depth, 1)}, 1)

    def truth(self, index: int) -> Truth:
        return Truth()


def test_int8_calibrates_a_shared_encoder_on_all_that_it_serves(
    small: SmallBundles, tmp_path: Path
) -> None:
    source, found = Bundle.open(small.named(SMALL)), {}
    for bright in (140, 255):
        options = Int8Options(3, "max", 0.5, threads=1)
        quantizer = Quantizer(source, Pictures(tmp_path, bright), options)
        found[bright] = quantizer._calibrate()
    assert found[255]["camera"]["image"] > 1.2 * found[140]["camera"]["image"] > 2
    assert found[255]["depth"] == found[140]["depth"]
    Quantizer(source, Pictures(tmp_path, 255), Int8Options(3, max_error=0.5, threads=1)).run(
        tmp_path / "int8"
    )
    int8 = Bundle.open(tmp_path / "int8")
    assert int8.manifest.precision == "int8" and set(int8.manifest.graphs.encoders) == {
        "camera", "depth",
    }  # fmt: skip
    with_graphs(int8, tmp_path / "more", GraphChoice(subsets=(("left", "right"),)), 1)
    kinds = [n.op_type for n in onnx.load(tmp_path / "more" / "subset.left.right.onnx").graph.node]
    assert kinds.count("QuantizeLinear") >= 2
