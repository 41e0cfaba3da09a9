"""Starts live calibration: `ros2 launch anysense_ros calibrate.launch.py board:=chessboard:9x6:0.05`."""

import os
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

SHARE = Path(get_package_share_directory("anysense_ros"))
# Fast DDS renamed the variable after Jazzy.
OLD = os.environ.get("ROS_DISTRO") in ("humble", "jazzy")
PROFILES = "FASTRTPS_DEFAULT_PROFILES_FILE" if OLD else "FASTDDS_DEFAULT_PROFILES_FILE"
# As of perception.launch.py: room for images in shared memory.
ENVIRONMENT = {PROFILES: str(SHARE / "config" / "fastdds.xml")}
SETTINGS = {
    "board": str,
    "plate": str,
    "output": str,
    "rig": str,
    "guess": str,
    "model": str,
    "min_views": int,
    "publish_rig": bool,
    "use_sim_time": bool,
}


def calibrate(context: LaunchContext) -> list[Node]:
    """The node; an argument that was given beats params_file, one that was not leaves it alone."""
    given = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, kind in SETTINGS.items()
        if LaunchConfiguration(name).perform(context)
    }
    own = LaunchConfiguration("topics").perform(context).split()
    remappings = [(f"~/input/{name}", topic) for name, _, topic in (t.partition("=") for t in own)]
    node = Node(
        package="anysense_ros",
        executable="calibrate",
        name="calibrate",
        namespace=LaunchConfiguration("namespace"),
        parameters=[LaunchConfiguration("params_file"), *([given] if given else [])],
        remappings=remappings,
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """The node and its arguments."""
    fallback = "what params_file says"
    defaults = {
        "namespace": ("", "namespace of the node"),
        "params_file": (str(SHARE / "config" / "calibrate.yaml"), "sensors and other parameters"),
        "board": ("", f"chessboard:9x6:0.05, ...; {fallback}"),
        "plate": ("", f"WIDTHxHEIGHT of the board's plate, metres, with a LiDAR; {fallback}"),
        "output": ("", f"folder of the views; {fallback}, else calibration"),
        "rig": ("", f"rig file to write; {fallback}, else rig.yaml in output"),
        "guess": ("", f"rig file to start from; {fallback}, else none"),
        "model": ("", f"of cameras; {fallback}, else auto"),
        "min_views": ("", f"views that are asked for; {fallback}, else 12"),
        "publish_rig": ("", f"camera_info and /tf_static when solved; {fallback}, else true"),
        "use_sim_time": ("", f"take the time from /clock; {fallback}, else false"),
        "topics": ("", "of sensors: 'rgb=/a/image rgb/camera_info=/a/camera_info'"),
        "log_level": ("info", "debug, info, warn or error"),
    }
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in defaults.items()
    ]
    environment = [
        SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
        for name, value in ENVIRONMENT.items()
    ]
    return LaunchDescription([*arguments, *environment, OpaqueFunction(function=calibrate)])
