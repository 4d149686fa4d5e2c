"""Knowledge distillation against direct training and against Ultralytics' own: `make bench-kd`.

One recipe for all: the same student from nothing, the same images, epochs, batch and learning rate; what differs is who
teaches it, and how.

losses   each loss of `LOSSES` beside the labels, and some mixes, on the scenes with the smallest student
scenes   three sizes of student: direct, ours by default, Ultralytics' `distill_model`; their teacher is our tutor
real     the same for one size on real sets, where there are any; the teacher is COCO's, trained on the set once

mAP in percent on held-out images. "epochs to direct" is how soon a form reaches the last mAP50-95 of direct training,
between two measurements by a straight line; one that never does counts as one epoch more than there were. Seconds are
the processor's of one epoch in the middle, fp32 on one thread, without reading the images.

`--seeds 3 4` measures others. What is finished is kept in `runs/kd`: delete it after a change of the code that trains.
QUICK=1 runs through all of it with tiny models that learn next to nothing; FULL=gpu is the larger plan.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from baselines import ultralytics_training
from baselines.libreyolo_losses import RIVAL_LOSSES
from baselines.ultralytics_training import ITS_OWN, short
from environment import FAST, GPU, QUICK, REAL, Environment, Plan, describe_plan, gpu_plan, quick_plan
from harness import folder_of, run_benchmark
from numpy.typing import NDArray
from report import COMMIT, Json, cached, draw, seconds, target

from diredi.data.dataset import Dataset
from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.losses import LOSSES
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate
from diredi.knowledge.recipe import BootstrapRecipe
from diredi.labels import LabelSpace
from diredi.progress import Progress

DIRECT, OURS, RIVAL, RIVAL_RAW = "direct", "DiReDi", "Ultralytics, distill_model", "Ultralytics, its own settings"
SCENES = "scenes"
MIXES: dict[str, Json] = {
    "class_scores and boxes, weight 2": {"losses": {"class_scores": 2.0, "boxes": 2.0}},
    "class_scores and boxes, weight 4": {"losses": BootstrapRecipe.of(None).student.losses},
    "class_scores and boxes, weight 8": {"losses": {"class_scores": 8.0, "boxes": 8.0}},
    "boxes and kl": {"losses": {"boxes": 1.0, "kl": 1.0}},
    "class_scores, boxes and cwd": {"losses": {"class_scores": 1.0, "boxes": 1.0, "cwd": 1.0}},
    "class_scores, boxes and fgd": {"losses": {"class_scores": 1.0, "boxes": 1.0, "fgd": 1.0}},
    "class_scores and boxes, no labels": {"label_weight": 0.0},
    "pseudo_labels and labels, half each": {"label_weight": 0.5, "losses": {"pseudo_labels": 0.5}},
}
SILENT = ("ce", "msed", "libreyolo_mgd")
"""The gradients of the first two are those of kl and of sed; the own weight of the third is next to nothing."""
LOSSES.update(RIVAL_LOSSES)
SINGLE: dict[str, Json] = {name: {"losses": {name: 1.0}} for name in LOSSES if name not in SILENT}
FORMS: dict[str, Json] = {"class_scores and boxes": {}, **SINGLE, **MIXES}

WORK = folder_of("kd")


@dataclass(frozen=True)
class Settings:
    work: Path = WORK
    environment: Plan = field(default_factory=Plan)
    image_size: int = 128
    epochs: int = 6
    every: int = 2
    """Epochs between two measurements of the curve."""
    sizes: tuple[str, ...] = ("yolo11-w0.0625", "yolo11-w0.125", "yolo11-w0.1875")
    real_sets: tuple[str, ...] = ("forklift", "traffic_cams")
    real_teacher: str = "yolov8n.pt"
    real_student: str = "yolo11-w0.125"
    real_size: int = 160
    real_epochs: int = 20


def choose_settings() -> Settings:
    if QUICK:
        return Settings(
            environment=quick_plan(),
            image_size=64,
            epochs=2,
            every=1,
            sizes=("yolo11-w0.0625", "yolo11-w0.125"),
            real_sets=("forklift",),
            real_size=64,
            real_epochs=1,
        )
    if GPU:
        return Settings(
            environment=gpu_plan(),
            image_size=320,
            epochs=40,
            every=5,
            sizes=("yolo11-w0.125", "yolo11n", "yolo11s"),
            real_teacher="yolo26m.pt",
            real_student="yolo11n",
            real_size=640,
            real_epochs=100,
        )
    return Settings()


@dataclass(frozen=True)
class TeachingTask:
    """A data set with a teacher that knows it."""

    name: str
    data: Dataset
    teacher: Detector
    recipe: TrainRecipe
    every: int
    made_from: Json
    """What its teacher and its images came from."""

    @property
    def labels(self) -> LabelSpace:
        return LabelSpace(names=self.data.names)

    def student(self, architecture: str) -> Detector:
        return registry.create(architecture, self.teacher.spec.image_size, self.labels, self.recipe.seed)

    def measure(self, detector: Detector) -> Json:
        found = evaluate(detector, self.data.val, self.labels)
        return {"mAP50-95": 100 * found.map50_95, "mAP50": 100 * found.map50}


class TrainingLog:
    """What is noted while a student is trained: figures every few epochs, and the processor's seconds of each epoch."""

    def __init__(self, task: TeachingTask) -> None:
        self._task, self._began = task, seconds()
        self._seconds: list[float] = []
        self.curve: Json = {}

    def ended(self, epoch: int, detector: Callable[[], Detector]) -> None:
        self._seconds.append(seconds() - self._began)
        if epoch % self._task.every == 0 or epoch == round(self._task.recipe.epochs):
            self.curve[str(epoch)] = self._task.measure(detector())
        self._began = seconds()

    @property
    def seconds(self) -> float:
        """The first epoch also sets up, where there is another."""
        return median(self._seconds[1:] or self._seconds)


