"""`anysense run`: a bundle on files, folders, videos, cameras, bags and recordings."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.cli.arguments import (
    add_data_arguments,
    add_engine_arguments,
    engine_choices,
    give_json,
    open_data,
    output_file,
    output_folder,
)
from perception.cli.console import counted, note, say, warn
from perception.cli.hints import OF_FILES, add_hints, hints_of
from perception.cli.parsing import Commands, add_command, positive
from perception.cli.sources import (
    RULES,
    Files,
    Pairing,
    Shot,
    Source,
    Video,
    files_shots,
    pair,
    source_of,
    stream_shots,
    total_of,
)
from perception.errors import ConfigError, meant
from perception.frame import KINDS, Frame, Sample
from perception.preprocess.contract import PreprocessContract
from perception.runtime.wiring import match_inputs
from perception.sensors.kind import Hints
from perception.sensors.registry import kind_of

if TYPE_CHECKING:
    from perception.bags.playback import Playback
    from perception.cli.run_output import Output
    from perception.runtime.pipeline import Pipeline
    from perception.runtime.result import Result

WRITTEN = ("overlay", "masks", "boxes", "results")
_SHOWN_WARNINGS = 20


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "run",
        "run a bundle on files, folders, videos, cameras, a bag or a recording",
        more="Each sensor takes a file, several, a folder, a pattern in quotes, a video, or a camera's "
        "number, device or address. What several sensors give is paired by the names of the files, else by "
        "the times that these are, else by order. Of one frame results lie side by side in --out, of many in "
        "a folder for each sort of picture, with results.jsonl; boxes are written as COCO has them.",
        example="""
            anysense run --bundle sim-rgbdtl --rgb a.png --depth b.png --out out/run
            anysense run --bundle sim-rgbdtl --rgb photos/ --out out/run --video out/run.mp4
            anysense run --bundle sim-rgbdtl --rgb 0 --out out/run --write results --limit 300
            anysense run --bundle sim-rgbdtl --data folder:DIR --out out/run
        """,
    )
    parser.add_argument("--bundle", required=True, help="folder, zip or name of a bundle")
    for kind in KINDS:
        parser.add_argument(
            f"--{kind}", nargs="+", default=[], metavar="SOURCE", help=kind_of(kind).files
        )
    parser.add_argument(
        "--sensor",
        action="append",
        default=[],
        metavar="NAME=SOURCE",
        help="of an input of the bundle, as where it takes several of a kind; any number",
    )
    parser.add_argument("--bag", type=Path, help="MCAP or rosbag2 recording, played as it was live")
    add_data_arguments(parser, required=False)
    parser.add_argument(
        "--pair", choices=RULES, default="auto", help="how files of several sensors go together"
    )
    parser.add_argument("--rig", type=Path, metavar="FILE", help="calibration, see docs/data.md")
    add_hints(parser, OF_FILES)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--write",
        nargs="+",
        choices=WRITTEN,
        default=list(WRITTEN),
        metavar="WHAT",
        help=f"which of {', '.join(WRITTEN)}",
    )
    parser.add_argument("--no-legend", action="store_true", help="overlays without a legend")
    parser.add_argument(
        "--video", type=Path, metavar="FILE", help="also write the overlays as .mp4 or .avi"
    )
    parser.add_argument(
        "--fps",
        type=positive(1000),
        metavar="HZ",
        help="of that film (default: the source's, 10 of files)",
    )
    add_engine_arguments(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Job:
    """What is to be run.

    Attributes:
        shots: the frames; of a bag the results, too.
        total: how many there will be; 0 where that is not known.
        single: there is one.
        rate_hz: how many a second.
        paired: by which rule sensors go together.
        live: until somebody ends it.
    """

    shots: Iterator[tuple[Shot, Result | None]]
    total: int
    single: bool = False
    rate_hz: float = 10.0
    paired: str = ""
    live: bool = False


def given_sources(args: argparse.Namespace, contract: PreprocessContract) -> dict[str, list[str]]:
    """The sources by sensor: each is called as the bundle's input that it is for, else as its kind.

    Raises:
        ConfigError: none is given, one is no NAME=SOURCE, or one of no input or given twice.
    """
    given: dict[str, list[str]] = {kind: words for kind in KINDS if (words := getattr(args, kind))}
    own = match_inputs({kind: kind for kind in given}, contract.kinds)
    found = {own.get(kind, kind): words for kind, words in given.items()}
    for entry in args.sensor:
        name, equals, source = entry.partition("=")
        if not equals or not source:
            raise ConfigError(f"'{entry}' is not NAME=FILE", where="--sensor")
        if name not in contract:
            takes = ", ".join(contract.names)
            what = f"the bundle takes {takes}, not '{name}'"
            raise ConfigError(what, where="--sensor", hint=meant(name, contract.names))
        if name in found:
            raise ConfigError(f"'{name}' is given twice", where="--sensor")
        found[name] = [source]
    if not found:
        options = ", ".join(f"--{kind}" for kind in KINDS)
        raise ConfigError(
            "no sensor file given", hint=f"{options}, --sensor NAME=FILE, --data or --bag"
        )
    return found


def _with_scale(hints: Hints, name: str, contract: PreprocessContract) -> Hints:
    """With the scale of 8 bit files that the bundle's input says, if it does."""
    spec = contract[name].preprocess if name in contract else None
    return replace(hints, m_per_count8=getattr(spec, "m_per_count8", None))


