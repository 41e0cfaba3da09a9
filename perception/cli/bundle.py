"""`anysense bundle`: check or sign a bundle, say what is in it, or bring it to the present schema."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.cli import bundles
from perception.cli.arguments import give_json
from perception.cli.console import Table, say
from perception.cli.novelty import add_action as add_novelty
from perception.cli.parsing import Commands, add_command, add_group, add_trust
from perception.cli.signing import add_actions as add_signing
from perception.cli.temperatures import add_action as add_temperatures
from perception.errors import ConfigError
from perception.frame import subset_name

if TYPE_CHECKING:
    from perception.runtime.bundle import Bundle


def add_parser(commands: Commands) -> None:
    """Register the command."""
    actions = add_group(
        commands,
        "bundle",
        "verify, sign, show or upgrade a bundle; fit its confidence, and what is far from training",
        example="anysense bundle info sim-rgbdtl",
    )
    for name, text in (
        ("verify", "check every file's checksum, and graphs against the manifest"),
        ("info", "show what it is, and what was measured of it"),
        ("upgrade", "rewrite the manifest of an older version; graphs stay as they are"),
    ):
        action = add_command(actions, name, text, example=f"anysense bundle {name} sim-rgbdtl")
        action.add_argument("bundle", help="folder, zip or name of a bundle")
        action.set_defaults(run=run)
        add_trust(action)
        if name == "verify":
            whose = action.add_mutually_exclusive_group()
            whose.add_argument(
                "--key", type=Path, metavar="FILE", help="public key that must have signed it"
            )
            whose.add_argument(
                "--trust",
                type=Path,
                metavar="DIR",
                help="folder of keys of which one must have signed it",
            )
    action.add_argument(
        "--out", type=Path, help="folder to write (default: in the old one's place)"
    )
    bundles.add_list(actions)
    add_signing(actions)
    add_temperatures(actions)
    add_novelty(actions)


def run(args: argparse.Namespace) -> int:
    """Verify, show or upgrade; a damaged bundle is an error that names the file."""
    from perception.runtime import licences
    from perception.runtime.bundle import Bundle, find_bundle
    from perception.runtime.engines import openvino_int8
    from perception.runtime.engines.plans import all_plans, verify_plans

    path = find_bundle(args.bundle)
    if args.action == "upgrade":
        return _upgrade(args, path)
    verify = args.action == "verify"
    trust = (args.key or args.trust) if verify else None
    if trust is not None and getattr(args, "trust_store", None) is not None:
        raise ConfigError(
            "whom to trust is said twice",
            where="--trust-store",
            hint=f"leave it out beside {'--key' if args.key else '--trust'}",
        )
    bundle = Bundle.open(path, verify=verify, trust=trust)
    if verify:
        plans, foreign = verify_plans(bundle), 0
        say(f"{path}: {len(bundle.manifest.files)} files match their checksums")
        signed = _say_signatures(path, bundle)
        if plans:
            say(f"{path}: {plans} plans are whole and built from these graphs")
            foreign = sum(plan.built_here() is None for plan in all_plans(bundle))
            if foreign:
                say(
                    f"{path}: {foreign} of them were not built on this machine, and run with "
                    "--trust-plans only",
                    style="yellow",
                )
        files = sorted(bundle.manifest.files)
        found = {
            "bundle": str(path),
            "files": files,
            "plans": plans,
            "foreign_plans": foreign,
            **signed,
        }
        give_json(args, found)
        return 0
    manifest = bundle.manifest
    title = f"{manifest.name} {manifest.version}"
    say(f"{title}: {manifest.description}" if manifest.description else title, style="bold")
    if manifest.simulated:
        say("trained on simulated data", style="yellow")
    say(f"licences: {licences.described(manifest.licence)}")
    table = Table("input", "kind", "encoder", "grid", "view")
    for name, spec in manifest.inputs.items():
        view = spec.view
        into = f" into {view.into}" if view.into else ""
        grid = f"{view.width}x{view.height} ({view.fit})"
        table.add_row(name, spec.kind, spec.encoder, grid, f"{view.type}{into}")
    table.show()
    order = ", ".join(manifest.reference_order())
    which = "the first that is there of " if len(manifest.reference_order()) > 1 else ""
    say(f"results lie in the pixels of {which}{order}")
    say(f"judged with {', '.join(subset_name(s) for s in manifest.subsets)}")
    graphs = manifest.graphs
    more = [*(["single"] if graphs.single is not None else []), *graphs.subsets]
    say(f"graphs {', '.join(['modular', *more])}; opset {graphs.opset}; {manifest.precision}")
    for task, own in manifest.tasks.items():
        say(f"{task}: {own.described()}" if own.described() else task)
    content = manifest.model_dump(mode="json") | bundle.records.model_dump(mode="json")
    for section in (
        "model", "training", "quantization", "accuracy", "parity", "backends", "speed",
    ):  # fmt: skip
        _print_section(section, content[section])
    doubts = openvino_int8.doubts_in(bundle)
    if doubts:
        say(f"on openvino: {doubts}", style="yellow")
    give_json(args, {"bundle": str(path), **content, "doubts": doubts})
    return 0


def _say_signatures(path: Path, bundle: Bundle) -> dict[str, Any]:
    from perception.runtime.signatures import read_signatures

    if bundle.seal is not None:
        say(f"{path}: signed by {', '.join(bundle.signers)}, with all that lies in it")
        return {"signed_by": list(bundle.signers), "signature_checked": True}
    found = read_signatures(bundle.files)
    keys = [one.key for one in found.signatures] if found is not None else []
    if keys:
        say(
            f"{path}: has signatures of the keys {', '.join(key[:8] for key in keys)}, which were not "
            "checked: --key FILE or --trust DIR",
            style="yellow",
        )
    return {"signed_by": [], "signature_checked": False}


def _upgrade(args: argparse.Namespace, path: Path) -> int:
    from export.bundle_folder import upgrade_bundle

    done = upgrade_bundle(path, args.out)
    if done is None:
        say(f"{path}: is of the present schema; there is nothing to do")
    else:
        say(f"wrote {done / 'bundle.yaml'}; its graphs are as they were")
    give_json(args, {"bundle": str(path), "wrote": None if done is None else str(done)})
    return 0


def _print_section(title: str, content: dict[str, Any]) -> None:
    if not content:
        return
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    by_subset: list[tuple[str, dict[str, Any]]] = []
    for key, value in content.items():
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            for name, inner in value.items():
                if _is_table(inner):
                    by_subset.append((f"{title}: {key}", inner))
                else:
                    table.add_row(f"{key}: {name}", _short(inner))
        else:
            table.add_row(key, _short(value))
    if table.row_count:
        table.show()
    for what, rows in by_subset:
        _print_rows(what, rows)


def _is_table(value: Any) -> bool:
    """Whether it has a row of plain values under each name, such as the scores of each subset."""
    rows = list(value.values()) if isinstance(value, dict) else []
    return len(rows) > 0 and all(
        isinstance(row, dict) and row and not any(isinstance(v, dict) for v in row.values())
        for row in rows
    )


def _print_rows(title: str, rows: dict[str, dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, row in rows.items():
        table.add_row(name, *(_short(row[c]) if c in row else "" for c in columns))
    table.show()


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "; ".join(map(_short, value))
    return str(value)
