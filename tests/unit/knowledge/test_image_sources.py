"""One contract for every source of images; a new one is tested the moment it is registered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from shapes import GROWN, KNOWN, World

from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.data.style import image_style, measure_style
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.errors import InvalidInput
from diredi.knowledge.image_sources import SOURCES, Stock, images_of
from diredi.knowledge.image_sources.existing import news
from diredi.knowledge.recipe import CycleRecipe, ImageSource

pytestmark = pytest.mark.slow

every_source = pytest.mark.parametrize("name", sorted(SOURCES))


@pytest.fixture(scope="module")
def tutor(world: World) -> Detector:
    """One that is sure of what a disc is, as the gaps of several sites would have taught it."""
    taught = world.tutor_2()
    train(taught, world.site.with_labels(GROWN).train, TrainRecipe(steps=60, batch=12, learning_rate=3e-3))
    return taught


@pytest.fixture
def stock(world: World, tutor: Detector, tmp_path: Path) -> Stock:
    presumed, public = world.presumed.with_labels(GROWN).train[:30], world.site.with_labels(GROWN).train
    return Stock(tutor, world.detector(), presumed, public, [measure_style(public)], False, tmp_path, 0)


def shown(samples: list[Sample]) -> list[bytes]:
    return [read_image(sample.image).tobytes() for sample in samples]


def test_a_recipe_may_name_every_source_that_there_is() -> None:
    assert set(SOURCES) == set(get_args(ImageSource))


def test_presumed_images_say_nothing_of_known_classes_that_are_nowhere_labelled(stock: Stock) -> None:
    assert stock.labelled is None
    bare = [replace(sample, boxes=sample.boxes[sample.boxes[:, 0] == 0]) for sample in stock.presumed]
    assert replace(stock, presumed=bare).labelled == frozenset({0, 2})


@every_source
def test_a_source_gives_as_many_images_as_asked_for_and_the_same_ones_again(name: ImageSource, stock: Stock) -> None:
    first = SOURCES[name](stock, 20)
    pictures, boxes = shown(list(first.samples)), [sample.boxes for sample in first.samples]
    again = SOURCES[name](stock, 20)
    assert len(first.samples) == 20
    assert shown(list(again.samples)) == pictures
    assert all(np.array_equal(a, sample.boxes) for a, sample in zip(boxes, again.samples, strict=True))


@every_source
def test_boxes_lie_in_the_image_and_have_classes_that_their_annotator_knew(name: ImageSource, stock: Stock) -> None:
    for shows_new in (False, True):
        pool = SOURCES[name](replace(stock, presumed_shows_new=shows_new), 20)
        known = set(range(len(GROWN))) if pool.classes is None else pool.classes
        boxes = np.concatenate([sample.boxes for sample in pool.samples])
        assert set(boxes[:, 0].astype(int)) <= known
        assert np.all(boxes[:, 3:] > 0)
        assert np.all(boxes[:, 1:3] - boxes[:, 3:] / 2 > -1e-4)
        assert np.all(boxes[:, 1:3] + boxes[:, 3:] / 2 < 1 + 1e-4)


@every_source
def test_presumed_images_that_may_show_the_new_class_say_nothing_of_it(name: ImageSource, stock: Stock) -> None:
    classes = SOURCES[name](replace(stock, presumed_shows_new=True), 20).classes
    assert classes is not None
    assert GROWN.id_of("disc") not in classes


@pytest.mark.parametrize("name", ["pool", "chosen"])
def test_labels_of_a_public_pool_are_not_looked_at(name: ImageSource, stock: Stock) -> None:
    pool = SOURCES[name](stock, 20)
    assert pool.classes == frozenset()
    assert not any(len(sample.boxes) for sample in pool.samples)


@pytest.mark.parametrize("name", ["pool", "chosen", "pasted"])
def test_a_cloud_without_a_public_pool_says_so(name: ImageSource, stock: Stock) -> None:
    with pytest.raises(InvalidInput, match="public pool"):
        images_of(replace(stock, public=[]), {name: 1.0})


def test_images_of_the_pool_are_chosen_where_the_tutor_sees_the_new_class(stock: Stock, world: World) -> None:
    disc = GROWN.id_of("disc")
    with_disc = [bool(np.any(sample.boxes[:, 0] == disc)) for sample in stock.public]
    scores = news(stock.tutor, stock.old, stock.public)
    assert scores[with_disc].mean() > 1.3 * scores[~np.array(with_disc)].mean()
    picked = {sample.image for sample in SOURCES["chosen"](stock, 12).samples}
    share = np.mean([has for sample, has in zip(stock.public, with_disc, strict=True) if sample.image in picked])
    assert share > np.mean(with_disc) + 0.15


def test_crops_are_of_the_new_class_and_their_boxes_are_where_the_tutor_sees_it(stock: Stock) -> None:
    disc = GROWN.id_of("disc")
    pool = SOURCES["pasted"](replace(stock, styles=[]), 30)
    new = [sample.boxes[sample.boxes[:, 0] == disc] for sample in pool.samples]
    assert all(len(boxes) == 1 for boxes in new)
    seen = 0
    for sample, boxes in zip(pool.samples, new, strict=True):
        image = read_image(sample.image)
        centre = boxes[0, 1:3] * image.shape[1::-1]
        blue, green, red = image[int(centre[1]), int(centre[0])].astype(int)
        seen += green > blue + 20 and red > blue + 20  # a disc is yellow
    assert seen >= 24


def test_a_tutor_that_finds_no_new_class_in_the_pool_gives_no_crops(stock: Stock, world: World) -> None:
    blind = replace(stock, public=world.presumed.train[:20], tutor=world.detector().expand_classes(GROWN))
    made = images_of(blind, {"pasted": 1.0})
    assert {name: len(pool.samples) for name, pool in made.items()} == {"presumed": 30}


def test_presumed_images_stand_in_for_a_style_that_no_site_has_published(stock: Stock) -> None:
    made = images_of(replace(stock, styles=[]), {"presumed": 1, "styled": 1, "pool": 1})
    assert {name: len(pool.samples) for name, pool in made.items()} == {"presumed": 20, "pool": 10}


def test_each_source_gives_its_share(stock: Stock) -> None:
    made = images_of(stock, {"presumed": 2, "styled": 1})
    assert {name: len(pool.samples) for name, pool in made.items()} == {"presumed": 20, "styled": 10}


def test_styled_images_are_in_the_light_of_the_site(stock: Stock) -> None:
    dark = np.mean([image_style(read_image(s.image)).lightness[3] for s in SOURCES["styled"](stock, 20).samples])
    bright = np.mean([image_style(read_image(s.image)).lightness[3] for s in stock.presumed])
    assert abs(dark - stock.styles[0].lightness[3]) < 0.25 * abs(bright - stock.styles[0].lightness[3])


def test_a_mix_without_any_share_is_refused() -> None:
    for mix in ({}, {"presumed": 0}, {"presumed": -1, "pool": 2}, {"the site's own": 1}):
        with pytest.raises(InvalidInput, match="redistil_images"):
            CycleRecipe.of({"redistil_images": mix})
    assert CycleRecipe.of({"redistil_images": "pool"}).redistil_images == {"pool": 1.0}


def test_a_source_may_be_named_without_knowing_the_label_space(world: World, stock: Stock) -> None:
    """A cycle without a new class has nothing to cut out, and all else works."""
    tutor = registry.load(world.model, device="cpu")
    plain = replace(stock, tutor=tutor, presumed=world.presumed.train[:10], public=world.presumed.train[:10])
    assert tutor.spec.labels == KNOWN
    assert [len(SOURCES[name](plain, 6).samples) for name in ("presumed", "pool", "chosen", "styled", "pasted")] == [
        6, 6, 6, 6, 0,
    ]  # fmt: skip
