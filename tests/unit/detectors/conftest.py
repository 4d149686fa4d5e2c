from __future__ import annotations

import numpy as np
import pytest
import torch

from diredi.detectors import registry
from diredi.labels import LabelSpace
from tests.unit.detectors.families import SMALL

LABELS = LabelSpace(names=("car", "person", "dog"))


@pytest.fixture
def labels() -> LabelSpace:
    return LABELS


@pytest.fixture(scope="session", params=SMALL)
def small(request):
    """A small detector whose batch-norm statistics have moved, so that its answers differ by image."""
    detector = registry.create(request.param, 64, LABELS, seed=0, device="cpu")
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


@pytest.fixture
def first(small) -> str:
    """The name of one of its weights."""
    return next(name for name, parameter in small.module.named_parameters() if parameter.ndim == 4)
