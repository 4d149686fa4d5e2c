"""The training loop. Direct training, teacher to tutor, tutor to student and student to tutor are all this one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from diredi.data.dataset import Sample
from diredi.detectors.base import Detector, Outputs, Targets
from diredi.distillation.batches import Batch, Batches, Pool
from diredi.distillation.losses import LOSSES, Lesson
from diredi.distillation.recipe import TrainRecipe
from diredi.errors import DirediError, InvalidInput

OnProgress = Callable[[float, str], None]
"""on_progress(fraction 0..1, one short line)."""


@dataclass(frozen=True)
class TrainReport:
    seconds: float
    steps: int
    epochs: float
    losses: list[dict[str, float]] = field(default_factory=list)
    """Mean of each term in each epoch, before its weight: "labels" and the names of the distillation losses."""


def train(
    student: Detector,
    samples: Sequence[Sample] | Sequence[Pool],
    recipe: TrainRecipe,
    *,
    teacher: Detector | None = None,
    on_progress: OnProgress | None = None,
) -> TrainReport:
    """Trains `student` in place on `samples`, whose class ids are the student's, on the student's device.

    With a `teacher` the losses of the recipe are added, for the classes that both know by name: a student whose head
    was grown learns the new class from labels alone. Ends with raw weights in eval mode.
    Raises InvalidInput (nothing to train on, an id beyond the label space, teacher and student that cannot be joined),
    DataSetError (an unreadable image), DirediError (the loss is no longer finite).
    """
    began = time.monotonic()
    lessons = None if teacher is None else Teaching(teacher, student, recipe)
    if recipe.label_weight == 0 and (lessons is None or not lessons.losses):
        raise InvalidInput("nothing to learn from: give label_weight or, with a teacher, one of losses a weight")
    batches = Batches(_pools(samples), recipe, student.spec.image_size, len(student.spec.labels))
    optimizer, schedule = _optimizer(student, lessons, recipe, batches.steps)
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    history = _History(batches, on_progress)
    with _training(student, recipe), _autocast(student, recipe):
        for batch in (cpu_batch.to(student.device) for cpu_batch in batches):
            outputs = student.forward(batch.images)
            terms = {}
            if recipe.label_weight > 0:
                terms["labels"] = recipe.label_weight, student.detection_loss(outputs, batch.targets)
            if lessons is not None:
                terms |= lessons.terms(outputs, batch)
            loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(learning, recipe.gradient_clip)
            if torch.isfinite(norm):
                optimizer.step()
            schedule.step()
            history.add(terms, bool(torch.isfinite(norm)))
    return TrainReport(time.monotonic() - began, batches.steps, batches.steps / batches.steps_per_epoch, history.epochs)


class Teaching:
    """A teacher beside a student: which classes it may teach, and by which losses."""

    def __init__(self, teacher: Detector, student: Detector, recipe: TrainRecipe) -> None:
        unknown = sorted(set(recipe.losses) - set(LOSSES))
        if unknown:
            raise InvalidInput(f"there is no distillation loss {unknown[0]!r}: use {', '.join(sorted(LOSSES))}")
        mine, theirs = student.spec.labels, teacher.spec.labels
        shared = [name for name in theirs.names if name in mine.names]
        if not shared:
            raise InvalidInput("teacher and student share no class name: the teacher has nothing to teach")
        self._teacher, self._student, self._recipe = teacher, student, recipe
        self._student_ids = torch.tensor(mine.ids_of(shared), device=student.device)
        self._teacher_ids = torch.tensor(theirs.ids_of(shared), device=student.device)
        channels = _channels(student), _channels(teacher)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            wanted = {name: weight for name, weight in recipe.losses.items() if weight > 0}
            self.losses = nn.ModuleDict({name: LOSSES[name](*channels) for name in wanted}).to(student.device)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each loss for one batch."""
        if not self.losses:
            return {}
        with torch.no_grad():
            answers = self._teacher.forward(batch.clean if self._recipe.teacher_sees == "clean" else batch.images)
        if answers.anchors.shape != outputs.anchors.shape:
            raise InvalidInput("teacher and student look at different grids: give both the same image size")
        lesson = Lesson(
            student=outputs,
            teacher=answers,
            targets=batch.targets if self._recipe.label_weight > 0 else Targets.none(batch.images.device),
            student_ids=self._student_ids,
            teacher_ids=self._teacher_ids,
            detection_loss=partial(self._student.detection_loss, outputs),
            confidence=self._recipe.teacher_confidence,
            temperature=self._recipe.temperature,
        )
        return {name: (self._recipe.losses[name], loss(lesson)) for name, loss in self.losses.items()}


