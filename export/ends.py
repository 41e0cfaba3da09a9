"""A fuser that ends in what is decoded, labels and confidence, not in the logits that these are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.onnx_files import graph_problems, load_model
from perception.errors import BundleError, ConfigError, EngineError, ParityError
from perception.files.writing import writing
from perception.frame import subset_name
from perception.geometry.grid import GridMap
from perception.runtime.bundle import Bundle, sha256_of, write_bundle
from perception.runtime.engines.base import with_numbers
from perception.runtime.engines.device_form import DeviceForm, Ends, device_form
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import probe_inputs
from perception.runtime.interpret import interpret
from perception.runtime.manifest import BundleManifest
from perception.runtime.modular import features_of, feeds_for
from perception.runtime.records import BundleRecords
from perception.runtime.wiring import FUSER
from perception.tasks.registry import every_part, feeds_of
from perception.tasks.task import Shape

OLDEST_OPSET = 13

_LEAST_EQUAL, _MOST_OFF = 0.999, 1e-3
"""Of integers the share that must be equal, of numbers the largest difference, relative beyond 1."""


def ends_in_labels(bundle: Bundle) -> bool:
    """Whether a task with two forms has the smaller one in a bundle.

    Raises:
        EngineError, BundleError: its fuser is no graph, or not what the bundle lists.
    """
    model = load_model(bundle.source(bundle.manifest.graphs.fuser.file), weights=False)
    given = {v.name for v in model.graph.output}
    forms = [form for name in bundle.manifest.tasks if (form := device_form(name)) is not None]
    return any(form.takes not in given for form in forms)


def end_in_labels(folder: Path, threads: int | None = None) -> None:
    """Let the fuser of a new bundle end in the smaller form of each task that has one, in its folder.

    Graphs of everything, or of one subset, go: they would end in what they were made from.  Of what was
    measured accuracy stays, which is told of the same labels.

    Args:
        folder: a bundle's folder that is not in its place yet.
        threads: CPU threads for the comparison, None for all.

    Raises:
        ConfigError: no task's outputs can be made smaller.
        EngineError: the graph is none, or of operators too old.
        ParityError: what is decoded is something else than before.
    """
    old = Bundle.open(folder, verify=False)
    manifest = old.manifest
    wanted = _decoded(old, threads)
    file = manifest.graphs.fuser.file
    model = load_model(old.source(file))
    forms = [form for name in manifest.tasks if (form := device_form(name)) is not None]
    forms = [f for f in forms if any(v.name == f.takes for v in model.graph.output)]
    if not forms:
        raise ConfigError("has no outputs that can end in labels", where="--ends")
    for form in forms:
        with graph_problems(folder / file, "its ends cannot be joined to it"):
            _append(model, form, str(folder / file))
    with writing(folder / file, error=BundleError) as partial:
        onnx.save(model, partial)
    graphs = manifest.graphs.model_copy(update={"single": None, "subsets": {}})
    dropped = set(manifest.graph_files()) - {g.file for g in graphs.encoders.values()} - {file}
    files = {n: digest for n, digest in manifest.files.items() if n not in dropped}
    for name in dropped:
        (folder / name).unlink(missing_ok=True)
    files[file] = sha256_of(folder / file)
    changed = manifest.model_copy(update={"graphs": graphs, "files": files})
    write_bundle(folder, changed, BundleRecords(accuracy=old.records.accuracy))
    _compare(_decoded(Bundle.open(folder), threads), wanted, folder)


def _append(model: onnx.ModelProto, form: DeviceForm, where: str) -> None:
    graph = model.graph
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        what = f"is of ONNX opset {opset}; labels need {OLDEST_OPSET} or later"
        raise EngineError(what, where=where)
    value = next(v for v in graph.output if v.name == form.takes)
    if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise EngineError(f"output {form.takes} is not float32", where=where)
    shape: Shape = tuple(d.dim_value or None for d in value.type.tensor_type.shape.dim)
    ends: Ends = form.ends(shape, opset, True)
    taken = {n for node in graph.node for n in node.output} | {t.name for t in graph.initializer}
    taken |= {v.name for v in graph.input}
    if clash := taken & {*ends.inputs, *ends.outputs, *ends.constants}:
        raise EngineError(f"has a tensor {min(clash)} already", where=where)
    graph.node.extend(onnx.NodeProto.FromString(node) for node in ends.nodes)
    graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in ends.constants.items())
    graph.output.remove(value)
    graph.input.extend(_values(ends.inputs))
    graph.output.extend(_values(ends.outputs))
    onnx.checker.check_model(model, full_check=True)


def _values(tensors: Mapping[str, tuple[str, Shape]]) -> list[onnx.ValueInfoProto]:
    kinds = {"float32": onnx.TensorProto.FLOAT, "uint8": onnx.TensorProto.UINT8}
    return [
        helper.make_tensor_value_info(name, kinds[dtype], shape)
        for name, (dtype, shape) in tensors.items()
    ]


def _decoded(bundle: Bundle, threads: int | None) -> dict[str, dict[str, Any]]:
    """By subset and task, what is decoded of a made-up frame, in the pixels of the grid."""
    manifest = bundle.manifest
    wiring, specs = manifest.wiring, manifest.tasks.every
    files = {n: g.file for n, g in manifest.graphs.encoders.items()}
    files[FUSER] = manifest.graphs.fuser.file
    engines = {n: OnnxRuntimeEngine(bundle.source(f), "cpu", threads) for n, f in files.items()}
    fuser = engines[FUSER]
    features = features_of(wiring, engines, probe_inputs(manifest.inputs))
    parts = {part for part in every_part(manifest.tasks) if part in every_part(specs)}
    found = {}
    for subset in manifest.subsets:
        feeds = with_numbers(feeds_for(wiring, features, subset), fuser.inputs)
        feeds |= feeds_of(specs, subset, feeds)
        found[subset_name(subset)] = interpret(
            manifest, fuser.run(feeds), parts, **_about(manifest, subset)
        )
    return found


def _about(manifest: BundleManifest, subset: tuple[str, ...]) -> dict[str, Any]:
    grid = manifest.inputs.grid
    reference = next(n for n in manifest.reference_order() if n in subset)
    return {
        "reference": reference,
        "grids": {n: GridMap.fit((grid.height, grid.width), grid) for n in subset},
        "samples": {},
        "fresh": frozenset(),
        "inputs": subset,
    }


def _compare(found: Any, wanted: Any, folder: Path, where: str = "") -> None:
    """Refuse values that are not alike: mappings, dataclasses and arrays."""
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            _compare(found[key], value, folder, f"{where} {key}")
    elif is_dataclass(wanted) and not isinstance(wanted, type):
        for field in fields(wanted):
            place = f"{where} {field.name}"
            _compare(getattr(found, field.name), getattr(wanted, field.name), folder, place)
    elif isinstance(wanted, np.ndarray) and not _alike(found, wanted):
        raise ParityError(f"{where.strip()}: not what is decoded of logits", where=str(folder))


def _alike(found: NDArray[Any], wanted: NDArray[Any]) -> bool:
    if found.shape != wanted.shape:
        return False
    if wanted.dtype.kind in "iu":
        return wanted.size == 0 or float((found == wanted).mean()) >= _LEAST_EQUAL
    return bool(np.allclose(found, wanted, rtol=_MOST_OFF, atol=_MOST_OFF))
