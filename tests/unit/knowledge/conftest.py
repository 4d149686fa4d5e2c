from __future__ import annotations

from pathlib import Path

import pytest
from shapes import GROWN, KNOWN, LEARN, World, tiny, write_shapes

from diredi.data.dataset import load
from diredi.distillation.trainer import train
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import reverse_distil
from tests.support.made_once import made_once

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def world() -> World:
    def make(folder: Path) -> None:
        presumed = write_shapes(folder / "presumed", KNOWN.names, 96, 32, seed=0)
        write_shapes(folder / "site", GROWN.names, 48, 32, seed=1, light=0.5)
        model = tiny()
        train(model, load(presumed).train, LEARN)
        model.save(folder / "model.safetensors")
        tutor_2, gap = reverse_distil(model, model, in_(folder).site_data(), CycleRecipe(tutor=LEARN))
        tutor_2.save(folder / "tutor-2.safetensors")
        gap.save(folder / "gap.safetensors")

    folder = made_once("world", make, [HERE / "conftest.py", HERE / "shapes.py"])
    return in_(folder)


def in_(folder: Path) -> World:
    models = (folder / f"{name}.safetensors" for name in ("model", "tutor-2", "gap"))
    return World(folder / "presumed" / "data.yaml", folder / "site" / "data.yaml", *models)
