"""How a cycle fits itself to a site: what its models bear, how long they learn, and what a branch may speak for.

Whatever is decided here is decided from the site's training images and the coreset: by a short probe, and on parts of
both that are held back from the training. The images that a site is judged on decide nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from diredi.config import Config
from diredi.detectors.base import Detector, Router
from diredi.distillation.batches import Pool
from diredi.distillation.distil import distil
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import Diverged
from diredi.evaluation.bootstrap import ap50, draw_images
from diredi.evaluation.detection import evaluate, evaluate_with_matches
from diredi.knowledge.gaps import Decision
from diredi.knowledge.quieting import loudness_of, quieted
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData, seeded
from diredi.knowledge.routing import try_router
from diredi.progress import OnProgress, renamed, report

Form = Literal["weights", "branch"]
PROBE = "probe"
KEPT = 0.3
"""The share of its quality on the coreset that a detector must keep in the probe to learn with all of its weights.
Detectors that COCO taught keep next to nothing..."""
LONGER, FOUND_BACK = 4, 0.8
"""... and the share that it must have after so many times the steps. The starter release's student, trained on 800
scenes, keeps half at first and finds back to nine tenths of it on other scenes, and to seven on photographs."""
FEWEST_HELD_BACK = 4
TIMED_STEPS = 4
LEAST_OF_TUTOR = 4
"""The tutor learns for one of so many of the student's steps, whatever that costs: fewer teach it nothing."""
NOTHING = 5.0
"""Percent of AP50 below which a branch has learned next to nothing in a probe..."""
LEAST_LEARNED = 5.0
"""... and by which a higher rate must find more."""
MOST_PROBED = 32
"""Images on which that is counted."""
MARGIN = 0.85  # of a limit, for the trainings themselves; measuring and writing take time, too
CLEARLY = 1.0  # points of AP50 by which a branch must find a known class better at the site to speak for it
FEWEST_JUDGES = 3  # images of a class, for one or two have no standard error
MANY_BOXES = 10
MOST_LISTED = 12


def hold_back(data: SiteData, recipe: CycleRecipe) -> tuple[SiteData, SiteData]:
    """Divide what a site learns from.

    Args:
        data: The site's training images and the coreset.
        recipe: How much to hold back (`held_back`), and the seed that draws it.

    Returns:
        What is left to learn from, and what is held back: of few images a larger share, of one or two nothing, and none
        that is labelled for new classes alone.
    """
    random = np.random.default_rng(recipe.seed)
    private = _divided(data.private, recipe.held_back, random)
    coreset = _divided(data.coreset, recipe.held_back, random)
    filled_in = _divided(data.filled_in, recipe.held_back, random)
    shown, known = _classes(data.private), _classes(data.coreset)
    if shown and known and shown.isdisjoint(known):
        private = data.private, replace(data.private, samples=[])  # what is decided on them are known classes
    return (
        replace(data, private=private[0], coreset=coreset[0], filled_in=filled_in[0]),
        replace(data, private=private[1], coreset=coreset[1], filled_in=filled_in[1]),
    )


def _classes(pool: Pool) -> set[int]:
    return {int(kind) for sample in pool.samples for kind in sample.boxes[:, 0]}


