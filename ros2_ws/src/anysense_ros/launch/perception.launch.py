"""Starts the perception node: `ros2 launch anysense_ros perception.launch.py bundle:=sim-rgbdtl`."""

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
from launch_ros.actions import LifecycleNode

from perception.bags.files import info_topic, sensor_topic
from perception.frame import KINDS
from perception.sensors.registry import kind_of

SENSORS = KINDS
CAMERAS = [s for s in SENSORS if kind_of(s).has_picture]
# Keep freed image buffers.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "2",
}


# What the launch file sets where neither an argument nor params_file does.
DEFAULTS = {"bundle": "sim-rgbdtl", "autostart": "true"}
SETTINGS = {"bundle": str, "device": str, "use_sim_time": bool, "autostart": bool}


def perception_node(context: LaunchContext) -> list[LifecycleNode]:
    """The node; an argument that was given beats params_file, one that was not leaves it alone."""
    respawn = LaunchConfiguration("use_respawn").perform(context).lower() in ("true", "1")
    values = DEFAULTS | ({"engine.stuck": "exit"} if respawn else {})
    defaults = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
    remappings = [(f"~/input/{s}", LaunchConfiguration(s)) for s in SENSORS]
    remappings += [
        (f"~/input/{s}/compressed", [LaunchConfiguration(s), "/compressed"]) for s in CAMERAS
    ]
    remappings += [(f"~/input/{s}/camera_info", LaunchConfiguration(f"{s}_info")) for s in CAMERAS]
    remappings += remapped_topics(context)
    node = LifecycleNode(
        package="anysense_ros",
        executable="perception_node",
        name="perception_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=parameters(context, SETTINGS),
        remappings=remappings,
        # Before the parameter file on the command line, which therefore beats them.
        arguments=["--ros-args", *defaults, "--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("use_respawn"),
        respawn_delay=2.0,
        output="screen",
    )
    return [node]


def generate_launch_description() -> LaunchDescription:
    """The node, its arguments, and a remap for every input."""
    defaults = {
        "params_file": (str(SHARE / "config" / "perception.yaml"), "parameters, see config/rig_*"),
        "bundle": ("", f"folder, zip or name of the bundle; {FALLBACK}, else sim-rgbdtl"),
        "device": ("", f"auto, cpu, cuda, cuda:1 or the name of a backend; {FALLBACK}, else auto"),
        "autostart": ("", f"configure and activate at every start; {FALLBACK}, else true"),
        "topics": (
            "",
            "of sensors by other names: 'front=/a/image front/camera_info=/a/camera_info'",
        ),
        "use_respawn": ("false", "start the node again when it ends"),
    }
    for sensor in SENSORS:
        defaults[sensor] = (sensor_topic(sensor, sensor), f"topic of the {sensor} input")
        if sensor in CAMERAS:
            info = info_topic(sensor)
            defaults[f"{sensor}_info"] = (info, f"camera_info of the {sensor} input")
    own = OpaqueFunction(function=perception_node)
    return LaunchDescription([*arguments(defaults), *environment(ENVIRONMENT), own])
