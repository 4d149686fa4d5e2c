"""The smallest data that a detector can learn, and how: bright rectangles and discs on a grey ground."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from diredi.data.dataset import Sample
from diredi.detectors.predictor import Image
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.labels import LabelSpace

LABELS = LabelSpace(names=("red", "green", "disc"))
STILL = Augment(mirror=0, scale=0, shift=0, brightness=0, contrast=0, saturation=0, noise=0)
GENTLE = Augment(scale=0.1, brightness=0.1, contrast=0.1, saturation=0, noise=0)
COLOURS = ((40, 60, 230), (60, 210, 60), (230, 90, 40))


def recipe(**changes: object) -> TrainRecipe:
    return TrainRecipe(**{"augment": GENTLE, "batch": 8, "learning_rate": 4e-3, "epochs": 8, **changes})  # type: ignore[arg-type]


def rectangles(folder: Path, images: int, classes: tuple[int, ...], seed: int, size: int = 64) -> list[Sample]:
    """Images of one to three shapes; class 2 is a disc. Each class has a colour of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    samples = []
    for number in range(images):
        image = random.normal(110, 12, (size, size, 3))
        boxes = [_drawn(image, int(random.choice(classes)), random) for _ in range(random.integers(1, 4))]
        file = folder / f"{number}.png"
        cv2.imwrite(str(file), np.clip(image, 0, 255).astype(np.uint8))
        samples.append(Sample(file, np.array(boxes, np.float32)))
    return samples


def _drawn(image: Image, kind: int, random: np.random.Generator) -> list[float]:
    size = image.shape[0]
    sides = random.integers(size // 5, size // 2, 2)
    low = [int(random.integers(0, size - side)) for side in sides]
    high = [a + int(b) for a, b in zip(low, sides, strict=True)]
    colour = (np.array(COLOURS[kind]) * random.uniform(0.7, 1.1)).tolist()
    if kind == 2:
        middle = [(a + b) // 2 for a, b in zip(low, high, strict=True)]
        cv2.ellipse(image, middle, [int(side) // 2 for side in sides], 0, 0, 360, colour, -1)
    else:
        cv2.rectangle(image, low, [high[0] - 1, high[1] - 1], colour, -1)
    centre = [(a + b) / 2 / size for a, b in zip(low, high, strict=True)]
    return [kind, *centre, *(int(side) / size for side in sides)]