def _load(path: Path, kind: str, hints: Hints, told: set[str]) -> Sample:
    from perception.sensors.samples import load_sample

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are notes
        sample = load_sample(kind, path, hints)
    if "m_per_count8" in kind_of(kind).hints:
        if hints.scale is None and sample.encoding == "8UC1":
            line = f"8 bit {kind}, read as {hints.m_per_count8:.4g} m per step"
        elif hints.scale is not None and "FC1" in sample.encoding:
            line = f"{kind} of floats is read as metres; --{kind}-scale is for integers"
        else:
            return sample
        if line not in told:
            note(line)
            told.add(line)
    return sample


def _loader(
    args: argparse.Namespace, contract: PreprocessContract, kinds: dict[str, str]
) -> tuple[Callable[[str, Path], Sample], Callable[[Sample], Sample]]:
    """What loads a sensor's file, and what calibrates a sample."""
    from perception.geometry.rig import load_rig
    from perception.sensors.samples import file_remarks

    hints, told = hints_of(args, kinds), set[str]()
    rig, views = (load_rig(args.rig) if args.rig else None), contract.views()

    def finish(sample: Sample) -> Sample:
        return sample if rig is None else rig.attach(sample, views.get(sample.sensor, ""))

    def load(sensor: str, path: Path) -> Sample:
        kind = kinds[sensor]
        sample = _load(path, kind, _with_scale(hints[sensor], sensor, contract), told)
        for text in file_remarks(path, kind):
            if text not in told:  # of one of many files
                note(f"{path} {text}")
                told.add(text)
        return finish(sample.named(sensor))

    return load, finish


