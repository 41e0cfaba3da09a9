"""`anysense bundle`: check a bundle, or say what is in it."""

from __future__ import annotations

import argparse
from typing import Any

from perception.cli.console import Table, say


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("bundle", help="verify a bundle or show what it holds")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("verify", "check every file's checksum, and graphs against the manifest"),
        ("info", "show the manifest"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("bundle", help="folder, zip or name of a bundle")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify or show; a damaged bundle is an error that names the file."""
    from perception.runtime.bundle import Bundle, find_bundle
    from perception.runtime.engines.plans import all_plans, verify_plans

    path = find_bundle(args.bundle)
    bundle = Bundle.open(path, verify=args.action == "verify")
    if args.action == "verify":
        plans = verify_plans(bundle)
        say(f"{path}: {len(bundle.manifest.files)} files match their checksums")
        if plans:
            say(f"{path}: {plans} plans are whole and built from these graphs")
            foreign = sum(plan.built_here() is None for plan in all_plans(bundle))
            if foreign:
                say(
                    f"{path}: {foreign} of them were not built on this machine, and run with "
                    "--trust-plans only",
                    style="yellow",
                )
        return 0
    manifest = bundle.manifest
    say(f"{manifest.name} {manifest.version}: {manifest.description}", style="bold")
    if manifest.simulated:
        say("trained on simulated data", style="yellow")
    say(f"tasks {', '.join(manifest.tasks)}; modalities {', '.join(manifest.modalities)}")
    grid = manifest.inputs.grid
    say(
        f"grid {grid.width}x{grid.height} ({grid.fit}); opset {manifest.graphs.opset}; {manifest.precision}"
    )
    for task in manifest.tasks:
        names = [c.name for c in getattr(manifest.classes, task)]
        say(f"{task}: {len(names)} classes: {', '.join(names)}")
    content = manifest.model_dump(mode="json")
    for section in ("model", "training", "accuracy", "parity", "quantization", "backends"):
        _print_section(section, content[section])
    return 0


def _print_section(title: str, content: dict[str, Any]) -> None:
    if not content:
        return
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in content.items():
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            for name, inner in value.items():
                table.add_row(f"{key}: {name}", _short(inner))
        else:
            table.add_row(key, _short(value))
    table.show()


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
