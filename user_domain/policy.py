"""The policy of a site: what it agrees to without a person, and what it never agrees to. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from diredi.codecs import codec_named
from diredi.config import Config
from diredi.distillation.recipe import TrainRecipe
from diredi.errors import InvalidInput
from diredi.knowledge.gap import DEFAULT_CODEC
from diredi.knowledge.recipe import CycleRecipe
from diredi.store.blobs import Blob
from user_domain.tasks import Task, TaskKind

Approval = Literal["always", "bounds", "ask", "never"]
ExternalPolicy = Literal["never", "bounds"]
MIB: Final = 2**20
_SITE, _GROUP = "site", "group"
_SCOPE: Final = re.compile(r"site|fleet|group(:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?")
_TRAININGS: Final = ("branch", "fine_tuning", "tutor", "student")
"""The trainings of a recipe that the site does; the others are the cloud's."""


class Bounds(Config):
    """The most that a site takes part in. A recipe that asks for more is refused before anything is downloaded."""

    scopes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Whom the cycles may be for that this site takes part in: `site`, `fleet`, `group:NAME`, or `group` for any group.
    None sets no limit."""
    max_epochs: float = Field(default=300, gt=0)
    """The most epochs of one training."""
    max_steps: int = Field(default=20_000, ge=1)
    """The most optimizer steps that a recipe may name for one training or probe."""
    max_batch: int = Field(default=128, ge=1)
    """The most images in one step."""
    max_minutes: float | None = Field(default=None, gt=0)
    """The most minutes that the trainings of a cycle may take. A recipe that names more is refused. Where it names
    none, the trainings get this limit. None sets no limit."""
    max_looks: int = Field(default=8, ge=1)
    """The most sizes at which an oracle may look at an image."""
    codecs: tuple[str, ...] = Field(default=(DEFAULT_CODEC,), min_length=1)
    """The codecs in which gaps may leave. An exact codec tells the manufacturer more, and sends more bytes."""
    max_new_classes: int = Field(default=50, ge=0)
    """The most class names of the data set that the manufacturer may learn in a cycle."""
    max_image_size: int = Field(default=1280, ge=32)
    """The largest input of the models, in pixels."""
    max_download_mib: int = Field(default=2048, ge=1)
    """The most that the models and the coreset of a task may weigh together, in MiB."""
    max_external_per_week: int = Field(default=3, ge=0)
    """The most candidates of cycles that the site takes no part in that it measures in seven days, where
    `external_validation` allows that at all. Each of them is a question to the site's images."""
    max_upload_mib: int = Field(default=256, ge=1)
    """The most that the gaps of a cycle may weigh together, in MiB. This is found out when they are made; they do not
    leave then."""

    @field_validator("scopes")
    @classmethod
    def _scopes_are_known(cls, scopes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for scope in scopes or ():
            if not _SCOPE.fullmatch(scope):
                raise ValueError(f"{scope[:80]!r} is no scope: use site, fleet, group:NAME or group")
        return scopes

    @field_validator("codecs")
    @classmethod
    def _codecs_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(codec_named(name).name for name in names)
        except InvalidInput as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Policy:
    """What the site's configuration says about taking part."""

    approval: Approval
    bounds: Bounds
    site: str
    """The name of this site."""
    external_validation: ExternalPolicy = "never"
    """Whether candidates are measured of cycles that this site takes no part in."""

    def refuse(self, recipe: CycleRecipe, task: Task, new_classes: Sequence[str]) -> str:
        """Say why the site does not take part in a task, whoever might approve; empty where it may.

        Args:
            recipe: The task's recipe, parsed.
            task: The task.
            new_classes: The class names that the cloud would learn.
        """
        if self.approval == "never":
            return "this site takes part in no cycle (approval)"
        if self.approval == "always":
            return ""
        if reason := self._refuse_scope(task.scope):
            return reason
        for what, value, bound, most in self._measures(recipe, task, new_classes):
            if value > most:
                return f"{what} is {value:g}, this site takes {most:g} at most ({bound})"
        if recipe.codec not in self.bounds.codecs:
            return f"codec is {recipe.codec}, this site takes {', '.join(self.bounds.codecs)} (bounds.codecs)"
        return ""

    def refuse_external(self, task: Task, measured: int) -> str:
        """Say why the site does not measure the candidate of a cycle that it takes no part in; empty where it does.

        No other part of the policy allows it: `approval` is about cycles in which the site learns.

        Args:
            task: The task.
            measured: How many such candidates it has measured in the last seven days.
        """
        if self.approval == "never":
            return "this site takes part in no cycle (approval)"
        if self.external_validation == "never":
            return "this site measures nothing of a cycle that it takes no part in (external_validation)"
        if task.scope.partition(":")[0] == _SITE or not task.scope:
            return "the cycle is for another site alone, or does not say for whom"
        if reason := self._refuse_scope(task.scope):
            return reason
        assert task.student and task.deployed
        candidate, deployed = task.student.spec, task.deployed.spec
        if candidate.image_size != deployed.image_size or not candidate.labels.extends(deployed.labels):
            return "the candidate has another input or other classes than the release that it would replace"
        if candidate.image_size > self.bounds.max_image_size:
            return (
                f"the image size is {candidate.image_size}, this site takes {self.bounds.max_image_size} at most "
                "(bounds.max_image_size)"
            )
        size, most = sum(blob.bytes for blob in downloads_of(task)) / MIB, self.bounds.max_download_mib
        if size > most:
            return f"the download in MiB is {size:g}, this site takes {most} at most (bounds.max_download_mib)"
        if measured >= self.bounds.max_external_per_week:
            return (
                f"this site has measured {measured} such candidates in seven days, and measures "
                f"{self.bounds.max_external_per_week} at most (bounds.max_external_per_week)"
            )
        return ""

    def _refuse_scope(self, scope: str) -> str:
        """Say why the site does not take part in a cycle of a scope; empty where it may."""
        allowed = self.bounds.scopes
        kind, _, name = scope.partition(":")
        # A cycle for another site alone would take what this site knows to a release that it never gets.
        if kind == _SITE and name != self.site:
            return f"the cycle is for {scope[:80]}, this site is {self.site}"
        if allowed is None or (kind if kind == _SITE else scope) in allowed or (kind == _GROUP and _GROUP in allowed):
            return ""
        for_whom = f"for {scope[:80]}" if scope else "without a scope"
        return f"the cycle is {for_whom}, this site takes part in those for {', '.join(allowed)} (bounds.scopes)"

    def refuse_upload(self, gap_bytes: int) -> str:
        """Say why gaps of so many bytes do not leave; empty where they may."""
        most = self.bounds.max_upload_mib
        if self.approval == "always" or gap_bytes <= most * MIB:
            return ""
        return f"the gaps weigh {gap_bytes / MIB:.1f} MiB, this site sends {most} at most (bounds.max_upload_mib)"

    def limit(self, recipe: CycleRecipe) -> CycleRecipe:
        """Return a recipe with this site's limit of minutes, where it has none of its own."""
        if self.approval == "always" or recipe.max_minutes is not None or self.bounds.max_minutes is None:
            return recipe
        return recipe.model_copy(update={"max_minutes": self.bounds.max_minutes})

    def _measures(
        self, recipe: CycleRecipe, task: Task, new_classes: Sequence[str]
    ) -> Iterator[tuple[str, float, str, float]]:
        """Yield what is asked, how much of it, the bound that it has, and the most that this allows."""
        bounds = self.bounds
        for name, training in trainings_of(recipe):
            yield f"{name}.epochs", training.epochs, "bounds.max_epochs", bounds.max_epochs
            yield f"{name}.steps", training.steps or 0, "bounds.max_steps", bounds.max_steps
            yield f"{name}.batch", training.batch, "bounds.max_batch", bounds.max_batch
        yield "probe_steps", recipe.probe_steps, "bounds.max_steps", bounds.max_steps
        yield "the number of oracle_looks", len(recipe.oracle_looks), "bounds.max_looks", bounds.max_looks
        if bounds.max_minutes is not None:
            yield "max_minutes", recipe.max_minutes or 0, "bounds.max_minutes", bounds.max_minutes
        models = [model for model in (task.tutor, task.student) if model is not None]
        for model in models:
            size = model.spec.image_size
            yield f"the image size of the {model.kind}", size, "bounds.max_image_size", bounds.max_image_size
        weights = sum(blob.bytes for blob in downloads_of(task))
        yield "the download in MiB", weights / MIB, "bounds.max_download_mib", bounds.max_download_mib
        yield "the number of new classes", len(new_classes), "bounds.max_new_classes", bounds.max_new_classes


def trainings_of(recipe: CycleRecipe) -> list[tuple[str, TrainRecipe]]:
    """Return the trainings that a recipe asks of the site, by name."""
    found: list[tuple[str, Any]] = [(name, getattr(recipe, name)) for name in _TRAININGS]
    return [(name, training) for name, training in found if training is not None]


def downloads_of(task: Task) -> list[Blob]:
    """Return the blobs that a task makes a site download."""
    if task.kind is TaskKind.VALIDATE_EXTERNAL:
        return [model.onnx for model in (task.deployed, task.student) if model and model.onnx]
    tutor = task.tutor.weights if task.tutor else None
    student = task.student and (task.student.weights if task.kind is TaskKind.EXTRACT else task.student.onnx)
    return [blob for blob in (tutor, student, task.coreset) if blob]
