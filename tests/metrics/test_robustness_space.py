"""The table of failures of bundles that find boxes in space, by a vehicle whose boxes can be foretold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ground_bundles import SIZE, SURROUND, cloud, ground_bundle, picture, surround_rig
from small_bundles import SmallBundles

from perception.cli.main import main
from perception.data import open_recording
from perception.data.base import ClassInfo, Recording, TruthBoxes3d
from perception.data.folder import FolderWriter, folder_info
from perception.errors import ConfigError
from perception.evaluation.published import SPACE_RIVALS
from perception.evaluation.robustness import (
    SCENARIOS,
    SPACE,
    RobustnessOptions,
    measure_robustness,
    plan_of,
)
from perception.evaluation.robustness_report import Robustness
from perception.evaluation.space import led_up
from perception.evaluation.variants import FULL
from perception.geometry.motion import Odometry
from perception.geometry.trajectory import Trajectory
from perception.geometry.transforms import RigidTransform
from perception.runtime.pipeline import Pipeline

SPEED = 15.0
STEP_NS = 10**8
PLACES = [(5.2, 2.8), (-4.4, -6.8), (2.0, -5.2), (8.4, 6.0)]
"""In the base frame of the first frame, of cars that stand."""

SPACE_ONLY = RobustnessOptions(tables=(SPACE,))


def _drive(root: Path, frames: int, poses: bool = True, apart_ns: int = STEP_NS) -> Path:
    """A vehicle at 15 m/s past standing cars, of which those that are near are labelled."""
    sensors = {name: kind for name, (kind, _) in SURROUND.items()}
    classes = (ClassInfo(0, "person", (1, 2, 3)), ClassInfo(1, "car", (3, 2, 1)))
    info = folder_info(
        name="street",
        sensors=sensors,
        size=SIZE,
        seg_classes=(),
        det_classes=classes,
        boxes3d_frame="base",
    )
    with FolderWriter(root, info, surround_rig()) as writer:
        for i in range(frames):
            gone = SPEED * i * apart_ns / 1e9
            # Whole cells, so that cars stay in the middle of those that the network answers on.
            near = [(x - round(gone / 0.8) * 0.8, y) for x, y in PLACES]
            near = [(x, y) for x, y in near if -11 < x < 11]
            gone = round(gone / 0.8) * 0.8
            samples = {n: picture(n, seed=i).data for n, kind in sensors.items() if kind == "rgb"}
            # So many points that dark pictures do not outweigh them.
            samples["roof"] = cloud(*near * 6).data
            boxes = TruthBoxes3d.of(
                [[x, y, 0.8] for x, y in near], [[4.0, 1.8, 1.6]] * len(near), [0.0] * len(near),
                [1] * len(near), velocity=[[0, 0]] * len(near), points=[8] * len(near),
            )  # fmt: skip
            pose = RigidTransform(np.eye(3), np.array([gone, 0.0, 0.0])) if poses else None
            writer.add(f"{i}", samples, stamp_ns=i * apart_ns, boxes3d=boxes, pose=pose)
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ground_bundle(tmp_path_factory.mktemp("space") / "surround")


@pytest.fixture(scope="module")
def pipeline(bundle: Path) -> Pipeline:
    return Pipeline.load(bundle, "onnxruntime-cpu", threads=1)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _drive(tmp_path_factory.mktemp("street") / "street", 6)


def _recording(root: Path) -> Recording:
    return open_recording("folder", root)


def _rows(run: Robustness) -> dict[str, Any]:
    return {found.row.name: found for found in run.space()}


@pytest.fixture(scope="module")
def measured(pipeline: Pipeline, street: Path) -> Robustness:
    [run] = measure_robustness(pipeline, _recording(street), SPACE_ONLY)
    return run


def test_rows_of_missing_sensors(measured: Robustness) -> None:
    rows = _rows(measured)
    full = rows["all sensors"]
    assert full.row.key == FULL and full.scores["map3d"] > 0.98 and full.retained["map3d"] == 1
    assert set(full.scores) == {"map3d", "nds3d"}
    assert rows["no LiDAR"].scores["map3d"] < 0.01  # the pictures are dark
    assert rows["no camera"].scores["map3d"] > 0.98
    for name in ("front", "left", "back", "right"):
        assert rows[f"without {name}"].frames == 6
    assert "without roof" not in rows  # there is but one
    means = measured.mean_of_inputs()["map3d"]
    three = [rows[n].scores["map3d"] for n in ("all sensors", "no LiDAR", "no camera")]
    assert means == pytest.approx(np.mean(three))


def test_odometry_gains_what_the_vehicle_moved(measured: Robustness) -> None:
    """15 m/s: 1.5 m in a tenth of a second.  Standing cars are found again where they are."""
    rows, clean = _rows(measured), _rows(measured)["all sensors"].scores["map3d"]
    content = measured.content()["space"]
    for ms, recorded in ((50, False), (100, True), (150, False), (300, True)):
        plain, known = rows[f"LiDAR {ms} ms late"], rows[f"LiDAR {ms} ms late, odometry"]
        told = content["late"][f"{ms / 1000:g}"]
        assert told["moved_m"] == pytest.approx(SPEED * ms / 1000, abs=0.5)
        assert plain.frames == known.frames == 6
        # Of the first frames nothing was recorded before.
        assert told["made"] == (ms // 100 if recorded else 6)
        assert known.scores["map3d"] > 0.9 * clean
        if ms > 50:
            assert plain.scores["map3d"] < 0.8 * clean
    assert rows["LiDAR 300 ms late"].scores["map3d"] < 0.1


def test_late_rows_are_what_the_pipeline_gives(pipeline: Pipeline, street: Path) -> None:
    """By hand: the LiDAR's sample of the frame before, with the stamp of then, and odometry or none."""
    recording = _recording(street)
    assert recording.trajectory is not None
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    now, before = recording.seen(3, views), recording.seen(2, views)
    late = {**now, "roof": before["roof"]}
    assert late["roof"].stamp_ns == 2 * STEP_NS
    pipeline.reset()
    plain = pipeline(late).boxes3d
    pipeline.odometry = Odometry.of(recording.trajectory)
    pipeline.reset()
    known = pipeline(late).boxes3d
    pipeline.odometry = None
    one = [c[np.abs(c[:, 1] - PLACES[0][1]).argmin(), 0] for c in (plain.center, known.center)]
    assert one[1] - one[0] == pytest.approx(-1.5, abs=0.5)
    [run] = measure_robustness(pipeline, recording.part([2, 3]), SPACE_ONLY)
    assert pipeline.odometry is None
    assert _rows(run)["LiDAR 100 ms late"].frames == 2  # one as recorded, one with its points moved
    assert run.told.made[0.1] == 1


