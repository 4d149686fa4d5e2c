"""From an image to the network's input, and from its raw outputs to boxes. No torch.

The torch detectors and the exported file share every line of this, so that the gate measures what an edge node runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.detectors.predictor import Detections, Image

Floats = NDArray[np.float32]
InputSize = int | tuple[int, int]
"""The side of a square input, or height and width of another one, in pixels."""

GREY = 114  # what Ultralytics pads with; checkpoints have learned to ignore it
MAX_CANDIDATES = 2000
MAX_DETECTIONS = 300
OVERLAP = 0.7


def sides(size: InputSize) -> tuple[int, int]:
    """Return height and width of an input, in pixels."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Letterbox:
    """How an image was fitted into the input: multiply by `scale`, then shift by (`left`, `top`) pixels."""

    scale: float
    left: int
    top: int
    height: int  # of the image, pixels
    width: int

    @classmethod
    def fit(cls, height: int, width: int, size: InputSize) -> Letterbox:
        """Return the letterbox that fits an image of some height and width into an input, all in pixels."""
        high, wide = sides(size)
        scale = min(high / height, wide / width)
        across, down = _scaled(width, scale), _scaled(height, scale)
        return cls(scale, (wide - across) // 2, (high - down) // 2, height, width)

    def apply(self, image: Image, size: InputSize) -> Image:
        """`image` on grey of the size of the input, as it is when it already fits."""
        high, wide = sides(size)
        if image.shape[0] == high and image.shape[1] == wide:
            return image
        canvas = np.full((high, wide, 3), GREY, np.uint8)
        fitted = _scaled(self.width, self.scale), _scaled(self.height, self.scale)
        shrinks = self.scale < 1
        resized = cv2.resize(image, fitted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        canvas[self.top : self.top + fitted[1], self.left : self.left + fitted[0]] = resized
        return canvas

    def undo(self, boxes: Floats) -> Floats:
        """x1, y1, x2, y2 on the input, as pixels of the image and inside it."""
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        return np.asarray(np.clip((boxes - shift) / np.float32(self.scale), 0, limit), np.float32)

    def forward(self, boxes: Floats, size: int) -> Floats:
        """Centre-x, centre-y, width, height in 0..1 of the image, as the same in 0..1 of the square."""
        scale = np.array([self.width, self.height, self.width, self.height], np.float32) * np.float32(self.scale)
        shift = np.array([self.left, self.top, 0, 0], np.float32)
        moved: Floats = (boxes * scale + shift) / np.float32(size)
        return moved


def _scaled(side: int, scale: float) -> int:
    """Return a side in pixels of the input: at least one, however long and narrow the image is."""
    return max(round(side * scale), 1)


def prepare(images: Sequence[Image], size: InputSize) -> tuple[Floats, list[Letterbox]]:
    """The network's input, batch x 3 x height x width, RGB in 0..1, and how to get back."""
    frames = [Letterbox.fit(image.shape[0], image.shape[1], size) for image in images]
    batch = np.empty((len(images), 3, *sides(size)), np.float32)
    for row, image, frame in zip(batch, images, frames, strict=True):
        for plane, channel in zip(row, reversed(cv2.split(frame.apply(image, size))), strict=True):
            np.divide(channel, np.float32(255), out=plane)
    return batch, frames


def grid(size: InputSize, strides: Sequence[int]) -> tuple[Floats, Floats]:
    """Anchors (a x 2, pixels of the input) and the stride of each, in the order of the network's outputs."""
    points, steps = [], []
    for stride in strides:
        axes = [np.arange(side // stride, dtype=np.float32) for side in sides(size)]
        down, across = ((axis + np.float32(0.5)) * stride for axis in axes)
        y, x = np.meshgrid(down, across, indexing="ij")
        points.append(np.stack([x.ravel(), y.ravel()], 1))
        steps.append(np.full(x.size, stride, np.float32))
    return np.concatenate(points), np.concatenate(steps)


def decode(
    class_logits: Floats,
    box_logits: Floats,
    anchors: Floats,
    strides: Floats,
    frames: Sequence[Letterbox],
    confidence: float,
) -> list[Detections]:
    """Boxes of each image of a batch; shapes as in `diredi.detectors.base.Outputs`.

    One anchor may name several classes, each with a score of its own: a detector is judged on all that it says.
    """
    floor = np.float32(np.log(max(confidence, 1e-6) / max(1 - confidence, 1e-6)))
    return [
        _decode_one(logits, boxes, anchors, strides, frame, floor)
        for logits, boxes, frame in zip(class_logits, box_logits, frames, strict=True)
    ]


def _decode_one(
    logits: Floats, box_logits: Floats, anchors: Floats, strides: Floats, frame: Letterbox, floor: np.float32
) -> Detections:
    # Ten times as fast as np.nonzero in two dimensions, and this looks at all anchors and classes of every frame.
    rows, classes = np.divmod(np.flatnonzero(logits >= floor), logits.shape[1])
    values = logits[rows, classes]
    if len(values) > MAX_CANDIDATES:
        best = np.argpartition(-values, MAX_CANDIDATES)[:MAX_CANDIDATES]
        rows, classes, values = rows[best], classes[best], values[best]
    order = np.lexsort((classes, rows, -values))
    rows, classes, values = rows[order], classes[order], values[order]
    boxes = frame.undo(_boxes(box_logits[rows], anchors[rows], strides[rows]))
    scores = (1 / (1 + np.exp(-values.astype(np.float64)))).astype(np.float32)
    keep = suppress(boxes, scores, classes)[:MAX_DETECTIONS]
    return Detections(boxes[keep], scores[keep], classes[keep].astype(np.int64))


def _boxes(box_logits: Floats, anchors: Floats, strides: Floats) -> Floats:
    distances = expected_distances(box_logits) * strides[:, None]
    return np.concatenate([anchors - distances[:, :2], anchors + distances[:, 2:]], 1)


def expected_distances(box_logits: Floats) -> Floats:
    """N x 4 x r logits as n x 4 distances in strides: the mean of the distribution, or the number itself if r is 1."""
    bins = box_logits.shape[-1]
    if bins == 1:
        return box_logits[..., 0]
    shifted = np.exp(box_logits - box_logits.max(-1, keepdims=True))
    weighted = shifted @ np.arange(bins, dtype=np.float32)
    return np.asarray(weighted / shifted.sum(-1), np.float32)


def suppress(boxes: Floats, scores: Floats, classes: NDArray[np.int64], overlap: float = OVERLAP) -> NDArray[np.int64]:
    """Class-aware non-maximum suppression: indices of the boxes that stay, best first."""
    if len(boxes) == 0:
        return np.zeros(0, np.int64)
    corners_and_sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
    lists = corners_and_sides.tolist(), scores.tolist(), classes.tolist()
    kept = np.asarray(cv2.dnn.NMSBoxesBatched(*lists, 0.0, overlap), np.int64).reshape(-1)
    ordered: NDArray[np.int64] = kept[np.lexsort((kept, -scores[kept]))]
    return ordered
