"""What is wrong with a data set is said with the file and the line, by `load` at once and by `check` all together."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_data_sets import Builder, write_image

from diredi.data.dataset import check, load
from diredi.data.images import decode_image, read_image
from diredi.errors import DatasetError, InvalidInput

GOOD = "0 0.5 0.5 0.2 0.2\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 1.2 0.5 0.2 0.2", "1.2 is outside [0, 1]"),
        ("0 0.5 -0.1 0.2 0.2", "-0.1 is outside [0, 1]"),
        ("0 1.011 0.5 0.2 0.2", "1.011 is outside [0, 1]"),
        ("0 0.5 0.5 -0.001 0.2", "-0.001 is outside [0, 1]"),
        ("0 nan 0.5 0.2 0.2", "is not finite numbers"),
        ("0 0.1 0.1 0.9 nan 0.5 0.5", "is not finite numbers"),
        ("0 0.1 0.1 1.3 0.1 0.5 0.5", "a polygon's box with 1.2 is outside"),
        ("2 0.5 0.5 0.2 0.2", "class 2 is not in `names:`: it has ids 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "class -1 is not in `names:`"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5 is not in `names:`"),
        ("car 0.5 0.5 0.2 0.2", "is not numbers"),
        ("0 0.5 0.5 0.2", "4 values"),
        ("0,0.5,0.5,0.2,0.2", "is not numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", "is the last one a confidence?"),
        (f"0 0.5 0.5 0.2 0.2{' 0.5 0.5 2' * 17}", "56 values: .*kpt_shape"),
    ],
)
def test_wrong_line_is_refused_with_its_file_and_number(data_set: Builder, line: str, said: str) -> None:
    path = data_set({"train/a": f"{GOOD}\n{line}\n", "val/b": GOOD})
    label = path.parent / "labels/train/a.txt"
    with pytest.raises(DatasetError) as raised:
        load(path)
    assert re.search(said, str(raised.value)) or said in str(raised.value)
    assert (raised.value.path, raised.value.line) == (label, 3)
    [problem] = check(path).problems
    assert (problem.path, problem.line) == (label, 3)
    assert str(label) in problem.message


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"names": None}, "`names:` is missing"),
        ({"names": []}, "`names:` is missing or empty"),
        ({"names": {0: "car", 2: "person"}}, "must number the classes 0 to 1"),
        ({"names": {"a": "car", "b": "person"}}, "must number the classes 0 to 1"),
        ({"names": "car"}, "`names:` is missing"),
        ({"names": ["car", "x" * 65]}, "class 'xxxx"),
        ({"nc": "many"}, "`nc: many` must be the number of classes"),
        ({"names": None, "nc": 0}, "`nc: 0` must be"),
        ({"channels": 10}, "`channels: 10`"),
        ({"kpt_shape": 17}, "`kpt_shape: 17` must be two numbers"),
        ({"train": [["images/train"]]}, "`train:` must be"),
        ({"train": "images/*"}, "patterns are not expanded"),
        ({"nc": 3}, "`nc: 3` but `names:` has 2"),
        ({"train": None}, "`train:` is missing"),
        ({"train": "images/elsewhere"}, "elsewhere, which does not exist"),
        ({"path": "/no/such/place"}, "/no/such/place/images/train, which does not exist"),
        ({"train": 7}, "`train:` must be"),
    ],
)
def test_wrong_description_is_refused_with_its_file(data_set: Builder, described: dict[str, object], said: str) -> None:
    path = data_set(**described)
    with pytest.raises(DatasetError) as raised:
        load(path)
    assert said in str(raised.value)
    assert raised.value.path == path
    assert any(said in problem.message for problem in check(path).problems)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"names: [a\ntrain: x", "is not YAML"), (b"just text", "must hold"), (b"\xff\xfe\x00\x01", "is not text")],
)
def test_file_that_is_no_data_yaml_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=said):
        load(path)
    assert not check(path).ok


def test_data_yaml_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere\.yaml: data set cannot be read"):
        load(tmp_path / "nowhere.yaml")


def test_empty_set_is_refused_and_its_folder_named(data_set: Builder) -> None:
    path = data_set({"train/a": GOOD})
    (path.parent / "images/val").mkdir()
    with pytest.raises(DatasetError, match=r"`val:` has no images in .*images/val"):
        load(path)
    assert load(path, ("train",)).val == []


def test_check_finds_every_unreadable_image_that_load_does_not_open(data_set: Builder) -> None:
    path = data_set({"train/a": GOOD, "train/b": GOOD, "train/c": GOOD, "val/d": GOOD})
    spoilt = [path.parent / "images/train/a.jpg", path.parent / "images/train/b.jpg"]
    spoilt[0].write_bytes(b"not a picture")
    spoilt[1].write_bytes(b"")
    assert len(load(path).train) == 3
    report = check(path)
    assert [problem.path for problem in report.problems] == spoilt
    for image in spoilt:
        with pytest.raises(DatasetError, match=f"{image.name}: image cannot be decoded"):
            read_image(image)


def test_image_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"x\.jpg: image cannot be read \(No such file"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 cut off"])
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput, match=f"{len(data)} bytes are not an image"):
        decode_image(data)


def test_check_reports_all_faults_at_once(data_set: Builder) -> None:
    path = data_set({"train/a": "0 2 .5 .1 .1\n9 .5 .5 .1 .1\n" + GOOD, "val/b": "x\n"}, nc=5)
    (path.parent / "images/val/b.jpg").write_bytes(b"spoilt")
    report = check(path)
    assert [problem.line for problem in report.problems] == [None, 1, 2, 1, None]
    assert report.splits["train"].boxes == {"car": 1, "person": 0}


def test_list_file_names_the_line_of_a_missing_image(data_set: Builder) -> None:
    path = data_set(train="list.txt")
    (path.parent / "list.txt").write_text("images/train/a.jpg\n\n./images/train/none.jpg\n")
    with pytest.raises(DatasetError) as raised:
        load(path)
    assert (raised.value.path, raised.value.line) == (path.parent / "list.txt", 3)


def test_label_file_that_is_not_text_is_named(data_set: Builder) -> None:
    path = data_set({"train/a": GOOD, "val/b": GOOD})
    label = path.parent / "labels/train/a.txt"
    label.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DatasetError, match="label file cannot be read"):
        load(path)


def test_good_set_has_no_problems(data_set: Builder) -> None:
    path = data_set()
    write_image(path.parent / "images/train/background.jpg")
    report = check(path)
    assert report.ok
    assert report.splits["train"].background == 1


# What is no fault and must not be silent.


@pytest.mark.parametrize(
    ("line", "said", "boxes"),
    [
        ("0 0.5 0.5 0 0.2", "1 box without width or height: left out", 1),
        (GOOD, "1 label line given twice", 1),
        ("0 0.1 0.1 0.5 0.1 0.5 0.5", "1 label line with a polygon", 2),
    ],
)
def test_line_that_is_left_out_or_read_otherwise_is_noted(data_set: Builder, line: str, said: str, boxes: int) -> None:
    path = data_set({"train/a": f"{GOOD}{line}\n", "val/b": GOOD})
    found = load(path)
    assert len(found.train[0].boxes) == boxes
    [note] = found.notes
    assert note.startswith(f"{path}: {said}")
    assert note.endswith(f"{path.parent}/labels/train/a.txt, line 2)")
    assert check(path).notes == found.notes


def test_coordinates_a_hair_outside_are_clipped(data_set: Builder) -> None:
    found = load(data_set({"train/a": "0 1.01 -0.01 1.005 0.2\n", "val/b": GOOD}))
    assert found.train[0].boxes[0].tolist() == pytest.approx([0, 1, 0, 1, 0.2])


def test_files_that_are_not_read_are_counted_by_suffix(data_set: Builder) -> None:
    path = data_set()
    folder = path.parent / "images/train"
    for name in ("a.heic", "b.HEIC", "c.gif", "d", "notes.txt", "a.json", "Thumbs.db", ".e.heic", ".x/f.heic"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "lost").symlink_to("/no/such/place")
    [note] = load(path).notes
    assert f"5 files in {folder} left out" in note
    assert "(2 .heic, 1 without a suffix, 1 .gif, 1 a link that leads nowhere)" in note


def test_links_in_a_circle_end(data_set: Builder) -> None:
    path = data_set()
    (path.parent / "images/train/round").symlink_to(path.parent / "images")
    found = load(path)
    assert [sample.image.name for sample in found.train] == ["a.jpg", "b.jpg"]


def test_linked_split_has_its_labels_beside_the_link_if_there_are_none_beside_its_target(data_set: Builder) -> None:
    path = data_set()
    (path.parent / "images").rename(path.parent / "pictures")
    (path.parent / "images").symlink_to("pictures")
    assert len(load(path).train[0].boxes) == 2


def test_label_file_without_an_image_is_noted(data_set: Builder) -> None:
    path = data_set({"train/a": None, "train/b": GOOD, "val/c": GOOD})
    (path.parent / "labels/train/a.jpg.txt").write_text(GOOD)
    (path.parent / "labels/train/classes.txt").write_text("car\nperson\n")
    [note] = load(path).notes
    assert "1 label file without an image of that name: not used" in note
    assert "a.jpg.txt" in note


def test_folder_without_a_single_label_file_is_noted(data_set: Builder) -> None:
    labels = {
        "train/cam1/a": GOOD,
        "train/cam2/b": None,
        "train/cam2/c": None,
        "train/cam3/d": "",
        "train/cam3/e": None,
    }
    path = data_set({**labels, "val/f": GOOD})
    [note] = load(path).notes
    assert f"2 images in {path.parent}/images/train/cam2 and not one label file" in note


def test_two_images_of_one_label_file_are_noted(data_set: Builder) -> None:
    path = data_set()
    write_image(path.parent / "images/train/a.png")
    [note] = load(path).notes
    assert "same label file as a.jpg" in note


def test_held_out_images_that_are_learned_are_noted(data_set: Builder) -> None:
    [note] = load(data_set(val="images/train")).notes
    assert "1 of 1 image of `val:` in `train:` too" in note


def test_check_notes_images_that_are_tiny_or_look_black(data_set: Builder) -> None:
    path = data_set()
    cv2.imwrite(str(path.parent / "images/train/tiny.png"), np.full((1, 1, 3), 200, np.uint8))
    cv2.imwrite(str(path.parent / "images/train/twelve.png"), np.full((24, 32), 4095, np.uint16))
    report = check(path)
    assert report.ok
    for note, said in zip(report.notes, ("smaller than 10 pixels", "16 bits"), strict=True):
        assert said in note


# No label at all.


COCO = '{"info": {}, "images": [], "annotations": [], "categories": []}'
VOC = "<annotation><object><name>car</name></object></annotation>"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("annotations/instances_train.json", COCO, "found COCO JSON .*instances_train.json: convert it.*convert_coco"),
        ("images/train/_annotations.coco.json", COCO, "found COCO JSON"),
        ("Annotations/a.xml", VOC, "found Pascal VOC XML .*a.xml: export or convert"),
        ("annotations.xml", "<annotations></annotations>", "found CVAT XML"),
        ("images/train/a.json", '{"version": "5", "shapes": []}', "found LabelMe JSON"),
        (
            "annotations/train/a.txt",
            GOOD,
            "label files are in .*annotations/train, .* looks in .*labels/train: move them",
        ),
        ("labels/train/a.txt", "\n", "1 label file, such as .*a.txt, without any box"),
        ("labels/train/a.txt", "0 0.5 0.5 0 0\n", "1 label file, such as .*a.txt, without any box"),
        ("readme.txt", "hello", "there is no .*labels/train/a.txt"),
    ],
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_split_without_a_label_is_refused_with_what_was_found(
    data_set: Builder, file: str, content: str, said: str, split: str
) -> None:
    other = "val" if split == "train" else "train"
    path = data_set({f"{split}/a": None, f"{other}/b": GOOD})
    place = path.parent / file.replace("train", split)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(content)
    with pytest.raises(DatasetError) as raised:
        load(path)
    assert f"`{split}:` has no labelled box in 1 image" in str(raised.value)
    assert re.search(said.replace("train", split), str(raised.value))
    assert not check(path).ok
    assert len(load(path, labelled=False).split(split)) == 1  # type: ignore[arg-type]


def test_broken_image_is_told_before_a_training_if_that_is_asked_for(data_set: Builder) -> None:
    path = data_set()
    (path.parent / "images/val/b.jpg").write_bytes(b"spoilt")
    assert len(load(path).val) == 1
    with pytest.raises(DatasetError, match=r"b\.jpg: image cannot be decoded"):
        load(path, decode=True)


def test_list_with_a_line_longer_than_any_name_is_a_fault(data_set: Builder) -> None:
    path = data_set(train="list.txt")
    (path.parent / "list.txt").write_text(f"{'x' * 5000}.jpg\n")
    with pytest.raises(DatasetError, match="cannot be read"):
        load(path)
    assert not check(path).ok


WORDS = st.text(st.characters(exclude_characters="/."), max_size=3)  # nothing that leads to what others have on disk
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | WORDS
    | st.sampled_from(["images/train", "images/..", "\0", "~x"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.integers(-1, 2) | st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.slow
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["path", "train", "val", "names", "nc", "kpt_shape", "channels", "validation"]), value=VALUES
)
def test_whatever_a_data_yaml_says_is_read_or_a_fault(data_set: Builder, key: str, value: object) -> None:
    path = data_set(**{key: value})
    try:
        assert load(path).names
    except DatasetError as error:
        assert str(path.parent) in str(error)
    check(path)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("01.5-e \n\tnaif\u0663"), max_size=60))
def test_whatever_a_label_file_says_is_boxes_within_the_image_or_a_fault(data_set: Builder, text: str) -> None:
    path = data_set({"train/a": GOOD + text, "val/b": GOOD})
    try:
        boxes = load(path).train[0].boxes
    except DatasetError as error:
        assert "labels/train/a.txt, line " in str(error)
    else:
        assert len(boxes) >= 1
        assert boxes[:, 1:].min() >= 0
        assert boxes[:, 1:].max() <= 1


def test_folder_stands_for_the_data_yaml_in_it(data_set: Builder, tmp_path: Path) -> None:
    path = data_set()
    assert load(path.parent).names == ("car", "person")
    path.rename(path.with_name("set.yml"))
    assert load(path.parent).names == ("car", "person")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"a folder without a data\.yaml"):
        load(tmp_path / "empty")
