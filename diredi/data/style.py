"""How a set of images looks, in a handful of numbers, and images made to look like that.

A site may publish its `SiteStyle`, if its operator agrees: averages over all of its images, from which no image comes
back. The cloud then shows its own images in that light when it teaches the next student.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from diredi.config import Config
from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.errors import InvalidInput

Picture = NDArray[np.uint8]
"""height x width x 3, BGR."""

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
SIDE = 320
"""Blur and noise are those of a picture with this longest side, so that cameras of any resolution compare."""
FLAT = 0.3
"""Share of an image that is taken to be flat."""
_GREY = 0.67  # of the noise of three channels is in their grey
_BLURS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)  # standard deviations, in pixels of such a picture

Level = Annotated[float, Field(ge=0, le=255)]


class SiteStyle(Config):
    """Averages over the images of a site: 8-bit CIE Lab for light and colour, 0..1 for noise."""

    lightness: tuple[Level, Level, Level, Level, Level, Level, Level]
    """`QUANTILES` of the lightness within an image."""
    lightness_spread: float = Field(ge=0, le=128)
    """Standard deviation, between images, of their mean lightness: no two are taken in the same light."""
    colour: tuple[Level, Level]
    """Mean a and b; 128 is grey."""
    colour_spread: tuple[Level, Level]
    """Standard deviation of a and b within an image."""
    sharpness: float = Field(ge=0, le=100)
    """Strength of edges over strength of light, after a blur that hides the noise."""
    noise: float = Field(ge=0, le=1)
    """Standard deviation of the sensor's noise, as a share of white."""


def measure_style(samples: Sequence[Sample]) -> SiteStyle:
    """The style of all images of `samples`. Raises InvalidInput for none, DataSetError for an unreadable image."""
    if not samples:
        raise InvalidInput("there are no images to take a style from: the training split is empty")
    styles = [image_style(read_image(sample.image)) for sample in samples]
    names = SiteStyle.model_fields
    mean = {name: np.mean([getattr(style, name) for style in styles], 0).round(4).tolist() for name in names}
    middles = [np.mean(style.lightness) for style in styles]
    return SiteStyle.model_validate(mean | {"lightness_spread": round(float(np.std(middles)), 4)})


def image_style(image: Picture) -> SiteStyle:
    """The style of one image, which has no spread between images."""
    small, _ = _shrink(image)
    lab = cv2.cvtColor(small, cv2.COLOR_BGR2LAB).astype(np.float32)
    means, spreads = lab.mean((0, 1)), lab.std((0, 1))
    return SiteStyle(
        lightness=tuple(np.quantile(lab[..., 0], QUANTILES).tolist()),
        lightness_spread=0,
        colour=tuple(means[1:].tolist()),
        colour_spread=tuple(spreads[1:].tolist()),
        sharpness=_sharpness(lab[..., 0]),
        noise=_noise_level(small),
    )


def restyle(image: Picture, style: SiteStyle, rng: np.random.Generator) -> Picture:
    """`image` as a camera of that site might have taken it: blurred, relit, tinted, noisy, in this order.

    An image is never sharpened nor cleaned of noise, and its boxes stay where they are.
    """
    small, scale = _shrink(image)
    own = image_style(image)
    blur = _find_blur(_lightness(small), style.sharpness) * scale
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), blur) if blur else image, cv2.COLOR_BGR2LAB)
    wanted = np.array(style.lightness) + style.lightness_spread * rng.standard_normal()
    lab[..., 0] = cv2.LUT(lab[..., 0], _lightness_table(np.array(own.lightness), np.clip(wanted, 0, 255)))
    for channel in (0, 1):
        ratio = min(style.colour_spread[channel] / max(own.colour_spread[channel], 1.0), 2.0)
        tinted = (np.arange(256) - own.colour[channel]) * ratio + style.colour[channel]
        lab[..., channel + 1] = cv2.LUT(lab[..., channel + 1], np.clip(tinted, 0, 255).round().astype(np.uint8))
    return _add_noise(np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), np.uint8), style.noise, scale, rng)


def _lightness(image: Picture) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2LAB)[..., 0], np.float32)


def _lightness_table(own: NDArray[np.float64], wanted: NDArray[np.float64]) -> Picture:
    """A table of 256 levels that takes the quantiles of an image to those that are wanted, black to black."""
    rising = np.maximum.accumulate(own) + np.linspace(0, 1e-3, len(own))  # np.interp needs no two alike
    ends = [-1.0, *rising, 256.0], [0.0, *wanted, 255.0]
    return np.asarray(np.interp(np.arange(256), *ends).round(), np.uint8)


def _shrink(image: Picture) -> tuple[Picture, float]:
    """The image no larger than `SIDE`, and how many times larger it was."""
    scale = max(image.shape[:2]) / SIDE
    if scale <= 1:
        return image, 1.0
    size = max(round(image.shape[1] / scale), 3), max(round(image.shape[0] / scale), 3)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _sharpness(light: NDArray[np.float32]) -> float:
    smooth = cv2.GaussianBlur(light, (0, 0), 1.0)
    return min(float(cv2.Laplacian(smooth, cv2.CV_32F).std() / max(float(light.std()), 1.0)), 100.0)


def _find_blur(light: NDArray[np.float32], sharpness: float) -> float:
    """The blur, in pixels, that brings an image nearest to `sharpness`; 0 where it is not sharper."""

    def miss(blur: float) -> float:
        blurred = cv2.GaussianBlur(light, (0, 0), blur) if blur else light
        return abs(_sharpness(np.asarray(blurred, np.float32)) - sharpness)

    return min(_BLURS, key=miss)


def _noise_level(image: Picture) -> float:
    """What varies within a few pixels where an image is flat, edges and texture left out. Survives JPEG, which a mask
    of three pixels does not see."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2.0)
    return min(math.sqrt(float(np.quantile(cv2.blur(fine * fine, (9, 9)), FLAT))), 1.0)


def _add_noise(image: Picture, noise: float, scale: float, rng: np.random.Generator) -> Picture:
    """With as much noise as is missing. At `scale` times `SIDE` it is that much stronger: shrinking averages it."""
    there = _noise_level(_shrink(image)[0])
    missing = math.sqrt(max(noise**2 - there**2, 0)) * scale * 255 / _GREY
    if missing < 0.5:
        return image
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(missing)
    return np.asarray(np.clip(image + grain + 0.5, 0, 255), np.uint8)
