"""Calibration files as their own tools write them: the fields, in numbers of our own."""

from __future__ import annotations

CAMCHAIN = """\
cam0:
  cam_overlaps: [1]
  camera_model: pinhole
  distortion_coeffs: [-0.28, 0.07, 0.0002, 1.8e-05]
  distortion_model: radtan
  intrinsics: [458.6, 457.3, 367.2, 248.4]
  resolution: [752, 480]
  rostopic: /cam0/image_raw
cam1:
  T_cn_cnm1:
  - [1.0, 0.0, 0.0, -0.11]
  - [0.0, 1.0, 0.0, 0.0]
  - [0.0, 0.0, 1.0, 0.0]
  - [0.0, 0.0, 0.0, 1.0]
  camera_model: pinhole
  distortion_coeffs: [0.01, 0.02, 0.0, 0.0]
  distortion_model: equidistant
  intrinsics: [457.5, 456.1, 379.9, 255.2]
  resolution: [752, 480]
  rostopic: /stereo/right/image_raw
"""

KIT = """\
sensor_kit_base_link:
  camera0/camera_link: {x: 1.0, y: 0.5, z: -0.2, roll: 0.0, pitch: 0.0, yaw: 1.5707963267948966}
  velodyne_top_base_link: {x: 0.0, y: 0.0, z: 0.6, roll: 0.0, pitch: 0.0, yaw: 0.0}
  tamagawa/imu_link: {x: 0.0, y: 0.0, z: 0.0, roll: 0.0, pitch: 0.0, yaw: 0.0}
"""
BODY = "base_link:\n  sensor_kit_base_link: {x: 0.9, y: 0.0, z: 2.0, roll: 0, pitch: 0, yaw: 0}\n"

ROBOT = """\
<?xml version="1.0"?>
<robot name="r">
  <link name="base_link"/>
  <joint name="mast" type="fixed">
    <parent link="base_link"/><child link="mast_link"/><origin xyz="0 0 1.5"/>
  </joint>
  <joint name="front" type="fixed">
    <parent link="mast_link"/><child link="front_camera_link"/><origin xyz="0.1 0 0" rpy="0 0 0"/>
  </joint>
  <joint name="eye" type="fixed">
    <parent link="front_camera_link"/><child link="front_camera_optical_frame"/>
    <origin xyz="0 0 0" rpy="-1.5707963267948966 0 -1.5707963267948966"/>
  </joint>
  <joint name="scan" type="fixed">
    <parent link="mast_link"/><child link="velodyne"/><origin xyz="0 0 0.2" rpy="0 0 0"/>
  </joint>
  <joint name="wheel" type="continuous">
    <parent link="base_link"/><child link="wheel_link"/><axis xyz="0 1 0"/>
  </joint>
</robot>
"""

LAUNCH = """\
<launch>
  <node pkg="tf2_ros" exec="static_transform_publisher"
    args="0 0 0.2 1.5707963267948966 0 0 base_link laser"/>
  <node pkg="tf2_ros" exec="static_transform_publisher"
    args="--x 0.3 --z=1 --roll -1.5707963267948966 --yaw -1.5707963267948966 --frame-id base_link
    --child-frame-id cam_optical_frame"/>
  <node pkg="other" exec="talker"/>
</launch>
"""

TF = {
    "transforms": [
        {
            "header": {"stamp": {"sec": 0, "nanosec": 0}, "frame_id": "base_link"},
            "child_frame_id": "os_lidar",
            "transform": {
                "translation": {"x": 1.0, "y": 2.0, "z": 3.0},
                "rotation": {"x": 0.0, "y": 0.0, "z": 1.0, "w": 0.0},
            },
        }
    ]
}
