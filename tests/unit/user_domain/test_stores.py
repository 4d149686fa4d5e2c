"""What a user domain keeps on disk: the journal and the samples."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from diredi.errors import InvalidInput, NoRoom
from diredi.labels import LabelSpace
from user_domain.journal import Journal
from user_domain.samples import SampleStore, Sighting

LABELS = LabelSpace(names=("car", "person"))
SEEN = Sighting("camera-1", (0, 1), 0.31)


def image(shade: int, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, np.full((8, 8, 3), shade, np.uint8))[1])


def test_a_journal_is_the_same_after_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json", 2)
    journal.begin("a")
    journal.set_labels("a", LABELS)
    journal.set_failure("a", "a/extract", "because")
    again = Journal(tmp_path / "journal.json", 2)
    assert (again.labels("a"), again.failure("a", "a/extract")) == (LABELS, "because")
    assert again.failure("b", "b/extract") is None


def test_a_journal_remembers_the_last_cycles_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.json", 2)
    for cycle in ("a", "b", "a", "c"):
        journal.begin(cycle)
    assert Journal(tmp_path / "journal.json", 2).cycles == ["a", "c"]


@pytest.mark.parametrize("damage", [b"", b'{"cycles": [', b"\xff\x00", b"[]", b"null", b'{"cycles": {"a": 1}}'])
def test_a_damaged_journal_is_set_aside_and_nothing_is_assumed_in_its_place(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal.json"
    Journal(path, 2).set_labels("a", LABELS)
    path.write_bytes(damage)
    journal = Journal(path, 2)
    assert (journal.cycles, journal.labels("a"), journal.failure("a", "a/extract")) == ([], None, None)
    assert (tmp_path / "journal.json.damaged-1").read_bytes() == damage
    journal.set_failure("a", "a/extract", "because")
    assert Journal(path, 2).failure("a", "a/extract") == "because"


def test_samples_are_kept_by_content_and_bounded_over_restarts(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, 2)
    assert store.add(image(1), SEEN)
    assert not store.add(image(1), SEEN)
    assert store.add(image(1, ".jpg"), SEEN)
    store = SampleStore(tmp_path, 2)
    assert len(store) == 2
    assert not store.add(image(1), SEEN)
    with pytest.raises(NoRoom, match="at most 2"):
        store.add(image(2), SEEN)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".jpg", ".json", ".json", ".png"]


@pytest.mark.parametrize("bad", [b"", b"text", b"\xff\xd8\xff and then nothing", b"\x89PNG", b"GIF89a"])
def test_what_is_no_image_leaves_the_store_as_it_was(tmp_path: Path, bad: bytes) -> None:
    store = SampleStore(tmp_path, 2)
    with pytest.raises(InvalidInput):
        store.add(bad, SEEN)
    assert not list(tmp_path.iterdir())


def test_a_kill_between_the_two_files_of_a_sample_leaves_no_half_sample(tmp_path: Path) -> None:
    store = SampleStore(tmp_path, 2)
    store.add(image(1), SEEN)
    next(tmp_path.glob("*.png")).rename(tmp_path / "x.part")
    assert len(SampleStore(tmp_path, 2)) == 0
    assert SampleStore(tmp_path, 2).add(image(1), SEEN)
