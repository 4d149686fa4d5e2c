"""A branch with a router on its way: it comes whole, is refused where it is not, and stays of its own place."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from shapes import KNOWN, World, taught, tiny

from diredi.codecs.container import pack
from diredi.codecs.packed import header_of, stored
from diredi.detectors.base import Detector, Router
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.check import check_gap_file
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import apply_gap, with_gap
from diredi.knowledge.merging import Contribution, merge_gaps
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.redistil import redistil
from diredi.knowledge.transport import StoredModel, transport
from diredi.store.weights import WeightMap

BOX, BAR, DISC = range(3)
WEIGHT, BIAS = "branches.0.router.weight", "branches.0.router.bias"


def router(base: Detector, classes: tuple[int, ...], bias: float = 0.0) -> Router:
    channels = base.scene(torch.zeros(1, 3, base.spec.image_size, base.spec.image_size)).shape[1]
    return Router(classes, torch.linspace(-1, 1, channels), torch.tensor(bias))


def gap_of(base: Detector, after: Detector) -> Gap:
    weights = base.weights()
    note = GapNote(
        base_id=base.digest,
        labels=after.spec.labels,
        base_classes=len(base.spec.labels),
        branches=after.spec.branches,
        routed=after.spec.routed,
    )
    return Gap.from_bytes(Gap(compute(after.weights(), weights, weights), note).to_bytes("fp32-zstd"))


def assert_same(one: Detector, other: Detector) -> None:
    assert one.spec == other.spec
    mine, theirs = one.weights(), other.weights()
    mine.check_same_schema(theirs)
    for name, array in mine.items():
        np.testing.assert_allclose(array, theirs[name], atol=1e-5, rtol=1e-4, err_msg=name)


@dataclass(frozen=True)
class Upload:
    """A base as the cloud has it, a detector that has grown from it at a site, and the gap between them."""

    base: Detector
    file: Path
    after: Detector
    gap: Gap

    def check(self, gap: Gap) -> None:
        """Check a gap as the cloud does, written past the codec, which would refuse a NaN."""
        arrays = [header_of(name, array, "raw") for name, array in gap.weights.items()]
        payload = b"".join(stored(entry, gap.weights[entry.name]) for entry in arrays)
        path = self.file.with_suffix(".gap")
        path.write_bytes(pack("fp32-zstd", arrays, payload, {"diredi.gap": gap.note.model_dump_json()}))
        check_gap_file(path, "fp32-zstd", self.file, self.base.digest, self.gap.note.labels)


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Upload:
    base, file = tiny(), tmp_path_factory.mktemp("upload") / "base.safetensors"
    base.save(file)
    after = base.with_branch(taught(base, ("disc",)), [BOX, DISC], router(base, (BOX,)))
    return Upload(base, file, after, gap_of(base, after))


def test_a_branch_comes_whole_with_its_router_whatever_lambda_is(upload: Upload) -> None:
    upload.check(upload.gap)
    assert upload.gap.leaves_known(upload.base.weights())
    for lam in (0.0, 0.4, 1.0):
        assert_same(with_gap(upload.base, upload.gap, lam), upload.after)


def test_a_router_survives_the_default_codec(upload: Upload) -> None:
    gap = Gap.from_bytes(Gap(upload.gap.weights, upload.gap.note).to_bytes("int8-row-zstd"))
    (mine,), (theirs,) = with_gap(upload.base, gap, 1.0).routers(), upload.after.routers()
    assert mine is not None and theirs is not None
    assert torch.allclose(mine.weight, theirs.weight, atol=1e-3) and torch.allclose(mine.bias, theirs.bias, atol=1e-3)


CHANNELS = 32


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        (WEIGHT, None, "no 'branches.0.router.weight'"),
        (BIAS, None, "no 'branches.0.router.bias'"),
        (WEIGHT, np.zeros(3, np.float32), "channels"),
        (WEIGHT, np.zeros((1, CHANNELS), np.float32), WEIGHT),
        (WEIGHT, np.zeros(CHANNELS, np.float64), WEIGHT),
        (BIAS, np.zeros(1, np.float32), BIAS),
        (WEIGHT, np.full(CHANNELS, np.nan, np.float32), WEIGHT),
        (BIAS, np.array(np.inf, np.float32), BIAS),
        ("branches.0.router.backdoor", np.zeros(3, np.float32), "no weight of its base"),
        ("branches.1.router.weight", np.zeros(CHANNELS, np.float32), "branch"),
        ("router.weight", np.zeros(CHANNELS, np.float32), "no weight of its base"),
    ],
)
def test_a_router_that_could_not_be_applied_is_refused_at_the_upload(
    upload: Upload, name: str, spoil: np.ndarray | None, words: str
) -> None:
    """One such gap would end the cycle of all sites."""
    arrays = {**upload.gap.weights, name: spoil}
    bad = Gap(WeightMap({key: array for key, array in arrays.items() if array is not None}), upload.gap.note)
    with pytest.raises(InvalidInput, match=re.escape(words)):
        upload.check(bad)


@pytest.mark.parametrize("routed", [(), ((),), ((DISC, BOX),), ((BAR,),), ((BOX,), (BOX,)), ((BOX, BOX),)])
def test_a_note_that_says_of_a_router_what_its_weights_do_not_is_refused(
    upload: Upload, routed: tuple[tuple[int, ...], ...]
) -> None:
    wrong = Gap(upload.gap.weights, upload.gap.note.model_copy(update={"routed": routed}))
    with pytest.raises(InvalidInput, match="router"):
        upload.check(wrong)


def test_a_gap_cannot_give_an_old_branch_another_place(upload: Upload, tmp_path: Path) -> None:
    """Whom devices hear is what the base says, and what a site adds at its end."""
    upload.after.save(tmp_path / "after.safetensors")
    second = upload.after.with_branch(taught(upload.base, ("disc",), seed=1), [BAR], router(upload.base, (BAR,)))
    gap = gap_of(upload.after, second)
    later = Upload(upload.after, tmp_path / "after.safetensors", second, gap)
    later.check(gap)
    with pytest.raises(InvalidInput, match="who speaks for which class"):
        later.check(Gap(gap.weights, gap.note.model_copy(update={"routed": ((BOX, DISC), (BAR,))})))


@pytest.mark.slow
def test_the_branches_of_two_places_stand_beside_each_other(upload: Upload) -> None:
    base, known = upload.base, upload.base.weights()
    other = base.with_branch(taught(base, ("disc",), seed=2), [BAR, DISC], router(base, (BAR,), bias=-1.0))
    plain = base.with_branch(taught(base, ("disc",), seed=3), [DISC])
    sent = [
        Contribution(name, gap_of(base, after), 10) for name, after in (("a", upload.after), ("b", other), ("c", plain))
    ]
    merged = merge_gaps(sent, known)
    merged.check_fits(known.schema())
    together = with_gap(base, merged, 1.0)
    assert together.spec.branches == ((DISC,), (BOX, DISC), (BAR, DISC))
    assert together.spec.routed == ((), (BOX, DISC), (BAR, DISC)), "elsewhere the shared branch is heard for discs"
    for mine, theirs in ((1, upload.after), (2, other)):
        router_of, own = together.routers()[mine], theirs.routers()[0]
        assert router_of is not None and own is not None
        assert torch.allclose(router_of.weight, own.weight) and torch.allclose(router_of.bias, own.bias)


@pytest.mark.slow
def test_a_known_class_that_is_spoilt_everywhere_loses_its_branch_and_its_router(world: World) -> None:
    base = world.detector()
    everywhere = router(base, (BOX,))
    everywhere = Router((BOX,), torch.zeros_like(everywhere.weight), torch.tensor(50.0))
    after = base.with_branch(taught(base, ("disc",), by=0.5), [BOX, DISC], everywhere)
    guard = world.presumed.with_labels(after.spec.labels)
    applied = apply_gap(base, gap_of(base, after), guard=guard, recipe=CycleRecipe(max_harm=0.02))
    assert applied.silenced == ("box",) and applied.harmless
    assert applied.model.spec.branches == ((DISC,),) and applied.model.spec.routed == ()


@pytest.mark.slow
def test_a_known_class_that_is_spoilt_in_its_place_alone_does_no_harm(world: World) -> None:
    base = world.detector()
    nowhere = Router((BOX,), torch.zeros_like(router(base, (BOX,)).weight), torch.tensor(-50.0))
    after = base.with_branch(taught(base, (), by=0.5), [BOX], nowhere)
    applied = apply_gap(base, gap_of(base, after), guard=world.presumed.with_labels(KNOWN), recipe=CycleRecipe())
    assert applied.silenced == () and applied.model.spec.routed == ((BOX,),)
    assert applied.after.map50 == pytest.approx(applied.before.map50, abs=1e-6)


@pytest.mark.slow
def test_the_tutor_teaches_what_its_branch_says_everywhere_and_no_more(world: World) -> None:
    """Without a student gap there is nothing that could tell the student's backbone the place."""
    base = world.detector()
    tutor = base.with_branch(taught(base, ("disc",)), [BOX, DISC], router(base, (BOX,)))
    recipe = CycleRecipe.of({"redistil_branch": {"steps": 2, "batch": 4}, "max_false_alarms": 1e9})
    made = redistil(world.detector(), tutor, None, guard=world.presumed, recipe=recipe)
    assert made.model.spec.branches == ((DISC,),) and made.model.spec.routed == ()
    assert made.after.map50 == pytest.approx(made.before.map50, abs=1e-6)


