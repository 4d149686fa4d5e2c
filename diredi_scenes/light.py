"""The light of one image: sun or clouds, street lamps and headlights.

Pictures are float32, 0 to 1. Drawn pictures are reflectance as a display shows it; light is summed on their squares,
which approximates the linear response of a sensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi_scenes.meshes import Colour
from diredi_scenes.rasterizer import Sunlight

Picture = NDArray[np.float32]


@dataclass(frozen=True)
class Lamp:
    """A street lamp at (x, y) on the ground, in metres."""

    x: float
    y: float
    colour: Colour
    strength: float
    reach: float


@dataclass(frozen=True)
class Beam:
    """A vehicle's headlights at (x, y), in metres, towards `heading`, in radians."""

    x: float
    y: float
    heading: float


@dataclass(frozen=True)
class Light:
    """The light of an image. `ambient` is the light of the sky: blue, green, red."""

    kind: str
    sun: Sunlight
    ambient: Colour
    lamps: float
    """Strength of street lamps and windows, 0 by day."""
    headlights: bool
    grey: bool = False


def light_of(kind: str, rng: np.random.Generator) -> Light:
    """Draw a light of a kind: bright, overcast, dusk, night or infrared."""
    side, height = float(rng.uniform(-1, 1)), float(rng.uniform(0.55, 1.4))
    towards = np.array([side, float(rng.uniform(-0.9, 0.5)), height])
    towards /= np.linalg.norm(towards)
    warm = float(rng.uniform(0.93, 1.0))
    if kind == "bright":
        level = float(rng.uniform(0.8, 1.1))
        return Light(
            kind, Sunlight(towards, float(rng.uniform(0.35, 0.5)), 0.62), (warm * level, level, level), 0.0, False
        )
    if kind == "overcast":
        level = float(rng.uniform(0.5, 0.8))
        return Light(kind, _flat(), (level * 1.02, level, level * 0.98), 0.0, False)
    if kind == "dusk":
        level = float(rng.uniform(0.05, 0.14))
        return Light(kind, _flat(), (level * 1.45, level * 1.05, level * 0.85), float(rng.uniform(0.3, 0.7)), True)
    if kind == "night":
        level = float(rng.uniform(0.008, 0.02))
        return Light(kind, _flat(), (level * 1.3, level, level * 0.9), float(rng.uniform(0.7, 1.1)), True)
    if kind == "infrared":
        return Light(kind, _flat(), (0.004, 0.004, 0.004), 0.15, True, grey=True)
    raise ValueError(f"no light {kind!r}")


def illumination(light: Light, x: Picture, y: Picture, lamps: Sequence[Lamp], beams: Sequence[Beam]) -> Picture:
    """Compute the light on the ground at points (x, y), by which reflectance is multiplied; [..., 3], BGR."""
    total: Picture = np.empty((*x.shape, 3), np.float32)
    total[:] = np.asarray(light.ambient, np.float32)
    if light.lamps > 0:
        for lamp in lamps:
            near = ((x - lamp.x) ** 2 + (y - lamp.y) ** 2) / lamp.reach**2
            pool = light.lamps * lamp.strength / (1 + near) ** 2
            total += pool[..., None] * np.asarray(lamp.colour, np.float32)
    if light.headlights:
        for beam in beams:
            c, s = np.cos(beam.heading), np.sin(beam.heading)
            ahead = (x - beam.x) * c + (y - beam.y) * s
            aside = (y - beam.y) * c - (x - beam.x) * s
            cone = np.exp(-((aside / (0.7 + 0.22 * np.maximum(ahead, 0))) ** 2)) / (1 + (ahead / 7) ** 2)
            total += (np.where(ahead > 0.2, cone, 0) * np.float32(0.45))[..., None] * np.array(
                [0.8, 0.95, 1.0], np.float32
            )
    if light.grey:  # the camera's own infrared lamp
        total += (0.9 / (1 + (x**2 + y**2) / 11.0**2) ** 2)[..., None]
    return total


def halo(points: Sequence[tuple[float, float, float, float, Colour]], size: int) -> Picture:
    """Draw the glare of lamps, given as (x, y, radius, strength, colour) in pixels."""
    glare = np.zeros((size, size, 3), np.float32)
    for x, y, radius, strength, colour in points:
        value = tuple(c * strength for c in colour)
        cv2.circle(
            glare, (round(x * 16), round(y * 16)), round(max(radius, 0.7) * 16), value, cv2.FILLED, cv2.LINE_8, 4
        )
    core = cv2.GaussianBlur(glare, (0, 0), size / 400)
    wide = cv2.GaussianBlur(cv2.resize(glare, (size // 4, size // 4), interpolation=cv2.INTER_AREA), (0, 0), size / 130)
    return np.asarray(core * 1.2 + cv2.resize(wide, (size, size)) * 2.2, np.float32)


def _flat() -> Sunlight:
    return Sunlight(np.array([0.0, 0.0, 1.0]), 0.0, 0.92)
