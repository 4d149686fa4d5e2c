"""What a user domain keeps on disk: the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from diredi.labels import LabelSpace
from user_domain.journal import Journal

LABELS = LabelSpace(names=("car", "person"))


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
