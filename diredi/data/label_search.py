"""Find out why a split has no label, so that a user is told what to do."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from diredi.data.notes import counted_noun

_MOST_ENTRIES = 50_000
_HEAD = 1 << 16


def explain_missing(images: Sequence[Path], labels: Sequence[Path], root: Path, split: str) -> str:
    """Say why images have no labelled box and what to do.

    Args:
        images: The images.
        labels: Where the label file of each image should be.
        root: Folder of the data set, in which labels of other formats are looked for.
        split: Name of the split, to name the annotation file that is likely its own.

    Returns:
        The end of a sentence: what was found, and the remedy.
    """
    there = [label for label in labels if label.is_file()]
    if there:
        return f"{counted_noun(len(there), 'label file')}, such as {there[0]}, without any box: label the images first"
    wanted = labels[0].parent
    stems = {image.stem for image in images}
    elsewhere: Counter[Path] = Counter()
    formats: dict[str, Path] = {}
    for path in _files_around(root):
        suffix = path.suffix.lower()
        if suffix == ".txt" and path.stem in stems:
            elsewhere[path.parent] += 1
        elif suffix in {".json", ".xml"} and (name := _format_of(path)):
            formats[name] = max(formats.get(name, path), path, key=lambda found: split in found.name)
    if elsewhere:
        [(folder, _)] = elsewhere.most_common(1)
        return f"their label files are in {folder}, but Ultralytics' rule looks in {wanted}: move them there"
    if "COCO JSON" in formats:
        path = formats["COCO JSON"]
        return (
            f'found COCO JSON {path}: convert it, for example with `python -c "from ultralytics.data.converter import '
            f'convert_coco; convert_coco({str(path.parent)!r}, cls91to80=False)"`, and move the .txt files that this '
            f"writes to {wanted}"
        )
    for name, path in formats.items():
        return (
            f"found {name} {path}: export or convert the labels in YOLO format, a .txt file for each image in {wanted}"
        )
    return f"there is no {labels[0]} or any other label file: put one for each image there, `class cx cy width height`"


def _files_around(root: Path) -> Iterator[Path]:
    """Walk over a folder's files level by level, up to a number of entries; hidden ones are left out."""
    folders, seen = deque([root]), 0
    while folders and seen < _MOST_ENTRIES:
        try:
            entries = sorted(os.scandir(folders.popleft()), key=lambda entry: entry.name)
        except OSError:
            continue
        seen += len(entries)
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            else:
                yield Path(entry.path)


def _format_of(path: Path) -> str:
    """Return the name of the format of an annotation file; empty for any other file."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return ""
    if path.suffix.lower() == ".xml":
        return "CVAT XML" if b"<annotations>" in head else "Pascal VOC XML" if b"<annotation" in head else ""
    if b'"shapes"' in head:
        return "LabelMe JSON"
    return "COCO JSON" if any(key in head for key in (b'"annotations"', b'"categories"', b'"images"')) else ""
