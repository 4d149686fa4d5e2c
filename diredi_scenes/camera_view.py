"""The view of a fixed camera: layout, backdrop and props. It depends on site and number alone, not on the seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diredi_scenes.backdrop import Backdrop, Picture, paint_backdrop
from diredi_scenes.camera import Camera
from diredi_scenes.layout import LAYOUTS, Layout
from diredi_scenes.light import Lamp
from diredi_scenes.meshes import METAL, Model, box, side_of, tube, with_faces
from diredi_scenes.meshes import on_end as _on_end
from diredi_scenes.models import CLUTTER
from diredi_scenes.profiles import SITES, SiteProfile
from diredi_scenes.rasterizer import Place

_INDUSTRIAL = ("yard",)
_SODIUM, _LED = (0.35, 0.70, 1.0), (0.95, 1.0, 0.95)


@dataclass(frozen=True)
class View:
    """A fixed camera with everything in its view that never changes."""

    camera: Camera
    layout: Layout
    backdrop: Backdrop
    props: tuple[tuple[Model, Place], ...]
    lamps: tuple[Lamp, ...]
    ground_x: Picture
    ground_y: Picture


@lru_cache(maxsize=32)
def view_of(site_name: str, number: int, size: int) -> View:
    """Create the view of a site's camera for images of `size` pixels."""
    site = SITES[site_name]
    rng = np.random.default_rng([zlib.crc32(site.name.encode()), number])
    pitch = np.radians(rng.uniform(*site.pitch_deg))
    camera = Camera(float(rng.uniform(*site.height_m)), float(pitch), float(np.radians(rng.normal(0, 1.2))),
                    float(np.radians(rng.uniform(*site.view_deg))), size)  # fmt: skip
    kind = choose(site.layouts, rng)
    away = float(np.clip(0.75 * camera.height / np.tan(pitch), site.reach_m[0] + 3.5, site.reach_m[1] - 5.5))
    turn = float(rng.uniform(-0.5, 0.5) + (np.pi / 2 if kind != "yard" and rng.random() < 0.4 else 0))
    layout = LAYOUTS[kind](rng, away, turn)
    backdrop = paint_backdrop(rng, camera, layout, away, turn, kind in _INDUSTRIAL)
    lamps = _lamps(rng, layout, site)
    props = [
        *_clutter(rng, site, layout, camera),
        *[(_lamp_post(), Place(lamp.x, lamp.y, np.pi / 2)) for lamp in lamps],
    ]
    x, y, _ = camera.ground()
    return View(camera, layout, backdrop, tuple(props), lamps, x, y)


def choose(weights: Mapping[str, float], rng: np.random.Generator) -> str:
    """Draw a name by weight."""
    names = list(weights)
    shares = np.array([weights[name] for name in names])
    return names[int(rng.choice(len(names), p=shares / shares.sum()))]


def _lamps(rng: np.random.Generator, layout: Layout, site: SiteProfile) -> tuple[Lamp, ...]:
    """Place lamps on some verges, none of them close to the camera."""
    places = [p for p in layout.verges if 7 < p.y < 26 and abs(p.x) < 0.6 * p.y + 4]
    colour = _SODIUM if rng.random() < 0.5 else _LED
    count = min(len(places), int(rng.integers(2, 5)))
    chosen = [places[int(i)] for i in rng.permutation(len(places))[:count]]
    return tuple(Lamp(p.x, p.y, colour, float(rng.uniform(0.35, 0.7)), float(rng.uniform(5, 8))) for p in chosen)


def _lamp_post() -> Model:
    pole = tube((0, 0, 0), (0, 0, 5.8), 0.1, 0.06, (0.3, 0.3, 0.3), 6)
    hood = box((-0.9, -0.15, 5.7), (0.15, 0.15, 5.9), METAL)
    hood = with_faces(hood, _on_end(side_of(hood, 0, -1), (-0.14, 0.14), (5.7, 5.88), (0.7, 0.9, 1.0), glow=1.0))
    return Model(((pole, hood),), (None,), 0.4, 0.4, 5.9)


def _clutter(rng: np.random.Generator, site: SiteProfile, layout: Layout, camera: Camera) -> list[tuple[Model, Place]]:
    """Place props on verges, a few elsewhere, and sometimes a post close to the camera."""
    kinds = [name for name in CLUTTER if name != "tree" or camera.height < 6]
    near, far = site.reach_m
    props: list[tuple[Model, Place]] = []
    places = [p for p in layout.verges if near < p.y < far + 2 and abs(p.x) < 0.55 * p.y + 2]
    for _ in range(int(rng.integers(site.clutter[0], site.clutter[1] + 1))):
        model = CLUTTER[kinds[int(rng.integers(len(kinds)))]](rng)
        if places and rng.random() < 0.75:
            place = places.pop(int(rng.integers(len(places))))
        else:
            y = float(rng.uniform(near + 1, far))
            place = Place(float(rng.uniform(-0.42, 0.42)) * y, y, float(rng.uniform(-np.pi, np.pi)))
            if not layout.is_free(place.x, place.y, 0.4) and max(model.length, model.width) > 0.9:
                continue
        if all(np.hypot(place.x - p.x, place.y - p.y) > (m.length + model.length) / 2 for m, p in props):
            props.append((model, place))
    if rng.random() < 0.35:
        y = float(rng.uniform(4.0, 5.5))
        props.append((CLUTTER["post"](rng), Place(float(rng.uniform(-0.35, 0.35)) * y, y, 0.0)))
    return props
