"""`anysense export`: from a checkpoint to a bundle of ONNX graphs, with proof of parity."""

from __future__ import annotations

import argparse
from pathlib import Path

from perception.errors import ConfigError, MissingDependencyError, ParityError

EXIT_TOLERANCE = 3


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("export", help="export a checkpoint to a bundle")
    parser.add_argument("checkpoint", type=Path, help="checkpoint file or run folder")
    parser.add_argument("--out", type=Path, required=True, help="bundle folder to write")
    parser.add_argument(
        "--single", action="store_true", help="also write one graph with everything"
    )
    parser.add_argument("--dynamic", action="store_true", help="let height and width vary")
    parser.add_argument(
        "--weights",
        choices=("float16", "float32"),
        default="float16",
        help="how weights are stored; arithmetic is float32 either way",
    )
    parser.add_argument("--name", help="name of the bundle (default: the configuration's)")
    parser.add_argument("--version", default="1", help="version of the bundle")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, print the parity of every subset, exit 3 when it breaks the tolerance."""
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "export needs PyTorch and onnx", hint="pip install 'anysense[train]'"
        ) from error
    from rich.console import Console
    from rich.table import Table

    from export.bundle_writer import ExportOptions, export_bundle

    if args.out.exists() and not args.out.is_dir():
        raise ConfigError("exists and is no folder", where=str(args.out))
    console = Console()
    options = ExportOptions(
        single=args.single,
        dynamic=args.dynamic,
        half_storage=args.weights == "float16",
        version=args.version,
        name=args.name,
    )
    try:
        with console.status(f"exporting {args.checkpoint}"):
            rows = export_bundle(args.checkpoint, args.out, options)
    except ParityError as error:
        console.print(f"anysense: error: {error}", style="red", highlight=False)
        return EXIT_TOLERANCE
    table = Table("graphs", "subset", "max |ONNX - PyTorch|")
    for row in rows:
        table.add_row(row.form, row.subset, f"{row.max_abs:.1e}")
    console.print(table)
    size = sum(p.stat().st_size for p in args.out.iterdir() if p.is_file())
    console.print(f"wrote {args.out} ({size / 1e6:.1f} MB)")
    return 0
