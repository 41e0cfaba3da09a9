"""`anysense bundle`: check a bundle, or say what is in it."""

from __future__ import annotations

import argparse

from perception.cli.arguments import CONSOLE


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("bundle", help="verify a bundle or show what it holds")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (("verify", "check every file's checksum"), ("info", "show the manifest")):
        action = actions.add_parser(name, help=text)
        action.add_argument("bundle", help="folder, zip or name of a bundle")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Verify or show; a damaged bundle is an error that names the file."""
    from perception.runtime.bundle import Bundle, find_bundle

    bundle = Bundle.open(find_bundle(args.bundle), verify=args.action == "verify")
    if args.action == "verify":
        CONSOLE.print(f"{bundle.path}: {len(bundle.manifest.files)} files match their checksums")
        return 0
    manifest = bundle.manifest
    CONSOLE.print(f"[bold]{manifest.name}[/bold] {manifest.version}: {manifest.description}")
    CONSOLE.print(f"tasks {', '.join(manifest.tasks)}; modalities {', '.join(manifest.modalities)}")
    grid = manifest.inputs.grid
    CONSOLE.print(f"grid {grid.width}x{grid.height}; opset {manifest.graphs.opset}")
    if manifest.simulated:
        CONSOLE.print("trained on simulated data")
    for section in ("model", "training", "accuracy", "parity"):
        CONSOLE.print(f"[bold]{section}[/bold]")
        CONSOLE.print(getattr(manifest, section))
    return 0
