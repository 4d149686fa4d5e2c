"""What a detector is, without its weights; readable without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from diredi.errors import CorruptData, InvalidInput
from diredi.labels import LabelSpace
from diredi.store.weights import read_metadata

_KEY = "diredi.spec"

CELL = 32
"""Pixels of the coarsest cell of every family: the side of an image is a multiple of it."""
LEAST_PIXELS, MOST_PIXELS = CELL, 2048
DEFAULT_IMAGE_SIZE = 640
"""Pixels, of a checkpoint that does not say its own: what official ones were trained at."""


def check_image_size(pixels: int, name: str = "image size") -> None:
    """Check the side of a detector's square input.

    Args:
        pixels: The side.
        name: What the person who chose it calls it, such as "--image-size".

    Raises:
        InvalidInput: No detector takes it. The message names the sizes beside it.
    """
    if not LEAST_PIXELS <= pixels <= MOST_PIXELS:
        raise InvalidInput(f"{name} {pixels} will not do: use {LEAST_PIXELS} to {MOST_PIXELS}, a multiple of {CELL}")
    if pixels % CELL:
        below = pixels // CELL * CELL
        raise InvalidInput(f"{name} {pixels} is not a multiple of {CELL}: take {below} or {below + CELL}")


class DetectorSpec(BaseModel):
    """Architecture, input size and label space: enough to build the network that a `WeightMap` belongs to.

    `architecture` is a name of a detector family: "yolo11n", "yolo26m", "yolov8s", or a width below n for small boards,
    "yolo11-w0.125" (width 0.125, depth 0.50) or "yolo11-w0.125-d0.33". Behind it, "-relu" and others
    stand for that activation in place of SiLU, and "-gn" for group norm in place of batch norm.
    """

    model_config = ConfigDict(frozen=True)

    architecture: str
    """Name of the architecture."""
    image_size: int = Field(ge=LEAST_PIXELS, le=MOST_PIXELS, multiple_of=CELL)
    """Side of the square input in pixels."""
    labels: LabelSpace
    """Class names in the order of their ids."""
    branches: tuple[tuple[int, ...], ...] = ()
    """Ids of the classes of each branch: a neck and a head of its own beside the main ones, on the same backbone. The
    last branch that has a class speaks for it, the main head for classes that no branch has."""
    routed: tuple[tuple[int, ...], ...] = ()
    """For each branch the ids of those of its classes for which it speaks only in its own place: its router, a linear
    layer on the backbone's last map, tells whether an image shows that place. Elsewhere whoever would speak without
    the branch does. A branch without such classes has no router. Empty: no branch has one."""

    @model_validator(mode="after")
    def _branches_have_classes(self) -> DetectorSpec:
        for branch in self.branches:
            if list(branch) != sorted(set(branch)) or not branch or not 0 <= branch[0] <= branch[-1] < len(self.labels):
                raise ValueError(f"a branch needs ids of the label space in rising order, each once, not {branch}")
        if len(self.routed) not in (0, len(self.branches)):
            raise ValueError(f"`routed` says something of {len(self.routed)} branches, there are {len(self.branches)}")
        for branch, ids in zip(self.branches, self.routed, strict=False):
            if list(ids) != sorted(set(ids) & set(branch)):
                raise ValueError(f"a branch for {branch} cannot have a router for {ids}: only for classes that it has")
        return self

    def with_branches(
        self, labels: LabelSpace, branches: Iterable[Sequence[int]], routed: Iterable[Sequence[int]] = ()
    ) -> DetectorSpec:
        """Return the specification of a detector that has grown.

        Args:
            labels: Its label space.
            branches: Ids of the classes of each of its branches.
            routed: For each branch the ids of those for which it speaks only in its own place; none for no branch.

        Raises:
            InvalidInput: A branch names no class, names one twice, or names one that is not in `labels`; or a router is
                for a class that its branch has not.
        """
        try:
            changes = {"labels": labels, "branches": _tuples(branches), "routed": shortest(_tuples(routed))}
            return DetectorSpec.model_validate({**dict(self), **changes})
        except ValidationError as error:
            raise InvalidInput(error.errors()[0]["msg"].removeprefix("Value error, ")) from None

    def speakers(self) -> list[int]:
        """Return who speaks for each class: 0 for the main head, else the number of the branch, counted from 1."""
        found = [0] * len(self.labels)
        for number, branch in enumerate(self.branches, start=1):
            for kind in branch:
                found[kind] = number
        return found

    def to_metadata(self) -> dict[str, str]:
        """Return the header of the safetensors file, which so describes itself."""
        unused = {name for name in ("branches", "routed") if not getattr(self, name)}
        return {_KEY: self.model_dump_json(exclude=unused)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> DetectorSpec:
        """Read the specification from the header of a file.

        Args:
            metadata: The header's strings.

        Raises:
            CorruptData: The header is none of DiReDi's.
        """
        try:
            return cls.model_validate(json.loads(metadata[_KEY]))
        except (KeyError, ValueError, ValidationError, RecursionError):
            raise CorruptData("the file does not say which detector it belongs to: it is not one of DiReDi's") from None

    @classmethod
    def of_file(cls, path: Path) -> DetectorSpec:
        """Read the specification of a safetensors file, without its weights and without torch.

        Args:
            path: The file.

        Raises:
            CorruptData: It is no safetensors file of DiReDi's.
        """
        return cls.from_metadata(read_metadata(path))


def shortest(routed: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """Return `routed` in its one spelling: empty where no branch has a router.

    Args:
        routed: For each branch ids of classes, as `DetectorSpec.routed` has them.
    """
    return routed if any(routed) else ()


def for_each(routed: tuple[tuple[int, ...], ...], branches: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return `routed` in its other spelling: with an entry for each branch.

    Args:
        routed: As `DetectorSpec.routed` has it.
        branches: As `DetectorSpec.branches` has them.
    """
    return routed or ((),) * len(branches)


def _tuples(ids: Iterable[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(one) for one in ids)
