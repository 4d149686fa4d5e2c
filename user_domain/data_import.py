"""Takes pictures with labels from an archive of another tool, as samples that people have labelled."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from diredi.data.annotation_formats import Format, LabelledPicture, read_pictures
from diredi.data.foreign_archive import ForeignArchive
from diredi.data.images import image_size
from diredi.errors import CorruptData, DatasetError, InvalidInput, NoRoom
from diredi.labels import LabelSpace
from diredi.rpc.convert import first_problem
from user_domain.samples import MAX_IMAGE_BYTES, Box, SampleStore, Sighting

MAX_PIXELS: Final = 64_000_000
"""Of a picture; a small file may say that it has far more."""
CAMERA: Final = "imported"


@dataclass
class Imported:
    """What became of an archive."""

    format: Format
    added: int = 0
    """Pictures that are new here."""
    relabelled: int = 0
    """Samples that were here, whose labels are now those of the archive."""
    left_out: list[str] = field(default_factory=list)
    """What was not taken, a sentence each."""
    problem: str = ""
    """Why it ended before its end; what was taken until then stays."""


def import_archive(
    path: Path, store: SampleStore, *, by: str, camera: str = CAMERA, private: Container[str] = frozenset()
) -> Imported:
    """Take pictures with labels into the store. All labels are read and checked before the first one is taken.

    Pictures are taken in the order of their names, so that the last ones by name are held out.

    Args:
        path: The archive, or a file with labels alone, whose pictures are here already.
        store: The samples.
        by: Who imports them.
        camera: Which camera has taken them, by whose samples they are split; what it is called is free.
        private: Digests of pictures of the private data set: these have their labels in its own files.

    Raises:
        DatasetError: The archive has no labels that can be read.
        InvalidInput: It is damaged, or made to do harm; or a name of a class or the camera cannot be used.
    """
    try:
        sighting = Sighting(device=camera, camera=camera, doubt=1.0)
    except ValidationError as error:
        why = first_problem(error)
        raise InvalidInput(f"camera {camera[:64]!r} cannot be ({why}): use letters and digits") from None
    try:
        archive = ForeignArchive(path)
    except CorruptData as error:
        raise InvalidInput(str(error)) from None
    try:
        found = read_pictures(archive)
        done = Imported(found.format, left_out=found.left_out)
        wanted = [(one.name, boxes) for one in sorted(found.pictures) if (boxes := _boxes(one, done)) is not None]
        LabelSpace.of(dict.fromkeys(box.name for _, boxes in wanted for box in boxes))
        if not wanted:
            raise DatasetError(f"no picture in it can be used: {'; '.join(done.left_out[:3]) or 'there is none'}")
        there = set(archive.names)
        for name, boxes in wanted:
            try:
                image = archive.read(name, MAX_IMAGE_BYTES) if name in there else None
                sample_id = _id_of(image, name, store, private)
                if store.has(sample_id):
                    store.set_labels(sample_id, boxes, by=by)
                    done.relabelled += 1
                elif image is not None and store.add(image, sighting, labels=boxes, by=by):
                    done.added += 1
            except (CorruptData, InvalidInput) as error:
                done.left_out.append(f"{name}: {error}")
            except NoRoom as error:
                done.problem = str(error)
                break
        return done
    except CorruptData as error:
        raise InvalidInput(str(error)) from None
    finally:
        archive.close()


def _boxes(picture: LabelledPicture, done: Imported) -> list[Box] | None:
    try:
        return [Box(**box._asdict()) for box in picture.boxes]
    except ValidationError as error:
        done.left_out.append(f"{picture.name}: {first_problem(error)}")
        return None


def _id_of(image: bytes | None, name: str, store: SampleStore, private: Container[str]) -> str:
    """Return the id of a picture as a sample. Raises InvalidInput where it may not be one."""
    if image is None:
        stem = PurePosixPath(name).stem
        if not store.has(stem):
            raise InvalidInput("there is no such picture, neither in the archive nor here")
        return stem
    width, height = image_size(image)
    if width * height > MAX_PIXELS:
        raise InvalidInput(f"it has {width} x {height} pixels: make it smaller")
    digest = hashlib.sha256(image).hexdigest()
    if store.was_deleted(digest):
        raise InvalidInput("it was deleted here for good")
    if digest in private:
        raise InvalidInput("the private data set has it, with labels in its own files")
    return digest
