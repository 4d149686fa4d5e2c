"""Images of coloured squares with their labels: a data set that is written in no time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from diredi.data import yolo

COLOURS = {"car": (255, 255, 255), "person": (0, 0, 255), "tram": (0, 255, 0)}
"""BGR."""


def write_squares(folder: Path, names: Sequence[str], images: int, seed: int, labelled: bool = True) -> Path:
    """Write as many images to learn from as to measure on, with a square of every class; return the `data.yaml`."""
    random = np.random.default_rng(seed)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(images):
            image = random.integers(60, 120, (64, 64, 3), np.uint8)
            boxes = []
            for index, name in enumerate(names):
                x, y = random.integers(0, 40, 2).tolist()
                cv2.rectangle(image, (x, y), (x + 23, y + 23), COLOURS[name], -1)
                boxes.append([index, (x + 12) / 64, (y + 12) / 64, 24 / 64, 24 / 64])
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            if labelled:
                text = yolo.labels_text(np.array(boxes, np.float32))
                (folder / "labels" / split / f"{number}.txt").write_text(text, encoding="utf-8")
    (folder / "data.yaml").write_text(yolo.description_text(names), encoding="utf-8")
    return folder / "data.yaml"
