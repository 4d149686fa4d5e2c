from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from rectangles import STILL, recipe

from diredi.data.dataset import Sample
from diredi.distillation.batches import Batches, Pool
from diredi.distillation.recipe import Augment, TrainRecipe

WILD = Augment(mirror=0.5, scale=0.4, shift=0.2, brightness=0, contrast=0, saturation=0, noise=0)


@pytest.fixture
def squares(tmp_path):
    """White squares on black, of known place, so that boxes can be measured in the pixels."""
    samples = []
    random = np.random.default_rng(0)
    for number in range(12):
        image = np.zeros((96, 128, 3), np.uint8)
        side = int(random.integers(20, 40))
        x, y = int(random.integers(0, 128 - side)), int(random.integers(0, 96 - side))
        image[y : y + side, x : x + side] = 255
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        box = [0, (x + side / 2) / 128, (y + side / 2) / 96, side / 128, side / 96]
        samples.append(Sample(tmp_path / f"{number}.png", np.array([box], np.float32)))
    return samples


def batches(samples, **changes):
    return Batches([Pool(samples)], recipe(**changes), size=64, classes=3)


@pytest.mark.parametrize("augment", [STILL, WILD, Augment(**{**WILD.model_dump(), "mosaic": 1.0})])
def test_boxes_stand_on_what_they_label_however_the_image_was_moved(augment, squares):
    inside, outside = [], []
    for batch in batches(squares, augment=augment, steps=6, batch=4):
        covered = torch.zeros(len(batch.images), 64, 64, dtype=torch.bool)
        for image, box in zip(batch.targets.image_index, batch.targets.boxes * 64, strict=True):
            x1, y1 = (box[:2] - box[2:] / 2).round().int().tolist()
            x2, y2 = (box[:2] + box[2:] / 2).round().int().tolist()
            inside.append(batch.clean[image, 0, y1:y2, x1:x2].mean().item())
            covered[image, max(y1 - 1, 0) : y2 + 1, max(x1 - 1, 0) : x2 + 1] = True
        white = (batch.clean.amin(1) > 0.9) & ~covered
        outside.append(white.float().mean().item())
    assert np.mean(inside) > 0.9
    assert np.mean(outside) < 0.01


def test_equal_recipes_give_equal_batches_and_epochs_differ(squares):
    first, second = (list(batches(squares, epochs=2, batch=4, augment=Augment())) for _ in range(2))
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a.targets.boxes, b.targets.boxes) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0].images, first[3].images)


def test_an_epoch_shows_every_image_once(squares):
    seen = torch.cat([batch.targets.boxes for batch in batches(squares, epochs=1, batch=4, augment=STILL)])
    assert len(seen.unique(dim=0)) == 12


def test_a_set_too_large_for_memory_gives_the_same_batches_from_disk(squares):
    kept, streamed = (list(batches(squares, cache_mib=mib, epochs=1, batch=4)) for mib in (64, 0))
    assert all(torch.equal(a.images, b.images) for a, b in zip(kept, streamed, strict=True))


def test_colours_change_for_the_student_and_not_for_the_teacher_that_sees_clean(squares):
    (batch,) = batches(squares, steps=1, batch=4, augment=Augment(noise=0.1))
    assert not torch.equal(batch.images, batch.clean)
    assert batch.images.min() >= 0
    assert batch.images.max() <= 1


def test_a_small_set_fills_its_batches_by_starting_again(squares):
    loader = batches(squares[:3], epochs=2, batch=8)
    assert loader.steps == 2
    assert all(len(batch.images) == 8 for batch in loader)


def test_steps_say_how_long_whatever_the_size_of_the_set(squares):
    assert batches(squares, steps=7).steps == batches(squares[:3], steps=7).steps == 7


def test_a_pool_says_which_classes_its_images_were_labelled_for(squares):
    loader = Batches(
        [Pool(squares[:6], frozenset({0, 2})), Pool(squares[6:])], TrainRecipe(batch=12, steps=1), size=64, classes=3
    )
    (batch,) = loader
    assert batch.targets.labelled is not None
    assert sorted(batch.targets.labelled.tolist()) == [[1, 0, 1]] * 6 + [[1, 1, 1]] * 6
    (whole,) = batches(squares, steps=1)
    assert whole.targets.labelled is None
