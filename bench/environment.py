"""The ground that the benches share: a manufacturer with presumed data, tutor and student, and sites, for each seed.

What is made here is kept in `runs/world`, whichever bench asked for it first; delete that folder after a change of the
code that trains.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from report import Json, cached, seconds

from diredi.config import Config
from diredi.data import yolo
from diredi.data.dataset import Dataset, Sample, load
from diredi.data.sources import SCENES, resolve
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Predictor
from diredi.evaluation.detection import evaluate
from diredi.evaluation.metrics import DetectionMetrics
from diredi.jobs import call
from diredi.knowledge.jobs import bootstrap
from diredi.knowledge.jobs.parts import described
from diredi.knowledge.recipe import BootstrapRecipe, CycleRecipe
from diredi.labels import LabelSpace
from diredi.progress import Progress

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("DIREDI_BENCH_DATA", ROOT.parent / "shared" / "data"))
"""Real weights and images, where there are any: a folder with `weights` and `detection`."""
QUICK = os.environ.get("QUICK", "") not in ("", "0")
GPU = os.environ.get("FULL", "") == "gpu"
FAST = {"precision": "bf16"}


@dataclass(frozen=True)
class Plan:
    """How large a world is. Data sets are "scenes:SITE" or a data.yaml; models an architecture or a file."""

    folder: Path = ROOT / "runs" / "world"
    presumed: str = f"{SCENES}presumed"
    presumed_images: tuple[int, int] = (480, 150)
    site_images: tuple[int, int] = (200, 100)
    image_size: int = 128
    tutor: str = "yolo11n"
    student: str = "yolo11-w0.125"
    bootstrap: Json = field(default_factory=lambda: {"tutor": FAST, "student": FAST})
    cycle: Json = field(default_factory=lambda: {"tutor": FAST, "student": FAST, "redistil": FAST})
    rename: Mapping[str, str] = field(default_factory=dict)
    """Classes that a data set calls otherwise than the tutor does."""


def quick_plan() -> Plan:
    """Tiny models that learn next to nothing: shows only that a bench runs."""
    few, taught = {"steps": 8}, {"steps": 36}
    return Plan(
        folder=ROOT / "bench" / "results" / "quick" / "world",
        presumed_images=(48, 24),
        site_images=(48, 24),
        image_size=64,
        tutor="yolo11-w0.125",
        bootstrap={"tutor": taught, "student": taught},
        cycle={"tutor": few, "student": few, "redistil": few},
    )


def gpu_plan() -> Plan:
    return Plan(
        folder=ROOT / "runs" / "world-gpu",
        presumed_images=(6000, 1000),
        site_images=(1000, 500),
        image_size=320,
        tutor="yolo11m",
        student="yolo11n",
        bootstrap={"tutor": {"epochs": 40}, "student": {"epochs": 40}},
        cycle={"tutor": {"epochs": 20}, "student": {"epochs": 20}, "redistil": {"epochs": 8}},
    )


def plan_asked() -> Plan:
    """By the environment: QUICK=1, FULL=gpu, else the plan for two idle cores."""
    return quick_plan() if QUICK else gpu_plan() if GPU else Plan()


def use_one_thread() -> None:
    """Seconds are the processor's, on one thread, so that a process beside it does not change them."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Site:
    """A site's data in the label space of a world that has met it."""

    name: str
    path: Path
    data: Dataset
    labels: LabelSpace
    named: tuple[str, ...]
    """Classes that the site has labels for: of others its images say nothing."""
    new: tuple[str, ...]
    """Classes that the manufacturer does not know."""

    def figures(self, predictor: Predictor) -> DetectionMetrics:
        """On the held-out half."""
        return evaluate(predictor, self.data.val, self.labels)


