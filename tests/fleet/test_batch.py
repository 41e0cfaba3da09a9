"""`anysense batch` in one process: what comes out, what is not done twice, and what fails alone."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fleet_kit import SIZE, files_in, rows_in, write_fleet_bag, write_recording

from perception.data.folder import FolderRecording
from perception.evaluation.evaluate import LOW_SCORE, evaluate_subsets
from perception.fleet.job import Job
from perception.fleet.labels import boxes_of
from perception.fleet.run import Here, run_job
from perception.runtime.bundle import Bundle
from perception.runtime.pipeline import Pipeline
from perception.runtime.result import Result
from perception.runtime.signing import sign_bundle
from perception.runtime.trust import make_keys, read_private
from perception.tasks.boxes2d import BOXES2D
from perception.tasks.detections import Detections

Run = Callable[..., dict[str, Any]]


def test_chunks_of_any_length_give_the_same_rows(batch: Run, fleet: Path, tmp_path: Path) -> None:
    recordings = [f"{fleet}/bags/*.mcap", f"folder:{fleet}/drives/*"]
    short = batch(recordings=recordings, out="short", chunk_s=0.7)
    long = batch(recordings=recordings, out="long", chunk_s=600)
    assert short["status"] == long["status"] == 0
    assert short["chunks"] > 3 * long["chunks"] and long["chunks"] == 5
    assert short["borders"] == []
    assert rows_in(tmp_path / "short") == rows_in(tmp_path / "long")
    assert files_in(tmp_path / "short/labels") == files_in(tmp_path / "long/labels")
    states = {row["state"] for row in rows_in(tmp_path / "short") if row["recording"] == "b"}
    assert states == {"full", "degraded"}


def test_rows_and_labels_are_those_of_the_pipeline(
    batch: Run, fleet: Path, bundle: Path, tmp_path: Path
) -> None:
    batch(recordings=[f"folder:{fleet}/drives/one"])
    recording = FolderRecording(fleet / "drives/one")
    pipeline = Pipeline.load(bundle, "cpu", threads=1)
    rows = rows_in(tmp_path / "out")
    with pytest.warns(UserWarning, match="no frame has a file"):  # these are beside the recording
        labels = FolderRecording(tmp_path / "out/labels/one")
    assert len(rows) == len(recording) == len(labels)
    for index, row in enumerate(rows):
        result = pipeline(recording.frame(index))
        assert result.labels is not None and result.confidence is not None
        assert row["frame"] == recording.ids[index] and row["stamp_ns"] == recording.stamp_ns(index)
        assert row["confidence"] == pytest.approx(float(result.confidence.mean()), rel=1e-5)
        shares = dict(row["shares"])
        assert sum(shares.values()) == pytest.approx(1)
        assert shares.get("c1", 0) == pytest.approx(float((result.labels == 1).mean()))
        stored = labels.truth(index)
        assert stored.labels is not None and np.array_equal(stored.labels, result.labels)
        assert result.boxes is not None and stored.boxes is not None
        assert len(row["boxes"]) == len(result.boxes) >= len(stored.boxes.class_ids)


def test_boxes_are_written_as_far_as_they_are_in_the_picture() -> None:
    xyxy = [[-5, 2, 10, 60], [70, 2, 80, 9], [5, 5, 5, 9], [1, 1, 3, 3]]
    found = Detections(np.array(xyxy, np.float32), np.ones(4, np.float32), np.arange(4) % 2)
    boxes = boxes_of(Result(values={BOXES2D.name: found}), SIZE)
    assert boxes is not None
    assert boxes.xyxy.tolist() == [[0, 2, 10, 48], [1, 1, 3, 3]]
    assert boxes.class_ids.tolist() == [0, 1]
    assert boxes_of(Result(), SIZE) is None


def test_what_is_done_is_not_done_again(batch: Run, fleet: Path, tmp_path: Path) -> None:
    first = batch(recordings=[f"{fleet}/bags/a.mcap"])
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out/rows").iterdir()}
    again = batch(recordings=[f"{fleet}/bags/*.mcap"])
    assert first["skipped"] == 0 and again["skipped"] == first["chunks"] < again["chunks"]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    once = batch(recordings=[f"{fleet}/bags/*.mcap"], out="once")
    assert rows_in(tmp_path / "out") == rows_in(tmp_path / "once")
    assert once["frames"] == again["frames"]


def test_a_chunk_that_was_left_half_way_is_done_again(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    first = batch(recordings=[f"{fleet}/bags/a.mcap"])
    whole = rows_in(tmp_path / "out")
    done = sorted((tmp_path / "out/done").iterdir())
    done[0].unlink()  # killed before it said that it is done
    done[1].write_text('{"recording": "a"')  # by whoever wrote it otherwise
    shutil.rmtree(tmp_path / "out/labels")
    again = batch(recordings=[f"{fleet}/bags/a.mcap"])
    assert again["done"] == 2 and again["skipped"] == first["chunks"] - 2
    assert rows_in(tmp_path / "out") == whole


def test_a_recording_that_changed_replaces_what_was_there(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    (tmp_path / "bags").mkdir()
    bag = shutil.copy(fleet / "bags/a.mcap", tmp_path / "bags/x.mcap")
    batch(recordings=["bags/x.mcap"])
    shutil.copy(fleet / "bags/c.mcap", bag)
    again = batch(recordings=["bags/x.mcap"])
    assert again["replaced"] == 4 and again["skipped"] == 0
    rows = rows_in(tmp_path / "out")
    assert len(rows) == again["rows"] == again["frames"] < 30
    assert len((tmp_path / "out/labels/x/frames.csv").read_text().splitlines()) == len(rows) + 1


def test_a_hostile_recording_is_named_and_stops_no_other(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    bags = tmp_path / "bags"
    shutil.copytree(fleet / "bags", bags)
    content = (bags / "a.mcap").read_bytes()
    (bags / "cut.mcap").write_bytes(content[: len(content) // 2])
    (bags / "empty.mcap").write_bytes(b"")
    (bags / "noise.mcap").write_bytes(np.random.default_rng(0).bytes(5000))
    found = batch(recordings=["bags/*.mcap"])
    assert found["status"] == 3
    assert set(found["failed"]) == {"cut", "empty", "noise"}
    assert "ends early" in found["failed"]["cut"] and "\n" not in found["failed"]["cut"]
    assert "cut left out: " in found["error"] + found["said"]
    assert {row["recording"] for row in rows_in(tmp_path / "out")} == {"a", "b", "c"}
    manifest = pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()
    assert {row["recording"]: row["outcome"] for row in manifest}["noise"] == "failed"
    done = [row for row in manifest if row["outcome"] == "done"]
    assert len(done) == found["chunks"]
    assert all(row["input"].startswith("sha256:") and row["bundle"] and row["code"] for row in done)
    assert all(row["same_border"] for row in done)


def test_evaluation_is_that_of_eval(batch: Run, fleet: Path, bundle: Path, tmp_path: Path) -> None:
    found = batch(task="evaluate", subsets="all", recordings=[f"folder:{fleet}/drives/*"])
    assert found["status"] == 0 and found["chunks"] == 2
    pipeline = Pipeline.load(bundle, "cpu", threads=1, min_score=LOW_SCORE)
    recording = FolderRecording(fleet / "drives/two")
    subsets = [("rgb", "depth"), ("rgb",), ("depth",)]
    table = evaluate_subsets(pipeline, recording, subsets)
    rows = [row for row in rows_in(tmp_path / "out") if row["recording"] == "two"]
    for subset, scores in table.items():
        own = {r["score"]: r["value"] for r in rows if r["subset"] == subset and not r["class"]}
        assert own and all(own[name] == scores[name] for name in own)
        counts = {(r["frames"], r["judged"]) for r in rows if r["subset"] == subset}
        assert counts == {(scores["frames"], scores["judged"])}


def test_robustness_gives_trials(batch: Run, fleet: Path, tmp_path: Path) -> None:
    trials = {"frames": 3, "corruptions": ["noise"], "severities": [5]}
    found = batch(task="robustness", recordings=[f"folder:{fleet}/drives/one"], robustness=trials)
    assert found["status"] == 0, found["failed"]
    rows = rows_in(tmp_path / "out")
    assert {"subset rgb", "subset depth", "subset depth+rgb"} <= {row["trial"] for row in rows}


def test_recordings_are_brought_into_other_formats(batch: Run, fleet: Path, tmp_path: Path) -> None:
    folders = batch(task="encode", recordings=[f"{fleet}/bags/*.mcap"], out="folders")
    assert folders["status"] == 0 and folders["frames"] > 100
    found = FolderRecording(tmp_path / "folders/recordings/a")
    assert len(found) == 60 and set(found.info.sensors) == {"rgb", "depth"}
    bags = batch(
        task="encode", encode="mcap", recordings=["folder:folders/recordings/*"], out="bags"
    )
    assert bags["status"] == 0 and bags["frames"] == folders["frames"]
    again = batch(
        task="encode", encode="mcap", recordings=["folder:folders/recordings/*"], out="bags"
    )
    assert again["skipped"] == 3
    labelled = batch(recordings=["bags/recordings/*"], out="labelled")
    assert labelled["status"] == 0 and labelled["frames"] > 100


def test_what_matters_is_kept_as_a_recording(batch: Run, fleet: Path, tmp_path: Path) -> None:
    keep = {
        "degraded": True,
        "per_class": 3,
        "low_confidence": 1.0,
        "every_s": 0.5,
        "disagreement": {"between": ["rgb", "depth"], "above": 0.0},
    }
    found = batch(recordings=[f"{fleet}/bags/[ab].mcap"], keep=keep)
    assert found["status"] == 0, found["error"]
    rows = rows_in(tmp_path / "out")
    chosen = pq.read_table(tmp_path / "out/kept.parquet").to_pylist()
    degraded = {r["frame"] for r in rows if r["state"] == "degraded"}
    own = [r for r in chosen if r["reason"] == "degraded"]
    assert own and {r["frame"] for r in own} <= degraded
    times = [r["stamp_ns"] for r in own]
    assert all(b - a >= 0.5e9 for a, b in pairwise(times))
    for name in {n for row in rows for n, _ in row["shares"]}:
        best = [r for r in chosen if r["reason"] == f"class {name}"]
        assert 0 < len(best) <= 3
    different = [r for r in rows if r["disagreement"] is not None]
    assert different and all(0 <= r["disagreement"] <= 1 for r in different)
    for name in ("a", "b"):
        kept = FolderRecording(tmp_path / "out/kept" / name)
        frames = {r["frame"] for r in chosen if r["recording"] == name}
        assert set(kept.ids) == frames
        source = FolderRecording(fleet / f"of-{name}")
        stamps = {source.stamp_ns(i): i for i in range(len(source))}
        for index in range(len(kept)):
            original = source.frame(stamps[kept.stamp_ns(index)])
            for sensor, sample in kept.frame(index).items():
                if sensor == "rgb":
                    assert np.array_equal(sample.data, original[sensor].data)
            assert kept.tags(index) and kept.truth(index).labels is not None


def test_a_job_that_chooses_otherwise_does_no_work_again(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    recordings = [f"{fleet}/bags/b.mcap"]
    batch(recordings=recordings, keep={"degraded": True, "every_s": 0})
    many = FolderRecording(tmp_path / "out/kept/b")
    again = batch(recordings=recordings, keep={"degraded": True, "every_s": 10})
    assert again["done"] == 0 and again["kept_frames"] == 1
    assert len(FolderRecording(tmp_path / "out/kept/b")) == 1 < len(many)
    assert len(list((tmp_path / "out/kept/b/depth").iterdir())) == 1


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"recordings": ["nothing/*.mcap"]}, "fits no file or folder"),
        ({"recordings": ["folder:DRIVES/one", "folder:DRIVES/../drives/one/"]}, ""),
        ({"recordings": ["coco2:DRIVES/one"]}, "no kind of data"),
        ({"recordings": ["BAGS/a.mcap"], "task": "evaluate"}, "has no truth to judge by"),
        ({"recordings": ["BAGS/a.mcap"], "chunk_s": 0}, "chunk_s"),
        ({"recordings": ["BAGS/a.mcap"], "chunks": 5}, "no such field"),
        ({"recordings": ["BAGS/a.mcap"], "schema": 9}, "this AnySense reads 1"),
        ({"recordings": []}, "recordings"),
        ({"recordings": "nothing/*.mcap"}, "fits no file or folder"),  # one alone
        ({"recordings": ""}, "recordings.0"),
        ({"recordings": ["BAGS/a.mcap"], "out": ""}, "out"),  # not the folder of the job
        ({"recordings": ["BAGS/a.mcap"], "storage": {"s3": {"secret": "x"}}}, "is a secret"),
        (
            {"recordings": ["BAGS/a.mcap"], "task": "robustness", "keep": {}},
            "goes with task: label",
        ),
        ({"recordings": ["s4://x/y.mcap"]}, "cannot be reached"),
        ({"recordings": ["BAGS/a.mcap"], "out": "/proc/nowhere"}, "cannot be written"),
    ],
)
def test_bad_jobs_are_one_line(batch: Run, fleet: Path, fields: dict[str, Any], line: str) -> None:
    places = {"DRIVES": f"{fleet}/drives", "BAGS": f"{fleet}/bags"}
    for name, place in places.items():
        fields = json.loads(json.dumps(fields).replace(name, place))
    found = batch(**fields)
    if not line:  # one recording under two names is one recording
        assert found["status"] == 0 and found["recordings"] == 1
        return
    assert found["status"] == 2
    (only,) = found["error"].strip().splitlines()
    assert line in only


def test_a_folder_of_another_job_is_refused(batch: Run, fleet: Path) -> None:
    recordings = [f"{fleet}/bags/c.mcap"]
    batch(recordings=recordings)
    found = batch(recordings=recordings, chunk_s=3)
    assert found["status"] == 2 and "another job: chunk_s differs" in found["error"]


def test_wrong_sensors_are_said_of_the_recording(batch: Run, fleet: Path) -> None:
    found = batch(recordings=[f"{fleet}/bags/c.mcap"], topics={"rgb": "/nothing"})
    assert found["status"] == 3 and "no topic /nothing for rgb" in found["failed"]["c"]


def test_two_recordings_of_one_name_are_refused(batch: Run, fleet: Path, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        shutil.copy(fleet / "bags/c.mcap", tmp_path / folder / "c.mcap")
    found = batch(recordings=["x/*.mcap", "y/*.mcap"])
    assert found["status"] == 2 and "would both be called c" in found["error"]
    assert batch(recordings=["[xy]/*.mcap"])["recordings"] == 2


def test_stat_sees_a_changed_recording(batch: Run, fleet: Path, tmp_path: Path) -> None:
    write_recording(tmp_path / "drive", 6, 1)
    first = batch(recordings=["folder:drive"], identity="stat")
    assert batch(recordings=["folder:drive"], identity="stat")["skipped"] == first["chunks"]
    shutil.rmtree(tmp_path / "drive")
    write_recording(tmp_path / "drive", 6, 2)
    assert batch(recordings=["folder:drive"], identity="stat")["skipped"] == 0


def test_a_bag_that_lies_about_its_time_fails_alone(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    import struct

    bag = write_fleet_bag(tmp_path, "liar", 10, 7)
    content = bytearray(bag.read_bytes())
    # The end of the first chunk's time, by its header: opcode 6, length, start, end.
    place = next(
        i for i in range(8, len(content)) if content[i] == 6 and content[i + 9 + 7] == 0x0D
    )
    struct.pack_into("<Q", content, place + 17, 10**18 + 1)
    bag.write_bytes(content)
    found = batch(recordings=["bags/liar.mcap", f"{fleet}/bags/c.mcap"])
    assert found["status"] == 3
    assert any("has a message of" in line for line in found["failed"].values())
    assert {row["recording"] for row in rows_in(tmp_path / "out")} == {"c"}


def _lengths(content: bytes) -> list[tuple[int, int]]:
    """Places and kinds of an MCAP file's records."""
    places, at = [], 8
    while at + 9 <= len(content) - 8:
        places.append((at, content[at]))
        at += 9 + int.from_bytes(content[at + 1 : at + 9], "little")
    return places


