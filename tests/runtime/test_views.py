"""A bundle says whose picture its LiDAR is projected into: every road of a frame heeds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from small_bundles import GRID, SmallBundles

from export.calibration_frames import inputs_of
from perception.cli.main import main
from perception.data.base import ClassInfo
from perception.data.folder import FolderRecording, FolderWriter, folder_info
from perception.evaluation.evaluate import evaluate_subsets
from perception.frame import Kind
from perception.geometry.camera import CameraModel
from perception.geometry.rig import Pose, Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform
from perception.preprocess.contract import PreprocessContract
from perception.runtime.bundle import Bundle
from perception.runtime.pipeline import Pipeline

SENSORS: dict[str, Kind] = {"left": "rgb", "right": "rgb", "roof": "lidar"}
INPUTS = {"left": ("rgb", "camera"), "right": ("rgb", "camera"), "roof": ("lidar", "cloud")}
AHEAD, BACKWARDS = np.eye(3), np.diag([-1.0, 1.0, -1.0])


def _seeing(x: float, focal: float, rotation: np.ndarray = AHEAD) -> SensorCalibration:
    camera = CameraModel(GRID[1], GRID[0], focal, focal, GRID[1] / 2, GRID[0] / 2)
    pose = Pose(RigidTransform(rotation, np.array([x, 0.0, 0.0])))
    return SensorCalibration(camera, kind="rgb", pose=pose)


RIG = Rig(
    {
        "left": _seeing(-0.5, 40.0),
        "right": _seeing(0.5, 60.0),
        "roof": SensorCalibration(
            kind="lidar", pose=Pose(RigidTransform.identity()), time_offset_ns=5
        ),
    },
    "base_link",
    "left",
)


def _bundle(root: Path, into: str | None) -> Path:
    def edit(content: dict[str, Any]) -> None:
        roof = content["inputs"]["roof"]
        roof["view"] = {**roof["view"], "type": "projection"} | ({"into": into} if into else {})

    return SmallBundles(root).named(INPUTS, edit=edit, name=f"into_{into}")


def _recording(root: Path, rig: Rig = RIG) -> FolderRecording:
    classes = tuple(ClassInfo(i, f"class {i}", (i, 2, 3)) for i in range(3))
    info = folder_info(name="r", size=GRID, sensors=SENSORS, seg_classes=classes, det_classes=())
    rng = np.random.default_rng(0)
    with FolderWriter(root, info, rig) as out:
        for i in range(2):
            samples = {n: rng.integers(0, 256, (*GRID, 3), np.uint8) for n in ("left", "right")}
            cloud = rng.uniform((-2, -1, 2, 0), (2, 1, 9, 1), (400, 4)).astype(np.float32)
            cloud[200:, 2] *= -1  # behind, too
            labels = rng.integers(0, 3, GRID).astype(np.uint8)
            out.add(f"{i}", {**samples, "roof": cloud}, stamp_ns=i * 10**8, labels=labels)
    return FolderRecording(root)


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> list[CameraModel]:
    """What clouds are projected into that any pipeline is given."""
    found: list[CameraModel] = []
    run = Pipeline.__call__

    def watched(self: Pipeline, frame: Any) -> Any:
        found.extend(frame[n].camera for n in frame if n == "roof")
        return run(self, frame)

    monkeypatch.setattr(Pipeline, "__call__", watched)
    return found


def test_views_are_of_sensors() -> None:
    view = {"type": "projection", "into": "right"}
    contract = PreprocessContract.model_validate(
        {n: {"kind": k, **({"view": view} if k == "lidar" else {})} for n, k in SENSORS.items()}
    )
    assert contract.views() == {"roof": "right"}
    assert contract.views({"top": "roof", "a": "left"}) == {"top": "right"}
    assert contract.views({"top": "roof", "b": "right"}) == {"top": "b"}
    assert PreprocessContract(modalities=["rgb", "lidar"]).views() == {}


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("left", {"into": "right"}),
        ("roof", {"type": "projection", "into": "roof"}),
        ("roof", {"type": "projection", "into": "rear"}),
    ],
)
def test_only_lidars_are_projected_and_only_into_cameras(name: str, view: dict[str, Any]) -> None:
    inputs = {n: {"kind": k, **({"view": view} if n == name else {})} for n, k in SENSORS.items()}
    inputs["roof"].setdefault("view", {"type": "projection"})
    with pytest.raises(ValidationError, match=f"{name}.view.into: "):
        PreprocessContract.model_validate(inputs)


@pytest.mark.parametrize("into", ["left", "right", None])
def test_recordings_show_clouds_as_the_bundle_wants(into: str | None, tmp_path: Path) -> None:
    recording = _recording(tmp_path / "r")
    contract = Bundle.open(_bundle(tmp_path, into)).manifest.inputs
    plain, seen = recording.frame(1), recording.seen(1, contract.views())
    camera = into or "left"  # the rig's reference
    assert seen["roof"].camera == RIG.sensors[camera].camera
    wanted = RIG.between("roof", camera)
    assert seen["roof"].extrinsics is not None
    assert np.array_equal(seen["roof"].extrinsics.matrix, wanted.matrix)
    assert seen.stamp_ns == plain.stamp_ns and seen["roof"].stamp_ns == plain["roof"].stamp_ns
    assert np.array_equal(seen["left"].data, plain["left"].data)
    assert set(seen) == set(plain)


def test_networks_learn_and_are_calibrated_on_what_they_will_see(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    assert torch
    from perception.training.dataset import load_raw, network_inputs

    recording, found = _recording(tmp_path / "r"), {}
    for into in ("left", "right"):
        contract = Bundle.open(_bundle(tmp_path, into)).manifest.inputs
        learned = network_inputs(load_raw(recording, 0, contract), contract)
        ((_, calibrated),) = inputs_of(recording, contract, [0])
        assert set(learned) == set(calibrated) == set(SENSORS)
        assert np.array_equal(learned["roof"], calibrated["roof"][0])
        found[into] = learned["roof"]
    assert not np.array_equal(found["left"], found["right"])


@pytest.mark.parametrize("into", ["left", "right"])
@pytest.mark.parametrize("command", ["eval", "demo", "run"])
def test_commands_project_clouds_as_the_bundle_wants(
    command: str, into: str, tmp_path: Path, cameras: list[CameraModel]
) -> None:
    bundle, root = str(_bundle(tmp_path, into)), tmp_path / "r"
    _recording(root)
    data = ["--data", f"folder:{root}"]
    out = ["--out", str(tmp_path / "out")]
    files = [f"{n}={root / n / ('1.npz' if n == 'roof' else '1.png')}" for n in SENSORS]
    given = [word for file in files for word in ("--sensor", file)]
    line = {
        "eval": ["eval", bundle, *data],
        "demo": ["demo", "--bundle", bundle, *data, *out],
        "run": ["run", "--bundle", bundle, "--rig", str(root / "rig.yaml"), *given, *out],
    }[command]
    assert main([*line, "--device", "cpu"]) == 0
    assert cameras and set(cameras) == {RIG.sensors[into].camera}


def test_a_cloud_in_a_picture_that_looks_elsewhere_is_not_judged(tmp_path: Path) -> None:
    turned = {**RIG.sensors, "right": _seeing(0.5, 60.0, BACKWARDS)}
    recording = _recording(tmp_path / "r", Rig(turned, "base_link", "left"))
    for into, judged in (("left", 2), ("right", 0)):
        pipeline = Pipeline.load(_bundle(tmp_path, into), "cpu", threads=1)
        found = evaluate_subsets(pipeline, recording, [("roof",)])
        assert found["roof"]["judged"] == judged


@pytest.mark.parametrize(
    ("right", "words"),
    [
        (None, "'right' is not known"),
        (SensorCalibration(kind="rgb", pose=Pose(RigidTransform.identity())), "no intrinsics"),
        (replace(_seeing(0.5, 60.0), pose=None), "right: the rig does not say where it sits"),
    ],
)
def test_a_rig_that_does_not_know_the_camera_is_told(
    right: SensorCalibration | None, words: str, tmp_path: Path, capsys: Any
) -> None:
    sensors = {**RIG.sensors, "right": right} if right else dict(RIG.sensors)
    if right is None:
        del sensors["right"]
    _recording(root := tmp_path / "r", Rig(sensors, "base_link", "left"))
    save_rig(Rig(sensors, "base_link", "left"), tmp_path / "rig.yaml")
    bundle = str(_bundle(tmp_path, "right"))
    cloud = ["--sensor", f"roof={root / 'roof' / '1.npz'}", "--rig", str(tmp_path / "rig.yaml")]
    for line in (
        ["eval", bundle, "--data", f"folder:{root}"],
        ["run", "--bundle", bundle, *cloud, "--out", str(tmp_path / "out")],
    ):
        capsys.readouterr()
        assert main([*line, "--device", "cpu"]) == 2
        error = capsys.readouterr().err.strip()
        assert words in error and "Traceback" not in error
