"""The label space: ordered class names with stable ids, which grows when a site adds a class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from diredi.errors import InvalidInput

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]

Judge = Literal["labels", "oracle"]
"""Who says what is on images: labels that came with them, or an oracle, a detector that has looked at them."""

_MOST_LISTED = 8
_SEPARATORS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")


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

    def expand(self, names: Iterable[str]) -> LabelSpace:
        """Append the names that are not known yet.

        Args:
            names: Class names, known or new, in the order in which new ones get their ids.

        Returns:
            The larger label space, or this one if no name is new.

        Raises:
            InvalidInput: A new name is a known one in another spelling, which would make two classes of one thing.
        """
        new = [name for name in dict.fromkeys(names) if name not in self.names]
        if twice := self._spelled_as(new, _spelling):
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
        return self._spelled_as([name for name in names if name not in self.names], _stem)

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

    def _spelled_as(self, names: Iterable[str], key: Callable[[str], str]) -> dict[str, str]:
        known = {key(name): name for name in reversed(self.names)}
        return {name: known[key(name)] for name in names if key(name) in known}

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


def _spelling(name: str) -> str:
    """What two spellings of one class have in common: neither case, width nor what separates words."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()


def _stem(name: str) -> str:
    """As `_spelling`, without spaces and without the end of a plural."""
    joined = _spelling(name).replace(" ", "")
    return re.sub(r"(?<=[^\W\d_]{2})(?:(?<=s|x|z)es|(?<=ch|sh)es|(?<![su])s)$", "", joined)


def _renaming(names: Mapping[str, str]) -> str:
    """What to do where `names` are to be called otherwise, as the end of a sentence."""
    pairs = [f"{name!r} as {known!r}" for name, known in names.items()]
    return f"write {', '.join(pairs[:_MOST_LISTED])} in data.yaml, or use Dataset.renamed"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_LISTED]) + (", ..." if len(names) > _MOST_LISTED else "")
