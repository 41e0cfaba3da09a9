"""Fuzzes with coverage as a guide: `make fuzz`, or `python tests/fuzz/run.py [TARGET...] --seconds 120`.

Each target runs in a process of its own, one after the other, from its corpus and what earlier runs found
(out/fuzz/TARGET).  An input that breaks a law is written to out/fuzz/TARGET-crash-... and named; put it into
tests/fuzz/corpus/TARGET as found_WHAT, where the default tests hold it, and mend the code.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

HERE = Path(__file__).resolve().parent
OUT = Path("out/fuzz")
_EXECUTED = re.compile(r"(?:stat::number_of_executed_units:|Done) *(\d+)")


def fuzz_one(target: str, options: list[str]) -> None:
    """Fuzz in this process, until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["perception"]):
        from fuzz.targets import check
    from fuzz.mutators import mutator

    def once(data: bytes) -> None:
        check(target, data)

    change, named = mutator(target), {}
    if change is not None:

        def changed(data: bytes, most: int, seed: int) -> bytes:
            rng = random.Random(seed)
            if rng.random() < 0.5:
                data = change(data, rng)
            return (data if rng.random() < 0.5 else atheris.Mutate(data, most))[:most]

        named["custom_mutator"] = changed
    atheris.Setup([sys.argv[0], *options], once, **named)
    atheris.Fuzz()


def options_of(target: str, args: argparse.Namespace) -> list[str]:
    """libFuzzer's: bounded time and memory are a part of the law."""
    grown = OUT / target
    grown.mkdir(parents=True, exist_ok=True)
    return [
        str(grown),
        str(HERE / "corpus" / target),
        f"-max_total_time={args.seconds}",
        f"-timeout={args.timeout}",
        f"-rss_limit_mb={args.memory}",
        f"-max_len={args.longest}",
        f"-artifact_prefix={OUT / target}-",
        f"-seed={args.seed}",
        "-print_final_stats=1",
        "-use_value_profile=1",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz what reads what others send.")
    parser.add_argument("targets", nargs="*", help="of tests/fuzz/targets.py (default: all)")
    parser.add_argument("--seconds", type=int, default=120, help="for each target")
    parser.add_argument("--timeout", type=int, default=20, help="seconds that one input may take")
    parser.add_argument("--memory", type=int, default=4096, help="MB that the process may take")
    parser.add_argument("--longest", type=int, default=16384, help="bytes of an input")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        fuzz_one(args.targets[0], options_of(args.targets[0], args))
        return 0
    from fuzz.targets import TARGETS  # not before: what is imported already is not instrumented

    if unknown := sorted(set(args.targets) - set(TARGETS)):
        parser.error(f"unknown target '{unknown[0]}'; there are {', '.join(TARGETS)}")
    broken: list[str] = []
    for target in args.targets or TARGETS:
        OUT.mkdir(parents=True, exist_ok=True)
        before = set(OUT.glob(f"{target}-*"))
        log, started = OUT / f"{target}.log", time.monotonic()
        with log.open("wb") as file:
            command = [sys.executable, __file__, target, "--one"]
            for name in ("seconds", "timeout", "memory", "longest", "seed"):
                command += [f"--{name}", str(getattr(args, name))]
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
        counts = _EXECUTED.findall(log.read_text(errors="replace"))
        found = sorted(map(str, set(OUT.glob(f"{target}-*")) - before))
        told = {
            "target": target,
            "inputs": int(counts[-1]) if counts else None,
            "seconds": round(time.monotonic() - started),
            "status": code,
            "found": found,
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        if code or found:
            broken.append(target)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
