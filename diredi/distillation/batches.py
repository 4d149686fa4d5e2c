"""Training batches: images kept at network size in memory, changed a little each time they are seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.detectors.base import Targets
from diredi.detectors.postprocess import GREY, Letterbox
from diredi.detectors.predictor import Image
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.errors import InvalidInput

SMALLEST_SIDE = 2.0  # pixels; a box that a shift leaves smaller is dropped
SMALLEST_SHARE = 0.25  # of the box' area that must stay in the frame

Json = dict[str, Any]
Boxes = NDArray[np.float32]
"""n x 5: class, then x1, y1, x2, y2 in pixels of the network's input."""


@dataclass(frozen=True)
class Pool:
    """Images that were labelled alike. `classes`: the ids that their annotator knew; None: all of the label space.

    A car on a picture that was labelled for forklifts alone is not background: the loss must not say so.
    """

    samples: Sequence[Sample]
    classes: frozenset[int] | None = None


@dataclass(frozen=True)
class Batch:
    """One batch of a training."""

    images: Tensor  # batch x 3 x size x size, float32, RGB, 0..1
    clean: Tensor  # the same before colours and noise were changed
    targets: Targets

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        if device.type == "cpu":
            return self
        return Batch(self.images.to(device), self.clean.to(device), self.targets.to(device))


