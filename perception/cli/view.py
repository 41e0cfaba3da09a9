"""`anysense view`: a bundle on a recording, live in Foxglove, or as a file for Foxglove or Rerun."""

from __future__ import annotations

import argparse
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from perception.cli.arguments import (
    add_data_arguments,
    add_engine_arguments,
    engine_choices,
    give_json,
    open_data,
    output_file,
)
from perception.cli.console import say
from perception.cli.parsing import Commands, add_command, whole
from perception.errors import ConfigError, DataError, names_hint
from perception.extras import require
from perception.files.writing import writing

SUFFIXES = (".mcap", ".rrd")
_SECONDS = range(2**32)


class Viewer(Protocol):
    """Where pictures and statuses go."""

    def image(self, topic: str, image: Any, stamp_ns: int) -> None:
        """Show an (H, W, 3) uint8 RGB picture."""

    def status(self, values: dict[str, Any], stamp_ns: int) -> None:
        """Show what the pipeline says about a frame."""


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "view",
        "show a bundle at work in Foxglove or Rerun",
        example="anysense view --data folder:DIR --bundle sim-rgbdtl --loops 0",
    )
    add_data_arguments(parser, required=True)
    parser.add_argument("--bundle", required=True, help="folder, zip or name of a bundle")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write a file, serve nothing: .mcap for Foxglove, .rrd for Rerun",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=whole(0, 65535), default=8765, help="port to serve on")
    parser.add_argument(
        "--loops", type=whole(0, 10**9), default=1, help="how often to play; 0 = for ever"
    )
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="SENSOR:FAULT:SEVERITY",
        help="a fault of a sensor, as rgb:motion_blur:3, see docs/corruptions.md",
    )
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Stream pictures of the sensors, the overlay and the status."""
    from perception.corruptions import FaultInjector, FaultSchedule
    from perception.runtime.pipeline import Pipeline

    if args.out is not None and args.out.suffix not in SUFFIXES:
        raise ConfigError(
            f"'{args.out.suffix}' is unknown",
            where="--out",
            hint=names_hint(args.out.suffix, SUFFIXES),
        )
    rerun = args.out is not None and args.out.suffix == ".rrd"
    if rerun:
        os.environ.setdefault("RUST_LOG", "off")  # beside the errors that it raises
    require("the view", "rerun" if rerun else "foxglove")
    recording = open_data(args)
    faults = FaultSchedule.parse(args.fault).check(recording.info.sensors)
    output_file(args.out)
    if args.out is not None and args.out.exists():
        raise ConfigError("exists already", where=str(args.out), hint="choose another --out")
    if not rerun:
        _check_stamps(recording)
    pipeline = Pipeline.load(args.bundle, args.device, **engine_choices(args))
    with ExitStack() as open_things:
        viewer: Viewer = open_things.enter_context(
            _rerun_file(args.out) if rerun else _foxglove(args, recording.info.sensors)
        )
        loops = 1 if args.out is not None else args.loops
        played = 0
        while played < loops or not loops:
            played += 1
            _play(recording, pipeline, viewer, FaultInjector(faults), live=args.out is None)
    if args.out is not None:
        say(f"wrote {len(recording)} frames to {args.out}")
    shown = {"frames": len(recording), "loops": played}
    give_json(args, {**shown, "out": None if args.out is None else str(args.out)})
    return 0


def _check_stamps(recording: Any) -> None:
    """Refuse, before anything is shown, stamps that Foxglove's messages cannot have."""
    for index, name in enumerate(recording.ids):
        stamp = recording.stamp_ns(index)
        if stamp // 10**9 not in _SECONDS:
            raise DataError(
                f"stamp {stamp} ns of frame {name}: Foxglove has times from 1970 to 2106",
                where=str(recording.root),
                hint="--out FILE.rrd, for Rerun, takes any",
            )


@contextmanager
def _foxglove(args: argparse.Namespace, sensors: Iterable[str]) -> Iterator[Viewer]:
    import foxglove

    viewer = FoxgloveViewer([*(f"/sensors/{name}" for name in sensors), "/overlay"])
    if args.out is not None:
        with (
            writing(args.out) as partial,
            _losses(args.out) as viewer.losses,
            _finishing(foxglove.open_mcap(str(partial)).close, args.out),
        ):
            yield viewer
            viewer.losses.check()
        return
    try:
        server = foxglove.start_server(host=args.host, port=args.port, name="anysense")
    except Exception as error:  # a type of the SDK's own
        raise ConfigError(f"cannot serve: {error}", where="--port") from error
    say(f"open Foxglove at ws://{args.host}:{args.port} (Ctrl-C ends)")
    try:
        yield viewer
    finally:
        server.stop()


