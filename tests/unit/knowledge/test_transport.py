"""What a site has learned is carried over to a release that has learned something else meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapes import GROWN, KNOWN, LEARN, SIZE, TINY, World, tiny, write_shapes

from diredi.data.dataset import Dataset, load
from diredi.detectors.base import Detector
from diredi.distillation.trainer import train
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.gap import Gap
from diredi.knowledge.gap_application import apply_gap, with_gap
from diredi.knowledge.jobs import apply_gap as apply_job
from diredi.knowledge.jobs import redistil as redistil_job
from diredi.knowledge.jobs.specs import ApplySpec, RedistilSpec, SiteGap, TransportSpec
from diredi.knowledge.jobs.transport import main
from diredi.knowledge.merging import Contribution, merge_gaps
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.transport import StoredModel, transport
from diredi.labels import LabelSpace


@pytest.fixture(scope="module")
def origin() -> Detector:
    return tiny(KNOWN)


def changed(base: Detector, labels: LabelSpace, seed: int) -> Detector:
    """Every weight is another, and there are rows for new classes."""
    random = np.random.default_rng(seed)
    copy = base.expand_classes(labels)

    def other(name: str, array: np.ndarray) -> np.ndarray:
        if array.dtype != np.float32:
            return array
        factor = random.uniform(0.9, 1.1, array.shape) if name.endswith("running_var") else 1
        return (array * factor + (factor == 1) * 0.02 * random.standard_normal(array.shape)).astype(np.float32)

    copy.load_weights(copy.weights().mapped(other))
    return copy


def stored(detector: Detector) -> StoredModel:
    return StoredModel(detector.digest, detector.spec, detector.weights())


def carried(learned: Detector, origin: Detector, target: Detector) -> Gap:
    return transport(stored(learned), stored(origin), stored(target))


def rows(detector: Detector, name: str) -> dict[str, np.ndarray]:
    """The row of one class in each weight that has a row for each class."""
    kind, weights = detector.spec.labels.id_of(name), detector.weights()
    return {weight: weights[weight][kind] for weight in detector.class_rows()}


def assert_same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, array in other.items():
        np.testing.assert_allclose(one[name], array, atol=2e-6, rtol=1e-5, err_msg=name)


def test_on_the_model_that_it_came_from_it_is_the_gap_itself(origin: Detector) -> None:
    learned = changed(origin, GROWN, 1)
    again = with_gap(origin, carried(learned, origin, origin), 1.0)
    assert again.spec == learned.spec
    assert_same(dict(again.weights()), {k: v for k, v in learned.weights().items() if v.dtype == np.float32})


def test_classes_are_mapped_by_name_where_both_have_given_one_id_to_another(origin: Detector) -> None:
    learned, target = changed(origin, GROWN, 1), changed(origin, KNOWN.expand(["truck", "bus"]), 2)
    gap = carried(learned, origin, target)
    after = with_gap(target, gap, 1.0)
    assert after.spec.labels.names == ("box", "bar", "truck", "bus", "disc")
    assert gap.note.base_id == target.digest
    assert_same(rows(after, "disc"), rows(learned, "disc"))
    for untouched in ("truck", "bus"):
        assert_same(rows(after, untouched), rows(target, untouched))
    both = {
        name: array + rows(learned, "box")[name] - rows(origin, "box")[name]
        for name, array in rows(target, "box").items()
    }
    assert_same(rows(after, "box"), both)


def test_a_class_that_both_have_learned_stays_as_the_newer_release_knows_it(origin: Detector) -> None:
    learned = changed(origin, KNOWN.expand(["disc", "truck"]), 1)
    target = changed(origin, KNOWN.expand(["truck"]), 2)
    after = with_gap(target, carried(learned, origin, target), 1.0)
    assert after.spec.labels.names == ("box", "bar", "truck", "disc")
    assert_same(rows(after, "truck"), rows(target, "truck"))
    assert_same(rows(after, "disc"), rows(learned, "disc"))


def test_without_a_new_class_of_its_own_a_site_keeps_those_of_the_newer_release(origin: Detector) -> None:
    learned, target = changed(origin, KNOWN, 1), changed(origin, KNOWN.expand(["truck"]), 2)
    after = with_gap(target, carried(learned, origin, target), 0.0)
    assert after.spec.labels == target.spec.labels
    assert_same(dict(after.weights()), {k: v for k, v in target.weights().items() if v.dtype == np.float32})


def branched(base: Detector, new: str, also: tuple[str, ...], seed: int) -> Detector:
    """A branch with a new class and some known ones, on the base's own backbone."""
    part = base.parts()[0]
    learned = changed(part, part.spec.labels.expand([new]), seed)
    backbone = part.weights()
    learned.load_weights(
        learned.weights().mapped(lambda name, array: backbone[name] if part.section_of(name) == "backbone" else array)
    )
    return base.with_branch(learned, sorted(learned.spec.labels.ids_of([new, *also])))


