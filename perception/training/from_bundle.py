"""Reading a model's weights back from a bundle: its graphs hold them under the names of the model's parts.

Batch normalization was folded into convolutions at export.  What is read back computes the same, which is
checked against the bundle's own answers, with norms that change nothing until `settle` measures them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from perception.errors import AnySenseError, ConfigError
from perception.frame import subset_name
from perception.models.interface import FusionModel, flatten_output
from perception.models.layers import normalized
from perception.models.registry import build_model
from perception.runtime.bundle import Bundle
from perception.runtime.engines.onnxruntime import OnnxRuntimeEngine
from perception.runtime.engines.probe import probe_inputs
from perception.runtime.modular import features_of, feeds_for
from perception.runtime.wiring import Wiring
from perception.training.config import ModelSpec
from perception.training.folded import encoder_factors, linear_weights, logarithm, passing_shares

TOLERANCE = 1e-3
"""Of answers, relative to the largest one; that of exports."""

_PREFIX, _HALF = "model.", "_half"
_OLD_PREFIX = "encoder."
"""Of an encoder's weights in graphs of schema 1."""

FACTORS = "factors:"
"""Before an encoder's name: the logarithms of its factors, which have no name in graphs."""

SHARE = "passing share"
"""Behind an encoder's prefix: the logit of its share, which has none either."""


def model_of_bundle(bundle: Bundle, spec: ModelSpec, where: str) -> FusionModel:
    """The bundle's model in evaluation mode, with its weights and for its own inputs and tasks.

    Args:
        bundle: of float32 arithmetic, whose graphs end in logits.
        spec: says what model it is, as bundles do not say all of it.
        where: for messages.

    Raises:
        ConfigError: it is another model, or of graphs that cannot be read back.
        MissingDependencyError: there is no `onnx`.
    """
    manifest = bundle.manifest
    named = manifest.model.get("name")
    hint = "take model.name and model.options of the configuration that made it"
    if named not in (None, spec.name):
        raise ConfigError(f"is of the model {named}, not {spec.name}", where=where, hint=hint)
    if manifest.precision != "fp32":
        raise ConfigError(
            f"its arithmetic is {manifest.precision}",
            where=where,
            hint="start from its float32 bundle",
        )
    try:
        model = build_model(
            spec.name,
            manifest.inputs,
            dict(manifest.tasks.root),
            pretrained=False,
            options=spec.options,
        )
    except AnySenseError as error:
        raise ConfigError(
            f"the configured model cannot be built as the bundle has it: {error}", where=where
        ) from error
    model.load_state_dict(_unfolded(model.eval(), _stored(bundle), where, hint), strict=False)
    _compare(model, bundle, where, hint)
    return model


def _stored(bundle: Bundle) -> dict[str, Tensor]:
    """All weights of a bundle's encoders and fuser, by the model's names.

    Logarithms of factors of encoders stand under `FACTORS` and the encoder's name; the one logit of a share
    of an encoder's under its prefix and `SHARE`.
    """
    import onnx
    from onnx import numpy_helper

    manifest, found = bundle.manifest, dict[str, Tensor]()
    graphs = manifest.graphs
    files = {graph.file: f"encoders.{name}." for name, graph in graphs.encoders.items()}
    for file, encoder in (files | {graphs.fuser.file: ""}).items():
        graph = onnx.load_from_string(bundle.source(file).read_bytes()).graph
        constants: dict[str, Any] = {}
        for tensor in graph.initializer:
            values = numpy_helper.to_array(tensor)
            wide = values.astype(np.float32) if values.dtype.kind == "f" else values
            constants[tensor.name.removesuffix(_HALF)] = wide
        named = constants | linear_weights(graph, constants)
        if not encoder:
            encoders = manifest.inputs.encoders
            factors = encoder_factors(graph, constants, encoders, graphs.separator)
            logs = {f"{FACTORS}{e}": logarithm(value) for e, value in factors.items()}
            named |= {name: value for name, value in logs.items() if value is not None}
        elif len(shares := passing_shares(graph, constants)) == 1:
            found[f"{encoder}{SHARE}"] = torch.tensor(shares[0])
        for name, values in named.items():
            name = name.removeprefix(_PREFIX)
            if encoder and name.startswith(_OLD_PREFIX):
                name = encoder + name.removeprefix(_OLD_PREFIX)
            found[name] = torch.tensor(values)
    return found


