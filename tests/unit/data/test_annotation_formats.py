"""Labels of other tools: written and read again, as the tools write them, and as somebody who means harm does."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

from diredi.data.annotation_formats import Format, NamedBox, read_pictures, write_files
from diredi.data.archive import zip_pieces
from diredi.data.dataset import Dataset, Sample
from diredi.data.foreign_archive import ForeignArchive
from diredi.errors import CorruptData, DatasetError, DirediError


def a_zip(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def jpeg(width: int = 80, height: int = 40) -> bytes:
    return bytes(cv2.imencode(".jpg", np.full((height, width, 3), 90, np.uint8))[1])


@pytest.mark.parametrize("form", get_args(Format))
def test_what_is_exported_is_imported_again_as_it_was(form: Format, tmp_path: Path) -> None:
    boxes = {"a": [[1, 0.5, 0.5, 0.25, 0.5], [0, 0.2, 0.25, 0.1, 0.1]], "b": []}
    samples = []
    for name, rows in boxes.items():
        (tmp_path / f"{name}.jpg").write_bytes(jpeg())
        samples.append(Sample(tmp_path / f"{name}.jpg", np.asarray(rows, np.float32).reshape(-1, 5)))
    dataset = Dataset(tmp_path, ("pallet <jack>", "fork lift"), samples[:1], samples[1:])
    path = tmp_path / "export.zip"
    path.write_bytes(b"".join(zip_pieces(write_files(dataset, form))))
    archive = ForeignArchive(path)
    found = read_pictures(archive)
    assert found.format == form and found.left_out == []
    by_name = {Path(one.name).name: one.boxes for one in found.pictures}
    assert by_name["b.jpg"] == ()
    names = [box.name for box in by_name["a.jpg"]]
    assert names == ["fork lift", "pallet <jack>"]
    for box, row in zip(by_name["a.jpg"], boxes["a"], strict=True):
        assert box[1:] == pytest.approx(row[1:], abs=0.001)
    assert all(archive.read(one.name, 10_000) == jpeg() for one in found.pictures), "pictures are found by their labels"
    archive.close()


def test_what_the_tools_themselves_write_is_read(tmp_path: Path) -> None:
    box = {"x": 25, "y": 50, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["car"]}
    task = {
        "data": {"image": "/data/upload/3/0a1b2c3d-yard%201.jpg"},
        "annotations": [{"result": [{"type": "rectanglelabels", "value": box}, {"type": "choices", "value": {}}]}],
    }
    unlabelled = {"data": {"image": "/data/upload/3/0a1b2c3d-b.jpg"}, "annotations": []}
    a_zip(tmp_path / "ls.zip", {"result.json": json.dumps([task, unlabelled]), "yard 1.jpg": jpeg()})
    found = read_pictures(ForeignArchive(tmp_path / "ls.zip"))
    assert found.pictures == [("yard 1.jpg", (NamedBox("car", 0.5, 0.75, 0.5, 0.5),))]
    assert ["choices" in found.left_out[0], "nobody has labelled" in found.left_out[1]] == [True, True]

    turned = (
        '<box label="car" xtl="30" ytl="15" xbr="50" ybr="25" rotation="90.0"/><polyline label="car" points="1,1"/>'
    )
    cvat = f'<annotations><meta/><image id="0" name="sub/a.jpg" width="80" height="40">{turned}</image></annotations>'
    (picture,) = read_pictures(ForeignArchive(a_zip(tmp_path / "c.zip", {"annotations.xml": cvat}))).pictures
    assert picture.boxes[0][1:] == pytest.approx((0.5, 0.5, 10 / 80, 20 / 40))

    polygon = "0 0.1 0.1 0.3 0.1 0.3 0.5\n"
    darknet = {"obj.names": "car\nbus\n", "obj_train_data/a.jpg": jpeg(), "obj_train_data/a.txt": polygon}
    found = read_pictures(ForeignArchive(a_zip(tmp_path / "d.zip", darknet | {"obj_train_data/b.jpg": jpeg()})))
    assert found.pictures[0].boxes[0][1:] == pytest.approx((0.2, 0.3, 0.2, 0.4))
    assert "b.jpg: nobody has labelled it" in found.left_out[0]

    roboflow = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 80, "height": 40}],
        "categories": [{"id": 3, "name": "car"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "bbox": [70, 0, 10.5, 40.2]},
            {"image_id": 7, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    (tmp_path / "alone.json").write_text(json.dumps(roboflow))
    found = read_pictures(ForeignArchive(tmp_path / "alone.json"))
    assert found.pictures[0].boxes[0][3:] == pytest.approx((10 / 80, 1.0)), "it is cut off at the edge"
    assert "crowds" in found.left_out[0]


def with_entries(path: Path, count: int) -> Path:
    """A directory alone, as whoever only wants to do harm writes it."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, count * len(entry), 0, 0)
    path.write_bytes(entry * count + end)
    return path


