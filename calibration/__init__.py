"""Calibration: procedures that find a camera's or a rig's, and reading what others made.

`boards` and `detection` find a board in pictures, `parameters` and `fitting` fit a camera to it, `intrinsics`
is the whole procedure; `check` compares a rig with a recording by `alignment`; `formats` are files of others,
with `camera_info` and `kitti`.  Types are those of `perception.geometry`.
"""
