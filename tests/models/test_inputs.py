"""Models by the names of their inputs: several of a kind, encoders that serve more than one."""

from __future__ import annotations

import copy
import hashlib
import pickle

import pytest
import torch

from perception.errors import ConfigError, InputError
from perception.frame import Kind, subsets_of
from perception.models.anyfuse import AnyFuse
from perception.models.complexity import count_parameters
from perception.models.elastic import ElasticSpace, extract
from perception.models.heads import specs_for
from perception.models.registry import MODELS, build_model
from perception.preprocess import CHANNELS, PreprocessContract
from perception.training.methods.gradients import scale_encoder_gradients
from tests.models.zoo import small

NAMES_BEFORE = {
    "anyfuse": "c1d92a7ad8c77f8e",
    "adapnet++": "6abad655edcb8823",
    "ssma": "cf78751bb6259016",
    "multimodn": "49577f2f43be4d18",
    "featenhancer": "ab1ffddc9a7d8521",
    "segmif": "29a2d5ee00817927",
    "any2seg": "53dfb9c52f7b6d7f",
    "tokens": "bc7607fda446c1cf",
    "multimae": "bc7607fda446c1cf",
    "mixer": "344451b573bdf2af",
    "blocked": "8a9bd54da969c4d2",
}
"""Digests of the names and shapes of every small model's tensors before inputs had names."""


def stereo(*others: Kind, encoder: str = "camera") -> PreprocessContract:
    """Two cameras that share an encoder (unless it is ''), and one input of each other kind."""
    cameras = {name: {"kind": "rgb", "encoder": encoder} for name in ("left", "right")}
    return PreprocessContract.model_validate({**cameras, **{k: {"kind": k} for k in others}})


