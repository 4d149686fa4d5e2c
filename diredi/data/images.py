"""Read, decode and encode images, as arrays of uint8 in the order blue, green, red."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.errors import DatasetError, InvalidInput

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of images, in lower case: the formats of Ultralytics that OpenCV decodes."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image file.

    Args:
        path: The file.

    Returns:
        uint8 [height, width, 3], BGR, turned as its EXIF data says.

    Raises:
        DatasetError: The file cannot be read or decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"image cannot be read ({error.strerror}): check the path and its permissions", path
        ) from None
    image = _decode(data)
    if image is None:
        raise DatasetError("image cannot be decoded: replace the file or take it out of the data set", path)
    return image


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image.

    Args:
        data: The bytes of an image file.

    Returns:
        uint8 [height, width, 3], BGR, turned as its EXIF data says.

    Raises:
        InvalidInput: The bytes are not an image.
    """
    image = _decode(data)
    if image is None:
        raise InvalidInput(f"these {len(data)} bytes are not an image: send JPEG, PNG, BMP, TIFF or WebP")
    return image


def encode_jpeg(image: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode an image as JPEG.

    Args:
        image: uint8 [height, width, 3], BGR.
        quality: 1 to 100.

    Raises:
        InvalidInput: The array is not an image.
    """
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise InvalidInput(f"an array of shape {image.shape} and type {image.dtype} is not an image")
    return data.tobytes()


def _decode(data: bytes) -> NDArray[np.uint8] | None:
    if not data:
        return None
    try:
        # OpenCV turns images by their EXIF data, as Ultralytics does.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)