def _unfolded(
    model: FusionModel, stored: Mapping[str, Tensor], where: str, hint: str
) -> dict[str, Tensor]:
    """What the model computes the same with as the graphs that `stored` is of."""
    own, state = model.state_dict(), {}

    def take(name: str, shape: torch.Size) -> Tensor:
        factor = f"{FACTORS}{name.rpartition('.')[2]}"
        share = f"{name.rpartition('.')[0]}.{SHARE}"
        for other in (factor, share) if name not in stored else ():
            if other in stored and stored[other].shape == shape:
                name = other
        if name not in stored:
            raise ConfigError(f"has no '{name}', which the model has", where=where, hint=hint)
        if stored[name].shape != shape:
            sizes = f"{tuple(stored[name].shape)}, not {tuple(shape)} as in the model"
            raise ConfigError(f"its '{name}' is {sizes}", where=where, hint=hint)
        return stored[name]

    modules = dict(model.named_modules())
    done: set[str] = set()
    shared: dict[int, Tensor] = {}
    for conv_name, norm_name in normalized(model):
        conv, norm = modules[conv_name], modules[norm_name]
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        folded = take(f"{conv_name}.weight", conv.weight.shape)
        if id(conv.weight) in shared:  # of another encoder, whose norm scales it otherwise
            weight = shared[id(conv.weight)]
            scale = _per_channel(folded * weight) / _per_channel(weight * weight).clamp(min=1e-30)
        else:
            # As large as the model's own, so that a step of the optimizer changes as much of them.
            scale = (
                _per_channel(folded**2)
                / conv.weight.detach().cpu().pow(2).sum().div(len(folded)).clamp(min=1e-30)
            ).sqrt()
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
            weight = shared[id(conv.weight)] = folded / scale[:, None, None, None]
        state[f"{conv_name}.weight"] = weight
        bias = take(f"{conv_name}.bias", norm.weight.shape)
        if conv.bias is not None:
            state[f"{conv_name}.bias"] = torch.zeros_like(bias)
        state[f"{norm_name}.weight"] = scale * (1 + norm.eps) ** 0.5
        state[f"{norm_name}.bias"] = bias
        state[f"{norm_name}.running_mean"] = torch.zeros_like(bias)
        state[f"{norm_name}.running_var"] = torch.ones_like(bias)
        done |= {n for n in own if n.startswith((f"{conv_name}.", f"{norm_name}."))}
    for name, value in own.items():
        trained_only = any(name.startswith(f"{part}.") for part in model.training_parts)
        if name not in done and not trained_only and not name.endswith("num_batches_tracked"):
            state[name] = take(name, value.shape)
    return state


def _per_channel(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


@torch.no_grad()
def _compare(model: FusionModel, bundle: Bundle, where: str, hint: str) -> None:
    """Refuse a model that does not answer as the bundle does, for all inputs and for each alone."""
    manifest = bundle.manifest
    wiring = Wiring(manifest.inputs.encoders, manifest.graphs.presence, manifest.graphs.separator)
    names, given = manifest.inputs.names, probe_inputs(manifest.inputs)
    images = {n: tree_map(torch.from_numpy, own) for n, own in given.items()}
    try:
        load = lambda file: OnnxRuntimeEngine(bundle.source(file), "cpu")  # noqa: E731
        encoders = {e: load(g.file) for e, g in manifest.graphs.encoders.items()}
        fuser = load(manifest.graphs.fuser.file)
        features = features_of(wiring, encoders, given)
        for subset in dict.fromkeys([tuple(names), *((n,) for n in names)]):
            wanted = fuser.run(feeds_for(wiring, features, subset))
            found = flatten_output(model({n: images[n] for n in subset}))
            if missing := [n for n in found if n not in wanted]:
                raise ConfigError(
                    f"its graphs give no {missing[0]}",
                    where=where,
                    hint="start from the bundle whose graphs end in logits",
                )
            for name, value in found.items():
                worst = float(np.abs(wanted[name] - value.numpy()).max())
                if not worst <= TOLERANCE * max(1.0, float(np.abs(wanted[name]).max())):
                    raise ConfigError(
                        f"the configured model with its weights differs from it by {worst:.2g} in "
                        f"{name} of {subset_name(subset)}",
                        where=where,
                        hint=hint,
                    )
    except ConfigError:
        raise
    except AnySenseError as error:
        raise ConfigError(
            f"its graphs cannot be compared with the model: {error}", where=where
        ) from error


@torch.no_grad()
def settle(model: FusionModel, pairs: list[tuple[str, str]], samples: list[dict[str, Any]]) -> None:
    """Give norms that change nothing the statistics of what goes into them, and take these back after it.

    The model's answers stay as they are; in training mode, where norms use the statistics of the batch,
    they stay nearly so.

    Args:
        model: changed in place; in evaluation mode afterwards.
        pairs: names of convolutions and norms, whose running mean is 0 and variance 1.
        samples: inputs on the model's device.
    """
    modules = dict(model.named_modules())
    norms = {
        name: module for _, name in pairs if isinstance(module := modules[name], nn.BatchNorm2d)
    }
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def looking(name: str) -> Any:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].double()
            moments = torch.stack([x.sum((0, 2, 3)), x.square().sum((0, 2, 3))])
            sums[name] = sums[name] + moments if name in sums else moments
            counts[name] = counts.get(name, 0) + x.numel() // x.shape[1]

        return look

    hooks = [norm.register_forward_pre_hook(looking(name)) for name, norm in norms.items()]
    model.eval()
    for inputs in samples:
        model(inputs)
    for hook in hooks:
        hook.remove()
    for name, norm in norms.items():
        if name not in sums or norm.running_mean is None or norm.running_var is None:
            continue
        mean, square = sums[name] / counts[name]
        variance = (square - mean * mean).clamp(min=1e-8)
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        norm.bias.copy_(norm.bias.double() + gain * (mean - norm.running_mean.double()))
        norm.weight.copy_(gain * (variance + norm.eps).sqrt())
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
