"""Launch files, read without `launch`, which has no wheels."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch


def share() -> Path:
    """Where the package's files are installed."""
    found = importlib.util.find_spec("anysense_ros")
    assert found is not None and found.origin is not None
    return (
        next(p for p in Path(found.origin).parents if (p / "share").is_dir()) / "share/anysense_ros"
    )


class Configuration(str):
    """The value of an argument of a launch file, by name."""

    def perform(self, context: dict[str, str]) -> str:
        return context[self]


def _described(file_name: str) -> list[Any]:
    """What a launch file says, with parts that are only names and values."""
    parts: dict[str, dict[str, Any]] = {
        "launch": {"LaunchContext": dict, "LaunchDescription": list},
        "launch.actions": {
            "DeclareLaunchArgument": lambda name, default_value, description: (name, default_value),
            "OpaqueFunction": lambda function: function,
            "SetEnvironmentVariable": lambda name, value: SimpleNamespace(name=name, value=value),
        },
        "launch.substitutions": {
            "EnvironmentVariable": lambda name, default_value: default_value,
            "LaunchConfiguration": Configuration,
        },
        "launch_ros": {},
        "launch_ros.actions": {"LifecycleNode": SimpleNamespace, "Node": SimpleNamespace},
        "launch_ros.parameter_descriptions": {"ParameterValue": lambda name, value_type: name},
        "ament_index_python": {},
        "ament_index_python.packages": {"get_package_share_directory": lambda name: str(share())},
    }
    modules = {name: ModuleType(name) for name in parts}
    for name, content in parts.items():
        vars(modules[name]).update(content)
    spec = importlib.util.spec_from_file_location("f", share() / "launch" / file_name)
    assert spec is not None and spec.loader is not None
    with patch.dict("sys.modules", modules):
        file = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(file)
    return list(file.generate_launch_description())


def variables(file_name: str = "perception.launch.py") -> dict[str, str]:
    """The environment that a launch file gives its node, where the user has not set it."""
    settings = [x for x in _described(file_name) if isinstance(x, SimpleNamespace)]
    return {x.name: x.value for x in settings}


def launched(given: dict[str, str], file_name: str = "perception.launch.py") -> list[str]:
    """What a launch file has its one node started with; `launch` itself has no wheels."""
    described = _described(file_name)
    arguments = dict(x for x in described if isinstance(x, tuple))
    assert set(given) <= set(arguments)
    context = {**arguments, **given}

    def text(value: Any) -> str:
        if isinstance(value, list):
            return "".join(text(v) for v in value)
        return value.perform(context) if isinstance(value, Configuration) else value

    (node,) = described[-1](context)
    words = [*map(text, node.arguments), "--ros-args"]
    for source in node.parameters:
        if isinstance(source, dict):
            words += [w for k, v in source.items() for w in ("-p", f"{k}:={text(v)}")]
        else:
            words += ["--params-file", text(source)]
    return words + [w for old, new in node.remappings for w in ("-r", f"{old}:={text(new)}")]
