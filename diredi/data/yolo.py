"""Read and write Ultralytics' YOLO format: `data.yaml` and label files.

Faults go to a `Sink`, which either raises, so that loading stops at the first fault, or collects them, so that a check
finds all. After a fault, readers go on with what is still usable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from diredi.data.images import IMAGE_SUFFIXES
from diredi.errors import DatasetError
from diredi.labels import LabelSpace

Sink = Callable[[DatasetError], None]

Boxes = NDArray[np.float32]
"""float32 [n, 5]: class id, centre x, centre y, width, height; the last four as shares of the image, 0 to 1."""


@dataclass(frozen=True)
class Description:
    """The content of a `data.yaml` with resolved paths. A split is a list of folders, image files and .txt lists."""

    path: Path
    root: Path
    names: tuple[str, ...]
    splits: Mapping[str, tuple[Path, ...]]


def read_description(path: Path, sink: Sink) -> Description:
    """Read a `data.yaml`.

    Args:
        path: The file.
        sink: Receives faults after which reading can go on.

    Raises:
        DatasetError: Reading cannot go on: there is no file, no YAML, or no class names.
    """
    values = _read_yaml(path)
    names = _names(values, path, sink)
    root = _root(values, path)
    splits = {key: _places(values[key], key, root, path) for key in ("train", "val", "test") if values.get(key)}
    if "val" not in splits and values.get("validation"):
        splits["val"] = _places(values["validation"], "validation", root, path)
    return Description(path, root, names, splits)


def list_images(place: Path, split: str, description: Description, sink: Sink) -> list[Path]:
    """List the images of a folder (at any depth), of a .txt list or of one file, sorted by path."""
    if place.is_dir():
        return sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if place.suffix == ".txt" and place.is_file():
        return _read_list(place, sink)
    if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
        return [place]
    sink(DatasetError(f"`{split}` names {place}, which does not exist: correct the path", description.path))
    return []


def label_file_of(image: Path) -> Path:
    """Return the label file of an image by Ultralytics' rule: the last folder `images` becomes `labels`, with .txt."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(path: Path, classes: int, sink: Sink) -> Boxes:
    """Read the boxes of a label file.

    Args:
        path: The file. A missing file means an image without boxes.
        classes: Number of classes.
        sink: Receives faults; lines with faults are left out.

    Returns:
        The boxes, float32 [n, 5].
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return np.zeros((0, 5), np.float32)
    except (OSError, UnicodeDecodeError) as error:
        sink(DatasetError(f"label file cannot be read ({error}): replace it or delete it", path))
        return np.zeros((0, 5), np.float32)
    rows: dict[tuple[float, ...], None] = {}  # equal lines are one box, as in Ultralytics
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows[_parse_label(line, classes)] = None
        except ValueError as error:
            sink(DatasetError(str(error), path, number))
    return np.asarray(list(rows), np.float32).reshape(-1, 5)


def description_text(names: Iterable[str], splits: Iterable[str] = ("train", "val")) -> str:
    """Return the text of a `data.yaml` whose images are in images/SPLIT beside it."""
    paths = {split: f"images/{split}" for split in splits}
    return str(yaml.safe_dump({**paths, "names": dict(enumerate(names))}, sort_keys=False, allow_unicode=True))


def labels_text(boxes: Boxes) -> str:
    """Return the text of a label file."""
    return "".join(f"{int(b[0])} {b[1]:.6f} {b[2]:.6f} {b[3]:.6f} {b[4]:.6f}\n" for b in boxes)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except IsADirectoryError:
        raise DatasetError("this is a folder: name the data.yaml inside it", path) from None
    except OSError as error:
        raise DatasetError(f"data set cannot be read ({error.strerror}): name an existing data.yaml", path) from None
    except UnicodeDecodeError:
        raise DatasetError("this is not text: name the data.yaml of a data set", path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise DatasetError(f"this is not YAML ({problem}): correct the file", path, line) from None
    if not isinstance(values, dict):
        raise DatasetError("a data.yaml must hold `train:`, `val:` and `names:`", path)
    return values


def _root(values: dict[str, Any], path: Path) -> Path:
    folder = path.resolve().parent
    named = values.get("path")
    return folder if named is None else (folder / Path(str(named)).expanduser()).resolve()


def _places(value: object, key: str, root: Path, path: Path) -> tuple[Path, ...]:
    entries = value if isinstance(value, list) else [value]
    places = [entry for entry in entries if isinstance(entry, str)]
    if len(places) != len(entries):
        raise DatasetError(f"`{key}:` must be a folder, a .txt list, or a list of these", path)
    return tuple(root / Path(place).expanduser() for place in places)


def _names(values: dict[str, Any], path: Path, sink: Sink) -> tuple[str, ...]:
    named = values.get("names")
    if isinstance(named, dict):
        if sorted(named, key=str) != sorted(range(len(named)), key=str):
            raise DatasetError(f"`names:` must number the classes 0 to {len(named) - 1} without a gap", path)
        named = [named[index] for index in range(len(named))]
    if not isinstance(named, list) or not named:
        raise DatasetError("`names:` is missing or empty: list the class names in the order of their ids", path)
    names = tuple(str(name).strip() for name in named)
    try:
        LabelSpace(names=names)
    except ValidationError as error:
        raise DatasetError(f"`names:` cannot be used ({error.errors()[0]['msg']})", path) from None
    if "nc" in values and values["nc"] != len(names):
        sink(DatasetError(f"`nc: {values['nc']}` but `names:` has {len(names)} classes: make them agree", path))
    return names


def _read_list(path: Path, sink: Sink) -> list[Path]:
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        image = path.parent / line.strip()
        if image.is_file():
            images.append(image)
        else:
            sink(DatasetError(f"image {line.strip()} does not exist: correct the list", path, number))
    return sorted(images)


def _parse_label(line: str, classes: int) -> tuple[float, ...]:
    """Parse a box, `class cx cy w h`, or a polygon, `class x1 y1 x2 y2 x3 y3 ...`; raise ValueError for a fault."""
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{line.strip()!r} is not numbers: write `class cx cy width height`") from None
    polygon = len(values) >= 7 and len(values) % 2 == 1
    if len(values) != 5 and not polygon:
        raise ValueError(f"{len(values)} values: write `class cx cy width height`, or a class and a polygon")
    if not math.isfinite(values[0]) or values[0] != int(values[0]) or not 0 <= values[0] < classes:
        raise ValueError(f"class {words[0]} is not in `names:`: it has ids 0 to {classes - 1}")
    outside = [word for word, value in zip(words[1:], values[1:], strict=True) if not 0 <= value <= 1]
    if outside:
        raise ValueError(f"{outside[0]} is outside [0, 1]: coordinates are fractions of the image's width and height")
    if polygon:
        xs, ys = values[1::2], values[2::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        values = [values[0], (left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    if values[3] == 0 or values[4] == 0:
        raise ValueError("a box without area: delete the line")
    return tuple(values)
