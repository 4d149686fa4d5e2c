"""Layouts of a camera's ground plane, in metres: a street, a crossing, a car park or a yard.

A layout has the lanes on which objects stand and move, verges for props, and a picture of the ground. It is designed
around an origin in the middle of the camera's view; everything that it returns is in the camera's coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi_scenes.meshes import Colour, Points
from diredi_scenes.rasterizer import Place

EXTENT_M = (-32.0, 32.0, -4.0, 60.0)
"""x0, x1, y0, y1 of the painted ground, in metres."""
PIXELS_PER_M = 16

ASPHALTS: tuple[Colour, ...] = ((0.36, 0.36, 0.37), (0.30, 0.30, 0.30), (0.42, 0.42, 0.43), (0.33, 0.35, 0.37))
PAVEMENTS: tuple[Colour, ...] = ((0.55, 0.57, 0.58), (0.48, 0.52, 0.55), (0.46, 0.50, 0.58))
GRASSES: tuple[Colour, ...] = ((0.22, 0.40, 0.30), (0.20, 0.34, 0.28), (0.28, 0.42, 0.38))
WHITE: Colour = (0.82, 0.83, 0.83)
YELLOW: Colour = (0.12, 0.62, 0.80)


@dataclass(frozen=True)
class Lane:
    """A strip along which objects stand or move; `use` is drive, park, walk, or work (any object, any heading)."""

    start: Points
    end: Points
    width: float
    use: str

    def at(self, share: float, aside: float) -> tuple[float, float]:
        """Return the point at a share 0 to 1 of the length, and -0.5 to 0.5 of the width to the left."""
        way = self.end - self.start
        left = np.array([-way[1], way[0]]) / np.linalg.norm(way)
        point = self.start + way * share + left * aside * self.width
        return float(point[0]), float(point[1])

    @property
    def heading(self) -> float:
        """Direction of the lane, in radians."""
        way = self.end - self.start
        return float(np.arctan2(way[1], way[0]))


@dataclass(frozen=True)
class Layout:
    """The ground of a camera's view, and where things stand on it."""

    ground: NDArray[np.uint8]
    lanes: tuple[Lane, ...]
    verges: tuple[Place, ...]
    """Places for props outside the lanes."""

    def is_free(self, x: float, y: float, margin: float) -> bool:
        """Return whether no lane for vehicles is within `margin` metres of a point."""
        return all(
            _distance(np.array([x, y]), lane) > lane.width / 2 + margin
            for lane in self.lanes
            if lane.use in ("drive", "work", "park")
        )


