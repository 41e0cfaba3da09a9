"""Cameras, rigid transforms, grids, LiDAR projection, and rigs of any number of sensors."""
