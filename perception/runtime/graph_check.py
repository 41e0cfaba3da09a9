"""Whether graphs are what the manifest says: names, shapes, types, class counts, sizes.

The same rules serve a graph as its file declares it, before any backend sees it, and as a backend
understood it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from perception.errors import BundleError
from perception.files.limits import MAX_TENSOR_BYTES
from perception.runtime.manifest import BundleManifest
from perception.runtime.onnx_file import GraphInfo, dtype_name, size_of
from perception.runtime.wiring import PRESENCE, composed
from perception.tasks.registry import TASKS, graph_inputs
from perception.tasks.task import Shape

TYPES = ("float32", "uint8", "int32")
"""What tensors between graphs, and those that kinds of sensors make, may be."""


@dataclass(frozen=True)
class Signature:
    """What a graph takes and gives.

    Attributes:
        inputs, outputs: shapes by name; None where the graph does not tell.
        where: names the graph in errors.
        types: of inputs and outputs, by name; one that is not in it may be of any type.
    """

    inputs: Mapping[str, Shape | None]
    outputs: Mapping[str, Shape | None]
    where: str
    types: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(info: GraphInfo, where: str) -> Signature:
        """That of a file.

        Raises:
            BundleError: a tensor is not of one of `TYPES`, has a name twice, or is impossibly large.
        """
        for tensors, kind in ((info.inputs, "input"), (info.outputs, "output")):
            names = [t.name for t in tensors]
            for tensor in tensors:
                if (found := dtype_name(tensor.dtype)) not in TYPES:
                    line = f"{kind} {tensor.name} is not float32, but {found}"
                    raise BundleError(line, where=where, hint=f"one of {', '.join(TYPES)}")
                if names.count(tensor.name) > 1:
                    raise BundleError(f"{kind} {tensor.name} is there twice", where=where)
        inputs, outputs = ({t.name: t.shape for t in own} for own in (info.inputs, info.outputs))
        types = {t.name: dtype_name(t.dtype) for t in (*info.inputs, *info.outputs)}
        return Signature(inputs, outputs, where, types).bounded()

    def bounded(self) -> Signature:
        """Itself.

        Raises:
            BundleError: a size is not positive, or all inputs or outputs together are too large.
        """
        for tensors, kind in ((self.inputs, "input"), (self.outputs, "output")):
            total = 0
            for name, shape in tensors.items():
                if any(d is not None and d < 1 for d in shape or ()):
                    raise BundleError(f"{kind} {name} has the shape {shape}", where=self.where)
                total += size_of(shape or ())
            if total > MAX_TENSOR_BYTES:
                raise BundleError(
                    f"its {kind}s take {total} bytes, more than the limit of {MAX_TENSOR_BYTES}",
                    where=self.where,
                )
        return self


def check_modular(
    manifest: BundleManifest, encoders: Mapping[str, Signature], fuser: Signature
) -> None:
    """Refuse encoders, by name, and a fuser that are not those that the manifest promises.

    Raises:
        BundleError: the first difference, with the graph that it is in.
    """
    wiring, features, types = manifest.wiring, dict[str, Shape | None](), dict[str, str]()
    for name, spec in manifest.inputs.items():
        encoder = encoders[spec.encoder]
        shapes = {tensor: (1, *own.shape) for tensor, own in spec.tensors.items()}
        dtypes = {tensor: own.dtype for tensor, own in spec.tensors.items()}
        _check_inputs(encoder, wiring.feeds(name, shapes), wiring.feeds(name, dtypes))
        if not encoder.outputs:
            raise BundleError("gives nothing", where=encoder.where)
        own = wiring.features(name, encoder.outputs)
        _check_novelty(manifest, name, encoder.where, own)
        for feature in sorted(own.keys() & {*features, PRESENCE}):
            raise BundleError(f"another graph gives {feature} too", where=encoder.where)
        features.update(own)
        given = {n: encoder.types[n] for n in encoder.outputs if n in encoder.types}
        types.update(wiring.features(name, given))
    wanted = {**features, PRESENCE: (len(wiring.presence),), **_optional(manifest, fuser)}
    _check_inputs(fuser, wanted, types)
    _check_outputs(manifest, fuser)


def _check_novelty(
    manifest: BundleManifest, name: str, where: str, features: Mapping[str, Shape | None]
) -> None:
    """Refuse statistics of features that an input's encoder does not give, or of other channels."""
    known = manifest.novelty.get(name)
    for feature, own in known.features.items() if known is not None else ():
        shape = features.get(feature)
        if feature not in features:
            raise BundleError(f"gives no {feature}, of which novelty.{name} tells", where=where)
        channels = len(own.mean) / known.bands if known is not None else 0
        if shape is not None and (len(shape) < 2 or shape[1] not in (None, channels)):
            line = f"gives {feature} of shape {list(shape)}, novelty.{name} tells of {channels:g}"
            raise BundleError(f"{line} channels", where=where)