def test_cameras_are_turned_where_their_pictures_are_lifted(
    pipeline: Pipeline, street: Path, measured: Robustness
) -> None:
    assert all(_rows(measured)[f"cameras turned by {a}°"].frames == 6 for a in ("0.5", "1", "2"))
    recording = _recording(street)
    bright = recording.part([0])
    options = RobustnessOptions(corruptions=("extrinsics", "misalignment"), severities=(5,))
    [run] = measure_robustness(pipeline, bright, options)
    assert run.faults("map3d")["front"]["extrinsics"].frames == 1  # the reference, which has none
    # On the ground no picture is what points are projected into.
    assert "roof misalignment" in run.plan.lacking


def test_what_a_lidar_sees_ahead(measured: Robustness) -> None:
    found = _rows(measured)["LiDAR sees 60° to each side"]
    assert 0.2 < found.retained["map3d"] < 0.9  # cars behind are gone


def test_where_nothing_is_known_of_the_motion(pipeline: Pipeline, tmp_path: Path) -> None:
    still = _recording(_drive(tmp_path / "still", 3, poses=False))
    [run] = measure_robustness(pipeline, still, SPACE_ONLY)
    rows = _rows(run)
    # As recorded, and odometry says nothing of it.
    assert rows["LiDAR 100 ms late"].frames == 2
    assert "where the vehicle was is not known" in run.plan.lacking["LiDAR 100 ms late, odometry"]
    assert "LiDAR 50 ms late" in run.plan.lacking
    assert run.content()["space"]["late"]["0.1"] == {"moved_m": None, "made": 0}
    [alone] = measure_robustness(pipeline, still, replace(SPACE_ONLY, stills=True))
    assert "LiDAR 100 ms late" in alone.plan.lacking


