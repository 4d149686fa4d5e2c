"""Reads Ultralytics checkpoints without running anything that they say.

A checkpoint is a pickle of the live network. Torch's restricted unpickler reads it; every class of Ultralytics and
torch that it names is replaced by an inert record, so that no constructor and no other code of those libraries
runs. Any global outside the list below is refused before a byte of the pickle is interpreted.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from diredi.detectors import ultralytics_network as networks
from diredi.errors import CorruptData, InvalidInput, NotFound, Unreachable
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

_INERT = re.compile(
    r"(ultralytics(\.\w+)+|torch\.nn(\.\w+)+|torch\.optim(\.\w+)+|pathlib\.\w+|datetime\.\w+"
    r"|numpy\.(dtype|ndarray|bool|(_core|core)\.multiarray\.(scalar|_reconstruct))|types\.SimpleNamespace"
    r"|collections\.(defaultdict|deque)|__builtin__\.(set|slice)|builtins\.(set|slice))"
)
_DOWNLOADABLE = re.compile(r"yolo(11|26|v8)[nsmlx]\.pt")


class _Record:
    """Stands for an object of a checkpoint. Keeps its state, does nothing."""

    def __init__(self, *arguments: object, **_: object) -> None:
        self.__dict__["arguments"] = arguments

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __setitem__(self, key: object, value: object) -> None:
        """A dictionary-like object fills itself so; nothing of it is needed."""

    def __reduce__(self) -> str:
        raise TypeError("a record is never written")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of Ultralytics holds."""

    architecture: str
    labels: LabelSpace
    weights: WeightMap


def read_checkpoint(path: Path) -> Checkpoint:
    """What an Ultralytics checkpoint holds: its raw weights as float32 (official files store half precision).

    Raises CorruptData when `path` is not such a checkpoint or names anything that does not belong in one, InvalidInput
    when it is one of another kind than a detector of this family.
    """
    content = _unpickled(path)
    network = content.get("model") or content.get("ema")
    if not isinstance(network, _Record):
        raise CorruptData(f"{path} holds no network: it is not an Ultralytics checkpoint, name another file")
    arrays = dict(_state(network, ""))
    if not arrays:
        raise CorruptData(f"{path} holds a network without weights: name another file")
    labels = _labels(getattr(network, "names", None), path)
    return Checkpoint(_architecture(arrays, len(labels), path), labels, WeightMap(arrays))


def _unpickled(path: Path) -> dict[str, Any]:
    if not zipfile.is_zipfile(path):
        raise CorruptData(f"{path} is not a PyTorch checkpoint: it is damaged or something else, download it again")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        foreign = sorted(name for name in named if not _INERT.fullmatch(name))
        if foreign:
            raise CorruptData(f"{path} names {foreign[0]}, which no unfused checkpoint needs: it is not safe to read")
        with torch.serialization.safe_globals([(_Record, name) for name in named]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptData(f"{path} cannot be read as a checkpoint ({said}): download it again") from None
    if not isinstance(content, dict):
        raise CorruptData(f"{path} is not an Ultralytics checkpoint: it holds no dictionary, name another file")
    return content


def _state(record: _Record, prefix: str) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """What `state_dict()` of the network would say."""
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(record, kind).items():
            if isinstance(value, torch.Tensor) and name not in _entries(record, "_non_persistent_buffers_set"):
                exact = value.detach().float() if value.is_floating_point() else value
                yield prefix + name, exact.numpy().copy()
    for name, child in _entries(record, "_modules").items():
        if isinstance(child, _Record):
            yield from _state(child, f"{prefix}{name}.")


def _entries(record: _Record, kind: str) -> Mapping[str, object]:
    found = record.__dict__.get(kind)
    return found if isinstance(found, Mapping) else {}


def _labels(names: object, path: Path) -> LabelSpace:
    if isinstance(names, dict):
        names = [names[key] for key in sorted(names)]
    try:
        return LabelSpace(names=tuple(names))  # type: ignore[arg-type]
    except (ValidationError, TypeError):
        raise InvalidInput(f"{path} has no usable class names ({names!r}): name another checkpoint") from None


def _architecture(arrays: Mapping[str, np.ndarray[Any, Any]], classes: int, path: Path) -> str:
    """The name under which this project builds the same shapes.

    Old checkpoints do not say what they are and a YAML may have been edited, so the shapes decide.
    """
    found = {name: array.shape for name, array in arrays.items()}
    for plain in networks.alike(found.get("model.0.conv.weight", (0,))[0]):
        last = 22 if plain.startswith("yolov8") else 23
        head = found.get(f"model.{last}.cv3.0.2.weight", (0, 0))
        for name in (plain, f"{plain}-h{head[1]}"):
            if head[1] and networks.ARCHITECTURE.fullmatch(name) and _shapes(name, classes) == found:
                return name
    raise InvalidInput(
        f"{path} is no plain detector of the families YOLO11, YOLO26 and YOLOv8, or it is fused: "
        "name an unfused detection checkpoint"
    )


def _shapes(name: str, classes: int) -> dict[str, tuple[int, ...]]:
    try:
        network = networks.build(name, classes, 640, seed=0)
    except InvalidInput:
        return {}
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def download(name: Path) -> Path:
    """Fetches an official checkpoint with Ultralytics' own download, into the folder of `name`."""
    if name.stem.endswith("-gn"):
        plain = name.with_name(name.name.replace("-gn", ""))
        raise NotFound(
            f"there is no checkpoint {name}, and none is published with group norm: train {name.stem} from nothing, "
            f"with {plain} as its teacher"
        )
    if not _DOWNLOADABLE.fullmatch(name.name):
        raise NotFound(f"there is no checkpoint {name}: check the path, or name an official one such as yolo11n.pt")
    from ultralytics.utils.downloads import attempt_download_asset

    try:
        found = Path(attempt_download_asset(name))
    except (OSError, ConnectionError, RuntimeError, ValueError) as error:
        raise Unreachable(f"{name.name} could not be downloaded ({error}): copy it here and name its path") from None
    if not found.is_file():
        raise Unreachable(f"{name.name} could not be downloaded: copy the file here and name its path")
    return found