def check_composed(
    manifest: BundleManifest, graph: Signature, names: Iterable[str], presence: bool
) -> None:
    """Refuse one graph for several inputs that is not what the manifest promises.

    Raises:
        BundleError: the first difference.
    """
    wanted, types = dict[str, Shape | None](), dict[str, str]()
    for name in names:
        for tensor, spec in manifest.inputs[name].tensors.items():
            wanted[composed(name, tensor)] = (1, *spec.shape)
            types[composed(name, tensor)] = spec.dtype
    wanted |= _optional(manifest, graph)
    count = len(manifest.graphs.presence)
    _check_inputs(graph, {**wanted, PRESENCE: (count,)} if presence else wanted, types)
    _check_outputs(manifest, graph)


def expected_outputs(manifest: BundleManifest, found: Collection[str] = ()) -> dict[str, Shape]:
    """What a fuser gives by the manifest; sizes that it leaves open are None.

    Args:
        manifest: the bundle's.
        found: names of the graph's outputs, which say which form of each task it has.
    """
    grid, wanted = manifest.inputs.grid, dict[str, Shape]()
    for name, spec in manifest.tasks.items():
        wanted |= TASKS[name].form(spec, (grid.height, grid.width), found)
    return wanted


def _optional(manifest: BundleManifest, graph: Signature) -> dict[str, Shape]:
    """What a graph takes for a task, and may go without."""
    known = graph_inputs(manifest.tasks.every)
    return {name: shape for name, shape in known.items() if name in graph.inputs}


def _check_inputs(
    graph: Signature, wanted: Mapping[str, Shape | None], types: Mapping[str, str]
) -> None:
    """`types` that are not given are float32."""
    for name in sorted(wanted.keys() - graph.inputs.keys()):
        raise BundleError(f"has no input {name}", where=graph.where)
    for name in sorted(graph.inputs.keys() - wanted.keys()):
        raise BundleError(f"wants {name}, which nothing gives", where=graph.where)
    for name, shape in wanted.items():
        if not fits(graph.inputs[name], shape):
            raise BundleError(
                f"takes {name} of shape {shape_text(graph.inputs[name])}, not {shape_text(shape)}",
                where=graph.where,
            )
        wanted_type = types.get(name, "float32")
        if (found := graph.types.get(name, wanted_type)) != wanted_type:
            raise BundleError(f"input {name} is not {wanted_type}, but {found}", where=graph.where)


def _check_outputs(manifest: BundleManifest, graph: Signature) -> None:
    for name, shape in expected_outputs(manifest, graph.outputs).items():
        if name not in graph.outputs:
            raise BundleError(f"has no output {name}", where=graph.where)
        if not fits(graph.outputs[name], shape):
            raise BundleError(
                f"gives {name} of shape {shape_text(graph.outputs[name])}, where bundle.yaml says "
                f"{shape_text(shape)}",
                where=graph.where,
            )
    ours = [name for name, spec in manifest.tasks.items() if name in TASKS.own]
    grid = (manifest.inputs.grid.height, manifest.inputs.grid.width)
    for task in ours:  # a plug-in's may decode integers, too
        for name in TASKS[task].form(manifest.tasks[task], grid, graph.outputs):
            allowed = TASKS[task].dtypes.get(name, ("float32",))
            if graph.types.get(name, allowed[0]) not in allowed:
                line = f"output {name} is not {' or '.join(allowed)}, but {graph.types[name]}"
                raise BundleError(line, where=graph.where)


def fits(found: Shape | None, wanted: Shape | None) -> bool:
    """Whether two shapes can be the same, as far as both are known."""
    if found is None or wanted is None or found == wanted:
        return True
    return len(found) == len(wanted) and all(
        a is None or b is None or a == b for a, b in zip(found, wanted, strict=True)
    )


def shape_text(shape: Shape | None) -> str:
    """A shape for people, such as `(1, any, any)`."""
    if shape is None:
        return "(unknown)"
    return f"({', '.join('any' if d is None else str(d) for d in shape)})"
