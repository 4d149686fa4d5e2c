"""Stores the frames that edge nodes hand over, by content and up to a number. They are never sent on."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from diredi.data.images import decode_image
from diredi.errors import InvalidInput, NoRoom
from diredi.store.files import atomic_write, make_folder

MAX_IMAGE_BYTES = 8 * 2**20
_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}


@dataclass(frozen=True)
class Sighting:
    """Say what the node detected in a frame that it handed over."""

    device: str
    class_ids: tuple[int, ...]
    lowest_confidence: float


class SampleStore:
    """Store images as `FOLDER/<digest>.jpg` or `.png`, each beside a JSON file that is written first."""

    def __init__(self, folder: Path, max_samples: int) -> None:
        """Use a folder, for so many images at most."""
        self._folder = folder
        self._max_samples = max_samples
        self._lock = threading.Lock()
        make_folder(folder)
        images = (path for path in folder.iterdir() if path.suffix in _SUFFIXES.values())
        self._names = {path.stem for path in images if path.stat().st_size}  # an empty one may be stored again

    def __len__(self) -> int:
        return len(self._names)

    def add(self, image: bytes, sighting: Sighting) -> bool:
        """Store an encoded image.

        Returns:
            False if it is there already.

        Raises:
            InvalidInput: It is no JPEG or PNG image, or too large.
            NoRoom: The store or the disk is full.
        """
        if len(image) > MAX_IMAGE_BYTES:
            raise InvalidInput(f"the image has {len(image)} bytes, more than {MAX_IMAGE_BYTES}: send it smaller")
        suffix = next((suffix for magic, suffix in _SUFFIXES.items() if image.startswith(magic)), None)
        if suffix is None:
            raise InvalidInput(f"these {len(image)} bytes are neither JPEG nor PNG: encode the frame as one of them")
        decode_image(image)
        name = hashlib.sha256(image).hexdigest()
        with self._lock:
            if name in self._names:
                return False
            if len(self._names) >= self._max_samples:
                raise NoRoom(f"this site keeps at most {self._max_samples} samples: label some or raise max_samples")
            self._write(name, suffix, image, sighting)
            self._names.add(name)
        return True

    def _write(self, name: str, suffix: str, image: bytes, sighting: Sighting) -> None:
        atomic_write(self._folder / f"{name}.json", json.dumps(asdict(sighting)))
        atomic_write(self._folder / f"{name}{suffix}", image)