def images(contract: PreprocessContract, batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = (64, 96)
    return {
        name: torch.randn(batch, CHANNELS[spec.kind], *shape, generator=generator)
        for name, spec in contract.items()
    }


def test_pinned_names_cover_every_model() -> None:
    assert set(NAMES_BEFORE) == set(small.PICTURES)


@pytest.mark.parametrize("name", NAMES_BEFORE)
def test_models_of_one_input_of_a_kind_keep_the_names_of_their_tensors(name: str) -> None:
    state = small.small_model(name).state_dict()
    text = "\n".join(f"{key} {tuple(value.shape)}" for key, value in state.items())
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == NAMES_BEFORE[name]


def test_kinds_and_a_contract_of_them_build_the_same_model() -> None:
    built = []
    for inputs in (("depth", "rgb"), PreprocessContract(modalities=["rgb", "depth"])):
        torch.manual_seed(0)
        built.append(AnyFuse(inputs, specs_for(segmentation=3), width=0.25, decoder_width=16))
    first, second = (model.state_dict() for model in built)
    assert list(first) == list(second) and built[0].modalities == ("rgb", "depth")
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_shared_encoder_is_one_set_of_weights() -> None:
    options = {"width": 0.25, "decoder_width": 16}
    one = AnyFuse(("rgb", "depth"), specs_for(segmentation=3), **options)
    shared = AnyFuse(stereo("depth"), specs_for(segmentation=3), **options)
    apart = AnyFuse(stereo("depth", encoder=""), specs_for(segmentation=3), **options)
    assert shared.modalities == ("depth", "left", "right")
    assert set(shared.encoders) == {"camera", "depth"} == set(shared.aux_heads)
    assert count_parameters(shared) == count_parameters(one)
    camera = count_parameters(one.encoders["rgb"])
    assert count_parameters(apart) == count_parameters(one) + camera
    assert set(apart.encoders) == {"left", "right", "depth"}


def test_a_shared_encoder_learns_from_each_of_its_inputs() -> None:
    torch.manual_seed(0)
    model = AnyFuse(stereo(), specs_for(segmentation=3), width=0.25, decoder_width=16).train()
    inputs = images(model.inputs)

    def gradient(given: dict[str, torch.Tensor], of: str) -> torch.Tensor:
        """Of the auxiliary logits of one input, at the encoder's first layer."""
        model.zero_grad()
        output = model(given)
        assert set(output.aux) == set(given)
        output.aux[of].square().mean().backward()
        found = model.encoders["camera"].stem.conv.weight.grad  # type: ignore[union-attr]
        return found.clone()

    left, right = gradient(inputs, "left"), gradient(inputs, "right")
    assert left.any() and right.any() and not torch.allclose(left, right)
    assert torch.allclose(gradient({"right": inputs["right"]}, "right"), right)


def test_inputs_that_share_an_encoder_are_encoded_alike_and_swapped_they_fuse_alike() -> None:
    torch.manual_seed(0)
    model = AnyFuse(
        stereo("depth"), specs_for(segmentation=3, boxes2d=2), width=0.25, decoder_width=16
    )
    model.eval()
    given = images(model.inputs)
    features = [model.encode(name, given["left"]) for name in ("left", "right")]
    assert all(torch.equal(features[0][key], features[1][key]) for key in features[0])
    swapped = {**given, "left": given["right"], "right": given["left"]}
    assert torch.allclose(
        model(given).values["segmentation"], model(swapped).values["segmentation"], atol=1e-5
    )


@pytest.mark.parametrize("name", [n for n in small.PICTURES if MODELS[n].card.repeats])
@torch.no_grad()
def test_every_model_takes_several_inputs_of_a_kind(name: str) -> None:
    card = MODELS[name].card
    if card.most == 1:
        contract = PreprocessContract.model_validate({"front": {"kind": card.reference[0]}})
    else:
        contract = stereo("thermal")
    model = small.small_model(name, contract)
    assert set(model.encoders) == set(contract.encoders.values())
    given = images(contract)
    seen = []
    for subset in subsets_of(contract.names):
        output = model({m: given[m] for m in subset})
        maps = output.values.get("segmentation")
        maps = output.values["boxes2d"][8][0] if maps is None else maps
        assert maps.isfinite().all()
        seen.append(maps)
    assert all(not torch.equal(seen[0], other) for other in seen[1:])


@torch.no_grad()
def test_samples_of_a_batch_may_lack_either_camera() -> None:
    torch.manual_seed(0)
    model = AnyFuse(stereo("depth"), specs_for(segmentation=3), width=0.25, decoder_width=16).eval()
    given = images(model.inputs, batch=3)
    there = {"left": [1, 0, 1], "right": [0, 1, 1], "depth": [1, 1, 0]}
    present = {name: torch.tensor(flags).bool() for name, flags in there.items()}
    broken = {
        name: torch.where(present[name].reshape(-1, 1, 1, 1), x, torch.nan)
        for name, x in given.items()
    }
    together = model(broken, present).values["segmentation"]
    for row in range(3):
        alone = {n: x[row : row + 1] for n, x in given.items() if there[n][row]}
        assert torch.allclose(
            together[row : row + 1], model(alone).values["segmentation"], atol=1e-5
        )


def test_a_model_for_one_input_of_each_kind_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(
            "segmif", stereo(), specs_for(segmentation=3), pretrained=False, options={"width": 0.25}
        )
    assert str(caught.value) == (
        "preprocess: the model takes one input of each kind, not left (rgb), right (rgb)"
    )


@pytest.mark.parametrize("name", ["half", "training", "keys", "late"])
def test_an_encoder_whose_name_torch_needs_is_refused_in_one_line(name: str) -> None:
    contract = PreprocessContract.model_validate({"front": {"kind": "rgb", "encoder": name}})
    with pytest.raises(ConfigError) as caught:
        build_model(
            "anyfuse",
            contract,
            specs_for(segmentation=3),
            pretrained=False,
            options={"width": 0.25},
        )
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_name_that_is_no_kind_needs_a_contract() -> None:
    with pytest.raises(InputError, match="unknown kind of sensor 'sonar'"):
        build_model(
            "anyfuse", ("rgb", "sonar"), specs_for(segmentation=3), pretrained=False, options={}
        )


def test_factors_of_inputs_that_share_an_encoder_are_averaged() -> None:
    torch.manual_seed(0)
    model = AnyFuse(
        stereo("depth"), specs_for(segmentation=3), width=0.25, decoder_width=16
    ).train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    scale_encoder_gradients(model, {"left": 1.0, "right": 3.0, "depth": 0.5})
    found = {e: model.encoders[e].stem.conv.weight.grad.unique().tolist() for e in model.encoders}  # type: ignore[union-attr]
    assert found == {"camera": [2.0], "depth": [0.5]}


def test_subnetworks_of_a_shared_encoder() -> None:
    torch.manual_seed(0)
    model = AnyFuse(stereo("depth"), specs_for(segmentation=3), width=0.25, decoder_width=16).eval()
    space = ElasticSpace(model)
    assert set(space.ranges) == {"camera", "depth", "late"}
    smallest = extract(model, space.smallest())
    assert smallest.encoder_of == model.encoder_of
    assert smallest(images(model.inputs)).values["segmentation"].isfinite().all()


def test_models_and_contracts_can_be_copied_and_sent_to_other_processes() -> None:
    model = AnyFuse(stereo(), specs_for(segmentation=3), width=0.25, decoder_width=16)
    assert copy.deepcopy(model).inputs == model.inputs
    again = pickle.loads(pickle.dumps(model.inputs))
    assert again == model.inputs and again.names == ("left", "right")
    changed = model.inputs.model_copy(deep=True, update={"root": {}})
    assert not len(changed) and len(model.inputs) == 2
