"""The registry of what is chosen by name, against distributions as installers leave them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from perception import plugins
from perception.errors import ConfigError, InputError
from perception.plugins import PluginError, Registry


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, in which distributions can be made."""
    monkeypatch.syspath_prepend(str(tmp_path))
    # A module that is written anew within a second, as long as before, would be that of before.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    plugins.plugins.cache_clear()
    yield tmp_path
    plugins.plugins.cache_clear()
    for name in [n for n in sys.modules if n.startswith("brought_")]:
        del sys.modules[name]


def distribute(site: Path, name: str, group: str, entries: dict[str, str], code: str = "") -> None:
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (site / f"brought_{name}.py").write_text(code)


def _is_int(name: str, thing: object) -> None:
    if not isinstance(thing, int):
        raise TypeError(f"is a {type(thing).__name__}, not an int")


def registry() -> Registry[int]:
    return Registry("models", "model", {"one": 1, "length": "math:pi"}, _is_int)


def test_ours_come_first_and_only_what_is_asked_for_is_imported(site: Path) -> None:
    distribute(
        site,
        "a",
        "anysense.models",
        {"zwei": "brought_a:TWO", "drei": "brought_broken:X"},
        "TWO = 2",
    )
    found = registry()
    assert list(found) == ["one", "length", "drei", "zwei"]
    assert "brought_a" not in sys.modules
    assert found["zwei"] == 2 and found.named("one") == 1
    assert found["length"] == pytest.approx(3.14159, abs=1e-4)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise RuntimeError('no radar here')", "RuntimeError: no radar here"),
        ("TWO = 'two'", "is a str, not an int"),
        ("", "has no attribute 'TWO'"),
        ("import absent_package_of_nobody", "No module named 'absent_package_of_nobody'"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_distribution(
    site: Path, code: str, said: str
) -> None:
    distribute(site, "a", "anysense.models", {"zwei": "brought_a:TWO"}, code)
    with pytest.raises(PluginError) as caught:
        registry().named("zwei")
    assert said in str(caught.value) and "model 'zwei' of a 1.0" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_answered_with_the_closest_and_all(site: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'lenght' \(did you mean 'length'"):
        registry().named("lenght")
    assert "lenght" not in registry()
    with pytest.raises(KeyError):
        registry()["lenght"]


def test_a_plugin_does_not_replace_ours_and_the_first_of_two_counts(site: Path) -> None:
    distribute(site, "b", "anysense.models", {"one": "brought_b:X", "zwei": "brought_b:X"}, "X = 9")
    distribute(site, "a", "anysense.models", {"zwei": "brought_a:TWO"}, "TWO = 2")
    with pytest.warns(UserWarning, match=r"models 'zwei' of b 1.0 is left aside: a 1.0"):
        found = registry()
        assert found.named("zwei") == 2
    assert found["one"] == 1
    found_now = [(p.group, p.name, p.distribution) for p in plugins.installed()]
    assert found_now == [("models", "one", "b 1.0"), ("models", "zwei", "a 1.0")]


RECORD = """
from dataclasses import dataclass
from collections.abc import Callable
from perception.errors import InputError
from perception.test_record import Record

def wild(text):
    if text == "refused":
        raise InputError("not this", where="text")
    return int(text)

TWO = Record("zwei", wild)
"""


@dataclass(frozen=True)
class Record:
    name: str
    number: Callable[[str], int]
    other: Callable[[], int] = lambda: 1 // 0


def test_the_functions_of_a_plugins_record_raise_one_line_and_give_what_they_must(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = types.ModuleType("perception.test_record")
    Record.other.__module__, ours.Record = "perception.test_record", Record  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, ours.__name__, ours)
    distribute(site, "a", "anysense.models", {"zwei": "brought_a:TWO"}, RECORD)
    found: Registry[Record] = Registry("models", "model", {}, gives={"number": bool})
    record = found.named("zwei")
    with pytest.raises(PluginError, match=r"model 'zwei' of a 1.0: ValueError: invalid literal"):
        record.number("one")
    with pytest.raises(InputError, match="text: not this"):
        record.number("refused")
    with pytest.raises(PluginError, match=r"number gave int, not bool"):
        record.number("1")
    with pytest.raises(ZeroDivisionError):  # ours: a fault of ours stays one
        record.other()


def test_every_group_has_its_registry() -> None:
    assert set(plugins.REGISTRIES) == set(plugins.GROUPS)
    for group, target in plugins.REGISTRIES.items():
        module, _, attribute = target.partition(":")
        registry = getattr(import_module(module), attribute)
        assert isinstance(registry, Registry) and registry.group == group and len(registry)


@pytest.mark.parametrize("name", ["100%", "a,b", "a:b", "a b", "[x]", "x" * 80])
def test_a_name_that_no_command_could_say_is_left_aside(site: Path, name: str) -> None:
    distribute(site, "a", "anysense.models", {name: "brought_a:TWO", "zwei": "brought_a:TWO"})
    with pytest.warns(UserWarning, match="of a 1.0 is left aside: expected letters"):
        assert list(registry()) == ["one", "length", "zwei"]
