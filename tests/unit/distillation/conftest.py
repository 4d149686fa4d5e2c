from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
from rectangles import LABELS, recipe, rectangles

from diredi.data.dataset import Sample
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.trainer import train
from diredi.labels import LabelSpace
from tests.support.made_once import made_once

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def make() -> Callable[..., Detector]:
    first = cache(partial(registry.create, image_size=64, device="cpu"))

    def made(architecture: str = "yolo11-w0.0625", labels: LabelSpace = LABELS, seed: int = 0) -> Detector:
        return first(architecture, labels=labels, seed=seed).expand_classes(labels)  # a copy, made in no time

    return made


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Sample], list[Sample]]:
    """Training and held-out images of all three classes."""
    folder: Path = tmp_path_factory.mktemp("shapes")
    return rectangles(folder / "train", 96, (0, 1, 2), 0), rectangles(folder / "val", 60, (0, 1, 2), 1)


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Training images without the third class."""
    return rectangles(tmp_path_factory.mktemp("known"), 96, (0, 1), 2)


@pytest.fixture(scope="session")
def teacher() -> Detector:
    """Twice as wide as the students, and good."""

    def make(folder: Path) -> None:
        detector = registry.create("yolo11-w0.125", 64, LABELS, seed=0, device="cpu")
        train(detector, rectangles(folder / "images", 96, (0, 1, 2), 0), recipe(epochs=20))
        detector.save(folder / "teacher.safetensors")

    folder = made_once("teacher", make, [HERE / "conftest.py", HERE / "rectangles.py"])
    return registry.load(folder / "teacher.safetensors", device="cpu")
