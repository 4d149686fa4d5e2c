"""Machines that only some sites have."""

from __future__ import annotations

import numpy as np

from diredi_scenes.meshes import (
    GLASS,
    METAL,
    TYRE,
    Colour,
    Face,
    Model,
    Solid,
    box,
    decal,
    extrude,
    frustum,
    on_end,
    shade,
    side_of,
    tube,
    wheel,
    with_faces,
)  # fmt: skip
from diredi_scenes.models.people import body, head, outfit
from diredi_scenes.models.vehicles import HEADLIGHT

WARNING: tuple[Colour, ...] = ((0.03, 0.62, 0.93), (0.03, 0.42, 0.93), (0.10, 0.12, 0.75), (0.18, 0.55, 0.12))
BLACK: Colour = (0.06, 0.06, 0.06)


def forklift(rng: np.random.Generator) -> Model:
    """Build a forklift: mast and forks in front, an open cage over the driver, a heavy black stern."""
    colour = shade(WARNING[int(rng.choice(4, p=[0.5, 0.3, 0.12, 0.08]))], float(rng.uniform(0.85, 1.05)))
    lift = float(rng.choice([rng.uniform(0.08, 0.3), rng.uniform(0.5, 1.4)], p=[0.7, 0.3]))
    loaded, top = bool(rng.random() < 0.35), 2.15
    hull = extrude(
        [(-1.05, 0.3), (0.75, 0.2), (0.95, 0.45), (0.8, 0.62), (0.1, 0.72), (-0.2, 1.0), (-1.0, 1.02), (-1.18, 0.75)],
        1.12,
        colour,
    )
    stern = side_of(hull, 0, -1)
    stripes = [on_end(stern, (y, y + 0.14), (0.45, 0.72), BLACK) for y in (-0.5, -0.22, 0.06, 0.34)]
    wheels = [
        part
        for x, r in ((0.55, 0.34), (-0.75, 0.27))
        for y in (-0.57, 0.57)
        for part in wheel(x, y, r, shade(colour, 0.8))
    ]
    weight = extrude([(-1.24, 0.38), (-0.75, 0.3), (-0.75, 0.9), (-1.15, 0.9), (-1.26, 0.7)], 1.1, (0.12, 0.12, 0.12))
    weight = with_faces(
        weight, *[on_end(side_of(weight, 0, -1), (y, y + 0.15), (0.42, 0.68), colour) for y in (-0.45, -0.08, 0.29)]
    )
    cage = [
        tube((x, y, 0.7), (x * 0.8 + 0.0, y, top), 0.045, 0.045, BLACK, 4)
        for x, y in ((-0.75, 0.46), (-0.75, -0.46), (0.55, 0.46), (0.55, -0.46))
    ]
    roof = box((-0.68, -0.52, top - 0.05), (0.5, 0.52, top + 0.03), BLACK)
    slats = [
        decal(roof, len(roof.faces) - 1, (0.06, 0.94), (v, v + 0.09), shade(colour, 0.5))
        for v in (0.1, 0.3, 0.5, 0.7, 0.85)
    ]
    wear = outfit(rng, hi_vis=0.6)
    driver = (body(wear, (-0.3, 0, 0.95), (-0.25, 0, 1.5), 1.0), *head(wear, (-0.2, 0, 1.72), 1.0))
    arms = [tube((-0.25, y, 1.4), (0.2, y * 0.6, 1.15), 0.055, 0.045, wear.shirt, 5) for y in (-0.22, 0.22)]
    beacon = tube((-0.6, 0.3, top + 0.03), (-0.6, 0.3, top + 0.16), 0.06, 0.05, (0.05, 0.45, 0.98), 6)
    seat = box((-0.65, -0.25, 0.9), (-0.45, 0.25, 1.35), BLACK)
    frame = box((-1.0, -0.5, 0.04), (0.7, 0.5, 0.35), BLACK)
    stack = (frame, with_faces(hull, *stripes, *wheels), seat, *driver, *arms, *cage, with_faces(roof, *slats), beacon)
    mast, forks = _mast(lift, loaded, rng)
    return Model(((weight,), stack, mast, forks), ("forklift",), 2.9, 1.2, 2.35, headlights=False)


