"""Installs the nodes and their launch, parameter and display files."""

from pathlib import Path

from setuptools import setup

NAME = "anysense_ros"


def shared(folder: str) -> tuple[str, list[str]]:
    """The files of a folder, to be installed under share/anysense_ros."""
    return f"share/{NAME}/{folder}", sorted(str(p) for p in Path(folder).iterdir() if p.is_file())


setup(
    name=NAME,
    version="0.1.0",
    packages=[NAME, f"{NAME}.publishing"],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        shared("launch"),
        shared("config"),
        shared("config/nav2"),
        shared("rviz"),
        shared("foxglove"),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="AnySense maintainers",
    maintainer_email="maintainers@anysense.invalid",
    description="ROS 2 nodes of AnySense: perception, calibration, sensor replay and fault injection",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            f"perception_node = {NAME}.perception_node:main",
            f"sensor_replay = {NAME}.sensor_replay:main",
            f"fault_injector = {NAME}.fault_injector:main",
            f"status_recorder = {NAME}.status_recorder:main",
            f"calibrate = {NAME}.calibrate:main",
            f"publish_rig = {NAME}.publish_rig:main",
        ]
    },
)