def _divided(pool: Pool, share: float, random: np.random.Generator) -> tuple[Pool, Pool]:
    images = len(pool.samples)
    count = max(round(share * images), min(FEWEST_HELD_BACK, images // 3))
    chosen = set(random.permutation(len(pool.samples))[:count].tolist())
    kept = [sample for index, sample in enumerate(pool.samples) if index not in chosen]
    return replace(pool, samples=kept), replace(pool, samples=[pool.samples[index] for index in sorted(chosen)])


def choose_form(
    tutor: Detector,
    student: Detector,
    data: SiteData,
    recipe: CycleRecipe,
    *,
    on_progress: OnProgress | None = None,
) -> tuple[Form, Decision]:
    """Choose whether a site's models learn with all weights or as a branch.

    A copy of the deployed student learns for `probe_steps` with all weights, at the rate of `recipe.student`, from the
    site's images and the coreset. If it then finds next to nothing of what it knew on held-back images of the coreset,
    it has learned far more than the coreset can hold in place, and what it knows has to stand still while a branch
    learns. If it does, another copy learns for longer. All weights may move if it finds back to most of what it knew:
    that learns most.

    Args:
        tutor: The cloud's tutor. It is not changed.
        student: The deployed student. It is not changed.
        data: What the site learns from.
        recipe: The recipe; a `form` that it names is taken unseen.
        on_progress: Hears of the step "probe".

    Returns:
        The form, and why.
    """
    if recipe.form != "auto":
        return recipe.form, _form(recipe.form, "the recipe says so")
    for who, model in (("tutor", tutor), ("student", student)):
        if model.spec.branches:
            return "branch", _form("branch", f"the {who} has branches, which need its backbone as it is")
    learned, held = hold_back(data, recipe)
    if not any(len(sample.boxes) for sample in held.coreset.samples):
        return "branch", _form("branch", "no coreset shows what would be forgotten")
    before = evaluate(student, held.coreset.samples, data.labels).map50
    form: Form = "weights"
    said = f"mAP50 on held-back images of the coreset went from {100 * before:.1f} to"
    for steps, least in ((recipe.probe_steps, KEPT), (LONGER * recipe.probe_steps, FOUND_BACK)):
        probe = distil(
            student,
            learned.pools,
            recipe=seeded(recipe.student, recipe.seed).model_copy(update={"steps": steps}),
            labels=data.labels,
            on_progress=renamed(on_progress, PROBE),
        )
        after = evaluate(probe, held.coreset.samples, data.labels).map50
        said += f" {100 * after:.1f} after {steps} steps with all weights"
        if after < least * before:
            form = "branch"
            break
        said += ","
    return form, _form(form, said.removesuffix(","))


def _form(form: Form, because: str) -> Decision:
    return Decision(subject="form", choice=form, because=because)


class Plan(Config):
    """What a site does before it begins, so that an extraction that was killed goes on as it began."""

    form: Form
    tutor: TrainRecipe
    """How the tutor learns, or its branch."""
    student: TrainRecipe | None
    """How the student learns, or its branch. None: it gets no branch."""
    fine_tuning: TrainRecipe | None = None
    """How all weights of the student learn before its branch does. None: they stay as they are."""
    routed: bool = False
    """Whether branches learn known classes from the site's images alone, to be heard for them in its place alone."""
    decisions: tuple[Decision, ...]


def make_plan(
    tutor: Detector, student: Detector, data: SiteData, recipe: CycleRecipe, *, on_progress: OnProgress | None = None
) -> Plan:
    """Choose the form and how long tutor and student learn, and say how long that will take.

    The student learns as long as the recipe says of a branch, fine-tuning and branch together. The tutor's branch
    learns for what `max_cost` then leaves, for an epoch and a quarter of that at the least, and no more than the recipe
    says. `max_minutes` shortens all alike, in either form.

    Args:
        tutor: Who learns first. It is not changed.
        student: Who learns then, and for the probe. It is not changed.
        data: What both learn from.
        recipe: The limits.
        on_progress: Hears of the step "probe".

    Returns:
        The plan, with a reason for each decision.
    """
    began = time.monotonic()
    form, decision = choose_form(tutor, student, data, recipe, on_progress=on_progress)
    if form == "branch":
        return _plan_of_branches(tutor, student, data, recipe, decision, began, on_progress)
    plan = Plan(form=form, tutor=recipe.tutor, student=recipe.student, decisions=(decision,))
    if recipe.form != "auto" and recipe.max_minutes is None:
        return plan
    images = data.images
    works = [(tutor, recipe.tutor)] * (1 + (recipe.reverse_distillations == "two"))
    works += [(student, recipe.student)] * recipe.student_gap
    paces = [_seconds_per_step(model, data, training) for model, training in works]
    seconds = sum(_steps(training, images) * one for (_, training), one in zip(works, paces, strict=True))
    budget = _Budget.of(seconds, recipe, time.monotonic() - began, on_progress)
    minutes = Decision(subject="training time", choice=_minutes(budget.share * seconds), because=budget.because)
    tutors, students = (
        budget.shortened(training, _steps(training, images), pace)
        for training, pace in ((recipe.tutor, paces[0]), (recipe.student, paces[-1]))
    )
    return Plan(form=form, tutor=tutors, student=students, decisions=(decision, minutes))


def _plan_of_branches(
    tutor: Detector,
    student: Detector,
    data: SiteData,
    recipe: CycleRecipe,
    decision: Decision,
    began: float,
    on_progress: OnProgress | None,
) -> Plan:
    learned, held = hold_back(data, recipe)
    images = sum(len(pool.samples) for pool in (learned.private, learned.filled_in, learned.coreset))
    epoch, steps = max(images // recipe.branch.batch, 1), _steps(recipe.branch, images)
    routed, of_place = _routed(student, learned, held, recipe, on_progress)
    training, raised, of_rate = _branch_rate(student, learned, held, recipe, on_progress, routed=routed)
    tuned, because_tuned = _fine_tuning_steps(student, data, recipe, steps, images, routed=routed, raised=raised)
    whole = _seconds_per_step(student, learned, recipe.fine_tuning or training.model_copy(update={"train_only": ()}))
    mine, theirs = (_seconds_per_step(model, learned, training) for model in (student, tutor))
    students = tuned * whole + (steps - tuned) * mine
    spent = time.monotonic() - began
    room = MARGIN * recipe.max_cost * steps * whole - spent - students
    tutors = int(np.clip(room / theirs, min(max(epoch, steps // LEAST_OF_TUTOR), steps), steps))
    budget = _Budget.of(tutors * theirs + students, recipe, time.monotonic() - began, on_progress)
    limit = f"max_cost allows {recipe.max_cost:g} times the {_minutes(steps * whole)} of fine-tuning the student"
    paces = (
        f"a step takes {theirs:.2f} s of the tutor's branch, {mine:.2f} of the student's, {whole:.2f} of the student"
    )
    works = {
        "tutor": (training, tutors, theirs),
        "student": (training, steps - tuned, mine),
        "fine_tuning": (recipe.fine_tuning or training, tuned, whole),
    }
    trainings = {
        part: budget.shortened(seeded(base, recipe.seed), count, pace)
        for part, (base, count, pace) in works.items()
        if count
    }
    reasons = {
        "tutor": ("tutor's branch learns", f"{paces}; {limit}"),
        "fine_tuning": ("all weights of the student learn", because_tuned),
        "student": ("student's branch learns", budget.because),
    }
    lasts = {part: f"{one.steps} steps, {(one.steps or 0) / epoch:.1f} epochs" for part, one in trainings.items()}
    decisions = [
        Decision(subject=subject, choice=lasts.get(part, "not at all"), because=reason)
        for part, (subject, reason) in reasons.items()
    ]
    return Plan(
        form="branch",
        tutor=trainings["tutor"],
        student=trainings.get("student"),
        fine_tuning=trainings.get("fine_tuning"),
        routed=routed,
        decisions=(decision, *of_place, of_rate, *decisions),
    )


def _routed(
    student: Detector, learned: SiteData, held: SiteData, recipe: CycleRecipe, on_progress: OnProgress | None
) -> tuple[bool, list[Decision]]:
    """Whether a branch learns known classes from the site's images alone, to be heard in its place alone, and why.

    It does so where the site shows no new class, a router tells its images, and a branch that learned so for a moment
    finds a known class better on held-back images. At a camera that hangs still it does at once, and learns far more
    than weights that must stay right everywhere; where no two images show the same place it seldom does.
    """
    known = learned.seen & set(student.labels.names)
    if not recipe.router or not known or known != learned.seen:
        return False, []
    ids = learned.labels.ids_of(sorted(known))
    trial = try_router(student, learned, held, ids, seed=recipe.seed)
    good, because = trial is not None and trial.good, "there are too few images to judge a router"
    if trial is not None:
        because = trial.said
    if good:
        rate = recipe.far_rate * recipe.branch.learning_rate
        site = replace(learned, coreset=Pool([])).pools
        probe = _probe_of_branch(student, site, learned, recipe, rate, on_progress)
        better, decision = choose_classes("probe", student, probe, [], held, learned)
        good, because = bool(better), f"{because}; after {recipe.probe_steps} steps of a branch {decision.because}"
    choice = "by a branch, in its own place alone" if good else "as part of what holds everywhere"
    return good, [Decision(subject="known classes are learned", choice=choice, because=because)]


def _branch_rate(
    student: Detector,
    learned: SiteData,
    held: SiteData,
    recipe: CycleRecipe,
    on_progress: OnProgress | None,
    *,
    routed: bool,
) -> tuple[TrainRecipe, bool, Decision]:
    """How a branch learns, whether at a higher rate than the recipe's, and why.

    A rate that is right for what has learned much may be far too small for what has learned little. So a branch that
    finds next to nothing after the steps of a probe is tried at higher rates.
    """
    known, subject = learned.seen & set(student.labels.names), "learning rate of a branch"
    rate, because = recipe.branch.learning_rate, "the recipe says so; the site shows classes that the student knows"
    if routed or not known:
        rate *= recipe.far_rate
        why = "its router leaves all that is known as it is" if routed else "the site shows no class that it knows"
        because = f"{recipe.far_rate:g} times that of the recipe, for {why}"
    raised = False
    if not routed:
        found = {rate: _found(student, learned, held, recipe, rate, on_progress)}
        if found[rate] < NOTHING:
            higher = {recipe.far_rate * recipe.branch.learning_rate, recipe.student.learning_rate}
            for other in sorted(one for one in higher if one > rate):
                found[other] = _found(student, learned, held, recipe, other, on_progress)
        best = max(found, key=found.__getitem__)
        if best != rate and found[best] >= found[rate] + LEAST_LEARNED:
            rate, raised, because = best, True, "the rate of the recipe is too small for this student"
        words = ", ".join(f"{value:.1f} at {tried:.1e}" for tried, value in found.items())
        because = f"{because}; after {recipe.probe_steps} steps a branch finds, in percent of AP50, {words}"
    training = recipe.branch.model_copy(update={"learning_rate": rate})
    return training, raised, Decision(subject=subject, choice=f"{rate:.1e}", because=because)


def _found(
    student: Detector,
    learned: SiteData,
    held: SiteData,
    recipe: CycleRecipe,
    rate: float,
    on_progress: OnProgress | None,
) -> float:
    """Percent of AP50, the mean over what the site shows and the student does not know, or, without that, over all.

    It is what a branch finds that has learned at a rate for the steps of the probe, on held-back images of the site. Of
    a site that holds none back it is on some that it has learned from, which do tell whether it learns at all.
    """
    new = learned.seen.difference(student.labels.names) or learned.seen
    pool = held.private if any(len(sample.boxes) for sample in held.private.samples) else learned.private
    try:
        probe = _probe_of_branch(student, learned.pools, learned, recipe, rate, on_progress)
    except Diverged:
        return 0.0
    metrics = evaluate(probe, pool.samples[:MOST_PROBED], learned.labels)
    return 100 * float(np.mean([metrics.per_class[name].ap50 for name in new if name in metrics.per_class] or [0.0]))


def _probe_of_branch(
    student: Detector,
    pools: Sequence[Pool],
    learned: SiteData,
    recipe: CycleRecipe,
    rate: float,
    on_progress: OnProgress | None,
) -> Detector:
    short = seeded(recipe.branch, recipe.seed).model_copy(update={"steps": recipe.probe_steps, "learning_rate": rate})
    heard = renamed(on_progress, PROBE)
    return distil(student.parts()[0], pools, recipe=short, labels=learned.labels, on_progress=heard)


def _fine_tuning_steps(
    student: Detector,
    data: SiteData,
    recipe: CycleRecipe,
    steps: int,
    images: int,
    *,
    routed: bool,
    raised: bool,
) -> tuple[int, str]:
    """How many of the student's steps move all of its weights, and why."""
    if routed:
        return 0, "the branch learns known classes, too, so all of the time is the branch's"
    if raised and data.seen.difference(student.labels.names):
        return 0, "the small rates of the recipe teach this student nothing, so all of the time is its branch's"
    if recipe.fine_tuning is None:
        return 0, "the recipe has no fine_tuning"
    if student.spec.branches:
        return 0, "the student has branches, which need its backbone as it is"
    if not data.coreset.samples:
        return 0, "no coreset holds in place what the student knows"
    known = data.seen & set(student.labels.names)
    if not known:
        return 0, "the site has labelled no class that the student knows, so all of the time is its branch's"
    if known == data.seen:
        return steps, "the site shows no new class, so the student needs no branch"
    return min(
        _steps(recipe.fine_tuning, images), steps // 2
    ), "they follow the site first; its branch starts from there"


@dataclass(frozen=True)
class _Budget:
    """What `max_minutes` leaves of the trainings."""

    share: float
    """Of their steps."""
    stretch: float | None
    """By how much longer than planned a training may take before it loses more of them. None: no limit."""
    because: str

    @classmethod
    def of(cls, seconds: float, recipe: CycleRecipe, spent: float, on_progress: OnProgress | None) -> _Budget:
        """Divide what is left of the limit.

        Args:
            seconds: What all trainings would take.
            recipe: The limit.
            spent: Seconds that the probe has taken of it.
            on_progress: Hears how long it will take.
        """
        share, stretch = 1.0, None
        if recipe.max_minutes is not None:
            room = max(60 * recipe.max_minutes * MARGIN - spent, 0)
            share = min(room / seconds, 1.0)
            stretch = max(room / seconds, 1.0)
        said = f"the trainings will take about {_minutes(share * seconds)} here"
        report(on_progress, PROBE, 1.0, said)
        return cls(share, stretch, said if share == 1 else f"{said}; max_minutes leaves {100 * share:.0f} % of them")

    def shortened(self, training: TrainRecipe, steps: int, seconds: float) -> TrainRecipe:
        """Return a training with its share of the limit.

        Args:
            training: How to learn.
            steps: How many steps it would make.
            seconds: What a step takes.
        """
        kept = max(round(self.share * steps), 1)
        limit = None if self.stretch is None else self.stretch * kept * seconds
        return training.model_copy(update={"steps": kept, "max_seconds": limit})


def _steps(training: TrainRecipe, images: int) -> int:
    return training.steps or max(round(training.epochs * max(images // training.batch, 1)), 1)


def _seconds_per_step(model: Detector, data: SiteData, recipe: TrainRecipe) -> float:
    """Of a few steps on a few images, without the first, which is slow."""
    few = [replace(pool, samples=pool.samples[: TIMED_STEPS * recipe.batch]) for pool in data.pools]
    marks: list[float] = []
    distil(
        model.parts()[0],
        few,
        recipe=recipe.model_copy(update={"steps": TIMED_STEPS}),
        labels=data.labels,
        on_progress=lambda _: marks.append(time.monotonic()),
    )
    return max((marks[-1] - marks[0]) / (len(marks) - 1), 1e-3)


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def choose_classes(
    who: str, base: Detector, taught: Detector, new: Sequence[int], held: SiteData, learned: SiteData
) -> tuple[list[int], Decision]:
    """Choose the classes for which a branch speaks: all new ones, and known ones that it finds better at this site.

    Better is what held-back images of the site say, class by class, by more than one standard error (a paired bootstrap
    over images): where there are few, a branch often seems better by several points and is worse. A site with too few
    images to hold some back takes the branch for every class of which it has labelled MANY_BOXES boxes; whoever
    receives the gap measures the harm.

    Args:
        who: "tutor" or "student", for the decision.
        base: The detector without the branch.
        taught: The branch, as a network of its own.
        new: Ids of the new classes.
        held: What is held back.
        learned: What the branch has learned from.

    Returns:
        Ids of the classes, and why.
    """
    labels = held.labels
    labelled = Counter(int(kind) for sample in learned.private.samples for kind in sample.boxes[:, 0])
    seen = {*labelled, *_classes(learned.filled_in)}
    chosen = [kind for kind in new if kind in seen]
    known = sorted(seen.difference(new))
    words = [f"{labels.names[kind]} is new" for kind in chosen]
    judges = [
        sample
        for pool in (held.private, held.filled_in)
        if pool.classes is None or pool.classes.issuperset(known)
        for sample in pool.samples
    ]
    if known and any(len(sample.boxes) for sample in judges):
        drawn = draw_images(len(judges), seed=0)
        shown = Counter(kind for sample in judges for kind in {int(one) for one in sample.boxes[:, 0]})
        matches = [evaluate_with_matches(model, judges, labels)[1] for model in (base, taught)]
        for kind in [kind for kind in known if shown[kind] >= FEWEST_JUDGES]:
            before, after = (ap50(one, [kind], drawn) for one in matches)
            gain, error = after[0] - before[0], float(np.std((after - before)[1:]))
            if gain > max(CLEARLY, error):
                chosen.append(kind)
            words.append(
                f"{labels.names[kind]} AP50 {before[0]:.1f} to {after[0]:.1f} on {len(judges)} held-back images of the "
                f"site, standard error {error:.1f}"
            )
    elif known:
        chosen += [kind for kind in known if labelled[kind] >= MANY_BOXES]
        words.append(f"too few images to hold some back, so known classes with {MANY_BOXES} boxes, unseen")
    names = _listed([labels.names[kind] for kind in sorted(chosen)]) or "nothing"
    return sorted(chosen), Decision(subject=f"{who}'s branch speaks for", choice=names, because=_listed(words))


def choose_router(
    who: str,
    base: Detector,
    known: Sequence[int],
    held: SiteData,
    learned: SiteData,
    recipe: CycleRecipe,
    *,
    needed: bool,
) -> tuple[Router | None, Decision]:
    """Fit the router of a branch, if held-back images say that it may be relied on.

    Args:
        who: "tutor" or "student", for the decision.
        base: The detector without the branch.
        known: Ids of the known classes for which the branch speaks.
        held: What is held back.
        learned: What the branch has learned from.
        recipe: The seed.
        needed: Whether the branch has learned them for its own place alone, and may not speak for them without.

    Returns:
        The router, and why.
    """
    trial = try_router(base, learned, held, known, seed=recipe.seed)
    names, subject = _listed([held.labels.names[kind] for kind in known]), f"{who}'s router"
    if trial is None or not trial.good:
        because = "there are too few images to judge a router" if trial is None else trial.said
        choice = f"none, so the branch {'does not speak' if needed else 'speaks everywhere'} for {names}"
        return None, Decision(subject=subject, choice=choice, because=because)
    return trial.router, Decision(subject=subject, choice=f"{names} in its own place alone", because=trial.said)


def followed(base: Detector, tuned: Detector, held: SiteData) -> Decision:
    """Say what fine-tuning has changed on held-back images: how much of it stays, the cloud decides by lambda.

    Args:
        base: The student as it was.
        tuned: The fine-tuned student.
        held: What is held back.
    """
    words = []
    for where, pool in (("of the site", held.private), ("of the coreset", held.coreset)):
        if any(len(sample.boxes) for sample in pool.samples):
            before, after = (100 * evaluate(model, pool.samples, held.labels).map50 for model in (base, tuned))
            words.append(f"{before:.1f} to {after:.1f} on held-back images {where}")
    because = f"mAP50 {', '.join(words)}" if words else "too few images to hold some back"
    return Decision(
        subject="fine-tuning of the student", choice="as it is; lambda decides in the cloud", because=because
    )


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - MOST_LISTED} more" if len(words) > MOST_LISTED else ""
    return ", ".join(words[:MOST_LISTED]) + more


def quiet(
    who: str, taught: Detector, new: Sequence[int], held: SiteData, learned: SiteData, recipe: CycleRecipe
) -> tuple[Detector, Decision | None]:
    """Lower the scores of new classes until they are seldom found where there are none.

    The images of the coreset that are held back say how often, and so does all of it: what is held back may be few.

    Args:
        who: "tutor" or "student", for the decision.
        taught: The branch, as a network of its own. It is not changed.
        new: Ids of the new classes.
        held: What is held back.
        learned: What the branch has learned from.
        recipe: How often new classes may be found (`max_false_alarms`).

    Returns:
        The branch with lower scores of the new classes, or as it was; and why, if it was changed.
    """
    if recipe.presumed_shows_new:
        return taught, None
    judges = {
        "held-back images": held.coreset.samples,
        "images, held back or not,": [*held.coreset.samples, *learned.coreset.samples],
    }
    found = {
        f"{len(images)} {which} of the coreset": loudness_of(taught, images, new, recipe.max_false_alarms)
        for which, images in judges.items()
    }
    said, loudest = min(found.items(), key=lambda one: one[1].by)
    if loudest.by == 0:
        return taught, None
    because = (
        f"new classes would be found about {loudest.per_100:.0f} times on 100 images that show none, as {said} say; "
        f"{recipe.max_false_alarms:g} may be"
    )
    return quieted(taught, new, loudest.by), Decision(
        subject=f"{who}'s scores of new classes", choice=f"{loudest.by:+.2f} logits", because=because
    )
