"""Draw models into a picture, far ones first, and record the part that each pixel shows, for the labels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi_scenes.camera import Camera
from diredi_scenes.meshes import Ball, Face, Model, Points, Solid

_SHIFT = 4  # sub-pixel bits of OpenCV's polygons


@dataclass(frozen=True)
class Place:
    """The place of a model: x and y on the ground in metres, and its heading in radians from the x axis."""

    x: float
    y: float
    heading: float

    def world(self, points: Points) -> Points:
        """Convert a model's local points to the camera's coordinates."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        turned = points @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return np.asarray(turned + np.array([self.x, self.y, 0]))


@dataclass(frozen=True)
class Sunlight:
    """The shading of faces: direction towards the sun, its strength, and that of the sky."""

    towards: Points
    sun: float
    sky: float

    def on(self, normals: Points) -> NDArray[np.float64]:
        """Compute the light on faces from their normals, [n, 3] to [n]."""
        return self.sky * (0.78 + 0.22 * normals[:, 2]) + self.sun * np.maximum(normals @ self.towards, 0.0)


@dataclass(frozen=True)
class DrawnPart:
    """A drawn part of a model; `owner` is its value in the picture of owners."""

    owner: int
    name: str | None
    area: int
    """Pixels of the part without anything in front of it, including those outside the frame; 0 without a name."""
    place: Place
    distance: float


@dataclass(frozen=True)
class Glow:
    """A lamp of a model that faces the camera."""

    owner: int
    x: float
    y: float
    radius: float
    strength: float
    colour: tuple[float, float, float]


class Rasterizer:
    """A picture in the making, of `camera.size` pixels. Where nothing is drawn it is black and has owner 0."""

    def __init__(self, camera: Camera, light: Sunlight) -> None:
        self.camera = camera
        self.light = light
        self.colour: NDArray[np.uint8] = np.zeros((camera.size, camera.size, 3), np.uint8)
        self.owner: NDArray[np.uint8] = np.zeros((camera.size, camera.size), np.uint8)
        self.shadow: NDArray[np.uint8] = np.zeros((camera.size, camera.size), np.uint8)
        self.contact: NDArray[np.uint8] = np.zeros((camera.size, camera.size), np.uint8)
        self.drawn: list[DrawnPart] = []
        self.glows: list[Glow] = []

    def draw(self, model: Model, place: Place) -> None:
        """Draw a model over everything that was drawn before."""
        first = len(self.drawn) + 1
        solids = [solid for stack in self._far_to_near(model, place) for solid in stack]
        shapes = self._shapes(solids, place)
        distance = float(np.hypot(place.x, place.y))
        for part, name in enumerate(model.classes):
            mine = [shape for solid, group in zip(solids, shapes, strict=True) if solid.part == part for shape in group]
            area = 0 if name is None else _area(mine, self.camera.size)
            self.drawn.append(DrawnPart(first + part, name, area, place, distance))
        for solid, group in zip(solids, shapes, strict=True):
            for shape in group:
                shape.fill(self.colour, shape.colour)
                shape.fill(self.owner, (first + solid.part,))
                if shape.glow:
                    self._glow(shape, first + solid.part)

    def draw_shadow(self, model: Model, place: Place) -> None:
        """Draw the model's shadow in the sun, and the dark patch under it."""
        half_x, half_y = model.length * 0.5, model.width * 0.5
        foot = np.array([[-half_x, -half_y, 0], [half_x, -half_y, 0], [half_x, half_y, 0], [-half_x, half_y, 0]])
        self._fill_ground(self.contact, place.world(foot))
        if self.light.sun <= 0:
            return
        towards = self.light.towards
        for stack in model.stacks:
            for solid in stack:
                points = place.world(_outline(solid))
                self._fill_ground(self.shadow, points - points[:, 2:] / towards[2] * towards)

    def _fill_ground(self, mask: NDArray[np.uint8], points: Points) -> None:
        pixels, _ = self.camera.project(points)
        hull = cv2.convexHull(_fixed(pixels, self.camera.size))
        cv2.fillConvexPoly(mask, hull, (255,), cv2.LINE_8, _SHIFT)

    def _far_to_near(self, model: Model, place: Place) -> list[tuple[Solid, ...]]:
        if len(model.stacks) == 1:
            return list(model.stacks)
        centres = place.world(np.array([np.mean([s.centre for s in stack], axis=0) for stack in model.stacks]))
        return [model.stacks[i] for i in np.argsort(-np.hypot(centres[:, 0], centres[:, 1]), kind="stable")]

    def _shapes(self, solids: list[Solid], place: Place) -> list[list[_Shape]]:
        """Project and shade what faces the camera, for each solid."""
        faces = [face for solid in solids for face in solid.faces]
        visible = iter(self._visible(faces, place))
        shapes: list[list[_Shape]] = []
        for solid in solids:
            group = [shape for _, shape in zip(solid.faces, visible, strict=False) if shape is not None]
            shapes.append(group + [shape for ball in solid.balls for shape in self._ball(ball, place)])
        return shapes

    def _visible(self, faces: list[Face], place: Place) -> list[_Shape | None]:
        if not faces:
            return []
        ends = np.cumsum([len(face.points) for face in faces])
        world = place.world(np.concatenate([face.points for face in faces]))
        normals = Place(0, 0, place.heading).world(np.array([face.normal for face in faces]))
        facing = np.einsum("ij,ij->i", normals, self.camera.position - world[ends - 1]) > 0
        both = np.array([face.both_sides for face in faces])
        normals[both & ~facing] *= -1
        colours = np.array([face.colour for face in faces]) * self.light.on(normals)[:, None] * 255
        colours = np.clip(colours, 0, 255)
        pixels = _fixed(self.camera.project(world)[0], self.camera.size)
        pieces = np.split(pixels, ends[:-1])
        return [
            _Polygon((b, g, r), face.glow, piece) if seen else None
            for face, piece, seen, (b, g, r) in zip(faces, pieces, facing | both, colours.tolist(), strict=True)
        ]

    def _ball(self, ball: Ball, place: Place) -> list[_Shape]:
        """Return the discs of a ball and its lit side."""
        centre = place.world(ball.centre[None])
        pixel, depth = self.camera.project(centre)
        radius = ball.radius * self.camera.focal / float(depth[0])
        x, y = float(pixel[0, 0]), float(pixel[0, 1])
        sun = self.light.towards @ self.camera.axes.T
        dark, bright = self.light.on(np.array([[0, 0, -0.3], self.light.towards])) * 255
        lit = (x + float(sun[0]) * radius * 0.3, y + min(float(sun[1]), -0.2) * radius * 0.35)
        b, g, r = (min(255.0, c * dark) for c in ball.colour)
        lb, lg, lr = (min(255.0, c * (dark + bright) / 2) for c in ball.colour)
        return [_Disc((b, g, r), 0.0, (x, y), radius), _Disc((lb, lg, lr), 0.0, lit, radius * 0.66)]

    def _glow(self, shape: _Shape, owner: int) -> None:
        low, high = shape.bounds()
        x, y = (low + high) / 2
        colour = shape.colour
        radius = float(np.max(high - low)) / 2
        self.glows.append(Glow(owner, float(x), float(y), radius, shape.glow, colour))