def _channels(detector: Detector) -> list[int]:
    size = detector.spec.image_size
    with torch.no_grad():
        outputs = detector.forward(torch.zeros(1, 3, size, size, device=detector.device))
    return [feature.shape[1] for feature in outputs.features]


def _pools(samples: Sequence[Sample] | Sequence[Pool]) -> list[Pool]:
    pools = [item for item in samples if isinstance(item, Pool)]
    return pools or [Pool([item for item in samples if not isinstance(item, Pool)])]


def _optimizer(
    student: Detector, lessons: Teaching | None, recipe: TrainRecipe, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    chosen = [p for n, p in student.module.named_parameters() if _may_change(student, n, recipe)]
    chosen += [] if lessons is None else list(lessons.losses.parameters())
    groups = [
        {"params": [p for p in chosen if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in chosen if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.937, nesterov=True)
    else:
        optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.999), fused=True)
    warmup = max(round(recipe.warmup * steps), 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        floor = recipe.final_learning_rate
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _may_change(student: Detector, name: str, recipe: TrainRecipe) -> bool:
    return not recipe.train_only or student.section_of(name) in recipe.train_only


@contextmanager
def _training(student: Detector, recipe: TrainRecipe) -> Iterator[None]:
    """Train mode inside, eval mode after. Parts that must not change get no gradient and keep their statistics."""
    student.module.train()
    parameters = dict(student.module.named_parameters())
    held = [p for n, p in parameters.items() if p.requires_grad and not _may_change(student, n, recipe)]
    for name, layer in student.module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            frozen = recipe.batch_norm == "frozen" or not _may_change(student, f"{name}.weight", recipe)
            layer.train(not frozen)
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
        student.module.eval()


def _autocast(student: Detector, recipe: TrainRecipe) -> torch.autocast:
    return torch.autocast(student.device.type, torch.bfloat16, enabled=recipe.precision == "bf16")


class _History:
    """Sums the terms of an epoch, tells of progress, and stops a run that has left the numbers."""

    def __init__(self, batches: Batches, on_progress: OnProgress | None) -> None:
        self.epochs: list[dict[str, float]] = []
        self._steps, self._per_epoch = batches.steps, batches.steps_per_epoch
        self._on_progress = on_progress
        self._sums: dict[str, Tensor] = {}
        self._done = self._lost = 0

    def add(self, terms: dict[str, tuple[float, Tensor]], finite: bool) -> None:
        self._done += 1
        self._lost = 0 if finite else self._lost + 1
        if self._lost >= 10:
            raise DirediError("training has diverged (ten steps without a finite gradient): lower the learning rate")
        if finite:
            for name, (_, value) in terms.items():
                self._sums[name] = self._sums.get(name, torch.zeros(())) + value.detach().float().cpu()
        if self._done % self._per_epoch == 0 or self._done == self._steps:
            steps = self._per_epoch if self._done % self._per_epoch == 0 else self._done % self._per_epoch
            self.epochs.append({name: float(total) / steps for name, total in self._sums.items()})
            self._sums = {}
        if self._on_progress is not None:
            said = ", ".join(f"{name} {value:.3f}" for name, value in (self.epochs or [{}])[-1].items())
            self._on_progress(self._done / self._steps, f"step {self._done} of {self._steps} {said}".rstrip())
