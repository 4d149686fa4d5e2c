"""The training loop. Direct training, teacher to tutor, tutor to student and student to tutor are all this one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diredi.data.dataset import Sample
from diredi.detectors.base import Detector, Outputs, Targets, Teacher
from diredi.detectors.spec import CELL
from diredi.distillation.batches import Batch, Batches, Pool
from diredi.distillation.checkpoint import Checkpoint, fingerprint
from diredi.distillation.losses import LOSSES, DistillationBatch
from diredi.distillation.pace import Pace
from diredi.distillation.recipe import TrainRecipe
from diredi.errors import DirediError, InvalidInput
from diredi.progress import OnProgress, report
from diredi.seeding import seeded
from diredi.store.weights import WeightMap

Json = dict[str, Any]
STEP = "train"
"""What `on_progress` hears of a training by, unless larger work gives it another name."""


@dataclass(frozen=True)
class TrainReport:
    """What a training took, and how its losses went."""

    seconds: float
    """Wall-clock seconds of this run and of those that it went on from."""
    steps: int
    """Batches that were learned."""
    epochs: float
    """Times through the images."""
    losses: list[dict[str, float]] = field(default_factory=list)
    """Mean of each term in each epoch, before its weight: "labels" and the names of the distillation losses."""


class Diverged(DirediError):
    """A training has left all numbers behind."""


def train(
    student: Detector,
    samples: Sequence[Sample] | Sequence[Pool],
    recipe: TrainRecipe,
    *,
    teacher: Teacher | None = None,
    on_progress: OnProgress | None = None,
    checkpoint: Path | None = None,
) -> TrainReport:
    """Train a detector in place; `distil` is this for a copy, with classes by their names.

    Args:
        student: Who learns, on its own device. It ends in eval mode.
        samples: What it learns: samples whose class ids are the student's, or pools of them.
        recipe: How it learns.
        teacher: Who teaches it beside the labels, by the losses of the recipe and only classes that both know by name;
            None for labels alone.
        on_progress: Hears of the step "train".
        checkpoint: A folder of this training's own, where it keeps after each epoch what it needs to go on. The same
            training, started again, ends with the weights that it would have had in one go, bit for bit on one machine.
            Its end is kept too; whoever named the folder deletes it.

    Returns:
        Seconds, steps and the losses of each epoch.

    Raises:
        InvalidInput: There is nothing to learn from, an id is beyond the label space, or teacher and student do not go
            together.
        DatasetError: An image cannot be read.
        DirediError: The loss is no longer finite.
    """
    check_losses(recipe)
    lessons = None if teacher is None else Distiller(teacher, student, recipe)
    if recipe.label_weight == 0 and (lessons is None or not lessons.losses):
        raise InvalidInput("nothing to learn from: give label_weight or, with a teacher, one of losses a weight")
    _check_batch(student, recipe)
    pools = _pools(samples)
    batches = Batches(pools, recipe, student.spec.image_size, len(student.spec.labels))
    run = _Run(student, lessons, recipe, batches, on_progress)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, fingerprint(student, teacher, recipe, pools, run.arrays()))
        run.resume(kept)
    with _training(student, recipe):
        for batch in (cpu_batch.to(student.device) for cpu_batch in batches):
            with autocast(student, recipe):
                outputs = student.forward(batch.images)
            terms = {}
            if recipe.label_weight > 0:
                terms["labels"] = recipe.label_weight, student.detection_loss(outputs, batch.targets)
            if lessons is not None:
                terms |= lessons.terms(outputs, batch)
            run.learn(terms)
            if kept is not None and run.ends_an_epoch:
                kept.write(run.progress(), run.arrays())
    return run.report()


def check_losses(recipe: TrainRecipe) -> None:
    """Find distillation losses that do not exist, before anything is trained.

    Args:
        recipe: The recipe that names them.

    Raises:
        InvalidInput: A loss is not in `diredi.distillation.losses.LOSSES`.
    """
    unknown = sorted(set(recipe.losses) - set(LOSSES))
    if unknown:
        raise InvalidInput(f"there is no distillation loss {unknown[0]!r}: use {', '.join(sorted(LOSSES))}")


def _check_batch(student: Detector, recipe: TrainRecipe) -> None:
    """One image of a single coarsest cell gives batch norm one value of each channel, which does not vary."""
    learns = recipe.batch_norm == "learn" and any(isinstance(m, nn.BatchNorm2d) for m in student.module.modules())
    if learns and recipe.batch == 1 and student.spec.image_size == CELL:
        raise InvalidInput(f"batch norm cannot learn from 1 image of {CELL} pixels: take batch=2 or larger images")


def check_pair(student: Detector, teacher: Teacher) -> None:
    """Find what keeps a teacher from teaching a student, before anything is trained.

    Args:
        student: Who is to learn.
        teacher: Who is to teach.

    Raises:
        InvalidInput: They know no class of the same name, take images of different sizes or are on different devices.
    """
    if not set(teacher.spec.labels.names) & set(student.spec.labels.names):
        raise InvalidInput("teacher and student share no class name: the teacher has nothing to teach")
    sizes = student.spec.image_size, teacher.spec.image_size
    if sizes[0] != sizes[1]:
        raise InvalidInput(
            f"the student takes images of {sizes[0]} pixels and its teacher of {sizes[1]}, so they look at different "
            "grids: load both with the same image_size"
        )
    if student.device != teacher.device:
        raise InvalidInput(
            f"the student is on {student.device} and its teacher on {teacher.device}: load both with the same device"
        )


class Distiller:
    """A teacher beside a student: which classes it may teach, and by which losses."""

    def __init__(self, teacher: Teacher, student: Detector, recipe: TrainRecipe) -> None:
        check_pair(student, teacher)
        mine, theirs = student.spec.labels, teacher.spec.labels
        shared = [name for name in theirs.names if name in mine.names]
        self._teacher, self._student, self._recipe = teacher, student, recipe
        self._student_ids = torch.tensor(mine.ids_of(shared), device=student.device)
        self._teacher_ids = torch.tensor(theirs.ids_of(shared), device=student.device)
        channels = _channels(student), _channels(teacher)
        with seeded(recipe.seed):
            wanted = {name: weight for name, weight in recipe.losses.items() if weight > 0}
            self.losses = nn.ModuleDict({name: LOSSES[name](*channels) for name in wanted}).to(student.device)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """Weight and value of each loss for one batch."""
        if not self.losses:
            return {}
        silent = self._silent(batch.targets)
        if silent is not None and not silent.any():
            return {name: (self._recipe.losses[name], torch.zeros((), device=silent.device)) for name in self.losses}
        with torch.no_grad(), autocast(self._teacher, self._recipe):
            answers = self._teacher.forward(batch.clean if self._recipe.teacher_sees == "clean" else batch.images)
        if answers.anchors.shape != outputs.anchors.shape:
            raise InvalidInput("teacher and student look at different grids: give both the same image size")
        lesson = DistillationBatch(
            student=outputs,
            teacher=answers,
            targets=batch.targets if self._recipe.label_weight > 0 else Targets.none(batch.images.device),
            student_ids=self._student_ids,
            teacher_ids=self._teacher_ids,
            detection_loss=partial(self._student.detection_loss, outputs),
            confidence=self._recipe.teacher_confidence,
            temperature=self._recipe.temperature,
            silent=silent,
        )
        return {name: (self._recipe.losses[name], loss(lesson)) for name, loss in self.losses.items()}

    def _silent(self, targets: Targets) -> Tensor | None:
        """What `DistillationBatch.silent` says; without a weight no label says anything."""
        if self._recipe.teaches == "everything" or self._recipe.label_weight == 0:
            return None
        if targets.labelled is None:
            return torch.zeros(1, len(self._student_ids), device=self._student_ids.device)
        return 1 - targets.labelled.index_select(1, self._student_ids)


def _channels(detector: Teacher) -> list[int]:
    size = detector.spec.image_size
    with torch.no_grad():
        outputs = detector.forward(torch.zeros(1, 3, size, size, device=detector.device))
    return [feature.shape[1] for feature in outputs.features]


def _pools(samples: Sequence[Sample] | Sequence[Pool]) -> list[Pool]:
    pools = [item for item in samples if isinstance(item, Pool)]
    return pools or [Pool([item for item in samples if not isinstance(item, Pool)])]


class _Run:
    """What changes in the course of a training: weights, the optimizer's state, the place in the data, the history."""

    def __init__(
        self,
        student: Detector,
        lessons: Distiller | None,
        recipe: TrainRecipe,
        batches: Batches,
        on_progress: OnProgress | None,
    ) -> None:
        self._student, self._recipe, self._batches = student, recipe, batches
        self._losses = nn.ModuleDict() if lessons is None else lessons.losses
        chosen = [p for n, p in student.module.named_parameters() if _may_change(student, n, recipe)]
        self._optimizer = _optimizer(chosen + list(self._losses.parameters()), recipe)
        self._learning = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        self._pace = Pace(recipe, batches.steps)
        self._history = _History(batches, on_progress)

    @property
    def ends_an_epoch(self) -> bool:
        return self._batches.done % self._batches.steps_per_epoch == 0 or self._batches.done == self._batches.steps

    def learn(self, terms: dict[str, tuple[float, Tensor]]) -> None:
        """One step. A gradient that is not finite is left out."""
        rate = self._pace.learning_rate(self._batches.done - 1)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = torch.stack([weight * term for weight, term in terms.values()]).sum()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._learning, self._recipe.gradient_clip)
        finite = bool(torch.isfinite(norm))
        if finite:
            self._optimizer.step()
        self._pace.keep(self._batches.done, self._history.seconds)
        self._batches.steps = self._pace.steps
        self._history.add(terms, finite)

    def progress(self) -> Json:
        return {"batches": self._batches.place(), "pace": self._pace.said(), "history": self._history.said()}

    def arrays(self) -> WeightMap:
        """Weights, parameters of the losses and, while there are steps to come, the optimizer's state."""
        found = {f"student/{name}": array for name, array in self._student.weights().items()}
        tensors = {f"losses/{name}": value for name, value in self._losses.state_dict().items()}
        if self._batches.done < self._batches.steps:
            for index, state in self._optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer/{index}/{key}": v for key, v in state.items() if isinstance(v, Tensor)}
        return WeightMap(found | {name: value.detach().cpu().numpy() for name, value in tensors.items()})

    def resume(self, kept: Checkpoint) -> None:
        found = kept.read()
        if found is None:
            return
        progress, arrays = found
        parts: dict[str, dict[str, np.ndarray[Any, Any]]] = {"student": {}, "losses": {}, "optimizer": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = array
        self._student.load_weights(WeightMap(parts["student"]))
        self._losses.load_state_dict({name: torch.from_numpy(array) for name, array in parts["losses"].items()})
        _restore(self._optimizer, parts["optimizer"])
        self._batches.go_to(progress["batches"])
        self._pace.go_on(progress["pace"])
        self._batches.steps = self._pace.steps
        self._history.go_on(progress["history"], self._batches.done)

    def report(self) -> TrainReport:
        steps, epochs = self._batches.steps, self._batches.steps / self._batches.steps_per_epoch
        return TrainReport(self._history.seconds, steps, epochs, self._history.epochs)


def _optimizer(learning: list[nn.Parameter], recipe: TrainRecipe) -> torch.optim.Optimizer:
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.937, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.999), fused=True)


