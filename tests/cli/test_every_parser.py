"""What every command has: a description, an example that can be typed, its defaults, -q, -v and --json."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from perception.cli.main import COMMANDS, build_parser, main
from perception.cli.parsing import STDOUT

ROOT = Path(__file__).parents[2]
Named = tuple[str, argparse.ArgumentParser]


def _every(parser: argparse.ArgumentParser, words: str = "") -> Iterator[Named]:
    yield words.strip(), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _every(child, f"{words} {name}")


EVERY = list(_every(build_parser()))
LEAVES = [(words, parser) for words, parser in EVERY if parser._subparsers is None]


def _id(value: object) -> str:
    return value.replace(" ", "-") or "anysense" if isinstance(value, str) else ""


def _flat(text: str) -> str:
    """Without white space: where help breaks its lines does not matter."""
    return "".join(text.split())


def test_there_are_as_many_as_there_are() -> None:
    assert len(EVERY) > len(COMMANDS) + 6 and len(LEAVES) < len(EVERY)


@pytest.mark.parametrize(("words", "parser"), EVERY, ids=_id)
def test_help_has_a_description_and_an_example_that_parses(
    words: str, parser: argparse.ArgumentParser
) -> None:
    assert len(parser.description or "") > 20
    text = parser.format_help()
    _, found, example = text.partition("\nexample:\n")
    lines = [line.strip() for line in example.strip().splitlines()]
    assert found and lines
    for line in lines:
        inner = re.search(r"\$\((.*)\)", line)  # as in eval "$(anysense completion bash)"
        given = shlex.split(inner[1] if inner else line)
        assert given[0] == "anysense"
        assert build_parser(given[1]).parse_args(given[1:]).command == given[1]
        assert " ".join(given[1:]).startswith(words), "an example of another command"


@pytest.mark.parametrize(("words", "parser"), EVERY, ids=_id)
def test_every_argument_says_what_it_is_and_its_default(
    words: str, parser: argparse.ArgumentParser
) -> None:
    text = _flat(parser.format_help())
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            assert all(choice.help for choice in action._choices_actions)
            continue
        name = "/".join(action.option_strings) or action.dest
        assert action.help, f"{words} {name} says nothing"
        value = action.default
        if value in (None, argparse.SUPPRESS, "", [], ()) or isinstance(value, bool):
            continue
        shown = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        own = _flat(re.sub("%%", "%", parser._get_formatter()._expand_help(action)))
        assert _flat(f"default: {shown}") in own and own in text, f"{words} {name} hides {shown}"


def test_a_default_that_help_would_hide_is_noticed() -> None:
    parser = build_parser("bench")._subparsers._group_actions[0].choices["bench"]  # type: ignore
    parser.add_argument("--odd", default="100 %", help="something")
    assert "something(default:100%)" in _flat(parser.format_help())


@pytest.mark.parametrize(("words", "parser"), LEAVES, ids=_id)
def test_every_command_takes_quiet_verbose_and_json(
    words: str, parser: argparse.ArgumentParser
) -> None:
    for action in parser._actions:
        action.required = False
        if not action.option_strings:
            action.nargs = "?"
    given = parser.parse_args(["-q", "-vv", "--json"])
    assert (given.quiet, given.verbose, given.json) == (True, 2, STDOUT)
    plain = parser.parse_args([])
    assert plain.json is None and not hasattr(plain, "quiet") and not hasattr(plain, "verbose")
    assert parser.parse_args(["--json", "a.json"]).json == Path("a.json")


@pytest.mark.parametrize(("words", "parser"), EVERY, ids=_id)
def test_what_is_misspelled_is_met_with_what_is_meant(
    words: str, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name for name in parser._option_string_actions if name.startswith("--")]
    misspelled = {f"{name[:-2]}{name[-1]}{name[-2]}": name for name in names if len(name) > 6}
    misspelled = {
        wrong: name
        for wrong, name in misspelled.items()
        if not any(n.startswith(wrong) for n in names)
    }
    for wrong in misspelled:
        assert main([*words.split(), wrong, "x"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"{wrong} (did you mean '--" in said, said
    for action in parser._actions:
        choices = [c for c in action.choices or () if isinstance(c, str) and len(c) > 3]
        for choice in choices:
            wrong = f"{choice[0]}{choice[2]}{choice[1]}{choice[3:]}"
            if wrong in choices:
                continue
            with pytest.raises(argparse.ArgumentError, match=f"'{wrong}' is unknown .did you mean"):
                parser._check_value(action, wrong)


def test_an_unknown_command_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from perception.cli.main import main; status = main(['trian', '-v'])\n"
    code += "assert status == 2 and 'perception.cli.train' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "did you mean 'train'?" in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["eval", "BUNDLE", "--data", "foldr:x"], "did you mean 'folder'?"),
        (["data", "info", "kiti:x"], "did you mean 'kitti'?"),
        (["eval", "BUNDLE", "--data", "folder:DATA", "--device", "opnvino"], "mean 'openvino'?"),
        (["bench", "BUNDLE", "--backends", "onnxruntime-cpi"], "mean 'onnxruntime-cpu'?"),
        (["eval", "BUNDLE", "--data", "folder:DATA", "--subset", "rgb,detph"], "mean 'depth'?"),
        (["train", "CONFIG"], "did you mean 'epochs'?"),
        (["export", "BUNDLE", "--engine", "tensort"], "did you mean 'tensorrt'?"),
    ],
)
def test_names_of_other_things_too(
    line: list[str],
    words: str,
    tiny_bundle: Path,
    simulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("name: a\nepcohs: 3\n")
    for name, path in (("BUNDLE", tiny_bundle), ("DATA", simulated), ("CONFIG", config)):
        line = [word.replace(name, str(path)) for word in line]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and words in said, said


def _reported(line: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> dict:  # type: ignore
    """What `--json` gives, which is the same on stdout and in a file."""
    assert main([*line, "--json"]) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    content = json.loads(said.out)
    assert content["command"].startswith("anysense")
    return content  # type: ignore[no-any-return]


QUICK = {
    "eval": ["BUNDLE", "--data", "folder:DATA", "--limit", "1"],
    "demo": ["--bundle", "BUNDLE", "--data", "folder:DATA", "--limit", "10", "--out", "OUT"],
    "bench": ["BUNDLE", "--frames", "1", "--warmup", "0"],
    "bench-zoo": ["BUNDLE", "--data", "folder:DATA", "--limit", "1", "--frames", "1"],
    "export": ["BUNDLE", "--subset", "rgb", "--out", "OUT/b"],
    "models": ["--size", "32", "32", "--classes", "2"],
    "data check": ["DATA"],
    "data make-sim": ["--frames", "1", "--size", "64x48", "--out", "OUT/s"],
    "data info": ["folder:DATA"],
    "bundle verify": ["BUNDLE"],
    "bundle info": ["BUNDLE"],
    "bundle upgrade": ["BUNDLE"],
    "bundle list": [],
    "bundles": ["list"],
    "record": ["--data", "folder:DATA", "--limit", "1", "--out", "OUT/bag"],
    "doctor": [],
    "completion": ["bash"],
    "run": ["--bundle", "BUNDLE", "--rgb", "DATA/rgb/000000.png", "--out", "OUT"],
    "view": ["--data", "folder:DATA", "--limit", "1", "--bundle", "BUNDLE", "--out", "OUT/v.mcap"],
}
"""Of every command that is done in some seconds, arguments."""

ELSEWHERE = {
    "data import", "train", "pretrain", "distill", "average", "adapt", "search", "replay", "batch",
    "bundle temperatures",
    "bundle keygen", "bundle sign", "bundle novelty", "calibrate intrinsics",
    "calibrate convert", "calibrate check", "calibrate register",
    "calibrate extrinsics", "calibrate time-offset",
    "calibrate depth", "calibrate thermal", "calibrate apply",
    "robustness", "metrics nuscenes", "metrics kitti",
}  # fmt: skip
"""Those that take longer, or a bag, key or other files: in their own tests."""


def test_every_command_is_in_one_of_these() -> None:
    assert {words for words, _ in LEAVES} == QUICK.keys() | ELSEWHERE


@pytest.mark.parametrize("words", QUICK)
def test_json_is_all_there_is_on_stdout_and_quiet_is_silent(
    words: str,
    tiny_bundle: Path,
    simulated: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def line(out: str) -> list[str]:
        places = (("BUNDLE", tiny_bundle), ("DATA", simulated), ("OUT", tmp_path / out))
        filled = [*words.split(), *QUICK[words]]
        for name, path in places:
            filled = [word.replace(name, str(path)) for word in filled]
        cpu = {"eval", "demo", "bench", "bench-zoo", "run", "view"}
        return [
            *filled,
            *(["--device", "onnxruntime-cpu", "--threads", "1"] if words in cpu else []),
        ]

    content = _reported(line("a"), capsys, tmp_path)
    assert len(content) > 1
    file = tmp_path / "reported.json"
    assert main([*line("b"), "-q", f"--json={file}"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    assert json.loads(file.read_text()).keys() == content.keys()


def test_the_library_logs_below_one_name_and_the_page_lists_all() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    own = set()
    for folder in ("perception", "export", "calibration"):
        for path in (ROOT / folder).rglob("*.py"):
            own |= set(re.findall(r'getLogger\("([^"]+)"\)', path.read_text("utf-8")))
    foreign = {"torch.onnx", "tifffile", "foxglove"}  # theirs, which we quieten or listen to
    own -= {*foreign, "anysense"}
    assert own == set(re.findall(r"^\| `(anysense\.\w+)` \|", page, re.M))


def test_verbose_says_what_was_decided_and_quiet_hides_warnings(
    tiny_bundle: Path, simulated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["eval", str(tiny_bundle), "--data", f"folder:{simulated}", "--limit", "1"]
    line += ["--device", "onnxruntime-cpu"]
    assert main(["-v", *line]) == 0
    said = capsys.readouterr()
    assert "anysense.bundles: " in said.err and "anysense.engines: " in said.err
    assert "anysense.data: " in said.err and said.out
    assert main(line) == 0
    assert capsys.readouterr().err == ""
    assert main([*line, "-vv", "--subset", "sonar"]) == 2
    assert "Traceback" in capsys.readouterr().err


def _completions(line: str) -> list[str]:
    """What a shell is told when the Tab key is pressed at the end of a line."""
    given = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SHELL": "bash",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    command = f"exec {sys.executable} -m perception.cli.main 8>&1 9>/dev/null 1>/dev/null"
    command = f"exec 3>&1; {sys.executable} -m perception.cli.main 8>&3 9>/dev/null >/dev/null"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, env=os.environ | given
    )
    return [word.strip() for word in done.stdout.split("\n") if word.strip()]


def test_a_shell_completes_commands_options_choices_and_bundles() -> None:
    pytest.importorskip("argcomplete")
    assert {"batch", "bench", "bench-zoo", "bundle", "bundles"} == set(_completions("anysense b"))
    assert _completions("anysense bench --fra") == ["--frames"]
    assert _completions("anysense data ch") == ["check"]
    assert set(_completions("anysense data make-sim --kind ")) == {"drive", "scenes", "surround"}
    assert "indoor-rgbd" in _completions("anysense run --bundle indoor")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_that_the_shell_takes(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "anysense" in script and "_ARGCOMPLETE" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt install {shell}")
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


_PRESS = {
    "bash": """
