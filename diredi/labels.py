"""The label space: ordered class names with stable ids, which grows when a site adds a class."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from diredi.errors import InvalidInput

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]

Judge = Literal["labels", "oracle"]
"""Who says what is on images: labels that came with them, or an oracle, a detector that has looked at them."""

_MOST_LISTED = 8
_SEPARATORS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")
_NO_INK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Characters that count as printable and show nothing: variation selectors, joiners and fillers."""


class LabelSpace(BaseModel):
    """Class names in the order of their ids; an id is also the row of the head that predicts the class.

    Ids are never reused and never change their meaning: a newer version only appends names.

    Attributes:
        version: Number of the label space; it grows by one with each expansion.
        names: Class names; the position of a name is its id.

    Examples:
        >>> LabelSpace(names=("car", "person")).expand(["person", "forklift"]).names
        ('car', 'person', 'forklift')
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    names: tuple[ClassName, ...]

    @model_validator(mode="after")
    def _names_are_usable(self) -> LabelSpace:
        if len(set(self.names)) != len(self.names):
            raise ValueError("a class name stands twice in the label space")
        for name in self.names:
            if not name.isprintable():
                raise ValueError(f"class name {name!r} has characters that cannot be printed")
        return self

    @classmethod
    def of(cls, names: Iterable[str]) -> LabelSpace:
        """Return the label space in which classes have their ids in this order.

        Args:
            names: Class names.

        Raises:
            InvalidInput: A name is empty, too long, not printable or stands twice.

        Examples:
            >>> LabelSpace.of(["car", "person"]).id_of("person")
            1
        """
        names = tuple(names)
        try:
            return cls(names=names)
        except ValidationError as error:
            first = error.errors()[0]
            _, *index = first["loc"] or ("names",)
            what = f"class {names[int(index[0])]!r}" if index else "these classes"
            why = first["msg"].removeprefix("Value error, ")
            raise InvalidInput(f"{what} cannot be used ({why}): rename it") from None

    def __len__(self) -> int:
        return len(self.names)

    def id_of(self, name: str) -> int:
        """Return the id of a class.

        Args:
            name: The class name, spelled as in this label space.

        Returns:
            The id, counted from 0.

        Raises:
            InvalidInput: The name is not in this label space.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise InvalidInput(f"class {name!r} is not in the label space ({', '.join(self.names)})") from None

    def expand(self, names: Iterable[str], *, distinct: Container[str] = ()) -> LabelSpace:
        """Append the names that are not known yet.

        Args:
            names: Class names, known or new, in the order in which new ones get their ids.
            distinct: Names of which somebody has decided that they are classes of their own, whatever they look like.

        Returns:
            The larger label space, or this one if no name is new.

        Raises:
            InvalidInput: A new name is a known one in another spelling, which would make two classes of one thing.
        """
        new = [name for name in dict.fromkeys(names) if name not in self.names]
        if twice := self._known(_alike(self.names, new, _spellings, distinct)):
            raise InvalidInput(f"one class is spelled in two ways: {_renaming(twice)}")
        return self if not new else LabelSpace(version=self.version + 1, names=(*self.names, *new))

    def resembling(self, names: Iterable[str]) -> dict[str, str]:
        """Find new names that may mean a known class: in another spelling, or as a plural.

        Args:
            names: Class names as a data set writes them.

        Returns:
            The known name for each such name.

        Examples:
            >>> LabelSpace.of(["car", "traffic light"]).resembling(["Traffic_Lights", "crane"])
            {'Traffic_Lights': 'traffic light'}
        """
        return self._known(self.proposals(names))

    def proposals(self, names: Iterable[str], distinct: Container[str] = ()) -> dict[str, str]:
        """Propose an existing name for each new one that may mean the same: in another spelling, or as a plural.

        Names are of one spelling if they differ in case, width, what separates words, or in characters that look the
        same (Unicode Technical Standard 39), such as a Latin and a Cyrillic "a".

        Args:
            names: Class names as a data set writes them.
            distinct: Names of which somebody has decided that they are classes of their own.

        Returns:
            For each such name the known one, or an earlier one of `names` where that is new too.

        Examples:
            >>> LabelSpace.of(["car"]).proposals(["Cars", "cranes", "crane"])
            {'Cars': 'car', 'crane': 'cranes'}
        """
        return _alike(self.names, names, _stems, distinct)

    def check_decided(self, names: Iterable[str], distinct: Container[str] = ()) -> None:
        """Check that nothing is left to propose, before two spellings become two classes for ever.

        Args:
            names: Class names as a site writes them.
            distinct: Names of which the site has said that they are classes of their own.

        Raises:
            InvalidInput: A name may mean an existing class. The message proposes that one and says how to decide.
        """
        if meant := self.proposals(names, distinct):
            some = dict(list(meant.items())[:_MOST_LISTED])
            may_be = ", ".join(f"{_shown(name)} may be {_shown(known)}" for name, known in some.items())
            same, other = ", ".join(_pairs(some)), ", ".join(_pairs({name: name for name in some}))
            raise InvalidInput(
                f"one class may have several names ({may_be}): in the site's configuration say class_names: "
                f"{{{same}}} where the same is meant, and {{{other}}} where it is another class"
            )

    def check_shares(self, names: Iterable[str], mine: str, theirs: str) -> None:
        """Check that at least one class is known by its name.

        Args:
            names: Class names as a data set writes them.
            mine: Whose classes are in this label space, for the message.
            theirs: Whose classes `names` are.

        Raises:
            InvalidInput: No name is known. The message names those that may be meant.
        """
        names = tuple(names)
        if set(names) & set(self.names):
            return
        meant = self.resembling(names)
        remedy = f"if the same are meant, {_renaming(meant)}" if meant else "name the model or the data that fits"
        raise InvalidInput(
            f"{theirs} ({_listed(names)}) and {mine} ({_listed(self.names)}) have no class in common: {remedy}"
        )

    @property
    def decided(self) -> frozenset[str]:
        """Names that are like an earlier one of this label space: that these are two classes has been decided."""
        return frozenset(_alike((), self.names, _stems, ()))

    def _known(self, meant: Mapping[str, str]) -> dict[str, str]:
        return {name: known for name, known in meant.items() if known in self.names}

    def new_since(self, older: LabelSpace) -> tuple[str, ...]:
        """Return the names that an older label space lacks, in the order of their ids."""
        return tuple(name for name in self.names if name not in older.names)

    def extends(self, older: LabelSpace) -> bool:
        """Return whether every id of an older label space means the same here."""
        return self.names[: len(older)] == older.names

    def ids_of(self, names: Sequence[str]) -> list[int]:
        """Return the ids of several classes, in the order of the names given.

        Args:
            names: Class names, spelled as in this label space.

        Returns:
            One id for each name.

        Raises:
            InvalidInput: A name is not in this label space.
        """
        return [self.id_of(name) for name in names]


