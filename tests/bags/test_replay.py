"""`anysense replay` on recordings of every rate, clock and type: as the node would have run."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from perception.adapters.calibration import MessageCalibration
from perception.bags.playback import Playback
from perception.bags.survey import survey
from perception.cli.main import main
from perception.geometry.rig import Rig, SensorCalibration, save_rig
from perception.geometry.transforms import RigidTransform
from perception.runtime.collector import SensorTiming
from perception.runtime.core import StreamCore, StreamSettings
from perception.runtime.pipeline import Pipeline

MS, S = 10**6, 10**9
RGBD = ("--topic", "rgb=/cam/rgb", "--topic", "depth=/cam/depth")
FULL = ("full", "rgb+depth")


# -- stamps --------------------------------------------------------------------------------------


def _boot(t: int) -> int:
    return 5 * S + t % S


@pytest.mark.parametrize(
    ("rgb", "depth", "named"),
    [
        (lambda t: 0, lambda t: 0, {"rgb": "no stamp", "depth": "no stamp"}),
        (lambda t: t, lambda t: 0, {"depth": "no stamp"}),
        (lambda t: 0, lambda t: t, {"rgb": "no stamp"}),
        (lambda t: t, _boot, {"depth": "time since boot"}),
        (_boot, lambda t: t, {"rgb": "time since boot"}),
        (_boot, lambda t: 0, {"depth": "no stamp"}),
        (lambda t: t + 37 * S, lambda t: t, {"rgb": "37 s off"}),
        (lambda t: t, lambda t: t - 2 * S, {"depth": "2 s off"}),
        (lambda t: t, lambda t: t, {}),
        (lambda t: t - 3600 * S, lambda t: t - 3600 * S, {}),
    ],
)
def test_stamps_that_are_missing_or_of_another_clock(
    kit: Any, replay: Any, rgb: Any, depth: Any, named: dict[str, str]
) -> None:
    pairs = kit.pairs(10, 50 * MS, rgb, depth)
    done = replay(kit.write(pairs), *RGBD)
    assert done.status == 0
    assert done.states() == [FULL] * 10
    stamps = [row["stamp_ns"] for row in done.rows]
    assert np.allclose(np.diff(stamps), 50 * MS, atol=1)
    for row in done.rows:
        assert {line.split(":")[0] for line in row["warnings"]} == set(named)
    for modality, words in named.items():
        assert words in next(w for w in done.rows[0]["warnings"] if w.startswith(modality))
        assert f"10 messages of {modality}" in done.out


def test_a_single_message_without_a_stamp_falls_into_its_place(kit: Any, replay: Any) -> None:
    first = kit.start
    pairs = kit.pairs(6, 100 * MS, rgb=lambda t: 0 if t == first + 300 * MS else t)
    done = replay(kit.write(pairs), *RGBD)
    assert done.states() == [FULL] * 6
    assert "1 messages of rgb" in done.out


def test_stamps_from_zero_on_are_good_in_a_simulation(kit: Any, replay: Any) -> None:
    """Its first stamp is 0, while the recorder's clock is the wall's."""
    started = kit.start
    pairs = kit.pairs(6, 100 * MS, lambda t: t - started, lambda t: t - started)
    done = replay(kit.write(pairs), *RGBD)
    assert done.states() == [FULL] * 6
    assert [row["stamp_ns"] for row in done.rows] == [i * 100 * MS for i in range(6)]
    assert "no stamp" not in done.out and "have no" not in done.out


def test_a_recording_without_times_goes_by_stamps(kit: Any, replay: Any) -> None:
    timeless = [(topic, message, 0) for topic, message, _ in kit.pairs(6)]
    done = replay(kit.write(timeless), *RGBD)
    assert done.states() == [FULL] * 6
    nothing = [(t, m, 0) for t, m, _ in kit.pairs(6, rgb=lambda t: 0, depth=lambda t: 0)]
    done = replay(kit.write(nothing), *RGBD)
    assert done.status == 2 and "have times" in done.error


# -- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hertz", [0.01, 0.3, 1, 2, 5, 60])
def test_no_rate_is_too_slow(kit: Any, replay: Any, hertz: float) -> None:
    done = replay(kit.write(kit.pairs(8, round(S / hertz))), *RGBD)
    assert done.states() == [FULL] * 8
    assert all(set(row["health"].values()) == {"ok"} for row in done.rows)


def _skewed(kit: Any, hertz: float, apart_ns: int, delay_ns: int, count: int = 8) -> Path:
    messages = []
    for i in range(count):
        t = kit.start + round(i * S / hertz)
        messages.append(("/cam/rgb", kit.image(t), t + 5 * MS))
        messages.append(("/cam/depth", kit.depth(t + apart_ns), t + apart_ns + delay_ns))
    return kit.write(sorted(messages, key=lambda m: m[2]))


@pytest.mark.parametrize(
    ("hertz", "apart_ns", "delay_ns"),
    [(1, 150 * MS, 5 * MS), (1, 0, 700 * MS), (10, 0, 300 * MS), (2, -90 * MS, 200 * MS)],
)
def test_deadline_and_window_follow_the_recording(
    kit: Any, replay: Any, hertz: float, apart_ns: int, delay_ns: int
) -> None:
    done = replay(_skewed(kit, hertz, apart_ns, delay_ns), *RGBD)
    assert done.states() == [FULL] * 8


def test_given_times_hold(kit: Any, replay: Any) -> None:
    bag = kit.write(kit.pairs(4, S))
    done = replay(bag, *RGBD, "--timeout-ms", "500")
    assert {"stop", "full"} <= {state for state, _ in done.states()}
    bag = _skewed(kit, 1, 300 * MS, 5 * MS)
    assert {s for s, _ in replay(bag, *RGBD).states()} == {"degraded"}
    wide = replay(bag, *RGBD, "--window-ms", "310", "--deadline-ms", "400")
    assert wide.states() == [FULL] * 8
    old = replay(bag, *RGBD, "--max-age-ms", "2000", "--window-ms", "10", "--deadline-ms", "10")
    assert set(old.states()[1:]) == {FULL} and old.rows[-1]["ages_ms"]["depth"] == 700


@pytest.mark.parametrize(
    "name",
    ["deadline", "timeout", "window", "max-age", "hold", "heartbeat", "jump", "tf-max-age"],
)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "1e300"])
def test_times_that_make_no_sense(kit: Any, replay: Any, name: str, value: str) -> None:
    done = replay(kit.write(kit.pairs(1)), *RGBD, f"--{name}-ms={value}")
    assert done.status == 2 and f"--{name}-ms" in done.error
    assert len(done.error.splitlines()) == 1


@pytest.mark.parametrize("gap_ns", [2**62 - 10**18 - 10**10, 366 * 86_400 * S])
def test_a_gap_of_any_length_ends(kit: Any, replay: Any, gap_ns: int) -> None:
    messages = kit.pairs(9)
    late = [(topic, message, at + gap_ns) for topic, message, at in messages[10:]]
    done = replay(kit.write(messages[:10] + late), *RGBD)
    assert done.status == 0
    states = done.states()
    assert states[:5] == [FULL] * 5 and states[-1] == FULL
    assert 100 < len(states) < 5000
    assert "nothing was recorded for" in done.out


def test_a_day_of_gaps_is_bounded_too(kit: Any, replay: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("perception.bags.playback.MAX_STEPS", 500)
    messages = [(t, m, at + (at - kit.start) * 10**6) for t, m, at in kit.pairs(10)]
    done = replay(kit.write(messages), *RGBD, "--timeout-ms", "500")
    assert done.status == 0 and len(done.rows) < 600


def test_a_short_gap_is_shown_whole(kit: Any, replay: Any) -> None:
    messages = kit.pairs(8)
    late = [(t, m, at + 5 * S) for t, m, at in messages[8:]]
    done = replay(kit.write(messages[:8] + late), *RGBD)
    beats = [row for row in done.rows if row["reason"] == "heartbeat"]
    assert 20 <= len(beats) <= 25 and {row["state"] for row in beats} <= {"hold", "stop"}
    assert "nothing was recorded" not in done.out


# -- types ---------------------------------------------------------------------------------------


def test_compressed_topics_with_the_camera_info_beside_them(kit: Any, replay: Any) -> None:
    messages = []
    for i in range(4):
        t = kit.start + i * 100 * MS
        colors = np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8)
        jpeg = cv2.imencode(".jpg", colors)[1].tobytes()
        depth = np.random.default_rng(i).integers(800, 4000, (48, 64), np.uint16)
        png = struct.pack("<iff", 0, 0, 0) + cv2.imencode(".png", depth)[1].tobytes()
        color = kit.compressed(t, "rgb8; jpeg compressed bgr8", jpeg)
        transport = kit.compressed(t, "16UC1; compressedDepth png", png)
        messages += [
            ("/cam/color/camera_info", kit.info(t), t),
            ("/tf_static", kit.tf(t, ("camera_optical", "lidar", (0.5, -0.5, 0.5, 0.5))), t),
            ("/cam/color/image_raw/compressed", color, t + MS),
            ("/cam/depth/image_raw/compressedDepth", transport, t + MS),
            ("/pts", kit.cloud(t), t + 2 * MS),
        ]
    done = replay(
        kit.write(messages),
        *("--topic", "rgb=/cam/color/image_raw/compressed"),
        *("--topic", "depth=/cam/depth/image_raw/compressedDepth"),
        *("--topic", "lidar=/pts"),
    )
    assert done.states() == [("full", "rgb+depth+lidar")] * 4
    assert not any(row["warnings"] for row in done.rows)


def test_wrong_types_and_bags_give_one_line(kit: Any, replay: Any) -> None:
    t = kit.start
    bag = kit.write([("/info", kit.info(t), t), ("/pts", kit.cloud(t), t)])
    ros1 = kit.path(".bag")
    ros1.write_bytes(b"#ROSBAG V2.0\n" + bytes(100))
    for path, topic in ((bag, "rgb=/info"), (bag, "depth=/pts"), (ros1, "rgb=/cam")):
        done = replay(path, "--topic", topic)
        assert done.status == 2 and not done.rows
        assert len(done.error.splitlines()) == 1 and "Traceback" not in done.error


def _lidar_bag(kit: Any, transforms: Any, info: Any, size: tuple[int, int] = (64, 48)) -> Path:
    messages = []
    for i in range(4):
        t = kit.start + i * 100 * MS
        pixels = np.random.default_rng(i).integers(0, 255, (size[1], size[0], 3), np.uint8)
        messages += [
            ("/tf_static", kit.tf(t, *transforms), t),
            ("/cam/camera_info", info(t), t),
            ("/cam/rgb", kit.image(t, pixels), t + MS),
            ("/pts", kit.cloud(t), t + 2 * MS),
        ]
    return kit.write(messages)


LIDAR = ("--topic", "rgb=/cam/rgb", "--topic", "lidar=/pts")
MOUNT = ("camera_optical", "lidar", (0.5, -0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    "transforms",
    [
        [MOUNT],
        [("a", "b", (0, 0, 0, 0)), MOUNT],
        [MOUNT, ("a", "a", (0, 0, 0, 1)), ("", "x", (0, 0, 0, 1)), ("c", "d", (float("nan"),) * 4)],
        [("/camera_optical", "/lidar", (1.0, -1.0, 1.0, 1.0))],
        [("base", "camera_optical", (-0.5, 0.5, -0.5, 0.5)), ("base", "lidar", (0, 0, 0, 1))],
    ],
)
def test_transforms_as_drivers_send_them(kit: Any, replay: Any, transforms: Any) -> None:
    done = replay(_lidar_bag(kit, transforms, kit.info), *LIDAR)
    assert done.states() == [("full", "rgb+lidar")] * 4


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (640, 480)),
        ({"binning_x": 2, "binning_y": 2}, (320, 240)),
        ({"roi": (160, 120, 320, 240)}, (320, 240)),
        ({"binning_x": 4, "binning_y": 2, "roi": (160, 120, 320, 240)}, (80, 120)),
        ({"binning_x": 2, "binning_y": 2}, (640, 480)),
        ({"roi": (7, 9, 640, 480)}, (640, 480)),
    ],
)
def test_binned_and_cropped_cameras(
    kit: Any, replay: Any, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    bag = _lidar_bag(kit, [MOUNT], lambda t: kit.info(t, 640, 480, **fields), size)
    assert replay(bag, *LIDAR).states() == [("full", "rgb+lidar")] * 4


@pytest.mark.parametrize("stamp", ["good", "none", "old"])
def test_transforms_that_change(kit: Any, replay: Any, stamp: str) -> None:
    """Without a stamp they count from when they were recorded; old ones are not used, as by the node."""
    messages = []
    for i in range(6):
        t = kit.start + i * 100 * MS
        at = {"good": t, "none": 0, "old": t - 60 * S}[stamp]
        messages += [
            ("/tf", kit.tf(at, MOUNT), t),
            ("/cam/camera_info", kit.info(t), t),
            ("/cam/rgb", kit.image(t), t + MS),
            ("/pts", kit.cloud(t), t + 2 * MS),
        ]
    done = replay(kit.write(messages), *LIDAR)
    if stamp == "old":
        assert all(used == "rgb" for _, used in done.states())
        assert any("60.0 s old" in w for row in done.rows for w in row["warnings"])
    else:
        assert done.states() == [("full", "rgb+lidar")] * 6


def test_one_camera_info_beside_two_sizes_of_images(kit: Any, replay: Any) -> None:
    messages = kit.pairs(4)
    for i in range(4):
        t = kit.start + i * 100 * MS
        small = np.random.default_rng(i).integers(800, 4000, (24, 32), np.uint16)
        messages += [("/cam/camera_info", kit.info(t), t - MS)]
        messages[2 * i + 1] = ("/cam/depth", kit.image(t, small, "16UC1"), t + 5 * MS)
    done = replay(kit.write(sorted(messages, key=lambda m: m[2])), *RGBD)
    assert done.states() == [FULL] * 4


@pytest.mark.parametrize("size", [(70_000, 70_000), (2**32 - 1, 1), (60_000, 1000)])
def test_a_camera_info_of_any_size_is_survived(
    kit: Any, replay: Any, size: tuple[int, int]
) -> None:
    """LiDAR alone: the results have the size that camera_info claims."""
    bag = _lidar_bag(kit, [MOUNT], lambda t: kit.info(t, *size))
    done = replay(bag, "--topic", "lidar=/pts", "--topic", "rgb=/cam/rgb")
    assert done.status == 0 and len(done.rows) == 4
    assert all(row["used"] for row in done.rows)


def test_messages_that_claim_absurd_sizes(kit: Any, replay: Any) -> None:
    t = kit.start
    bad = [
        kit.image(t, height=2**31, width=2**31),
        kit.image(t, step=2**32 - 1),
        kit.image(t, height=1, width=1, step=2**32 - 1, encoding="mono8"),
        kit.image(t, height=0),
    ]
    messages = [("/cam/rgb", m, t + i * 100 * MS) for i, m in enumerate(bad)]
    for i, message in enumerate(bad):
        message.header.stamp.nanosec = i * 100 * MS
    messages += [("/cam/rgb", kit.image(t + i * 100 * MS), t + i * 100 * MS) for i in range(5, 9)]
    done = replay(kit.write(messages), "--topic", "rgb=/cam/rgb")
    assert done.status == 0 and done.states()[-1] == ("full", "rgb")
    assert "3 messages of rgb could not be decoded" in done.out or "4 messages" in done.out


def _calibrated_late(kit: Any, *mounts: tuple[int, Any]) -> list[Any]:
    """Five pictures and clouds, and static transforms that were recorded when they came."""
    messages = []
    for i in range(5):
        t = kit.start + i * 100 * MS
        messages += [
            ("/cam/camera_info", kit.info(t), t),
            ("/cam/rgb", kit.image(t), t + MS),
            ("/pts", kit.cloud(t), t + 2 * MS),
        ]
    for at, mount in mounts:
        t = kit.start + at * MS
        messages.append(("/tf_static", kit.tf(t, mount), t))
    return sorted(messages, key=lambda m: m[2])


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("at", [-1000, 50, 350, 5000])
def test_static_transforms_hold_before_they_were_recorded(
    kit: Any, replay: Any, storage: str, at: int
) -> None:
    bag = kit.write(_calibrated_late(kit, (at, MOUNT)), storage)
    done = replay(bag, *LIDAR)
    assert [state for state in done.states() if state[1]] == [("full", "rgb+lidar")] * 5
    assert "could not be decoded" not in done.out


def test_of_several_static_transforms_the_first_holds_before_it_was_recorded(
    kit: Any, tiny_bundle: Path
) -> None:
    turned = ("camera_optical", "/lidar", (0.5, -0.5, 0.5, 0.55))
    bad = ("camera_optical", "lidar", (0.0, 0.0, 0.0, 0.0))
    path = kit.write(_calibrated_late(kit, (30, bad), (150, MOUNT), (350, turned)))
    topics: dict[Any, str] = {"rgb": "/cam/rgb", "lidar": "/pts"}
    settings = StreamSettings({m: SensorTiming() for m in topics}, 80 * MS)
    stream = StreamCore(Pipeline.load(tiny_bundle, "cpu"), settings)
    playback = Playback(stream, topics, MessageCalibration(), survey(path, topics))
    outputs = list(playback.run(path))
    places = [o.samples["lidar"].extrinsics for o in outputs if "lidar" in o.samples]
    first, last = (RigidTransform.from_quaternion_xyzw(m[2], (0, 0, 0)) for m in (MOUNT, turned))
    expected = [first] * 4 + [last]
    assert len(places) == 5
    for got, wanted in zip(places, expected, strict=True):
        assert got is not None
        np.testing.assert_allclose(got.matrix, wanted.matrix, atol=1e-9)
    assert playback.counters["malformed_/tf_static"] == 1  # once, when it comes


# -- what the node can be told -------------------------------------------------------------------


def test_returns_within_the_least_range_are_none(kit: Any, replay: Any) -> None:
    bag = _lidar_bag(kit, [MOUNT], kit.info)  # its points lie from 4 to 20 m ahead
    for least, state in (("3.9", ("full", "rgb+lidar")), ("50", ("degraded", "rgb"))):
        done = replay(bag, *LIDAR, "--lidar-least-range", least)
        assert done.states() == [state] * 4
    assert all(row["health"]["lidar"] == "dark" for row in done.rows)
    for wrong in ("-1", "nan", "inf"):
        done = replay(bag, *LIDAR, "--lidar-least-range", wrong)
        assert done.status == 2 and "--lidar-least-range: must be" in done.error
        assert len(done.error.splitlines()) == 1


def test_required_sensors_and_their_least_number(kit: Any, replay: Any) -> None:
    pairs = kit.pairs(4, 400 * MS)
    bag = kit.write([m for m in pairs if m[0] == "/cam/rgb" or m[2] < kit.start + 600 * MS])
    alone = [s for s, _ in replay(bag, *RGBD).states()]
    assert alone == ["full"] * 2 + ["degraded"] * 2
    for option in (("--require", "depth"), ("--minimum", "2")):
        done = replay(bag, *RGBD, *option, "--hold-ms", "5000")
        assert [s for s, _ in done.states()][:2] == ["full"] * 2
        assert {s for s, _ in done.states()[2:]} == {"hold"}
    for option, words in (
        (("--require", "lidar"), "'lidar' is not among rgb, depth"),
        (("--require", "sonar"), "'sonar' is not among rgb, depth"),
        (("--minimum", "3"), "there are only 2 sensors"),
        (("--minimum", "0"), "must be at least 1"),
        (("--derating", "0"), "--derating: must be positive"),
    ):
        done = replay(bag, *RGBD, *option)
        assert done.status == 2 and words in done.error and len(done.error.splitlines()) == 1


def test_thresholds_of_health_can_be_given(kit: Any, replay: Any) -> None:
    still = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    times = [kit.start + i * 200 * MS for i in range(8)]
    bag = kit.write([("/cam/rgb", kit.image(t, still), t) for t in times])
    rgb = RGBD[:2]
    assert "frozen" in {row["health"]["rgb"] for row in replay(bag, *rgb).rows}
    done = replay(bag, *rgb, "--health", "frozen_after=0")
    assert {row["health"]["rgb"] for row in done.rows} == {"ok"}
    done = replay(bag, *rgb, "--health", "dark_level=256", "--health", "frozen_after=0")
    assert {row["health"]["rgb"] for row in done.rows} == {"dark"}
    for wrong, words in (
        ("frozen", "is not NAME=VALUE"),
        ("cold=1", "'cold' is unknown (one of dark_level"),
        ("frozen_after=1.5", "a whole number, not '1.5'"),
        ("dark_level=nan", "a number, not 'nan'"),
        ("dark_level=-1", "a number, not '-1'"),
    ):
        done = replay(bag, *rgb, "--health", wrong)
        assert done.status == 2 and words in done.error and len(done.error.splitlines()) == 1


def test_offsets_bring_sensors_together(kit: Any, replay: Any) -> None:
    bag = kit.write(kit.pairs(6, depth=lambda t: t - 40 * MS))
    apart = replay(bag, *RGBD, "--window-ms", "10")
    assert apart.states() != [FULL] * 6
    done = replay(bag, *RGBD, "--window-ms", "10", "--offset-ms", "depth=40")
    assert done.states() == [FULL] * 6
    assert all(row["ages_ms"] == {"rgb": 0, "depth": 0} for row in done.rows)
    for wrong, words in (
        ("depth", "is not SENSOR=MS"),
        ("lidar=1", "'lidar' is not among rgb, depth"),
        ("depth=soon", "a number, not 'soon'"),
    ):
        done = replay(bag, *RGBD, "--offset-ms", wrong)
        assert done.status == 2 and words in done.error and len(done.error.splitlines()) == 1


def test_where_the_place_of_the_lidar_comes_from(kit: Any, replay: Any, tmp_path: Path) -> None:
    bag = _lidar_bag(kit, [MOUNT, ("camera_optical", "other", (0.0, 0.0, 0.0, 1.0))], kit.info)
    assert replay(bag, *LIDAR, "--reference-frame", "other").states()[0][1] == "rgb+lidar"
    done = replay(bag, *LIDAR, "--reference-frame", "nowhere")
    assert done.states()[0][1] == "rgb" and "nowhere" in str(done.rows[0]["warnings"])
    bare = _lidar_bag(kit, [("a", "b", (0.0, 0.0, 0.0, 1.0))], kit.info)
    rig = tmp_path / "rig.yaml"
    mount = SensorCalibration(extrinsics=RigidTransform.from_quaternion_xyzw(MOUNT[2], (0, 0, 0)))
    save_rig(Rig({"lidar": mount}), rig)
    for source, used in (("auto", "rgb+lidar"), ("file", "rgb+lidar"), ("tf", "rgb")):
        done = replay(bare, *LIDAR, "--rig", str(rig), "--extrinsics", source)
        assert {u for _, u in done.states()} == {used}


# -- what is written -----------------------------------------------------------------------------


def test_overlays_that_cannot_be_written_are_an_error(
    kit: Any, replay: Any, tmp_path: Path
) -> None:
    bag = kit.write(kit.pairs(3))
    (tmp_path / "out1" / "overlay_00001.png").mkdir(parents=True)
    done = replay(bag, *RGBD, "--overlays")
    assert done.status == 2 and "overlay_00001.png: cannot be written" in done.error
    assert len(done.error.splitlines()) == 1
    assert (done.folder / "overlay_00000.png").stat().st_size > 100
    assert len(done.rows) == 2


def test_a_full_disk_is_one_line(kit: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "out1").mkdir()
    (tmp_path / "out1" / "status.jsonl").symlink_to("/dev/full")
    bag = kit.write(kit.pairs(2))
    out = tmp_path / "out1"
    arguments = ["replay", str(bag), *RGBD, "--out", str(out), "--device", "cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "perception.cli.main", *arguments, "--bundle", str(tiny_bundle)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "status.jsonl: cannot be written: No space left" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_an_interrupted_run_leaves_whole_lines(
    kit: Any, tiny_bundle: Path, tmp_path: Path, signal: str
) -> None:
    import signal as signals

    bag, out = kit.write(kit.pairs(300, 20 * MS)), tmp_path / "out"
    arguments = ["replay", str(bag), *RGBD, "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "perception.cli.main", *arguments, "--bundle", str(tiny_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    path, patience = out / "status.jsonl", time.monotonic() + 60
    while not (path.exists() and path.stat().st_size) and time.monotonic() < patience:
        time.sleep(0.01)
    process.send_signal(getattr(signals, signal))
    process.communicate(timeout=60)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert 0 < len(rows) < 300
    assert all(row["state"] == "full" for row in rows)


def test_recordings_are_replayed_as_before(kit: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    """Good input gives the numbers that it gave: stamps, sensors, ages."""
    bag = kit.write(kit.pairs(5))
    arguments = ["replay", str(bag), *RGBD, "--device", "cpu", "--bundle", str(tiny_bundle)]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    rows = [json.loads(r) for r in (tmp_path / "out" / "status.jsonl").read_text().splitlines()]
    assert [r["stamp_ns"] for r in rows] == [kit.start + i * 100 * MS for i in range(5)]
    assert all(r["reason"] == "complete" and r["ages_ms"] == {"rgb": 0, "depth": 0} for r in rows)


def test_drift_is_watched_where_it_is_asked_for(kit: Any, replay: Any) -> None:
    bag = kit.write(kit.pairs(6))
    topics = ("--topic", "rgb=/cam/rgb", "--topic", "depth=/cam/depth")
    plain, watched = replay(bag, *topics), replay(bag, *topics, "--drift")
    # Noise without calibration: nothing can be told, and nothing changes.
    assert plain.status == watched.status == 0 and plain.states() == watched.states()
    assert all(set(row["health"].values()) == {"ok"} for row in watched.rows[1:])
