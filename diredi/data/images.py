"""Find, read, decode and encode images, as arrays of uint8 in the order blue, green, red."""

from __future__ import annotations

import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from diredi.errors import DatasetError, InvalidInput

IMAGE_SUFFIXES = frozenset({".avif", ".bmp", ".dng", ".jp2", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes of images, in lower case: those of Ultralytics but HEIC, which nothing here decodes."""

_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})
"""Folders of copies and thumbnails that systems make and hide from their users."""

_ORIENTATION = 0x0112
"""The field of EXIF that says how an image is turned; from 5 on by a quarter."""
_LYING = 5

_SIDE_SUFFIXES = frozenset(
    {".cache", ".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".ndjson", ".npy", ".toml", ".tsv"}
    | {".txt", ".xml", ".yaml", ".yml"}
)
"""Suffixes of files that lie beside images and that nobody takes for images."""


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder, and what else might be meant as one."""

    images: list[Path] = field(default_factory=list)
    """Sorted by path."""
    others: Counter[str] = field(default_factory=Counter)
    """How many files were left out by suffix, such as ".heic"; "" for files without one; and links to nothing."""


def find_images(folder: Path) -> FoundImages:
    """Find the images of a folder at any depth.

    Links to folders are followed, but not in a circle. Hidden files and folders, such as `.ipynb_checkpoints` and the
    `._` files of macOS, are not looked at.

    Args:
        folder: The folder.

    Raises:
        DatasetError: A folder cannot be read.
    """
    found = FoundImages()
    for path in _files(folder, frozenset()):
        suffix = path.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            found.images.append(path)
        elif not path.exists():
            found.others["a link that leads nowhere"] += 1
        elif suffix not in _SIDE_SUFFIXES:
            found.others[suffix] += 1
    found.images.sort()
    return found


def _files(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    """Walk over files that are not hidden; `above` has the device and inode of every folder on the way."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DatasetError(f"folder cannot be read ({error.strerror}): check its permissions", folder) from None
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _JUNK_FOLDERS:
            continue
        path = folder / entry.name
        if entry.is_dir():
            yield from _files(path, above | {here})
        elif entry.is_file() or not path.exists():  # a link to nothing is told, not left out
            yield path


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


def bits_per_value(path: Path) -> int:
    """Return the bits of each value of a pixel as they are in an image file; 8 where it cannot be decoded."""
    try:
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (OSError, cv2.error):
        return 8
    return 8 if image is None else image.dtype.itemsize * 8


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


def image_size(data: bytes) -> tuple[int, int]:
    """Return width and height of an image, turned as its EXIF data says, from its head alone.

    Args:
        data: The bytes of an image file, or at least its head.

    Raises:
        InvalidInput: The bytes are not an image.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
            image = Image.open(io.BytesIO(data))
            turned = image.getexif().get(_ORIENTATION, 1) >= _LYING
    except (OSError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidInput(f"these {len(data)} bytes are not an image ({error})") from None
    return (image.height, image.width) if turned else (image.width, image.height)


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
    """Decode as Ultralytics does, to the same pixels; None for what is no image."""
    if not data:
        return None
    encoded = np.frombuffer(data, np.uint8)
    try:
        image = _decode_tiff(encoded) if data[:4] in (b"II*\0", b"MM\0*") else None
        if image is None and data[4:12] in (b"ftypavif", b"ftypavis"):
            image = _decode_avif(data)
        if image is None:
            # OpenCV turns images by their EXIF data, and keeps the upper eight bits of sixteen.
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _decode_tiff(encoded: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Decode the first page of a TIFF in colour without its alpha; None leaves any other to `imdecode`."""
    there, pages = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(0, 1))
    page: NDArray[Any] | None = pages[0] if there and pages else None
    if page is None or page.ndim != 3 or page.shape[2] < 3 or page.dtype not in (np.uint8, np.uint16):
        return None
    page = page[..., :3]
    return np.ascontiguousarray(page if page.dtype == np.uint8 else page >> 8, np.uint8)


def _decode_avif(data: bytes) -> NDArray[np.uint8] | None:
    """Decode with Pillow, which knows how an AVIF image is turned; None where it is not installed."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[..., ::-1])
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
