"""Whatever Ultralytics reads is read, and a data set is a value that can be mapped, drawn from and joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_data_sets import Builder, write_image

from diredi.data.dataset import Dataset, Sample, check, load
from diredi.errors import DatasetError, InvalidInput, NoLabels
from diredi.labels import LabelSpace

BOX = "0 0.5 0.5 0.2 0.2\n"


def test_boxes_names_and_counts_are_those_of_the_files(data_set: Builder) -> None:
    found = load(data_set())
    assert found.names == found.label_names == ("car", "person")
    assert found.train[0].boxes.dtype == np.float32
    assert found.train[0].boxes.tolist() == pytest.approx(np.array([[0, 0.5, 0.5, 0.2, 0.2], [1, 0.3, 0.3, 0.1, 0.4]]))
    assert found.counts("train") == {"car": 1, "person": 1}
    assert found.counts("val") == {"car": 0, "person": 1}
    files = [p for p in found.root.rglob("*") if p.is_file() and p.name != "data.yaml"]
    assert found.bytes_on_disk() == sum(p.stat().st_size for p in files)


def test_image_without_label_file_or_with_an_empty_one_is_background(data_set: Builder) -> None:
    found = load(data_set({"train/a": None, "train/b": "", "train/c": BOX, "val/d": BOX}))
    assert [sample.boxes.shape for sample in found.train] == [(0, 5), (0, 5), (1, 5)]


def test_polygon_becomes_its_bounding_box(data_set: Builder) -> None:
    found = load(data_set({"train/a": "1 0.1 0.2 0.5 0.2 0.5 0.8\n", "val/b": BOX}))
    assert found.train[0].boxes[0].tolist() == pytest.approx([1, 0.3, 0.5, 0.4, 0.6])


def test_line_that_stands_twice_is_one_box(data_set: Builder) -> None:
    assert len(load(data_set({"train/a": BOX + BOX, "val/b": BOX})).train[0].boxes) == 1


def test_names_may_be_a_mapping_and_splits_lists_of_folders_and_lists_of_images(data_set: Builder) -> None:
    path = data_set(
        {"train/a": BOX, "more/deep/b": BOX, "val/c": BOX},
        names={0: "car", 1: "person"}, train=["images/train", "images/more"], val="val.txt",
    )  # fmt: skip
    (path.parent / "val.txt").write_text("./images/val/c.jpg\n")
    found = load(path)
    assert [sample.image.name for sample in found.train] == ["a.jpg", "b.jpg"]
    assert [len(sample.boxes) for sample in (*found.train, *found.val)] == [1, 1, 1]


def test_path_is_taken_from_where_the_data_yaml_lies(data_set: Builder, tmp_path: Path) -> None:
    path = data_set()
    moved = tmp_path / "elsewhere" / "data.yaml"
    moved.parent.mkdir()
    moved.write_text(path.read_text() + "path: ..\n")
    assert load(moved).root == tmp_path
    assert len(load(moved).train) == 1


def test_labels_lie_beside_images_that_are_in_no_folder_called_images(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "a.png")
    (tmp_path / "train" / "a.txt").write_text(BOX)
    (tmp_path / "data.yaml").write_text("train: train\nval: train\nnames: [car]\n")
    assert len(load(tmp_path / "data.yaml").val[0].boxes) == 1


def test_mapped_set_has_the_ids_of_the_label_space(data_set: Builder) -> None:
    original = load(data_set())
    mapped = original.with_labels(LabelSpace(names=("person", "dog", "car")))
    assert mapped.names == ("person", "dog", "car")
    assert mapped.train[0].boxes[:, 0].tolist() == [2, 0]
    assert mapped.counts("train") == {"person": 1, "dog": 0, "car": 1}
    assert original.train[0].boxes[:, 0].tolist() == [0, 1], "the original is a value and stays as it was"


def test_class_that_the_label_space_lacks_is_named(data_set: Builder) -> None:
    with pytest.raises(InvalidInput, match=r"label space lacks \(person\)"):
        load(data_set()).with_labels(LabelSpace(names=("car", "bus")))


def _made_up(images: int) -> Dataset:
    """90 of 100 images with a car, 20 with a person, 5 with a bus, the rest empty."""
    rng = np.random.default_rng(3)
    samples = []
    for number in range(images):
        present = [c for c, share in enumerate((0.9, 0.2, 0.05)) if rng.random() < share]
        boxes = np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in present], np.float32).reshape(-1, 5)
        samples.append(Sample(Path(f"{number}.jpg"), boxes))
    return Dataset(Path(), ("car", "person", "bus"), samples, samples[:10])


def test_coreset_keeps_every_class_in_proportion_or_better() -> None:
    whole = _made_up(400)
    part = whole.sample(100)
    assert len(part.train) == 100
    assert len({sample.image for sample in part.train}) == 100
    for name, boxes in whole.counts("train").items():
        assert part.counts("train")[name] >= boxes / 4 * 0.9
    assert any(len(sample.boxes) == 0 for sample in part.train)
    assert part.val == []
    assert len(whole.sample(100, val=4).val) == 4


def test_coreset_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    whole = _made_up(200)
    images = [[sample.image for sample in whole.sample(50, seed).train] for seed in (1, 1, 2)]
    assert images[0] == images[1] != images[2]
    assert whole.sample(999).train == whole.train


@pytest.mark.parametrize(
    ("name", "images", "boxes"),
    [
        ("coco128", (128, 128), (929, 898)),
        ("forklift", (181, 126), (394, 258)),
        ("traffic_cams", (204, 51), (3524, 835)),
        ("parking_cam", (104, 26), (8944, 2236)),
    ],
)
def test_real_sets_load_and_check_clean(
    shared_data: Path, name: str, images: tuple[int, int], boxes: tuple[int, int]
) -> None:
    path = shared_data / "detection" / name / "data.yaml"
    found = load(path)
    assert (len(found.train), len(found.val)) == images
    assert (sum(found.counts("train").values()), sum(found.counts("val").values())) == boxes
    assert check(path).problems == []


def test_a_camera_is_what_stands_before_the_number_of_an_image(data_set: Builder) -> None:
    cameras = load(data_set({"train/b-cam1-00002": BOX, "train/a_7": BOX, "val/a_9": BOX, "val/a_8": BOX})).by_camera()
    assert {name: (len(c.train), len(c.val)) for name, c in cameras.items()} == {"a": (1, 2), "b-cam1": (1, 0)}
    assert list(cameras) == ["a", "b-cam1"]


def test_an_image_that_does_not_name_its_camera_is_named(data_set: Builder) -> None:
    found = load(data_set({"train/a_7": BOX, "val/second": BOX}))
    with pytest.raises(InvalidInput, match="second"):
        found.by_camera()
    with pytest.raises(InvalidInput, match="a_7"):
        found.by_camera(r"(cam\d)-.*")


def test_images_without_labels_need_no_class_names_and_label_files_are_not_looked_at(data_set: Builder) -> None:
    path = data_set({"train/a": "7 nonsense\n", "train/b": None, "val/c": BOX}, names=None)
    (path.parent / "labels/train/stray.txt").write_text(BOX)
    found = load(path, read_labels=False)
    assert (found.names, found.notes, found.judged_by) == ((), (), "labels")
    assert [sample.boxes.shape for sample in (*found.train, *found.val)] == [(0, 5)] * 3
    report = check(path, read_labels=False)
    assert report.ok and report.splits["train"].images == 2
    assert not check(path).ok


@pytest.mark.parametrize("split", ["train", "val"])
def test_even_without_labels_each_split_needs_an_image(data_set: Builder, split: str) -> None:
    path = data_set({"train/a": None, "val/b": None}, names=None)
    for image in (path.parent / "images" / split).iterdir():
        image.unlink()
    with pytest.raises(DatasetError, match=f"`{split}:` has no images"):
        load(path, read_labels=False)


def test_a_set_without_any_label_is_told_apart_from_a_broken_one(data_set: Builder) -> None:
    with pytest.raises(NoLabels, match="`train:` has no labelled box"):
        load(data_set({"train/a": None, "val/b": None}))