@dataclass(frozen=True)
class _Polygon:
    colour: tuple[float, float, float]
    glow: float
    points: NDArray[np.int32]

    def fill(self, picture: NDArray[np.uint8], value: tuple[float, ...], offset: tuple[int, int] = (0, 0)) -> None:
        points = self.points + np.array(offset, np.int32) * (1 << _SHIFT) if any(offset) else self.points
        cv2.fillPoly(picture, [points], value, cv2.LINE_8, _SHIFT)

    def bounds(self) -> tuple[Points, Points]:
        return self.points.min(axis=0) / (1 << _SHIFT), self.points.max(axis=0) / (1 << _SHIFT)


@dataclass(frozen=True)
class _Disc:
    colour: tuple[float, float, float]
    glow: float
    centre: tuple[float, float]
    radius: float

    def fill(self, picture: NDArray[np.uint8], value: tuple[float, ...], offset: tuple[int, int] = (0, 0)) -> None:
        x, y = (round((c + o) * (1 << _SHIFT)) for c, o in zip(self.centre, offset, strict=True))
        cv2.circle(picture, (x, y), round(self.radius * (1 << _SHIFT)), value, cv2.FILLED, cv2.LINE_8, _SHIFT)

    def bounds(self) -> tuple[Points, Points]:
        centre = np.asarray(self.centre)
        return centre - self.radius, centre + self.radius


_Shape = _Polygon | _Disc


def _area(shapes: list[_Shape], size: int) -> int:
    """Count the pixels that shapes cover together, up to one frame beyond the frame on each side."""
    if not shapes:
        return 0
    bounds = [shape.bounds() for shape in shapes]
    low = np.maximum(np.floor(np.min([b[0] for b in bounds], axis=0)) - 1, -size).astype(int)
    high = np.minimum(np.ceil(np.max([b[1] for b in bounds], axis=0)) + 2, 2 * size).astype(int)
    if (high <= low).any():
        return 0
    mask: NDArray[np.uint8] = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    for shape in shapes:
        shape.fill(mask, (1,), (-int(low[0]), -int(low[1])))
    return int(cv2.countNonZero(mask))


def _outline(solid: Solid) -> Points:
    """Return points whose convex hull is that of the solid."""
    points = [face.points for face in solid.faces]
    for ball in solid.balls:
        points.append(
            ball.centre + ball.radius * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
        )
    return np.concatenate(points)


def _fixed(pixels: Points, size: int) -> NDArray[np.int32]:
    return np.round(np.clip(pixels, -4 * size, 5 * size) * (1 << _SHIFT)).astype(np.int32)
