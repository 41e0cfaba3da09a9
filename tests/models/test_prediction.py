"""Predicting absent features: the switch, its gating, and that the predictor learns."""

from __future__ import annotations

import torch
from absent_inputs import assert_absent_change_nothing

from perception.models.anyfuse import AnyFuse
from perception.models.complexity import count_parameters
from perception.models.heads import specs_for
from perception.models.prediction import FeaturePredictor, fill_in, prediction_loss

TRIO = ("rgb", "depth", "thermal")


def _model(predict: bool) -> AnyFuse:
    torch.manual_seed(0)
    return AnyFuse(
        TRIO, specs_for(segmentation=3), width=0.25, decoder_width=32, predict_missing=predict
    )


def _images() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {m: torch.randn(1, 3 if m == "rgb" else 2, 64, 64) for m in TRIO}


def test_the_switch_adds_the_predictor_and_nothing_else() -> None:
    off, on = _model(False), _model(True)
    assert off.predictor is None and on.predictor is not None
    extra = count_parameters(on) - count_parameters(off)
    assert extra == count_parameters(on.predictor) > 0
    on.load_state_dict(off.state_dict(), strict=False)
    images = _images()
    with torch.no_grad():
        a, b = off.eval()(images).values["segmentation"], on.eval()(images).values["segmentation"]
        assert torch.allclose(a, b, atol=1e-5), "with all modalities there is nothing to predict"
        few = {"depth": images["depth"]}
        assert not torch.allclose(off(few).values["segmentation"], on(few).values["segmentation"])


def test_absent_features_full_of_nan_are_replaced_by_predictions() -> None:
    assert_absent_change_nothing(_model(True).eval(), _images(), 1e-4)


def test_present_features_are_left_alone() -> None:
    predictor = FeaturePredictor(("rgb", "depth"), {8: 4}).eval()
    features, scores = ([torch.randn(1, 4, 2, 2) for _ in range(2)] for _ in range(2))
    there = [torch.full((1, 1, 1, 1), v) for v in (True, False)]
    full, trust = fill_in(predictor, ("rgb", "depth"), 8, features, scores, there)
    assert torch.equal(full[0], features[0]) and torch.equal(trust[0], scores[0])
    assert not torch.allclose(full[1], features[1])
    assert (trust[1] == -2.0).all()


def test_the_predictor_learns_and_the_encoders_do_not_bend_to_it() -> None:
    torch.manual_seed(0)
    predictor = FeaturePredictor(("rgb", "depth"), {8: 8})
    base = torch.randn(4, 8, 8, 8)
    mix = torch.randn(8, 8)
    other = torch.einsum("oc,nchw->nohw", mix, base).relu()
    maps = {
        "rgb": (base.requires_grad_(), torch.zeros(4, 8, 8, 8)),
        "depth": (other.detach().requires_grad_(), torch.zeros(4, 8, 8, 8)),
    }
    optimizer = torch.optim.Adam(predictor.parameters(), 1e-2)
    seen = []
    for _ in range(120):
        loss = prediction_loss(predictor, 8, maps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        seen.append(loss.item())
    assert seen[-1] < 0.6 * seen[0]
    assert maps["rgb"][0].grad is None and maps["depth"][0].grad is None


def test_training_gives_the_loss_only_where_there_is_something_to_predict_from() -> None:
    model, images = _model(True).train(), {m: x.repeat(2, 1, 1, 1) for m, x in _images().items()}
    assert set(model.losses(model(images), {})) == {"prediction"}
    assert model.losses(model({"rgb": images["rgb"]}), {}) == {}
    assert model.losses(_model(False).train()(images), {}) == {}