def ours(task: TeachingTask, architecture: str, teacher: Detector | None, **changes: object) -> Json:
    student, log = task.student(architecture), TrainingLog(task)
    recipe = TrainRecipe.model_validate({**task.recipe.model_dump(), **changes})
    epochs = round(recipe.epochs)
    torch.manual_seed(recipe.seed)  # one of LibreYOLO's losses hides cells at random

    def note(now: Progress) -> None:
        epoch = now.fraction * epochs
        if abs(epoch - round(epoch)) < 1e-6:
            log.ended(round(epoch), lambda: student)

    train(student, task.data.train, recipe, teacher=teacher, on_progress=note)
    return {"curve": log.curve, "seconds": log.seconds}


def theirs(task: TeachingTask, architecture: str, teacher: Detector | None, settings: Json, folder: Path) -> Json:
    curve: Json = {}

    def note(epoch: int, detector: Detector) -> None:
        if epoch % task.every == 0 or epoch == round(task.recipe.epochs):
            curve[str(epoch)] = task.measure(detector)

    made = ultralytics_training.train_ultralytics(
        task.student(architecture),
        task.data.train,
        task.recipe,
        folder,
        teacher=teacher,
        settings=settings,
        on_epoch=note,
    )
    return {"curve": curve, "seconds": made.seconds}


