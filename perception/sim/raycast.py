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

_RAYS_A_BUNDLE = 800
_ALL_ROUND = 0.05  # length of a mean of rays below which they go to all sides
_SLACK = 1e-6  # radians
_CHOSEN = np.array([0, 1, 0, 0, 0, 0], np.uint8)
_X = [1.0, 0.0, 0.0]
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
        self._model.body_pos[rows] = np.array([body.position for body in bodies]).reshape(-1, 3)
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
            reach: metres beyond which geoms are passed over, unless a part of them is nearer.
            only: the place in the scene of the one body that is there; if not given, all are.
        """
        directions = np.ascontiguousarray(directions, np.float64)
        count = len(directions)
        found = Hits(np.full(count, np.inf), np.full(count, -1), np.zeros((count, 3)))
        if only is not None:
            self._cast(origin, directions, reach, self._model.geom_bodyid == only + 1, found)
            return found
        away, spread = self._seen_from(origin)
        for rows in _bundles(directions):
            own = directions[rows]
            axis = own.mean(axis=0)
            axis /= np.linalg.norm(axis) or 1.0
            half = np.arccos(np.clip((own @ axis).min(), -1, 1))
            near = np.arccos(np.clip(away @ axis, -1, 1)) <= spread + half + _SLACK
            self._cast(origin, own, reach, near, found, rows)
        return found

    def _seen_from(self, origin: Float64) -> tuple[Float64, Float64]:
        """Unit vectors to all geoms (N, 3), and the angle round each that holds it."""
        offset = self._data.geom_xpos - np.asarray(origin)
        distance, radius = np.linalg.norm(offset, axis=1), self._model.geom_rbound
        around = (distance <= radius) | (radius == 0)  # planes have no radius
        share = radius / np.where(around, 1.0, distance)
        spread = np.where(around, np.pi, np.arcsin(share.clip(0, 1)))
        return offset / np.maximum(distance, 1e-9)[:, None], spread

    def _cast(
        self,
        origin: Float64,
        directions: Float64,
        reach: float,
        geoms: NDArray[np.bool_],
        found: Hits,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        """Cast rays at some geoms, and put what they hit into rows of `found` (all, if none are given)."""
        count = len(directions)
        self._model.geom_group[:] = geoms
        geom = np.full(count, -1, np.int32)
        distance = np.full(count, -1.0)
        normal = np.zeros(count * 3)
        self._mujoco.mj_multiRay(
            self._model,
            self._data,
            np.asarray(origin, np.float64),
            directions.reshape(-1),
            _CHOSEN,
            True,
            -1,
            geom,
            distance,
            normal,
            count,
            reach,
        )
        distance[geom < 0] = np.inf
        where = slice(None) if rows is None else rows
        found.distance[where], found.geom[where] = distance, geom
        found.normal[where] = normal.reshape(-1, 3)


def _bundles(directions: Float64) -> list[NDArray[np.int64]]:
    """Rows of rays (N, 3) that go in about the same direction: fewer geoms are in the way of each bundle."""
    axis = directions.mean(axis=0) if len(directions) else np.zeros(3)
    side = np.cross([0.0, 0.0, 1.0] if abs(axis[2]) < abs(axis[0]) + abs(axis[1]) else _X, axis)
    if np.linalg.norm(side) > _ALL_ROUND:
        side /= np.linalg.norm(side)
        axis /= np.linalg.norm(axis)
        x, y, z = np.stack([axis, side, np.cross(axis, side)]) @ directions.T
    else:
        x, y, z = directions.T
    parts = math.ceil(math.sqrt(len(directions) / _RAYS_A_BUNDLE))
    key = np.zeros(len(directions), np.int64)
    for angle in (np.arctan2(y, x), np.arcsin(z.clip(-1, 1))) if len(directions) else ():
        share = (angle - angle.min()) / (np.ptp(angle) + 1e-12)
        key = key * parts + (share * parts).astype(np.int64).clip(0, parts - 1)
    order = np.argsort(key, kind="stable")
    return [o for o in np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if o.size]


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