@pytest.mark.parametrize("lie", [0, 1, 2**40, 2**64 - 1])
@pytest.mark.parametrize(("opcode", "field"), [(6, 1), (6, 9 + 16), (8, 1), (0x0B, 9 + 0)])
def test_a_bag_that_lies_about_its_length_fails_alone(
    batch: Run, fleet: Path, tmp_path: Path, opcode: int, field: int, lie: int
) -> None:
    """Of a chunk and what is in it, of an index, and the number of messages: one line, or right anyway."""
    content = bytearray((fleet / "bags/c.mcap").read_bytes())
    place = next(at for at, kind in _lengths(bytes(content)) if kind == opcode)
    content[place + field : place + field + 8] = lie.to_bytes(8, "little")
    (tmp_path / "bags").mkdir()
    (tmp_path / "bags/liar.mcap").write_bytes(content)
    found = batch(recordings=["bags/liar.mcap", f"{fleet}/bags/c.mcap"])
    assert found["status"] in (0, 3), found["error"]
    for line in found["failed"].values():
        assert "\n" not in line and "internal error" not in line and "memory" not in line, line
    rows = rows_in(tmp_path / "out")
    by_name = {n: [r for r in rows if r["recording"] == n] for n in ("liar", "c")}
    assert by_name["c"]
    if not found["failed"]:  # it says what is there twice, and the other was believed
        same = [{**row, "recording": "c"} for row in by_name["liar"]]
        assert same == by_name["c"]


