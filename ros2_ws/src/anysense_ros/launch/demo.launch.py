"""Replays a recording through the perception node while its sensors fail on a script.

ros2 launch anysense_ros demo.launch.py source:=folder:out/drive bundle:=sim-rgbdtl
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from perception.bags.files import sensor_topic
from perception.frame import KINDS

SHARE = Path(get_package_share_directory("anysense_ros"))
SENSORS = KINDS


def generate_launch_description() -> LaunchDescription:
    """sensor_replay, then fault_injector, then perception_node; status_recorder writes what it says."""
    arguments = [
        DeclareLaunchArgument("source", description="bag, or KIND:DIR such as folder:out/drive"),
        DeclareLaunchArgument("bundle", default_value="sim-rgbdtl"),
        DeclareLaunchArgument("device", default_value=""),
        DeclareLaunchArgument("params_file", default_value=str(SHARE / "config" / "rig_all.yaml")),
        DeclareLaunchArgument(
            "schedule", default_value=str(SHARE / "config" / "demo_schedule.yaml")
        ),
        DeclareLaunchArgument("rate", default_value="1.0"),
        DeclareLaunchArgument("out", default_value="out/ros_demo"),
    ]
    topics = {s: sensor_topic(s, s) for s in SENSORS}
    replay = Node(
        package="anysense_ros",
        executable="sensor_replay",
        name="sensor_replay",
        parameters=[
            {
                "source": ParameterValue(LaunchConfiguration("source"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": True,
                "wait_for": 1,
            }
        ],
        output="screen",
    )
    injector = Node(
        package="anysense_ros",
        executable="fault_injector",
        name="fault_injector",
        parameters=[{"schedule": ParameterValue(LaunchConfiguration("schedule"), value_type=str)}],
        remappings=[(f"~/input/{s}", topics[s]) for s in SENSORS]
        + [(f"~/output/{s}", f"/faulty/{s}") for s in SENSORS],
        output="screen",
    )
    perception = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(SHARE / "launch" / "perception.launch.py")),
        launch_arguments={
            "bundle": LaunchConfiguration("bundle"),
            "device": LaunchConfiguration("device"),
            "params_file": LaunchConfiguration("params_file"),
            **{s: f"/faulty/{s}" for s in SENSORS},
        }.items(),
    )
    recorder = Node(
        package="anysense_ros",
        executable="status_recorder",
        name="status_recorder",
        parameters=[{"out": ParameterValue(LaunchConfiguration("out"), value_type=str)}],
        remappings=[
            ("~/status", "/perception_node/status"),
            ("~/overlay", "/perception_node/overlay"),
        ],
        output="screen",
    )
    return LaunchDescription([*arguments, injector, perception, recorder, replay])
