"""`anysense export`: a run to a bundle; a bundle to other graphs, INT8, TensorRT plans, a report."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perception.cli.arguments import (
    backend_names,
    command_line,
    expect_folder,
    give_json,
    output_folder,
    thin_out,
)
from perception.cli.console import Table, complain, note, say, status, step_progress
from perception.cli.export_arguments import (
    add_arguments,
    check_arguments,
    gpu_number,
    has_plans,
    makes_bundle,
)
from perception.cli.export_precision import (
    change,
    check_float16,
    cpu_backends,
    float_layers,
    is_bundle,
    megabytes,
)
from perception.cli.parsing import Commands, add_command
from perception.errors import BundleError, ConfigError, ParityError
from perception.extras import require
from perception.files.folders import scratch_folder
from perception.files.listing import siblings_hint

if TYPE_CHECKING:
    from export.bundle_graphs import GraphChoice
    from perception.runtime.bundle import Bundle

EXIT_TOLERANCE = 3


def add_parser(commands: Commands) -> None:
    """Register the command."""
    parser = add_command(
        commands,
        "export",
        "export a run to a bundle; quantize, build or judge a bundle",
        more="A bundle is never changed: one that gets other graphs is another one, in --out. "
        "Exit status 3: a tolerance is broken.",
        example="""
            anysense export runs/mine --out bundles/mine
            anysense export bundles/mine --precision int8 --calib-data folder:DIR --out bundles/mine8
            anysense export bundles/mine --report out/report --data folder:DIR
        """,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for; exit 3 when a tolerance is broken."""
    from perception.runtime.bundle import Bundle
    from perception.runtime.engines.base import NonFiniteError

    args.source = _found(args.source)
    if not args.source.exists():
        raise ConfigError(
            "no such run, checkpoint or bundle",
            where=str(args.source),
            hint=siblings_hint(args.source),
        )
    if is_bundle(args.source):
        require("export", "onnx")
        bundle: Bundle | None = Bundle.open(args.source)
    else:
        require("a checkpoint", "torch", "onnxscript", "safetensors", "onnx")
        bundle = None
    check_arguments(args, bundle.manifest.precision if bundle else None)
    if bundle is not None:
        from export.onnx_files import load_model

        # Before anything is made of them: some backends crash on a graph that breaks ONNX's rules.
        for file in bundle.manifest.graph_files():
            load_model(bundle.source(file))
    if args.single:
        args.subset = ["modular", "single"]
    args.found = {"source": str(args.source), "out": None if args.out is None else str(args.out)}
    try:
        status = _serve(args, bundle) if args.serve else _export(args, bundle)
        give_json(args, {**args.found, "within_tolerance": status != EXIT_TOLERANCE})
        return status
    except (NonFiniteError, ParityError) as error:
        complain(f"error: {error}")
        return EXIT_TOLERANCE


def _found(source: Path) -> Path:
    """The source's path; a name is that of a bundle."""
    from perception.runtime.bundle import find_bundle

    if source.exists() or len(source.parts) > 1:
        return source
    try:
        return find_bundle(str(source))
    except BundleError:
        return source


def _export(args: argparse.Namespace, bundle: Bundle | None) -> int:
    from export.bundle_graphs import add_graphs, compare_graphs, parse_choice, with_graphs
    from export.ends import end_in_labels
    from perception.runtime.bundle import Bundle

    if bundle is None and args.ends == "labels" and not makes_bundle(args.engine, args.precision):
        return _export_labels(args)
    if bundle is not None:
        choice = parse_choice(args.subset, bundle.manifest.inputs.names, bundle.manifest.subsets)
        _check_bundle_source(args, bundle, choice)
    else:
        if args.out is None:
            raise ConfigError("--out is needed for a run or checkpoint")
        bundle, choice = _from_run(args, args.out)

    def finish(folder: Path) -> None:
        """What a new bundle gets before it is in its place."""
        if args.ends == "labels":
            end_in_labels(folder, args.threads)
        if choice.composed:
            with status("joining graphs"):
                errors = add_graphs(folder, choice, args.threads)
            _say_errors(args, Bundle.open(folder, verify=False), errors, args.out)

    if makes_bundle(args.engine, args.precision, bundle.manifest.precision):
        bundle = change(args, bundle, finish)
    elif args.out is not None and bundle.path.resolve() != args.out.resolve():
        with status("joining graphs"):
            errors = with_graphs(bundle, args.out, choice, args.threads, args.ends == "labels")
        bundle = Bundle.open(args.out)
        _say_errors(args, bundle, errors, args.out)
    elif choice.composed:
        with status("comparing graphs"):
            errors = compare_graphs(bundle, choice, args.threads)
        _say_errors(args, bundle, errors, bundle.path)
    if has_plans(args.engine):
        _build(args, bundle, choice)
    elif args.engine == "openvino":
        _compile(bundle, choice, args.threads)
    if args.report is not None and not _report(args, bundle):
        return EXIT_TOLERANCE
    return 0


