from __future__ import annotations

import numpy as np
import pytest
import torch

from diredi.detectors import registry
from diredi.labels import LabelSpace

torch.set_num_threads(1)

LABELS = LabelSpace(names=("car", "person", "dog"))
SMALL = "yolo11-w0.0625"


@pytest.fixture
def labels() -> LabelSpace:
    return LABELS


@pytest.fixture(scope="session")
def small():
    """A small detector whose batch-norm statistics and weights have moved, so that its answers differ by image."""
    detector = registry.create(SMALL, 64, LABELS, seed=0, device="cpu")
    detector.module.train()
    with torch.no_grad():
        for _ in range(8):
            detector.forward(torch.rand(8, 3, 64, 64))
    detector.module.eval()
    return detector


@pytest.fixture
def images() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (40 + 13 * i, 96 - 9 * i, 3), dtype=np.uint8) for i in range(5)]
