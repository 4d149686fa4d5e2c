"""A site's branch on its way: it comes whole, stands beside others', and loses the word where it does harm."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from shapes import GROWN, KNOWN, World, taught, tiny, write_shapes

from diredi.codecs.container import pack
from diredi.codecs.packed import header_of, stored
from diredi.data.dataset import Dataset, load
from diredi.detectors.base import Detector
from diredi.errors import InvalidInput, WrongState
from diredi.evaluation.detection import evaluate
from diredi.evaluation.false_alarms import false_alarms
from diredi.knowledge.adaptation import choose_classes, choose_form, quiet
from diredi.knowledge.check import check_gap_file
from diredi.knowledge.extraction import extract_gap
from diredi.knowledge.gap import Gap, GapNote, compute
from diredi.knowledge.gap_application import apply_gap, with_gap
from diredi.knowledge.gaps import Gaps
from diredi.knowledge.jobs.parts import merged_of
from diredi.knowledge.jobs.specs import SiteGap
from diredi.knowledge.merging import AGAINST_LIARS, MERGES, Contribution, merge_gaps
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.redistil import redistil
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap

BOX, BAR, DISC = range(3)


def branched(base: Detector, classes: list[str], new: tuple[str, ...] = ("disc",), seed: int = 0) -> Detector:
    one = taught(base.parts()[0], new, seed)
    return base.with_branch(one, one.spec.labels.ids_of(classes))


def gap_of(base: Detector, after: Detector) -> Gap:
    weights = base.weights()
    note = GapNote(
        base_id=base.digest,
        labels=after.spec.labels,
        base_classes=len(base.spec.labels),
        branches=after.spec.branches,
    )
    return Gap.from_bytes(Gap(compute(after.weights(), weights, weights), note).to_bytes("fp32-zstd"))


def assert_close(one: Detector, other: Detector, atol: float = 1e-5) -> None:
    mine, theirs = one.weights(), other.weights()
    mine.check_same_schema(theirs)
    for name, array in mine.items():
        np.testing.assert_allclose(array, theirs[name], atol=atol, rtol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def base() -> Detector:
    return tiny()


@pytest.mark.slow
def test_a_branch_comes_whole_whatever_lambda_is(base: Detector) -> None:
    after = branched(base, ["bar", "disc"])
    gap = gap_of(base, after)
    gap.check_fits(base.weights().schema())
    assert gap.leaves_known(base.weights())
    for lam in (0.0, 0.4, 1.0):
        assert_close(with_gap(base, gap, lam), after)


@pytest.mark.slow
def test_a_second_branch_leaves_the_first_as_it_is(base: Detector) -> None:
    first = branched(base, ["disc"])
    second = branched(first, ["ring"], ("ring",), seed=2)
    gap, before = gap_of(first, second), first.weights()
    gap.check_fits(before.schema())
    known = {name: array for name, array in gap.weights.items() if not name.startswith("branches.1.")}
    assert not any(array[: len(before[name])].any() for name, array in known.items())
    again = with_gap(first, gap, 1.0)
    assert again.spec.branches == ((DISC,), (3,))
    assert_close(again, second)


@dataclass(frozen=True)
class Site:
    """The branch that a site has taught, as a network of its own, and the gap that it sends."""

    branch: Detector
    gap: Gap


@pytest.fixture(scope="module")
def sites(base: Detector) -> dict[str, Site]:
    """Five sites, each with a branch of its own; three of them for the same class."""
    branches = {
        "a": (["disc"], ("disc",)),
        "b": (["bar", "ring"], ("ring",)),
        "c": (["box"], ()),
        "d": (["disc"], ("disc",)),
        "e": (["disc"], ("disc",)),
    }
    afters = {site: branched(base, *kinds, seed) for seed, (site, kinds) in enumerate(branches.items(), 1)}
    return {site: Site(after.parts()[1], gap_of(base, after)) for site, after in afters.items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(MERGES))
def test_branches_of_several_sites_stand_beside_each_other(base: Detector, sites: dict[str, Site], method: str) -> None:
    before = base.weights()
    sent = [Contribution(name, site.gap, 10) for name, site in sites.items()]
    merged = merge_gaps(sent, before, {"method": method})
    merged.check_fits(before.schema())
    labels = merged.note.labels
    assert set(labels.names) == {"box", "bar", "disc", "ring"}
    spoken = [{labels.names[kind] for kind in branch} for branch in merged.note.branches]
    assert spoken == [{"disc"}, {"bar", "ring"}, {"box"}]
    together = with_gap(base, merged, 1.0)
    main, discs, rings, boxes = (part.weights() for part in together.parts())
    alone = {name: site.branch.weights() for name, site in sites.items()}
    for name, array in main.items():
        np.testing.assert_array_equal(array[: len(before[name])] if array.ndim else array, before[name])
    middle = np.median if method in AGAINST_LIARS else np.mean
    for name in ("model.23.cv2.0.0.conv.weight", "model.16.cv1.conv.weight"):
        np.testing.assert_allclose(rings[name], alone["b"][name], atol=1e-6)
        np.testing.assert_allclose(boxes[name], alone["c"][name], atol=1e-6)
        np.testing.assert_allclose(discs[name], middle([alone[s][name] for s in "ade"], 0), atol=1e-6)
    row = "model.23.cv3.0.2.weight"
    ring = sites["b"].branch.spec.labels.id_of("ring")
    np.testing.assert_allclose(rings[row][labels.id_of("ring")], alone["b"][row][ring], atol=1e-6)


def test_a_gap_that_says_of_a_branch_what_its_weights_do_not_is_refused(base: Detector, tmp_path: Path) -> None:
    gap = gap_of(base, branched(base, ["disc"]))
    schema = base.weights().schema()
    for branches in ((), ((7,),), ((2, 2),), ((),), ((2,), (1,))):
        with pytest.raises(InvalidInput, match="branch"):
            Gap(gap.weights, gap.note.model_copy(update={"branches": branches})).check_fits(schema)
    base.save(tmp_path / "base.safetensors")
    two = Gap(gap.weights, gap.note.model_copy(update={"branches": ((2,), (1,))}))
    two.save(tmp_path / "two.gap", "fp32-zstd")
    with pytest.raises(InvalidInput, match="may add one branch"):
        check_gap_file(tmp_path / "two.gap", "fp32-zstd", tmp_path / "base.safetensors", base.digest, GROWN)
    gap.save(tmp_path / "one.gap", "fp32-zstd")
    check_gap_file(tmp_path / "one.gap", "fp32-zstd", tmp_path / "base.safetensors", base.digest, GROWN)
    with pytest.raises(WrongState):
        check_gap_file(tmp_path / "one.gap", "fp32-zstd", tmp_path / "base.safetensors", "sha256:0", GROWN)


@dataclass(frozen=True)
class Upload:
    """A base as the cloud has it, and a gap with a branch that would be taken."""

    base: Detector
    file: Path
    gap: Gap

    def check(self, weights: WeightMap) -> None:
        """Check these weights in place of the gap's, written past the codec, which would refuse a NaN."""
        arrays = [header_of(name, array, "raw") for name, array in weights.items()]
        payload = b"".join(stored(entry, weights[entry.name]) for entry in arrays)
        path = self.file.with_suffix(".gap")
        path.write_bytes(pack("fp32-zstd", arrays, payload, {"diredi.gap": self.gap.note.model_dump_json()}))
        check_gap_file(path, "fp32-zstd", self.file, self.base.digest, self.gap.note.labels)


