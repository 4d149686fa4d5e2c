"""What a site is asked to agree to, in plain words, for the person who decides."""

from __future__ import annotations

from diredi.knowledge.recipe import CycleRecipe
from user_domain.policy import MIB, Policy, downloads_of, trainings_of
from user_domain.private_data import PrivateData
from user_domain.tasks import Task, TaskKind


def explain_request(
    task: Task, policy: Policy, data: PrivateData, new_classes: list[str], *, publish_style: bool
) -> list[tuple[str, str]]:
    """Return subjects and sentences: what is done at the site, what leaves, and who sees it.

    Args:
        task: What is asked.
        policy: The site's.
        data: The private data set.
        new_classes: The class names that the cloud would learn.
        publish_style: Whether the site's style leaves, too.
    """
    recipe = policy.limit(CycleRecipe.of(task.recipe))
    size = sum(blob.bytes for blob in downloads_of(task)) / MIB
    return [
        ("cycle", task.cycle_id),
        ("for", _explain_scope(task.scope)),
        ("work here", _explain_work(task, recipe, data)),
        ("minutes", f"at most {recipe.max_minutes:g}" if recipe.max_minutes else "no limit is set"),
        ("comes in", f"{size:.1f} MiB of models and presumed images"),
        ("leaves", _explain_upload(task, recipe, policy)),
        ("class names", _explain_names(task, new_classes)),
        ("style", "fourteen averages of colour, light, blur and noise leave, too" if publish_style else "stays here"),
        ("stays here", "every image, every label, every file name"),
    ]  # fmt: skip


def _explain_scope(scope: str) -> str:
    kind, _, name = scope.partition(":")
    if kind == "site":
        return f"this site alone ({name}): nobody else but the manufacturer sees what comes of it"
    if kind == "group":
        return f"the sites of group {name}, also those that join it later: they see the new models and class names"
    return "the whole fleet: every site and device gets the new models and sees their class names"


def _explain_work(task: Task, recipe: CycleRecipe, data: PrivateData) -> str:
    if task.kind is TaskKind.VALIDATE:
        return (
            f"measures, once, a model on {data.held_out_images} held-out images; it carries what cycle "
            f"{task.rebased_cycle_id} has learned here over to a newer release; nothing is learned"
        )
    labelled = "as you have labelled them" if recipe.labels == "site" else "as an oracle labels them"
    epochs = ", ".join(
        f"{name} {training.steps} steps" if training.steps else f"{name} {training.epochs:g} epochs"
        for name, training in trainings_of(recipe)
    )
    return (
        f"learns from {data.train_images} images {labelled}, and measures on {data.held_out_images} others; "
        f"trainings of at most: {epochs}"
    )


def _explain_upload(task: Task, recipe: CycleRecipe, policy: Policy) -> str:
    if task.kind is TaskKind.VALIDATE:
        return "rounded figures of that model"
    gaps = "the tutor's gap and the student's" if recipe.student_gap else "the tutor's gap"
    limit = "" if policy.approval == "always" else f" of at most {policy.bounds.max_upload_mib} MiB"
    return (
        f"{gaps} (differences of weights, {recipe.codec}){limit}, counts of images and boxes, rounded figures, and "
        "later those of the one model that comes of it"
    )


def _explain_names(task: Task, new_classes: list[str]) -> str:
    if not new_classes:
        return "none that the manufacturer does not know"
    who = {"site": "the manufacturer", "group": "the manufacturer and every site of the group"}
    seen = who.get(task.scope.partition(":")[0], "the manufacturer and every site and device of the fleet")
    return f"{', '.join(new_classes)}: {seen} will see them"
