"""Render one image of a site: place objects, draw, light and label them."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi_scenes import sensor_effects
from diredi_scenes.camera_view import View, choose, view_of
from diredi_scenes.layout import Lane
from diredi_scenes.light import Beam, Light, Picture, halo, illumination, light_of
from diredi_scenes.meshes import Model
from diredi_scenes.models import OBJECTS
from diredi_scenes.profiles import SITES, SiteProfile
from diredi_scenes.rasterizer import DrawnPart, Place, Rasterizer

_USES = {
    "person": (("walk", 0.75), ("work", 0.15), ("drive", 0.1)),
    "bicycle": (("drive", 0.6), ("walk", 0.4)),
    "motorcycle": (("drive", 0.75), ("park", 0.25)),
    "car": (("drive", 0.55), ("park", 0.45)),
    "bus": (("drive", 1.0),),
    "truck": (("drive", 0.75), ("work", 0.25)),
    "forklift": (("work", 0.8), ("drive", 0.2)),
    "excavator": (("work", 0.7), ("drive", 0.3)),
}
"""The uses of lanes on which a class is found, with weights."""

MOST_HIDDEN = 0.7
"""An object has no label if a larger share of it is hidden or outside the image."""
SMALLEST = 8 / 320
"""An object has no label if its larger side is less than this share of the image's side, or its smaller side half."""
_SUPERSAMPLED = 2


@dataclass(frozen=True)
class Scene:
    """A rendered image with its labels."""

    jpeg: bytes
    boxes: NDArray[np.float32]
    """float32 [n, 5], as in `diredi.data.dataset.Sample`."""
    names: tuple[str, ...]
    """Class name of each box."""
    camera: int
    """Number of the camera."""
    owner: NDArray[np.uint8]
    """The part that each pixel shows, uint8 at twice the image's size; 0 is the backdrop."""
    owners: tuple[int, ...]
    """The part in `owner` of each box."""
    places: tuple[Place, ...]
    """Where the object of each box stands."""


def render(site_name: str, split: str, index: int, seed: int, size: int = 320) -> Scene:
    """Render one image.

    Args:
        site_name: Name in SITES.
        split: "train" or "val".
        index: Number of the image in the split, from 0.
        seed: Equal arguments give equal bytes, in any process and order.
        size: Side of the square image, in pixels.

    Returns:
        The image and its labels.
    """
    site = SITES[site_name]
    rng = np.random.default_rng([seed, zlib.crc32(f"{site.name}/{split}".encode()), index])
    number = int(rng.integers(site.cameras))
    view = view_of(site.name, number, size)
    light = light_of(choose(site.light_at(number), rng), rng)
    weather = choose(site.weather, rng)
    rasterizer = Rasterizer(view.camera.resized(size * _SUPERSAMPLED), light.sun)
    things = _populate(site, view, rng)
    for model, place in things:
        rasterizer.draw_shadow(model, place)
    for model, place in sorted(things, key=lambda item: -_distance(item)):
        rasterizer.draw(model, place)
    picture = _expose(view, rasterizer, light, weather, things, rng)
    boxes, drawn = labels_of(rasterizer, site)
    return Scene(
        sensor_effects.encode(sensor_effects.apply_sensor(picture, site, rng, light.grey), site, rng), boxes,
        tuple(str(d.name) for d in drawn), number, rasterizer.owner, tuple(d.owner for d in drawn),
        tuple(d.place for d in drawn),
    )  # fmt: skip


def _distance(item: tuple[Model, Place]) -> float:
    return math.hypot(item[1].x, item[1].y)


def _populate(site: SiteProfile, view: View, rng: np.random.Generator) -> list[tuple[Model, Place]]:
    """Place the camera's fixed props and random objects on lanes, in view and apart from each other."""
    things = list(view.props)
    wanted = [name for name, chance in site.always.items() if rng.random() < chance]
    count = max(len(wanted), int(rng.integers(site.objects[0], site.objects[1] + 1)))
    wanted += [choose(site.traffic, rng) for _ in range(count - len(wanted))]
    for name in wanted:
        model = OBJECTS[name](rng)
        for _ in range(16):
            place = _place(name, model, site, view, rng)
            if place is not None and all(_are_apart(model, place, *other) for other in things):
                things.append((model, place))
                break
    return things


