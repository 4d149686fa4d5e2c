from __future__ import annotations

import pytest
from shapes import GENTLE, GROWN, KNOWN, World, tiny, write_shapes

from diredi.data.dataset import load
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    presumed = write_shapes(folder / "presumed", KNOWN.names, 96, 32, seed=0)
    site = write_shapes(folder / "site", GROWN.names, 48, 32, seed=1, light=0.5)
    model = tiny()
    train(model, load(presumed).train, TrainRecipe(steps=280, batch=6, learning_rate=4e-3, augment=GENTLE))
    model.save(folder / "model.safetensors")
    return World(presumed, site, folder / "model.safetensors")
