"""Detectors by name: create and load. A new family is one file and one entry in `families.FAMILIES`."""

from __future__ import annotations

import importlib
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol, cast

import torch

from diredi.detectors import foreign_file
from diredi.detectors.base import Detector
from diredi.detectors.families import family_of
from diredi.detectors.spec import DetectorSpec, check_image_size
from diredi.errors import CorruptData, InvalidInput, NotFound
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

CHECKPOINTS: Final[dict[bytes, str]] = {
    b"libreyolo_version": "diredi.detectors.libreyolo_family",
    b"": "diredi.detectors.ultralytics_family",
}
"""A word in the pickle of a foreign file (.pt) to the module that has `from_checkpoint`; the first one found counts.
The last one also downloads."""

CHECKPOINT_SUFFIXES: Final = (".pt", ".pth")
"""Names of foreign files end so."""

EXTRAS: Final = ("ultralytics", "libreyolo")
"""Packages that families need and that may be missing: each is a group of pyproject.toml."""


class FamilyModule(Protocol):
    """What a family's module has; `from_checkpoint` and `download` only where it reads foreign files."""

    def create(self, spec: DetectorSpec, seed: int, device: torch.device) -> Detector:
        """Make a detector with the first weights of a seed."""

    def from_checkpoint(self, path: Path, image_size: int | None, device: torch.device) -> Detector:
        """Read a detector from a checkpoint of this family; without a size, at the one that it was trained at."""

    def download(self, name: Path) -> Path:
        """Raises NotFound when nothing is published under that name, Unreachable without a network."""
        ...


def _family(module: str, wanted: str) -> FamilyModule:
    try:
        return cast(FamilyModule, importlib.import_module(module))
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
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise InvalidInput(f"there is no device {device!r}: use cpu, cuda or cuda:1") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(f"this machine, or its build of torch, has no CUDA: use device='cpu' in place of {device!r}")
    return chosen


def create(
    architecture: str,
    image_size: int,
    labels: LabelSpace | Sequence[str],
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Detector:
    """Make an untrained detector.

    Args:
        architecture: A name such as "yolo11n", "yolo26s", "yolov8m" or "libreyolo9t"; or, for small boards, a width
            below n, "yolo11-w0.125" (its depth is 0.50) or "yolo11-w0.125-d0.33". "-gn" at its end puts group norm in
            the place of batch norm.
        image_size: Side in pixels of the square input, a multiple of 32.
        labels: Class names in the order of their ids.
        seed: Seed of the weights; equal arguments give equal weights.
        device: Where it computes, such as "cpu" or "cuda:1"; None takes CUDA where there is one.

    Returns:
        A detector in eval mode that has learned nothing yet.

    Raises:
        InvalidInput: The name, the size, the device or the classes cannot be used.

    Examples:
        >>> import diredi
        >>> diredi.create("yolo11-w0.125", 64, ["car", "person"], device="cpu")
        <UltralyticsDetector yolo11-w0.125, 64 px, 2 classes (car, person), cpu>
    """
    labels = labels if isinstance(labels, LabelSpace) else LabelSpace.of(labels)
    if len(labels) == 0:
        raise InvalidInput("a detector needs at least one class: the label space is empty")
    check_image_size(image_size)
    spec = DetectorSpec(architecture=architecture, image_size=image_size, labels=labels)
    return _create(spec, seed, device)


def _create(spec: DetectorSpec, seed: int, device: str | torch.device | None) -> Detector:
    family = _family(family_of(spec.architecture).module, spec.architecture)
    return family.create(spec, seed, _device(device))


def from_weights(spec: DetectorSpec, weights: WeightMap, device: str | torch.device | None = None) -> Detector:
    """The detector that `spec` describes, with these weights. Raises InvalidInput when they do not fit."""
    detector = _create(spec, 0, device)
    detector.load_weights(weights)
    return detector


def load(
    path: Path | str,
    *,
    image_size: int | None = None,
    labels: LabelSpace | None = None,
    device: str | torch.device | None = None,
) -> Detector:
    """Open a detector.

    Args:
        path: A file of ours (.safetensors), a checkpoint of Ultralytics or LibreYOLO (.pt), or the bare name of an
            official checkpoint of Ultralytics ("yolo11n.pt"), which is downloaded where it is not there. Nothing in a
            checkpoint is executed.
        image_size: Side in pixels of the square input, a multiple of 32; None takes the model's own, which the file
            says; 640 for a checkpoint that does not. All models of one cycle need the same.
        labels: A label space that extends the file's, to which the head grows; None keeps the file's.
        device: Where it computes, such as "cpu" or "cuda:1"; None takes CUDA where there is one.

    Returns:
        The detector, in eval mode, with raw fp32 weights.

    Raises:
        NotFound: There is no such file, and no official checkpoint of that name.
        Unreachable: It could not be downloaded.
        CorruptData: The file is damaged, or something else.
        InvalidInput: The size, the device or the labels cannot be used.

    Examples:
        >>> import diredi
        >>> student = diredi.load("student.safetensors")               # doctest: +SKIP
        >>> tutor = diredi.load("yolo11s.pt", image_size=320)          # doctest: +SKIP
    """
    if image_size is not None:
        check_image_size(image_size)
    detector = _read(Path(path), image_size, _device(device))
    if labels is not None and labels.names != detector.spec.labels.names:
        detector = detector.expand_classes(labels)
    return detector


def _read(path: Path, image_size: int | None, device: torch.device) -> Detector:
    if path.suffix in CHECKPOINT_SUFFIXES:
        family = _family(_reader_of(path), str(path))
        if not path.exists():
            path = family.download(path)
        return family.from_checkpoint(path, image_size, device)
    if not path.exists():
        raise NotFound(f"there is no model file {path}: check the path")
    if path.suffix == ".onnx":
        raise InvalidInput(f"{path} is an exported detector, which can only predict: open it with OnnxPredictor")
    if said := foreign_file.explain(path):
        raise CorruptData(f"{path} {said}")
    spec = DetectorSpec.of_file(path)
    if image_size is not None:
        spec = spec.model_copy(update={"image_size": image_size})
    detector = from_weights(spec, WeightMap.load(path), device)
    detector.loaded_from(path)
    return detector


def _reader_of(checkpoint: Path) -> str:
    """Return the module of CHECKPOINTS that reads a file; nothing in the file is interpreted.

    Of a damaged file it is the last module, which says what is wrong.
    """
    pickled = b""
    if zipfile.is_zipfile(checkpoint):
        try:
            with zipfile.ZipFile(checkpoint) as archive:
                pickled = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl"))
        except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError):
            pickled = b""
    return next(module for word, module in CHECKPOINTS.items() if word in pickled)
