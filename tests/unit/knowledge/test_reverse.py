"""What a site extracts: the same start, recipe, seed and order for both tutors, so that only knowledge is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from shapes import GROWN, KNOWN, LEARN, World, tiny

from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gap import apply
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData, as_seen_by, distil_student, presumption, reverse_distil

SHORT = {"tutor": {"steps": 3, "batch": 4}, "student": {"steps": 3, "batch": 4}}


def recipe(**options: object) -> CycleRecipe:
    return CycleRecipe.of({**SHORT, **options})


@pytest.mark.slow
def test_two_tutors_that_learn_the_same_leave_a_gap_of_exactly_zero(world: World) -> None:
    shared = Pool(world.presumed.train)
    data = SiteData(KNOWN, shared, shared)
    _, gap = reverse_distil(tiny(), tiny(seed=1), data, recipe(reverse_distillations="two"))
    assert len(gap) > 0
    assert gap.norm() == 0.0


def test_tutor_1_sees_as_many_images_and_the_shared_ones_in_the_same_places(world: World) -> None:
    data = world.site_data()
    presumed = presumption(tiny(), data, recipe(reverse_distillations="two"))
    assert [len(pool.samples) for pool in presumed] == [len(pool.samples) for pool in data.pools]
    assert presumed[1] is data.coreset
    assert not {s.image for s in presumed[0].samples} & {s.image for s in data.private.samples}


def test_reverse_distillation_changes_neither_the_tutor_nor_the_student(world: World) -> None:
    tutor, student = tiny(), tiny(seed=1)
    before = tutor.weights(), student.weights()
    tutor_2, _ = reverse_distil(tutor, student, world.site_data(), recipe())
    distil_student(student, tutor_2, world.site_data(), recipe())
    for detector, weights in zip((tutor, student), before, strict=True):
        assert (detector.weights() - weights).norm() == 0.0
        assert detector.module.training is False


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"reverse_distillations": "two", "presumption": "student"}])
def test_the_same_cycle_twice_gives_the_same_gap(world: World, options: dict[str, str]) -> None:
    gaps = [reverse_distil(tiny(), tiny(seed=1), world.site_data(), recipe(**options))[1] for _ in range(2)]
    assert (gaps[0] - gaps[1]).norm() == 0.0
    assert gaps[0].norm() > 0.0


@pytest.mark.slow
def test_tutor_2_learns_the_new_class_and_the_gap_brings_it_to_the_tutor(world: World) -> None:
    """Over three seeds: how far so short a training comes is a matter of luck. The first is the one made for all."""
    tutor, held_out = world.detector(), world.site.with_labels(GROWN).val
    before = evaluate(tutor, held_out, GROWN)
    others = [CycleRecipe(tutor=LEARN, seed=seed) for seed in (1, 2)]
    tutors = [world.tutor_2(), *(reverse_distil(tutor, tutor, world.site_data(), other)[0] for other in others)]
    learned = [evaluate(tutor_2, held_out, GROWN) for tutor_2 in tutors]
    assert before.per_class["disc"].ap50 == 0.0
    assert np.mean([metrics.per_class["disc"].ap50 for metrics in learned]) > 0.6
    assert np.mean([metrics.map50 for metrics in learned]) > before.map50 + 0.2
    again = tutor.expand_classes(GROWN)
    again.load_weights(apply(tutor.weights(), world.gap(), 1.0))
    assert evaluate(again, held_out, GROWN).map50 == pytest.approx(learned[0].map50, abs=0.02)


def test_batch_norm_statistics_stay_at_the_site_when_the_recipe_says_so(world: World) -> None:
    _, gap = reverse_distil(tiny(), tiny(seed=1), world.site_data(), recipe(batch_norm="keep"))
    assert not [name for name in gap if "running" in name]


def test_only_the_named_layers_and_the_new_class_are_in_the_gap(world: World) -> None:
    tutor = tiny()
    _, gap = reverse_distil(tutor, tiny(seed=1), world.site_data(), recipe(layers=["neck"]))
    outside = {name for name in gap if tutor.section_of(name) != "neck"}
    assert outside == set(tutor.class_rows())
    assert all(not gap[name][: len(KNOWN)].any() for name in outside)


def test_fresh_tutors_share_their_start(world: World) -> None:
    shared = Pool(world.presumed.train)
    data = SiteData(KNOWN, shared, shared)
    options = recipe(start="fresh", reverse_distillations="two")
    tutor_2, gap = reverse_distil(tiny(), tiny(seed=1), data, options)
    assert gap.norm() == 0.0
    assert tutor_2.spec.architecture == tiny().spec.architecture


def test_a_presumption_needs_presumed_data_or_the_student(world: World) -> None:
    data = SiteData.of(world.site, None, GROWN, presumed_shows_new=False)
    with pytest.raises(InvalidInput, match="coreset_images"):
        reverse_distil(tiny(), tiny(), data, recipe(reverse_distillations="two"))


def test_a_student_sees_only_what_it_knows_and_says_nothing_of_the_rest(world: World) -> None:
    seen = as_seen_by(world.detector(), world.presumed.val, GROWN)
    assert seen.classes == frozenset({0, 1})
    labels = [set(sample.boxes[:, 0]) for sample in world.presumed.val]
    told = [set(sample.boxes[:, 0]) for sample in seen.samples]
    assert sum(a == b for a, b in zip(labels, told, strict=True)) > len(labels) / 2
    assert all(np.all((sample.boxes[:, 1:] >= 0) & (sample.boxes[:, 1:] <= 1)) for sample in seen.samples)


def test_a_class_that_an_annotator_did_not_know_is_not_background(world: World) -> None:
    assert SiteData.of(world.presumed, None, GROWN, presumed_shows_new=False).private.classes == frozenset({0, 1})
    assert SiteData.of(world.site, world.presumed, GROWN, presumed_shows_new=True).coreset.classes == frozenset({0, 1})
    assert SiteData.of(world.site, world.presumed, GROWN, presumed_shows_new=False).coreset.classes is None


def test_a_manufacturer_that_has_not_labelled_all_that_its_models_know_teaches_none_of_it_to_be_absent(
    world: World,
) -> None:
    """What COCO has taught is in many a picture that was labelled for six classes."""
    boxes, bars = ([sample.boxes[sample.boxes[:, 0] == kind] for sample in world.presumed.train] for kind in (0, 1))
    assert any(map(len, bars))
    samples = [replace(sample, boxes=kept) for sample, kept in zip(world.presumed.train, boxes, strict=True)]
    coreset = replace(world.presumed, train=samples, val=[])
    data = SiteData.of(world.site, coreset, GROWN, presumed_shows_new=False, known=KNOWN.names)
    assert data.coreset.classes == frozenset({0, 2}), "bars may be there; discs are new, and are not"
    shows_new = SiteData.of(world.site, coreset, GROWN, presumed_shows_new=True, known=KNOWN.names)
    assert shows_new.coreset.classes == frozenset({0})


def test_a_student_gap_carries_the_new_class(world: World) -> None:
    student: Detector = tiny(seed=1)
    _, gap = distil_student(student, world.detector().expand_classes(GROWN), world.site_data(), recipe())
    rows = {name: gap[name].shape[0] for name in student.class_rows()}
    assert set(rows.values()) == {len(GROWN)}
    assert apply(student.weights(), gap).schema() == student.expand_classes(GROWN).weights().schema()
