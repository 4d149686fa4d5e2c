"""The label space: ordered class names with stable ids, which grows when a site adds a class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

from diredi.errors import InvalidInput

ClassName = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]


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
        try:
            return cls(names=tuple(names))
        except ValidationError as error:
            raise InvalidInput(f"these classes cannot be used ({error.errors()[0]['msg']}): rename them") from None

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
        """
        new = [name for name in dict.fromkeys(names) if name not in self.names]
        return self if not new else LabelSpace(version=self.version + 1, names=(*self.names, *new))

    def respelling(self, names: Iterable[str]) -> str:
        """Say how names have to be written that differ from the ones here in upper and lower case alone.

        Args:
            names: Class names as a data set writes them.

        Returns:
            What to do with them, as the end of a sentence.
        """
        known = {name.casefold(): name for name in self.names}
        found = [f"{name!r} as {known[name.casefold()]!r}" for name in names if name.casefold() in known]
        return f"write {', '.join(found[:8])} in data.yaml" if found else "rename its classes in data.yaml"

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
