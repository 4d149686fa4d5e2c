"""Odd data sets and images are read as Ultralytics' own classes read them: the same images, boxes, names and pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from made_data_sets import write_image
from PIL import Image

from diredi.data.dataset import Split, check, load
from diredi.data.images import read_image

BOX = "0 0.5 0.4 0.2 0.1\n"
OTHER = "1 0.25 0.75 0.5 0.25\n"
POSE = " 0.5 0.5 2" * 17

Make = Callable[[Path], Path]
Rows = dict[Path, list[tuple[str, ...]]]


def write(root: Path, images: dict[str, str | None]) -> None:
    """An image each, and its label file unless None."""
    for number, (name, text) in enumerate(images.items()):
        write_image(root / name, number)
        if text is not None:
            folder, _, file = name.rpartition("/")
            label = (
                root / "labels".join(f"/{folder}".rsplit("images", 1)).lstrip("/") / f"{file.rpartition('.')[0]}.txt"
            )
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(text.encode())


def describe(root: Path, name: str = "data.yaml", **values: object) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {"train": "images/train", "val": "images/val", "names": ["car", "truck"], **values}
    kept = {key: value for key, value in whole.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, allow_unicode=True), encoding="utf-8")
    return path


def plain(root: Path, train: str = BOX + OTHER, **values: object) -> Path:
    write(root, {"images/train/a.jpg": train, "images/train/b.png": BOX, "images/val/c.jpg": OTHER})
    return describe(root, **values)


def roboflow(root: Path) -> Path:
    write(root, {"train/images/a_jpg.rf.0a1b.jpg": BOX, "valid/images/b_jpg.rf.0a1b.jpg": OTHER})
    return describe(root, train="../train/images", val="../valid/images", nc=2)


def path_from_the_current_folder(root: Path) -> Path:
    plain(root / "set")
    return describe(root / "elsewhere", path="set")


def absolute_path(root: Path) -> Path:
    plain(root / "set")
    return describe(root / "elsewhere", path=str(root / "set"))


def list_beside(root: Path) -> Path:
    path = plain(root, train=BOX)
    (root / "train.txt").write_bytes(b"\xef\xbb\xbf./images/train/b.png\r\n\r\n./images/train/a.jpg\r\n")
    return describe(root, train="train.txt", path=str(path.parent))


def list_from_the_current_folder(root: Path) -> Path:
    plain(root / "data")
    (root / "train.txt").write_text("data/images/train/a.jpg\ndata/images/train/b.png\n")
    return describe(root, train="train.txt", val="data/images/val")


def image_named_twice(root: Path) -> Path:
    plain(root)
    (root / "train.txt").write_text("./images/train/a.jpg\n./images/train/a.jpg\n")
    return describe(root, train="train.txt")


def folders_that_overlap(root: Path) -> Path:
    write(root, {"images/train/a.jpg": BOX, "images/train/cam/b.jpg": OTHER, "images/val/c.jpg": BOX})
    return describe(root, train=["images/train", "images/train/cam"])


def nested_folders_called_images(root: Path) -> Path:
    write(root, {"images/train/images/a.jpg": BOX, "images/val/images/b.jpg": OTHER})
    return describe(root)


def labels_beside_images(root: Path) -> Path:
    write(root, {"train/a.jpg": None, "val/b.jpg": None})
    (root / "train/a.txt").write_text(BOX)
    (root / "val/b.txt").write_text(OTHER)
    return describe(root, train="train", val="val")


def suffixes(root: Path) -> Path:
    write(root, {"images/train/A.JPG": BOX, "images/train/b.c.PnG": OTHER, "images/val/c.jpg": BOX})
    write_image(root / "images/train/A.png")
    return describe(root)


def hidden_files(root: Path) -> Path:
    path = plain(root)
    for name in (".ipynb_checkpoints/a-checkpoint.jpg", ".thumbnails/a.jpg", ".hidden.jpg"):
        write_image(root / "images/train" / name)
    (root / "images/train/._a.jpg").write_bytes(b"\x00\x05\x16\x07 Mac OS X")
    (root / "images/train/__MACOSX").mkdir()
    (root / "images/train/__MACOSX/._a.jpg").write_bytes(b"\x00\x05\x16\x07 Mac OS X")
    (root / "images/train/Thumbs.db").write_bytes(b"x")
    return path


def linked_folder_of_a_camera(root: Path) -> Path:
    write(root, {"images/train/a.jpg": BOX, "images/val/c.jpg": OTHER})
    write_image(root / "disk/cam1/b.jpg")
    (root / "images/train/cam1").symlink_to(root / "disk/cam1")
    (root / "labels/train/cam1").mkdir()
    (root / "labels/train/cam1/b.txt").write_text(OTHER)
    return describe(root)


def linked_split(root: Path) -> Path:
    plain(root / "disk")
    (root / "images").symlink_to(root / "disk/images")
    return describe(root)


def other_scripts(root: Path) -> Path:
    write(
        root, {"images/обучение 1/图片#%20&.jpg": BOX, "images/обучение 1/кадр (1).jpg": OTHER, "images/val/c.jpg": BOX}
    )
    return describe(root, train="images/обучение 1", names=["Auto 🚗", "грузовик"])


def background(root: Path) -> Path:
    write(
        root, {"images/train/a.jpg": BOX, "images/train/b.jpg": "", "images/train/c.jpg": None, "images/val/d.jpg": BOX}
    )
    return describe(root)


SETS: dict[str, Make] = {
    "as usual": plain,
    "Roboflow": roboflow,
    "path from the current folder": path_from_the_current_folder,
    "absolute path": absolute_path,
    "list with ./": list_beside,
    "list from the current folder": list_from_the_current_folder,
    "image named twice": image_named_twice,
    "folders that overlap": folders_that_overlap,
    "nested folders": nested_folders_called_images,
    "labels beside images": labels_beside_images,
    "suffixes": suffixes,
    "hidden files": hidden_files,
    "linked folder": linked_folder_of_a_camera,
    "linked split": linked_split,
    "other scripts": other_scripts,
    "background": background,
    "validation:": lambda root: plain(root, val=None, validation="images/val"),
    "list of folders": lambda root: plain(root, val=["images/val"]),
    "val is train": lambda root: plain(root, val="images/train"),
    "BOM and CRLF": lambda root: plain(root, "\ufeff0 0.5 0.4 0.2 0.1\r\n\r\n1\t0.25  0.75 0.5 0.25 \r\n"),
    "scientific numbers": lambda root: plain(root, "0 5e-1 .4 2.0E-01 1e-1\n1.0 0.25 0.75 0.5 0.25"),
    "rounded outwards": lambda root: plain(root, "0 0.5 0.5 1.000001 0.4\n1 -0.0000003 0.5 0.1 0.2\n"),
    "line given twice": lambda root: plain(root, BOX + OTHER + BOX),
    "polygons": lambda root: plain(root, "0 0.1 0.2 0.5 0.2 0.5 0.8\n1 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3\n"),
    "turned boxes": lambda root: plain(root, "0 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5\n"),
    "polygons with one box": lambda root: plain(root, "0 .3 .3 .7 .3 .7 .7 .3 .7\n0 .3 .3 .7 .7 .3 .7 .7 .3\n" * 2),
    "polygon that leaves the image": lambda root: plain(root, "0 -0.2 0.2 0.5 0.2 0.5 0.8\n"),
    "17 key points": lambda root: plain(root, f"0 0.5 0.5 0.4 0.4{POSE}\n{BOX}", kpt_shape=[17, 3]),
    "4 key points": lambda root: plain(root, "0 .5 .5 .2 .2 .4 .4 .6 .4 .6 .6 .4 .6\n", kpt_shape=[4, 2]),
    "names by number": lambda root: plain(root, names={1: "truck", 0: "car"}),
    "names by quoted number": lambda root: plain(root, names={"0": "car", "1": "truck"}),
    "names that are no text": lambda root: plain(root, names=[True, 7]),
    "one name for two classes": lambda root: plain(root, names=["car", "car"]),
    "number of classes alone": lambda root: plain(root, names=None, nc=2),
    "number of classes as text": lambda root: plain(root, nc="2"),
}


@pytest.fixture(autouse=True)
def _ultralytics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its settings are in the test's folder, and it fetches no fonts."""
    utils = pytest.importorskip("ultralytics.data.utils")
    monkeypatch.setattr(utils, "check_font", lambda font: None)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("YOLO_CONFIG_DIR", raising=False)


