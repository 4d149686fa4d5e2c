"""Reads Ultralytics checkpoints without running anything that they say.

A checkpoint is a pickle of the live network. Torch's restricted unpickler reads it; every class of Ultralytics and
torch that it names is replaced by an inert record, so that no constructor and no other code of those libraries
runs. Any global outside the list below is refused before a byte of the pickle is interpreted.

The weights go into a network that this project builds. What decides the answers beside the weights (activations,
strides, epsilons, which layer reads which) is compared record by record, so that no checkpoint is read as a network
that answers otherwise than its own.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from diredi.detectors import foreign_file
from diredi.detectors import ultralytics_network as networks
from diredi.detectors.spec import CELL
from diredi.errors import CorruptData, InvalidInput, NotFound, Unreachable
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

_INERT = re.compile(
    r"(ultralytics(\.\w+)+|torch\.nn(\.\w+)+|torch\.optim(\.\w+)+|pathlib\.\w+|datetime\.\w+"
    r"|numpy\.(dtype|ndarray|bool|(_core|core)\.multiarray\.(scalar|_reconstruct))|types\.SimpleNamespace"
    r"|collections\.(defaultdict|deque)|(__builtin__|builtins)\.(set|slice|getattr))"
)
_DOWNLOADABLE = re.compile(r"yolo(11|26|v8)[nsmlx]\.pt")
_WRAPPERS = {"DataParallel": "module", "DistributedDataParallel": "module", "DistillationModel": "student_model"}
_SAME_AS = {"SyncBatchNorm": "BatchNorm2d"}  # in eval mode
_DESCRIBES = frozenset({"training", "inplace", "momentum", "np", "type", "name", "nc", "no", "recompute_scale_factor"})
"""Attributes of a layer from which its answers do not follow: `nc` and `no` are those of the label space."""
_FEW = 8  # a tensor as small as this is a setting, such as the strides


class _Record:
    """Stands for an object of a checkpoint. Keeps its state, does nothing."""

    kind: ClassVar[str] = ""
    """The name of the object's class."""

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
    image_size: int | None
    """Side in pixels that it was trained at; None if the file does not say."""


def read_checkpoint(path: Path) -> Checkpoint:
    """What an Ultralytics checkpoint holds: its raw weights as float32 (official files store half precision).

    As in Ultralytics, the running average of the weights counts where a file has both.

    Raises CorruptData when `path` is not such a checkpoint or names anything that does not belong in one, InvalidInput
    when it is one of another kind than a detector of this family.
    """
    content = _unpickled(path)
    network = _network(content, path)
    arrays = dict(_state(network, ""))
    if not arrays:
        raise CorruptData(f"{path} holds a network without weights: name another file")
    labels = _labels(getattr(network, "names", None), path)
    architecture, ours = _architecture(network, arrays, len(labels), path)
    if different := next(_differences(network, ours, ""), ""):
        raise InvalidInput(
            f"{path} has the weights of {architecture} but computes otherwise ({different}), and would have other "
            "figures here than its own: name a checkpoint of the network as Ultralytics publishes it"
        )
    return Checkpoint(architecture, labels, WeightMap(arrays), _image_size(content, network, path))


def _unpickled(path: Path) -> dict[str, Any]:
    if said := foreign_file.explain(path):
        raise CorruptData(f"{path} {said}")
    if not zipfile.is_zipfile(path):
        raise CorruptData(f"{path} is not a PyTorch checkpoint: it is damaged or something else, download it again")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        foreign = sorted(name for name in named if not _INERT.fullmatch(name))
        if foreign:
            raise CorruptData(f"{path} {_about_foreign(foreign[0])}")
        kinds = [(type(name.rpartition(".")[2], (_Record,), {"kind": name.rpartition(".")[2]}), name) for name in named]
        with torch.serialization.safe_globals(kinds):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError, KeyError, TypeError, AttributeError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CorruptData(f"{path} cannot be read as a checkpoint ({said}): download it again") from None
    if isinstance(content, _Record):
        return {"model": content}
    if not isinstance(content, dict):
        raise CorruptData(f"{path} is not an Ultralytics checkpoint: it holds no dictionary, name another file")
    return content


