"""Assignment and losses of the detection head, against cases worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.data.base import Boxes
from perception.training.assignment import assign, pairwise_iou
from perception.training.tasks.boxes2d import cell_grid, detection_loss, flatten_outputs, giou_loss


def _outputs(
    size: tuple[int, int] = (64, 64), classes: int = 2
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    return {
        s: (
            torch.zeros(1, classes, size[0] // s, size[1] // s),
            torch.ones(1, 4, size[0] // s, size[1] // s),
        )
        for s in (8, 16, 32)
    }


def test_iou_of_known_boxes() -> None:
    a = torch.tensor([[0.0, 0, 10, 10]])
    b = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    assert torch.allclose(pairwise_iou(a, b), torch.tensor([[1.0, 1 / 3, 0.0]]), atol=1e-5)


def test_giou_loss_is_zero_for_equal_and_above_one_for_distant_boxes() -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    assert giou_loss(box, box).item() == pytest.approx(0.0, abs=1e-5)
    assert giou_loss(box, box + 100).item() > 1.5


def test_cells_decode_to_boxes_around_their_centers() -> None:
    logits, boxes = flatten_outputs(_outputs())
    assert logits.shape == (1, 64 + 16 + 4, 2)
    assert boxes[0, 0].tolist() == [-4.0, -4.0, 12.0, 12.0]  # center 4, sides of 1 stride (8 px)
    assert boxes[0, -1].tolist() == [16.0, 16.0, 80.0, 80.0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 50),
            st.floats(0, 50),
            st.floats(2, 60),
            st.floats(2, 60),
            st.integers(0, 1),
        ),
        max_size=6,
    )
)
def test_every_box_of_its_own_place_gets_a_cell_and_targets_are_sound(
    rows: list[tuple[float, float, float, float, int]],
) -> None:
    outputs = _outputs()
    logits, boxes = flatten_outputs(outputs)
    centers, strides = cell_grid(outputs)
    truth = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, _ in rows]).reshape(-1, 4)
    classes = torch.tensor([r[4] for r in rows], dtype=torch.int64)
    none = torch.zeros(len(rows), dtype=torch.bool)
    target = assign(logits[0].sigmoid(), boxes[0], centers, strides, truth, classes, none)
    assert target.positive.any() == bool(rows)
    assert ((target.scores >= 0) & (target.scores <= 1)).all()
    assert ((target.scores > 0).any(1) <= target.positive).all()
    if rows:
        owned = target.boxes[target.positive]
        assert all((owned[i] == truth).all(1).any() for i in range(len(owned)))


def test_ignored_boxes_mask_the_background_but_teach_nothing() -> None:
    outputs = _outputs()
    logits, boxes = flatten_outputs(outputs)
    centers, strides = cell_grid(outputs)
    target = assign(
        logits[0].sigmoid(),
        boxes[0],
        centers,
        strides,
        torch.tensor([[0.0, 0, 32, 32]]),
        torch.tensor([0]),
        torch.tensor([True]),
    )
    assert not target.positive.any()
    assert target.ignore.sum() == 16 + 4 + 1


def test_the_loss_falls_when_predictions_reach_the_truth() -> None:
    torch.manual_seed(0)
    raw = {
        s: (torch.full((1, 2, 64 // s, 64 // s), -3.0), torch.ones(1, 4, 64 // s, 64 // s))
        for s in (8, 16, 32)
    }
    leaves = [t.requires_grad_() for pair in raw.values() for t in pair]
    truth = [Boxes.of(np.array([[4, 4, 30, 40]]), np.array([1]))]
    optimizer = torch.optim.Adam(leaves, lr=0.1)
    losses = []
    for _ in range(60):
        loss = detection_loss({s: (c, b.clamp(min=0)) for s, (c, b) in raw.items()}, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert torch.isfinite(torch.tensor(losses)).all()
