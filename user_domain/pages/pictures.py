"""Pictures as pages show them."""

from __future__ import annotations

import cv2

from diredi.data.images import decode_image
from diredi.errors import InvalidInput


def shrink(image: bytes, width: int) -> bytes:
    """Return an encoded image as JPEG, with at most so many pixels in a row.

    Args:
        image: The bytes of an image file.
        width: In pixels; a smaller image keeps its size.

    Raises:
        InvalidInput: The bytes are not an image.
    """
    pixels = decode_image(image)
    if pixels.shape[1] > width:
        height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not done:
        raise InvalidInput("that image cannot be encoded")
    return encoded.tobytes()
