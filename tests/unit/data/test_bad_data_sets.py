"""What is wrong with a data set is said with the file and the line, by `load` at once and by `check` all together."""

from __future__ import annotations

from pathlib import Path

import pytest
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
        ("0 nan 0.5 0.2 0.2", "nan is outside [0, 1]"),
        ("2 0.5 0.5 0.2 0.2", "class 2 is not in `names:`: it has ids 0 to 1"),
        ("-1 0.5 0.5 0.2 0.2", "class -1 is not in `names:`"),
        ("0.5 0.5 0.5 0.2 0.2", "class 0.5 is not in `names:`"),
        ("car 0.5 0.5 0.2 0.2", "is not numbers"),
        ("0 0.5 0.5 0.2", "4 values"),
        ("0 0.5 0.5 0.2 0.2 0.9", "6 values"),
        ("0 0.5 0.5 0 0.2", "a box without area"),
    ],
)
def test_wrong_line_is_refused_with_its_file_and_number(data_set: Builder, line: str, said: str) -> None:
    path = data_set({"train/a": f"{GOOD}\n{line}\n", "val/b": GOOD})
    label = path.parent / "labels/train/a.txt"
    with pytest.raises(DatasetError) as raised:
        load(path)
    assert said in str(raised.value)
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
        ({"names": ["car", "car"]}, "stands twice"),
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