def _restore(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Puts the state back in the memory layout of its parameter, on which the fused step counts."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, array in arrays.items():
        index, _, key = name.partition("/")
        value, parameter = torch.from_numpy(np.array(array)), parameters[int(index)]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter).detach().copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


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


def autocast(detector: Teacher, recipe: TrainRecipe) -> torch.autocast:
    """For one forward pass and no more: losses want fp32, and a longer one would keep the first step's weights."""
    bf16 = has_fast_bf16(detector.device) if recipe.precision == "auto" else recipe.precision == "bf16"
    return torch.autocast(detector.device.type, torch.bfloat16, enabled=bf16)


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether a device computes in bf16 by itself. Where it has to be imitated, fp32 is faster."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(has.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


class _History:
    """Sums the terms of an epoch, tells of progress, and stops a run that has left the numbers."""

    def __init__(self, batches: Batches, on_progress: OnProgress | None) -> None:
        self.epochs: list[dict[str, float]] = []
        self._batches, self._per_epoch = batches, batches.steps_per_epoch
        self._on_progress = on_progress
        self._sums: dict[str, Tensor] = {}
        self._done = self._lost = 0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of this run and of those that it goes on from."""
        return time.monotonic() - self._began

    def add(self, terms: dict[str, tuple[float, Tensor]], finite: bool) -> None:
        self._done += 1
        self._lost = 0 if finite else self._lost + 1
        if self._lost >= 10:
            raise Diverged("training has diverged (ten steps without a finite gradient): lower the learning rate")
        if finite:
            for name, (_, value) in terms.items():
                self._sums[name] = self._sums.get(name, torch.zeros(())) + value.detach().float().cpu()
        if self._done % self._per_epoch == 0 or self._done == self._batches.steps:
            steps = self._per_epoch if self._done % self._per_epoch == 0 else self._done % self._per_epoch
            self.epochs.append({name: float(total) / steps for name, total in self._sums.items()})
            self._sums = {}
        self._tell()

    def said(self) -> Json:
        """At the end of an epoch: everything that is not zero there."""
        return {"epochs": self.epochs, "lost": self._lost, "seconds": self.seconds}

    def go_on(self, said: Json, done: int) -> None:
        self.epochs, self._lost, self._done = list(said["epochs"]), int(said["lost"]), done
        self._began -= float(said["seconds"])
        self._tell()

    def _tell(self) -> None:
        means = ", ".join(f"{name} {value:.3f}" for name, value in (self.epochs or [{}])[-1].items())
        message = f"step {self._done} of {self._batches.steps} {means}".rstrip()
        report(self._on_progress, STEP, self._done / self._batches.steps, message)
