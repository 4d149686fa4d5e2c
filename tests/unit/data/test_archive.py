"""An archive holds what was packed, always in the same bytes; any other is refused and leaves nothing behind."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_data_sets import Builder

from diredi.data.archive import pack, unpack
from diredi.data.dataset import load
from diredi.errors import CorruptData, DatasetError, InvalidInput, NoRoom


def test_unpacked_set_is_the_packed_one(data_set: Builder, tmp_path: Path) -> None:
    original = load(data_set())
    digest = pack(original, tmp_path / "a.zip")
    assert digest == "sha256:" + hashlib.sha256((tmp_path / "a.zip").read_bytes()).hexdigest()
    copy = unpack(tmp_path / "a.zip", tmp_path / "copy")
    assert copy.names == original.names
    for a, b in zip((*original.train, *original.val), (*copy.train, *copy.val), strict=True):
        assert np.allclose(a.boxes, b.boxes, atol=1e-6)
        assert a.image.read_bytes() == b.image.read_bytes()


def test_same_set_packs_to_the_same_bytes_whatever_the_clock_and_the_file_names_on_disk(
    data_set: Builder, tmp_path: Path
) -> None:
    original = load(data_set())
    first = pack(original, tmp_path / "a.zip")
    os.utime(original.train[0].image, (1, 1))
    assert pack(original, tmp_path / "b.zip") == first
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert "images/train/000000.jpg" in archive.namelist()


def test_set_without_val_travels(data_set: Builder, tmp_path: Path) -> None:
    only_train = load(data_set(), ("train",))
    pack(only_train, tmp_path / "a.zip")
    copy = unpack(tmp_path / "a.zip", tmp_path / "copy")
    assert (len(copy.train), len(copy.val)) == (1, 0)


def test_too_many_images_are_not_packed(data_set: Builder, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="would hold 2 images"):
        pack(load(data_set()), tmp_path / "a.zip", max_images=1)
    assert not list(tmp_path.glob("*.zip*"))


def test_lost_image_leaves_no_half_archive(data_set: Builder, tmp_path: Path) -> None:
    original = load(data_set())
    original.val[0].image.unlink()
    with pytest.raises(DatasetError, match=r"b\.jpg: image cannot be read"):
        pack(original, tmp_path / "a.zip")
    assert not list(tmp_path.glob("*.zip*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to be a full disk")
def test_full_disk_is_said_and_leaves_nothing(data_set: Builder, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(NoRoom, match=r"no room on the disk for .*a\.zip"):
        pack(load(data_set()), tmp_path / "a.zip")
    assert not list(tmp_path.glob("*.zip*"))


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/etc/evil", "images/train/../../../evil.jpg", "images/train/evil.py", "labels/train/x.txt"]
)
def test_archive_that_would_write_elsewhere_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("data.yaml", "train: images/train\nnames:\n  0: car\n")
        archive.writestr(name, "x")
    _refused(tmp_path)


@pytest.mark.parametrize("train", ["/etc", "../..", "images/train/../../.."])
def test_data_yaml_that_points_elsewhere_is_refused(data_set: Builder, tmp_path: Path, train: str) -> None:
    pack(load(data_set(), ("train",)), tmp_path / "good.zip")
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in good.namelist():
            text = good.read(name)
            archive.writestr(name, text.replace(b"images/train", train.encode()) if name == "data.yaml" else text)
    _refused(tmp_path)


@pytest.mark.parametrize("spoil", ["cut", "flip", "no zip"])
def test_damaged_archive_is_refused(data_set: Builder, tmp_path: Path, spoil: str) -> None:
    pack(load(data_set()), tmp_path / "a.zip")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    if spoil == "flip":
        data[len(data) // 3] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(
        b"text" if spoil == "no zip" else data[: len(data) // 2] if spoil == "cut" else data
    )
    _refused(tmp_path)


@pytest.mark.parametrize("how", ["deflated", "deflated and damaged", "lzma", "encrypted"])
def test_archive_that_is_not_stored_plainly_is_refused(data_set: Builder, tmp_path: Path, how: str) -> None:
    pack(load(data_set()), tmp_path / "good.zip")
    method = zipfile.ZIP_LZMA if how == "lzma" else zipfile.ZIP_DEFLATED if "deflated" in how else zipfile.ZIP_STORED
    with zipfile.ZipFile(tmp_path / "good.zip") as good, zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    data = bytearray((tmp_path / "a.zip").read_bytes())
    if how == "deflated and damaged":
        data[len("data.yaml") + 30 : len("data.yaml") + 34] = b"\xff" * 4  # where the first entry's content begins
    if how == "encrypted":
        data[data.index(b"PK\x01\x02") + 8] |= 1  # a flag in the first entry of the directory
    (tmp_path / "a.zip").write_bytes(data)
    _refused(tmp_path)


def test_archive_with_labels_outside_the_image_is_refused(data_set: Builder, tmp_path: Path) -> None:
    original = load(data_set())
    original.train[0].boxes[0, 1] = 7
    pack(original, tmp_path / "a.zip")
    _refused(tmp_path)


def test_archive_larger_than_allowed_is_refused(data_set: Builder, tmp_path: Path) -> None:
    pack(load(data_set()), tmp_path / "a.zip")
    with pytest.raises(CorruptData, match="would unpack to more than 100 bytes"):
        unpack(tmp_path / "a.zip", tmp_path / "copy", max_bytes=100)


def test_folder_that_is_there_is_left_alone(data_set: Builder, tmp_path: Path) -> None:
    pack(load(data_set()), tmp_path / "a.zip")
    (tmp_path / "copy").mkdir()
    with pytest.raises(InvalidInput, match="exists already"):
        unpack(tmp_path / "a.zip", tmp_path / "copy")


def _refused(folder: Path) -> None:
    with pytest.raises(CorruptData, match=r"a\.zip"):
        unpack(folder / "a.zip", folder / "copy")
    assert not (folder / "copy").exists()
    assert not (folder / "copy.part").exists()
    assert not (folder.parent / "evil.txt").exists()