def theirs(path: Path, split: Split) -> Rows:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(path, autodownload=False)
    found = YOLODataset(img_path=data[split], data=data, task="detect", augment=False, imgsz=64)
    rows: Rows = {}
    for label in found.labels:
        table = np.concatenate([label["cls"], label["bboxes"]], 1)
        rows.setdefault(Path(label["im_file"]).resolve(), []).extend(_rows(table, list(data["names"].values())))
    return {image: sorted(boxes) for image, boxes in rows.items()}


def ours(path: Path, split: Split) -> Rows:
    found = load(path)
    rows: Rows = {}
    for sample in found.split(split):
        rows.setdefault(sample.image.resolve(), []).extend(_rows(sample.boxes, found.names))
    return {image: sorted(boxes) for image, boxes in rows.items()}


def _rows(table: np.ndarray, names: tuple[str, ...] | list[str]) -> list[tuple[str, ...]]:
    """Class name and box, to five places: what is rounded outwards is clipped here and in their training."""
    return [(names[int(row[0])], *(f"{abs(round(float(value), 5)):g}" for value in row[1:])) for row in table]


@pytest.mark.parametrize("name", SETS)
def test_same_images_with_the_same_boxes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "odd set"
    root.mkdir()
    path = SETS[name](root)
    monkeypatch.chdir(root)
    for split in ("train", "val"):
        expected = theirs(path, split)
        assert expected, "a set that Ultralytics does not read is no measure"
        assert ours(path, split) == expected
    assert check(path).ok


