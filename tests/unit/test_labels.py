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


@pytest.mark.parametrize(
    "name", ["Person", "PERSON", "\uff50erson", " person", "p\u0435rson", "\u0420ERSON", "person\ufe0f"]
)
def test_a_known_class_in_another_spelling_does_not_become_a_new_one(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"write '.*' as 'person' in data.yaml"):
        BASE.expand(["car", name])


@pytest.mark.parametrize("name", ["Traffic_Light", "traffic-light", "traffic  light", "TRAFFIC light"])
def test_what_separates_words_is_spelling(name: str) -> None:
    with pytest.raises(InvalidInput, match="'traffic light'"):
        LabelSpace.of(["traffic light"]).expand([name])


def test_classes_that_are_both_known_may_differ_by_spelling_alone() -> None:
    old = LabelSpace.of(["person", "Person"])
    assert old.expand(["Person", "person", "car"]).names == ("person", "Person", "car")


@pytest.mark.parametrize(
    ("known", "name"), [("5", "-5"), ("10", "1-0"), ("glass", "glas"), ("car", "cart"), ("t", "T1")]
)
def test_names_that_mean_something_else_are_new_classes(known: str, name: str) -> None:
    assert LabelSpace.of([known]).expand([name]).names == (known, name)


@pytest.mark.parametrize(
    ("known", "name"),
    [
        ("person", "persons"),
        ("buses", "bus"),
        ("box", "Boxes"),
        ("bench", "benches"),
        ("traffic light", "TrafficLight"),
        ("lorry", "Lorries"),
        ("movie", "movies"),
        ("car", "\u0441\u0430rs"),
    ],
)
def test_a_plural_resembles_a_class_but_may_be_another(known: str, name: str) -> None:
    labels = LabelSpace.of([known])
    assert labels.resembling([name, known]) == {name: known}
    assert labels.expand([name]).names == (known, name)


def test_classes_that_share_nothing_are_told_with_what_may_be_meant() -> None:
    BASE.check_shares(["person", "boat"], "the model", "the data")
    with pytest.raises(InvalidInput, match=r"the data \(Persons\) and the model \(car, person\) have no .* 'person'"):
        BASE.check_shares(["Persons"], "the model", "the data")
    with pytest.raises(InvalidInput, match="no class in common: name the model or the data that fits"):
        BASE.check_shares(["boat"], "the model", "the data")


def test_one_class_in_many_spellings_is_proposed_as_the_one_that_is_known() -> None:
    spellings = ["Car", "CARS", "\u0441\u0430r", "\uff43\uff41\uff52", "car\ufe0f", "\u0421ar"]
    assert BASE.proposals(["car", *spellings, "cart"]) == dict.fromkeys(spellings, "car")


def test_names_of_other_scripts_are_compared_in_their_own_script() -> None:
    labels = LabelSpace.of(["\u041d\u043e\u0436", "caf\u00e9"])
    assert labels.proposals(["\u043d\u043e\u0436", "cafe\u0301", "cafe", "\u043d\u043e\u0441"]) == {
        "\u043d\u043e\u0436": "\u041d\u043e\u0436",
        "cafe\u0301": "caf\u00e9",
    }


def test_two_new_names_of_one_class_are_proposed_as_the_first() -> None:
    assert BASE.proposals(["crane", "Cranes", "boat"]) == {"Cranes": "crane"}
    assert BASE.resembling(["crane", "Cranes"]) == {}, "nobody knows a crane yet"


def test_nothing_is_two_classes_for_ever_before_somebody_has_decided() -> None:
    with pytest.raises(InvalidInput, match=r'class_names: \{"cars": "car"\} where .* \{"cars": "cars"\} where'):
        BASE.check_decided(["car", "cars"])
    BASE.check_decided(["car", "cars"], distinct=["cars"])
    BASE.check_decided(["car", "boat"])
    assert BASE.expand(["Car"], distinct=["Car"]).names == ("car", "person", "Car")


def test_a_name_that_looks_like_another_is_shown_as_what_it_is() -> None:
    with pytest.raises(InvalidInput, match=r"'\\u0441\\u0430r' may be 'car'.*\{\"\\u0441\\u0430r\": \"car\"\}"):
        BASE.check_decided(["\u0441\u0430r"])