eval "$(anysense completion bash)"
for line in "${lines[@]}"; do
    COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMP_WORDS=($line) COMPREPLY=()
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _python_argcomplete anysense
    echo "= ${COMPREPLY[*]}"
done
""",
    "zsh": """
autoload -Uz compinit && compinit -u -d $HOME/dump
eval "$(anysense completion zsh)"
_describe() {
    local one all=("${(P@)2}")
    print -rn -- "="
    for one in $all; print -rn -- " ${one%%:*}"
    print
}
for line in $lines; do
    words=(${(z)line}) BUFFER=$line CURSOR=${#line}
    [[ $line == *" " ]] && words+=("")
    CURRENT=$#words
    _python_argcomplete
done
""",
    "fish": """
anysense completion fish | source
for line in $lines
    echo "=" (complete -C $line | string replace -r '\\t.*' '')
end
""",
}
"""What the shell itself offers where the Tab key is pressed at the end of each of `lines`."""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_with_the_script(shell: str, tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt install {shell}")
    command = tmp_path / "bin" / "anysense"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m perception.cli.main "$@"\n')
    command.chmod(0o755)
    wanted = {
        "anysense data ch": {"check"},
        "anysense bench --fra": {"--frames"},
        "anysense data make-sim --kind ": {"drive", "scenes", "surround"},
        "anysense run --bundle sim-st": {"sim-stereo"},
    }
    quoted = " ".join(f"'{line}'" for line in wanted)
    lines = f"set lines {quoted}" if shell == "fish" else f"lines=({quoted})"
    home = {
        "HOME": str(tmp_path),
        "PATH": f"{command.parent}:{os.environ['PATH']}",
        "XDG_CONFIG_HOME": "",
    }
    path = tmp_path / f"press.{shell}"
    path.write_text(lines + "\n" + _PRESS[shell])
    done = subprocess.run(
        [shell, str(path)], capture_output=True, text=True, timeout=240,
        env=os.environ | home, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    said = [line[1:].split() for line in done.stdout.splitlines() if line.startswith("=")]
    assert [set(words) for words in said] == list(wanted.values()), done.stdout + done.stderr


def test_a_long_step_says_how_far_it_is_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from perception.cli import console
    from perception.progress import Pace

    now = iter([0.0, 10.0, 31.0, 40.0, 61.0, 100.0])
    pace = Pace("epoch 2", 100, 30, lambda: next(now))
    lines = [pace.line(done) for done in (10, 31, 40, 61, 100)]
    assert lines == [
        None,
        "epoch 2: 31 of 100, 69 s left",
        None,
        "epoch 2: 61 of 100, 39 s left",
        None,
    ]
    monkeypatch.setattr("perception.progress.EVERY_S", 0.0)
    monkeypatch.setattr(console, "Pace", lambda what, total: Pace(what, total, 0.0))
    told = io.StringIO()
    monkeypatch.setattr(sys, "stderr", told)
    with console.counted("[red]timing", 3) as advance:
        for _ in range(3):
            advance()
    assert [line.split(",")[0] for line in told.getvalue().splitlines()] == [
        "anysense: [red]timing: 1 of 3",
        "anysense: [red]timing: 2 of 3",
    ]
