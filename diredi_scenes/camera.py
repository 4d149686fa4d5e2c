"""A fixed camera: where the points of the world fall on its picture, and where its pixels stand on the ground."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diredi_scenes.meshes import Points

NEAREST_M = 0.5


@dataclass(frozen=True)
class Camera:
    """Stands at (0, 0, height) over the ground z = 0 and looks along y, `pitch` down and `roll` askew.

    Pixels are those of a square picture of `size`; angles are radians.
    """

    height: float
    pitch: float
    roll: float
    view: float
    size: int

    @cached_property
    def position(self) -> Points:
        return np.array([0.0, 0.0, self.height])

    @cached_property
    def focal(self) -> float:
        return float(self.size / 2 / np.tan(self.view / 2))

    @cached_property
    def axes(self) -> Points:
        """Rows: right, down, forward."""
        sin, cos = np.sin(self.pitch), np.cos(self.pitch)
        right, down, forward = np.array([1.0, 0, 0]), np.array([0, -sin, -cos]), np.array([0, cos, -sin])
        s, c = np.sin(self.roll), np.cos(self.roll)
        return np.stack([c * right + s * down, -s * right + c * down, forward])

    def project(self, points: Points) -> tuple[Points, NDArray[np.float64]]:
        """Pixels (n x 2) and distances along the axis. What is behind the camera is put right before it."""
        local = (points - self.position) @ self.axes.T
        depth = np.maximum(local[:, 2], NEAREST_M)
        return local[:, :2] / depth[:, None] * self.focal + self.size / 2, depth

    def ground(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """x, y and distance of the ground under every pixel; far away (500 m) at and above the horizon."""
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
        """Row of the horizon in the middle of the picture."""
        return float(self.size / 2 - np.tan(self.pitch) * self.focal)

    def resized(self, size: int) -> Camera:
        return Camera(self.height, self.pitch, self.roll, self.view, size)
