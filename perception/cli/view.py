"""`anysense view`: a bundle on a recording, live in Foxglove or as an MCAP file for it."""

from __future__ import annotations

import argparse
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from perception.cli.arguments import (
    add_data_arguments,
    add_engine_arguments,
    open_data,
    output_file,
    say,
)
from perception.errors import ConfigError, MissingDependencyError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("view", help="show a bundle at work in Foxglove")
    add_data_arguments(parser, required=True)
    parser.add_argument("--bundle", required=True, help="folder, zip or name of a bundle")
    parser.add_argument("--out", type=Path, metavar="FILE.mcap", help="write a file, serve nothing")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on")
    parser.add_argument("--port", type=int, default=8765, help="port to serve on")
    parser.add_argument("--loops", type=int, default=1, help="how often to play; 0 = for ever")
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Stream pictures of the sensors, the overlay, labeled points and the status."""
    try:
        import foxglove
    except ImportError as error:
        raise MissingDependencyError(
            "foxglove-sdk is not installed", where="view", hint="pip install 'anysense[view]'"
        ) from error
    from perception.runtime.pipeline import Pipeline

    if args.loops < 0:
        raise ConfigError("must not be negative", where="--loops")
    recording = open_data(args)
    output_file(args.out)
    if args.out is not None and args.out.exists():
        raise ConfigError("exists already", where=str(args.out), hint="choose another --out")
    pipeline = Pipeline.load(args.bundle, args.device, threads=args.threads)
    with ExitStack() as open_things:
        if args.out is not None:
            open_things.enter_context(foxglove.open_mcap(str(args.out)))
        else:
            try:
                server = foxglove.start_server(host=args.host, port=args.port, name="anysense")
            except Exception as error:  # a type of the SDK's own
                raise ConfigError(f"cannot serve: {error}", where="--port") from error
            open_things.callback(server.stop)
            say(f"open Foxglove at ws://{args.host}:{args.port} (Ctrl-C ends)")
        loops = 1 if args.out is not None else args.loops
        played = 0
        while played < loops or not loops:
            played += 1
            _play(recording, pipeline, live=args.out is None)
    if args.out is not None:
        say(f"wrote {len(recording)} frames to {args.out}")
    return 0


def _play(recording: Any, pipeline: Any, *, live: bool) -> None:
    import foxglove

    from perception.viz.overlay import draw_result, draw_sample

    due = time.monotonic()
    for index in range(len(recording)):
        frame = recording.frame(index)
        result = pipeline(frame)
        stamp = recording.stamp_ns(index)
        for modality, sample in frame.items():
            if modality != "lidar" or sample.camera is not None:
                _log_image(f"/sensors/{modality}", draw_sample(sample), stamp)
        _log_image("/overlay", draw_result(pipeline.manifest, frame, result), stamp)
        status = {
            "state": result.state,
            "used": list(result.used),
            "health": result.health,
            "engine_ms": result.engine_ms,
            "total_ms": result.total_ms,
            "warnings": list(result.warnings),
        }
        foxglove.log("/status", status, log_time=stamp)
        if live:
            due += 1 / recording.info.rate_hz
            time.sleep(max(0.0, due - time.monotonic()))


def _log_image(topic: str, image: Any, stamp_ns: int) -> None:
    import foxglove
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
    foxglove.log(topic, message, log_time=stamp_ns)