def _export_labels(args: argparse.Namespace) -> int:
    """A run's bundle that ends in labels is made of the one that ends in logits, which is not kept."""
    from export.bundle_folder import check_target
    from perception.runtime.bundle import Bundle

    if args.out is None:
        raise ConfigError("--out is needed for a run or checkpoint")
    check_target(args.out)
    with scratch_folder("ends") as folder:
        made = argparse.Namespace(**vars(args))
        made.out, made.subset, made.single = folder / "bundle", [], False
        bundle, _ = _from_run(made, made.out)
        own = ("dynamic", "weights", "name", "version", "licence")
        rest = argparse.Namespace(**{**vars(args), **dict.fromkeys(own), "source": made.out})
        return _export(rest, Bundle.open(bundle.path))


def _check_bundle_source(args: argparse.Namespace, bundle: Bundle, choice: GraphChoice) -> None:
    from export.bundle_folder import check_target
    from export.ends import ends_in_labels

    for option in ("dynamic", "weights", "name", "version", "licence"):
        if getattr(args, option):
            raise ConfigError("needs a run or checkpoint, not a bundle", where=f"--{option}")
    changed = makes_bundle(args.engine, args.precision, bundle.manifest.precision)
    labels = args.ends == "labels"
    if (changed or labels) and ends_in_labels(bundle):
        raise ConfigError(
            "ends in labels already: nothing can be measured of it, or made smaller",
            where=str(args.source),
            hint="take the bundle that ends in logits",
        )
    if labels and args.out is None:
        raise ConfigError("what ends in labels is another bundle", where="--ends", hint="--out DIR")
    nothing = args.engine == "onnx" and args.report is None and not choice.composed
    if nothing and not changed and not labels:
        raise ConfigError(
            "is a bundle already",
            where=str(args.source),
            hint="--precision, --subset, --ends, --engine, --report, or a run as the source",
        )
    if args.out is not None:
        check_target(args.out, bundle.path if bundle.is_folder else None)
    if args.out is not None and not (changed or choice.composed or labels):
        raise ConfigError("plans are kept in the bundle itself", where="--out")
    lacking = choice.lacking(bundle.manifest.graphs)
    if args.out is None and lacking:
        raise ConfigError(
            f"it has no graph {lacking[0]}, and one that has is another bundle",
            where=str(args.source),
            hint="--out DIR for that",
        )


def _from_run(args: argparse.Namespace, out: Path) -> tuple[Bundle, GraphChoice]:
    """The float32 bundle of a run, and the graphs that are asked for."""
    from export.bundle_folder import check_target
    from export.bundle_graphs import parse_choice
    from export.bundle_writer import ExportOptions, export_bundle
    from perception.runtime.bundle import Bundle
    from perception.training.checkpoint import load_checkpoint

    check_target(out)
    # A changed bundle is made from the float32 one, which is kept beside it.
    if makes_bundle(args.engine, args.precision):
        final = Path(os.path.realpath(out)) if out.name in ("", "..") else out
        out = final.with_name(f"{final.name}-fp32")
        check_target(out)
    choice = parse_choice(args.subset, load_checkpoint(args.source).config.preprocess.names)
    options = ExportOptions(
        single=choice.single,
        subsets=choice.subsets,
        dynamic=args.dynamic,
        half_storage=args.weights != "float32",
        version=args.version or "1",
        name=args.name,
        licence=args.licence or "unknown",
    )
    with status(f"exporting {args.source}"):
        rows = export_bundle(args.source, out, options)
    table = Table("graphs", "subset", "max |ONNX - PyTorch|")
    for row in rows:
        table.add_row(row.form, row.subset, f"{row.max_abs:.1e}")
    table.show()
    args.found |= {"wrote": str(out), "parity": [asdict(row) for row in rows]}
    say(f"wrote {out} ({megabytes(out):.1f} MB)")
    return Bundle.open(out), choice


def _say_errors(
    args: argparse.Namespace, bundle: Bundle, errors: dict[str, float], shown: Path
) -> None:
    """Say how far composed graphs are from the separate ones; `shown` is the bundle's name for that."""
    args.found["composed"] = errors
    graphs = bundle.manifest.graphs
    for name, error in errors.items():
        graph = graphs.single if name == "single" else graphs.subsets[name]
        assert graph is not None
        size = bundle.size(graph.file) / 1e6
        say(f"{shown / graph.file} ({size:.1f} MB): {error:.1e} from encoders and fuser")


