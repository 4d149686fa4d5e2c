"""Read and write Ultralytics' YOLO format: `data.yaml` and label files.

What Ultralytics reads is read here, with the same images and the same boxes. Faults go to a `Sink`, which either
raises, so that loading stops at the first fault, or collects them, so that a check finds all. After a fault, readers go
on with what is still usable. What is no fault and worth knowing goes to `Notes`.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from diredi.data.images import IMAGE_SUFFIXES, find_images
from diredi.data.notes import Notes, counted_noun
from diredi.errors import DatasetError, InvalidInput
from diredi.labels import LabelSpace

Sink = Callable[[DatasetError], None]

Boxes = NDArray[np.float32]
"""float32 [n, 5]: class id, centre x, centre y, width, height; the last four as shares of the image, 0 to 1."""

_ROUNDING = 0.01
"""How far a coordinate may be outside the image and still count as on its edge, as in Ultralytics."""


@dataclass(frozen=True)
class Description:
    """The content of a `data.yaml` with resolved paths. A split is a list of folders, image files and lists."""

    path: Path
    root: Path
    names: tuple[str, ...]
    class_ids: tuple[int, ...]
    """For each class id in label files, its position in `names`: two ids may have one name."""
    key_points: tuple[int, int] | None
    """Number of key points and of values for each, which follow every box of a pose data set."""
    splits: Mapping[str, tuple[Path, ...]]


def read_description(path: Path, sink: Sink, notes: Notes, *, named: bool = True) -> Description:
    """Read a `data.yaml`.

    Args:
        path: The file, or a folder that holds it.
        sink: Receives faults after which reading can go on.
        notes: Receives what is no fault.
        named: Whether to read class names; without, there need be none.

    Raises:
        DatasetError: Reading cannot go on: there is no file, no YAML, or no class names.
    """
    path = find_description(path)
    values = _read_yaml(path)
    names = _names(values, path, sink, notes) if named else ()
    distinct = tuple(dict.fromkeys(names))
    if values.get("channels") not in (None, 1, 3):
        sink(DatasetError(f"`channels: {values['channels']}`: images of 1 or 3 channels are read, no others", path))
    if "val" not in values and "validation" in values:
        values["val"] = values["validation"]
    entries = {key: _entries(values[key], key, path) for key in ("train", "val", "test") if values.get(key)}
    root = _root(values, path, [entry for key in ("train", "val") for entry in entries.get(key, ())], notes)
    return Description(
        path=path,
        root=root,
        names=distinct,
        class_ids=tuple(distinct.index(name) for name in names),
        key_points=_key_points(values, path),
        splits={key: tuple(_place(root, entry) for entry in listed) for key, listed in entries.items()},
    )


def find_description(path: Path) -> Path:
    """Return the `data.yaml` in a folder, or its only YAML file; any other path as it is."""
    if not path.is_dir():
        return path
    if (path / "data.yaml").is_file():
        return path / "data.yaml"
    found = [*path.glob("*.yaml"), *path.glob("*.yml")]
    return found[0] if len(found) == 1 else path


def list_images(place: Path, split: str, description: Description, sink: Sink, notes: Notes) -> list[Path]:
    """List the images of a folder (at any depth), of a text file with an image on each line, or of one file.

    Args:
        place: The folder or file.
        split: The split, for faults.
        description: The data set.
        sink: Receives faults.
        notes: Receives what was left out.

    Returns:
        The images, sorted by path. One that a list names twice is there twice.
    """
    try:
        if place.is_dir():
            return _images_of_folder(place, notes)
        if place.suffix.lower() in IMAGE_SUFFIXES and place.is_file():
            return [place]
        if place.is_file():
            return _images_of_list(place, description.root, sink, notes)
    except DatasetError as error:
        sink(error)
        return []
    hint = " (patterns are not expanded: list the folders)" if "*" in str(place) else ""
    sink(DatasetError(f"`{split}` names {place}, which does not exist: correct the path{hint}", description.path))
    return []


def label_file_of(image: Path) -> Path:
    """Return the label file of an image by Ultralytics' rule: the last folder `images` becomes `labels`, with .txt."""
    parts = list(image.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(path: Path, description: Description, sink: Sink, notes: Notes) -> Boxes:
    """Read the boxes of a label file.

    Args:
        path: The file. A missing file means an image without boxes.
        description: The data set, which says what class ids and key points there are.
        sink: Receives faults; lines with faults are left out.
        notes: Receives what else is left out or read in another way than it may be meant.

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
    return parse_labels(lines, path, description, sink, notes)


def parse_labels(lines: Sequence[str], path: Path, description: Description, sink: Sink, notes: Notes) -> Boxes:
    """Parse the lines of a label file as `read_labels` does; `path` names the file in faults and notes."""
    boxes: dict[bytes, list[float]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values, box = _parse_label(line, description, notes, where)
        except ValueError as error:
            sink(DatasetError(str(error), path, number))
            continue
        written = np.asarray(values, np.float32).tobytes()
        if written in boxes:
            notes.count("label line", "given twice in a file: counted once", where)
        elif box[3] == 0 or box[4] == 0:
            notes.count("box", "without width or height: left out", where)
        else:
            boxes[written] = box
    table = np.asarray(list(boxes.values()), np.float32).reshape(-1, 5)
    table[:, 1:] = table[:, 1:].clip(0, 1)
    return table


def unused_label_files(images: Iterable[Path]) -> list[Path]:
    """Find label files that belong to no image, such as `a.jpg.txt` beside `a.jpg`.

    Args:
        images: Images of a data set; the folders of their labels are looked through.

    Returns:
        Files with labels in them, sorted by path.
    """
    found: list[Path] = []
    for image_folder in sorted({image.parent for image in images}):
        label_folder = label_file_of(image_folder / "any.jpg").parent
        if not label_folder.is_dir():
            continue
        stems = {file.stem for file in image_folder.iterdir() if file.suffix.lower() != ".txt"}
        files = [file for file in sorted(label_folder.iterdir()) if file.suffix.lower() == ".txt"]
        stray = [file for file in files if file.stem not in stems or file.suffix != ".txt"]
        found += [file for file in stray if not file.name.startswith(".") and _holds_labels(file)]
    return found


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
        raise DatasetError("this is a folder without a data.yaml: name the data.yaml of a data set", path) from None
    except OSError as error:
        raise DatasetError(f"data set cannot be read ({error.strerror}): name an existing data.yaml", path) from None
    except UnicodeDecodeError:
        raise DatasetError("this is not text in UTF-8: name the data.yaml of a data set", path) from None
    except (ValueError, RecursionError) as error:  # a date that is none, or thousands of brackets
        raise DatasetError(f"this is not YAML ({error}): correct the file", path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise DatasetError(f"this is not YAML ({problem}): correct the file", path, line) from None
    if not isinstance(values, dict):
        raise DatasetError("a data.yaml must hold `train:`, `val:` and `names:`", path)
    return values


def _entries(value: object, key: str, path: Path) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    places = [entry for entry in entries if isinstance(entry, str) and entry]
    if len(places) != len(entries):
        raise DatasetError(f"`{key}:` must be a folder, a .txt list, or a list of these", path)
    return tuple(places)


def _root(values: dict[str, Any], path: Path, entries: Sequence[str], notes: Notes) -> Path:
    """Return the folder from which a data set's paths are taken.

    Ultralytics takes `path:` from the current folder, or else from its own folder of data sets. It is tried first from
    where the data.yaml is, since a data set that was moved as a whole must still be found.
    """
    beside = [path.absolute().parent, path.resolve().parent]
    if not values.get("path"):
        candidates, theirs = beside, path.absolute().parent
    else:
        named = Path(os.path.expanduser(str(values["path"])))  # noqa: PTH111
        their_folders = [Path.cwd(), *_ultralytics_folder()]
        candidates = [folder / named for folder in (*beside, *their_folders)]
        theirs = next((folder / named for folder in their_folders if (folder / named).exists()), candidates[0])

    def missing(root: Path) -> int:
        return sum(not _place(root, entry).exists() for entry in entries)

    root = min(candidates, key=missing).resolve()
    if theirs.resolve() != root and missing(root) == missing(theirs) == 0:
        notes.add(f"`path: {values['path']}` is taken as {root}; Ultralytics would here take {theirs.resolve()}")
    return root


def _ultralytics_folder() -> list[Path]:
    """Return the folder in which Ultralytics keeps data sets, where it is installed and has been used."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    settings = Path(os.environ.get("YOLO_CONFIG_DIR") or home).expanduser() / "Ultralytics" / "settings.json"
    try:
        return [Path(json.loads(settings.read_text(encoding="utf-8"))["datasets_dir"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _place(root: Path, entry: str) -> Path:
    """Return a place of a split. Exports of Roboflow say `../train/images` of what is beside the data.yaml."""
    place = root / os.path.expanduser(entry)  # noqa: PTH111
    if not place.exists() and entry.startswith("../"):
        place = root / entry.removeprefix("../")
    return Path(os.path.normpath(place)) if not place.exists() else place


def _key_points(values: dict[str, Any], path: Path) -> tuple[int, int] | None:
    shape = values.get("kpt_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise DatasetError(f"`kpt_shape: {shape}` must be two numbers, such as [17, 3]", path)
    return shape[0], shape[1]


def _names(values: dict[str, Any], path: Path, sink: Sink, notes: Notes) -> tuple[str, ...]:
    """Return the name of each class id; two ids may have the same one."""
    named, number = values.get("names"), _class_count(values, path)
    if named is None and number is not None:
        notes.add(f"`names:` is missing: the classes are called class_0 to class_{number - 1}")
        named = [f"class_{index}" for index in range(number)]
    if isinstance(named, dict):
        named = _numbered(named, path)
    if not isinstance(named, list) or not named:
        raise DatasetError("`names:` is missing or empty: list the class names in the order of their ids", path)
    names = tuple(str(name).strip() for name in named)
    for name, times in Counter(names).items():
        if times > 1:
            notes.add(f"`names:` has {name!r} {times} times: these are one class")
    try:
        LabelSpace.of(dict.fromkeys(names))
    except InvalidInput as error:
        raise DatasetError(f"`names:`: {error}", path) from None
    if number is not None and number != len(names):
        sink(DatasetError(f"`nc: {number}` but `names:` has {len(names)} classes: make them agree", path))
    return names


def _class_count(values: dict[str, Any], path: Path) -> int | None:
    if "nc" not in values:
        return None
    try:
        number = float(values["nc"])
        if number != int(number) or number < 1:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DatasetError(f"`nc: {values['nc']}` must be the number of classes", path) from None
    return int(number)


def _numbered(named: dict[object, object], path: Path) -> list[object]:
    """Return the names of a mapping in the order of their ids, which may be written as text."""
    try:
        by_id = {int(str(key)): name for key, name in named.items()}
    except ValueError:
        by_id = {}
    if sorted(by_id) != list(range(len(named))):
        raise DatasetError(f"`names:` must number the classes 0 to {len(named) - 1} without a gap", path)
    return [by_id[index] for index in range(len(by_id))]


def _images_of_folder(place: Path, notes: Notes) -> list[Path]:
    """List a folder. If it is a link, labels may lie beside its target, as Ultralytics has it, or beside the link."""
    found = find_images(place.resolve())
    if place.resolve() != place.absolute() and not any(label_file_of(image).is_file() for image in found.images):
        found = find_images(place)
    if found.others:
        others = sorted(found.others.items(), key=lambda item: (-item[1], item[0]))
        kinds = ", ".join(f"{number} {suffix or 'without a suffix'}" for suffix, number in others)
        notes.add(
            f"{counted_noun(found.others.total(), 'file')} in {place} left out, which DiReDi does not read as images "
            f"({kinds}): convert images among them to JPEG or PNG"
        )
    return found.images


def _images_of_list(path: Path, root: Path, sink: Sink, notes: Notes) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"list of images cannot be read ({error}): name a folder or a .txt list", path) from None
    images = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            notes.count("line", "of a list without an image that DiReDi reads: left out", f"{path}, line {number}")
            continue
        image = next((place for place in _listed(name, path.parent, root) if place.is_file()), None)
        if image is None:
            sink(DatasetError(f"image {name} does not exist: correct the list", path, number))
        else:
            images.append(image)
    return sorted(images)


def _listed(name: str, folder: Path, root: Path) -> Iterable[Path]:
    """Yield the places that a line of a list may mean: Ultralytics takes it from the current folder or, with `./`, from
    that of the list. CVAT writes `data/` before paths that are relative to the data.yaml.
    """  # noqa: D205
    for base in dict.fromkeys((folder, root, Path.cwd())):
        yield base / name
    parts = Path(name).parts
    if parts[0] == "data":
        yield root.joinpath(*parts[1:])


def _parse_label(line: str, description: Description, notes: Notes, where: str) -> tuple[list[float], list[float]]:
    """Parse `class cx cy w h`, the same with key points after it, or a polygon `class x1 y1 x2 y2 x3 y3 ...`.

    Returns:
        The values that make the line what it is, and its box.

    Raises:
        ValueError: The line has a fault.
    """
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise ValueError(f"{line.strip()!r} is not numbers: write `class cx cy width height`") from None
    pose = description.key_points is not None and len(values) == 5 + math.prod(description.key_points)
    if pose:
        values = values[:5]
        notes.count("label line", "with key points: the box is used and the points are not", where)
    polygon = len(values) >= 7 and len(values) % 2 == 1 and description.key_points is None
    if len(values) != 5 and not polygon:
        raise ValueError(_wrong_length(len(values), description))
    classes = len(description.class_ids)
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{line.strip()!r} is not finite numbers: write `class cx cy width height`")
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        raise ValueError(f"class {words[0]} is not in `names:`: it has ids 0 to {classes - 1}")
    box, written = values[1:], words[1:5]
    if polygon:
        xs, ys = values[1::2], values[2::2]
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        box = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        written = [f"a polygon's box with {value:g}" for value in box]
        notes.count(
            "label line", "with a polygon (a segment or a turned box): read as the upright box around it", where
        )
    lowest = (-_ROUNDING, -_ROUNDING, 0, 0)
    for word, value, low in zip(written, box, lowest, strict=True):
        if not low <= value <= 1 + _ROUNDING:
            raise ValueError(f"{word} is outside [0, 1]: coordinates are fractions of the image's width and height")
    return values, [description.class_ids[int(values[0])], *box]


def _wrong_length(length: int, description: Description) -> str:
    if description.key_points is not None:
        expected = 5 + math.prod(description.key_points)
        shape = list(description.key_points)
        return f"{length} values: a box has 5, and with the key points of `kpt_shape: {shape}` {expected}"
    hint = ""
    if length == 6:
        hint = " (is the last one a confidence? leave it out)"
    elif length > 6:
        hint = " (are these key points? say so with `kpt_shape:` in data.yaml)"
    return f"{length} values: write `class cx cy width height`, or a class and a polygon{hint}"


def _holds_labels(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            words = file.readline(4096).split()
            return len(words) >= 5 and all(math.isfinite(float(word)) for word in words)
    except (OSError, ValueError):
        return False