def _noise(*shape: int, high: int = 255) -> np.ndarray:
    kind = np.uint8 if high < 256 else np.uint16
    return np.random.default_rng(0).integers(0, high, shape, kind)


IMAGES: dict[str, Callable[[Path], object]] = {
    "turned.jpg": lambda path: _save(path, "RGB", turned=True),
    "turned.png": lambda path: _save(path, "RGB", turned=True),
    "turned.webp": lambda path: _save(path, "RGB", turned=True),
    "turned.tif": lambda path: _save(path, "RGB", turned=True),
    "turned.avif": lambda path: _save(path, "RGB", turned=True),
    "colour.bmp": lambda path: _save(path, "RGB"),
    "colour.jp2": lambda path: _save(path, "RGB"),
    "colour.mpo": lambda path: _save(path, "RGB"),
    "print.jpg": lambda path: _save(path, "CMYK"),
    "grey.jpg": lambda path: _save(path, "L"),
    "palette.png": lambda path: _save(path, "P"),
    "bits.png": lambda path: _save(path, "1"),
    "alpha.png": lambda path: _save(path, "RGBA"),
    "grey alpha.png": lambda path: _save(path, "LA"),
    "alpha.tif": lambda path: _save(path, "RGBA"),
    "palette.tif": lambda path: _save(path, "P"),
    "print.tif": lambda path: _save(path, "CMYK"),
    "16 bits.png": lambda path: cv2.imwrite(str(path), _noise(24, 32, 3, high=65535)),
    "12 bits.png": lambda path: cv2.imwrite(str(path), _noise(24, 32, high=4095)),
    "16 bits.tif": lambda path: cv2.imwrite(str(path), _noise(24, 32, 3, high=65535)),
    "16 bits grey.tiff": lambda path: cv2.imwrite(str(path), _noise(24, 32, high=65535)),
    "strip.png": lambda path: cv2.imwrite(str(path), _noise(2, 3000, 3)),
    "one pixel.png": lambda path: cv2.imwrite(str(path), _noise(1, 1, 3)),
    "a png.jpg": lambda path: path.write_bytes(cv2.imencode(".png", _noise(24, 32, 3))[1].tobytes()),
}


def _save(path: Path, mode: str, turned: bool = False) -> None:
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    image = Image.fromarray(_noise(24, 32, 4)).convert("RGB")
    image = Image.fromarray(_noise(24, 32, 4)) if mode == "RGBA" else image.convert(mode)
    image.save(path, **({"exif": exif} if turned else {}))


@pytest.mark.parametrize("name", IMAGES)
def test_same_pixels(name: str, tmp_path: Path) -> None:
    from ultralytics.utils.patches import imread

    IMAGES[name](tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name), imread(tmp_path / name))


def test_a_place_of_a_split_that_only_exists_in_the_current_folder_is_named_if_both_could_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plain(tmp_path / "set", path=".")
    plain(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    found = load(path)
    assert found.root == tmp_path / "set"
    assert any(f"Ultralytics would here take {os.fspath(tmp_path / 'here')}" in note for note in found.notes)