class Batches:
    """Gives `steps` batches, once. Equal recipes and samples give equal batches, in this process and in any other.

    There are no loader processes and no threads: nothing outlives a training, however it ends.
    """

    def __init__(self, pools: Sequence[Pool], recipe: TrainRecipe, size: int, classes: int) -> None:
        """Raises InvalidInput for an empty set or an id beyond `classes`, DatasetError for an unreadable image."""
        self._recipe, self._size, self._classes = recipe, size, classes
        self._samples = [(sample, pool.classes) for pool in pools for sample in pool.samples]
        if not self._samples:
            raise InvalidInput("there is nothing to train on: the training split is empty")
        _check_ids(self._samples, classes)
        self._partly = any(pool.classes is not None for pool in pools)
        room = recipe.cache_mib * 2**20 // (size * size * 3)
        self._cache: list[tuple[Image, Boxes]] | None = None
        if len(self._samples) <= room:
            self._cache = [_fitted(sample, size) for sample, _ in self._samples]
        self._random = np.random.default_rng(recipe.seed)
        self._order: list[int] = []
        self._done = 0
        self.steps = recipe.steps or max(round(recipe.epochs * self.steps_per_epoch), 1)
        """The number of batches in the whole training; whoever has not the time for all of them may lower it."""

    @property
    def steps_per_epoch(self) -> int:
        """Return the number of batches in an epoch."""
        return max(len(self._samples) // self._recipe.batch, 1)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._done >= self.steps:
            raise StopIteration
        while len(self._order) < self._recipe.batch:
            self._order += self._random.permutation(len(self._samples)).tolist()
        chosen, self._order = self._order[: self._recipe.batch], self._order[self._recipe.batch :]
        self._done += 1
        return self._batch(chosen, self._random)

    @property
    def done(self) -> int:
        """How many batches have been given."""
        return self._done

    def place(self) -> Json:
        """Where the batches stand, in JSON."""
        return {"done": self._done, "order": self._order, "random": self._random.bit_generator.state}

    def go_to(self, place: Json) -> None:
        """Goes on from a `place` of equal batches."""
        self._done, self._order = int(place["done"]), list(place["order"])
        self._random.bit_generator.state = place["random"]

    def _batch(self, chosen: Sequence[int], random: np.random.Generator) -> Batch:
        augment = self._recipe.augment
        pairs = [self._augmented(i, random) for i in chosen]
        pixels = torch.from_numpy(np.stack([image for image, _ in pairs]))
        clean = pixels.permute(0, 3, 1, 2).flip(1).float().div_(255)
        images = _recoloured(clean, augment, random)
        return Batch(images, clean, self._targets(chosen, [boxes for _, boxes in pairs]))

    def _targets(self, chosen: Sequence[int], boxes: Sequence[Boxes]) -> Targets:
        index = np.repeat(np.arange(len(boxes)), [len(b) for b in boxes])
        table = np.concatenate([*boxes, np.zeros((0, 5), np.float32)])
        low, high = table[:, 1:3], table[:, 3:5]
        centred = np.concatenate([(low + high) / 2, high - low], 1) / np.float32(self._size)
        labelled = None
        if self._partly:
            labelled = torch.ones(len(chosen), self._classes)
            for row, i in zip(labelled, chosen, strict=True):
                known = self._samples[i][1]
                if known is not None:
                    row.zero_()[sorted(known)] = 1
        return Targets(
            torch.from_numpy(index), torch.from_numpy(table[:, 0].astype(np.int64)), torch.from_numpy(centred), labelled
        )

    def _read(self, index: int) -> tuple[Image, Boxes]:
        return self._cache[index] if self._cache is not None else _fitted(self._samples[index][0], self._size)

    def _augmented(self, index: int, random: np.random.Generator) -> tuple[Image, Boxes]:
        if self._recipe.augment.mosaic and random.random() < self._recipe.augment.mosaic:
            return self._mosaic(index, random)
        image, boxes = self._read(index)
        matrix = _affine(self._recipe.augment, self._size, random)
        return _warped(image, boxes, matrix, self._size)

    def _mosaic(self, index: int, random: np.random.Generator) -> tuple[Image, Boxes]:
        """Four images, each at half size in one quarter. Only ones labelled alike share a frame."""
        alike = [i for i, (_, classes) in enumerate(self._samples) if classes == self._samples[index][1]]
        others = [index, *random.choice(alike, 3).tolist()]
        half = self._size // 2
        canvas = np.empty((self._size, self._size, 3), np.uint8)
        placed = []
        for quarter, i in enumerate(others):
            image, boxes = _warped(*self._read(i), _affine(self._recipe.augment, self._size, random), self._size)
            left, top = half * (quarter % 2), half * (quarter // 2)
            canvas[top : top + half, left : left + half] = cv2.resize(image, (half, half), interpolation=cv2.INTER_AREA)
            moved = boxes.copy()
            moved[:, 1:] = boxes[:, 1:] / 2 + np.array([left, top, left, top], np.float32)
            placed.append(moved)
        return canvas, np.concatenate(placed)


def _check_ids(samples: Sequence[tuple[Sample, frozenset[int] | None]], classes: int) -> None:
    for sample, _ in samples:
        strange = [int(kind) for kind in sample.boxes[:, 0] if not 0 <= kind < classes]
        if strange:
            raise InvalidInput(
                f"{sample.image} has a box of class {strange[0]}, beyond the label space of "
                f"{classes} classes: map the data set to the detector's label space first"
            )


def _fitted(sample: Sample, size: int) -> tuple[Image, Boxes]:
    image = read_image(sample.image)
    frame = Letterbox.fit(image.shape[0], image.shape[1], size)
    boxes = np.asarray(sample.boxes, np.float32).reshape(-1, 5)
    centred = frame.forward(boxes[:, 1:], size) * np.float32(size)
    low, high = centred[:, :2] - centred[:, 2:] / 2, centred[:, :2] + centred[:, 2:] / 2
    return frame.apply(image, size), np.concatenate([boxes[:, :1], low, high], 1)


def _affine(augment: Augment, size: int, random: np.random.Generator) -> NDArray[np.float64]:
    """2 x 3: zoom about the middle, shift, mirror. Draws the same number of times whatever `augment` says."""
    zoom = 1 + augment.scale * random.uniform(-1, 1)
    shift = augment.shift * random.uniform(-1, 1, 2) * size
    mirrored = random.random() < augment.mirror
    across = -zoom if mirrored else zoom
    middle = size / 2
    return np.array([[across, 0, middle - across * middle + shift[0]], [0, zoom, middle - zoom * middle + shift[1]]])


def _warped(image: Image, boxes: Boxes, matrix: NDArray[np.float64], size: int) -> tuple[Image, Boxes]:
    # The matrix speaks of edges of pixels, OpenCV of their centres.
    centres = matrix.copy()
    centres[:, 2] += 0.5 * (matrix[:, 0] + matrix[:, 1]) - 0.5
    moved = cv2.warpAffine(image, centres, (size, size), flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY))
    scale, shift = np.diag(matrix[:, :2]).astype(np.float32), matrix[:, 2].astype(np.float32)
    a, b = boxes[:, 1:3] * scale + shift, boxes[:, 3:5] * scale + shift
    low, high = np.minimum(a, b), np.maximum(a, b)
    inside_low, inside_high = np.clip(low, 0, size), np.clip(high, 0, size)
    sides = inside_high - inside_low
    share = sides.prod(1) / np.maximum((high - low).prod(1), 1e-6)
    keep = (sides.min(1, initial=np.inf) >= SMALLEST_SIDE) & (share >= SMALLEST_SHARE)
    placed = np.concatenate([boxes[:, :1], inside_low, inside_high], 1)[keep]
    return moved.astype(np.uint8, copy=False), placed.astype(np.float32)


def _recoloured(images: Tensor, augment: Augment, random: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and noise, each image its own."""
    drawn = torch.from_numpy(random.uniform(-1, 1, (4, len(images), 1, 1, 1)).astype(np.float32))
    brightness = 1 + augment.brightness * drawn[0]
    contrast = 1 + augment.contrast * drawn[1]
    saturation = 1 + augment.saturation * drawn[2]
    strength = augment.noise * drawn[3].abs()
    grey = images.mean(1, keepdim=True)
    changed = torch.lerp(grey, images, saturation) * brightness
    middle = changed.mean((1, 2, 3), keepdim=True)
    changed = torch.lerp(middle, changed, contrast)
    if augment.noise:
        source = torch.Generator().manual_seed(int(random.integers(2**31)))
        changed = changed.addcmul_(torch.randn(images.shape, generator=source), strength.expand_as(images))
    return changed.clamp_(0, 1)
