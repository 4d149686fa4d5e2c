"""Pictures with what was detected in them."""

from __future__ import annotations

import cv2
import numpy as np

from diredi.data.images import encode_jpeg
from diredi.detectors.predictor import Image
from edge_node.inference import Result

QUALITY = 80
_COLOURS = ((60, 180, 75), (0, 130, 255), (216, 99, 67), (200, 50, 240), (25, 225, 255), (75, 25, 230), (240, 240, 70))


def picture_of(result: Result) -> bytes:
    """Return a frame with its boxes as JPEG.

    Args:
        result: The frame and what was detected in it.
    """
    return encode_jpeg(draw(result), QUALITY)


def draw(result: Result) -> Image:
    """Return a copy of a frame with its boxes, class names and confidences drawn into it.

    Args:
        result: The frame and what was detected in it.

    Returns:
        uint8, [height, width, 3], BGR.
    """
    image, found = result.image.copy(), result.detections
    names = result.model.release.labels.names
    width = max(1, round(min(image.shape[:2]) / 240))
    for box, score, class_id in zip(found.boxes, found.scores, found.classes, strict=True):
        colour = _COLOURS[int(class_id) % len(_COLOURS)]
        left, top, right, bottom = (int(value) for value in np.rint(box))
        cv2.rectangle(image, (left, top), (right, bottom), colour, width)
        text = f"{names[int(class_id)]} {score:.2f}"
        place = (left, top - 2 * width if top > 12 * width else bottom - 2 * width)
        cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * width, colour, width, cv2.LINE_AA)
    return image
