from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from diredi.errors import InvalidInput
from diredi.labels import LabelSpace

BASE = LabelSpace(names=("car", "person"))
names = st.lists(st.text("abcdefg", min_size=1, max_size=5), max_size=8)


def test_new_classes_are_appended_and_the_version_moves_on() -> None:
    grown = BASE.expand(["person", "forklift", "forklift"])
    assert grown.names == ("car", "person", "forklift")
    assert grown.version == BASE.version + 1
    assert grown.new_since(BASE) == ("forklift",)


def test_growing_by_known_names_changes_nothing() -> None:
    assert BASE.expand(["person", "car"]) is BASE


@given(names, names)
def test_an_id_never_changes_its_meaning(first: list[str], second: list[str]) -> None:
    space = BASE
    for more in (first, second):
        older, space = space, space.expand(more)
        assert space.extends(older)
        assert all(space.id_of(name) == older.id_of(name) for name in older.names)


@pytest.mark.parametrize("bad", [("car", "car"), ("",), ("x" * 65,), ("bell\a",)])
def test_names_that_cannot_be_shown_or_told_apart_are_refused(bad: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        LabelSpace(names=bad)


def test_an_unknown_class_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'boat' is not in the label space \(car, person\)"):
        BASE.id_of("boat")
