"""Collect what a user should know of a data set and what is no fault."""

from __future__ import annotations

from pathlib import Path


class Notes:
    """Sentences about a data set that can be used as it is, such as that three files were left out.

    Examples:
        >>> notes = Notes()
        >>> for line in (3, 8):
        ...     notes.count("box", "without area: left out", f"a.txt, line {line}")
        >>> notes.sentences(Path("data.yaml"))
        ('data.yaml: 2 boxes without area: left out (the first: a.txt, line 3)',)
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._sentences: dict[str, None] = {}
        self._counted: dict[tuple[str, str], tuple[int, object]] = {}

    def add(self, sentence: str) -> None:
        """Add a sentence, once."""
        self._sentences[sentence] = None

    def count(self, noun: str, remark: str, where: object) -> None:
        """Count one more thing of a kind.

        Args:
            noun: What it is, in the singular.
            remark: What is said of all of them, so that it follows one and many alike.
            where: The place of this one.
        """
        number, first = self._counted.get((noun, remark), (0, where))
        self._counted[noun, remark] = (number + 1, first)

    def sentences(self, path: Path) -> tuple[str, ...]:
        """Return a sentence for each kind.

        Args:
            path: The data set's `data.yaml`, with which each sentence begins.
        """
        counted = [
            f"{counted_noun(number, noun)} {remark} (the first: {first})"
            for (noun, remark), (number, first) in self._counted.items()
        ]
        return tuple(f"{path}: {sentence}" for sentence in (*self._sentences, *counted))


def counted_noun(number: int, noun: str) -> str:
    """Return a number and a noun, in the plural if need be: "1 box", "2 boxes", "2 images"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('x') else 's'}"