class _Losses(logging.Handler):
    """Messages that could not be written: Foxglove's SDK logs that instead of raising."""

    def __init__(self, out: Path) -> None:
        super().__init__(logging.WARNING)
        self._out, self._line = out, ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the first line."""
        text = record.getMessage()
        told = re.search('message: "([^"]*)"', text)
        self._line = self._line or (told.group(1) if told else text)

    def check(self) -> None:
        """Raise what was logged.

        Raises:
            DataError: something was.
        """
        if self._line:
            raise DataError(f"cannot be written: {self._line}", where=str(self._out))


@contextmanager
def _losses(out: Path) -> Iterator[_Losses]:
    log, losses = logging.getLogger("foxglove"), _Losses(out)
    log.addHandler(losses)
    propagate, log.propagate = log.propagate, False
    try:
        yield losses
    finally:
        log.removeHandler(losses)
        log.propagate = propagate


@contextmanager
def _rerun_file(out: Path) -> Iterator[Viewer]:
    import rerun

    stream = rerun.RecordingStream("anysense")

    def close() -> None:
        stream.flush()
        stream.disconnect()

    with writing(out) as partial:
        stream.save(str(partial))
        with _finishing(close, out):
            yield RerunViewer(stream)


@contextmanager
def _finishing(close: Callable[[], object], out: Path) -> Iterator[None]:
    """Close an SDK's file, and say that it cannot be written where that fails."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            close()
        raise
    try:
        close()
    except RuntimeError as error:
        raise DataError(f"cannot be written: {error}", where=str(out)) from error


class FoxgloveViewer:
    """Logs to the SDK's open sinks: a server or a file.

    Channels are made before a server starts: one that is made while a client connects may never be
    announced to it.

    Args:
        topics: of the images.

    Attributes:
        losses: what could not be written to a file.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        from foxglove import Channel
        from foxglove.channels import RawImageChannel

        self._images = {topic: RawImageChannel(topic) for topic in topics}
        self._status = Channel("/status")
        self.losses: _Losses | None = None

    def image(self, topic: str, image: Any, stamp_ns: int) -> None:
        """See `Viewer`."""
        from foxglove.messages import RawImage, Timestamp

        height, width = image.shape[:2]
        message = RawImage(
            timestamp=Timestamp(sec=stamp_ns // 10**9, nsec=stamp_ns % 10**9),
            frame_id="camera_optical",
            width=width,
            height=height,
            encoding="rgb8",
            step=3 * width,
            data=image.tobytes(),
        )
        self._images[topic].log(message, log_time=stamp_ns)

    def status(self, values: dict[str, Any], stamp_ns: int) -> None:
        """See `Viewer`."""
        self._status.log(values, log_time=stamp_ns)
        if self.losses is not None:
            self.losses.check()


class RerunViewer:
    """Logs to a Rerun recording, on the timeline `stamp`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def image(self, topic: str, image: Any, stamp_ns: int) -> None:
        """See `Viewer`."""
        import rerun

        self._at(stamp_ns)
        self._stream.log(topic, rerun.Image(image))

    def status(self, values: dict[str, Any], stamp_ns: int) -> None:
        """See `Viewer`."""
        import rerun

        self._at(stamp_ns)
        used = ", ".join(values["used"]) or "nothing"
        lines = [f"{values['state']}: {used}", *values["warnings"]]
        level = "INFO" if values["state"] == "full" else "WARN"
        self._stream.log("/status/text", rerun.TextLog("\n".join(lines), level=level))
        for name in ("engine_ms", "total_ms"):
            self._stream.log(f"/status/{name}", rerun.Scalars(values[name]))

    def _at(self, stamp_ns: int) -> None:
        self._stream.set_time("stamp", timestamp=np.datetime64(stamp_ns, "ns"))


def _play(recording: Any, pipeline: Any, viewer: Viewer, faults: Any, *, live: bool) -> None:
    from perception.tasks.registry import drawn
    from perception.viz.overlay import draw_result, draw_sample, is_drawn

    pipeline.wanted = drawn(pipeline.manifest.tasks.every)
    due, views = time.monotonic(), pipeline.manifest.inputs.views(pipeline.inputs)
    for index in range(len(recording)):
        stamp = recording.stamp_ns(index)
        frame = faults.frame(recording.seen(index, views), stamp)
        result = pipeline(frame)
        for sensor, sample in frame.items():
            if is_drawn(sample):
                viewer.image(f"/sensors/{sensor}", draw_sample(sample), stamp)
        viewer.image("/overlay", draw_result(pipeline.manifest, frame, result), stamp)
        status = {
            "state": result.state,
            "used": list(result.used),
            "health": result.health,
            "engine_ms": result.engine_ms,
            "total_ms": result.total_ms,
            "warnings": list(result.lines),
        }
        viewer.status(status, stamp)
        if live:
            due += 1 / recording.info.rate_hz
            time.sleep(max(0.0, due - time.monotonic()))
