"""Props without a label. Some resemble labelled objects: a rack a mast, a cabinet a person, a skip a truck."""

from __future__ import annotations

import numpy as np

from diredi_scenes.meshes import (
    METAL,
    Colour,
    Model,
    Solid,
    ball,
    box,
    decal,
    frustum,
    on_end,
    on_side,
    shade,
    sheet,
    side_of,
    tube,
    with_faces,
)  # fmt: skip
from diredi_scenes.models.machines import BLACK, WARNING
from diredi_scenes.models.vehicles import paint

WOOD: Colour = (0.38, 0.55, 0.70)
GREENS: tuple[Colour, ...] = ((0.12, 0.32, 0.16), (0.10, 0.26, 0.12), (0.15, 0.38, 0.26), (0.08, 0.22, 0.14))


def bin_(rng: np.random.Generator) -> Model:
    colour: Colour = ((0.14, 0.30, 0.12), (0.15, 0.15, 0.15), (0.45, 0.25, 0.08))[int(rng.integers(3))]
    hull = frustum((-0.32, 0.32, -0.3, 0.3), 0.08, (-0.4, 0.4, -0.36, 0.36), 1.05, colour)
    lid = box((-0.44, -0.39, 1.05), (0.44, 0.39, 1.14), shade(colour, 1.3))
    return _model([(hull, lid)], 0.9, 0.8, 1.15)


def cabinet(rng: np.random.Generator) -> Model:
    grey = float(rng.uniform(0.35, 0.65))
    hull = box((-0.2, -0.3, 0.05), (0.2, 0.3, float(rng.uniform(1.2, 1.7))), (grey, grey, grey * 0.97))
    doors = [
        on_end(side_of(hull, 0, sign), y, (0.2, 1.1), shade((grey,) * 3, 0.85))
        for sign in (-1, 1)
        for y in ((-0.26, -0.02), (0.02, 0.26))
    ]
    return _model([(with_faces(hull, *doors),)], 0.5, 0.7, 1.6)


def cone(rng: np.random.Generator) -> Model:
    orange, white = (0.06, 0.32, 0.92), (0.85, 0.85, 0.85)
    base = box((-0.2, -0.2, 0), (0.2, 0.2, 0.04), BLACK)
    rings = [tube((0, 0, z), (0, 0, z + h), r0, r1, c, 8) for z, h, r0, r1, c in (
        (0.04, 0.22, 0.16, 0.12, orange), (0.26, 0.14, 0.12, 0.09, white), (0.4, 0.3, 0.09, 0.03, orange))]  # fmt: skip
    return _model([(base, *rings)], 0.4, 0.4, 0.7)


def crates(rng: np.random.Generator) -> Model:
    stack: list[Solid] = []
    z, size = 0.0, float(rng.uniform(0.8, 1.2))
    for _ in range(int(rng.integers(1, 4))):
        high, colour = float(rng.uniform(0.4, 0.75)), shade(WOOD, float(rng.uniform(0.6, 1.15)))
        part = box((-size / 2, -size / 2, z), (size / 2, size / 2, z + high), colour)
        slats = [
            decal(part, side, (0.0, 1.0), (v, v + 0.05), shade(colour, 0.6))
            for side in range(4)
            for v in (0.28, 0.6, 0.93)
        ]
        stack.append(with_faces(part, *slats))
        z += high
    return _model([tuple(stack)], size, size, z)


def drum(rng: np.random.Generator) -> Model:
    colour = paint(rng)
    stack = [
        tube((0, 0, z), (0, 0, z + 0.27), 0.3, 0.3, shade(colour, f), 10)
        for z, f in ((0.0, 0.95), (0.28, 1.0), (0.56, 1.05))
    ]
    return _model([tuple(stack)], 0.7, 0.7, 0.85)


def generator(rng: np.random.Generator) -> Model:
    """Build a yellow box with black stripes, in the colours of a forklift."""
    colour, long = shade(WARNING[int(rng.integers(3))], float(rng.uniform(0.8, 1.0))), float(rng.uniform(1.2, 1.9))
    skid = box((-long / 2, -0.5, 0.0), (long / 2, 0.5, 0.18), BLACK)
    hull = box((-long / 2, -0.5, 0.18), (long / 2, 0.5, float(rng.uniform(1.1, 1.6))), colour)
    vents = [
        on_side(side_of(hull, 1, sign), (-long * 0.35, long * 0.1), (z, z + 0.07), BLACK)
        for sign in (-1, 1)
        for z in (0.5, 0.65, 0.8)
    ]
    stripes = [
        on_end(side_of(hull, 0, sign), (y, y + 0.13), (0.25, 0.5), BLACK)
        for sign in (-1, 1)
        for y in (-0.45, -0.15, 0.15)
    ]
    return _model([(skid, with_faces(hull, *vents, *stripes))], long, 1.0, 1.6)