def matching_ids(names: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return for each name its id among known names, and -1 where it is none of them."""
    return [known.index(name) if name in known else -1 for name in names]


def _alike(
    known: Sequence[str], names: Iterable[str], forms: Callable[[str], Iterable[str]], distinct: Container[str]
) -> dict[str, str]:
    """For each new name that shares a form with an earlier one, that earlier name."""
    classes = {form: name for name in reversed(known) for form in forms(name)}
    alike = {}
    for name in dict.fromkeys(names):
        if name in known:
            continue
        earlier = [classes[form] for form in forms(name) if form in classes]
        if earlier and name not in distinct:
            alike[name] = earlier[0]
        else:
            for form in forms(name):
                classes.setdefault(form, name)
    return alike


def _spellings(name: str) -> tuple[str, ...]:
    """What spellings of one class have in common: neither case, width, what separates words, nor whose letters it has.

    Two forms, for letters that look alike only as capitals, or only as small ones.
    """
    plain = _NO_INK.sub("", unicodedata.normalize("NFKC", name))
    lower = unicodedata.normalize("NFKC", plain.casefold())
    return tuple(
        dict.fromkeys(_SEPARATORS.sub(" ", form).strip() for form in (_latin(lower), _latin(plain).casefold()))
    )


def _latin(text: str) -> str:
    """Replace each character that looks like an ASCII one (Unicode Technical Standard 39) by that one."""
    if text.isascii():
        return text
    from confusable_homoglyphs.confusables import confusables_data  # a megabyte, needed by few

    def look_alike(character: str) -> str:
        similar = () if character.isascii() else confusables_data.get(character, ())
        return next((one["c"] for one in similar if one["c"].isascii()), character)

    return "".join(map(look_alike, text))


def _stems(name: str) -> tuple[str, ...]:
    """As `_spellings`, without spaces, and without the end of a plural in each way that there may be one."""
    joined = [form.replace(" ", "") for form in _spellings(name)]
    singular = [re.sub(r"(?<=[^\W\d_]{2})(?:(?<=s|x|z)es|(?<=ch|sh)es|(?<![su])s)$", "", form) for form in joined]
    return tuple(dict.fromkeys([*singular, *(re.sub(r"(?<=[^\W\d_]{2})ies$", "y", form) for form in joined)]))


def _renaming(names: Mapping[str, str]) -> str:
    """What to do where `names` are to be called otherwise, as the end of a sentence."""
    pairs = [f"{_shown(name)} as {_shown(known)}" for name, known in names.items()]
    return f"write {', '.join(pairs[:_MOST_LISTED])} in data.yaml, or use Dataset.renamed"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_LISTED]) + (", ..." if len(names) > _MOST_LISTED else "")


def _pairs(names: Mapping[str, str]) -> list[str]:
    """Write pairs of names as YAML and JSON both read them."""

    def written(name: str) -> str:
        return json.dumps(name, ensure_ascii=_is_disguised(name))

    return [f"{written(name)}: {written(known)}" for name, known in names.items()]


def _shown(name: str) -> str:
    """Quote a name, with escapes where a person would take it for another one."""
    return ascii(name) if _is_disguised(name) else repr(name)


def _is_disguised(name: str) -> bool:
    """Whether a name looks like one of ASCII and is none."""
    return not name.isascii() and all(form.isascii() for form in _spellings(name))