@pytest.fixture(scope="module")
def upload(tmp_path_factory: pytest.TempPathFactory) -> Upload:
    base, file = tiny(), tmp_path_factory.mktemp("upload") / "base.safetensors"
    base.save(file)
    return Upload(base, file, gap_of(base, branched(base, ["disc"])))


NECK, CLASSES, BACKBONE = "model.16.cv1.conv.weight", "model.23.cv3.1.2.bias", "model.4.cv1.conv.weight"


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        (f"branches.0.{NECK}", None, f"no 'branches.0.{NECK}'"),
        ("branches.0.model.16.cv1.bn.running_var", None, "no 'branches.0.model.16.cv1.bn.running_var'"),
        (f"branches.0.{CLASSES}", None, f"no 'branches.0.{CLASSES}'"),
        (f"branches.0.{BACKBONE}", np.zeros((32, 32, 1, 1), np.float32), "is of the backbone"),
        ("branches.0.backdoor.weight", np.zeros(3, np.float32), "no weight of its base"),
        ("branches.0.branches.0.weight", np.zeros(3, np.float32), "no weight of its base"),
        (f"branches.0.{NECK}", np.zeros((3, 3), np.float32), NECK),
        (f"branches.0.{NECK}", np.zeros(0, np.float64), NECK),
        (f"branches.0.{CLASSES}", np.zeros(3, np.float64), CLASSES),
        (f"branches.0.{CLASSES}", np.zeros(2, np.float32), f"lacks rows of new classes in 'branches.0.{CLASSES}'"),
        (f"branches.0.{CLASSES}", np.zeros(4, np.float32), CLASSES),
        (f"branches.0.{CLASSES}", np.array([0, np.inf, 0], np.float32), CLASSES),
        (f"branches.0.{CLASSES}", np.array([0, 0, np.nan], np.float32), CLASSES),
        (CLASSES, None, f"lacks rows of new classes in '{CLASSES}'"),
        (CLASSES, np.zeros(2, np.float32), f"lacks rows of new classes in '{CLASSES}'"),
    ],
)
def test_a_branch_that_could_not_be_applied_is_refused_at_the_upload(
    upload: Upload, name: str, spoil: np.ndarray | None, words: str
) -> None:
    """One such gap would end the cycle of all sites."""
    arrays = {**upload.gap.weights, name: spoil}
    bad = WeightMap({key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(InvalidInput, match=re.escape(words)):
        upload.check(bad)
    with pytest.raises(InvalidInput):
        with_gap(upload.base, Gap(bad, upload.gap.note), 1.0)


def test_a_gap_in_which_another_weight_has_grown_is_refused_at_the_upload(upload: Upload) -> None:
    upload.check(upload.gap.weights)
    for name in (NECK, f"branches.0.{NECK}"):
        wide = np.concatenate([upload.gap.weights[name], upload.gap.weights[name][:1]])
        with pytest.raises(InvalidInput, match=f"has rows of new classes in '{name}'"):
            upload.check(WeightMap({**upload.gap.weights, name: wide}))


@pytest.mark.slow
def test_a_branch_beside_an_old_one_passes_where_it_is_whole(base: Detector, tmp_path: Path) -> None:
    first = branched(base, ["disc"])
    first.save(tmp_path / "first.safetensors")
    second = Upload(first, tmp_path / "first.safetensors", gap_of(first, branched(first, ["ring"], ("ring",), seed=2)))
    second.check(second.gap.weights)
    for name in (f"branches.0.{CLASSES}", f"branches.1.{CLASSES}"):
        with pytest.raises(InvalidInput, match=name):
            second.check(second.gap.weights.selected(lambda key, name=name: key != name))


@pytest.mark.slow
def test_a_branch_that_spoils_a_known_class_loses_the_word_for_it(world: World) -> None:
    base = world.detector()
    after = base.with_branch(taught(base, by=0.5), [BOX, DISC])
    guard = world.presumed.with_labels(GROWN)
    applied = apply_gap(base, gap_of(base, after), guard=guard, recipe=CycleRecipe(max_harm=0.02))
    assert applied.silenced == ("box",)
    assert applied.harmless
    assert applied.model.spec.branches == ((DISC,),)
    assert applied.after.map50 == pytest.approx(applied.before.map50, abs=1e-6)


@pytest.mark.slow
def test_a_branch_that_only_spoils_is_left_out(world: World) -> None:
    base = world.detector()
    after = base.with_branch(taught(base, (), by=0.5), [BOX, BAR])
    guard = world.presumed.with_labels(KNOWN)
    applied = apply_gap(base, gap_of(base, after), guard=guard, recipe=CycleRecipe(max_harm=0.0))
    assert set(applied.silenced) == {"box", "bar"}
    assert applied.model.spec.branches == ()
    assert_close(applied.model, base)


@pytest.mark.slow
def test_a_tutor_with_a_branch_teaches_a_student_without_one(world: World, tmp_path: Path) -> None:
    """The paper's own way, where no student gap has come: what the student knows stands still all the same."""
    tutor = branched(world.detector(), ["disc"])
    student = world.detector()
    recipe = CycleRecipe.of({"redistil_branch": {"steps": 2, "batch": 4}, "max_false_alarms": 1e9})
    made = redistil(student, tutor, None, guard=world.presumed, recipe=recipe, checkpoints=tmp_path)
    assert made.chosen == "redistilled"
    assert made.model.spec.branches == ((DISC,),)
    assert made.after.map50 == pytest.approx(made.before.map50, abs=1e-6)
    assert list(tmp_path.rglob("*")), "a cloud that is killed goes on where it was"


@pytest.mark.slow
def test_a_second_branch_for_the_same_class_is_taught_beside_the_first(world: World) -> None:
    student = branched(world.detector(), ["disc"])
    tutor = branched(student, ["disc"], seed=2)
    recipe = CycleRecipe.of({"redistil_branch": {"steps": 2, "batch": 4}, "max_false_alarms": 1e9})
    made = redistil(student, tutor, None, guard=world.presumed, recipe=recipe)
    assert made.model.spec.branches == ((DISC,), (DISC,))
    assert_close(made.model.parts()[1], student.parts()[1])


@pytest.mark.slow
def test_a_student_whose_branch_does_harm_is_taught_by_the_tutors(world: World) -> None:
    base = world.detector()
    gap = gap_of(base, base.with_branch(taught(base, by=0.5), [DISC]))
    options = {"students": ["redistilled", "mean"], "max_harm": 0.0, "max_false_alarms": 1e9}
    recipe = CycleRecipe.of({"redistil_branch": {"steps": 2, "batch": 4}, **options})
    made = redistil(base, branched(base, ["disc"]), gap, guard=world.presumed, recipe=recipe)
    assert made.chosen == "redistilled"
    assert made.harmless


# What a site decides.

BRANCH = {
    "steps": 100,
    "learning_rate": 5e-3,
    "batch": 8,
    "train_only": ["neck", "head"],
    "batch_norm": "frozen",
    "losses": {},
}
SHORT_PROBE = {"tutor": {"steps": 2}, "student": {"learning_rate": 4e-3, "batch": 8}, "probe_steps": 8}
SHORT = {**BRANCH, "steps": 4}
TUNING = {"steps": 20, "batch": 8}
PROBE = {
    **SHORT_PROBE,
    "branch": BRANCH,
    "fine_tuning": TUNING,
    "max_cost": 100,
}  # no clock decides how long the tutor learns


def extracted(world: World, model: Detector, coreset: Dataset | None, **options: object) -> Gaps:
    return extract_gap(model, model, world.site, coreset=coreset, recipe={**PROBE, **options})


def decided(gaps: Gaps) -> dict[str, str]:
    return {one.subject: one.choice for one in gaps.metrics.decisions}


@pytest.fixture(scope="module")
def gaps(world: World) -> Gaps:
    """What a site extracts as a branch."""
    return extracted(world, world.detector(), world.presumed, form="branch")


@pytest.mark.slow
def test_a_site_teaches_a_branch_and_says_what_it_decided(world: World, gaps: Gaps) -> None:
    base, labels = world.detector(), gaps.tutor.note.labels
    found = decided(gaps)
    assert found["form"] == "branch"
    assert "disc" in found["student's branch speaks for"]
    assert all(one.because for one in gaps.metrics.decisions)
    assert gaps.student is not None
    for gap in (gaps.tutor, gaps.student):
        gap.check_fits(base.weights().schema())
        after = with_gap(base, gap, 1.0)
        assert set(after.spec.branches[0]) >= {labels.id_of("disc")}
        before = evaluate(base, world.site).per_class["disc"].ap50
        assert evaluate(after, world.site).per_class["disc"].ap50 > before + 0.3
    after = with_gap(base, gaps.tutor, 1.0)
    spoken = {labels.names[kind] for kind in after.spec.branches[0]}
    presumed = [evaluate(model, world.presumed).per_class for model in (base, after)]
    for name in set(KNOWN.names) - spoken:
        assert presumed[1][name].ap50 == pytest.approx(presumed[0][name].ap50, abs=1e-6)


@pytest.mark.slow
def test_all_weights_of_a_student_follow_a_site_before_its_branch_learns(world: World, gaps: Gaps) -> None:
    base = world.detector()
    assert gaps.student is not None
    assert gaps.tutor.leaves_known(base.weights())
    assert not gaps.student.leaves_known(base.weights())
    assert decided(gaps)["all weights of the student learn"].startswith(f"{TUNING['steps']} steps")
    assert (
        "held-back images of the coreset"
        in {one.subject: one.because for one in gaps.metrics.decisions}["fine-tuning of the student"]
    )


@pytest.mark.slow
def test_a_student_that_is_not_to_be_fine_tuned_gets_its_branch_alone(world: World) -> None:
    found = extracted(world, world.detector(), world.presumed, form="branch", branch=SHORT, fine_tuning=None)
    assert found.student is not None and found.student.leaves_known(world.detector().weights())
    assert decided(found)["all weights of the student learn"] == "not at all"


@pytest.mark.slow
def test_a_student_gets_no_branch_where_a_site_shows_no_new_class(world: World, tmp_path: Path) -> None:
    site = load(write_shapes(tmp_path / "site", KNOWN.names, train=12, val=6, seed=9, light=0.4))
    model = world.detector()
    found = extract_gap(model, model, site, coreset=world.presumed, recipe={**PROBE, "form": "branch", "branch": SHORT})
    assert found.student is not None and not found.student.note.branches
    assert not found.student.leaves_known(model.weights())
    assert decided(found)["student's branch learns"] == "not at all"
    assert decided(found)["all weights of the student learn"].startswith(f"{SHORT['steps']} steps")


@pytest.mark.slow
@pytest.mark.parametrize("why", ["branches", "coreset", "no class that the student knows"])
def test_a_student_is_not_fine_tuned_where_that_would_only_harm(world: World, tmp_path: Path, why: str) -> None:
    student = branched(world.detector(), ["disc"]) if why == "branches" else world.detector()
    coreset = None if why == "coreset" else world.presumed
    site = world.site
    if why.startswith("no class"):
        site = load(write_shapes(tmp_path / "site", ("disc",), train=12, val=6, seed=9))
    recipe = {**PROBE, "form": "branch", "branch": SHORT}
    found = extract_gap(world.detector(), student, site, coreset=coreset, recipe=recipe)
    assert found.student is not None and found.student.leaves_known(student.weights())
    [reason] = [one.because for one in found.metrics.decisions if one.subject == "all weights of the student learn"]
    assert why in reason
    far = why.startswith("no class")
    rate = CycleRecipe.of(recipe).branch.learning_rate
    assert decided(found)["learning rate of a branch"] == f"{3 * rate if far else rate:.1e}"


@pytest.mark.slow
def test_a_student_that_followed_a_site_is_taught_its_branch_where_its_own_does_harm(world: World) -> None:
    """Only the branch is replaced: what the site has changed of the rest stays, as lambda allows."""
    base = world.detector()
    moved = taught(base, (), by=0.001)
    gap = gap_of(base, moved.with_branch(taught(moved, by=0.5), [DISC]))
    options = {"redistil_branch": {"steps": 2, "batch": 4}, "students": ["redistilled"], "max_false_alarms": 1e9}
    recipe = CycleRecipe.of({**options, "max_harm": 0.5, "lam": 1.0})
    made = redistil(base, branched(base, ["disc"]), gap, guard=world.presumed, recipe=recipe)
    grown = moved.expand_classes(made.model.spec.labels)
    assert made.model.spec.branches == ((DISC,),)
    assert_close(made.model.parts()[0], grown)


@pytest.mark.slow
def test_a_student_without_a_branch_whose_change_does_harm_is_taught_the_tutors(world: World) -> None:
    base, tutor = world.detector(), branched(world.detector(), ["disc"])
    ruined = taught(base, (), by=0.5).expand_classes(tutor.spec.labels)
    recipe = CycleRecipe.of({"redistil_branch": {"steps": 2, "batch": 4}, "max_harm": 0.0, "max_false_alarms": 0})
    made = redistil(base, tutor, gap_of(base, ruined), guard=world.presumed, recipe=recipe)
    assert list(made.candidates) == ["gap", "mean", "redistilled"]
    assert made.candidates["mean"].map50 == made.candidates["redistilled"].map50


@pytest.mark.slow
def test_a_branch_comes_even_where_no_change_of_what_is_known_is_harmless(world: World) -> None:
    base = world.detector()
    ruined = taught(base, (), by=0.5)
    gap = gap_of(base, ruined.with_branch(taught(ruined), [DISC]))
    applied = apply_gap(base, gap, guard=world.presumed, recipe=CycleRecipe(max_harm=0.0))
    assert applied.lam == 0
    assert applied.harmless
    assert applied.model.spec.branches == ((DISC,),)
    assert applied.after.map50 == pytest.approx(applied.before.map50, abs=1e-6)


def test_statistics_that_no_site_has_changed_are_not_measured_again(base: Detector, tmp_path: Path) -> None:
    still, moved = taught(base, (), by=0.001), base.expand_classes(base.spec.labels)
    moved.load_weights(moved.weights().mapped(lambda name, array: array * 2 if "running_var" in name else array))
    for after, wanted in ((still, "gap"), (moved, "re-estimate")):
        gap_of(base, after).save(tmp_path / "a.gap")
        sites = [
            SiteGap(path=tmp_path / "a.gap", codec="fp32-zstd", site=f"site-{number}", images=9) for number in (1, 2)
        ]
        _, recipe = merged_of(sites, base, CycleRecipe())
        assert recipe.batch_norm == wanted


def shouting(model: Detector, by: float = 8) -> Detector:
    """It finds discs wherever it looks."""
    loud = model.expand_classes(model.spec.labels)
    weights = dict(loud.weights())
    for name in loud.class_rows():
        if name.endswith("bias"):
            weights[name] = weights[name].copy()
            weights[name][DISC] += by
    loud.load_weights(WeightMap(weights))
    return loud


def test_new_classes_are_made_quiet_where_they_are_found_on_what_does_not_show_them(world: World) -> None:
    loud, data = shouting(world.tutor_2()), world.site_data()
    assert false_alarms(loud, data.coreset.samples, [DISC]) > 100
    quieter, decision = quiet("student", loud, [DISC], data, data, CycleRecipe(max_false_alarms=0))
    assert false_alarms(quieter, data.coreset.samples, [DISC]) == 0
    assert decision is not None and decision.choice.startswith("-")
    shown = quiet("student", loud, [DISC], data, data, CycleRecipe(max_false_alarms=0, presumed_shows_new=True))
    assert shown == (loud, None)


def test_a_branch_speaks_for_a_known_class_only_where_it_is_better_beyond_chance(world: World) -> None:
    good, data = world.detector(), world.site_data()
    ruined = taught(good, (), by=0.5)
    granted, decision = choose_classes("student", ruined, good, [DISC], data, data)
    assert {BOX, DISC} <= set(granted)
    assert "standard error" in decision.because
    assert choose_classes("student", good, ruined, [DISC], data, data)[0] == [DISC]
    few = replace(data, private=replace(data.private, samples=data.private.samples[:2]))
    assert choose_classes("student", ruined, good, [DISC], few, data)[0] == [DISC]


def test_few_images_without_a_false_alarm_are_not_taken_for_a_quiet_class(world: World) -> None:
    loud, data = shouting(world.tutor_2()), world.site_data()
    nothing_held = replace(data, coreset=replace(data.coreset, samples=[]))
    quieter, _ = quiet("student", loud, [DISC], nothing_held, data, CycleRecipe(max_false_alarms=0))
    assert false_alarms(quieter, data.coreset.samples, [DISC]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("form", ["weights", "branch"])
def test_the_cloud_lowers_what_a_site_has_left_too_loud(world: World, form: str) -> None:
    base = world.detector()
    weights = form == "weights"
    after = shouting(world.tutor_2()) if weights else base.with_branch(shouting(taught(base)), [DISC])
    options = {"students": ["gap"], "max_false_alarms": 5, "max_harm": 1.0, "lam": 1.0}
    made = redistil(base, after, gap_of(base, after), guard=world.presumed, recipe=CycleRecipe.of(options))
    assert made.harmless and made.chosen == "gap"
    assert made.quieted < 0
    assert made.false_alarms <= 5
    found, expected = (evaluate(model, world.site).per_class["disc"].ap50 for model in (made.model, after))
    assert found == pytest.approx(expected, abs=0.02), "only the threshold has moved"


@pytest.mark.parametrize("who", ["tutor", "student"])
def test_a_backbone_that_branches_need_is_not_moved(world: World, who: str) -> None:
    models = {"tutor": world.detector(), "student": world.detector()}
    models[who] = branched(models[who], ["disc"])
    form, decision = choose_form(models["tutor"], models["student"], world.site_data(), CycleRecipe())
    assert form == "branch"
    assert who in decision.because


@pytest.mark.slow
def test_a_detector_that_has_not_learned_more_than_the_coreset_shows_learns_with_all_weights(world: World) -> None:
    """The shapes of the coreset are all that the tiny detector knows, and the probe shows them to it again."""
    found = extracted(world, world.detector(), world.presumed, student_gap=False, probe_steps=30)
    assert decided(found)["form"] == "weights"
    assert not found.tutor.note.branches


@pytest.mark.slow
def test_what_a_hot_probe_ruins_learns_as_a_branch(world: World) -> None:
    hot = {"learning_rate": 0.5, "batch": 8}
    found = extracted(
        world, world.detector(), world.presumed, student=hot, student_gap=False, branch={**BRANCH, "steps": 2}
    )
    assert decided(found)["form"] == "branch"
    assert "held-back images of the coreset" in found.metrics.decisions[0].because


@pytest.mark.slow
def test_without_a_coreset_what_is_known_stands_still(world: World) -> None:
    found = extracted(world, world.detector(), None, student_gap=False, branch={**BRANCH, "steps": 2})
    assert decided(found)["form"] == "branch"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["branch", "weights"])
def test_a_budget_of_minutes_shortens_both_trainings_and_is_said(world: World, form: str) -> None:
    long = {"epochs": 400, "batch": 8}
    recipe = {"form": form, "max_minutes": 0.02, "tutor": long, "student": long, "branch": {**BRANCH, "steps": 2400}}
    found = extracted(world, world.detector(), world.presumed, **recipe)
    said = [one for one in found.metrics.decisions if "max_minutes" in one.because]
    left = re.search(r"the trainings will take about .*; max_minutes leaves (\d+) % of them", said[0].because)
    assert left is not None and int(left[1]) < 50


@pytest.mark.slow
def test_an_extraction_that_goes_on_keeps_its_plan(world: World, tmp_path: Path) -> None:
    """Its lengths follow from the clock, which never says the same twice."""
    options = {"form": "branch", "branch": {**BRANCH, "steps": 4}, "student_gap": False}
    first, again = (
        extract_gap(
            world.detector(),
            world.detector(),
            world.site,
            coreset=world.presumed,
            recipe={**PROBE, **options},
            checkpoints=tmp_path,
        )
        for _ in range(2)
    )
    assert first.tutor.to_bytes() == again.tutor.to_bytes()
    assert first.metrics.decisions == again.metrics.decisions


def test_a_branch_that_would_move_the_backbone_is_refused() -> None:
    for sections in ([], ["backbone", "head"]):
        with pytest.raises(InvalidInput, match="backbone"):
            CycleRecipe.of({"branch": {"train_only": sections}})


@pytest.mark.slow
def test_labels_of_a_gap_with_branches_travel(gaps: Gaps, tmp_path: Path) -> None:
    gaps.save(tmp_path / "gaps")
    again = Gaps.load(tmp_path / "gaps")
    assert again.tutor.note == gaps.tutor.note
    assert again.metrics.decisions == gaps.metrics.decisions
    assert isinstance(again.tutor.weights, WeightMap) and isinstance(again.tutor.note.labels, LabelSpace)