def planter(rng: np.random.Generator) -> Model:
    tub = box((-0.6, -0.35, 0), (0.6, 0.35, 0.5), (0.5, 0.5, 0.52))
    return _model([(tub, *_leaves(rng, 0.7, 7, 0.55, 0.28))], 1.3, 0.8, 1.0)


def post(rng: np.random.Generator) -> Model:
    """Build a lamp post or a thin pole, which hides parts of objects."""
    high, radius = float(rng.uniform(4.0, 6.5)), float(rng.uniform(0.07, 0.13))
    grey = float(rng.uniform(0.2, 0.5))
    return _model(
        [
            (
                tube((0, 0, 0), (0, 0, 1.0), radius * 1.4, radius * 1.3, (grey * 0.8,) * 3, 8),
                tube((0, 0, 1.0), (0, 0, high), radius, radius * 0.8, (grey,) * 3, 8),
            )
        ],
        0.4,
        0.4,
        high,
    )


def rack(rng: np.random.Generator) -> Model:
    """Build a shelf of orange beams on blue uprights, with goods on it."""
    blue, orange, long = (0.5, 0.22, 0.08), (0.06, 0.36, 0.9), float(rng.uniform(2.0, 2.8))
    half, stack = long / 2, []
    for z in (0.1, 0.95, 1.8):
        stack.append(box((-half, -0.4, z), (half, 0.4, z + 0.1), orange))
        for x in np.arange(-half + 0.1, half - 0.5, 0.62):
            if rng.random() < 0.7:
                colour = shade(WOOD, float(rng.uniform(0.6, 1.2))) if rng.random() < 0.7 else paint(rng)
                stack.append(box((x, -0.35, z + 0.1), (x + 0.5, 0.35, z + 0.1 + float(rng.uniform(0.3, 0.65))), colour))
    posts = [
        (box((x - 0.05, y - 0.05, 0), (x + 0.05, y + 0.05, 2.4), blue),) for x in (-half, half) for y in (-0.4, 0.4)
    ]
    return _model([tuple(stack), *posts], long, 0.9, 2.4)


def sign(rng: np.random.Generator) -> Model:
    colour: Colour = ((0.12, 0.1, 0.7), (0.6, 0.3, 0.08), (0.1, 0.6, 0.85))[int(rng.integers(3))]
    pole = tube((0, 0, 0), (0, 0, 2.3), 0.04, 0.04, METAL, 5)
    angles = np.arange(8) * (np.pi / 4) + np.pi / 8
    plate = sheet([(0.06, 0.36 * float(np.cos(a)), 2.2 + 0.36 * float(np.sin(a))) for a in angles], colour)
    inner = sheet([(0.065, 0.24 * float(np.cos(a)), 2.2 + 0.24 * float(np.sin(a))) for a in angles], (0.8, 0.8, 0.8))
    return _model([(pole, plate, inner)], 0.4, 0.7, 2.6)


def skip(rng: np.random.Generator) -> Model:
    """Build a container for rubble, or a trailer without its truck."""
    colour, long = paint(rng), float(rng.uniform(2.8, 4.2))
    hull = frustum(
        (-long / 2 + 0.4, long / 2 - 0.4, -0.8, 0.8),
        0.1,
        (-long / 2, long / 2, -0.95, 0.95),
        float(rng.uniform(1.2, 1.7)),
        colour,
    )
    ribs = [
        decal(hull, side, (u, u + 0.04), (0, 1), shade(colour, 0.7))
        for side in (0, 2)
        for u in (0.05, 0.28, 0.5, 0.72, 0.92)
    ]
    return _model([(with_faces(hull, *ribs),)], long, 1.9, 1.6)


def tree(rng: np.random.Generator) -> Model:
    trunk = tube((0, 0, 0), (0, 0, 2.0), 0.16, 0.11, (0.14, 0.2, 0.26), 7)
    return _model([(trunk, *_leaves(rng, 1.3, 14, 2.9, 0.75))], 0.8, 0.8, 4.2)


def _leaves(rng: np.random.Generator, spread: float, count: int, z: float, radius: float) -> list[Solid]:
    green = GREENS[int(rng.integers(len(GREENS)))]
    at = rng.normal(0, spread * 0.42, (count, 3)) * [1, 0.8, 0.7]
    at = at[np.argsort(at[:, 2])]
    return [
        ball(
            (p[0], p[1], z + p[2]), radius * float(rng.uniform(0.7, 1.1)), shade(green, float(rng.uniform(0.75, 1.35)))
        )
        for p in at
    ]


def _model(stacks: list[tuple[Solid, ...]], length: float, width: float, height: float) -> Model:
    return Model(tuple(stacks), (None,), length, width, height)
