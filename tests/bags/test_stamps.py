"""Stamps of any value: right in what is written and shown, or one line that says what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("rosbags", reason="needs rosbags: pip install 'anysense[bags]'")

from perception.adapters.messages import stamp_of
from perception.bags.files import TOPICS, read_bag
from perception.bags.messages import parse
from perception.cli.main import main
from perception.data.folder import FolderWriter, folder_info

S = 10**9
LAST = 2**31 * S - 1
"""The last nanosecond that a ROS message can be of."""


def _recording(folder: Path, stamps: Sequence[int]) -> str:
    random = np.random.default_rng(1)
    info = folder_info(
        size=(24, 32), seg_classes=(), det_classes=(), name="drive", modalities=("rgb", "depth")
    )
    with FolderWriter(folder, info) as writer:
        for index, stamp in enumerate(stamps):
            writer.add(
                f"{index:04d}",
                stamp_ns=stamp,
                rgb=random.integers(20, 220, (24, 32, 3), np.uint8),
                depth=random.uniform(1, 9, (24, 32)).astype(np.float32),
            )
    return f"folder:{folder}"


def _one_line(error: str, *words: str) -> None:
    assert len(error.splitlines()) == 1 and "Traceback" not in error
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    "stamps",
    [(0, S // 10), (0,), (5,), (LAST - S // 5, LAST), (0, S, 2 * S)],
)
def test_stamps_that_messages_can_have_stay_what_they_are(
    tmp_path: Path, tiny_bundle: Path, stamps: tuple[int, ...]
) -> None:
    bag, out = tmp_path / "bag", tmp_path / "out"
    assert main(["record", "--data", _recording(tmp_path / "in", stamps), "--out", str(bag)]) == 0
    found = [(m.stamp_ns, stamp_of(parse(m))) for m in read_bag(bag, [TOPICS["rgb"]])]
    assert found == [(stamp, stamp) for stamp in stamps]
    base = ["replay", str(bag), "--bundle", str(tiny_bundle), "--device", "cpu"]
    assert main([*base, "--out", str(out)]) == 0
    rows = [json.loads(row) for row in (out / "status.jsonl").read_text().splitlines()]
    assert [r["stamp_ns"] for r in rows if r["used"] == ["rgb", "depth"]] == list(stamps)


@pytest.mark.parametrize("stamp", [-1, -S, LAST + 1, 2**62, -(2**31) * S - 1, -(2**63) + 1])
def test_stamps_that_a_bag_cannot_have_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stamp: int
) -> None:
    bag = tmp_path / "made" / "bag"
    bag.parent.mkdir()
    data = _recording(tmp_path / "in", sorted((5, stamp)))
    assert main(["record", "--data", data, "--out", str(bag)]) == 2
    _one_line(capsys.readouterr().err, str(stamp), "before 1970" if abs(stamp) < LAST else "2038")
    assert list(bag.parent.iterdir()) == []


@pytest.mark.parametrize("stamps", [(0, 7), (2**31 * S + 3,), (2**32 * S - 1,)])
def test_stamps_that_foxglove_can_have(
    tmp_path: Path, tiny_bundle: Path, stamps: tuple[int, ...]
) -> None:
    pytest.importorskip("foxglove")
    reader = pytest.importorskip("mcap.reader")
    out = tmp_path / "view.mcap"
    data = _recording(tmp_path / "in", stamps)
    base = ["view", "--data", data, "--bundle", str(tiny_bundle), "--device", "cpu"]
    assert main([*base, "--out", str(out)]) == 0
    with out.open("rb") as file:
        messages = list(reader.make_reader(file).iter_messages(["/overlay", "/status"]))
    assert [m.log_time for _, _, m in messages] == [s for s in stamps for _ in range(2)]
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["view.mcap"]


@pytest.mark.parametrize("stamp", [-1, -(2**62), 2**32 * S])
def test_stamps_that_foxglove_cannot_have_are_named(
    tmp_path: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], stamp: int
) -> None:
    pytest.importorskip("foxglove")
    data = _recording(tmp_path / "in", (stamp,))
    base = ["view", "--data", data, "--bundle", str(tiny_bundle), "--device", "cpu"]
    for where in (["--out", str(tmp_path / "view.mcap")], ["--port", "1"]):
        assert main([*base, *where]) == 2
        _one_line(capsys.readouterr().err, str(stamp), "0000", "1970 to 2106")
    assert not [p for p in tmp_path.iterdir() if p.is_file()]


@pytest.mark.parametrize(("stamp", "date"), [(-1, "1969-12-31"), (2**33 * S + 7, "2242-03-16")])
def test_rerun_takes_any_stamp(tmp_path: Path, tiny_bundle: Path, stamp: int, date: str) -> None:
    pytest.importorskip("rerun")
    out, data = tmp_path / "view.rrd", _recording(tmp_path / "in", (stamp,))
    base = ["view", "--data", data, "--bundle", str(tiny_bundle), "--device", "cpu"]
    assert main([*base, "--out", str(out)]) == 0
    command = [sys.executable, "-m", "rerun_cli", "rrd", "print", "-vvv", str(out)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    assert date in told


SECONDS = st.one_of(
    st.sampled_from([-(2**31), -1, 0, 1, 10**9, 2**31 - 1]), st.integers(-(2**31), 2**31 - 1)
)
NANOSECONDS = st.one_of(st.sampled_from([0, 1, S - 1, S, 2**32 - 1]), st.integers(0, 2**32 - 1))
RECORDED = st.one_of(
    st.sampled_from([0, 1, S, 10**18, 2**63 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1)
)
MESSAGE = st.tuples(st.sampled_from(["/cam/rgb", "/cam/depth"]), SECONDS, NANOSECONDS, RECORDED)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(messages=st.lists(MESSAGE, min_size=1, max_size=6))
@example([("/cam/rgb", -(2**31), 0, 0), ("/cam/rgb", 2**31 - 1, 2**32 - 1, 2**64 - 1)])
@example([("/cam/rgb", 0, 0, 0), ("/cam/depth", 0, 0, 0), ("/cam/rgb", 1, 0, S)])
@example([("/cam/rgb", -1, 5, 10), ("/cam/rgb", -1, 9, 11), ("/cam/depth", -1, 9, 12)])
def test_a_bag_of_any_stamps_is_played_or_refused_in_one_line(
    kit: Any, replay: Any, messages: list[tuple[str, int, int, int]]
) -> None:
    made = []
    for topic, sec, nanosec, recorded in messages:
        message = kit.image(0) if topic == "/cam/rgb" else kit.depth(0)
        message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
        made.append((topic, message, recorded))
    topics = [f"{t.rpartition('/')[2]}={t}" for t in {m[0] for m in messages}]
    done = replay(kit.write(made), *(a for t in topics for a in ("--topic", t)))
    if done.status:
        assert done.status == 2
        _one_line(done.error)
    else:
        assert done.rows and all(isinstance(row["stamp_ns"], int) for row in done.rows)
