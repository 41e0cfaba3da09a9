"""Starts live calibration: `ros2 launch anysense_ros calibrate.launch.py board:=chessboard:9x6:0.05`."""

from anysense_ros.launching import (
    FALLBACK,
    SHARE,
    arguments,
    environment,
    parameters,
    remapped_topics,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

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
    node = Node(
        package="anysense_ros",
        executable="calibrate",
        name="calibrate",
        namespace=LaunchConfiguration("namespace"),
        parameters=parameters(context, SETTINGS),
        remappings=remapped_topics(context),
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """The node and its arguments."""
    defaults = {
        "params_file": (str(SHARE / "config" / "calibrate.yaml"), "sensors and other parameters"),
        "board": ("", f"chessboard:9x6:0.05, ...; {FALLBACK}"),
        "plate": ("", f"WIDTHxHEIGHT of the board's plate, metres, with a LiDAR; {FALLBACK}"),
        "output": ("", f"folder of the views; {FALLBACK}, else calibration"),
        "rig": ("", f"rig file to write; {FALLBACK}, else rig.yaml in output"),
        "guess": ("", f"rig file to start from; {FALLBACK}, else none"),
        "model": ("", f"of cameras; {FALLBACK}, else auto"),
        "min_views": ("", f"views that are asked for; {FALLBACK}, else 12"),
        "publish_rig": ("", f"camera_info and /tf_static when solved; {FALLBACK}, else true"),
        "topics": ("", "of sensors: 'rgb=/a/image rgb/camera_info=/a/camera_info'"),
    }
    own = OpaqueFunction(function=calibrate)
    return LaunchDescription([*arguments(defaults), *environment(), own])
