"""Finds private content in bytes: whole files or parts, decoded pixels, crops, labels, names; in several spellings.

A part counts from 16 bytes on. Windows of few different values (runs of zeros, plain areas) are left out: they are in
everything, and tell nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

WINDOW = 16
FEWEST_VALUES = 7
SIEVE_BITS = 24
MAGIC = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "WebP": b"WEBPVP8"}


class LeakDetector:
    """Knows what is private; says what of it is in given bytes."""

    def __init__(self, images: Iterable[Path], labels: Iterable[Path], names: Iterable[str]) -> None:
        self._windows: dict[bytes, str] = {}
        self._begins: np.ndarray | None = None
        self._names = sorted({name.lower().encode() for name in names})
        for path in images:
            self._add(path.read_bytes(), f"bytes of the file {path.name}", spelled=True)
            self._add_pixels(path)
        for path in labels:
            self._add(path.read_bytes(), f"lines of {path.name}", spelled=True)
            rows = [[float(value) for value in line.split()] for line in path.read_text().splitlines()]
            for kind in (np.float32, np.float64):
                self._add(np.array(rows, kind)[:, 1:].tobytes(), f"boxes of {path.name}", step=4)

    def _add_pixels(self, path: Path) -> None:
        """Rows of the image, and so of every crop: as they are, as RGB, as planes, grey, and as fractions."""
        image = cv2.imread(str(path))
        what = f"pixels of {path.name}"
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        for pixels in (image, image[..., ::-1], planes, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)):
            self._add(np.ascontiguousarray(pixels).tobytes(), what, step=8)
        for pixels in (image[..., ::-1], planes):
            self._add((pixels / np.float32(255)).astype(np.float32).tobytes(), what, step=8)

    def _add(self, secret: bytes, what: str, step: int = 1, spelled: bool = False) -> None:
        for window in _windows(secret, step):
            self._windows[window] = what
        if spelled:
            self._add(secret.hex().encode(), what + " in hex", step=8)
            for shift in range(3):
                self._add(base64.b64encode(secret[shift:]), what + " in base64", step=4)

    def found_in(self, data: bytes) -> set[str]:
        """What of the private content is in `data`; empty is good."""
        windows = (data[at : at + WINDOW] for at in self._places(data))
        found = {self._windows[window] for window in windows if window in self._windows}
        lower = data.lower()
        found |= {f"the name {name.decode()}" for name in self._names if name in lower}
        return found | set(_images_in(data))

    def _places(self, data: bytes) -> list[int]:
        """Offsets where a window may begin: a sieve over the hash of its first eight bytes, that misses none."""
        if self._begins is None:
            self._begins = np.zeros(2**SIEVE_BITS, bool)
            self._begins[_hashes(np.frombuffer(b"".join(w[:8] for w in self._windows), "<u8"))] = True
        bytes_ = np.frombuffer(data, np.uint8)
        if len(bytes_) < WINDOW:
            return []
        firsts = np.lib.stride_tricks.sliding_window_view(bytes_, 8)[: len(bytes_) - WINDOW + 1]
        places: list[int] = []
        for start in range(0, len(firsts), 2**20):
            part = np.ascontiguousarray(firsts[start : start + 2**20]).view("<u8")[:, 0]
            places += (np.flatnonzero(self._begins[_hashes(part)]) + start).tolist()
        return places


def _hashes(values: np.ndarray) -> np.ndarray:
    return (values * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - SIEVE_BITS)


def _windows(secret: bytes, step: int) -> Iterator[bytes]:
    for start in range(0, len(secret) - WINDOW + 1, step):
        window = secret[start : start + WINDOW]
        if len(set(window)) >= FEWEST_VALUES:
            yield window


def _images_in(data: bytes) -> Iterator[str]:
    """Any image at all, re-encoded ones too: what begins like one and can be decoded."""
    for kind, magic in MAGIC.items():
        at = data.find(magic)
        while at >= 0:
            start = at - 8 if kind == "WebP" else at
            if start >= 0 and cv2.imdecode(np.frombuffer(data[start : start + 2**20], np.uint8), 1) is not None:
                yield f"an image in {kind} format"
                break
            at = data.find(magic, at + 1)
