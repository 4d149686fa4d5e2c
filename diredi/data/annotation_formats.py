"""Read and write labelled pictures as other tools do: YOLO, COCO, CVAT, Label Studio and Pascal VOC.

    pictures = read_pictures(archive)                  # which format it is, is seen
    for name, data in write_files(dataset, "coco"): ...

Only boxes are read. A polygon or a turned box becomes the upright box around it, as everywhere here. What cannot be
used is in `Found.left_out`, a sentence each.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from diredi.data import yolo
from diredi.data.dataset import SPLITS, Dataset, Split
from diredi.data.foreign_archive import ForeignArchive
from diredi.data.images import IMAGE_SUFFIXES, image_size
from diredi.data.notes import Notes
from diredi.errors import CorruptData, DatasetError

Format = Literal["yolo", "coco", "cvat", "label-studio", "pascal-voc"]
MAX_LABEL_BYTES: Final = 64 << 20
"""Of a file with labels."""
_EDGE: Final = 0.01
"""By how much of the picture a box may reach beyond its edge, where a tool has rounded; it is cut off there."""
_CLASS_LISTS: Final = ("classes.txt", "obj.names")


class NamedBox(NamedTuple):
    """A class and a box as shares of the picture: its centre and its size."""

    name: str
    x: float
    y: float
    width: float
    height: float


class LabelledPicture(NamedTuple):
    """A picture by its name, and all that it shows."""

    name: str
    """Its path in the archive; where it is not in there, its name as the labels have it."""
    boxes: tuple[NamedBox, ...]


@dataclass
class Found:
    """What an archive says."""

    format: Format
    pictures: list[LabelledPicture] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    """What could not be used and why, a sentence each."""


def read_pictures(archive: ForeignArchive) -> Found:
    """Read the labels of an archive, in whichever format they are.

    Args:
        archive: The archive, or the one file with labels.

    Raises:
        CorruptData: The archive is damaged.
        DatasetError: It has no labels in a known format, or in more than one, or these are not what they should be.
    """
    found = _read_documents(archive)
    names = {PurePosixPath(name).name for name in archive.names}
    if not found and (names & set(_CLASS_LISTS) or any(name.endswith((".yaml", ".yml")) for name in names)):
        found = [_read_yolo(archive)]
    kinds = {one.format for one in found}
    if len(kinds) != 1:
        problem = f"labels in several formats ({', '.join(sorted(kinds))})" if kinds else "no labels in a known format"
        raise DatasetError(
            f"{problem}: pack a data set in YOLO format (with its data.yaml), COCO (JSON), CVAT for images (XML), "
            "Label Studio (JSON) or Pascal VOC (XML), with its pictures"
        )
    merged = Found(kinds.pop())
    find, seen = _finder(archive.names), set[str]()
    for one in found:
        merged.left_out += one.left_out
        for picture in one.pictures:
            name = find(picture.name)
            if name in seen:
                merged.left_out.append(f"{picture.name}: labelled twice, the first counts")
                continue
            seen.add(name)
            merged.pictures.append(LabelledPicture(name, picture.boxes))
    return merged


def write_files(dataset: Dataset, form: Format) -> Iterator[tuple[str, bytes]]:
    """Write a data set in a format, file by file.

    Args:
        dataset: Pictures and labels.
        form: The format.

    Yields:
        The path of a file in the archive, and its bytes.

    Raises:
        DatasetError: A picture cannot be read.
    """
    pictures = list(_written(dataset))
    yield from _WRITERS[form](dataset.names, pictures)
    for picture in pictures:
        yield f"{_FOLDERS[form].format(split=picture.split)}/{picture.name}", _read_file(picture.image)


# What is read


def _read_documents(archive: ForeignArchive) -> list[Found]:
    """Read all files in JSON and XML that have labels."""
    found = []
    for name in archive.names:
        suffix = PurePosixPath(name).suffix.lower()
        if suffix not in {".json", ".xml"} or "__MACOSX" in name:
            continue
        data = archive.read(name, MAX_LABEL_BYTES)
        try:
            one = _read_json(data) if suffix == ".json" else _read_xml(data, PurePosixPath(name).stem)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError) as error:
            why = f"{type(error).__name__}: {error}"[:200]
            raise DatasetError(
                f"its labels are not as the format has them ({why}): export them anew", Path(name)
            ) from None
        if one is not None:
            found.append(one)
    return found


def _read_json(data: bytes) -> Found | None:
    said = json.loads(data)
    if isinstance(said, dict) and {"images", "annotations", "categories"} <= set(said):
        return _read_coco(said)
    if isinstance(said, list) and said and all(isinstance(task, dict) and "data" in task for task in said):
        return _read_label_studio(said)
    return None


def _read_coco(said: dict[str, Any]) -> Found:
    found, names = Found("coco"), {one["id"]: str(one["name"]) for one in said["categories"]}
    boxes: defaultdict[Any, list[NamedBox | str]] = defaultdict(list)
    sizes = {one["id"]: (float(one["width"]), float(one["height"]), str(one["file_name"])) for one in said["images"]}
    crowds = 0
    for one in said["annotations"]:
        if one.get("iscrowd"):
            crowds += 1
            continue
        width, height, _ = sizes[one["image_id"]]
        left, top, wide, high = (float(value) for value in one["bbox"])
        boxes[one["image_id"]].append(
            _box(names[one["category_id"]], left, top, left + wide, top + high, width, height)
        )
    if crowds:
        found.left_out.append(f"{crowds} boxes of crowds (iscrowd), which are many objects in one")
    for key, (_, _, name) in sizes.items():
        _add(found, name, boxes[key])
    return found


def _read_label_studio(tasks: list[dict[str, Any]]) -> Found:
    found = Found("label-studio")
    for task in tasks:
        place = next((str(value) for key, value in task["data"].items() if key in {"image", "img", "picture"}), None)
        place = place or next(str(v) for v in task["data"].values() if _has_image_suffix(str(v)))
        name = _name_in_url(place)
        answers = [one for one in task.get("annotations", ()) if not one.get("was_cancelled")]
        if not answers:
            found.left_out.append(f"{name}: nobody has labelled it")
            continue
        boxes = []
        for result in answers[-1]["result"]:
            value = result.get("value", {})
            if result.get("type") == "rectanglelabels":
                left, top, wide, high = (float(value[key]) for key in ("x", "y", "width", "height"))
                points = _turned(left, top, wide, high, float(value.get("rotation") or 0), result)
            elif result.get("type") == "polygonlabels":
                points = [(float(x), float(y)) for x, y in value["points"]]
            else:
                found.left_out.append(f"{name}: a label of type {str(result.get('type'))[:40]!r}, which is no box")
                continue
            (label,) = value[result["type"]]
            boxes.append(_around(str(label), points, 100, 100))
        _add(found, name, boxes)
    return found


def _turned(
    left: float, top: float, wide: float, high: float, degrees: float, result: dict[str, Any]
) -> list[tuple[float, float]]:
    """Return the corners of a box in percent that is turned around its upper left corner, in pixels."""
    corners = [(0.0, 0.0), (wide, 0.0), (wide, high), (0.0, high)]
    if not degrees:
        return [(left + x, top + y) for x, y in corners]
    ratio = float(result["original_height"]) / float(result["original_width"])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(left + x * cos - y * ratio * sin, top + x / ratio * sin + y * cos) for x, y in corners]


class _NoDoctype(ET.TreeBuilder):
    """Build a tree of XML that defines nothing: entities are how a small file becomes a large one."""

    def doctype(self, *_: object) -> None:
        raise CorruptData("a file in XML has a document type, which no labels need: export them anew")


def _read_xml(data: bytes, stem: str) -> Found | None:
    try:
        root = ET.fromstring(data, ET.XMLParser(target=_NoDoctype()))
    except (ET.ParseError, LookupError) as error:
        raise ValueError(f"no XML: {error}") from None
    if root.tag == "annotations":
        return _read_cvat(root)
    return _read_voc(root, stem) if root.tag == "annotation" else None


def _read_cvat(root: ET.Element) -> Found:
    if root.find("track") is not None:
        raise ValueError("this is CVAT for video; export it as `CVAT for images`")
    found = Found("cvat")
    for image in root.iter("image"):
        name, width, height = image.attrib["name"], float(image.attrib["width"]), float(image.attrib["height"])
        boxes = []
        for shape in image:
            at = shape.attrib
            if shape.tag == "box":
                left, top, right, bottom = (float(at[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
                points = _turned_around_centre(left, top, right, bottom, float(at.get("rotation", 0)))
            elif shape.tag == "polygon":
                points = [(float(x), float(y)) for x, y in (pair.split(",") for pair in at["points"].split(";"))]
            else:
                if shape.tag != "tag":
                    found.left_out.append(f"{name}: a {shape.tag[:40]}, which is no box")
                continue
            boxes.append(_around(at["label"], points, width, height))
        _add(found, name, boxes)
    return found


def _turned_around_centre(
    left: float, top: float, right: float, bottom: float, degrees: float
) -> list[tuple[float, float]]:
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y, a, b = (left + right) / 2, (top + bottom) / 2, (right - left) / 2, (bottom - top) / 2
    return [(x + i * a * cos - j * b * sin, y + i * a * sin + j * b * cos) for i in (-1, 1) for j in (-1, 1)]


def _read_voc(root: ET.Element, stem: str) -> Found:
    found = Found("pascal-voc")
    name = root.findtext("filename") or stem
    width, height = (float(root.findtext(f"size/{side}") or "") for side in ("width", "height"))
    boxes = []
    for one in root.iter("object"):
        left, top, right, bottom = (float(one.findtext(f"bndbox/{k}") or "") for k in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append(_box(one.findtext("name") or "", left, top, right, bottom, width, height))
    _add(found, name, boxes)
    return found


def _read_yolo(archive: ForeignArchive) -> Found:
    found, description = Found("yolo"), _yolo_names(archive)
    names = set(archive.names)

    def fault(error: DatasetError) -> None:
        raise error

    for image in (name for name in archive.names if _has_image_suffix(name) and "__MACOSX" not in name):
        label = next((n for n in (_label_of(image), str(PurePosixPath(image).with_suffix(".txt"))) if n in names), None)
        if label is None:
            found.left_out.append(
                f"{image}: nobody has labelled it (there is no label file; an empty one says: nothing)"
            )
            continue
        try:
            lines = archive.read(label, MAX_LABEL_BYTES).decode("utf-8-sig").splitlines()
            rows = yolo.parse_labels(lines, Path(label), description, fault, Notes())
        except (DatasetError, UnicodeDecodeError) as error:
            found.left_out.append(f"{image}: {error}"[:300])
            continue
        _add(found, image, [_clipped(description.names[int(row[0])], *(float(v) for v in row[1:])) for row in rows])
    return found


def _label_of(image: str) -> str:
    return yolo.label_file_of(Path(image)).as_posix()


def _yolo_names(archive: ForeignArchive) -> yolo.Description:
    """Read the class names with the reader that reads a data.yaml on disk; nothing that it names is looked at."""
    descriptions = [name for name in archive.names if name.endswith((".yaml", ".yml")) and "__MACOSX" not in name]
    lists = [name for name in archive.names if PurePosixPath(name).name in _CLASS_LISTS]
    name = next(iter(sorted(descriptions, key=lambda n: PurePosixPath(n).name != "data.yaml") or lists))
    try:
        text = archive.read(name, 1 << 20).decode("utf-8-sig")
        if descriptions and any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise DatasetError("it refers to parts of itself, by which a small file becomes a large one", Path(name))
    except UnicodeDecodeError:
        raise DatasetError("this is not text in UTF-8: export it anew", Path(name)) from None
    except (yaml.YAMLError, RecursionError):
        raise DatasetError("this is not YAML: export it anew", Path(name)) from None
    if not descriptions:
        text = yolo.description_text(line.strip() for line in text.splitlines() if line.strip())

    def fault(error: DatasetError) -> None:
        raise error

    with tempfile.TemporaryDirectory(prefix="diredi-import-") as folder:
        path = Path(folder) / "data.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return yolo.read_description(path, fault, Notes())
        except DatasetError as error:
            raise DatasetError(str(error).replace(str(path), name)) from None


def _finder(names: Sequence[str]) -> Callable[[str], str]:
    """Return a function from a picture's name, as labels have it, to its path in the archive, or to itself."""
    images = [name for name in names if _has_image_suffix(name) and "__MACOSX" not in name]
    exact, by_name = set(images), defaultdict[str, list[str]](list)
    by_stem = defaultdict[str, list[str]](list)
    for image in images:
        by_name[PurePosixPath(image).name].append(image)
        by_stem[PurePosixPath(image).stem].append(image)

    def find(wanted: str) -> str:
        name = PurePosixPath(wanted.replace("\\", "/")).name
        # Label Studio puts eight digits before the name of what is uploaded.
        for candidates in (by_name[name], by_name[re.sub(r"^[0-9a-f]{8}-", "", name)], by_stem[name]):
            ending = [one for one in candidates if one.endswith(wanted.lstrip("./"))]
            if len(candidates) == 1 or len(ending) == 1:
                return (ending or candidates)[0]
        return wanted

    return lambda wanted: wanted if wanted in exact else find(wanted)