def _about_foreign(name: str) -> str:
    if name.startswith("models."):
        return (
            f"is a checkpoint of YOLOv5, YOLOv7 or another program with its own network ({name}): "
            "name one that Ultralytics has written of YOLO11, YOLO26 or YOLOv8"
        )
    if name.startswith(("torch.ao", "torch.fx", "torch.quantization", "modelopt")) or "qtensor" in name:
        return f"is quantised or traced ({name}), not raw weights: name the checkpoint that it was made from"
    return f"names {name}, which no checkpoint of a plain detector needs: it is not safe to read"


def _network(content: Mapping[str, Any], path: Path) -> _Record:
    """The record of the network, out of what training has wrapped it in."""
    network = content.get("ema") or content.get("model")
    while isinstance(network, _Record) and network.kind in _WRAPPERS:
        network = _entries(network, "_modules").get(_WRAPPERS[network.kind])
    if not isinstance(network, _Record):
        tensors = network if isinstance(network, Mapping) else content.get("state_dict", content)
        if isinstance(tensors, Mapping) and any(isinstance(value, torch.Tensor) for value in tensors.values()):
            raise CorruptData(
                f"{path} holds weights alone (a state_dict), without the network and its class names: "
                "load them into a YOLO model of Ultralytics and save that"
            )
        raise CorruptData(f"{path} holds no network: it is not an Ultralytics checkpoint, name another file")
    if content.get("modelopt"):
        raise InvalidInput(f"{path} is a quantised model: name the checkpoint that it was made from")
    if network.kind != "DetectionModel":
        raise InvalidInput(
            f"{path} holds a {network.kind}, not the DetectionModel of a plain detector: "
            "name a checkpoint of YOLO11, YOLO26 or YOLOv8 that was trained to detect boxes"
        )
    return network


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


def _walk(record: _Record) -> Iterator[_Record]:
    yield record
    for child in _entries(record, "_modules").values():
        if isinstance(child, _Record):
            yield from _walk(child)


def _labels(names: object, path: Path) -> LabelSpace:
    if isinstance(names, Mapping):
        numbers = [int(key) if str(key).isdecimal() else -1 for key in names]
        if sorted(numbers) != list(range(len(names))):
            raise InvalidInput(f"{path} does not number its classes from 0 ({_few(names)}): name another checkpoint")
        names = [name for _, name in sorted(zip(numbers, names.values(), strict=True))]
    if not isinstance(names, list | tuple) or not names:
        raise InvalidInput(f"{path} has no class names: set `names` of its model with Ultralytics and save it again")
    if double := next((name for name in names if names.count(name) > 1), None):
        ids = [number for number, name in enumerate(names) if name == double]
        raise InvalidInput(
            f"{path} has two classes called {double!r} (ids {ids[0]} and {ids[1]}), and classes go by their names: "
            "give one of them another name in `names` of its model with Ultralytics and save it again"
        )
    try:
        return LabelSpace(names=tuple(map(str, names)))
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise InvalidInput(f"{path} has class names that cannot be used ({said}): rename them in it") from None


def _few(names: Mapping[object, object]) -> str:
    return ", ".join(f"{key}: {name}" for key, name in list(names.items())[:4])


def _architecture(
    network: _Record, arrays: Mapping[str, np.ndarray[Any, Any]], classes: int, path: Path
) -> tuple[str, nn.Module]:
    """The name under which this project builds the same shapes, and what it builds.

    Old checkpoints do not say what they are and a YAML may have been edited, so the shapes decide.
    """
    convolutions = [record for record in _walk(network) if record.kind == "Conv"]
    if convolutions and not any("bn" in _entries(record, "_modules") for record in convolutions):
        raise InvalidInput(
            f"{path} is fused: its batch norms have been folded into the convolutions, as predicting, validating and "
            "exporting do, and it can no longer learn: name the unfused checkpoint that the training wrote (best.pt)"
        )
    suffix = _activation(network, path)
    found = {name: array.shape for name, array in arrays.items()}
    origin, scale = _origin(network)
    alike = networks.alike(found.get("model.0.conv.weight", (0,))[0])
    for plain in sorted(alike, key=lambda name: name not in (origin, origin + scale)):
        last = 22 if plain.startswith("yolov8") else 23
        rows, width = found.get(f"model.{last}.cv3.0.2.weight", (0, 0))[:2]
        for name in (plain + suffix, f"{plain}-h{width}{suffix}"):
            if width and networks.ARCHITECTURE.fullmatch(name) and (ours := _built(name, rows, found)) is not None:
                if rows != classes:
                    raise InvalidInput(f"{path} predicts {rows} classes and names {classes}: name another checkpoint")
                return name, ours
    raise InvalidInput(
        f"{path} is no plain detector of the families YOLO11, YOLO26 and YOLOv8"
        f"{f' (it was made from {origin}.yaml)' if origin else ''}: name a checkpoint of one that is"
    )