@pytest.mark.slow
def test_a_student_that_is_taught_again_keeps_the_branch_of_its_place(world: World) -> None:
    base = world.detector()
    after = base.with_branch(taught(base, ()), [BOX], router(base, (BOX,)))
    options = {"students": ["redistilled", "mean"], "max_harm": 1.0, "max_false_alarms": 1e9}
    recipe = CycleRecipe.of({"redistil_branch": {"steps": 2, "batch": 4}, **options})
    made = redistil(base, after, gap_of(base, after), guard=world.presumed, recipe=recipe)
    assert_same(made.model, after)


@pytest.mark.slow
def test_a_branch_with_a_router_is_transported(upload: Upload, tmp_path: Path) -> None:
    upload.after.save(tmp_path / "learned.safetensors")
    target = upload.base.expand_classes(upload.base.spec.labels.expand(["ring"]))
    target.save(tmp_path / "target.safetensors")
    learned, origin, there = (
        StoredModel.load(path)
        for path in (tmp_path / "learned.safetensors", upload.file, tmp_path / "target.safetensors")
    )
    moved = with_gap(target, transport(learned, origin, there), 1.0)
    labels = moved.spec.labels
    assert moved.spec.branches == ((BOX, labels.id_of("disc")),) and moved.spec.routed == ((BOX,),)
    mine, theirs = moved.routers()[0], upload.after.routers()[0]
    assert mine is not None and theirs is not None and torch.allclose(mine.weight, theirs.weight)


def test_what_stays_known_is_measured_alike(upload: Upload, world: World) -> None:
    """Where its router never opens, a branch costs nothing of what is known."""
    base = world.detector()
    closed = Router((BOX,), torch.zeros_like(router(base, (BOX,)).weight), torch.tensor(-50.0))
    shut = base.with_branch(taught(base, (), by=0.5), [BOX], closed)
    guard = world.presumed.with_labels(KNOWN)
    assert evaluate(shut, guard).map50 == pytest.approx(evaluate(base, guard).map50, abs=1e-6)
