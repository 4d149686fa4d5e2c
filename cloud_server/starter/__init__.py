"""The starter release: a tutor and a student for the built-in scenes, trained once and shipped with the cloud.

`make starter` trains them (`cloud_server.starter.train`) and writes what lies in this folder:

    tutor.safetensors, student.safetensors   weights in half precision, which halves what a clone weighs
    starter.json                             digests, metrics, recipe and command; see `StarterRelease`

Half precision is for the files alone. `unpack` makes them the fp32 files that every other model is, once, before the
cloud registers them; from then on the registry's fp32 weights are the model that all differences are taken from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from diredi.config import Config
from diredi.detectors.spec import DetectorSpec
from diredi.errors import CorruptData
from diredi.evaluation.metrics import DetectionMetrics
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap

FOLDER = Path(__file__).parent
Kind = Literal["tutor", "student"]
KINDS: tuple[Kind, ...] = ("tutor", "student")


class StarterModel(Config):
    """One file of the release."""

    file: str
    digest: str
    """Of the file in half precision, "sha256:..."."""
    bytes: int
    architecture: str
    metrics: dict[str, DetectionMetrics]
    """On the held-out images of each data set by its name, measured with the weights that are in the file."""


class StarterRelease(Config):
    """What `starter.json` says: the files, how they were made, and how good they are."""

    command: str
    """Makes the release anew."""
    presumed: str
    """The built-in scenes that both have learned."""
    train_images: int
    seed: int
    threads: int
    """Threads of the training: their number changes the last bits of its arithmetic."""
    torch: str
    image_size: int
    classes: tuple[str, ...]
    recipe: dict[str, Any]
    """Of the bootstrap that trained both."""
    tutor: StarterModel
    student: StarterModel

    def model(self, kind: Kind) -> StarterModel:
        """Return one of the two models by its kind."""
        return self.tutor if kind == "tutor" else self.student


@dataclass(frozen=True)
class StarterFiles:
    """The release as fp32 files, ready to be given to a cloud as `tutor` and `student`."""

    tutor: Path
    student: Path


def read_release(folder: Path = FOLDER) -> StarterRelease:
    """Read `starter.json`.

    Args:
        folder: Where the release lies; by default the one that is shipped.

    Returns:
        What the file says.

    Raises:
        CorruptData: The file is missing or is not one of `make starter`'s.
    """
    path = folder / "starter.json"
    try:
        return StarterRelease.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError, ValidationError):
        raise CorruptData(f"{path} is missing or damaged: install DiReDi again") from None


def unpack(target: Path, folder: Path = FOLDER) -> StarterFiles:
    """Write the release's weights as fp32 files, after checking the digest of each file that is shipped.

    Args:
        target: The folder that gets `tutor.safetensors` and `student.safetensors`; made if it is missing.
        folder: Where the release lies; by default the one that is shipped.

    Returns:
        The paths of both fp32 files.

    Raises:
        CorruptData: A file is missing, or differs from the one that `starter.json` names.
    """
    release = read_release(folder)
    paths = {kind: folder / release.model(kind).file for kind in KINDS}
    for kind, path in paths.items():
        if not path.is_file() or digest_of_file(path).digest != release.model(kind).digest:
            raise CorruptData(f"{path} is not the file that starter.json names: install DiReDi again")
    for kind, path in paths.items():
        weights = WeightMap.load(path).mapped(lambda _, array: array.astype(np.float32))
        weights.save(target / f"{kind}.safetensors", DetectorSpec.of_file(path).to_metadata())
    return StarterFiles(target / "tutor.safetensors", target / "student.safetensors")
