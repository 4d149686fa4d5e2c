"""Effects between the scene and the file: fog, rain, lens, sensor and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.data.images import encode_jpeg
from diredi_scenes.profiles import SiteProfile

Picture = NDArray[np.float32]
"""float32 [size, size, 3] of linear light, BGR; depths are [size, size]."""


def add_fog(picture: Picture, depth: Picture, ambient: Picture, visibility_m: float) -> Picture:
    """Add fog in the colour of the light. At `visibility_m` metres one twentieth of the contrast is left."""
    clear = np.exp(depth * np.float32(-3.0 / visibility_m))[..., None]
    return np.asarray(picture * clear + ambient * (1 - clear), np.float32)


def add_wet_ground(picture: Picture, glare: Picture, ground: NDArray[np.bool_]) -> Picture:
    """Darken wet ground and add reflections of lamps below them."""
    size = picture.shape[0]
    streak = cv2.blur(
        glare, (max(1, size // 100), size // 5), anchor=(-1, size // 5 - 1), borderType=cv2.BORDER_CONSTANT
    )
    darker = np.where(ground[..., None], picture * np.float32(0.55), picture)
    return np.asarray(darker + np.where(ground[..., None], streak * 0.9, 0), np.float32)


def add_rain(picture: Picture, rng: np.random.Generator, strength: float) -> Picture:
    """Add streaks of falling drops, and drops on the glass."""
    size = picture.shape[0]
    drops = (rng.random((size, size)) < 0.004 * strength).astype(np.float32)
    long, lean = max(3, size // 24), float(rng.uniform(-0.35, 0.35))
    kernel = np.zeros((long, long), np.float32)
    cv2.line(
        kernel,
        (int(long / 2 - lean * long / 2), 0),
        (int(long / 2 + lean * long / 2), long - 1),
        (1.0,),
        1,
        cv2.LINE_AA,
    )
    streaks = np.clip(cv2.filter2D(drops, -1, kernel), 0, 1)[..., None]
    level = np.float32(picture.mean() * 1.2 + 0.03)
    picture = np.asarray(picture * (1 - 0.3 * streaks) + 0.3 * level * streaks, np.float32)
    for _ in range(int(rng.integers(0, 4))):
        x, y, r = (int(v) for v in (rng.integers(size), rng.integers(size), rng.integers(size // 60 + 1, size // 26)))
        patch = picture[max(0, y - r) : y + r, max(0, x - r) : x + r]
        if patch.size:
            mask = np.zeros(patch.shape[:2], np.float32)
            cv2.circle(mask, (patch.shape[1] // 2, patch.shape[0] // 2), r, (0.8,), -1, cv2.LINE_AA)
            smooth = cv2.GaussianBlur(patch, (0, 0), r / 2) * 1.1
            patch[:] = patch * (1 - mask[..., None]) + smooth * mask[..., None]
    return picture


def apply_sensor(picture: Picture, site: SiteProfile, rng: np.random.Generator, grey: bool) -> NDArray[np.uint8]:
    """Apply the sensor of a cheap camera: blur, gain in the dark, vignette and noise."""
    size = picture.shape[0]
    blur = float(rng.uniform(*site.blur)) * size / 320
    picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), blur), np.float32)
    if grey:
        picture = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    gain = float(np.clip(0.24 / max(float(picture.mean()), 1e-4), 0.75, 5.0) * rng.uniform(0.85, 1.15))
    picture = picture * np.float32(gain) * _vignette(size, float(rng.uniform(0.0, 0.35)))
    if not grey:
        picture *= rng.uniform(0.94, 1.06, 3).astype(np.float32)
    noise = float(rng.uniform(*site.noise)) * (0.7 + 0.45 * gain**0.5)
    shown = np.sqrt(np.clip(picture, 0, 1.4)) * np.float32(rng.uniform(0.95, 1.05))
    grain = rng.standard_normal((size, size, 1 if grey else 3), np.float32) * np.float32(noise)
    shown = shown + grain * (1.25 - np.clip(shown, 0, 1) * 0.7)
    return np.asarray(np.clip(shown * 255 + 0.5, 0, 255), np.uint8)


def encode(picture: NDArray[np.uint8], site: SiteProfile, rng: np.random.Generator) -> bytes:
    """Encode an image as JPEG with the quality of the site's cameras."""
    return encode_jpeg(picture, int(rng.integers(site.jpeg[0], site.jpeg[1] + 1)))


def _vignette(size: int, strength: float) -> Picture:
    at = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    return np.asarray(1 - strength * (at[:, None] + at[None]) / 2, np.float32)[..., None]
