"""What the launch files have in common: settings that beat a parameter file, topics, the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("anysense_ros"))

FALLBACK = "what params_file says"
"""Where an argument was not given."""

_OLD = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
_PROFILES = (  # Fast DDS renamed the variable after Jazzy
    "FASTRTPS_DEFAULT_PROFILES_FILE" if _OLD else "FASTDDS_DEFAULT_PROFILES_FILE"
)


def parameters(
    context: LaunchContext, settings: Mapping[str, type]
) -> list[LaunchConfiguration | dict[str, ParameterValue]]:
    """The parameter file, and the arguments that were given: they beat it, others leave it alone.

    Args:
        context: of the launch.
        settings: by name of an argument and parameter, its type.
    """
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in settings.items()
        if LaunchConfiguration(name).perform(context)
    }
    return [LaunchConfiguration("params_file"), *([given] if given else [])]


def remapped_topics(context: LaunchContext) -> list[tuple[str, str]]:
    """The remaps of `topics`: `rgb=/a/image rgb/camera_info=/a/camera_info`."""
    own = LaunchConfiguration("topics").perform(context).split()
    return [(f"~/input/{name}", topic) for name, _, topic in (t.partition("=") for t in own)]


def arguments(defaults: Mapping[str, tuple[str, str]]) -> list[DeclareLaunchArgument]:
    """By name, an argument's default and what it is, and those that each launch file has."""
    common = {
        "namespace": ("", "namespace of the node"),
        "use_sim_time": ("", f"take the time from /clock; {FALLBACK}, else false"),
        "log_level": ("info", "debug, info, warn or error"),
    }
    return [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in {**common, **defaults}.items()
    ]


def environment(more: Mapping[str, str] | None = None) -> list[SetEnvironmentVariable]:
    """Variables that the user has not set: room for images in shared memory, and more."""
    values = {_PROFILES: str(SHARE / "config" / "fastdds.xml"), **(more or {})}
    if not os.environ.get(_PROFILES):  # a profile of one's own is taken as ROS takes it
        values["RMW_FASTRTPS_USE_QOS_FROM_XML"] = "1"
    return [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in values.items()
    ]
