"""Detectors by name: create, load and save. A new family is one file and one line in FAMILIES."""

from __future__ import annotations

import importlib
import re
import zipfile
import zlib
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
    r"libreyolo9.*": "diredi.detectors.libreyolo_family",
}
"""Pattern of architecture names to the module that has `create(spec, seed, device)`; imported when it is asked for."""

CHECKPOINTS: Final[dict[bytes, str]] = {
    b"libreyolo_version": "diredi.detectors.libreyolo_family",
    b"": "diredi.detectors.ultralytics_family",
}
"""A word in the pickle of a foreign file (.pt) to the module that has `from_checkpoint`; the first one found counts.
The last one also downloads."""

EXTRAS: Final = ("ultralytics", "libreyolo")
"""Packages that families need and that may be missing: each is a group of pyproject.toml."""

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
            return _family(module, architecture)
    raise InvalidInput(
        f"architecture {architecture!r} is not known: name one such as yolo11n, yolo26s, yolov8m, yolo11-w0.125 or "
        "libreyolo9t"
    )


def _family(module: str, wanted: str) -> Family:
    try:
        return cast(Family, importlib.import_module(module))
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise InvalidInput(
            f"{wanted} needs the package {missing}, which is not installed: "
            f"run `python3 deploy/setup.py --groups {missing}` or `pip install --no-deps {missing}`"
        ) from None


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
    """A detector from a file of ours (.safetensors), from a checkpoint of Ultralytics or LibreYOLO (.pt), or from the
    bare name of an official one of Ultralytics ("yolo11n.pt"), which is downloaded where there is a network.

    `image_size` None: the one in the file, 640 for a checkpoint. With `labels` the head grows to that label space.
    Raises NotFound, Unreachable, CorruptData (not such a file), InvalidInput (`labels` does not extend the file's).
    """
    detector = _read(Path(path), image_size, _device(device))
    if labels is not None and labels.names != detector.spec.labels.names:
        detector = detector.expand_classes(labels)
    return detector


def _read(path: Path, image_size: int | None, device: torch.device) -> Detector:
    if path.suffix == ".pt":
        family = _family(_reader_of(path), str(path))
        if not path.exists():
            path = family.download(path)
        return family.from_checkpoint(path, image_size or DEFAULT_IMAGE_SIZE, device)
    if not path.exists():
        raise NotFound(f"there is no model file {path}: check the path")
    spec = DetectorSpec.of_file(path)
    if image_size is not None:
        spec = spec.model_copy(update={"image_size": image_size})
    return from_weights(spec, WeightMap.load(path), device)


def _reader_of(checkpoint: Path) -> str:
    """The module of CHECKPOINTS that reads this file; nothing in it is interpreted. Of a damaged one the last, which
    says so."""
    pickled = b""
    if zipfile.is_zipfile(checkpoint):
        try:
            with zipfile.ZipFile(checkpoint) as archive:
                pickled = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError):
            pickled = b""
    return next(module for word, module in CHECKPOINTS.items() if word in pickled)


def save(detector: Detector, path: Path) -> str:
    """Writes the raw fp32 weights with the spec in the header; returns the digest "sha256:..."."""
    return detector.weights().save(path, detector.spec.to_metadata())
