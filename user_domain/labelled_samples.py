"""Writes labelled samples as a data set in YOLO format, alone or beside the private one."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml

from diredi.data.notes import Notes
from diredi.data.yolo import Boxes, Description, description_text, labels_text, read_description
from diredi.errors import DatasetError
from diredi.store.files import atomic_write, make_folder, no_room_at, part_of

if TYPE_CHECKING:
    from user_domain.samples import SampleInfo, SampleStore

LabelledImage = tuple["SampleInfo", Path]

KEPT_SETS: Final = 4
"""So many of the last data sets stay on disk: a job may still read the one before."""


def join_samples(store: SampleStore, root: Path, held_out: float, private: Path | None) -> Path | None:
    """Write the labelled samples and another data set as one, unless that is there already.

    Args:
        store: The samples.
        root: Where the joint data sets lie, each in a folder of its own that does not change any more.
        held_out: Which share of each camera's samples is held out.
        private: The data.yaml of the other data set; None for the samples alone.

    Returns:
        The data.yaml of both; where nothing is labelled, that of the other data set.

    Raises:
        DatasetError: The other data set cannot be read.
        NoRoom: The disk is full.
    """
    labels = store.labels_digest()
    if not labels:
        return private
    other = b"" if private is None else f"{private}\n".encode() + private.read_bytes()
    folder = root / hashlib.sha256(f"{labels} {held_out} ".encode() + other).hexdigest()[:16]
    make_folder(root)
    if not (folder / "data.yaml").is_file():
        store.export(folder, held_out=held_out, beside=private)
    os.utime(folder)
    for old in sorted(root.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT_SETS:]:
        shutil.rmtree(old, ignore_errors=True)
    return folder / "data.yaml"


def write_data_set(labelled: Sequence[LabelledImage], folder: Path, *, held_out: float, beside: Path | None) -> Path:
    """Write a data set into a folder, which is there whole or not at all.

    Args:
        labelled: Samples with labels, each with the file of its image.
        folder: Where; what is there is replaced.
        held_out: Which share of each camera's samples goes to `val`, the newest of them.
        beside: A data.yaml whose images and classes are those of the new data set, too.

    Returns:
        The path of its data.yaml.

    Raises:
        DatasetError: `beside` cannot be read, or has key points.
        NoRoom: The disk is full.
    """
    other = None if beside is None else _read(beside)
    known = () if other is None else tuple(other.names[i] for i in other.class_ids)
    names = tuple(dict.fromkeys([*known, *sorted({box.name for info, _ in labelled for box in info.labels or ()})]))
    ids = list(known) + [name for name in names if name not in known]  # two ids of the other set may have one name
    part = part_of(folder)
    with no_room_at(folder):
        shutil.rmtree(part, ignore_errors=True)
        for kind in ("images", "labels"):
            for split in ("train", "val"):
                make_folder(part / kind / split)
        for split, samples in zip(("train", "val"), split_by_time(labelled, held_out), strict=True):
            for info, image in samples:
                _link(image, part / "images" / split / image.name)
                text = labels_text(_boxes(info, ids))
                atomic_write(part / "labels" / split / f"{info.id}.txt", text, durable=False)
        text = description_text(ids) if other is None else _joint_description(ids, other, folder, part)
        atomic_write(part / "data.yaml", text, durable=False)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder / "data.yaml"


def split_by_time(
    labelled: Iterable[LabelledImage], held_out: float
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Split samples into older ones to learn from and newer ones to measure on, camera by camera.

    Args:
        labelled: Samples with the files of their images.
        held_out: Which share of each camera's samples is held out, rounded down.

    Returns:
        What to learn from and what is held out. Where the share of no camera makes one and there are two samples or
        more, the newest of all is held out.
    """
    cameras: defaultdict[tuple[str, str], list[LabelledImage]] = defaultdict(list)
    for one in sorted(labelled, key=lambda one: (one[0].taken, one[0].id)):
        cameras[one[0].device, one[0].camera].append(one)
    learned: list[LabelledImage] = []
    measured: list[LabelledImage] = []
    for samples in cameras.values():
        cut = len(samples) - int(len(samples) * held_out)
        learned += samples[:cut]
        measured += samples[cut:]
    if held_out and not measured and len(learned) > 1:
        newest = max(learned, key=lambda one: (one[0].taken, one[0].id))
        learned.remove(newest)
        measured.append(newest)
    return learned, measured


def _read(path: Path) -> Description:
    def stop(error: DatasetError) -> None:
        raise error

    description = read_description(path, stop, Notes())
    if description.key_points is not None:
        raise DatasetError("labelled samples have no key points and cannot stand beside a data set that has", path)
    return description


def _joint_description(ids: Sequence[str], other: Description, folder: Path, part: Path) -> str:
    values: dict[str, Any] = {}
    for split in ("train", "val"):
        own = [str(folder.absolute() / "images" / split)] if any((part / "images" / split).iterdir()) else []
        values[split] = [*(str(place) for place in other.splits.get(split, ())), *own]
    return str(yaml.safe_dump({**values, "names": dict(enumerate(ids))}, sort_keys=False, allow_unicode=True))


def _boxes(info: SampleInfo, ids: Sequence[str]) -> Boxes:
    rows = [(ids.index(box.name), box.x, box.y, box.width, box.height) for box in info.labels or ()]
    return np.array(rows, np.float32).reshape(-1, 5)


def _link(image: Path, to: Path) -> None:
    """Give an image a second name, or copy it where the disk has no links."""
    try:
        os.link(image, to)
    except OSError:
        shutil.copyfile(image, to)
