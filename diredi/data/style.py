"""Measure the style of a set of images (light, colour, sharpness, noise), and apply it to other images.

A site may publish its `SiteStyle` if its operator agrees. It has averages over all images, from which no image can be
restored. The cloud then renders its own images in this style when it teaches the next student.
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
"""uint8 [height, width, 3], BGR."""

QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
"""Quantiles of lightness that are part of a style."""
SIDE = 320
"""Blur and noise are measured at this longest side, in pixels, so that cameras of any resolution compare."""
FLAT = 0.3
"""Share of an image that is assumed to be flat."""
_GREY = 0.67  # noise of the grey image over that of a channel
_BLURS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.3, 1.7, 2.2, 3.0)  # standard deviations, in pixels of such a picture

Level = Annotated[float, Field(ge=0, le=255)]


class SiteStyle(Config):
    """The style of a site's images: averages in 8-bit CIE Lab for light and colour, and shares of white for noise."""

    lightness: tuple[Level, Level, Level, Level, Level, Level, Level]
    """`QUANTILES` of the lightness within an image."""
    lightness_spread: float = Field(ge=0, le=128)
    """Standard deviation of the mean lightness between images."""
    colour: tuple[Level, Level]
    """Mean of a and b; 128 is grey."""
    colour_spread: tuple[Level, Level]
    """Standard deviation of a and b within an image."""
    sharpness: float = Field(ge=0, le=100)
    """Standard deviation of the Laplacian over that of the lightness, after a blur that hides noise."""
    noise: float = Field(ge=0, le=1)
    """Standard deviation of the sensor's noise, as a share of white."""


def measure_style(samples: Sequence[Sample]) -> SiteStyle:
    """Measure the mean style of images.

    Args:
        samples: The images; their boxes are ignored.

    Raises:
        InvalidInput: There are no images.
        DatasetError: An image cannot be read.
    """
    if not samples:
        raise InvalidInput("there are no images to take a style from: the training split is empty")
    styles = [image_style(read_image(sample.image)) for sample in samples]
    names = SiteStyle.model_fields
    mean = {name: np.mean([getattr(style, name) for style in styles], 0).round(4).tolist() for name in names}
    middles = [np.mean(style.lightness) for style in styles]
    return SiteStyle.model_validate(mean | {"lightness_spread": round(float(np.std(middles)), 4)})


def image_style(image: Picture) -> SiteStyle:
    """Measure the style of one image; its `lightness_spread` is 0."""
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
    """Render an image in a style, by blur, lightness, colour and noise in this order.

    An image is never sharpened or denoised. Objects stay where they are.

    Args:
        image: uint8 [height, width, 3], BGR; not changed.
        style: The style to match.
        rng: Source of randomness for lightness and noise.

    Returns:
        The new image, of the same shape.
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
    """Create a table of 256 levels that maps the quantiles of an image to those that are wanted, and black to black."""
    rising = np.maximum.accumulate(own) + np.linspace(0, 1e-3, len(own))  # np.interp needs rising values
    ends = [-1.0, *rising, 256.0], [0.0, *wanted, 255.0]
    return np.asarray(np.interp(np.arange(256), *ends).round(), np.uint8)


def _shrink(image: Picture) -> tuple[Picture, float]:
    """Shrink an image to a longest side of at most `SIDE`; return it and the factor."""
    scale = max(image.shape[:2]) / SIDE
    if scale <= 1:
        return image, 1.0
    size = max(round(image.shape[1] / scale), 3), max(round(image.shape[0] / scale), 3)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), scale


def _sharpness(light: NDArray[np.float32]) -> float:
    smooth = cv2.GaussianBlur(light, (0, 0), 1.0)
    return min(float(cv2.Laplacian(smooth, cv2.CV_32F).std() / max(float(light.std()), 1.0)), 100.0)


def _find_blur(light: NDArray[np.float32], sharpness: float) -> float:
    """Find the blur, in pixels, that brings an image nearest to `sharpness`; 0 if it is not sharper."""

    def miss(blur: float) -> float:
        blurred = cv2.GaussianBlur(light, (0, 0), blur) if blur else light
        return abs(_sharpness(np.asarray(blurred, np.float32)) - sharpness)

    return min(_BLURS, key=miss)


def _noise_level(image: Picture) -> float:
    """Measure the variation within a few pixels in the flat parts of an image.

    Unlike a mask of three pixels, this also finds noise that has been through JPEG.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32) / 255
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 2.0)
    return min(math.sqrt(float(np.quantile(cv2.blur(fine * fine, (9, 9)), FLAT))), 1.0)


def _add_noise(image: Picture, noise: float, scale: float, rng: np.random.Generator) -> Picture:
    """Add the noise that is missing. It is `scale` times stronger, because shrinking averages noise."""
    present = _noise_level(_shrink(image)[0])
    missing = math.sqrt(max(noise**2 - present**2, 0)) * scale * 255 / _GREY
    if missing < 0.5:
        return image
    grain = rng.standard_normal(image.shape, np.float32) * np.float32(missing)
    return np.asarray(np.clip(image + grain + 0.5, 0, 255), np.uint8)