def _place(name: str, model: Model, site: SiteProfile, view: View, rng: np.random.Generator) -> Place | None:
    """Draw a place for an object; None if it is out of view."""
    lane = _lane(name, view.layout.lanes, rng)
    x, y = lane.at(float(rng.uniform(0, 1)), float(rng.uniform(-0.5, 0.5)))
    heading = lane.heading + float(rng.normal(0, 0.06))
    if lane.use == "work":
        heading = float(rng.uniform(-np.pi, np.pi))
    elif name == "person":
        heading += float(rng.normal(0, 0.6)) + (np.pi if rng.random() < 0.5 else 0)
    elif lane.use == "park":
        x, y = lane.at(0.5 if np.linalg.norm(lane.end - lane.start) < 7 else float(rng.uniform(0, 1)), 0.0)
        heading += np.pi if rng.random() < 0.5 else 0.0
    near, far = site.reach_m[0] + model.length * 0.4, site.reach_m[1] + (4 if model.height > 2.5 else 0)
    if not near < y < far:
        return None
    pixel, _ = view.camera.project(np.array([[x, y, model.height / 2]]))
    inside = (np.abs(pixel[0] / view.camera.size - 0.5) < 0.48).all()
    return Place(x, y, heading) if inside else None


def _lane(name: str, lanes: tuple[Lane, ...], rng: np.random.Generator) -> Lane:
    uses = {use: weight for use, weight in _USES[name] if any(lane.use == use for lane in lanes)}
    use = choose(uses, rng) if uses else "drive"
    fitting = [lane for lane in lanes if lane.use == use]
    return fitting[int(rng.integers(len(fitting)))]


def _are_apart(a: Model, at: Place, b: Model, bt: Place) -> bool:
    """Return whether two footprints do not touch, each approximated by a row of discs."""
    if math.hypot(at.x - bt.x, at.y - bt.y) > (a.length + b.length) / 2 + 1:
        return True
    gaps = np.linalg.norm(_discs(a, at)[:, None] - _discs(b, bt)[None], axis=2)
    return bool((gaps > (a.width + b.width) / 2 * 0.9 + 0.1).all())


def _discs(model: Model, place: Place) -> NDArray[np.float64]:
    half = max(0.0, (model.length - model.width) / 2)
    along = np.linspace(-half, half, max(1, int(np.ceil(model.length / max(model.width, 0.3)))))
    return np.stack([place.x + along * np.cos(place.heading), place.y + along * np.sin(place.heading)], axis=1)


def _expose(
    view: View,
    rasterizer: Rasterizer,
    light: Light,
    weather: str,
    things: list[tuple[Model, Place]],
    rng: np.random.Generator,
) -> Picture:
    """Compute the light that reaches the sensor: reflectance times light, plus lamps, through the weather."""
    size = view.camera.size
    cover = _shrink((rasterizer.owner > 0).astype(np.uint8) * 255, size)[..., None] / 255
    base = view.backdrop.sunny if light.sun.sun > 0 else view.backdrop.cloudy
    shown = base * _shadows(rasterizer, size)[..., None] * (1 - cover) + _shrink(rasterizer.colour, size) / 255
    owner = rasterizer.owner[::_SUPERSAMPLED, ::_SUPERSAMPLED]
    depth, x, y = _ground_positions(view, rasterizer.drawn, owner)
    beams = [
        Beam(p.x + np.cos(p.heading) * m.length / 2, p.y + np.sin(p.heading) * m.length / 2, p.heading)
        for m, p in things if m.headlights
    ]  # fmt: skip
    lit = _lighting(light, x, y, view, beams)
    picture = np.asarray(shown * shown * lit, np.float32)
    glare = _glare(view, rasterizer, light, owner)
    if weather == "rain":
        ground = (owner == 0) & (view.backdrop.depth < 60)
        picture = sensor_effects.add_wet_ground(picture, glare, ground)
    picture = np.asarray(picture + glare, np.float32)
    if weather == "fog":
        haze = np.asarray(lit.mean(axis=(0, 1)) * 0.55, np.float32)
        picture = sensor_effects.add_fog(picture, depth, haze, float(rng.uniform(45, 130)))
    return sensor_effects.add_rain(picture, rng, float(rng.uniform(0.4, 1.5))) if weather == "rain" else picture


