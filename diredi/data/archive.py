"""Pack a data set into one zip file, such as the coreset that a manufacturer ships, and unpack it.

Equal data sets give equal bytes. The archive contains `data.yaml`, `images/SPLIT/NUMBER.jpg` and
`labels/SPLIT/NUMBER.txt`; the names of files on disk are not part of it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from diredi.data import yolo
from diredi.data.dataset import SPLITS, Dataset, Split, load
from diredi.data.images import IMAGE_SUFFIXES
from diredi.data.notes import Notes
from diredi.errors import CorruptData, DatasetError, InvalidInput, NoRoom
from diredi.store.files import part_of, publish

_SUFFIX = "|".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
_ENTRY = re.compile(rf"data\.yaml|images/(train|val)/\d{{6}}\.({_SUFFIX})|labels/(train|val)/\d{{6}}\.txt")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_CHUNK = 1 << 20
_ENCRYPTED = 1


def pack(dataset: Dataset, path: Path, max_images: int | None = None) -> str:
    """Pack a data set into an archive. The file appears whole or not at all.

    Args:
        dataset: The data set.
        path: The archive to write; an existing file is replaced.
        max_images: The most images to pack; None for any number.

    Returns:
        The digest of the archive, "sha256:...".

    Raises:
        InvalidInput: There are no images or more than `max_images` (draw a `subset`), or `path` cannot be written.
        DatasetError: An image cannot be read.
        NoRoom: The disk is full.
    """
    images = len(dataset.train) + len(dataset.val)
    if images == 0 or (max_images is not None and images > max_images):
        raise InvalidInput(
            f"an archive of {dataset.root} would hold {images} images: it takes 1 to {max_images or 'any number'}"
        )
    part = part_of(path)
    try:
        with zipfile.ZipFile(part, "w") as archive:
            for name, data in _entries(dataset):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.create_system, info.external_attr = 3, 0o644 << 16
                # Images are compressed already, and deflate gives other bytes with other versions of zlib.
                archive.writestr(info, data, zipfile.ZIP_STORED)
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        publish(part, path)
    except OSError as error:
        raise _translate(error, path) from None
    finally:
        part.unlink(missing_ok=True)
    return f"sha256:{digest}"


def zip_pieces(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """Pack files into a zip file, piece by piece, so that it need not fit on a disk.

    Args:
        files: Names and contents.

    Yields:
        The bytes of the archive, in order.
    """
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w") as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system, info.external_attr = 3, 0o644 << 16
            is_image = Path(name).suffix.lower() in IMAGE_SUFFIXES
            archive.writestr(info, data, zipfile.ZIP_STORED if is_image else zipfile.ZIP_DEFLATED)
            yield pieces.take()
    yield pieces.take()


class _Pieces(io.RawIOBase):
    """A file that can only be written, whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | memoryview, /) -> int:  # type: ignore[override]
        self._written.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = b"".join(self._written)
        self._written.clear()
        return data


def unpack(path: Path, folder: Path, max_bytes: int = 4 << 30) -> Dataset:
    """Unpack an archive and load the data set. The folder appears whole or not at all.

    Args:
        path: The archive.
        folder: Folder to write; it must not exist.
        max_bytes: The most bytes that the archive may unpack to.

    Returns:
        The data set in `folder`.

    Raises:
        CorruptData: The archive is not one that `pack` writes: other names, compression, a wrong checksum, or more than
            `max_bytes`.
        InvalidInput: `folder` exists, or a path cannot be used.
        NoRoom: The disk is full.
    """
    if folder.exists():
        raise InvalidInput(f"folder {folder} exists already: remove it or name another")
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_entries(entries, path, max_bytes)
            for entry in entries:
                _extract(archive, entry, part / entry.filename)
        splits = [split for split in SPLITS if (part / "images" / split).is_dir()]
        _check_inside(part, splits, path)
        part.replace(folder)
    except (zipfile.BadZipFile, DatasetError, NotImplementedError, EOFError) as error:
        raise CorruptData(f"{path} is not an archive of a data set ({error}): fetch it again") from None
    except OSError as error:
        raise _translate(error, folder) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return load(folder / "data.yaml", splits, labelled=False)


def _entries(dataset: Dataset) -> Iterator[tuple[str, bytes]]:
    splits = [split for split in SPLITS if dataset.split(split)]
    yield "data.yaml", yolo.description_text(dataset.names, splits).encode()
    for split in splits:
        for number, sample in enumerate(dataset.split(split)):
            try:
                data = sample.image.read_bytes()
            except OSError as error:
                raise DatasetError(f"image cannot be read ({error.strerror}): restore it", sample.image) from None
            yield f"images/{split}/{number:06}{sample.image.suffix.lower()}", data
            yield f"labels/{split}/{number:06}.txt", yolo.labels_text(sample.boxes).encode()


def _check_entries(entries: list[zipfile.ZipInfo], path: Path, max_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    strange = next((name for name in names if not _ENTRY.fullmatch(name)), None)
    if strange is not None:
        raise CorruptData(f"{path} holds {strange!r}, which no archive of a data set has: fetch it again")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED for entry in entries):
        raise CorruptData(f"{path} is compressed or encrypted, which no archive of a data set is: fetch it again")
    if len(set(names)) != len(names) or "data.yaml" not in names:
        raise CorruptData(f"{path} lacks a data.yaml or holds a name twice: fetch it again")
    if sum(entry.file_size for entry in entries) > max_bytes:
        raise CorruptData(f"{path} would unpack to more than {max_bytes} bytes: allow more or ask for a smaller one")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    """Extract an entry, and at most as many bytes as the directory of the archive announces for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, target.open("wb") as file:
        while data := source.read(min(_CHUNK, left + 1)):
            left -= len(data)
            if left < 0:
                raise zipfile.BadZipFile(f"{entry.filename} is longer than announced")
            file.write(data)


def _check_inside(part: Path, splits: list[Split], path: Path) -> None:
    """Check that data.yaml is what `pack` writes, so that it cannot refer to other places on the disk."""
    names = yolo.read_description(part / "data.yaml", _stop, Notes()).names
    if (part / "data.yaml").read_text(encoding="utf-8") != yolo.description_text(names, splits):
        raise CorruptData(f"the data.yaml in {path} is not one that an archive has: fetch it again")
    load(part / "data.yaml", splits, labelled=False)


def _stop(error: DatasetError) -> None:
    raise error


def _translate(error: OSError, path: Path) -> InvalidInput | NoRoom:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(f"no room on the disk for {path}: free some and try again")
    return InvalidInput(f"{path} cannot be used ({error.strerror}): check the path and its permissions")
