"""People, on foot and on two wheels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diredi_scenes.meshes import (
    METAL,
    TYRE,
    Colour,
    Face,
    Model,
    Solid,
    ball,
    box,
    disc,
    prism,
    ring,
    shade,
    sheet,
    tube,
    with_faces,
)  # fmt: skip
from diredi_scenes.models.vehicles import HEADLIGHT, TAIL_LIGHT, paint

SKINS: tuple[Colour, ...] = ((0.50, 0.62, 0.82), (0.36, 0.46, 0.65), (0.22, 0.30, 0.45), (0.13, 0.18, 0.28))
HAIRS: tuple[Colour, ...] = ((0.05, 0.05, 0.06), (0.10, 0.16, 0.25), (0.25, 0.45, 0.60), (0.55, 0.55, 0.55))
CLOTHES: tuple[Colour, ...] = (
    (0.10, 0.10, 0.10), (0.30, 0.16, 0.10), (0.60, 0.58, 0.55), (0.80, 0.80, 0.80), (0.12, 0.12, 0.60),
    (0.55, 0.30, 0.12), (0.20, 0.42, 0.18), (0.18, 0.60, 0.75), (0.45, 0.20, 0.45), (0.25, 0.32, 0.40),
    (0.10, 0.25, 0.35),
)  # fmt: skip
HI_VIS: tuple[Colour, ...] = ((0.10, 0.95, 0.85), (0.05, 0.40, 0.98))


@dataclass(frozen=True)
class Outfit:
    """The clothes of a person."""

    shirt: Colour
    trousers: Colour
    skin: Colour
    hair: Colour
    hi_vis: bool
    hat: bool


def outfit(rng: np.random.Generator, hi_vis: float = 0.12) -> Outfit:
    """Draw an outfit; `hi_vis` is the chance of a warning vest."""

    def pick(colours: tuple[Colour, ...]) -> Colour:
        return shade(colours[int(rng.integers(len(colours)))], float(rng.uniform(0.75, 1.2)))

    bright = bool(rng.random() < hi_vis)
    return Outfit(
        pick(HI_VIS) if bright else pick(CLOTHES), pick(CLOTHES[:3]) if rng.random() < 0.6 else pick(CLOTHES),
        pick(SKINS), pick(HAIRS), bright, bright or bool(rng.random() < 0.15),
    )  # fmt: skip


def person(rng: np.random.Generator) -> Model:
    """Build a person who stands, walks or carries something."""
    wear, tall = outfit(rng), float(np.clip(rng.normal(1.0, 0.06), 0.85, 1.12))
    stride = float(rng.uniform(0.0, 0.32)) * (1 if rng.random() < 0.5 else -1)
    wide = float(rng.uniform(0.92, 1.2))
    hip, shoulder = 0.88 * tall, 1.43 * tall
    legs = [
        leg(wear, (0, y * 0.1 * wide, hip), (s * stride, y * 0.11 * wide, 0.05), 0.095 * wide)
        for y, s in ((-1, 1), (1, -1))
    ]
    torso = body(wear, (0, 0, hip - 0.06), (0.02, 0, shoulder), wide)
    arms = []
    carries = rng.random() < 0.25
    for y, s in ((-1, -1), (1, 1)):
        top = (0.02, y * 0.24 * wide, shoulder - 0.06)
        hand = (0.32, y * 0.16, 1.05 * tall) if carries else (s * stride * 0.8, y * 0.3 * wide, 0.82 * tall)
        arms.append(tube(top, hand, 0.06 * wide, 0.045, wear.shirt, 5))
        arms.append(ball(hand, 0.05, wear.skin))
    extras: list[tuple[Solid, ...]] = []
    if carries:
        extras.append((box((0.22, -0.2, 0.95 * tall), (0.5, 0.2, 1.25 * tall), (0.35, 0.5, 0.65)),))
    elif rng.random() < 0.25:
        pack = CLOTHES[int(rng.integers(len(CLOTHES)))]
        extras.append((box((-0.32, -0.15, 0.98 * tall), (-0.12, 0.15, shoulder - 0.04), pack),))
    stacks = (
        (legs[0],),
        (legs[1],),
        (torso, *head(wear, (0.04, 0, shoulder + 0.2 * tall), tall)),
        *((a,) for a in arms),
    )
    return Model((*stacks, *extras), ("person",), 0.6, 0.6, 1.75 * tall)


def leg(
    wear: Outfit, hip: tuple[float, float, float], foot: tuple[float, float, float], radius: float, part: int = 0
) -> Solid:
    """Build a leg with its shoe, thinner at the ankle."""
    return tube(foot, hip, radius * 0.65, radius, wear.trousers, 6, part)


def body(
    wear: Outfit, low: tuple[float, float, float], high: tuple[float, float, float], wide: float, part: int = 0
) -> Solid:
    """Build a torso, wider than deep, with a stripe if it is a warning vest."""
    angles = np.arange(8) * (np.pi / 4) + np.pi / 8

    def oval(at: tuple[float, float, float], across: float, deep: float) -> np.ndarray:
        return np.stack([at[0] + deep * np.cos(angles), at[1] + across * np.sin(angles), np.full(8, at[2])], axis=1)

    lower, upper = oval(low, 0.17 * wide, 0.12 * wide), oval(high, 0.23 * wide, 0.11 * wide)
    torso = prism(lower, upper, wear.shirt, part=part)
    if not wear.hi_vis:
        return torso
    centre = (lower.mean(axis=0) + upper.mean(axis=0)) / 2
    bands: list[Face] = []
    for at in (0.2, 0.55):
        a, b = lower + (upper - lower) * at, lower + (upper - lower) * (at + 0.13)
        bands += prism(centre + (a - centre) * 1.02, centre + (b - centre) * 1.02, (0.8, 0.8, 0.8)).faces[:8]
    return with_faces(torso, *bands)


def head(
    wear: Outfit, at: tuple[float, float, float], tall: float, part: int = 0, helmet: Colour | None = None
) -> tuple[Solid, ...]:
    """Build neck, face and hair, hat or helmet."""
    x, y, z = at
    neck = tube((x - 0.03, y, z - 0.22 * tall), (x, y, z), 0.06, 0.06, wear.skin, 5, part)
    if helmet is not None:
        return neck, ball((x, y, z), 0.15, helmet, part), ball((x + 0.08, y, z - 0.01), 0.1, (0.08, 0.07, 0.07), part)
    crown = HI_VIS[0] if wear.hi_vis else wear.hair
    return (
        neck,
        ball((x - 0.025, y, z + 0.03), 0.125 * tall, crown, part),
        ball((x + 0.03, y, z - 0.01), 0.11 * tall, wear.skin, part),
        *((tube((x, y, z + 0.06), (x, y, z + 0.14), 0.13, 0.09, crown, 8, part),) if wear.hat else ()),
    )


def bicycle(rng: np.random.Generator) -> Model:
    """Build a bicycle, mostly with a rider, who is a labelled person."""
    colour, radius, base = paint(rng), 0.36, 0.54
    thick = 0.045
    wheels = [ring((x, 0, radius), radius, 0.07, TYRE) for x in (-base, base)]
    spokes = [
        sheet([(x - 0.3, 0, radius), (x, 0, radius + 0.02), (x + 0.3, 0, radius), (x, 0, radius - 0.02)], METAL)
        for x in (-base, base)
    ]
    crank, saddle, head_tube, bars = (-0.08, 0, 0.3), (-0.24, 0, 0.88), (0.38, 0, 0.82), (0.42, 0, 1.02)
    hub = (-base, 0, radius)
    lines = [
        (crank, saddle),
        (crank, head_tube),
        (saddle, head_tube),
        (saddle, hub),
        (crank, hub),
        (bars, (base, 0, radius)),
    ]
    frame = [tube(a, b, thick, thick, colour, 4) for a, b in lines]
    frame += [tube((0.42, -0.28, 1.03), (0.42, 0.28, 1.03), 0.025, 0.025, TYRE, 4)]
    frame += [box((-0.38, -0.08, 0.88), (-0.12, 0.08, 0.95), TYRE)]
    machine = (*wheels, *spokes, *frame)
    if rng.random() < 0.2:
        return Model((machine,), ("bicycle",), 1.8, 0.6, 1.1)
    rider = _rider(
        rng,
        hip=(-0.22, 1.02),
        shoulder=(0.12, 1.5),
        hands=(0.4, 0.26, 1.06),
        feet=(0.0, 0.22),
        helmet=rng.random() < 0.4,
    )
    return Model((machine, *rider), ("bicycle", "person"), 1.8, 0.7, 1.85)


def motorcycle(rng: np.random.Generator) -> Model:
    """Build a scooter or a motorcycle, with or without a rider."""
    colour, radius, base = paint(rng), 0.31, 0.68
    stack: list[Solid] = []
    for x in (-base, base):
        tyre = box((x - 0.2, -0.06, 0.0), (x + 0.2, 0.06, radius), TYRE)
        sides = [
            face
            for y in (-0.07, 0.07)
            for face in (disc(x, y, radius, radius, TYRE), disc(x, y * 1.01, radius, 0.16, METAL))
        ]
        stack.append(with_faces(tyre, *sides))
    stack.append(box((-0.4, -0.17, 0.22), (0.35, 0.17, 0.6), (0.12, 0.12, 0.12)))
    stack.append(tube((-0.75, -0.2, 0.36), (0.1, -0.2, 0.3), 0.07, 0.05, METAL, 6))
    stack += [tube((0.45, y, 0.95), (base, y, radius), 0.035, 0.035, METAL, 4) for y in (-0.1, 0.1)]
    tank = prism(_oval(0.15, 0.2, 0.34, 0.58), _oval(0.15, 0.14, 0.26, 0.86), colour)
    seat = prism(_oval(-0.45, 0.16, 0.42, 0.6), _oval(-0.5, 0.14, 0.4, 0.78), (0.06, 0.06, 0.06))
    tail = prism(_oval(-0.8, 0.12, 0.2, 0.62), _oval(-0.85, 0.1, 0.2, 0.84), colour)
    stack += [tail, seat, tank]
    if rng.random() < 0.5:
        stack.append(prism(_oval(0.58, 0.22, 0.12, 0.5), _oval(0.5, 0.18, 0.1, 1.12), shade(colour, 0.9)))
    stack.append(tube((0.44, -0.36, 1.0), (0.44, 0.36, 1.0), 0.03, 0.03, TYRE, 4))
    stack.append(
        sheet([(0.66, -0.12, 0.72), (0.66, 0.12, 0.72), (0.64, 0.12, 0.92), (0.64, -0.12, 0.92)], HEADLIGHT, glow=1.0)
    )
    stack.append(
        sheet(
            [(-1.01, -0.09, 0.66), (-1.01, 0.09, 0.66), (-1.01, 0.09, 0.76), (-1.01, -0.09, 0.76)], TAIL_LIGHT, glow=0.3
        )
    )
    if rng.random() < 0.3:
        return Model((tuple(stack),), ("motorcycle",), 2.1, 0.8, 1.15, headlights=False)
    rider = _rider(rng, hip=(-0.3, 0.88), shoulder=(-0.08, 1.4), hands=(0.42, 0.3, 1.04), feet=(0.1, 0.32), helmet=True)
    return Model((tuple(stack), *rider), ("motorcycle", "person"), 2.1, 0.8, 1.75, headlights=True)


def _rider(
    rng: np.random.Generator,
    hip: tuple[float, float],
    shoulder: tuple[float, float],
    hands: tuple[float, float, float],
    feet: tuple[float, float],
    helmet: bool,
) -> tuple[tuple[Solid, ...], ...]:
    """Build a seated rider as part 1 of a model. Points are (x, z), hands (x, y, z)."""
    wear, bent = outfit(rng), float(rng.uniform(-0.1, 0.1))
    knee = ((hip[0] + feet[0]) / 2 + 0.28, (hip[1] + feet[1]) / 2 + 0.1)
    stacks: list[tuple[Solid, ...]] = []
    for y, lift in ((-0.15, bent), (0.15, -bent)):
        thigh = tube((hip[0], y * 0.7, hip[1]), (knee[0], y * 1.2, knee[1] + lift), 0.095, 0.075, wear.trousers, 6, 1)
        shin = tube((knee[0], y * 1.2, knee[1] + lift), (feet[0], y, feet[1] + lift), 0.075, 0.06, wear.trousers, 6, 1)
        arm = tube(
            (shoulder[0], y * 1.5, shoulder[1] - 0.05),
            (hands[0], np.sign(y) * hands[1], hands[2]),
            0.06,
            0.045,
            wear.shirt,
            5,
            1,
        )
        stacks += [(thigh, shin), (arm,)]
    torso = body(wear, (hip[0], 0, hip[1] - 0.05), (shoulder[0], 0, shoulder[1]), 1.0, 1)
    colour = paint(rng) if helmet else None
    stacks.append((torso, *head(wear, (shoulder[0] + 0.07, 0, shoulder[1] + 0.2), 1.0, 1, colour)))
    return tuple(stacks)


def _oval(x: float, across: float, along: float, z: float) -> np.ndarray:
    angles = np.arange(8) * (np.pi / 4) + np.pi / 8
    return np.stack([x + along * np.cos(angles), across * np.sin(angles), np.full(8, z)], axis=1)
