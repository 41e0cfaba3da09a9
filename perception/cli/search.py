"""`anysense search`: sub-networks and bits of a super-network, accuracy against latency."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from perception.cli.arguments import (
    add_data_arguments,
    backend_names,
    give_json,
    open_data,
    output_folder,
    write_json,
)
from perception.cli.console import Table, say, step_progress
from perception.cli.parsing import (
    MAX_SEED,
    Commands,
    add_command,
    add_threads,
    positive,
    real,
    whole,
)
from perception.errors import ConfigError, names_hint
from perception.extras import require

if TYPE_CHECKING:
    from perception.search.search import Found, SearchReport
    from perception.search.space import SearchSpace

_OBJECTIVES = ("latency", "size")


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "search",
        "find fast sub-networks of a super-network",
        example="anysense search runs/super --data folder:DIR --split val --budget-ms 8 --out out/search",
    )
    parser.add_argument("source", type=Path, metavar="RUN", help="run trained with `sandwich`")
    add_data_arguments(parser, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder; resumes what is there")
    parser.add_argument(
        "--budget-ms", type=positive(), nargs="+", default=[], metavar="MS", help="best within each"
    )
    parser.add_argument(
        "--objectives",
        default="latency",
        metavar="A,B",
        help=f"against accuracy: {', '.join(_OBJECTIVES)}",
    )
    parser.add_argument(
        "--backend", metavar="NAME", help="that runs the networks (default: openvino, if installed)"
    )
    add_threads(parser, 1)
    parser.add_argument("--initial", type=whole(4), default=24, help="first candidates")
    parser.add_argument("--rounds", type=whole(0), default=3, help="predicted rounds")
    parser.add_argument("--per-round", type=whole(1), default=12, help="candidates each")
    parser.add_argument("--verify", type=whole(1), default=6, help="networks to time")
    parser.add_argument(
        "--held-out",
        type=real(0, 1, most_too=False),
        default=0.5,
        help="share of the frames, at their end, to report on and not choose on",
    )
    parser.add_argument("--seed", type=whole(0, MAX_SEED), default=0, help="of the candidates")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search; the folder gets pareto.json, pareto.png and a run for each chosen sub-network."""
    require("the search", "torch", "onnx", "onnxscript", "safetensors", "matplotlib")
    import torch

    from perception.runtime.engines.registry import BACKENDS, REFERENCE
    from perception.search.report import plot, report_content
    from perception.search.search import Search, SearchOptions

    _check(args)
    backend = "openvino" if BACKENDS["openvino"].installed else REFERENCE
    if args.backend:
        backend = backend_names(args.backend)[0]
    torch.set_num_threads(args.threads)
    objectives = tuple(dict.fromkeys(args.objectives.split(",")))
    same = ("threads", "initial", "rounds", "per_round", "verify", "held_out", "seed")
    plain = {name: getattr(args, name) for name in same}
    options = SearchOptions(objectives, tuple(sorted(args.budget_ms)), backend, **plain)
    out = output_folder(args.out)
    with step_progress() as show:
        search = Search(args.source, open_data(args), out, options, show)
        report = search.run()
    content = report_content(report, search.space, backend)
    write_json(out / "pareto.json", content)
    plot(report, out / "pareto.png", f"{search.checkpoint.config.name}, {backend}")
    _print(report, search.space)
    say(f"wrote {out}")
    give_json(args, {"out": str(out), **content})
    return 0


def _check(args: argparse.Namespace) -> None:
    unknown = sorted(set(args.objectives.split(",")) - set(_OBJECTIVES))
    if unknown:
        raise ConfigError(
            f"no objective '{unknown[0]}'",
            where="--objectives",
            hint=names_hint(unknown[0], _OBJECTIVES),
        )
    if args.budget_ms and "latency" not in args.objectives:
        raise ConfigError("needs the objective latency", where="--budget-ms")


def _print(report: SearchReport, space: SearchSpace) -> None:
    table = Table("sub-network", "predicted ms", "measured ms", "MB", "int8", "score", "held out")
    for label, found in {"(whole, float)": report.whole, **report.chosen}.items():
        table.add_row(label, *_row(found, space))
    table.show()
    for name, value in report.errors.items():
        say(f"{name.replace('_', ' ')}: {value:.3g}")


def _row(found: Found, space: SearchSpace) -> tuple[str, ...]:
    decoded = space.decode(found.candidate)
    layers = sum(len(space.blocks[block][-1]) for block in decoded.choices)
    held = sum(found.held_out.values()) / len(found.held_out) if found.held_out else None
    return (
        f"{found.ms:.1f}",
        "" if found.measured_ms is None else f"{found.measured_ms:.1f}",
        f"{found.megabytes:.1f}",
        f"{len(decoded.int8)} of {layers}",
        f"{100 * found.score:.1f}",
        "" if held is None else f"{100 * held:.1f}",
    )