def _mast(lift: float, loaded: bool, rng: np.random.Generator) -> tuple[tuple[Solid, ...], tuple[Solid, ...]]:
    steel: Colour = (0.2, 0.2, 0.21)
    height = max(2.2, lift + 1.2)
    rails = [box((0.95, y - 0.06, 0.08), (1.1, y + 0.06, height), steel) for y in (-0.34, 0.34)]
    bars = [box((0.97, -0.34, z), (1.05, 0.34, z + 0.1), steel) for z in (0.5, 1.25, height - 0.12)]
    chains = [box((1.0, y - 0.02, 0.3), (1.06, y + 0.02, height - 0.1), METAL) for y in (-0.1, 0.1)]
    carriage = [box((1.1, -0.5, lift + z), (1.18, 0.5, lift + z + 0.1), BLACK) for z in (0.08, 0.42, 0.9)]
    carriage += [
        box((1.1, y - 0.03, lift + 0.08), (1.16, y + 0.03, lift + 0.95), BLACK) for y in (-0.45, -0.15, 0.15, 0.45)
    ]
    blades = [box((1.18, y - 0.07, lift), (2.25, y + 0.07, lift + 0.06), METAL) for y in (-0.3, 0.3)]
    if not loaded:
        return (*bars, *rails, *chains), (*blades, *carriage)
    wood: Colour = (0.38, 0.55, 0.70)
    pallet = box((1.22, -0.55, lift + 0.06), (2.25, 0.55, lift + 0.2), shade(wood, 0.8))
    goods = shade(wood, float(rng.uniform(0.7, 1.2))) if rng.random() < 0.7 else (0.6, 0.45, 0.3)
    load = box((1.26, -0.5, lift + 0.2), (2.2, 0.5, lift + float(rng.uniform(0.5, 0.95))), goods)
    tape = [
        Face(
            f.points * [1, 1, 0] + [0, 0, lift + 0.3] + (f.points[:, 2:] > lift + 0.3) * [0, 0, 0.06],
            f.normal,
            shade(goods, 0.7),
        )
        for f in load.faces[:4]
    ]
    return (*bars, *rails, *chains), (*carriage, *blades, pallet, with_faces(load, *tape))


def excavator(rng: np.random.Generator) -> Model:
    """Build an excavator on tracks: a cab beside a boom that ends in a bucket."""
    colour = shade(WARNING[int(rng.choice(2, p=[0.7, 0.3]))], float(rng.uniform(0.85, 1.05)))
    tracks = [
        with_faces(
            extrude(
                [
                    (-1.2, 0.2),
                    (-0.95, 0.0),
                    (0.95, 0.0),
                    (1.2, 0.2),
                    (1.2, 0.42),
                    (1.0, 0.58),
                    (-1.0, 0.58),
                    (-1.2, 0.42),
                ],
                0.4,
                TYRE,
            ),
            *[part for x in (-0.85, -0.3, 0.3, 0.85) for side in (-0.205, 0.205) for part in wheel(x, side, 0.2)[1:2]],
        )
        for _ in (0, 1)
    ]
    left, right = (_shift(track, y) for track, y in zip(tracks, (0.72, -0.72), strict=True))
    house = extrude([(-1.35, 0.75), (0.75, 0.72), (0.85, 0.95), (0.6, 1.25), (-1.2, 1.45), (-1.45, 1.1)], 1.7, colour)
    house = with_faces(house, *[on_end(side_of(house, 0, -1), (-0.7, 0.7), (0.85, 1.02), BLACK)])
    cab = frustum((-0.35, 0.8, 0.05, 0.85), 1.2, (-0.3, 0.55, 0.1, 0.8), 2.35, colour)
    cab = with_faces(cab, *[decal(cab, side, (0.1, 0.9), (0.12, 0.88), GLASS) for side in range(4)])
    reach, raise_ = float(rng.uniform(0.0, 0.7)), float(rng.uniform(0.0, 0.6))
    elbow = (2.0 + reach, -0.25, 2.5 + raise_)
    wrist = (2.9 + reach, -0.25, 1.2 + raise_ * 0.6)
    boom = (tube((0.6, -0.25, 1.2), elbow, 0.2, 0.15, colour, 4), tube(elbow, wrist, 0.15, 0.1, colour, 4))
    x, z = wrist[0], wrist[2]
    bucket = extrude(
        [(x - 0.35, z - 0.55), (x + 0.05, z - 0.6), (x + 0.25, z - 0.1), (x - 0.05, z + 0.1), (x - 0.4, z - 0.15)],
        0.7,
        (0.2, 0.2, 0.2),
    )
    lights = on_end(side_of(house, 0, 1), (-0.7, -0.5), (0.78, 0.9), HEADLIGHT, glow=0.8)
    stacks = (
        (left,),
        (right,),
        (box((-0.7, -0.6, 0.3), (0.7, 0.6, 0.78), BLACK), with_faces(house, lights), cab),
        (*boom, _shift(bucket, -0.25)),
    )
    return Model(stacks, ("excavator",), 4.4, 1.9, 2.6, headlights=False)


def _shift(solid: Solid, y: float) -> Solid:
    faces = tuple(Face(f.points + np.array([0, y, 0]), f.normal, f.colour, f.glow, f.both_sides) for f in solid.faces)
    return Solid(faces, solid.balls, solid.part)
