"""Convex solids, in metres, from which vehicles, people and props are built.

Local axes of a model: x forward, y left, z up, the origin on the ground in its middle. A colour is blue, green, red in
0..1 of diffuse reflectance, as OpenCV orders them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[float, float, float]

GLASS: Colour = (0.17, 0.14, 0.12)
TYRE: Colour = (0.07, 0.07, 0.07)
METAL: Colour = (0.55, 0.54, 0.53)


@dataclass(frozen=True)
class Face:
    """A flat polygon that is visible from the side of its normal, or from both sides."""

    points: Points
    normal: Points
    colour: Colour
    glow: float = 0.0
    """Light that it emits at night: 0 is none, 1 a headlight."""
    both_sides: bool = False


@dataclass(frozen=True)
class Ball:
    """A sphere."""

    centre: Points
    radius: float
    colour: Colour


@dataclass(frozen=True)
class Solid:
    """A convex body; later faces are drawn over earlier ones. `part` is its part of a model."""

    faces: tuple[Face, ...] = ()
    balls: tuple[Ball, ...] = ()
    part: int = 0

    @property
    def centre(self) -> Points:
        """Mean of all points, [3]."""
        points = np.concatenate([f.points for f in self.faces] + [b.centre[None] for b in self.balls])
        return np.asarray(points.sum(axis=0) / len(points))


@dataclass(frozen=True)
class Model:
    """Stacks of solids, each listed from the ground up and drawn from far to near.

    `classes` has the class of each part, None without a label. A bicycle with its rider has two parts.
    """

    stacks: tuple[tuple[Solid, ...], ...]
    classes: tuple[str | None, ...]
    length: float
    width: float
    height: float
    headlights: bool = field(default=False)


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour lighter (factor above 1) or darker."""
    b, g, r = (min(1.0, c * factor) for c in colour)
    return (b, g, r)


def prism(first: Points, last: Points, colour: Colour, ends: Colour | None = None, part: int = 0) -> Solid:
    """Build a prism between two polygons with equally many corners; `ends` is the colour of the polygons."""
    centre = (first.sum(axis=0) + last.sum(axis=0)) / (2 * len(first))
    quads = np.stack([first, np.roll(first, -1, axis=0), np.roll(last, -1, axis=0), last], axis=1)
    caps = np.stack([first[:3], last[:3]])
    normals = _outward(np.concatenate([quads[:, :3], caps]), centre)
    sides = [Face(quad, normal, colour) for quad, normal in zip(quads, normals, strict=False)]
    return Solid((*sides, Face(first, normals[-2], ends or colour), Face(last, normals[-1], ends or colour)), part=part)


def box(lower: Sequence[float], upper: Sequence[float], colour: Colour, part: int = 0) -> Solid:
    """Build a box between two opposite corners."""
    (x0, y0, z0), (x1, y1, z1) = lower, upper
    base = np.array([[x0, y0, z0], [x1, y0, z0], [x1, y1, z0], [x0, y1, z0]], np.float64)
    return prism(base, base + np.array([0, 0, z1 - z0]), colour, part=part)


def extrude(
    profile: Sequence[tuple[float, float]], width: float, colour: Colour, part: int = 0, taper: float = 1.0
) -> Solid:
    """Extrude a convex side view (x, z) to a width; its top is `taper` times as wide."""
    points = np.asarray(profile, np.float64)
    low, high = points[:, 1].min(), points[:, 1].max()
    half = width / 2 * (1 - (1 - taper) * (points[:, 1] - low) / max(high - low, 1e-6))
    right = np.stack([points[:, 0], -half, points[:, 1]], axis=1)
    left = np.stack([points[:, 0], half, points[:, 1]], axis=1)
    return prism(right, left, colour, part=part)


def frustum(
    base: tuple[float, float, float, float],
    z0: float,
    top: tuple[float, float, float, float],
    z1: float,
    colour: Colour,
    part: int = 0,
) -> Solid:
    """Build a frustum between two level rectangles (x0, x1, y0, y1) at heights z0 and z1."""

    def corners(r: tuple[float, float, float, float], z: float) -> Points:
        return np.array([[r[0], r[2], z], [r[1], r[2], z], [r[1], r[3], z], [r[0], r[3], z]], np.float64)

    return prism(corners(base, z0), corners(top, z1), colour, part=part)