class World:
    """One seed: presumed data, and the tutor and student that have learned it."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.seed, self.plan = seed, plan or plan_asked()
        self.folder = self.plan.folder / f"seed-{seed}"
        path = self._data(self.plan.presumed, self.plan.presumed_images)
        self.presumed_path = path
        spec = {
            "presumed": str(path),
            "image_size": self.plan.image_size,
            "tutor": self.plan.tutor,
            "student": self.plan.student,
            "recipe": BootstrapRecipe.of({"seed": seed, **self.plan.bootstrap}).model_dump(mode="json"),
        }
        name = "-".join(map(_short, (self.plan.tutor, self.plan.student, str(self.plan.image_size))))
        self.made = cached(
            self.folder / name / "bootstrap.json", spec, lambda: call(bootstrap.main, spec, self.folder / name, silent)
        )
        self.presumed = load(path).with_labels(self.known)

    @cached_property
    def tutor(self) -> Detector:
        return registry.load(Path(self.made["tutor"]["weights"]))

    @cached_property
    def student(self) -> Detector:
        return registry.load(Path(self.made["student"]["weights"]))

    @cached_property
    def known(self) -> LabelSpace:
        return self.student.spec.labels

    @property
    def base_id(self) -> str:
        """What a gap's note calls the tutor."""
        return described(Path(self.made["tutor"]["weights"])).digest

    @property
    def coreset(self) -> list[Sample]:
        """The presumed images that the manufacturer ships to sites."""
        images = BootstrapRecipe.of(self.plan.bootstrap).coreset_images
        return self.presumed.sample(images, self.seed).train

    def site(self, ref: str, *others: str) -> Site:
        """`ref` in a label space that has met the `others` too, first come first served."""
        path = self._data(ref, self.plan.site_images)
        labels = self.known
        for other in (*others, ref):
            labels = labels.expand(load(self._data(other, self.plan.site_images)).names)
        data = load(path)
        new = tuple(name for name in data.names if name not in self.known.names)
        name = ref.removeprefix(SCENES) if ref.startswith(SCENES) else path.parent.name
        return Site(name, path, data.with_labels(labels), labels, data.names, new)

    def cycle(self, **more: Any) -> Json:  # noqa: ANN401 - options of a recipe
        """The recipe of a cycle in this world, with `more` options; whole, so that what is kept knows every default."""
        return CycleRecipe.of({"seed": self.seed, **self.plan.cycle, **more}).model_dump(mode="json")

    def recipe(self, **more: Any) -> CycleRecipe:  # noqa: ANN401 - options of a recipe
        return CycleRecipe.of(self.cycle(**more))

    def presumed_figures(self, predictor: Predictor, labels: LabelSpace | None = None) -> DetectionMetrics:
        """On the held-out half, in `labels` or in the manufacturer's own."""
        return evaluate(predictor, self.presumed.val, labels or self.known)

    def extract_spec(self, site: Site, recipe: Json) -> Json:
        """For `diredi.knowledge.jobs.extract`."""
        models = {kind: self.made[kind]["weights"] for kind in ("tutor", "student")}
        coreset = self.made["coreset"]["path"] if self.made["coreset"] else None
        labels = site.labels.model_dump()
        return {"data": str(site.path), "coreset": coreset, **models, "labels": labels, "recipe": recipe}

    def _data(self, ref: str, images: tuple[int, int]) -> Path:
        path = resolve(ref, self.plan.folder / "data", self.seed, *images)
        return _renamed(path, self.plan) if self.plan.rename else path


def _renamed(path: Path, plan: Plan) -> Path:
    """A data.yaml beside ours that names the same files, with the tutor's names for the classes."""
    data = load(path)
    names = tuple(plan.rename.get(name, name) for name in data.names)
    if names == data.names:
        return path
    folder = plan.folder / "data" / path.parent.name
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            link = folder / kind / split
            if not link.is_symlink():
                link.symlink_to((path.parent / kind / split).resolve(), target_is_directory=True)
    (folder / "data.yaml").write_text(yolo.description_text(names), encoding="utf-8")
    return folder / "data.yaml"


def _short(model: str) -> str:
    """An architecture as it is, of a file its name."""
    return Path(model).stem if Path(model).suffix in (".pt", ".safetensors") else model


def real_plan(tutor: str, student: str, image_size: int, **more: Any) -> Plan | None:  # noqa: ANN401 - fields of a Plan
    """COCO's own models with coco128 as presumed data; None where there are no real weights and images."""
    data = REAL / "detection" / "coco128" / "data.yaml"
    if not data.is_file():
        return None
    weights = REAL / "weights"
    return replace(
        Plan(presumed=str(data), tutor=str(weights / tutor), student=str(weights / student), image_size=image_size),
        folder=ROOT / "runs" / "world-real",
        **more,
    )


def said(plan: Plan) -> Json:
    """The plan as `cached` compares it, with every default of the recipes that it does not name."""
    recipes = {"bootstrap": BootstrapRecipe.of(plan.bootstrap), "cycle": CycleRecipe.of(plan.cycle)}
    return asdict(plan) | {name: recipe.model_dump(mode="json") for name, recipe in recipes.items()}


def job_done(main: Callable[..., Config], folder: Path, spec: Json) -> Json:
    """The result of a job in `folder`, kept, with the seconds of the processor that it took, from its first epoch."""

    def made() -> Json:
        place = emptied(folder / "job")
        began = seconds()
        result = call(main, spec, place, silent)
        return {**result, "cpu_s": seconds() - began}

    return cached(folder / "result.json", spec, made)


def emptied(folder: Path) -> Path:
    """A job that was killed here would resume, and its seconds would be those of the rest."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def silent(progress: Progress) -> None:
    """Benches say what is finished, not how far they are."""
