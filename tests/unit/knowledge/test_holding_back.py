"""What a site holds back from its own training, to decide on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diredi.data.dataset import Sample
from diredi.distillation.batches import Pool
from diredi.knowledge.adaptation import hold_back
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData
from diredi.labels import LabelSpace


@pytest.mark.parametrize(("images", "held"), [(0, 0), (2, 0), (3, 1), (9, 3), (14, 4), (200, 30)])
def test_a_site_with_few_images_holds_some_back_all_the_same(images: int, held: int) -> None:
    pool = Pool([Sample(Path(f"{number}.jpg"), np.zeros((0, 5), np.float32)) for number in range(images)])
    learned, kept = hold_back(SiteData(LabelSpace(names=("box",)), pool, pool), CycleRecipe())
    for part, rest in ((kept.private, learned.private), (kept.coreset, learned.coreset)):
        assert len(part.samples) == held
        assert sorted([*part.samples, *rest.samples], key=lambda one: int(one.image.stem)) == pool.samples
