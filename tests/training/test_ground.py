"""Training of boxes on the ground: targets, scenes moved as a whole, objects of other frames, learning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ground_scenes import CLASSES, GROUND, Scenes, boxes_of, camera, contract, poses
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.data.base import TruthBoxes3d
from perception.errors import AnySenseError
from perception.frame import Sample
from perception.geometry.boxes import inside
from perception.geometry.camera import CameraModel
from perception.geometry.grid import BirdseyeSpec
from perception.models.heads import half_of
from perception.models.pillarbev import pixel_loss
from perception.models.registry import build_model
from perception.preprocess.sample import preprocess_sample
from perception.training.augment import Unplaced
from perception.training.config import CorruptionSpec, LossSpec, TrainConfig
from perception.training.dataset import FusionDataset, collate, load_raw, network_inputs
from perception.training.objectives import loss_terms, total
from perception.training.pasting import Scene, pasted
from perception.training.pixels import named_points, pixel_truth
from perception.training.scene import SceneMove, SceneSpec
from perception.training.tasks.boxes3d import (
    OnGround,
    fields_loss,
    heading_loss,
    heatmap_loss,
    targets_of,
)

QUIET = CorruptionSpec(pixel_dropout=0, noise=0, exposure=0, beam_reduction=0, misalignment=0)
STILL = SceneSpec(mirror=0, turn_deg=0, scale=(1, 1))
SPEC = BirdseyeSpec(**GROUND)  # type: ignore[arg-type]
MODELS = {
    "none": (),
    "plumb_bob": (-0.1, 0.02, 0.003, 0.004, 0.001),
    "rational_polynomial": (0.1, 0.01, 0.002, -0.003, 0.001, 0.1, 0.01, 0.001),
    "equidistant": (0.05, 0.01, 0.0, 0.0),
    "omni": (1.2, -0.1, 0.01, 0.003, -0.002),
}


def truth(boxes: TruthBoxes3d) -> OnGround:
    return OnGround(boxes, SPEC, len(CLASSES))


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(sorted(MODELS)),
    mirror=st.booleans(),
    turn=st.floats(-3, 3),
    scale=st.floats(0.8, 1.2),
    seed=st.integers(0, 1000),
)
def test_a_moved_scene_is_seen_by_all_sensors_where_its_boxes_are(
    model: str, mirror: bool, turn: float, scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = TruthBoxes3d.of([[9, 1, 1.0]], [[4, 2, 1.5]], [0.7], [0], velocity=[[3.0, 1.0]])
    c, s = np.cos(0.7), np.sin(0.7)
    own = rng.uniform(-0.5, 0.5, (20, 3)) * boxes.size
    points = own @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + boxes.center
    places = poses()
    cloud = np.column_stack([places["lidar"].inverse().apply(points), np.ones(20)])
    lidar = Sample("lidar", cloud.astype(np.float32), pose=places["lidar"])
    lens = CameraModel(96, 64, 40, 41, 45, 30, model, MODELS[model])
    picture = Sample("rgb", np.zeros((64, 96, 3), np.uint8), camera=lens, pose=places["cam_front"])
    u, v, seen = lens.project_columns(*places["cam_front"].inverse().apply(points).T)
    assert seen.all()
    move = SceneMove(mirror, turn, scale)
    after, there, looks = move.boxes(boxes), move.sample(lidar), move.sample(picture)
    assert there.pose is not None and looks.pose is not None and looks.camera is not None
    base = there.pose.apply(there.data[:, :3].astype(np.float64))
    assert inside(base, after.center, after.size, after.yaw, margin=1e-3).all()
    # A point keeps its pixel, which a mirror counts from the other side.
    u2, v2, seen2 = looks.camera.project_columns(*looks.pose.inverse().apply(base).T)
    assert seen2.all()
    np.testing.assert_allclose(95 - u2 if mirror else u2, u, atol=1e-3)
    np.testing.assert_allclose(v2, v, atol=1e-3)

    # Its velocity keeps its angle to the heading, on the other side in a mirror.
    def heading(of: TruthBoxes3d) -> float:
        return float(np.arctan2(*of.velocity[0, ::-1]) - of.yaw[0])

    off = heading(after) - (-1 if mirror else 1) * heading(boxes)
    assert abs((off + np.pi) % (2 * np.pi) - np.pi) < 1e-6
    assert np.hypot(*after.velocity[0]) == pytest.approx(np.hypot(3, 1) * scale)


def test_a_mirrored_picture_shows_what_was_on_the_other_side() -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[10, 20] = 200
    sample = Sample("rgb", picture, camera=camera(), pose=poses()["cam_left"])
    found = SceneMove(mirror=True).sample(sample)
    assert found.data[10, 75, 0] == 200 and found.data.sum() == 600
    assert found.pose is not None  # the left camera now looks to the right
    np.testing.assert_allclose(found.pose.rotation[:, 2], [0, -1, 0], atol=1e-9)


def test_inputs_of_a_scene_that_is_not_moved_are_what_serving_makes() -> None:
    rules, recording = contract(), Scenes(2)
    raw = load_raw(recording, 0, rules, ["boxes3d"])
    data = FusionDataset(recording, rules, QUIET, 0, ["boxes3d"], scene=STILL)
    learned, truths = data[0]
    for name, spec in rules.items():
        served = preprocess_sample(recording.frame(0)[name], spec)
        for tensor, values in served.items():
            np.testing.assert_array_equal(network_inputs(raw, rules)[name][tensor], values[0])  # type: ignore[index]
            if tensor != "image":  # whose brightness always changes
                # Corruption goes to the sensor's frame and back, which rounds.
                np.testing.assert_allclose(learned[name][tensor], values[0], atol=1e-5)  # type: ignore[index]
    np.testing.assert_array_equal(truths["boxes3d"].boxes.center, recording.boxes[0].center)


def test_large_pictures_are_kept_small_and_learned_as_they_are_served() -> None:
    rules, recording = contract("cam_front"), Scenes(1)
    small = recording.frames[0]["cam_front"]
    large = replace(
        small, data=np.kron(small.data, np.ones((2, 2, 1), np.uint8)), camera=camera().scaled(2, 2)
    )
    recording.frames[0] = type(recording.frames[0])({"cam_front": large}, 0)
    raw = load_raw(recording, 0, rules)
    kept = raw.sensors["cam_front"]
    assert isinstance(kept, Unplaced) and kept.sample.data.shape == (64, 96, 3)
    served = preprocess_sample(large, rules["cam_front"])
    for tensor, values in network_inputs(raw, rules)["cam_front"].items():  # type: ignore[union-attr]
        np.testing.assert_array_equal(values, served[tensor][0])


def test_items_follow_from_seed_epoch_and_frame() -> None:
    recording = Scenes(4)
    rules = contract("cam_front", "lidar")
    spec = SceneSpec(paste=2)
    sets = [
        FusionDataset(recording, rules, CorruptionSpec(), 7, ["boxes3d"], scene=spec) for _ in "ab"
    ]
    for data in sets:
        data.epoch = 3
    (a, _), (b, _) = sets[0][2], sets[1][2]
    np.testing.assert_array_equal(a["lidar"]["pillars"], b["lidar"]["pillars"])  # type: ignore[index]
    np.testing.assert_array_equal(a["cam_front"]["table"], b["cam_front"]["table"])  # type: ignore[index]
    sets[1].epoch = 4
    other, _ = sets[1][2]
    assert (a["cam_front"]["table"] != other["cam_front"]["table"]).any()  # type: ignore[index]


def test_targets_are_read_back_as_the_boxes_they_were_made_of() -> None:
    boxes = boxes_of(np.random.default_rng(1), 5)
    made = targets_of(truth(boxes))
    centers = np.argwhere(made["heatmap"] == 1)
    assert len(centers) == 5 and (made["counted"] == 1).all()
    for kind, i, j in centers:
        values = made["fields"][:, i, j]
        place = (np.array([i, j]) + 0.5 + values[:2]) * 0.8 - 12.8
        k = int(np.hypot(*(boxes.center[:, :2] - place).T).argmin())
        np.testing.assert_allclose(place, boxes.center[k, :2], atol=1e-5)
        assert kind == boxes.class_ids[k] and values[2] == pytest.approx(boxes.center[k, 2])
        np.testing.assert_allclose(np.exp(values[3:6]), boxes.size[k], rtol=1e-5)
        assert np.arctan2(values[6], values[7]) == pytest.approx(boxes.yaw[k], abs=1e-5)
        np.testing.assert_allclose(values[8:], boxes.velocity[k], atol=1e-5)
        # A cell beside it tells of the same box.
        if i + 1 < 32 and made["weights"][0, i + 1, j] == pytest.approx(0.3):
            beside = made["fields"][:, i + 1, j]
            assert beside[0] == pytest.approx(values[0] - 1, abs=1e-5)


def test_ignored_and_unknown_things_do_not_count() -> None:
    boxes = TruthBoxes3d.of(
        [[5, 5, 1], [-5, 0, 1], [40, 0, 1]],
        [[4, 2, 1.5]] * 3,
        [0, 1, 2],
        [0, 1, 0],
        ignore=[True, False, False],
        velocity=[[0, 0], [np.nan, np.nan], [0, 0]],
    )
    made = targets_of(truth(boxes))
    assert (made["heatmap"] == 1).sum() == 1  # neither the ignored one nor what is beside the grid
    i, j = (int(v) for v in (np.array([5, 5]) + 12.8) / 0.8)
    assert made["counted"][0, i, j] == 0 and made["counted"][0, 0, 0] == 1
    # Nothing is learned of a velocity that nobody knows.
    assert made["weights"][:8].any() and not made["weights"][8:].any()
    logits = torch.zeros(1, 2, 32, 32)
    target, counted = (torch.from_numpy(made[n])[None] for n in ("heatmap", "counted"))
    spoilt = logits.clone()
    spoilt[0, :, i, j] = 50.0  # sure of an object where one may be
    assert heatmap_loss(spoilt, target, counted) <= heatmap_loss(logits, target, counted)
    spoilt[0, :, 0, 0] = 50.0
    more = heatmap_loss(spoilt, target, counted) - heatmap_loss(logits, target, counted)
    assert float(more) > 95  # 50 for each of two classes, less what 0 costs there
    assert not any(v.any() for n, v in targets_of(truth(boxes), known=False).items())


def test_the_losses_by_hand() -> None:
    """Two cells: at the centre -log(p) (1 - p)^2, beside it with a target of 0.5 -log(1 - p) p^2 0.5^4."""
    p, q = 0.8, 0.3
    logits = torch.logit(torch.tensor([p, q])).reshape(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.5]).reshape(1, 1, 1, 2)
    wanted = -np.log(p) * (1 - p) ** 2 - np.log(1 - q) * q**2 * 0.5**4
    assert float(heatmap_loss(logits, target, torch.ones(1, 1, 1, 2))) == pytest.approx(
        wanted, rel=1e-5
    )
    fields = torch.zeros(1, 10, 1, 2)
    weights = torch.zeros(1, 10, 1, 2)
    weights[0, :, 0, 0], weights[0, :, 0, 1] = 1.0, 0.5
    truths = {"fields": torch.full((1, 10, 1, 2), 2.0), "weights": weights}
    assert float(fields_loss(fields, truths)) == pytest.approx(20.0)  # 10 fields, each off by 2


def headed(yaw: float, length: float = 8.0, width: float = 2.0) -> dict[str, torch.Tensor]:
    """Fields of one box in two cells of equal weight."""
    fields = torch.zeros(1, 10, 1, 2)
    fields[0, 3:5, 0] = torch.tensor([length, width]).log()[:, None]
    fields[0, 6:8, 0] = torch.tensor([np.sin(yaw), np.cos(yaw)], dtype=torch.float32)[:, None]
    return {"fields": fields, "weights": torch.ones(1, 10, 1, 2)}


def test_the_loss_of_headings_by_hand() -> None:
    """Off by half a turn the direction is wrong alone, by a quarter the axis, too; squares have none."""
    truths = headed(0.0)
    for yaw, wanted in ((0.0, 0.0), (np.pi, 2.0), (np.pi / 2, 1 + 1 + 2), (-np.pi / 4, 1 + 2)):
        # the last: sine and cosine are off by 0.707 and 0.293, those of twice the angle by 1 and 1
        found = float(heading_loss(headed(yaw)["fields"], truths))
        assert found == pytest.approx(wanted, abs=1e-5), yaw
    assert float(heading_loss(headed(1.0)["fields"], headed(0.0, 2.0, 2.0))) == 0
    wide, long = headed(0.0, 2.0, 8.0), headed(1.0)
    assert float(heading_loss(long["fields"], wide)) == pytest.approx(
        float(heading_loss(long["fields"], truths)), rel=1e-5
    )


def test_an_axis_is_learned_where_nothing_tells_the_front_from_the_rear() -> None:
    """The error of sine and cosine alone is flat between a heading and its opposite."""
    truths = [headed(0.6), headed(0.6 + np.pi)]
    off = {}
    for name, loss in (("heading", heading_loss), ("fields", fields_loss)):
        found = headed(0.1)["fields"].clone().requires_grad_(True)
        optimizer = torch.optim.SGD([found], 0.02)
        for _ in range(300):
            optimizer.zero_grad()
            torch.stack([loss(found, truth) for truth in truths]).mean().backward()
            optimizer.step()
        sin, cos = found.detach()[0, 6:8, 0, 0].tolist()
        off[name] = abs(np.sin(np.arctan2(sin, cos) - 0.6))
    assert off["heading"] < 0.05
    assert off["fields"] > 0.3


def test_frames_without_truth_are_batched_with_others_and_do_not_count() -> None:
    half = half_of("boxes3d")
    one = truth(boxes_of(np.random.default_rng(0)))
    batch = half.collate([None, one])
    assert not batch["counted"][0].any() and batch["counted"][1].any()
    assert half.collate([None, None]) is None and not half.known(None)
    value = {"heatmap": torch.randn(2, 2, 32, 32), "fields": torch.randn(2, 10, 32, 32)}
    alone = half.collate([one])
    kept = {n: x[1:] for n, x in value.items()}
    assert float(half.loss(value, batch)) == pytest.approx(float(half.loss(kept, alone)), rel=1e-5)
    spec = LossSpec(fields=0.5, heading=0.5)
    a, b = (half.further_losses(v, t, spec) for v, t in ((value, batch), (kept, alone)))
    assert a.keys() == b.keys() == {"boxes3d_fields", "boxes3d_heading"}
    assert [float(x) for x in a.values()] == pytest.approx([float(x) for x in b.values()], rel=1e-5)


def test_an_object_of_another_frame_is_seen_by_all_sensors() -> None:
    recording = Scenes(1)
    frame, (boxes,) = recording.frames[0], recording.boxes
    bare = Scenes(1, objects=0).frames[0]
    empty = boxes.chosen(np.zeros(len(boxes), bool))
    fitted = 0
    for k in range(len(boxes)):
        found = pasted(Scene(dict(bare), empty), Scene(dict(frame), boxes), k)
        if found is None:  # partly beside a camera
            continue
        fitted += 1
        one = boxes.chosen(np.array([k]))
        np.testing.assert_array_equal(found.boxes.center, one.center)
        box = (one.center, one.size, one.yaw)
        pose = poses()["lidar"]
        counts = [
            inside(pose.apply(s["lidar"].data[:, :3].astype(np.float64)), *box, margin=0.05).sum()
            for s in (found.samples, frame)
        ]
        assert min(counts) >= 55
        color = CLASSES[int(one.class_ids[0])].color
        shown = [
            sum(int((s[n].data == color).all(-1).sum()) for n in s if n.startswith("cam"))
            for s in (found.samples, bare)
        ]
        assert shown[0] > shown[1] == 0
        # Where it is already, it does not fit a second time.
        assert pasted(found, Scene(dict(frame), boxes), k) is None
    assert fitted


def test_an_object_does_not_fit_behind_another_nor_on_another_vehicle() -> None:
    recording = Scenes(1)
    frame, (boxes,) = recording.frames[0], recording.boxes
    bare = Scenes(1, objects=0).frames[0]
    own = Scene(dict(frame), boxes)
    empty = boxes.chosen(np.zeros(len(boxes), bool))
    fits = [k for k in range(len(boxes)) if pasted(Scene(dict(bare), empty), own, k)]
    assert fits
    one = boxes.chosen(np.array([fits[0]]))
    before = replace(one, center=one.center * [0.5, 0.5, 1.0])
    assert pasted(Scene(dict(bare), before), own, fits[0]) is None
    moved = {**bare, "lidar": replace(bare["lidar"], pose=poses()["cam_left"])}
    assert pasted(Scene(moved, empty), own, fits[0]) is None
    hidden = replace(boxes, ignore=np.ones(len(boxes), bool))
    assert pasted(Scene(dict(bare), empty), Scene(dict(frame), hidden), fits[0]) is None


def test_an_answer_is_judged_as_bundles_are() -> None:
    """What targets say is all right; of nothing nothing is."""
    recording = Scenes(2)
    half = half_of("boxes3d")
    spec = half.spec(recording.info).model_copy(update={"birdseye": SPEC})
    right, wrong = (half.validation(spec, recording.info) for _ in "ab")
    for boxes in recording.boxes:
        made = targets_of(truth(boxes))
        heat = torch.logit(torch.from_numpy(made["heatmap"]) * 0.98 + 0.001)[None]
        fields = torch.from_numpy(made["fields"])[None]
        right.add({"heatmap": heat, "fields": fields}, truth(boxes), (64, 64))
        wrong.add({"heatmap": heat - 20, "fields": fields}, truth(boxes), (64, 64))
    found = right.scores()
    assert found["map3d"] == pytest.approx(1.0) and found["nds3d"] == pytest.approx(1.0, abs=1e-3)
    assert wrong.scores()["map3d"] == 0


def config(**changes: Any) -> dict[str, Any]:
    return {
        "name": "made",
        "tasks": ["boxes3d"],
        "model": {"name": "pillarbev", "pretrained": False},
        "data": {"source": "folder:nowhere"},
        "preprocess": contract("cam_front", "lidar").model_dump(mode="json"),
        **changes,
    }


def test_phases_have_the_size_of_the_ground_and_say_so() -> None:
    found = TrainConfig.model_validate(config(resolution=[{"batch": 4}]))
    assert found.resolution[0].crop == (64, 64) and found.resolution[0].scale == (1.0, 1.0)
    assert TrainConfig.model_validate(found.model_dump(mode="json")) == found
    with pytest.raises(ValueError, match="learned whole: leave crop out"):
        TrainConfig.model_validate(config(resolution=[{"crop": [32, 32]}]))
    with pytest.raises(ValueError, match="leave scale out"):
        TrainConfig.model_validate(config(resolution=[{"scale": [0.5, 1.0]}]))


def test_boxes_of_a_sensor_without_a_place_are_refused_in_one_line() -> None:
    recording = Scenes(1)
    recording.boxes[0] = replace(recording.boxes[0], frame="lidar")
    with pytest.raises(AnySenseError, match="boxes are in the frame of lidar") as told:
        load_raw(recording, 0, contract("lidar"), ["boxes3d"])
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_lidar_cameras_and_both_find_boxes_that_they_have_not_seen() -> None:
    """Less than half of what the same training reaches in ten minutes."""
    rules = contract()
    data = FusionDataset(Scenes(48), rules, QUIET, 0, ["boxes3d"], scene=STILL)
    val = FusionDataset(Scenes(16, seed=99), rules, QUIET, 0, ["boxes3d"])
    torch.manual_seed(0)
    spec = {"boxes3d": half_of("boxes3d").spec(data.recording.info)}
    options = {"width": 32, "camera": 0.5}
    model = build_model("pillarbev", rules, spec, pretrained=False, options=options).train()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    cameras = tuple(n for n in rules.names if n != "lidar")
    subsets = (("lidar",), cameras, rules.names)
    rng, step = np.random.default_rng(0), 0
    for _ in range(12):
        for own in np.split(rng.permutation(48), 6):
            batch = collate([data[int(i)] for i in own])
            output = model({n: batch.inputs[n] for n in subsets[step % 3]})
            optimizer.zero_grad()
            total(loss_terms(model, output, batch, LossSpec(), {})).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
    model.eval()
    size = (64, 64)
    for subset, least in zip(subsets, (0.3, 0.2, 0.4), strict=True):
        judge = half_of("boxes3d").validation(model.tasks["boxes3d"], val.recording.info)
        for index in range(len(val)):
            given = collate([(network_inputs(val.raw(index), rules), {})]).inputs
            with torch.no_grad():
                value = model({n: given[n] for n in subset}).values["boxes3d"]
            judge.add(value, val.raw(index).truths["boxes3d"], size)
        found = judge.scores()["map3d"]
        assert found is not None and found > least, (subset, found)


def test_pixels_are_told_what_points_measured_there() -> None:
    rules, recording = contract("cam_front", "lidar"), Scenes(1)
    view, ground = rules["cam_front"].view, poses()["cam_front"]
    boxes = TruthBoxes3d.of(
        [[8, 0, 1.0], [8, 3, 1.0]], [[2, 2, 2.0]] * 2, [0.3, 0], [1, 0], ignore=[False, True]
    )
    points = np.array(
        [[7.2, 0, 1.2], [7.0, 3.0, 1.2], [6, -2, 0.5], [9, -3, 0.5], [-5, 0, 1], [7.3, 0.1, 0.02]],
        np.float32,
    )
    at, names = named_points(points, boxes)
    assert names.tolist() == [3, 0, 1, 1, 1, 1]  # what lies on the ground is no part of a thing
    np.testing.assert_allclose(at[0], [8, 0])
    sample = recording.frames[0]["cam_front"]
    found = pixel_truth(sample, view, points, (at, names))
    assert found.shape == (2, 64 // 4, 96 // 4) and found.dtype == np.float32
    assert sample.camera is not None
    u, v, _ = sample.camera.project_columns(*ground.inverse().apply(points).T)
    for k, (wanted, name) in enumerate([((8, 0), 3), ((8, 3), 0), (points[2], 1)]):
        place = found[:, int((v[k] + 0.5) // 4), int((u[k] + 0.5) // 4)]
        away = np.hypot(*(np.asarray(wanted[:2]) - ground.translation[:2]))
        assert place[1] == name and place[0] == pytest.approx(np.log(away), abs=1e-5)
    kept = np.arange(len(points)) != 4  # what is behind the camera
    ahead = pixel_truth(sample, view, points[kept], (at[kept], names[kept]))
    np.testing.assert_array_equal(ahead, found)
    # Of two in one place the nearer one counts, whatever their order.
    far = ground.apply(ground.inverse().apply(points[:1]) * 1.5).astype(np.float32)
    for two in (np.vstack([far, points[:1]]), np.vstack([points[:1], far])):
        one = pixel_truth(sample, view, two, named_points(two, boxes))
        assert np.count_nonzero(one[1]) == 1 and one[1].max() == 3


def test_only_training_tells_pixels() -> None:
    recording, rules = Scenes(2), contract()
    data = FusionDataset(recording, rules, QUIET, 0, ["boxes3d"], scene=STILL)
    learned, _ = data[0]
    served = network_inputs(data.raw(0), rules)
    for name, spec in rules.items():
        assert set(served[name]) == set(spec.tensors)  # type: ignore[arg-type]
        more = set(learned[name]) - set(spec.tensors)  # type: ignore[arg-type]
        assert more == ({"pixels"} if spec.kind == "rgb" else set())
    alone = FusionDataset(recording, contract("cam_front"), QUIET, 0, ["boxes3d"], scene=STILL)
    assert "pixels" not in alone[0][0]["cam_front"]  # nothing measures there


def test_the_loss_of_pixels_falls_to_its_truth() -> None:
    torch.manual_seed(0)
    truth = torch.zeros(2, 2, 4, 6)
    truth[0, 0], truth[0, 1] = 2.0, 1.0
    truth[0, 0, 1, 1], truth[0, 1, 1, 1] = 3.0, 3.0
    at, sigma = torch.full((2, 1, 4, 6), 2.0), torch.full((2, 1, 4, 6), 0.1)
    kinds = torch.zeros(2, 3, 4, 6)
    before = pixel_loss(at, sigma, kinds, truth)
    assert before.shape == (2,) and before[1] == 0  # of what is not known nothing is asked
    at[0, 0, 1, 1] = 3.0
    near = pixel_loss(at, sigma, kinds, truth)
    kinds[0, 0] = 5.0
    kinds[0, :, 1, 1] = torch.tensor([0.0, 0.0, 5.0])
    both = pixel_loss(at, sigma, kinds, truth)
    assert both[0] < near[0] < before[0]
    wrong = kinds.clone()
    wrong[0, :, 1, 1] = torch.tensor([0.0, 5.0, 0.0])
    assert pixel_loss(at, sigma, wrong, truth)[0] > both[0]
