from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from shapes import GROWN, KNOWN, tiny, write_shapes

from diredi.data.dataset import DataSet, load
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.distillation.trainer import train

GENTLE = Augment(scale=0.1, shift=0.05)


@dataclass(frozen=True)
class World:
    """A manufacturer with a detector of boxes and bars, and a darker site that has discs too."""

    presumed_yaml: Path
    site_yaml: Path
    model: Path

    @property
    def presumed(self) -> DataSet:
        return load(self.presumed_yaml)

    @property
    def site(self) -> DataSet:
        return load(self.site_yaml)

    def detector(self) -> Detector:
        return registry.load(self.model, device="cpu")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> World:
    folder = tmp_path_factory.mktemp("world")
    presumed = write_shapes(folder / "presumed", KNOWN.names, 96, 32, seed=0)
    site = write_shapes(folder / "site", GROWN.names, 48, 32, seed=1, light=0.5)
    model = tiny()
    train(model, load(presumed).train, TrainRecipe(steps=280, batch=6, learning_rate=4e-3, augment=GENTLE))
    registry.save(model, folder / "model.safetensors")
    return World(presumed, site, folder / "model.safetensors")