@pytest.mark.slow
def test_memory_stays_over_a_thousand_chunks(bundle: Path, tmp_path: Path) -> None:
    """Of a worker: what the first chunks take, thousands of others do not add to."""
    rss = Path("/proc/self/statm")
    if not rss.exists():
        pytest.skip("no /proc to read memory from")
    bag = write_fleet_bag(tmp_path, "long", 1000, 1)
    job = Job.model_validate(
        {
            "schema": 1,
            "bundle": str(bundle),
            "recordings": [str(bag)],
            "out": str(tmp_path / "out"),
            "chunk_s": 0.1,
            "files": False,
        }
    )
    pages: list[int] = []

    def step(what: str, done: int, total: int) -> None:
        if what == "working":
            gc.collect()
            pages.append(int(rss.read_text().split()[1]))

    here = Here(job)
    try:
        report = run_job(job, here, step)
    finally:
        here.close()
    assert len(pages) >= 1000 and not report.failed and here.worker.loads == 1
    before, after = np.median(pages[150:250]), np.median(pages[-100:])
    assert after < 1.03 * before, f"{before} pages, then {after}"


def test_a_recording_whose_clock_was_set_is_cut_where_there_is_anything(
    batch: Run, tmp_path: Path
) -> None:
    """Before and behind are a day of nothing apart: no chunk is of that, nor compared across it."""
    from perception.bags.files import messages_of, write_bag

    drive = write_recording(tmp_path / "drive", 40, 7)
    rows = (drive / "frames.csv").read_text().splitlines()
    for number, line in enumerate(rows[21:], 21):
        name, stamp, tags = line.split(",")
        rows[number] = f"{name},{int(stamp) + 86_400 * 10**9},{tags}"
    (drive / "frames.csv").write_text("\n".join(rows) + "\n")
    write_bag(tmp_path / "bag", messages_of(FolderRecording(drive)))
    cut = batch(recordings=["bag"], chunk_s=0.5, out="cut")
    whole = batch(recordings=["bag"], chunk_s=86_400, out="whole")
    assert cut["status"] == whole["status"] == 0 and cut["borders"] == []
    assert whole["chunks"] == 2 < cut["chunks"] < 12
    assert rows_in(tmp_path / "cut") == rows_in(tmp_path / "whole")
    assert cut["frames"] == 40