def _serve(args: argparse.Namespace, bundle: Bundle | None) -> int:
    from export.bundle_graphs import parse_choice, with_graphs
    from export.serving import write_isaac_ros, write_triton
    from perception.runtime.bundle import Bundle

    if args.out is None:
        raise ConfigError("--serve needs --out")
    expect_folder(args.out)
    if args.engine != "onnx" or args.report is not None or args.calib_data or args.precision:
        raise ConfigError(
            "goes with --subset and --out alone", where="--serve", hint="make the bundle first"
        )
    args.subset = ["single"] if args.single else args.subset or ["single"]
    with scratch_folder("serve") as folder:
        if bundle is None:
            bundle, choice = _from_run(args, folder / "bundle")
        else:
            manifest = bundle.manifest
            choice = parse_choice(args.subset, manifest.inputs.names, manifest.subsets)
            _check_outside(args.out, bundle)
        if choice.modular and "all" not in args.subset:
            raise ConfigError(
                "other runtimes take one graph: single, or a subset such as "
                f"{','.join(bundle.manifest.inputs.names)}",
                where="--subset",
            )
        # In a copy: what is served elsewhere need not be part of the bundle.
        with_graphs(bundle, folder / "copy", choice, args.threads, args.ends == "labels")
        bundle = Bundle.open(folder / "copy")
        for name in choice.names():
            out = output_folder(args.out)
            if args.serve == "triton":
                written = write_triton(bundle, out, name, args.uint8_rgb)
            else:
                written = write_isaac_ros(bundle, out, name)
            args.found.setdefault("served", []).append(str(written))
            say(f"wrote {written}")
    return 0


def _check_outside(out: Path, bundle: Bundle) -> None:
    """Refuse to write what is for others into the bundle itself."""
    target, own = (Path(os.path.realpath(p)) for p in (out, bundle.path))
    if target.is_relative_to(own):
        raise ConfigError("lies in the source", where=str(out), hint="choose another --out")


def _report(args: argparse.Namespace, bundle: Bundle) -> bool:
    """Write the report; False when it breaks a tolerance."""
    from export.report import ReportOptions, make_report, table_rows, write_report
    from perception.data.registry import open_recording, parse_data_argument

    output_folder(args.report)
    recording = None
    if args.data:
        kind, root = parse_data_argument(args.data)
        recording = open_recording(kind, root, split=args.split)
        if args.limit is not None:
            thin_out(recording, args.limit, "--limit")
    reference = args.reference
    if reference is None:
        reference = args.source if is_bundle(args.source) else bundle.path
    names = backend_names(args.backends) if args.backends else cpu_backends()
    options = ReportOptions(
        tuple(names), args.tolerance, args.bench_frames, args.threads, args.trust_plans
    )
    with step_progress() as show:
        content = make_report(bundle.path, reference, recording, options, show)
    write_report(args.report, content, command_line())
    args.found["report"] = content
    header, *rows = table_rows(content)
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    table.show()
    for row in content["backends"].values():
        for reason in row["reasons"]:
            say(f"{row['backend']}: {reason}", style="red")
        for line in row["notes"]:
            note(line)
    say(f"wrote {args.report / 'report.html'}")
    return bool(content["passed"])


def _build(args: argparse.Namespace, bundle: Bundle, choice: GraphChoice) -> None:
    from export.engine_builder import BuildOptions, build_plans, check_options
    from perception.runtime.engines.registry import BACKENDS

    build = BACKENDS[args.engine].builder()
    # What an INT8 or mixed bundle says is not int8 is float16, unless float32 is asked for.
    precision: Literal["fp32", "fp16", "mixed"] = "fp16"
    if args.precision == "fp32":
        precision = "fp32"
    elif args.precision == "mixed" and bundle.manifest.precision == "fp32":
        precision = "mixed"
    options = BuildOptions(
        args.engine,
        precision,
        tuple(dict.fromkeys(args.compute_capability)),
        args.workspace,
        args.timing_cache,
        args.version_compatible,
        args.hardware_compatible,
        args.dla,
        gpu_number(args),
        args.rebuild,
    )
    if build is build_plans:  # another's says itself what does not fit
        check_options(bundle, options)
    if options.precision == "mixed":
        options = options.keeping(float_layers(args, bundle))
    elif options.precision == "fp16" and bundle.manifest.precision == "fp32":
        check_float16(args, bundle)
    with step_progress() as show:
        built = build(
            bundle,
            options,
            lambda graph, what, share: show(f"{graph}: {what}", round(100 * share), 100),
            choice,
        )
    for plan in built:
        header = plan.header
        how = "there already" if plan.reused else f"built in {header.seconds:.1f} s"
        say(
            f"{plan.path} ({header.plan_bytes / 1e6:.1f} MB, {header.precision}, compute capability "
            f"{', '.join(header.compute_capabilities)}): {how}"
        )
        args.found.setdefault("plans", []).append({"file": str(plan.path), "reused": plan.reused})
    if not args.build_only:
        _load(bundle, args.engine, choice, args.threads, options.device)


def _compile(bundle: Bundle, choice: GraphChoice, threads: int | None) -> None:
    _load(bundle, "openvino", choice, threads)


def _load(
    bundle: Bundle, backend: str, choice: GraphChoice, threads: int | None, device: int = 0
) -> None:
    """Load the chosen graphs on a backend, so that what cannot run is known now."""
    from export.bundle_graphs import graph_files
    from perception.runtime.engines.registry import BACKENDS

    files = graph_files(bundle, choice)
    engines = [BACKENDS[backend].load(bundle.source(file), threads, device) for file in files]
    say(f"{bundle.path}: {', '.join(files)} load on {engines[0].backend}")