class GroundPlan:
    """A layout in the making, in metres around an origin `away` metres in front of the camera, turned by `turn`."""

    def __init__(self, rng: np.random.Generator, away: float, turn: float, base: Colour) -> None:
        self.rng = rng
        self.away = away
        self.turn = turn
        width = int((EXTENT_M[1] - EXTENT_M[0]) * PIXELS_PER_M)
        height = int((EXTENT_M[3] - EXTENT_M[2]) * PIXELS_PER_M)
        self.picture: NDArray[np.uint8] = np.full((height, width, 3), 0, np.uint8)
        self.picture[:] = _to_bytes(base)
        self.lanes: list[Lane] = []
        self.verges: list[Place] = []

    def world(self, points: Points) -> Points:
        """Convert points to the camera's coordinates."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.asarray(points @ np.array([[c, s], [-s, c]]) + np.array([0, self.away]))

    def area(self, x0: float, x1: float, y0: float, y1: float, colour: Colour) -> None:
        """Paint a rectangle."""
        self.polygon(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), colour)

    def polygon(self, points: Points, colour: Colour) -> None:
        """Paint a polygon."""
        pixels = (self.world(points) - [EXTENT_M[0], EXTENT_M[2]]) * PIXELS_PER_M
        cv2.fillPoly(self.picture, [np.round(pixels * 16).astype(np.int32)], _to_bytes(colour), cv2.LINE_AA, 4)

    def dashes(self, x0: float, x1: float, y: float, dash: float, gap: float, wide: float, colour: Colour) -> None:
        """Paint a broken line along x; a solid one if `gap` is 0."""
        for x in np.arange(x0, x1, dash + gap) if gap else [x0]:
            self.area(x, min(x + dash, x1) if gap else x1, y - wide / 2, y + wide / 2, colour)

    def lane(self, start: tuple[float, float], end: tuple[float, float], width: float, use: str) -> None:
        """Add a lane."""
        a, b = self.world(np.array([start, end], np.float64))
        self.lanes.append(Lane(a, b, width, use))

    def verge(self, x: float, y: float, heading: float = 0.0) -> None:
        """Add a place for props."""
        at = self.world(np.array([[x, y]]))[0]
        self.verges.append(Place(float(at[0]), float(at[1]), heading + self.turn))

    def finish(self) -> Layout:
        """Return the layout, with grain, stains and cracks on the ground."""
        self._wear()
        return Layout(self.picture, tuple(self.lanes), tuple(self.verges))

    def _wear(self) -> None:
        rng, (height, width) = self.rng, self.picture.shape[:2]
        grain = rng.normal(0, 0.035, (height, width)).astype(np.float32)
        for cells, strength in ((8, 0.05), (40, 0.035), (160, 0.03)):
            coarse = rng.normal(0, strength, (cells, cells)).astype(np.float32)
            grain += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        marks = np.zeros((height, width), np.uint8)
        for _ in range(int(rng.integers(10, 26))):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            axes, dark = (int(rng.integers(4, 26)), int(rng.integers(4, 18))), int(rng.integers(50, 200))
            cv2.ellipse(marks, centre, axes, float(rng.uniform(0, 180)), 0, 360, (dark,), -1, cv2.LINE_AA)
        for _ in range(int(rng.integers(4, 12))):
            steps = np.cumsum(rng.normal(0, 9, (14, 2)) + rng.normal(0, 6, 2), axis=0)
            line = (steps + rng.uniform(0, 1, 2) * (width, height)).astype(np.int32)
            cv2.polylines(marks, [line], False, (180,), 1, cv2.LINE_AA)
        grain -= cv2.GaussianBlur(marks, (0, 0), 1.5) * np.float32(0.001)
        self.picture = np.clip(self.picture * (1 + grain[..., None]), 0, 255).astype(np.uint8)


def street(rng: np.random.Generator, away: float, turn: float) -> Layout:
    """Two lanes with pavements; sometimes a zebra crossing, parked cars, a cycle track."""
    plan = GroundPlan(rng, away, turn, _pick(rng, GRASSES))
    road, half = _pick(rng, ASPHALTS), float(rng.uniform(3.1, 3.6))
    walk = float(rng.uniform(2.2, 3.2))
    plan.area(-60, 60, -half - walk, half + walk, _pick(rng, PAVEMENTS))
    for x in np.arange(-40, 40, 1.2):
        plan.area(x, x + 0.05, -half - walk, half + walk, (0.42, 0.43, 0.44))
    plan.area(-60, 60, -half, half, road)
    plan.dashes(-60, 60, 0, 3.0, float(rng.choice([0, 4.0], p=[0.25, 0.75])), 0.14, WHITE)
    for y in (-half + 0.2, half - 0.2):
        plan.dashes(-60, 60, y, 1, 0, 0.12, WHITE if rng.random() < 0.7 else YELLOW)
    if rng.random() < 0.6:
        at = float(rng.uniform(-6, 6))
        for y in np.arange(-half + 0.3, half - 0.3, 0.95):
            plan.area(at - 1.5, at + 1.5, y, y + 0.5, WHITE)
        plan.lane((at, -half - walk), (at, half + walk), 2.5, "walk")
    for y, a, b in ((-half / 2, -20, 20), (half / 2, 20, -20)):
        plan.lane((a, y), (b, y), 1.6, "drive")
        plan.lane((a, np.sign(y) * (half + walk / 2)), (b, np.sign(y) * (half + walk / 2)), walk - 0.6, "walk")
        for x in np.arange(-18, 18, 3.0):
            plan.verge(
                float(x), float(np.sign(y) * (half + walk + rng.uniform(0.3, 1.6))), float(rng.uniform(-0.2, 0.2))
            )
    if rng.random() < 0.5:
        side = float(rng.choice([-1.0, 1.0]))
        plan.area(-60, 60, side * (half + walk), side * (half + walk + 2.4), road)
        plan.lane((-20, side * (half + walk + 1.2)), (20, side * (half + walk + 1.2)), 0.3, "park")
    return plan.finish()


def crossing(rng: np.random.Generator, away: float, turn: float) -> Layout:
    """Two roads that meet, with stop lines and zebra crossings."""
    plan = GroundPlan(rng, away, turn, _pick(rng, PAVEMENTS))
    road, half = _pick(rng, ASPHALTS), float(rng.uniform(3.2, 4.0))
    for a, b, c, d in ((-60.0, -half - 3, -60.0, -half - 3), (half + 3, 60.0, half + 3, 60.0)):
        plan.area(a, b, c, d, _pick(rng, GRASSES))
    plan.area(-60, 60, -half, half, road)
    plan.area(-half, half, -60, 60, road)
    for sign in (-1, 1):
        plan.dashes(sign * half * 1.9 if sign > 0 else -60, 60 if sign > 0 else -half * 1.9, 0, 2.5, 2.5, 0.14, WHITE)
        at = sign * (half + 1.4)
        for y in np.arange(-half + 0.3, half - 0.3, 0.95):
            plan.area(at - 1.2, at + 1.2, y, y + 0.5, WHITE)
            plan.area(y, y + 0.5, at - 1.2, at + 1.2, WHITE)
        plan.area(-0.07, 0.07, sign * half * 1.9, sign * 50.0, WHITE)
        plan.lane((at, -half - 2), (at, half + 2), 2.0, "walk")
        plan.lane((-half - 2, at), (half + 2, at), 2.0, "walk")
        for start, end in (((-20, -half / 2), (20, -half / 2)), ((half / 2, -20), (half / 2, 20))):
            plan.lane((sign * start[0], sign * start[1]), (sign * end[0], sign * end[1]), 1.4, "drive")
        plan.lane((sign * (half + 1.5), -18), (sign * (half + 1.5), 18), 2.0, "walk")
        for x in np.arange(half + 3.2, 16, 2.8):
            plan.verge(sign * float(x), float(rng.uniform(half + 3, half + 6)))
            plan.verge(sign * float(x), -float(rng.uniform(half + 3, half + 6)))
    return plan.finish()


def car_park(rng: np.random.Generator, away: float, turn: float) -> Layout:
    """Rows of bays on both sides of an aisle."""
    plan = GroundPlan(rng, away, turn, _pick(rng, ASPHALTS))
    aisle, deep, wide = float(rng.uniform(3.0, 3.6)), 5.2, float(rng.uniform(2.6, 2.9))
    colour = WHITE if rng.random() < 0.75 else YELLOW
    for sign in (-1, 1):
        plan.dashes(-26, 26, sign * (aisle + deep), 1, 0, 0.12, colour)
        for x in np.arange(-26, 26 + 0.1, wide):
            plan.area(x - 0.06, x + 0.06, sign * aisle, sign * (aisle + deep), colour)
        for x in np.arange(-26 + wide / 2, 26, wide):
            near, far = (x, sign * aisle), (x, sign * (aisle + deep))
            plan.lane(*((near, far) if rng.random() < 0.5 else (far, near)), 0.3, "park")
        plan.lane((-sign * 22, -sign * aisle / 2), (sign * 22, -sign * aisle / 2), 1.5, "drive")
        plan.lane((-20, sign * (aisle - 0.4)), (20, sign * (aisle - 0.4)), 1.6, "walk")
        plan.area(
            -60,
            60,
            sign * (aisle + deep + 0.4),
            sign * 60.0,
            _pick(rng, GRASSES if rng.random() < 0.5 else PAVEMENTS),
        )
        for x in np.arange(-18, 18, 3.0):
            plan.verge(float(x), sign * (aisle + deep + float(rng.uniform(0.8, 2.0))))
    return plan.finish()


def yard(rng: np.random.Generator, away: float, turn: float) -> Layout:
    """Concrete slabs before a warehouse: work in any direction."""
    plan = GroundPlan(rng, away, turn, (0.50, 0.52, 0.53) if rng.random() < 0.6 else _pick(rng, ASPHALTS))
    for at in np.arange(-36, 36, 4.5):
        plan.area(-60, 60, at, at + 0.06, (0.34, 0.35, 0.35))
        plan.area(at, at + 0.06, -60, 60, (0.34, 0.35, 0.35))
    for y in (-5.5, 5.5):
        plan.dashes(-30, 30, y, 1, 0, 0.15, YELLOW)
    for x in np.arange(-12, 13, 6.0):
        if rng.random() < 0.5:
            for y in (-3.0, 3.0):
                plan.dashes(float(x), float(x) + 3.5, y, 1, 0, 0.12, YELLOW)
    plan.lane((-12, -2.6), (12, -2.6), 4.5, "work")
    plan.lane((12, 2.6), (-12, 2.6), 4.5, "work")
    plan.lane((-14, 0), (14, 0), 1.5, "drive")
    plan.lane((14, 4.6), (-14, 4.6), 1.0, "drive")
    for y in (-6.4, 6.4):
        plan.lane((-14, y), (14, y), 1.6, "walk")
        for x in np.arange(-15, 15, 2.2):
            plan.verge(float(x), y * float(rng.uniform(1.15, 1.5)), float(rng.uniform(-0.3, 0.3)))
    return plan.finish()


LAYOUTS: Mapping[str, Callable[[np.random.Generator, float, float], Layout]] = {
    "street": street,
    "crossing": crossing,
    "car_park": car_park,
    "yard": yard,
}


def _pick(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    return colours[int(rng.integers(len(colours)))]


def _to_bytes(colour: Colour) -> tuple[float, float, float]:
    b, g, r = (c * 255 for c in colour)
    return (b, g, r)


def _distance(point: Points, lane: Lane) -> float:
    way = lane.end - lane.start
    share = min(1.0, max(0.0, float((point - lane.start) @ way / (way @ way))))
    return float(np.linalg.norm(point - lane.start - way * share))
