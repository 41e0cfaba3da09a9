"""`anysense batch`: fleets of recordings, chunk by chunk, here or on a cluster."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli.arguments import give_json
from perception.cli.calibrate_verdicts import UNTRUSTED, tell_left_out
from perception.cli.console import note, say, step_progress, warn
from perception.cli.eval import show_scores
from perception.cli.parsing import Commands, add_command, add_trust, whole
from perception.errors import ConfigError
from perception.extras import require

if TYPE_CHECKING:
    from perception.fleet.job import Job
    from perception.fleet.run import Executor, Report

_MOST_WORKERS = 100_000
_HERE = "local"


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "batch",
        "label, judge or convert fleets of recordings, here or on a Ray cluster",
        more="The job is a file, see docs/fleet.md. What is done is not done again; a recording that fails "
        "is named and stops no other. Exit status 3: some have failed, the others are done.",
        example="""
            anysense batch job.yaml
            anysense batch job.yaml --on ray --workers 2
            anysense batch job.yaml --on ray://head:10001 --workers 64
        """,
    )
    parser.add_argument("job", type=Path, help="YAML file of the job")
    parser.add_argument(
        "--on",
        default=_HERE,
        metavar="WHERE",
        help="local: in this process; ray: a cluster of this machine for as long as it takes; "
        "ray://HOST:PORT or HOST:PORT: a cluster that is there",
    )
    parser.add_argument(
        "--workers",
        type=whole(1, _MOST_WORKERS),
        metavar="N",
        help="instead of the job's workers.count",
    )
    add_trust(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the job; says what came of it."""
    require("a fleet", "fsspec", "pyarrow")
    from perception.fleet.job import read_job
    from perception.fleet.run import run_job

    job = read_job(args.job)
    if args.workers is not None:
        workers = job.workers.model_copy(update={"count": args.workers})
        job = job.model_copy(update={"workers": workers})
    executor = _executor(job, args.on)
    try:
        with step_progress() as show:
            report = run_job(job, executor, show)
    finally:
        executor.close()
    _tell(job, report)
    give_json(args, _content(job, report, args.on))
    return UNTRUSTED if report.failed else 0


def _executor(job: Job, where: str) -> Executor:
    if where == _HERE:
        if job.workers.count > 1:
            note("local is one worker; --on ray takes more")
        from perception.fleet.run import Here

        return Here(job)
    if where != "ray" and ":" not in where:
        hint = "local, ray, ray://HOST:PORT or HOST:PORT"
        raise ConfigError(f"'{where[:80]}' is no place to work", where="--on", hint=hint)
    from perception.fleet.ray_workers import RayWorkers

    executor = RayWorkers(job, where)
    say(f"{len(executor.workers)} workers on {len({w['host'] for w in executor.workers})} machines")
    return executor


def _tell(job: Job, report: Report) -> None:
    before = f", {report.skipped} of them before" if report.skipped else ""
    say(
        f"{report.recordings} recordings, {report.done + report.skipped} of {report.chunks} chunks done"
        f"{before}: {report.frames} frames, {report.rows} rows in {job.out}/rows"
    )
    if report.states:
        say("outputs: " + ", ".join(f"{n} {state}" for state, n in report.states.items()))
    if report.kept:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.kept.items()))
        say(f"{report.kept_frames} frames kept in {job.out}/kept: {reasons}")
    if report.scores:
        show_scores("all recordings together", report.scores, "recordings")
    for task, reason in report.unsummed.items():
        note(f"no {task} scores of all recordings together: {reason}")
    if report.replaced:
        note(f"{report.replaced} chunks of recordings that have changed were replaced")
    if report.old:
        note(f"{job.out}/rows has {report.old} chunks of recordings that are not in this job")
    for title in report.borders[:8]:
        warn(f"{title} does not begin as the part before ends: a longer warm_up_s is needed")
    tell_left_out(report.failed, ())


def _content(job: Job, report: Report, where: str) -> dict[str, Any]:
    plain = vars(replace(report))
    return {"out": job.out, "task": job.task, "on": where, **plain}
