"""Cars, buses and trucks."""

from __future__ import annotations

import numpy as np

from diredi_scenes.meshes import (
    GLASS,
    METAL,
    Colour,
    Face,
    Model,
    Solid,
    box,
    decal,
    extrude,
    frustum,
    on_end,
    on_side,
    shade,
    side_of,
    wheel,
    with_faces,
)

PAINTS: tuple[Colour, ...] = (
    (0.80, 0.80, 0.80), (0.82, 0.84, 0.84), (0.10, 0.10, 0.11), (0.22, 0.21, 0.20), (0.48, 0.47, 0.46),
    (0.62, 0.61, 0.60), (0.12, 0.10, 0.55), (0.50, 0.24, 0.09), (0.35, 0.18, 0.08), (0.16, 0.30, 0.14),
    (0.14, 0.55, 0.72), (0.35, 0.50, 0.60),
)  # fmt: skip
HEADLIGHT: Colour = (0.85, 0.92, 0.95)
TAIL_LIGHT: Colour = (0.10, 0.08, 0.70)
CHASSIS: Colour = (0.08, 0.08, 0.08)


def paint(rng: np.random.Generator) -> Colour:
    colour = PAINTS[int(rng.integers(len(PAINTS)))]
    b, g, r = np.clip(np.asarray(colour) * rng.uniform(0.85, 1.12) + rng.normal(0, 0.02, 3), 0.04, 0.95)
    return (float(b), float(g), float(r))


def car(rng: np.random.Generator) -> Model:
    """Build a saloon, a hatchback, an estate or an off-roader."""
    kind = ("saloon", "hatch", "estate", "suv")[int(rng.integers(4))]
    length = {"saloon": 4.6, "hatch": 3.9, "estate": 4.7, "suv": 4.5}[kind] * rng.uniform(0.95, 1.05)
    height = {"saloon": 1.45, "hatch": 1.5, "estate": 1.5, "suv": 1.75}[kind] * rng.uniform(0.97, 1.03)
    width, belt, half, colour = 1.8, 0.60 * height + 0.02, length / 2, paint(rng)
    body = extrude(
        [(-half, 0.28), (half, 0.26), (half + 0.04, 0.55), (half - 0.12, belt - 0.16), (half - 1.15, belt),
         (-half + 0.12, belt), (-half - 0.02, 0.6)],
        width, colour, taper=0.96,
    )  # fmt: skip
    rear = {"saloon": 0.75, "hatch": 0.12, "estate": 0.1, "suv": 0.08}[kind]
    back, front = -half + rear, half - 1.1
    slope = {"saloon": 0.65, "hatch": 0.45, "estate": 0.22, "suv": 0.2}[kind]
    cabin = frustum(
        (back, front, -0.84, 0.84), belt - 0.02, (back + slope, front - 0.75, -0.66, 0.66), height, shade(colour, 0.95)
    )
    radius = 0.33 if kind != "suv" else 0.38
    wheels = [part for x in (-half * 0.62, half * 0.64) for y in (-0.91, 0.91) for part in wheel(x, y, radius)]
    stack = (
        _underbody(length, width),
        with_faces(body, *_trim(half, belt, colour, body), *wheels),
        _add_windows(cabin, True),
    )
    return Model((stack,), ("car",), length, width, height, headlights=True)


