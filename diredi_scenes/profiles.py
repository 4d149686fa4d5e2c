"""The built-in sites and everything in which they differ. To add a site, add an entry to SITES."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PRESUMED = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
"""Classes of the manufacturer, with COCO's names in COCO's order."""

Span = tuple[float, float]

_TRAFFIC = {"person": 1.3, "bicycle": 1.1, "car": 1.9, "motorcycle": 1.2, "bus": 0.9, "truck": 1.0}


@dataclass(frozen=True)
class SiteProfile:
    """A site: its fixed cameras, light, weather and traffic. Weights need not add up to 1."""

    name: str
    """Name of the site."""
    names: tuple[str, ...]
    """Classes, in the order of the site's `data.yaml`."""
    cameras: int
    """Number of cameras."""
    traffic: Mapping[str, float]
    """Weight of each class among the objects of an image."""
    light: Mapping[str, float]
    """Weights of bright, overcast, dusk, night and infrared light."""
    weather: Mapping[str, float]
    """Weights of clear weather, rain and fog."""
    layouts: Mapping[str, float]
    """Weights of the layouts in `diredi_scenes.layout.LAYOUTS`."""
    images: tuple[int, int] = (200, 100)
    """Default numbers of training and held-out images; a site has fewer than the manufacturer."""
    objects: tuple[int, int] = (4, 9)
    """Fewest and most objects of an image."""
    always: Mapping[str, float] = field(default_factory=dict)
    """Chance of each class that an image has at least one object of it."""
    height_m: Span = (3.6, 5.2)
    """Height of the camera."""
    pitch_deg: Span = (14.0, 22.0)
    """Downward angle of the camera."""
    view_deg: Span = (46.0, 54.0)
    """Angle of view."""
    reach_m: Span = (5.0, 15.5)
    """Nearest and farthest distance of objects."""
    clutter: tuple[int, int] = (1, 5)
    """Fewest and most unlabelled props in a camera's view."""
    noise: Span = (0.004, 0.015)
    """Standard deviation of the sensor's noise at full exposure, as a share of white."""
    blur: Span = (0.3, 0.8)
    """Blur of the lens, in pixels of an image of 320 pixels."""
    jpeg: tuple[int, int] = (60, 92)
    """Lowest and highest JPEG quality."""
    own_light: bool = False
    """Give each camera one kind of `light` in turn, instead of all kinds by their weights."""

    def light_at(self, camera: int) -> Mapping[str, float]:
        """Return the weights of the kinds of light of one camera."""
        return {list(self.light)[camera % len(self.light)]: 1.0} if self.own_light else self.light


_CITY = {"street": 1.0, "crossing": 1.0, "car_park": 0.7, "yard": 0.5}
_CLEAR = {"clear": 0.8, "rain": 0.1, "fog": 0.1}
_DEPOT = {"yard": 1.0, "car_park": 0.4, "street": 0.4}
_PARKING = {"car": 4.0, "person": 1.5, "motorcycle": 1.0, "truck": 1.0}
_WORK = {"person": 1.5, "bicycle": 0.9, "car": 1.3, "motorcycle": 0.9, "bus": 0.8, "truck": 1.0}


def _with(names: tuple[str, ...], *more: str) -> tuple[str, ...]:
    """Return class names in alphabetical order, so that a site's ids differ from the manufacturer's."""
    return tuple(sorted((*names, *more)))


SITES: Mapping[str, SiteProfile] = {
    site.name: site
    for site in (
        SiteProfile(
            "presumed", PRESUMED, cameras=12, traffic=_TRAFFIC, layouts=_CITY, weather=_CLEAR,
            light={"bright": 0.7, "overcast": 0.25, "dusk": 0.05}, images=(600, 150),
        ),
        SiteProfile(
            "site-1", _with(PRESUMED, "forklift"), cameras=4, traffic={**_WORK, "forklift": 1.2}, layouts=_DEPOT,
            light={"overcast": 0.05, "dusk": 0.5, "night": 0.45}, weather={"clear": 0.7, "rain": 0.2, "fog": 0.1},
            always={"forklift": 0.72}, height_m=(5.0, 6.3), pitch_deg=(24.0, 31.0), reach_m=(5.0, 14.5), clutter=(5, 9),
            noise=(0.012, 0.04), blur=(0.5, 1.1), jpeg=(45, 80),
        ),
        SiteProfile(
            "site-2", _with(PRESUMED), cameras=4, traffic=_TRAFFIC, layouts=_CITY, weather=_CLEAR,
            light={"night": 0.6, "infrared": 0.4}, noise=(0.012, 0.04), blur=(0.4, 0.9),
        ),
        SiteProfile(
            "site-3", _with(PRESUMED, "forklift"), cameras=4, traffic={**_WORK, "forklift": 1.2}, layouts=_DEPOT,
            weather=_CLEAR, light={"bright": 0.7, "overcast": 0.3}, always={"forklift": 0.72},
        ),
        SiteProfile(
            "site-4", _with(PRESUMED, "excavator"), cameras=4, traffic={**_WORK, "excavator": 1.0},
            layouts={"yard": 1.0, "street": 0.6},
            light={"bright": 0.3, "overcast": 0.7}, weather={"clear": 0.3, "rain": 0.35, "fog": 0.35},
            always={"excavator": 0.7}, clutter=(4, 8),
        ),
        SiteProfile(
            "car-park", tuple(sorted(_PARKING)), cameras=9, traffic=_PARKING, layouts={"car_park": 1.0},
            light={"bright": 1.0, "overcast": 1.0}, own_light=True, weather={"clear": 0.7, "rain": 0.2, "fog": 0.1},
            objects=(7, 13), height_m=(4.8, 6.8), pitch_deg=(20.0, 28.0), reach_m=(5.0, 16.5), noise=(0.008, 0.025),
            blur=(0.4, 1.0), jpeg=(45, 85), images=(1350, 450),
        ),
    )
}  # fmt: skip
