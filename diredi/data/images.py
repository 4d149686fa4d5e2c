"""Images from disk and from bytes: BGR, 8 bit, as OpenCV has them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.errors import DataSetError, InvalidInput

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What is taken for an image in a folder, in small letters: the formats of Ultralytics that OpenCV decodes."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """height x width x 3, BGR. Raises DataSetError that names the file when it cannot be read or decoded."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataSetError(
            f"image cannot be read ({error.strerror}): check the path and its permissions", path
        ) from None
    image = _decode(data)
    if image is None:
        raise DataSetError("image cannot be decoded: replace the file or take it out of the data set", path)
    return image


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """height x width x 3, BGR. Raises InvalidInput when the bytes are not an image."""
    image = _decode(data)
    if image is None:
        raise InvalidInput(f"these {len(data)} bytes are not an image: send JPEG, PNG, BMP, TIFF or WebP")
    return image


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """JPEG bytes; `quality` is 1 to 100."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InvalidInput(f"an array of shape {image.shape} and type {image.dtype} is not an image")
    return data.tobytes()


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    if not data:
        return None
    try:
        # Labels belong to the pixels as stored, and Ultralytics turns by EXIF: so does OpenCV by default.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)