def _origin(network: _Record) -> tuple[str, str]:
    """What the YAML that it was made from is called, and the letter of its size; empty where it does not say."""
    recipe = getattr(network, "yaml", None)
    recipe = recipe if isinstance(recipe, Mapping) else {}
    file = getattr(network, "yaml_file", None) or recipe.get("yaml_file") or ""
    return Path(str(file)).stem, str(recipe.get("scale") or "")


def _built(name: str, classes: int, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module | None:
    """The network of that name if it has these shapes."""
    try:
        network = networks.build(name, classes, 640, seed=0)
    except InvalidInput:
        return None
    ours = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return network if ours == shapes else None


def _activation(network: _Record, path: Path) -> str:
    """The part of the architecture's name that says the activation, from the first convolution that has one."""
    for record in _walk(network):
        act = _entries(record, "_modules").get("act") if record.kind == "Conv" else None
        if isinstance(act, _Record) and act.kind != "Identity":
            suffix = networks.activation_suffix(act.kind, getattr(act, "negative_slope", None))
            if suffix is None:
                raise InvalidInput(
                    f"{path} computes with the activation {act.kind}, which is not known here: "
                    f"name a checkpoint with SiLU, {networks.KNOWN_ACTIVATIONS}"
                )
            return suffix
    return ""


def _differences(record: _Record, ours: nn.Module, place: str) -> Iterator[str]:
    """What is set otherwise in a checkpoint than in the network of the same shapes, in words."""
    kind, wanted = _SAME_AS.get(record.kind, record.kind), type(ours).__name__
    where = place or "the network"
    if kind != wanted:
        yield f"{where} is {kind} in place of {wanted}"
        return
    if "forward" in record.__dict__:
        yield f"{where} has a forward pass of its own"
    for name, value in ours.__dict__.items():
        if name.startswith("_") or name in _DESCRIBES or name not in record.__dict__:
            continue
        here, there = _plain(value), _plain(record.__dict__[name])
        if here is not None and there is not None and here != there:
            yield f"{name} of {where} is {there} in place of {here}"
    theirs = {name: child for name, child in _entries(record, "_modules").items() if child is not None}
    children = dict(ours.named_children())
    for name in theirs.keys() ^ children.keys():
        yield f"{place}.{name}".lstrip(".") + (" is missing" if name in children else " is added")
    for name, child in theirs.items():
        if isinstance(child, _Record) and name in children:
            yield from _differences(child, children[name], f"{place}.{name}".lstrip("."))


def _plain(value: object) -> object:
    """A setting in a form that can be compared; None for what is none."""
    if isinstance(value, torch.Tensor):
        return _plain(value.float().tolist()) if value.numel() <= _FEW else None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else None


def _image_size(content: Mapping[str, Any], network: _Record, path: Path) -> int | None:
    """The size that it was trained at, as Ultralytics looks for it, rounded up to whole cells as there."""
    for place in (content.get("train_args"), getattr(network, "args", None)):
        values = place.__dict__ if isinstance(place, _Record) else place
        size = values.get("imgsz") if isinstance(values, Mapping) else None
        sides = [side for side in (size if isinstance(size, list | tuple) else [size]) if isinstance(side, int | float)]
        if sides and max(sides) > 0:
            return math.ceil(max(sides) / CELL) * CELL
    return None


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