def _of_sources(args: argparse.Namespace, pipeline: Pipeline) -> Job:
    contract = pipeline.manifest.inputs
    given = given_sources(args, contract)
    kinds = {name: contract[name].kind if name in contract else name for name in given}
    load, finish = _loader(args, contract, kinds)
    foreign = [name for name in given if name not in pipeline.sensors]
    if len(foreign) == len(given):
        raise ConfigError(
            f"bundle {pipeline.manifest.name} takes {', '.join(pipeline.sensors)}, "
            f"not {', '.join(foreign)}",
            hint=_named_options(given, contract, pipeline.sensors),
        )
    sources: list[Source] = [source_of(n, kinds[n], words) for n, words in given.items()]
    files = [source for source in sources if isinstance(source, Files)]
    for source in files:
        if source.passed_over:
            note(f"passed over: {', '.join(source.passed_over)}")
    videos = [source for source in sources if isinstance(source, Video)]
    if videos:
        live = any(video.live for video in videos)
        total = 0 if live else total_of(sources, None)
        streamed = islice(stream_shots(sources, load, finish), args.limit)
        many = {"paired": "time" if len(videos) > 1 else "order", "live": live}
        rate = args.fps or _rate(videos[0])
        total = min(total, args.limit) if args.limit else total
        return Job(((shot, None) for shot in streamed), total, rate_hz=rate, **many)  # type: ignore[arg-type]
    found = pair(files, args.pair)
    if args.limit is not None and args.limit < (count := len(found.frames)):
        kept = tuple(found.frames[i * count // args.limit] for i in range(args.limit))
        found = Pairing(found.rule, kept)
    single = len(found.frames) == 1
    if not single and len(files) > 1:
        gaps = f"; {found.gaps} of {len(found.frames)} frames lack a sensor" if found.gaps else ""
        note(f"paired by {found.rule}{gaps}")
    shots = ((shot, None) for shot in files_shots(files, found, load))
    return Job(shots, len(found.frames), single, args.fps or 10.0, found.rule)


def _named_options(
    given: Mapping[str, list[str]], contract: PreprocessContract, sensors: Sequence[str]
) -> str:
    """How a source is given to one of several inputs of its kind."""
    inputs = [name for name in sensors if name in contract and contract[name].kind in given]
    if not inputs:
        return "--sensor NAME=FILE" if set(sensors) - set(KINDS) else ""
    source = " ".join(given[contract[inputs[0]].kind][:1])
    options = " or ".join(f"--sensor {name}=" for name in inputs)
    return f"of several {contract[inputs[0]].kind} inputs say which: {options}{source}"


def _rate(video: Video) -> float:
    video.open()
    video.close()
    return video.rate_hz


def _of_data(args: argparse.Namespace, pipeline: Pipeline) -> Job:
    recording = open_data(args)
    if not recording.info.shared(pipeline.kinds):
        takes = ", ".join(pipeline.sensors)
        raise ConfigError(f"the bundle takes none of its sensors, but {takes}", where=args.data)
    views = pipeline.manifest.inputs.views(pipeline.inputs)
    shots = (
        (Shot(name, recording.seen(index, views), f"{args.data}#{name}"), None)
        for index, name in enumerate(recording.ids)
    )
    rate = args.fps or recording.info.rate_hz
    return Job(shots, len(recording), rate_hz=rate, paired="recording")


def _of_bag(args: argparse.Namespace, playback: Playback) -> Job:
    path = args.bag
    results = (result for result in playback.run(path) if result.samples)
    shots = (
        (Shot(f"{number:06d}", result.samples, str(path)), result)
        for number, result in enumerate(islice(results, args.limit))
    )
    return Job(shots, 0, rate_hz=args.fps or 10.0, paired="stamp")


def _as_replay(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments of `anysense replay` that mean the same."""
    from perception.cli.parsing import Parser
    from perception.cli.replay_arguments import add_arguments

    parser = Parser(prog="anysense run")
    add_arguments(parser)
    given = parser.parse_args([f"--bundle={args.bundle}", f"--out={args.out}", str(args.bag)])
    for name in vars(given).keys() & vars(args).keys():
        setattr(given, name, getattr(args, name))
    given.rig = str(args.rig or "")
    return given


def run(args: argparse.Namespace) -> int:
    """Run; writes overlays, masks, boxes, results and a film."""
    from perception.cli.replay import opened, shortcomings
    from perception.cli.run_output import Film, Output
    from perception.runtime.pipeline import Pipeline

    families = {"--data": args.data, "--bag": args.bag}
    chosen = [option for option, value in families.items() if value]
    sensors = [f"--{k}" for k in KINDS if getattr(args, k)] + ["--sensor"] * bool(args.sensor)
    if len(chosen) > 1 or (chosen and sensors):
        both = " and ".join([*chosen, *sensors][:2])
        raise ConfigError("are two sources of all sensors; give one", where=both)
    output_file(args.video)
    playback = opened(_as_replay(args)) if args.bag else None
    if playback is None:
        pipeline = Pipeline.load(args.bundle, args.device, **engine_choices(args))
    else:
        pipeline = playback.stream.pipeline
    pipeline.wanted = pipeline.parts
    if playback is not None:
        job = _of_bag(args, playback)
    else:
        job = (_of_data if args.data else _of_sources)(args, pipeline)
    film = None if args.video is None else Film(args.video, job.rate_hz)
    if args.out.is_dir() and any(args.out.iterdir()):
        note(f"{args.out} is not empty: files of the same names are replaced, others stay")
    output = Output(
        output_folder(args.out),
        pipeline,
        single=job.single,
        wanted=frozenset(args.write),
        legend=not args.no_legend,
        film=film,
    )
    whole = False
    try:
        fields = _run(job, pipeline, output)
        whole = True
    finally:
        output.close(whole=whole)
        if playback is not None:
            shortcomings(playback)
    return _report(args, job, output, fields)


def _run(job: Job, pipeline: Pipeline, output: Output) -> dict[str, Any]:
    """Run every frame; returns the last one's plain values."""
    fields: dict[str, Any] = {}
    told: dict[str, int] = {}
    shots = iter(job.shots)
    with counted("running", job.total) as advance:
        while True:
            try:
                shot, result = next(shots)
            except StopIteration:
                break
            except KeyboardInterrupt:
                if not job.live:
                    raise
                break
            if shot.alone:
                pipeline.reset()
            frame = Frame(shot.samples)
            result = result or pipeline(frame)
            for line in (*shot.problems, *result.lines):
                told[line] = told.get(line, 0) + 1
                if told[line] == 1 and len(told) <= _SHOWN_WARNINGS:
                    warn(line if job.single else f"{shot.name}: {line}")
            fields = output.add(shot.name, frame, result, shot.origin)
            advance()
    if len(told) > _SHOWN_WARNINGS:
        warn(f"and {len(told) - _SHOWN_WARNINGS} more; results.jsonl has all of them")
    return fields


def _report(args: argparse.Namespace, job: Job, output: Output, fields: dict[str, Any]) -> int:
    frames, answered = sum(output.states.values()), len(output.milliseconds)
    if not frames:
        raise ConfigError("there is no frame to run on", where=str(args.bag or args.data or ""))
    if not answered:
        raise ConfigError("no sensor was usable", hint="see the warnings above")
    if job.single:
        used, spent = ", ".join(fields["used"]), output.milliseconds[0]
        say(
            f"{fields['state']}: used {used}; {spent:.1f} ms on {fields['backend']}; wrote {args.out}"
        )
        give_json(args, {"out": str(args.out), **fields})
        return 0
    median = float(np.median(output.milliseconds))
    states = ", ".join(f"{count} {state}" for state, count in output.states.items())
    say(f"{frames} frames, {answered} answered ({states}); {median:.1f} ms each; wrote {args.out}")
    if args.video is not None:
        say(f"wrote {args.video}")
    content: dict[str, Any] = {
        "out": str(args.out),
        "video": None if args.video is None else str(args.video),
        "bundle": output.pipeline.manifest.name,
        "backend": output.pipeline.backend,
        "paired": job.paired,
        "frames": frames,
        "answered": answered,
        "states": dict(output.states),
        "used": dict(output.used),
        "median_ms": median,
    }
    give_json(args, content)
    return 0