def test_branches_of_both_stand_beside_each_other(origin: Detector) -> None:
    learned, target = branched(origin, "disc", ("bar",), 1), branched(origin, "truck", ("box",), 2)
    merged = merge_gaps([Contribution("site", carried(learned, origin, target), 1)], target.weights())
    after = with_gap(target, merged, 0.3)  # a branch comes whole, whatever lambda is
    assert after.spec.labels.names == ("box", "bar", "truck", "disc")
    assert after.spec.branches == ((0, 2), (1, 3))
    assert after.spec.speakers() == [1, 2, 1, 2]
    image = np.random.default_rng(3).integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)

    def found(detector: Detector, name: str) -> np.ndarray:
        (seen,) = detector.predict([image], confidence=0.0)
        mine = seen.classes == detector.spec.labels.id_of(name)
        return np.sort(seen.scores[mine])[-5:]

    for name, like in (("disc", learned), ("bar", learned), ("truck", target), ("box", target)):
        np.testing.assert_allclose(found(after, name), found(like, name), rtol=1e-4, atol=1e-6, err_msg=name)


def test_what_does_not_fit_together_is_refused_with_the_reason(origin: Detector) -> None:
    learned = changed(origin, GROWN, 1)
    with pytest.raises(InvalidInput, match="spelled"):
        carried(learned, origin, changed(origin, KNOWN.expand(["Disc"]), 2))
    other = StoredModel("", learned.spec.model_copy(update={"architecture": "yolo11n"}), learned.weights())
    with pytest.raises(InvalidInput, match=TINY):
        transport(other, stored(origin), stored(origin))


def test_the_job_writes_a_gap_that_fits_its_target(origin: Detector, tmp_path: Path) -> None:
    learned, target = changed(origin, GROWN, 1), changed(origin, KNOWN.expand(["truck"]), 2)
    paths = {}
    for name, detector in (("learned", learned), ("origin", origin), ("target", target)):
        paths[name] = tmp_path / f"{name}.safetensors"
        detector.save(paths[name])
    result = main(TransportSpec(**paths), tmp_path, lambda _: None)
    gap = Gap.from_bytes(result.path.read_bytes(), result.codec)
    gap.check_fits(target.weights().schema())
    assert gap.note.labels.names == ("box", "bar", "truck", "disc")
    assert gap.note.base_id == StoredModel.load(paths["target"]).id


@pytest.mark.slow
def test_a_rebased_detector_finds_the_fleets_new_class_and_the_sites_own(world: World, tmp_path: Path) -> None:
    """Trained detectors: the site has learned discs in the dark, and the fleet trucks by day, each with one id."""
    ours = load(write_shapes(tmp_path / "fleet", (*KNOWN.names, "truck"), 96, 32, seed=2))
    origin, own = world.detector(), world.tutor_2()
    fleet = origin.expand_classes(KNOWN.expand(["truck"]))
    train(fleet, ours.with_labels(fleet.spec.labels).train, LEARN.model_copy(update={"learning_rate": 1e-3}))
    rebased = apply_gap(
        fleet, carried(own, origin, fleet), guard=world.presumed, recipe=CycleRecipe(max_harm=0.01)
    ).model

    def ap50(detector: Detector, data: Dataset, name: str) -> float:
        return evaluate(detector, data.with_labels(detector.spec.labels.expand(data.names))).per_class[name].ap50

    assert rebased.spec.labels.names == ("box", "bar", "truck", "disc")
    assert ap50(fleet, world.site, "disc") == ap50(own, ours, "truck") == 0
    assert ap50(rebased, ours, "truck") > ap50(fleet, ours, "truck") - 0.05
    assert ap50(rebased, world.site, "disc") > 0.5 * ap50(own, world.site, "disc")


@pytest.mark.slow
def test_the_jobs_of_the_cloud_take_a_transported_gap_as_a_sites(world: World, tmp_path: Path) -> None:
    origin, own = world.detector(), world.tutor_2()
    fleet = changed(origin, KNOWN.expand(["truck"]), 2)
    paths = {name: tmp_path / f"{name}.safetensors" for name in ("learned", "origin", "target")}
    for path, detector in zip(paths.values(), (own, origin, fleet), strict=True):
        detector.save(path)
    gap = main(TransportSpec(**paths), tmp_path, lambda _: None)
    carried_gap = SiteGap(path=gap.path, codec=gap.codec, site="site:site-1", images=1)
    shared = {"presumed": world.presumed_yaml, "recipe": CycleRecipe(max_harm=1, max_false_alarms=1e9)}
    applied = apply_job.main(ApplySpec(tutor=paths["target"], gaps=(carried_gap,), **shared), tmp_path, lambda _: None)
    spec = RedistilSpec(tutor=applied.weights, student=paths["target"], student_gaps=(carried_gap,), **shared)
    student = redistil_job.main(spec, tmp_path, lambda _: None)
    assert student.chosen == "gap"
    for made in (applied, student):
        assert StoredModel.load(made.weights).spec.labels.names == ("box", "bar", "truck", "disc")