def bus(rng: np.random.Generator) -> Model:
    """Build a midibus in a town's livery, or white."""
    length, width, height = float(rng.uniform(8.0, 9.8)), 2.4, float(rng.uniform(2.85, 3.1))
    livery: Colour = (
        (0.10, 0.10, 0.65),
        (0.55, 0.28, 0.06),
        (0.80, 0.82, 0.84),
        (0.12, 0.60, 0.80),
        (0.25, 0.50, 0.15),
    )[int(rng.integers(5))]
    half, band = length / 2, shade(livery, 0.6) if rng.random() < 0.5 else (0.85, 0.86, 0.88)
    body = extrude(
        [(-half, 0.32), (half, 0.32), (half, 1.3), (half - 0.22, height), (-half, height)], width, livery, taper=0.97
    )
    faces: list[Face] = []
    panes = int(length // 1.25)
    for side in (side_of(body, 1, -1), side_of(body, 1, 1)):
        faces.append(on_side(side, (-half, half), (0.34, 0.75), band))
        for pane in range(panes):
            x0 = -half + 0.2 + pane * (length - 0.5) / panes
            faces.append(on_side(side, (x0, x0 + (length - 0.5) / panes - 0.12), (1.35, height - 0.45), GLASS))
    door = side_of(body, 1, -1)
    for x0 in (half - 1.5, -0.5):
        faces.append(on_side(door, (x0, x0 + 1.0), (0.4, height - 0.4), shade(GLASS, 1.5)))
    front, rear = side_of(body, 0, 1), side_of(body, 0, -1)
    faces += [on_end(front, y, z, GLASS) for y, z in (((-1.1, 1.1), (1.32, height - 0.5)),)]
    faces += [on_end(front, y, (height - 0.42, height - 0.15), (0.1, 0.45, 0.55), glow=0.25) for y in ((-0.8, 0.8),)]
    faces += [on_end(front, y, (0.55, 0.8), HEADLIGHT, glow=1.0) for y in ((-1.1, -0.75), (0.75, 1.1))]
    faces += [on_end(rear, (-0.95, 0.95), (1.6, height - 0.5), GLASS)]
    faces += [on_end(rear, y, (0.7, 1.1), TAIL_LIGHT, glow=0.3) for y in ((-1.15, -0.9), (0.9, 1.15))]
    faces += [part for x in (-half * 0.52, half * 0.58) for y in (-1.22, 1.22) for part in wheel(x, y, 0.48)]
    unit = box((-1.6, -0.7, height - 0.02), (0.8, 0.7, height + 0.2), shade(livery, 0.9))
    return Model(
        ((_underbody(length, width), with_faces(body, *faces), unit),), ("bus",), length, width, height + 0.2, True
    )


def truck(rng: np.random.Generator) -> Model:
    """Build a box truck, a tipper, or a delivery van."""
    kind = ("box", "tipper", "van")[int(rng.choice(3, p=[0.45, 0.3, 0.25]))]
    return _van(rng) if kind == "van" else _lorry(rng, kind)


def _lorry(rng: np.random.Generator, kind: str) -> Model:
    length, width = float(rng.uniform(6.0, 7.6)), 2.25
    half, cab_height, colour = length / 2, float(rng.uniform(2.25, 2.6)), paint(rng)
    front = half
    cab = extrude(
        [(front - 1.75, 0.45), (front, 0.45), (front, 1.25), (front - 0.3, cab_height), (front - 1.75, cab_height)],
        width - 0.1, colour, taper=0.95,
    )  # fmt: skip
    faces: list[Face] = [on_end(side_of(cab, 0, 1), (-0.95, 0.95), (1.32, cab_height - 0.25), GLASS)]
    faces += [on_end(side_of(cab, 0, 1), y, (0.6, 0.85), HEADLIGHT, glow=1.0) for y in ((-1.0, -0.65), (0.65, 1.0))]
    faces += [on_end(side_of(cab, 0, 1), (-0.55, 0.55), (0.7, 1.15), CHASSIS)]
    for sign in (-1, 1):
        side = side_of(cab, 1, sign)
        faces.append(on_side(side, (front - 1.45, front - 0.5), (1.3, cab_height - 0.3), GLASS))
    faces += [part for y in (-1.1, 1.1) for part in wheel(front - 0.95, y, 0.46)]
    load = _cargo(rng, half, width) if kind == "box" else _tipper(rng, half, width)
    frame = box((-half + 0.1, -0.9, 0.4), (half - 0.2, 0.9, 0.85), CHASSIS)
    return Model(
        ((with_faces(cab, *faces),), (frame, *load)),
        ("truck",),
        length,
        width,
        3.1 if kind == "box" else cab_height,
        True,
    )


def _cargo(rng: np.random.Generator, half: float, width: float) -> tuple[Solid, ...]:
    top, colour = (
        float(rng.uniform(2.7, 3.15)),
        shade((0.8, 0.81, 0.82), rng.uniform(0.75, 1.1)) if rng.random() < 0.6 else paint(rng),
    )
    body = box((-half, -width / 2, 0.85), (half - 1.9, width / 2, top), colour)
    faces = [part for x in (-half + 0.9, -half + 1.9) for y in (-1.1, 1.1) for part in wheel(x, y, 0.46)]
    stripe = paint(rng)
    for sign in (-1, 1):
        side, at = side_of(body, 1, sign), float(rng.uniform(1.2, 1.9))
        faces.append(on_side(side, (-half + 0.4, half - 2.5), (at, at + float(rng.uniform(0.15, 0.6))), stripe))
    rear = side_of(body, 0, -1)
    faces += [on_end(rear, y, (1.0, top - 0.15), shade(colour, 0.85)) for y in ((-1.0, -0.04), (0.04, 1.0))]
    faces += [on_end(rear, y, (0.87, 0.98), TAIL_LIGHT, glow=0.3) for y in ((-1.1, -0.8), (0.8, 1.1))]
    return (with_faces(body, *faces),)


def _tipper(rng: np.random.Generator, half: float, width: float) -> tuple[Solid, ...]:
    colour, top = paint(rng), float(rng.uniform(1.6, 2.0))
    body = frustum(
        (-half + 0.2, half - 1.95, -width / 2 + 0.1, width / 2 - 0.1),
        0.9,
        (-half, half - 1.9, -width / 2, width / 2),
        top,
        colour,
    )
    faces = [part for x in (-half + 0.9, -half + 1.9) for y in (-1.1, 1.1) for part in wheel(x, y, 0.46)]
    for sign in (-1, 1):
        for x in np.linspace(-half + 0.3, half - 2.2, 5):
            faces.append(on_side(side_of(body, 1, sign), (x, x + 0.12), (0.95, top), shade(colour, 0.7)))
    faces += [on_end(side_of(body, 0, -1), y, (0.92, 1.05), TAIL_LIGHT, glow=0.3) for y in ((-1.0, -0.7), (0.7, 1.0))]
    heap: Colour = (0.25, 0.36, 0.45) if rng.random() < 0.6 else (0.3, 0.3, 0.3)
    load = frustum(
        (-half + 0.15, half - 2.05, -width / 2 + 0.12, width / 2 - 0.12), top - 0.05,
        (-half + 1.2, half - 2.9, -0.35, 0.35), top + float(rng.uniform(0.1, 0.5)), heap,
    )  # fmt: skip
    return (with_faces(body, *faces), load)


def _van(rng: np.random.Generator) -> Model:
    length, width, height, colour = float(rng.uniform(5.2, 5.9)), 1.98, float(rng.uniform(2.2, 2.5)), paint(rng)
    half = length / 2
    body = extrude(
        [(-half, 0.3), (half, 0.3), (half, 0.85), (half - 0.85, 1.2), (half - 1.6, height - 0.05), (half - 1.9, height),
         (-half, height)],
        width, colour, taper=0.9,
    )  # fmt: skip
    faces: list[Face] = []
    for sign in (-1, 1):
        side = side_of(body, 1, sign)
        faces.append(on_side(side, (half - 2.1, half - 1.25), (1.2, height - 0.4), GLASS))
        faces.append(on_side(side, (-half + 0.2, half - 2.3), (0.62, 0.72), shade(colour, 0.7)))
        faces.append(on_side(side, (half - 2.25, half - 2.2), (0.4, height - 0.2), shade(colour, 0.6)))
    screen = body.faces[3]
    faces.append(_inset(screen, 0.1, GLASS))
    front, rear = side_of(body, 0, 1), side_of(body, 0, -1)
    faces += [on_end(front, y, (0.58, 0.82), HEADLIGHT, glow=1.0) for y in ((-0.85, -0.55), (0.55, 0.85))]
    faces += [on_end(rear, y, (1.3, height - 0.3), GLASS) for y in ((-0.75, -0.06), (0.06, 0.75))]
    faces += [on_end(rear, y, (0.8, 1.2), TAIL_LIGHT, glow=0.3) for y in ((-0.92, -0.78), (0.78, 0.92))]
    faces += [part for x in (-half * 0.6, half * 0.62) for y in (-1.0, 1.0) for part in wheel(x, y, 0.36)]
    return Model(((_underbody(length, width), with_faces(body, *faces)),), ("truck",), length, width, height, True)


def _underbody(length: float, width: float) -> Solid:
    """Build wheels and shade under a vehicle, as visible from its front and rear."""
    half = length / 2 - 0.25
    return box((-half, -width / 2 + 0.04, 0.02), (half, width / 2 - 0.04, 0.4), CHASSIS)


def _trim(half: float, belt: float, colour: Colour, body: Solid) -> list[Face]:
    """Return lights, grille, number plates, bumpers and door lines of a car."""
    front, rear = side_of(body, 0, 1), side_of(body, 0, -1)
    faces = [on_end(front, y, (0.42, 0.54), HEADLIGHT, glow=1.0) for y in ((-0.84, -0.5), (0.5, 0.84))]
    faces += [on_end(front, (-0.45, 0.45), (0.36, 0.52), CHASSIS), on_end(front, (-0.25, 0.25), (0.3, 0.4), METAL)]
    faces += [on_end(rear, y, (0.58, 0.74), TAIL_LIGHT, glow=0.3) for y in ((-0.84, -0.5), (0.5, 0.84))]
    faces += [on_end(rear, (-0.27, 0.27), (0.44, 0.56), METAL), on_end(rear, (-0.85, 0.85), (0.28, 0.36), CHASSIS)]
    for sign in (-1, 1):
        side = side_of(body, 1, sign)
        faces.append(on_side(side, (-half * 0.9, half * 0.95), (0.28, 0.36), shade(colour, 0.5)))
        for x in (0.55, -0.35):
            faces.append(on_side(side, (x, x + 0.05), (0.38, belt - 0.05), shade(colour, 0.6)))
        faces += [_arch(sign * 0.905, x) for x in (-half * 0.62, half * 0.64)]
    return faces


def _arch(y: float, x: float) -> Face:
    angles = np.linspace(0, np.pi, 9)
    points = np.stack([x + 0.41 * np.cos(angles), np.full(9, y), 0.3 + 0.41 * np.sin(angles)], axis=1)
    return Face(points, np.array([0.0, np.sign(y), 0.0]), CHASSIS)


def _add_windows(cabin: Solid, pillars: bool) -> Solid:
    """Add windows to the four upright sides of a frustum, in its order: right, front, left, rear."""
    faces = [decal(cabin, 1, (0.07, 0.93), (0.08, 0.92), GLASS), decal(cabin, 3, (0.1, 0.9), (0.15, 0.9), GLASS)]
    for side in (0, 2):
        faces.append(decal(cabin, side, (0.05, 0.95), (0.1, 0.88), GLASS))
        if pillars:
            faces.append(decal(cabin, side, (0.46, 0.5), (0.0, 1.0), cabin.faces[side].colour))
    return with_faces(cabin, *faces)


def _inset(face: Face, margin: float, colour: Colour) -> Face:
    centre = face.points.mean(axis=0)
    return Face(centre + (face.points - centre) * (1 - 2 * margin), face.normal, colour)