def linked(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        link = zipfile.ZipInfo("labels.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return path


def lying(path: Path) -> Path:
    """The directory says less than what the file unpacks to."""
    a_zip(path, {"a.json": b"[" + b" " * (1 << 20)})
    data = bytearray(path.read_bytes())
    at = data.rfind(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<L", 10)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda p: a_zip(p, {"../../etc/cron.d/x": "x"}), "leads out of its folder"),
        (lambda p: a_zip(p, {"/etc/x": "x"}), "leads out of its folder"),
        (lambda p: a_zip(p, {"C:\\x": "x"}), "leads out of its folder"),
        (lambda p: a_zip(p, {"a.json": b" " * (40 << 20)}), "unpacks to more than 200 times"),
        (linked, "a link"),
        (lying, "damaged"),
        (lambda p: with_entries(p, 50_001), "50,001 files"),
        (lambda p: with_entries(p, 400_000), "too many files"),
        (lambda p: p.write_bytes(b"PK\x03\x04 and nothing else") and p, "no zip file"),
        (lambda p: a_zip(p, {"a.xml": '<!DOCTYPE a [<!ENTITY b "ha">]><annotation>&b;</annotation>'}), "document type"),
        (lambda p: a_zip(p, {"data.yaml": "a: &a [x]\nnames: [*a, *a]\n"}), "refers to parts of itself"),
        (lambda p: a_zip(p, {"a.json": "[" * 100_000}), "not as the format has them"),
        (lambda p: a_zip(p, {"a.json": '{"images": [{}], "annotations": [], "categories": []}'}), "not as the format"),
        (lambda p: a_zip(p, {"a.xml": "<annotation>"}), "not as the format"),
        (lambda p: a_zip(p, {"a.xml": "<annotations><track/></annotations>"}), "CVAT for images"),
        (lambda p: a_zip(p, {"readme.txt": "hello"}), "no labels in a known format"),
    ],
)  # fmt: skip
def test_archives_that_would_do_harm_are_refused_with_a_reason(make, why: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.zip")
    with pytest.raises((CorruptData, DatasetError), match=why):
        read_pictures(ForeignArchive(path))


def test_damaged_archives_are_refused_and_never_break_the_service(tmp_path: Path) -> None:
    box = '<box label="c" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    cvat = f'<annotations><image id="0" name="a.jpg" width="8" height="8">{box}</image></annotations>'
    whole = a_zip(tmp_path / "whole.zip", {"annotations.xml": cvat, "a.jpg": jpeg()}).read_bytes()
    random = np.random.default_rng(3)
    for _ in range(100):
        broken = bytearray(whole)
        for place in random.integers(0, len(broken), 3):
            broken[place] = random.integers(256)
        (tmp_path / "broken.zip").write_bytes(broken)
        try:
            archive = ForeignArchive(tmp_path / "broken.zip")
            for picture in read_pictures(archive).pictures:
                if picture.name in archive.names:
                    archive.read(picture.name, 1 << 20)
        except DirediError:
            continue


def test_a_box_that_cannot_be_leaves_its_picture_out_and_says_so(tmp_path: Path) -> None:
    voc = (
        "<annotation><filename>{}</filename><size><width>80</width><height>40</height></size><object><name>car</name>"
        "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox></object></annotation>"
    )
    files = {"Annotations/a.xml": voc.format("a.jpg", 5, 120), "Annotations/b.xml": voc.format("b.jpg", 9, 9)}
    found = read_pictures(
        ForeignArchive(a_zip(tmp_path / "v.zip", files | {"Annotations/c.xml": voc.format("c.jpg", 1, 9)}))
    )
    assert [one.name for one in found.pictures] == ["c.jpg"]
    assert "beyond the edge" in found.left_out[0] and "no area" in found.left_out[1]
