"""Samples of a site: kept by content and worth, found in two orders, labelled, and written as a data set."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.data.dataset import load
from diredi.data.sample_reason import SampleReason
from diredi.data.yolo import description_text
from diredi.errors import InvalidInput, NoLabels, NoRoom, NotFound
from user_domain.labelled_samples import join_samples
from user_domain.private_data import read_private_data
from user_domain.samples import Box, DetectedBox, SampleInfo, SampleStore, Sighting

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
CAR = Box(name="car", x=0.5, y=0.5, width=0.5, height=0.25)
FORKLIFT = Box(name="forklift", x=0.25, y=0.75, width=0.5, height=0.5)


def image(shade: int, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, np.full((24, 32, 3), shade, np.uint8))[1])


def seen(minute: int = 0, *, doubt: float = 0.5, camera: str = "yard") -> Sighting:
    return Sighting(
        device="camera-1",
        camera=camera,
        captured=NOON + timedelta(minutes=minute),
        detections=(DetectedBox(**CAR.model_dump(), confidence=0.31),),
        release=7,
        reasons=(SampleReason.UNCERTAIN,),
        doubt=doubt,
    )


def ids(infos: list[SampleInfo]) -> list[str]:
    return [info.id for info in infos]


def filled(folder: Path, number: int, **limits: object) -> SampleStore:
    store = SampleStore(folder, **{"max_samples": 100, **limits})  # type: ignore[arg-type]
    for minute in range(number):
        assert store.add(image(minute), seen(minute, doubt=0.9 if minute == 1 else 0.5))
    return store


def test_what_a_page_needs_of_a_sample_is_there_after_a_restart(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    (info,) = store.find()
    store.set_labels(info.id, [FORKLIFT], by="alice")
    again = SampleStore(tmp_path, 100)
    (kept,) = again.find()
    assert (kept.device, kept.camera, kept.taken, kept.release) == ("camera-1", "yard", NOON, 7)
    assert (kept.width, kept.height, kept.reasons, kept.doubt) == (32, 24, (SampleReason.UNCERTAIN,), 0.5)
    assert kept.detections[0].confidence == 0.31
    assert (kept.labels, kept.labelled_by) == ((FORKLIFT,), "alice")
    assert again.image(kept.id) == (image(0), "image/png")
    assert again.names() == ["car", "forklift"]


def test_samples_are_listed_newest_first_or_most_doubtful_first_page_by_page(tmp_path: Path) -> None:
    store = filled(tmp_path, 4)
    newest = store.find()
    assert [info.taken.minute for info in newest] == [3, 2, 1, 0]
    assert [info.taken.minute for info in store.find(order="doubtful")] == [1, 3, 2, 0]
    assert ids(store.find(offset=1, limit=2)) == ids(newest)[1:3]
    store.set_labels(newest[0].id, [])
    assert ids(store.find(labelled=False)) == ids(newest)[1:]
    assert ids(store.find(labelled=True)) == ids(newest)[:1]
    assert (store.count(), store.count(labelled=True), store.count(labelled=False)) == (4, 1, 3)
    assert not store.find(name="forklift") and not store.find(reason=SampleReason.RANDOM)
    assert not store.find(camera="gate") and len(store.find(camera="yard", device="camera-1")) == 4


def test_labels_are_replaced_taken_back_and_refused_where_they_cannot_be(tmp_path: Path) -> None:
    store = filled(tmp_path, 1)
    (info,) = store.find()
    store.set_labels(info.id, [CAR, FORKLIFT])
    assert store.set_labels(info.id, []).labels == ()
    assert store.clear_labels(info.id).labels is None
    with pytest.raises(InvalidInput, match="more than"):
        store.set_labels(info.id, [CAR] * 1001)
    for wrong in ({"x": 0.9}, {"width": 0.0}, {"name": ""}, {"name": "a\x1bb"}, {"x": float("nan")}):
        with pytest.raises(ValueError):
            Box(**{**CAR.model_dump(), **wrong})
    store.delete_for_good([info.id])
    for gone in (store.get, store.image, store.clear_labels):
        with pytest.raises(NotFound):
            gone(info.id)
    assert not list(tmp_path.iterdir())


def test_a_full_store_gives_up_what_is_worth_least_and_never_a_labelled_one(tmp_path: Path) -> None:
    store = filled(tmp_path, 3, max_samples=3)
    first, doubtful, third = sorted(store.find(), key=lambda info: info.taken)
    store.set_labels(first.id, [CAR])
    assert not store.add(image(50), seen(doubt=0.1)), "it is worth less than all that is there"
    assert store.add(image(51), seen(doubt=0.6))
    assert third.id not in ids(store.find()) and {first.id, doubtful.id} < set(ids(store.find()))
    for info in store.find():
        store.set_labels(info.id, [CAR])
    with pytest.raises(NoRoom, match="at most 3 samples"):
        store.add(image(52), seen(doubt=1.0))
    assert len(SampleStore(tmp_path, 3)) == 3
    with pytest.raises(NoRoom):
        SampleStore(tmp_path / "none", 0).add(image(1), seen())


def test_a_store_is_bounded_by_the_disk_and_by_age(tmp_path: Path) -> None:
    store = filled(tmp_path, 3, max_bytes=3 * len(image(60)))
    assert store.add(image(60), seen(doubt=0.8))
    assert len(store) == 3 and store.image_bytes == sum(file.stat().st_size for file in tmp_path.glob("*.png"))
    store.set_labels(store.find()[0].id, [CAR])
    for file in tmp_path.glob("*.json"):
        old = json.loads(file.read_text()) | {"received": (datetime.now(UTC) - timedelta(days=8)).isoformat()}
        file.write_text(json.dumps(old))
    kept = SampleStore(tmp_path, 100, max_age=timedelta(days=7)).find()
    assert [info.labels is None for info in kept] == [False], "of the old ones the labelled one stays"


def test_samples_are_kept_by_content_over_restarts(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, 10)
    assert store.add(image(1), seen())
    assert not store.add(image(1), seen())
    assert store.add(image(1, ".jpg"), seen())
    store = SampleStore(tmp_path, 10)
    assert len(store) == 2 and not store.add(image(1), seen())
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jpg", ".json", ".json", ".png"]


@pytest.mark.parametrize("bad", [b"", b"text", b"\xff\xd8\xff and then nothing", b"\x89PNG", b"GIF89a"])
def test_what_is_no_image_leaves_the_store_as_it_was(tmp_path: Path, bad: bytes) -> None:
    with pytest.raises(InvalidInput):
        SampleStore(tmp_path, 2).add(bad, seen())
    assert not list(tmp_path.iterdir())


def test_a_kill_between_the_two_files_of_a_sample_leaves_no_half_sample(tmp_path: Path) -> None:
    SampleStore(tmp_path, 2).add(image(1), seen())
    next(tmp_path.glob("*.png")).rename(tmp_path / "x.part")
    assert len(SampleStore(tmp_path, 2)) == 0
    assert SampleStore(tmp_path, 2).add(image(1), seen())


@pytest.mark.parametrize("said", [b'{"device": "camera-1", "class_ids": [0], "lowest_confidence": 0.3}', b"{", b"[]"])
def test_a_sample_of_an_older_version_or_with_a_damaged_description_is_still_a_sample(
    tmp_path: Path, said: bytes
) -> None:
    SampleStore(tmp_path, 2).add(image(1), seen())
    next(tmp_path.glob("*.json")).write_bytes(said)
    (info,) = SampleStore(tmp_path, 2).find()
    assert info.detections == () and info.taken == info.received


def test_labelled_samples_become_a_data_set_split_by_time_camera_by_camera(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "samples", 100)
    assert store.export(tmp_path / "none") is None
    for minute in range(10):
        for camera in ("yard", "gate"):
            store.add(image(minute + 20 * (camera == "gate")), seen(minute, camera=camera))
    for info in store.find():
        store.set_labels(info.id, [FORKLIFT] if info.taken.minute % 2 else [])
    before = store.labels_digest()
    path = store.export(tmp_path / "set", held_out=0.3)
    assert path is not None
    made = load(path)
    assert (made.names, len(made.train), len(made.val), made.notes) == (("forklift",), 14, 6, ())
    taken = {info.id: info.taken.minute for info in store.find()}
    assert {taken[sample.image.stem] for sample in made.val} == {7, 8, 9}
    assert store.labels_digest() == before
    store.set_labels(store.find()[0].id, [CAR])
    assert store.labels_digest() != before


def test_labelled_samples_join_the_private_set_whose_ids_stay(tmp_path: Path) -> None:
    private = tmp_path / "private"
    for split in ("train", "val"):
        (private / "images" / split).mkdir(parents=True)
        (private / "labels" / split).mkdir(parents=True)
        (private / "images" / split / "a.png").write_bytes(image(200))
        (private / "labels" / split / "a.txt").write_text("1 0.5 0.5 0.2 0.2\n")
    (private / "data.yaml").write_text(description_text(["person", "cars"]))
    store = filled(tmp_path / "samples", 5)
    for info in store.find():
        store.set_labels(info.id, [FORKLIFT, Box(**{**CAR.model_dump(), "name": "person"})])
    path = store.export(tmp_path / "set", beside=private / "data.yaml")
    assert path is not None
    joint = load(path)
    assert joint.names == ("person", "cars", "forklift")
    assert (joint.counts("train"), joint.counts("val")) == (
        {"person": 4, "cars": 1, "forklift": 4},
        {"person": 1, "cars": 1, "forklift": 1},
    )
    assert joint.notes == ()


def test_joint_sets_stay_as_they_are_while_labels_change_and_only_the_last_are_kept(tmp_path: Path) -> None:
    store, root = filled(tmp_path / "samples", 6), tmp_path / "labelled"
    assert join_samples(store, root, 0.2, None) is None
    paths = []
    for info in store.find():
        store.set_labels(info.id, [FORKLIFT])
        path = join_samples(store, root, 0.2, None)
        assert path is not None and path == join_samples(store, root, 0.2, None)
        paths.append(path)
    assert len(set(paths)) == 6 and [path.is_file() for path in paths] == [False] * 2 + [True] * 4
    assert [len(load(path, ("train",)).train) for path in paths[2:]] == [2, 3, 4, 5]


def test_classes_of_samples_follow_what_the_site_calls_its_own(tmp_path: Path) -> None:
    store = filled(tmp_path / "samples", 3)
    for info in store.find():
        store.set_labels(info.id, [CAR, Box(**{**CAR.model_dump(), "name": "cars"})])

    def join(private: Path | None) -> Path | None:
        return join_samples(store, tmp_path / "labelled", 0.4, private)

    data = read_private_data("samples", tmp_path, class_names={"cars": "car"}, join=join)
    assert (data.names, data.train_images, data.held_out_images) == (("car",), 2, 1)
    with pytest.raises(NoLabels, match="nobody has labelled"):
        read_private_data("samples", tmp_path, join=lambda path: path)