def test_poses_before_a_run_go_on_as_it_began() -> None:
    def at(x: float) -> RigidTransform:
        return RigidTransform(np.eye(3), np.array([x, 0.0, 0.0]))

    stamps = np.array([0, 50, 100, 150, 5000, 5050, 9000]) * 10**6
    places = [0.0, 1.0, 2.0, 3.0, 10.0, 10.5, 90.0]
    found = led_up(Trajectory(stamps, tuple(map(at, places))))
    assert len(found) == 9  # the last is alone: nothing tells how it moved
    for stamp, x in ((-300, -6.0), (-100, -2.0), (4700, 7.0), (5050, 10.5), (100, 2.0)):
        pose = found.at(stamp * 10**6)
        assert pose is not None and pose.translation[0] == pytest.approx(x)
    assert found.at(8700 * 10**6) is None
    assert len(led_up(Trajectory(np.zeros(0, np.int64), ()))) == 0
    assert len(led_up(Trajectory(stamps[:1], (at(0),)))) == 1


def test_the_tables_that_are_asked_for(pipeline: Pipeline, street: Path, tmp_path: Path) -> None:
    recording = _recording(street)
    usual = plan_of(pipeline, recording, RobustnessOptions(corruptions=("fog",)))
    assert not usual.space and not any(key[0] == "space" for key in usual.given)
    both = plan_of(
        pipeline, recording, RobustnessOptions(corruptions=("fog",), tables=(SCENARIOS, SPACE))
    )
    assert {k: both.given[k] for k in usual.given} == usual.given
    assert {row.key for row in both.space} == set(both.given) - set(usual.given)
    with pytest.raises(ConfigError, match="did you mean 'space'"):
        RobustnessOptions(tables=("spcae",))
    flat = Pipeline.load(SmallBundles(tmp_path)(("rgb", "depth")), "onnxruntime-cpu", threads=1)
    from in_memory import make_recording

    data = make_recording(("floor",), sensors=[("rgb", "depth")])
    with pytest.raises(ConfigError, match="finds no boxes in space"):
        plan_of(flat, data, SPACE_ONLY)
    assert not plan_of(flat, data, RobustnessOptions(tables=(SCENARIOS, SPACE))).space


def test_the_command_writes_the_table(
    bundle: Path, street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers, page, chart = (tmp_path / n for n in ("n.json", "page.html", "chart.png"))
    line = ["robustness", str(bundle), "--data", f"folder:{street}", "--tables", "space"]
    line += ["--frames", "2", "--method", "leave-out,feed", "--device", "onnxruntime-cpu"]
    line += ["--threads", "1", f"--json={numbers}", "--html", str(page), "--picture", str(chart)]
    assert main(line) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "all sensors │ all │" in said  # both methods say the same
    assert (
        "without -> with odometry" in said and "EMM" not in said and "cameras turned by 2" in said
    )
    content = json.loads(numbers.read_text())
    assert "emm" not in content and "subsets" not in content
    space = content["space"]
    assert set(space) == {"rows", "beams", "late", "mean_of_inputs"}
    assert {row["group"] for row in space["rows"]} == {
        "full", "missing", "beams", "view", "calibration", "late",
    }  # fmt: skip
    [row] = [r for r in space["rows"] if r["name"] == "no camera"]
    assert row["sensors"] == ["roof"] and row["frames"] == 2
    assert set(row["scores"]) == set(row["retained"]) == {"map3d", "nds3d"}
    assert space["beams"]["roof"]["regular"] is False
    [other] = content["compared"]
    assert other["method"] == "feed" and other["space"]["rows"]
    html = page.read_text(encoding="utf-8")
    for rival in SPACE_RIVALS:
        assert f"<tr class='other'><th>{rival.name}</th>" in html
    assert "DELIVER" not in html and html.count("data:image/png") == 1
    assert chart.stat().st_size > 10_000
