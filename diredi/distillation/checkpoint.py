"""What a training leaves on disk after each epoch, so that one that was killed goes on where it was.

    FOLDER/progress.json              what the arrays belong to, their digest, and everything that is not an array
    FOLDER/DIGEST.safetensors         weights, optimizer state, parameters of the losses

The arrays are written first and under a name of their own, `progress.json` takes the place of its predecessor last: a
process that is killed anywhere between leaves the older epoch whole. Nothing is pickled, and nothing is believed:
what is damaged, or belongs to another training, is as good as absent.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from diredi.data.dataset import Sample
from diredi.detectors.base import Detector, Teacher
from diredi.distillation.batches import Pool
from diredi.distillation.recipe import TrainRecipe
from diredi.errors import DirediError
from diredi.store.blobs import digest_of_file
from diredi.store.files import atomic_write, make_folder, publish
from diredi.store.weights import WeightMap

Json = dict[str, Any]
FORMAT = 1
"""Part of every fingerprint; raised when what a checkpoint holds changes its meaning."""


class Checkpoint:
    """One training's place on disk. `made_from`: a fingerprint of everything that the training follows from."""

    def __init__(self, folder: Path, made_from: str) -> None:
        self._folder, self._made_from = folder, made_from

    def read(self) -> tuple[Json, WeightMap] | None:
        """What `write` was given last by a training that was made from the same; None where there is no such thing."""
        try:
            said = json.loads((self._folder / "progress.json").read_bytes())
            if said["made_from"] != self._made_from:
                return None
            path = self._arrays_of(said["arrays"])
            if digest_of_file(path).digest != said["arrays"]:
                return None
            return dict(said["progress"]), WeightMap.load(path)
        except (OSError, ValueError, KeyError, TypeError, RecursionError, DirediError):
            return None

    def write(self, progress: Json, arrays: WeightMap) -> None:
        """Whole or not at all; what was there before is gone afterwards. Raises OSError where there is no room."""
        make_folder(self._folder)
        digest = arrays.save(self._folder / "new.safetensors")
        path = self._arrays_of(digest)
        publish(self._folder / "new.safetensors", path)
        said = {"made_from": self._made_from, "arrays": digest, "progress": progress}
        atomic_write(self._folder / "progress.json", json.dumps(said))
        for other in self._folder.glob("*.safetensors*"):
            if other != path:
                other.unlink(missing_ok=True)

    def _arrays_of(self, digest: str) -> Path:
        return self._folder / f"{digest.removeprefix('sha256:')[:16]}.safetensors"


def fingerprint(
    student: Detector, teacher: Teacher | None, recipe: TrainRecipe, pools: Sequence[Pool], learning: WeightMap
) -> str:
    """Of everything that a training follows from; `learning` is what it starts from. Images count by their paths."""
    sha = hashlib.sha256(f"{FORMAT} {recipe.model_dump_json()} {student.spec.model_dump_json()}".encode())
    _add_weights(sha, learning)
    if teacher is not None:
        sha.update(teacher.spec.model_dump_json().encode())
        _add_weights(sha, teacher.weights())
    for pool in pools:
        sha.update(f"pool {sorted(pool.classes) if pool.classes is not None else 'all'}".encode())
        _add_samples(sha, pool.samples)
    return sha.hexdigest()


def _add_weights(sha: hashlib._Hash, weights: WeightMap) -> None:
    for name in weights:
        sha.update(name.encode() + b"\0" + weights[name].tobytes())


def _add_samples(sha: hashlib._Hash, samples: Iterable[Sample]) -> None:
    for sample in samples:
        sha.update(str(sample.image).encode() + b"\0" + sample.boxes.tobytes())
