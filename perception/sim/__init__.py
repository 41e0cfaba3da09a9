"""A small simulator of street scenes: four aligned sensors with labels, or a vehicle that looks to all sides,
with boxes in space.  Everything here is made up.

It exists because no free recording with RGB, depth, thermal and LiDAR can be shipped.  Scenes are
built from primitives and ray-cast by MuJoCo on the CPU; no OpenGL is needed.
"""