def _name_in_url(place: str) -> str:
    """Return the path of a picture of Label Studio's, which names it by a URL."""
    parts = urlsplit(place)
    return unquote(parse_qs(parts.query).get("d", [parts.path])[0])


def _has_image_suffix(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _add(found: Found, name: str, boxes: Sequence[NamedBox | str]) -> None:
    """Add a picture unless one of its boxes cannot be: without it, the picture would teach that nothing is there."""
    problem = next((box for box in boxes if isinstance(box, str)), None)
    if problem is not None:
        found.left_out.append(f"{name}: {problem}")
    else:
        found.pictures.append(LabelledPicture(name, tuple(box for box in boxes if isinstance(box, NamedBox))))


def _around(name: str, points: Sequence[tuple[float, float]], width: float, height: float) -> NamedBox | str:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return _box(name, min(xs), min(ys), max(xs), max(ys), width, height)


def _box(
    name: str, left: float, top: float, right: float, bottom: float, width: float, height: float
) -> NamedBox | str:
    if not (width > 0 and height > 0):
        return f"its size is told as {width:g} x {height:g}"
    return _clipped(
        name, (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height
    )


def _clipped(name: str, x: float, y: float, width: float, height: float) -> NamedBox | str:
    """Return a box cut off at the edge of the picture, or why it cannot be."""
    sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    if not all(map(math.isfinite, sides)) or not (width > 0 and height > 0):
        return f"a box of {name[:64]!r} has no area"
    if min(sides) < -_EDGE or max(sides) > 1 + _EDGE:
        return f"a box of {name[:64]!r} reaches beyond the edge of the picture"
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in sides)
    return NamedBox(name, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)


# What is written


@dataclass(frozen=True)
class _Written:
    """A picture as files name it."""

    split: Split
    name: str
    image: Path
    width: int
    height: int
    boxes: list[tuple[int, float, float, float, float]]
    """Class id, and left, top, width and height in pixels."""
    rows: yolo.Boxes


def _written(dataset: Dataset) -> Iterator[_Written]:
    taken = set[str]()
    for split in SPLITS:
        for number, sample in enumerate(dataset.split(split)):
            name = sample.image.name
            if PurePosixPath(name).stem in taken:
                name = f"{split}-{number:06}-{name}"
            taken.add(PurePosixPath(name).stem)
            width, height = image_size(_read_file(sample.image))
            boxes = [
                (int(k), (x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
                for k, x, y, w, h in sample.boxes.tolist()
            ]
            yield _Written(split, name, sample.image, width, height, boxes, sample.boxes)


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"image cannot be read ({error.strerror}): restore it", path) from None


_Files = Iterator[tuple[str, bytes]]


def _write_yolo(names: tuple[str, ...], pictures: list[_Written]) -> _Files:
    splits = [split for split in SPLITS if any(one.split == split for one in pictures)]
    yield "data.yaml", yolo.description_text(names, splits).encode()
    for one in pictures:
        yield f"labels/{one.split}/{PurePosixPath(one.name).stem}.txt", yolo.labels_text(one.rows).encode()


def _write_coco(names: tuple[str, ...], pictures: list[_Written]) -> _Files:
    for split in SPLITS:
        mine = [one for one in pictures if one.split == split]
        if not mine:
            continue
        boxes = [(number, box) for number, one in enumerate(mine, 1) for box in one.boxes]
        said = {
            "images": [
                {"id": number, "file_name": one.name, "width": one.width, "height": one.height}
                for number, one in enumerate(mine, 1)
            ],
            "annotations": [
                {
                    "id": number, "image_id": image, "category_id": box[0] + 1, "bbox": [round(v, 3) for v in box[1:]],
                    "area": round(box[3] * box[4], 3), "iscrowd": 0,
                }
                for number, (image, box) in enumerate(boxes, 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        }  # fmt: skip
        yield f"annotations/instances_{split}.json", json.dumps(said, ensure_ascii=False).encode()


def _write_cvat(names: tuple[str, ...], pictures: list[_Written]) -> _Files:
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    for number, one in enumerate(pictures):
        image = ET.SubElement(
            root, "image", id=str(number), name=one.name, subset=one.split, width=str(one.width), height=str(one.height)
        )
        for kind, left, top, wide, high in one.boxes:
            ET.SubElement(
                image, "box", label=names[kind], occluded="0", source="manual", xtl=f"{left:.2f}", ytl=f"{top:.2f}",
                xbr=f"{left + wide:.2f}", ybr=f"{top + high:.2f}", z_order="0",
            )  # fmt: skip
    yield "annotations.xml", _xml(root)


def _write_label_studio(names: tuple[str, ...], pictures: list[_Written]) -> _Files:
    tasks = []
    for number, one in enumerate(pictures, 1):
        size = {"original_width": one.width, "original_height": one.height, "image_rotation": 0}
        link = {"type": "rectanglelabels", "from_name": "label", "to_name": "image"}
        results = [
            link | size | {"id": f"{number}-{place}", "value": {
                "x": 100 * left / one.width, "y": 100 * top / one.height, "width": 100 * wide / one.width,
                "height": 100 * high / one.height, "rotation": 0, "rectanglelabels": [names[kind]],
            }}
            for place, (kind, left, top, wide, high) in enumerate(one.boxes)
        ]  # fmt: skip
        data = {"image": f"/data/local-files/?d=images/{one.name}", "split": one.split}
        tasks.append({"id": number, "data": data, "annotations": [{"result": results}]})
    yield "tasks.json", json.dumps(tasks, ensure_ascii=False).encode()
    view = ET.Element("View")
    ET.SubElement(view, "Image", name="image", value="$image")
    labels = ET.SubElement(view, "RectangleLabels", name="label", toName="image")
    for name in names:
        ET.SubElement(labels, "Label", value=name)
    yield "label-config.xml", _xml(view)


def _write_voc(names: tuple[str, ...], pictures: list[_Written]) -> _Files:
    for split in SPLITS:
        stems = [PurePosixPath(one.name).stem for one in pictures if one.split == split]
        yield f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems).encode()
    for one in pictures:
        root = ET.Element("annotation")
        ET.SubElement(root, "folder").text = "JPEGImages"
        ET.SubElement(root, "filename").text = one.name
        size = ET.SubElement(root, "size")
        for tag, value in (("width", one.width), ("height", one.height), ("depth", 3)):
            ET.SubElement(size, tag).text = str(value)
        for kind, left, top, wide, high in one.boxes:
            thing = ET.SubElement(root, "object")
            ET.SubElement(thing, "name").text = names[kind]
            ET.SubElement(thing, "difficult").text = "0"
            box = ET.SubElement(thing, "bndbox")
            for tag, place in (("xmin", left), ("ymin", top), ("xmax", left + wide), ("ymax", top + high)):
                ET.SubElement(box, tag).text = f"{place:.2f}"
        yield f"Annotations/{PurePosixPath(one.name).stem}.xml", _xml(root)


def _xml(root: ET.Element) -> bytes:
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


_WRITERS: Final[dict[Format, Callable[[tuple[str, ...], list[_Written]], _Files]]] = {
    "yolo": _write_yolo,
    "coco": _write_coco,
    "cvat": _write_cvat,
    "label-studio": _write_label_studio,
    "pascal-voc": _write_voc,
}
_FOLDERS: Final[dict[Format, str]] = {
    "yolo": "images/{split}",
    "coco": "images/{split}",
    "cvat": "images",
    "label-studio": "images",
    "pascal-voc": "JPEGImages",
}
