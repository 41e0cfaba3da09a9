"""Pictures of what is around a vehicle: boxes where cameras see them, and from above."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from ground_bundles import SIZE, SURROUND, cloud, ground_bundle, picture, surround_rig

from perception.cli.main import main
from perception.data.base import TruthBoxes3d
from perception.frame import Frame
from perception.geometry.rig import save_rig
from perception.runtime.pipeline import Pipeline
from perception.tasks.boxes3d import Boxes3d
from perception.viz.legend import draw_explained
from perception.viz.overlay import draw_result
from perception.viz.scene import draw_ground, draw_in_picture, draw_scene


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground_bundle(tmp_path_factory.mktemp("scene") / "surround")


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.load(bundle, "cpu")


def frame(*names: str) -> Frame:
    rig = surround_rig()
    made = {n: cloud((5, 3), sensor=n) if n == "roof" else picture(n, 90) for n in names}
    return Frame({n: rig.attach(s) for n, s in made.items()}, 0)


def car(x: float, y: float) -> Boxes3d:
    place, size = np.array([[x, y, 0.8]], np.float32), np.array([[4, 1.8, 1.6]], np.float32)
    one = np.ones(1, np.float32)
    return Boxes3d(place, size, one, np.zeros(1, int), np.full(1, -1), in_base=True)


def changed(sensor: str, boxes: Boxes3d) -> np.ndarray:
    sample = frame(sensor)[sensor]
    drawn = draw_in_picture(sample, boxes, [(220, 40, 40)])
    assert drawn.shape == (*SIZE, 3)
    return (drawn != sample.data).any(axis=2)


def test_a_box_is_drawn_in_the_camera_that_sees_it():
    ahead = car(8, 0)
    seen = changed("front", ahead)
    assert seen[20:46, 36:60].any()
    assert not seen[:, :20].any() and not seen[:, 76:].any()
    for other in ("left", "back", "right"):
        assert not changed(other, ahead).any()
    # 2.5 m to the left at 8 m lies 60 * 2.5 / 8 pixels left of the middle.
    columns = np.flatnonzero(changed("front", car(8, 2.5)).any(axis=0))
    assert abs(columns.mean() - (47.5 - 60 * 2.5 / 8)) < 6


def truth(x: float, y: float, ignore: bool = False) -> TruthBoxes3d:
    return TruthBoxes3d.of([[x, y, 0.8]], [[4.0, 1.8, 1.6]], [0.0], [0], [ignore])


@pytest.mark.parametrize("ignore", [False, True])
def test_the_truth_is_drawn_thin_over_what_was_found(pipeline, ignore):
    sample, red = frame("front")["front"], [(220, 40, 40)]
    size = (256, 384)
    both = draw_in_picture(sample, car(8, 0), red, truth(8, 0, ignore), size).astype(int)
    # The same box: its lines are still to be seen beside the truth's.
    spread, light = np.ptp(both, axis=2), both.max(axis=2)
    assert ((spread < 25) & (light > (180 if not ignore else 125))).sum() > 60
    assert ((both[..., 0] > 150) & (both[..., 1] < 90)).sum() > 60
    beside = draw_in_picture(sample, None, red, truth(8, 3, ignore), size)
    plain = draw_in_picture(sample, None, red, None, size)
    columns = np.flatnonzero((beside != plain).any(axis=(0, 2))) / 4
    assert abs(columns.mean() - (47.5 - 60 * 3 / 8)) < 8
    pipeline.reset()
    result = replace(pipeline(frame("roof")), values={}, used=())
    above = draw_ground(pipeline.manifest, {}, result, 512, truth(8, 3, ignore))
    empty = draw_ground(pipeline.manifest, {}, result, 512)
    row, column = (np.flatnonzero((above != empty).any(axis=(2, 1 - a))).mean() for a in (0, 1))
    assert abs(row - (12.8 - 8) / 25.6 * 512) < 3 and abs(column - (12.8 - 3) / 25.6 * 512) < 3


def test_a_picture_is_brought_to_a_size_before_lines_are_drawn():
    sample, red = frame("front")["front"], [(220, 40, 40)]
    large = draw_in_picture(sample, car(8, 0), red, None, (256, 384))
    small = draw_in_picture(sample, car(8, 0), red)
    assert large.shape == (256, 384, 3)
    places = []
    for picture_, plain, scale in (
        (small, sample.data, 1),
        (large, cv2.resize(sample.data, (384, 256)), 4),
    ):
        rows, columns = np.nonzero((picture_ != plain).any(axis=2))
        places.append([rows.min(), rows.max(), columns.min(), columns.max()])
        np.testing.assert_allclose(np.array(places[-1]) / scale, places[0], atol=1.5)


def test_faults_are_written_beside_names(pipeline):
    pipeline.reset()
    seen = frame("roof", "left")
    result = pipeline(seen)
    drawn = [
        draw_scene(pipeline.manifest, seen, result, None, faults)
        for faults in ({}, {"front": "lost"}, {"front": "dark"}, {"roof": "lost"})
    ]
    assert len({d.tobytes() for d in drawn}) == 4


def test_without_calibration_the_picture_is_plain():
    sample = frame("front")["front"]
    for lacking in (replace(sample, pose=None), replace(sample, camera=None)):
        np.testing.assert_array_equal(
            draw_in_picture(lacking, car(8, 0), [(220, 40, 40)]), sample.data
        )


def test_from_above_boxes_have_the_colors_of_their_classes(pipeline):
    pipeline.reset()
    seen = frame("roof")
    result = pipeline(seen)
    assert len(result.boxes3d) == 1
    above = draw_ground(pipeline.manifest, seen, result, 512)
    assert above.shape == (512, 512, 3)
    red = (above[..., 0] > 100) & (above[..., 1] < 80) & (above[..., 2] < 80)
    row, column = (np.flatnonzero(red.any(axis=axis)).mean() for axis in (1, 0))
    assert abs(row - (12.8 - 5) / 25.6 * 512) < 20  # ahead is up
    assert abs(column - (12.8 - 3) / 25.6 * 512) < 20  # left is left
    empty = draw_ground(pipeline.manifest, {}, replace(result, values={}, used=()), 512)
    assert not ((empty[..., 0] > 100) & (empty[..., 1] < 80)).any()


def test_a_scene_is_of_one_size_whatever_is_there(pipeline):
    pipeline.reset()
    sizes = set()
    for names in (tuple(SURROUND), ("roof",), ("left", "right")):
        seen = frame(*names)
        result = pipeline(seen)
        pipeline.reset()
        sizes.add(draw_scene(pipeline.manifest, seen, result).shape)
        np.testing.assert_array_equal(
            draw_scene(pipeline.manifest, seen, result),
            draw_result(pipeline.manifest, seen, result),
        )
        sizes.add((*draw_explained(pipeline.manifest, seen, result).shape, "legend"))
    assert len(sizes) == 2


def test_run_writes_pictures_from_above_and_boxes(bundle, tmp_path, capsys):
    save_rig(surround_rig(), tmp_path / "rig.yaml")
    cv2.imwrite(str(tmp_path / "left.png"), picture("left", 118).data)
    np.save(tmp_path / "roof.npy", cloud((5, 3), (-4.2, -6.6)).data)
    sensors = [
        "--sensor",
        f"left={tmp_path / 'left.png'}",
        "--sensor",
        f"roof={tmp_path / 'roof.npy'}",
    ]
    out = tmp_path / "out"
    common = ["run", "--bundle", str(bundle), "--device", "cpu", "--out", str(out), *sensors]
    assert main([*common, "--rig", str(tmp_path / "rig.yaml")]) == 0
    assert {p.name for p in out.iterdir()} >= {"overlay.png", "birdseye.png", "result.json"}
    assert '"boxes3d_frame": "base_link"' in (out / "result.json").read_text()
    capsys.readouterr()
    assert main([*common[:-4], *sensors, "--out", str(tmp_path / "none")]) == 2
    told = "".join(capsys.readouterr())
    assert "its place on the vehicle is not known" in told
    assert "Traceback" not in told