def _lighting(light: Light, x: Picture, y: Picture, view: View, beams: list[Beam]) -> Picture:
    """Compute the light on the ground at every ninth pixel, because it changes slowly, and enlarge it."""
    if not light.headlights and light.lamps == 0:
        return np.asarray(light.ambient, np.float32)[None, None]
    coarse = illumination(light, x[1::3, 1::3], y[1::3, 1::3], view.lamps, beams)
    return np.asarray(cv2.resize(coarse, (view.camera.size, view.camera.size)), np.float32)


def _ground_positions(view: View, drawn: list[DrawnPart], owner: NDArray[np.uint8]) -> tuple[Picture, Picture, Picture]:
    """Compute depth and ground position of each pixel; an object's pixels have those of its place."""
    table = np.zeros((256, 3), np.float32)
    for item in drawn:
        table[item.owner] = item.distance, item.place.x, item.place.y
    on_object = owner > 0
    planes = zip((view.backdrop.depth, view.ground_x, view.ground_y), table.T, strict=True)
    depth, x, y = (np.where(on_object, column[owner], plane) for plane, column in planes)
    return depth, x, y


def _shadows(rasterizer: Rasterizer, size: int) -> Picture:
    sun = cv2.GaussianBlur(_shrink(rasterizer.shadow, size), (0, 0), size / 500)
    patch = cv2.GaussianBlur(_shrink(rasterizer.contact, size), (0, 0), size / 130)
    strength = np.float32(0.42 / 255) if rasterizer.light.sun > 0 else np.float32(0)
    return np.asarray((1 - sun * strength) * (1 - patch * np.float32(0.45 / 255)), np.float32)


def _glare(view: View, rasterizer: Rasterizer, light: Light, owner: NDArray[np.uint8]) -> Picture:
    """Draw lit windows and lamps that face the camera and are not hidden by an object."""
    size = view.camera.size
    if not light.headlights:
        return np.zeros((size, size, 3), np.float32)
    points = []
    for glow in rasterizer.glows:
        column, row = int(glow.x), int(glow.y)
        if (
            0 <= column < rasterizer.camera.size
            and 0 <= row < rasterizer.camera.size
            and rasterizer.owner[row, column] == glow.owner
        ):
            b, g, r = (c / 255 for c in glow.colour)
            points.append(
                (glow.x / _SUPERSAMPLED, glow.y / _SUPERSAMPLED, glow.radius / _SUPERSAMPLED, glow.strength, (b, g, r))
            )
    windows = view.backdrop.lit * (owner == 0)[..., None] * np.float32(0.5 * light.lamps)
    return np.asarray(halo(points, size) + windows, np.float32)


def labels_of(rasterizer: Rasterizer, site: SiteProfile) -> tuple[NDArray[np.float32], list[DrawnPart]]:
    """Compute tight boxes around the visible part of each object.

    Args:
        rasterizer: The drawn scene.
        site: Gives the class ids.

    Returns:
        The boxes, float32 [n, 5], and the part of each.
    """
    size = rasterizer.camera.size
    rows: list[tuple[float, ...]] = []
    labelled: list[DrawnPart] = []
    visible = np.bincount(rasterizer.owner.ravel(), minlength=256)
    for item in rasterizer.drawn:
        if item.name is None or visible[item.owner] <= (1 - MOST_HIDDEN) * item.area:
            continue
        x0, y0, x1, y1 = bounds(rasterizer.owner, item.owner)
        wide, high = (x1 - x0) / size, (y1 - y0) / size
        if max(wide, high) < SMALLEST or min(wide, high) < SMALLEST / 2:
            continue
        rows.append((site.names.index(item.name), (x0 + x1) / 2 / size, (y0 + y1) / 2 / size, wide, high))
        labelled.append(item)
    return np.asarray(rows, np.float32).reshape(-1, 5), labelled


def bounds(owner: NDArray[np.uint8], which: int) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of a visible part; right and bottom are one beyond the last pixel."""
    mask = owner == which
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _shrink(picture: NDArray[np.uint8], size: int) -> Picture:
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), np.float32)
