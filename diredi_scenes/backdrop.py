"""The backdrop of a camera, rendered once: sky, ground, houses, warehouses and trees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi_scenes.camera import Camera
from diredi_scenes.layout import EXTENT_M, PIXELS_PER_M, Layout
from diredi_scenes.meshes import (
    Ball,
    Colour,
    Face,
    Model,
    Solid,
    box,
    frustum,
    on_end,
    on_side,
    shade,
    side_of,
    with_faces,
)
from diredi_scenes.models.clutter import tree
from diredi_scenes.models.vehicles import paint
from diredi_scenes.rasterizer import Place, Rasterizer, Sunlight

Picture = NDArray[np.float32]

WALLS: tuple[Colour, ...] = (
    (0.40, 0.50, 0.62), (0.55, 0.62, 0.68), (0.34, 0.40, 0.58),
    (0.62, 0.64, 0.66), (0.46, 0.46, 0.48), (0.50, 0.58, 0.56),
)  # fmt: skip
WARM: Colour = (0.45, 0.75, 0.95)

_FINER = 3  # buildings are drawn at this many times the size, for smooth edges
_GLOW = Sunlight(np.array([0.0, 0.0, 1.0]), 0.0, 1.0)


@dataclass(frozen=True)
class Backdrop:
    """Pictures, 0 to 1, in the sun and under clouds, of what is lit at night, and the depth in metres."""

    sunny: Picture
    cloudy: Picture
    lit: Picture
    depth: Picture


def paint_backdrop(
    rng: np.random.Generator, camera: Camera, layout: Layout, away: float, turn: float, industrial: bool
) -> Backdrop:
    """Render the backdrop of a camera; buildings are drawn larger and shrunk, for smooth edges."""
    fine, size = camera.resized(camera.size * _FINER), camera.size
    models = _skyline(rng, layout, away, turn, industrial)
    ground, depth = _shrink(_ground(fine, layout), size), camera.ground()[2]
    sun = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.8, -0.2), 0.8])
    clouds = rng.normal(0, 1, (10, 10)).astype(np.float32)
    lights = (
        (Sunlight(sun / np.linalg.norm(sun), 0.45, 0.62), _sky(camera, clouds, (0.86, 0.66, 0.48), (0.95, 0.92, 0.88))),
        (Sunlight(np.array([0, 0, 1.0]), 0.0, 0.92), _sky(camera, clouds, (0.70, 0.68, 0.66), (0.82, 0.81, 0.80))),
    )
    rasterizers = [_rasterize(fine, light, models) for light, _ in lights]
    distances = np.array([0.0, *(d.distance for d in rasterizers[0].drawn)], np.float32)
    owner = rasterizers[0].owner[1::_FINER, 1::_FINER]
    cover = _shrink((rasterizers[0].owner > 0).astype(np.uint8) * 255, size)[..., None]
    haze = np.clip(np.where(owner > 0, distances[owner] * 1.6, depth) / 260, 0, 0.7)[..., None]
    sunny, cloudy = (
        _blend(_blend(ground, sky, depth[..., None] >= 400) * (1 - cover) + _shrink(rasterizer.colour, size), sky, haze)
        for rasterizer, (_, sky) in zip(rasterizers, lights, strict=True)
    )
    lit = _shrink(_rasterize(fine, _GLOW, [(_at_night(model), place) for model, place in models]).colour, size)
    return Backdrop(sunny, cloudy, lit, np.where(owner > 0, distances[owner], depth).astype(np.float32))


def _rasterize(camera: Camera, light: Sunlight, models: list[tuple[Model, Place]]) -> Rasterizer:
    rasterizer = Rasterizer(camera, light)
    for model, place in models:
        rasterizer.draw(model, place)
    return rasterizer


def _blend(a: Picture, b: Picture, share: NDArray[Any]) -> Picture:
    """Mix two pictures, with `share` of b."""
    return np.asarray(a * (1 - share) + b * share, np.float32)


def _shrink(picture: NDArray[np.uint8], size: int) -> Picture:
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.float32) / np.float32(255)


def _ground(camera: Camera, layout: Layout) -> NDArray[np.uint8]:
    """Project the layout's ground into the camera; beyond the layout, its border continues."""
    to_metres = np.array([[1 / PIXELS_PER_M, 0, EXTENT_M[0]], [0, 1 / PIXELS_PER_M, EXTENT_M[2]], [0, 0, 1]])
    lens = np.array([[camera.focal, 0, camera.size / 2], [0, camera.focal, camera.size / 2], [0, 0, 1]])
    stand = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -camera.height]])
    whole = lens @ camera.axes @ stand @ to_metres
    size = (camera.size, camera.size)
    return np.asarray(
        cv2.warpPerspective(layout.ground, whole, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )


def _sky(camera: Camera, clouds: Picture, zenith: Colour, horizon: Colour) -> Picture:
    row = max(1.0, camera.horizon())
    share = np.clip(np.arange(camera.size) / row, 0, 1)[:, None, None] ** 0.7
    sky = np.asarray(zenith) * (1 - share) + np.asarray(horizon) * share
    cloud = np.clip(cv2.resize(clouds, (camera.size, camera.size), interpolation=cv2.INTER_CUBIC) * 0.35, 0, 0.6)[
        ..., None
    ]
    return np.asarray(sky * (1 - cloud) + 0.95 * cloud, np.float32)


def _at_night(model: Model) -> Model:
    def dark(solid: Solid) -> Solid:
        faces = tuple(replace(f, colour=shade(WARM, f.glow), glow=0.0) for f in solid.faces)
        return Solid(faces, tuple(Ball(b.centre, b.radius, (0, 0, 0)) for b in solid.balls), solid.part)

    return replace(model, stacks=tuple(tuple(dark(solid) for solid in stack) for stack in model.stacks))


def _skyline(
    rng: np.random.Generator, layout: Layout, away: float, turn: float, industrial: bool
) -> list[tuple[Model, Place]]:
    """Place houses or warehouses in two rows behind the scene, and trees between them, never on a road."""
    placed: list[tuple[Model, Place]] = []
    for y, spread in ((away + 40.0, 44.0), (away + 22.0, 26.0)):
        x = -spread
        while x < spread:
            model = _warehouse(rng) if industrial and y < away + 30 else _house(rng)
            x += model.width / 2
            at = y + float(rng.uniform(0, 5)) + abs(x) * 0.05
            lean = float(np.clip(_turn_from_square(turn), -0.25, 0.25))
            if layout.is_free(x, at, model.width / 2 + 1.5) and rng.random() < 0.9:
                placed.append((model, Place(x, at, np.pi / 2 + lean)))
            x += model.width / 2 + float(rng.uniform(0.5, 6))
    for _ in range(int(rng.integers(4, 12))):
        x, y = float(rng.uniform(-26, 26)), float(rng.uniform(away + 14, away + 34))
        if layout.is_free(x, y, 2.0):
            placed.append((tree(rng), Place(x, y, 0.0)))
    return sorted(placed, key=lambda item: -item[1].y)


def _turn_from_square(turn: float) -> float:
    """Return the angle between layout and camera, -45 to 45 degrees, in radians."""
    return (turn + np.pi / 4) % (np.pi / 2) - np.pi / 4


def _house(rng: np.random.Generator) -> Model:
    """Build a house whose front faces -x."""
    wide, deep, floors = float(rng.uniform(8, 15)), float(rng.uniform(7, 10)), int(rng.integers(2, 5))
    high, wall = floors * 3.0 + 0.6, shade(WALLS[int(rng.integers(len(WALLS)))], float(rng.uniform(0.8, 1.15)))
    hull = box((-deep / 2, -wide / 2, 0), (deep / 2, wide / 2, high), wall)
    front = side_of(hull, 0, -1)
    pane, faces = (0.30, 0.27, 0.24), [on_end(front, (-wide / 2, wide / 2), (0, 0.5), shade(wall, 0.7))]
    columns = int(wide // 2.4)
    for floor in range(floors):
        for column in range(columns):
            y = -wide / 2 + (column + 0.5) * wide / columns
            glow = float(rng.uniform(0.2, 0.9)) if rng.random() < 0.3 else 0.0
            z = 1.0 + floor * 3.0
            faces.append(on_end(front, (y - 0.65, y + 0.65), (z - 0.1, z + 1.7), shade(wall, 1.25)))
            faces.append(on_end(front, (y - 0.55, y + 0.55), (z, z + 1.55), pane, glow))
    for sign in (-1, 1):
        side = side_of(hull, 1, sign)
        faces += [
            on_side(side, (x - 0.5, x + 0.5), (1 + f * 3.0, 2.5 + f * 3.0), pane)
            for f in range(floors)
            for x in (-2, 1)
        ]
    red = shade((0.20, 0.24, 0.45), float(rng.uniform(0.6, 1.2)))
    roof = frustum(
        (-deep / 2 - 0.3, deep / 2 + 0.3, -wide / 2 - 0.3, wide / 2 + 0.3), high,
        (-0.4, 0.4, -wide / 2 + 1.5, wide / 2 - 1.5),
        high + float(rng.choice([0.5, 2.6])), red,
    )  # fmt: skip
    return Model(((with_faces(hull, *faces), roof),), (None,), deep, wide, high)


def _warehouse(rng: np.random.Generator) -> Model:
    """Build a warehouse with ribbed walls, dock doors and lamps above them."""
    wide, deep, high = float(rng.uniform(16, 26)), 10.0, float(rng.uniform(5.5, 8.0))
    wall = shade(paint(rng) if rng.random() < 0.3 else (0.55, 0.55, 0.54), float(rng.uniform(0.7, 1.2)))
    hull = box((-deep / 2, -wide / 2, 0), (deep / 2, wide / 2, high), wall)
    front = side_of(hull, 0, -1)
    faces: list[Face] = [
        on_end(front, (y, y + 0.12), (0, high), shade(wall, 0.88)) for y in np.arange(-wide / 2, wide / 2 - 0.2, 0.8)
    ]
    faces.append(on_end(front, (-wide / 2, wide / 2), (high - 0.9, high), shade(wall, 0.6)))
    for y in np.arange(-wide / 2 + 2.5, wide / 2 - 2.5, 5.0):
        faces.append(on_end(front, (y - 1.8, y + 1.8), (0, 4.2), (0.12, 0.12, 0.13)))
        if rng.random() < 0.75:
            faces.append(on_end(front, (y - 1.6, y + 1.6), (0.3, 4.0), (0.62, 0.62, 0.60)))
        faces.append(on_end(front, (y - 0.5, y + 0.5), (4.4, 4.6), (0.8, 0.8, 0.8), 1.0))
    return Model(((with_faces(hull, *faces),),), (None,), deep, wide, high)
