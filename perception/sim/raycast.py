"""Casting rays at a scene with MuJoCo's `mj_multiRay`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from perception.extras import require
from perception.sim.scene import Body, Geom, Scene

Float64 = NDArray[np.float64]

_TURN = {"x": "0.7071068 0 0.7071068 0", "y": "0.7071068 -0.7071068 0 0", "z": "1 0 0 0"}


@dataclass(frozen=True)
class Hits:
    """Where rays ended.

    Attributes:
        distance: (N,) float64 metres along each unit ray, infinity for no hit.
        geom: (N,) int64 index into `Scene.geoms`, -1 for no hit.
        normal: (N, 3) float64 surface normals, zero for no hit.
    """

    distance: Float64
    geom: NDArray[np.int64]
    normal: Float64


class RayCaster:
    """A scene prepared for ray casting.

    Raises:
        MissingDependencyError: MuJoCo is not installed.
    """

    def __init__(self, scene: Scene) -> None:
        require("the simulator", "mujoco")
        import mujoco

        self._mujoco = mujoco
        self._model = mujoco.MjModel.from_xml_string(scene_xml(scene))
        self._data = mujoco.MjData(self._model)
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def move(self, bodies: Sequence[Body], first: int = 0) -> None:
        """Put bodies elsewhere; their shapes stay as they were.

        Args:
            bodies: where they are now.
            first: the place in the scene of the first of them.
        """
        rows = slice(first + 1, first + 1 + len(bodies))  # MuJoCo's own first body is the world
        self._model.body_pos[rows] = [body.position for body in bodies]
        half = np.array([body.yaw for body in bodies]) / 2
        self._model.body_quat[rows] = np.column_stack(
            [np.cos(half), 0 * half, 0 * half, np.sin(half)]
        )
        self._mujoco.mj_kinematics(self._model, self._data)

    def cast(
        self, origin: Float64, directions: Float64, reach: float = 1000.0, only: int | None = None
    ) -> Hits:
        """Cast rays from one point.

        Args:
            origin: (3,) metres.
            directions: (N, 3) unit vectors.
            reach: metres beyond which nothing is hit.
            only: the place in the scene of the one body that is there; if not given, all are.
        """
        groups = None
        if only is not None:
            self._model.geom_group[:] = self._model.geom_bodyid == only + 1
            groups = np.array([0, 1, 0, 0, 0, 0], np.uint8)
        count = len(directions)
        geom = np.full(count, -1, np.int32)
        distance = np.full(count, -1.0)
        normal = np.zeros(count * 3)
        self._mujoco.mj_multiRay(
            self._model,
            self._data,
            np.asarray(origin, np.float64),
            np.ascontiguousarray(directions, np.float64).reshape(-1),
            groups,
            True,
            -1,
            geom,
            distance,
            normal,
            count,
            reach,
        )
        missed = geom < 0
        distance[missed] = np.inf
        return Hits(distance, geom.astype(np.int64), normal.reshape(-1, 3))


def scene_xml(scene: Scene) -> str:
    """The scene as MuJoCo XML; geoms come in the order of `Scene.geoms`."""
    bodies = "".join(_body_xml(body) for body in scene.bodies)
    return (
        '<mujoco><compiler angle="radian"/><option gravity="0 0 0"/>'
        '<default><geom contype="0" conaffinity="0"/></default>'
        f"<worldbody>{bodies}</worldbody></mujoco>"
    )


def _body_xml(body: Body) -> str:
    quat = f"{math.cos(body.yaw / 2):.9g} 0 0 {math.sin(body.yaw / 2):.9g}"
    geoms = "".join(_geom_xml(g) for g in body.geoms)
    return f"<body pos={_numbers(body.position)} quat={quoteattr(quat)}>{geoms}</body>"


def _geom_xml(geom: Geom) -> str:
    size = (*geom.size, 1.0) if geom.shape == "plane" else geom.size
    return (
        f'<geom type="{geom.shape}" size={_numbers(size)} pos={_numbers(geom.position)} '
        f'quat="{_TURN[geom.axis]}"/>'
    )


def _numbers(values: tuple[float, ...]) -> str:
    return quoteattr(" ".join(f"{v:.9g}" for v in values))
