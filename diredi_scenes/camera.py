"""A fixed camera: project points of the world to pixels, and pixels to the ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diredi_scenes.meshes import Points

NEAREST_M = 0.5


@dataclass(frozen=True)
class Camera:
    """A pinhole camera at (0, 0, height) above the ground z = 0 that looks along y.

    Args:
        height: Height above the ground, in metres.
        pitch: Downward angle, in radians.
        roll: Rotation about the optical axis, in radians.
        view: Angle of view, in radians.
        size: Side of the square image, in pixels.
    """

    height: float
    pitch: float
    roll: float
    view: float
    size: int

    @cached_property
    def position(self) -> Points:
        """Position of the camera, [3], in metres."""
        return np.array([0.0, 0.0, self.height])

    @cached_property
    def focal(self) -> float:
        """Focal length, in pixels."""
        return float(self.size / 2 / np.tan(self.view / 2))

    @cached_property
    def axes(self) -> Points:
        """The camera's axes as rows: right, down, forward."""
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        right, down, forward = np.array([1.0, 0, 0]), np.array([0, -sin, -cos]), np.array([0, cos, -sin])
        s, c = np.sin(self.roll), np.cos(self.roll)
        return np.stack([c * right + s * down, -s * right + c * down, forward])

    def project(self, points: Points) -> tuple[Points, NDArray[np.float64]]:
        """Project points [n, 3] to pixels [n, 2] and depths [n]; points behind the camera get the nearest depth."""
        local = (points - self.position) @ self.axes.T
        depth = np.maximum(local[:, 2], NEAREST_M)
        return local[:, :2] / depth[:, None] * self.focal + self.size / 2, depth

    def ground(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return x, y and depth of the ground at every pixel; 500 m at and above the horizon."""
        at = (np.arange(self.size) + 0.5 - self.size / 2) / self.focal
        u, v = np.meshgrid(at, at)
        rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ self.axes
        steps = self.height / np.maximum(-rays[..., 2], 1e-6)
        steps = np.minimum(steps, 500.0)
        return (
            (rays[..., 0] * steps).astype(np.float32),
            (rays[..., 1] * steps).astype(np.float32),
            steps.astype(np.float32),
        )

    def horizon(self) -> float:
        """Return the row of the horizon in the middle of the image."""
        return float(self.size / 2 - np.tan(self.pitch) * self.focal)

    def resized(self, size: int) -> Camera:
        """Return the same camera with images of another size."""
        return Camera(self.height, self.pitch, self.roll, self.view, size)
