"""Detectors by name: create, load and save. A new family is one file and one line in FAMILIES."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Final, Protocol, cast

import torch

from diredi.detectors.base import Detector
from diredi.detectors.spec import DetectorSpec
from diredi.errors import InvalidInput, NotFound
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

FAMILIES: Final[dict[str, str]] = {
    r"yolo(11|26|v8)([nsmlx]|-w).*": "diredi.detectors.ultralytics_family",
}
"""Pattern of architecture names to the module that has `create(spec, seed, device)`; imported when it is asked for."""

CHECKPOINTS: Final[dict[str, str]] = {
    ".pt": "diredi.detectors.ultralytics_family",
}
"""Suffix of foreign files to the module that has `from_checkpoint(path, image_size, device)`."""

DEFAULT_IMAGE_SIZE = 640  # what official checkpoints were trained at


class Family(Protocol):
    """What a family's module has; `from_checkpoint` and `download` only where it reads foreign files."""

    def create(self, spec: DetectorSpec, seed: int, device: torch.device) -> Detector: ...

    def from_checkpoint(self, path: Path, image_size: int, device: torch.device) -> Detector: ...

    def download(self, name: Path) -> Path:
        """Raises NotFound when nothing is published under that name, Unreachable without a network."""
        ...


def _family_of(architecture: str) -> Family:
    for pattern, module in FAMILIES.items():
        if re.fullmatch(pattern, architecture):
            return cast(Family, importlib.import_module(module))
    raise InvalidInput(
        f"architecture {architecture!r} is not known: name one such as yolo11n, yolo26s, yolov8m or yolo11-w0.125"
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def create(
    architecture: str, image_size: int, labels: LabelSpace, seed: int, device: str | torch.device | None = None
) -> Detector:
    """An untrained detector; equal arguments give equal weights. `device` None: CUDA where there is one."""
    if len(labels) == 0:
        raise InvalidInput("a detector needs at least one class: the label space is empty")
    family = _family_of(architecture)
    spec = DetectorSpec(architecture=architecture, image_size=image_size, labels=labels)
    return family.create(spec, seed, _device(device))


def from_weights(spec: DetectorSpec, weights: WeightMap, device: str | torch.device | None = None) -> Detector:
    """The detector that `spec` describes, with these weights. Raises InvalidInput when they do not fit."""
    detector = create(spec.architecture, spec.image_size, spec.labels, seed=0, device=device)
    detector.load_weights(weights)
    return detector


def load(
    path: Path | str,
    *,
    image_size: int | None = None,
    labels: LabelSpace | None = None,
    device: str | torch.device | None = None,
) -> Detector:
    """A detector from a file of ours (.safetensors), from an Ultralytics checkpoint (.pt), or from the bare name of an
    official one ("yolo11n.pt"), which Ultralytics downloads where there is a network.

    `image_size` None: the one in the file, 640 for a checkpoint. With `labels` the head grows to that label space.
    Raises NotFound, Unreachable, CorruptData (not such a file), InvalidInput (`labels` does not extend the file's).
    """
    detector = _read(Path(path), image_size, _device(device))
    if labels is not None and labels.names != detector.spec.labels.names:
        detector = detector.grown(labels)
    return detector


def _read(path: Path, image_size: int | None, device: torch.device) -> Detector:
    if path.suffix in CHECKPOINTS:
        family = cast(Family, importlib.import_module(CHECKPOINTS[path.suffix]))
        if not path.exists():
            path = family.download(path)
        return family.from_checkpoint(path, image_size or DEFAULT_IMAGE_SIZE, device)
    if not path.exists():
        raise NotFound(f"there is no model file {path}: check the path")
    spec = DetectorSpec.of_file(path)
    if image_size is not None:
        spec = spec.model_copy(update={"image_size": image_size})
    return from_weights(spec, WeightMap.load(path), device)


def save(detector: Detector, path: Path) -> str:
    """Writes the raw fp32 weights with the spec in the header; returns the digest "sha256:..."."""
    return detector.weights().save(path, detector.spec.to_metadata())