def cost(task: TeachingTask, architecture: str, folder: Path) -> Json:
    """Seconds of an epoch: the forward pass of the teacher alone, and plain Ultralytics training of the student."""
    few = task.recipe.model_copy(update={"epochs": 2.0 if QUICK else 3.0})
    student = task.student(architecture)
    plain = ultralytics_training.train_ultralytics(student, task.data.train, few, folder, settings=short(few))
    size, batch = task.teacher.spec.image_size, task.recipe.batch
    images = torch.rand(batch, 3, size, size, device=task.teacher.device)
    passes = []
    with torch.no_grad():
        for _ in range(8):
            began = seconds()
            task.teacher.forward(images)
            passes.append(seconds() - began)
    steps = max(len(task.data.train) // batch, 1)
    return {"plain": plain.seconds, "teacher": steps * median(passes)}


class Trial:
    """One seed: every form on every task, a cell on disk each."""

    def __init__(self, setting: Settings, seed: int) -> None:
        self._setting, self._seed, self._folder = setting, seed, setting.work / f"seed-{seed}"
        self._commits: set[str] = set()

    @cached_property
    def scenes(self) -> TeachingTask:
        """The tutor learned larger pictures of the same scenes."""
        environment = Environment(self._seed, self._setting.environment)
        tutor = registry.load(Path(environment.made["tutor"]["weights"]), image_size=self._setting.image_size)
        made_from = {"world": describe_plan(self._setting.environment), "size": self._setting.image_size}
        recipe = self._recipe(self._setting.epochs)
        return TeachingTask(SCENES, environment.presumed, tutor, recipe, self._setting.every, made_from)

    def real(self, name: str) -> TeachingTask:
        setting = self._setting
        data = load_dataset(REAL / "detection" / name / "data.yaml")
        teacher = registry.load(real_teacher(setting, name, data))
        made_from = {"teacher": setting.real_teacher, "size": setting.real_size}
        return TeachingTask(
            name, data, teacher, self._recipe(setting.real_epochs), max(setting.real_epochs // 4, 1), made_from
        )

    def _recipe(self, epochs: int) -> TrainRecipe:
        return TrainRecipe(epochs=epochs, seed=self._seed)

    def _cell(self, task: TeachingTask, architecture: str, form: str, make: partial[Json]) -> Json:
        """`make` names the options of its recipe, so that a form whose options have changed is measured again."""
        stem = re.sub("[^a-z0-9.]+", "-", f"{task.name} {architecture} {form}".lower())
        log = {"recipe": task.recipe.model_dump(mode="json"), "every": task.every}
        made_from = {"form": form, "architecture": architecture, "options": make.keywords, **task.made_from, **log}
        found = cached(self._folder / f"{stem}.json", made_from, lambda: {"commit": COMMIT, **make()})
        self._commits.add(found["commit"])
        return found

    def losses(self) -> Json:
        """In half precision: no seconds are compared here."""
        task, architecture = replace(self.scenes, every=self._setting.epochs), self._setting.sizes[0]
        forms = {DIRECT: (None, {}), **{name: (task.teacher, changes) for name, changes in FORMS.items()}}
        table = {}
        for form, (teacher, changes) in forms.items():
            make = partial(ours, task, architecture, teacher, **FAST, **changes)
            table[form] = last(self._cell(task, architecture, f"loss {form}", make))
        return {f"each loss, {SCENES}, {architecture}": table}

    def compared(self, task: TeachingTask, architecture: str, raw: bool) -> Json:
        """A table of figures and one row of costs."""
        folder = self._folder / "ultralytics"
        forms: dict[str, partial[Json]] = {
            DIRECT: partial(ours, task, architecture, None),
            OURS: partial(ours, task, architecture, task.teacher, losses=BootstrapRecipe.of(None).student.losses),
            RIVAL: partial(theirs, task, architecture, task.teacher, short(task.recipe), folder),
        }
        if raw:
            forms["Ultralytics, no teacher"] = partial(theirs, task, architecture, None, short(task.recipe), folder)
            forms[RIVAL_RAW] = partial(theirs, task, architecture, task.teacher, ITS_OWN, folder)
        cells = {form: self._cell(task, architecture, form, make) for form, make in forms.items()}
        bound = last(cells[DIRECT])["mAP50-95"]
        name = f"{task.name}, {architecture}"
        table = {
            form: {**last(cell), "epochs to direct": reached(cell["curve"], bound), "s an epoch": cell["seconds"]}
            for form, cell in cells.items()
        }
        spent = self._cell(task, architecture, "cost", partial(cost, task, architecture, folder))
        allowed = spent["plain"] + spent["teacher"]
        mine = cells[OURS]["seconds"]
        columns = {"ours": mine, "plain": spent["plain"], "teacher": spent["teacher"], "ratio": mine / allowed}
        return {name: table, "cost": {name: {**columns, "distill_model": cells[RIVAL]["seconds"]}}}

    def tables(self) -> Json:
        setting = self._setting
        found = self.losses()
        costs: Json = {}
        for number, size in enumerate(setting.sizes):
            made = self.compared(self.scenes, size, raw=number == 1)
            costs |= made.pop("cost")
            found |= made
        for name in real_sets(setting):
            made = self.compared(self.real(name), setting.real_student, raw=False)
            costs |= made.pop("cost")
            found |= made
        return {"commits": sorted(self._commits), "tables": {**found, "seconds an epoch, fp32, one thread": costs}}


def last(cell: Json) -> Json:
    return dict(cell["curve"][max(cell["curve"], key=int)])


def reached(curve: Json, bound: float) -> float:
    """Epochs until mAP50-95 is `bound`."""
    epochs = [0, *sorted(map(int, curve))]
    values = [0.0, *(curve[str(epoch)]["mAP50-95"] for epoch in epochs[1:])]
    for number in range(1, len(epochs)):
        if values[number] >= bound:
            rise = values[number] - values[number - 1]
            share = (bound - values[number - 1]) / rise if rise > 0 else 1.0
            return epochs[number - 1] + max(share, 0.0) * (epochs[number] - epochs[number - 1])
    return epochs[-1] + 1.0


def real_sets(setting: Settings) -> list[str]:
    there = [name for name in setting.real_sets if (REAL / "detection" / name / "data.yaml").is_file()]
    if len(there) < len(setting.real_sets):
        missing = ", ".join(name for name in setting.real_sets if name not in there)
        print(f"real sets that are not at {REAL} are left out: {missing}")
    return there


def real_teacher(setting: Settings, name: str, data: Dataset) -> Path:
    """COCO's weights with a head for the set's classes, trained on the set: one teacher for all seeds."""
    path = setting.work / f"teacher-{name}.safetensors"
    recipe = TrainRecipe(epochs=1 if QUICK else 10, learning_rate=5e-4, seed=1000)

    def made() -> Json:
        coco = registry.load(REAL / "weights" / setting.real_teacher, image_size=setting.real_size)
        teacher = with_classes(coco, LabelSpace(names=data.names))
        train(teacher, data.train, recipe)
        return {"digest": teacher.save(path)}

    made_from = {"weights": setting.real_teacher, "size": setting.real_size, "recipe": recipe.model_dump()}
    cached(path.with_suffix(".json"), made_from, made)
    return path


def with_classes(detector: Detector, labels: LabelSpace) -> Detector:
    """The same network for other classes; their rows are new."""
    spec = detector.spec
    found = registry.create(spec.architecture, spec.image_size, labels, 0, detector.device)
    rows, before = detector.class_rows(), detector.weights()
    found.load_weights(type(before)({n: a if n in rows else before[n] for n, a in found.weights().items()}))
    return found


def targets_of(rows: list[Json]) -> list[Json]:
    def seeds(table: str, form: str, column: str) -> NDArray[np.float64]:
        return np.array(next(r for r in rows if (r["table"], r["form"]) == (table, form))[column]["seeds"])

    tables = list(dict.fromkeys(row["table"] for row in rows if row["form"] == OURS))
    above_direct = [(seeds(t, OURS, "mAP50-95") - seeds(t, DIRECT, "mAP50-95")).mean() for t in tables]
    above_rival, slower = [], []
    for table in tables:
        rivals = [r["form"] for r in rows if r["table"] == table and r["form"] in (RIVAL, RIVAL_RAW)]
        best = max((seeds(table, form, "mAP50-95") for form in rivals), key=lambda values: float(values.mean()))
        above_rival.append((seeds(table, OURS, "mAP50-95") - best).mean())
        slower.append((seeds(table, OURS, "s an epoch") / seeds(table, RIVAL, "s an epoch")).mean())
    ratios = [row["ratio"]["mean"] for row in rows if "ratio" in row]
    return [
        target("DiReDi minus direct training, mAP50-95, data set where it is least, points", min(above_direct), ">", 0),
        target("DiReDi minus Ultralytics' distill_model, mAP50-95, mean of all, points", mean(above_rival), ">", 1),
        target("seconds an epoch, DiReDi over distill_model, where it is most", max(slower), "<", 1),
        target("seconds an epoch, DiReDi over plain Ultralytics + teacher, where it is most", max(ratios), "<", 1.1),
    ]


def measure(seed: int, folder: Path) -> Json:
    return Trial(choose_settings(), seed).tables()


def picture(rows: list[Json], title: str, path: Path) -> None:
    tables = {row["table"]: row["table"] for row in rows if "mAP50-95" in row}
    draw(rows, tables, ("mAP50-95", "mAP50"), title, path)


if __name__ == "__main__":
    run_benchmark("kd", __doc__, measure, targets_of, picture, quick_seeds=(0,))