def tube(
    start: Sequence[float],
    end: Sequence[float],
    r0: float,
    r1: float,
    colour: Colour,
    sides: int = 6,
    part: int = 0,
    flat: float = 1.0,
) -> Solid:
    """Build a limb, a post or a pipe; `flat` below 1 makes it thinner from front to back."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    axis = (b - a) / np.linalg.norm(b - a)
    across = np.cross(axis, [1.0, 0, 0] if abs(axis[0]) < 0.9 else [0, 0, 1.0])
    across /= np.linalg.norm(across)
    other = np.cross(axis, across) * flat
    angles = np.arange(sides) * (2 * np.pi / sides) + np.pi / sides
    ring = np.outer(np.cos(angles), across) + np.outer(np.sin(angles), other)
    return prism(a + ring * r0, b + ring * r1, colour, part=part)


def ball(centre: Sequence[float], radius: float, colour: Colour, part: int = 0) -> Solid:
    """Build a solid of one ball."""
    return Solid(balls=(Ball(np.asarray(centre, np.float64), radius, colour),), part=part)


def ring(
    centre: Sequence[float], radius: float, thickness: float, colour: Colour, part: int = 0, sides: int = 14
) -> Solid:
    """Build a bicycle wheel: upright, along x, visible from both sides."""
    angles = np.arange(sides + 1) * (2 * np.pi / sides)
    unit = np.stack([np.cos(angles), np.zeros_like(angles), np.sin(angles)], axis=1)
    outer, inner = np.asarray(centre) + unit * radius, np.asarray(centre) + unit * (radius - thickness)
    normal = np.array([0.0, 1.0, 0.0])
    quads = [np.array([outer[i], outer[i + 1], inner[i + 1], inner[i]]) for i in range(sides)]
    return Solid(tuple(Face(quad, normal, colour, both_sides=True) for quad in quads), part=part)


def sheet(points: Sequence[Sequence[float]], colour: Colour, part: int = 0, glow: float = 0.0) -> Solid:
    """Build a flat polygon that is visible from both sides."""
    corners = np.asarray(points, np.float64)
    return Solid(
        (Face(corners, _outward(corners[None, :3], np.zeros(3))[0], colour, glow=glow, both_sides=True),), part=part
    )


def with_faces(solid: Solid, *decals: Face) -> Solid:
    """Return a solid with further faces drawn on it."""
    return replace(solid, faces=(*solid.faces, *decals))


def decal(
    solid: Solid, side: int, u: tuple[float, float], v: tuple[float, float], colour: Colour, glow: float = 0.0
) -> Face:
    """Return a rectangle on a face, from u[0] to u[1] along its first edge and v[0] to v[1] along its second."""
    face = solid.faces[side]
    a, b, c, d = face.points[:4]

    def at(s: float, t: float) -> Points:
        return np.asarray((a * (1 - s) + b * s) * (1 - t) + (d * (1 - s) + c * s) * t)

    points = np.array([at(u[0], v[0]), at(u[1], v[0]), at(u[1], v[1]), at(u[0], v[1])])
    return replace(face, points=points, colour=colour, glow=glow)


def side_of(solid: Solid, axis: int, sign: int) -> Face:
    """Return the face whose normal points most along an axis."""
    return max(solid.faces, key=lambda face: sign * float(face.normal[axis]))


def on_end(face: Face, y: tuple[float, float], z: tuple[float, float], colour: Colour, glow: float = 0.0) -> Face:
    """Return a rectangle on a front or rear, which may lean; x follows from the plane of the face."""
    n, o = face.normal, face.points[0]
    corners = [(y[0], z[0]), (y[1], z[0]), (y[1], z[1]), (y[0], z[1])]
    points = [[o[0] - (n[1] * (cy - o[1]) + n[2] * (cz - o[2])) / n[0], cy, cz] for cy, cz in corners]
    return Face(np.array(points), n, colour, glow)


def on_side(face: Face, x: tuple[float, float], z: tuple[float, float], colour: Colour, glow: float = 0.0) -> Face:
    """Return a rectangle on a left or right side; y follows from the plane of the face."""
    n, o = face.normal, face.points[0]
    corners = [(x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1])]
    points = [[cx, o[1] - (n[0] * (cx - o[0]) + n[2] * (cz - o[2])) / n[1], cz] for cx, cz in corners]
    return Face(np.array(points), n, colour, glow)


def disc(x: float, y: float, z: float, radius: float, colour: Colour, sides: int = 12) -> Face:
    """Return the side of a wheel, facing outwards."""
    angles = np.arange(sides) * (2 * np.pi / sides)
    points = np.stack([x + radius * np.cos(angles), np.full(sides, y), z + radius * np.sin(angles)], axis=1)
    return Face(points, np.array([0.0, np.sign(y), 0.0]), colour)


def wheel(x: float, y: float, radius: float, rim: Colour = METAL) -> tuple[Face, ...]:
    """Return tyre, rim and hub of a wheel, on the side of y."""
    return (
        disc(x, y, radius, radius, TYRE),
        disc(x, y * 1.002, radius, radius * 0.58, rim),
        disc(x, y * 1.003, radius, radius * 0.2, shade(rim, 0.5), 8),
    )


def _outward(corners: Points, centre: Points) -> Points:
    """Compute outward unit normals of triangles [n, 3, 3] of a convex solid; upward for one without area."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normals = u[:, [1, 2, 0]] * v[:, [2, 0, 1]] - u[:, [2, 0, 1]] * v[:, [1, 2, 0]]
    sizes = np.sqrt(np.einsum("ij,ij->i", normals, normals))
    flat = sizes < 1e-12
    normals[flat], sizes[flat] = (0, 0, 1), 1
    inward = np.einsum("ij,ij->i", normals, corners[:, 0] - centre) < 0
    normals[inward] *= -1
    return np.asarray(normals / sizes[:, None])