@pytest.mark.parametrize("task", ["label", "encode"])
def test_rows_that_a_loss_of_power_took_are_made_again(
    batch: Run, fleet: Path, tmp_path: Path, task: str
) -> None:
    """They are not synced: a file may be empty or not be there, and its note be whole."""
    fields = {"task": task, "recordings": [f"{fleet}/bags/a.mcap", f"{fleet}/bags/c.mcap"]}
    first = batch(**fields)
    whole = rows_in(tmp_path / "out")
    empty, gone, *_ = sorted((tmp_path / "out/rows").iterdir())
    empty.write_bytes(b"")
    gone.unlink()
    again = batch(**fields)
    assert again["status"] == 0 and again["done"] == 2 == first["chunks"] - again["skipped"]
    assert rows_in(tmp_path / "out") == whole


def test_rows_that_cannot_be_read_are_named_with_what_to_do(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    batch(recordings=[f"{fleet}/bags/c.mcap"])
    torn = next((tmp_path / "out/rows").iterdir())
    torn.write_bytes(torn.read_bytes()[:-20])
    found = batch(recordings=[f"{fleet}/bags/c.mcap"])
    assert found["status"] == 2 and torn.name in found["error"]
    assert "remove it, and its chunk is done again" in found["error"]
    torn.unlink()
    assert batch(recordings=[f"{fleet}/bags/c.mcap"])["done"] == 1


def test_a_job_of_which_nothing_came_may_be_mended(batch: Run, fleet: Path, tmp_path: Path) -> None:
    """Whoever learns that a topic is wrong writes another into the job, and not another folder."""
    wrong = batch(recordings=[f"{fleet}/bags/c.mcap"], topics={"rgb": "/nothing"})
    assert wrong["status"] == 3 and wrong["chunks"] == 0
    right = batch(recordings=[f"{fleet}/bags/c.mcap"], topics={"rgb": "/sensors/rgb/image_raw"})
    assert right["status"] == 0 and right["frames"] == 25
    other = batch(recordings=[f"{fleet}/bags/c.mcap"])
    assert other["status"] == 2 and "topics differs" in other["error"]


def test_cameras_by_name_are_brought_into_folders(batch: Run, fleet: Path, tmp_path: Path) -> None:
    topics = {"front": "rgb@/sensors/rgb/image_raw", "depth": "/sensors/depth/image_raw"}
    wrong = topics | {"front": "/sensors/rgb/image_raw"}
    named = batch(task="encode", recordings=[f"{fleet}/bags/c.mcap"], topics=wrong)
    assert named["status"] == 3 and "which kind of sensor is 'front'?" in str(named["failed"])
    found = batch(task="encode", recordings=[f"{fleet}/bags/c.mcap"], topics=topics)
    assert found["status"] == 0, found["failed"]
    recording = FolderRecording(tmp_path / "out/recordings/c")
    assert recording.info.sensors == {"front": "rgb", "depth": "depth"} and len(recording) == 25


def test_where_no_topic_is_found_the_line_says_what_a_job_takes(
    batch: Run, fleet: Path, tmp_path: Path
) -> None:
    from perception.bags.files import write_bag
    from perception.bags.messages import BagMessage
    from perception.bags.storage import open_bag

    with open_bag(fleet / "bags/c.mcap") as bag:
        sent = [
            BagMessage(c.topic.replace("sensors", "robot"), c.type, t, d)
            for c, t, d in bag.messages()
        ]
    write_bag(tmp_path / "other", sent)
    found = batch(recordings=["other"])
    line = found["failed"]["other"]
    assert (
        "topics: {rgb: /camera/image}; could be /robot/depth/image_raw, /robot/rgb/image_raw"
        in line
    )
    assert "--topic" not in line


def test_unsigned_bundles_are_refused_where_signatures_are_asked_for(
    batch: Run, bundle: Path, fleet: Path, tmp_path: Path
) -> None:
    pytest.importorskip("cryptography")
    make_keys(tmp_path / "release")
    recordings, trusted = [f"{fleet}/bags/c.mcap"], ("--trust-store", f"{tmp_path}/release.pub")
    refused = batch(*trusted, recordings=recordings)
    assert refused["status"] == 2
    assert refused["error"].splitlines() == [
        f"anysense: error: {bundle}: is not signed (anysense bundle sign, or its maker)"
    ]
    signed = tmp_path / "signed"
    shutil.copytree(bundle, signed)
    sign_bundle(Bundle.open(signed), read_private(tmp_path / "release"), "release")
    found = batch(*trusted, "--require-signature", recordings=recordings, signed=signed)
    assert found["status"] == 0 and found["frames"] > 0, found["error"]
