"""What sets each of the zoo's models apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from perception.errors import ConfigError
from perception.models.complexity import count_gmac, count_parameters
from perception.models.heads import specs_for
from perception.models.interface import ModelOutput
from perception.models.zoo.any2seg import AgnosticFusion, Any2Seg, PrototypeTeacher, class_means
from perception.models.zoo.featenhancer import EnhancedAnyFuse, FeatEnHancer, enhance_rgb
from perception.models.zoo.multimodn import MultiModN
from perception.models.zoo.picture import picture_of, to_rgb
from perception.models.zoo.segmif import SegMiF
from perception.sensors.rgb import RgbSpec


def test_multimodn_reads_every_state_and_skips_absent_modalities() -> None:
    torch.manual_seed(0)
    model = MultiModN(("rgb", "depth", "thermal"), specs_for(segmentation=3), width=0.25, state=16)
    images = {m: torch.randn(2, 3 if m == "rgb" else 2, 64, 64) for m in model.modalities}
    model.eval()
    features = {m: model.encode(m, x) for m, x in images.items()}
    states = model.states(features)
    assert len(states) == 4
    skip = {m: torch.tensor([True, m != "depth"]).reshape(2, 1, 1, 1) for m in model.modalities}
    skipped = model.states(features, skip)
    for s in (4, 32):
        assert torch.equal(skipped[2][s][1], skipped[1][s][1]), "depth changed the second sample"
        assert torch.equal(skipped[2][s][0], states[2][s][0])
    # Thermal sees the state that depth left: the order matters, fusion is not parallel.
    assert not torch.allclose(skipped[3][4][1], states[3][4][1])
    taps = model.train()(images).taps
    assert set(taps) == {"step0", "step1", "change"}


def test_featenhancer_at_half_resolution_costs_a_quarter() -> None:
    image = {"rgb": torch.zeros(1, 3, 64, 96)}

    class Alone(torch.nn.Module):
        def __init__(self, half: bool) -> None:
            super().__init__()
            self.enhance = FeatEnHancer(half=half)

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            out: torch.Tensor = self.enhance(inputs["rgb"])
            return out

    full, half = count_gmac(Alone(False), image), count_gmac(Alone(True), image)
    assert half == pytest.approx(full / 4, rel=0.02)
    assert count_parameters(Alone(False)) == count_parameters(Alone(True))


def test_featenhancer_changes_the_image_within_its_eight_curves() -> None:
    torch.manual_seed(0)
    image = torch.randn(1, 3, 64, 64)
    change = FeatEnHancer()(image) - image
    assert 0 < change.abs().max() < 8


def test_featenhancer_goes_in_front_of_any_model_with_an_rgb_encoder() -> None:
    model = Any2Seg(
        ("rgb", "depth"), specs_for(segmentation=3), width=0.25, decoder_width=32
    ).eval()
    images = {"rgb": torch.randn(1, 3, 64, 64), "depth": torch.randn(1, 2, 64, 64)}
    before = model(images).values["segmentation"]
    alone = model({"depth": images["depth"]}).values["segmentation"]
    enhance_rgb(model)
    assert not torch.allclose(model(images).values["segmentation"], before)
    assert torch.equal(model({"depth": images["depth"]}).values["segmentation"], alone)
    with pytest.raises(ConfigError, match="needs rgb"):
        EnhancedAnyFuse(("thermal",), specs_for(segmentation=3))


def test_pictures_survive_brightness_and_colour() -> None:
    mean, std = torch.tensor(RgbSpec().mean), torch.tensor(RgbSpec().std)
    image = (torch.rand(1, 3, 8, 8) * 255 - mean[:, None, None]) / std[:, None, None]
    luma, chroma = picture_of("rgb", image)
    assert torch.allclose(to_rgb(luma, chroma), image, atol=1e-2)
    thermal, none = picture_of(
        "thermal", torch.tensor([-2.0, 2.0]).reshape(1, 1, 1, 2).repeat(1, 2, 1, 1)
    )
    assert thermal.flatten().tolist() == [0.0, 1.0] and not none.any()


def test_segmif_learns_to_fuse_towards_the_brighter_modality() -> None:
    torch.manual_seed(0)
    model = SegMiF(
        ("rgb", "thermal"), specs_for(segmentation=3), width=0.25, decoder_width=32, edge=True
    )
    # Even pictures: that a mean of both is too dark is all that there is to learn.
    inputs = {"rgb": torch.full((2, 3, 64, 64), -1.0), "thermal": torch.full((2, 2, 64, 64), 0.5)}
    rgb, thermal = (float(picture_of(m, x)[0].mean()) for m, x in inputs.items())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(15):
        output = model.train()(inputs)
        loss = model.losses(output, {})["fusion"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(output.taps["brightest"].mean()) == pytest.approx(thermal, abs=1e-5)
    gap = (output.taps["fused"] - output.taps["brightest"]).abs().mean()
    assert gap.item() < 0.4 * (thermal - rgb) / 2


def test_segmif_s_loss_is_the_distance_in_brightness_and_in_edges() -> None:
    model = SegMiF(("rgb", "thermal"), specs_for(segmentation=3), width=0.25, decoder_width=32)
    brightest = torch.rand(1, 1, 8, 8)

    def loss(fused: torch.Tensor) -> float:
        output = ModelOutput(None)
        output.taps = {"fused": fused, "brightest": brightest}
        return float(model.losses(output, {})["fusion"])

    assert loss(brightest) == 0
    assert loss(brightest - 0.25) == pytest.approx(0.25, abs=1e-6)
    step = torch.zeros(1, 1, 8, 8)
    step[..., 4:] = 0.5  # one vertical edge more: 8 of the 56 horizontal differences
    assert loss(brightest + step) == pytest.approx(0.25 + 0.5 * 8 / 56, abs=1e-6)


def test_segmif_gives_more_weight_to_the_task_whose_loss_falls_slower() -> None:
    model = SegMiF(("rgb", "thermal"), specs_for(segmentation=3), width=0.25, decoder_width=32)
    for step in range(40):
        weight = model._task_weight(torch.tensor([1.0, 1.0 * 0.9**step]))
    assert weight < 0.9  # fusion falls, segmentation does not
    for step in range(40):
        weight = model._task_weight(torch.tensor([1.0 * 0.9**step, 1.0]))
    assert weight > 1.1


def test_segmif_edge_variant_costs_less_than_half_and_has_the_same_parameters() -> None:
    models = [
        SegMiF(("rgb", "thermal"), specs_for(segmentation=3), width=0.25, decoder_width=32, edge=e)
        for e in (False, True)
    ]
    images = {"rgb": torch.zeros(1, 3, 64, 96), "thermal": torch.zeros(1, 2, 64, 96)}
    full, edge = (count_gmac(m, images) for m in models)
    assert edge < 0.5 * full
    assert count_parameters(models[0]) == count_parameters(models[1])


def test_agnostic_fusion_trusts_the_modality_that_agrees_with_the_others() -> None:
    torch.manual_seed(0)
    fusion = AgnosticFusion(8)
    torch.nn.init.zeros_(fusion.detail.weight)
    torch.nn.init.zeros_(fusion.detail.bias)  # type: ignore[arg-type]
    fusion.refine = torch.nn.Identity()
    torch.nn.init.constant_(fusion.temperature, 20.0)
    agreed = torch.randn(1, 8, 1, 1)
    odd = -agreed
    on = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    fused = fusion([agreed, agreed, odd], [on, on, on])
    assert torch.allclose(fused, agreed, atol=1e-3)


def test_any2seg_shares_convolutions_and_keeps_norms_apart() -> None:
    model = Any2Seg(("rgb", "depth"), specs_for(segmentation=3), width=0.25)
    rgb, depth = (dict(model.encoders[m].named_parameters()) for m in ("rgb", "depth"))
    assert rgb["stages.1.0.expand_conv.weight"] is depth["stages.1.0.expand_conv.weight"]
    assert rgb["stages.1.0.expand_bn.weight"] is not depth["stages.1.0.expand_bn.weight"]


def test_class_means_are_the_means_of_the_labelled_cells() -> None:
    features = torch.arange(8.0).reshape(1, 2, 2, 2)
    labels = torch.tensor([[0, 0], [2, 255]])[None]
    means, present = class_means(features, labels, 3)
    assert present.tolist() == [True, False, True]
    assert means[0].tolist() == [0.5, 4.5] and means[2].tolist() == [2.0, 6.0]


def test_the_prototype_teacher_is_frozen_and_not_counted() -> None:
    model = Any2Seg(
        ("rgb", "depth"), specs_for(segmentation=4), width=0.25, decoder_width=32, distillation=1.0
    ).train()
    plain = Any2Seg(("rgb", "depth"), specs_for(segmentation=4), width=0.25, decoder_width=32)
    assert count_parameters(model) == count_parameters(plain)
    assert model.teacher is not None and not model.teacher.training
    images = {"rgb": torch.randn(2, 3, 64, 64), "depth": torch.randn(2, 2, 64, 64)}
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[:, 32:], labels[:, :, 32:] = 1, 2
    losses = model.losses(model(images), {"segmentation": labels})
    assert set(losses) == {"distill_within", "distill_between"}
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None for p in model.teacher.parameters())
    assert model.encoders["depth"].stem.conv.weight.grad.any()  # type: ignore[union-attr]
    _, known = model.teacher.correlations()
    assert known.tolist() == [True, True, True, False]


def test_distillation_brings_the_class_correlations_to_the_given_embeddings(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    table = np.array([[1, 0.1], [1, -0.1], [-1, 0.2], [-1, -0.2]], np.float32)
    np.save(tmp_path / "words.npy", table)
    model = Any2Seg(
        ("rgb", "depth"),
        specs_for(segmentation=4),
        width=0.25,
        distillation=1.0,
        class_embeddings=str(tmp_path / "words.npy"),
    ).train()
    images = {"rgb": torch.randn(2, 3, 64, 64), "depth": torch.randn(2, 2, 64, 64)}
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    labels[:, :32, 32:], labels[:, 32:, :32], labels[:, 32:, 32:] = 1, 2, 3
    optimizer = torch.optim.Adam(model.encoders.parameters(), 1e-3)
    seen = []
    for _ in range(12):
        loss = sum(model.losses(model(images), {"segmentation": labels}).values())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
        seen.append(float(loss.detach()))  # type: ignore[union-attr]
    assert seen[-1] < 0.5 * seen[0]
    with pytest.raises(ConfigError, match=r"expected \(3, D\)"):
        Any2Seg(
            ("rgb",),
            specs_for(segmentation=3),
            distillation=1.0,
            class_embeddings=str(tmp_path / "words.npy"),
        )
    with pytest.raises(ConfigError, match="looks at rgb"):
        Any2Seg(("depth",), specs_for(segmentation=3), distillation=1.0)


def test_given_embeddings_need_no_network() -> None:
    teacher = PrototypeTeacher(3, torch.eye(3))
    assert teacher.look(torch.randn(1, 3, 64, 64)) is None
    assert torch.equal(teacher.correlations()[0], torch.eye(3))
