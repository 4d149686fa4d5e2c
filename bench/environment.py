"""What the benchmarks share: a manufacturer with presumed data, tutor and student, and sites, for each seed.

It is cached in `runs/world` by the benchmark that needs it first. Delete that folder after a change of the code that
trains.
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
    """The size of an environment. Data sets are "scenes:SITE" or a data.yaml; models an architecture or a file."""

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
    """Other names that a data set has for classes of the tutor."""


def quick_plan() -> Plan:
    """Return a plan of tiny models that learn next to nothing, which shows only that a benchmark runs."""
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


def choose_plan() -> Plan:
    """Return the plan that the variables QUICK=1 or FULL=gpu choose, else the plan for two idle cores."""
    return quick_plan() if QUICK else gpu_plan() if GPU else Plan()


def use_one_thread() -> None:
    """Limit torch to one thread, so that processor seconds do not depend on other processes."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class BenchSite:
    """A site and its data, in a label space with its classes."""

    name: str
    path: Path
    data: Dataset
    labels: LabelSpace
    named: tuple[str, ...]
    """Classes that the site has labelled."""
    new: tuple[str, ...]
    """Classes that the manufacturer does not have."""

    def metrics(self, predictor: Predictor) -> DetectionMetrics:
        """Evaluate a predictor on the held-out images."""
        return evaluate(predictor, self.data.val, self.labels)


class Environment:
    """The manufacturer of one seed: presumed data, and the tutor and student that have learned it."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        self.seed, self.plan = seed, plan or choose_plan()
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
            self.folder / name / "bootstrap.json",
            spec,
            lambda: call(bootstrap.main, spec, self.folder / name, ignore_progress),
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
        """The tutor's digest, as a gap names it."""
        return described(Path(self.made["tutor"]["weights"])).digest

    @property
    def coreset(self) -> list[Sample]:
        """Draw the presumed images that the manufacturer ships to sites."""
        images = BootstrapRecipe.of(self.plan.bootstrap).coreset_images
        return self.presumed.sample(images, self.seed).train

    def site(self, ref: str, *others: str) -> BenchSite:
        """Load a site, in a label space with the classes of `others` first and then its own."""
        path = self._data(ref, self.plan.site_images)
        labels = self.known
        for other in (*others, ref):
            labels = labels.expand(load(self._data(other, self.plan.site_images)).names)
        data = load(path)
        new = tuple(name for name in data.names if name not in self.known.names)
        name = ref.removeprefix(SCENES) if ref.startswith(SCENES) else path.parent.name
        return BenchSite(name, path, data.with_labels(labels), labels, data.names, new)

    def cycle(self, **more: Any) -> Json:  # noqa: ANN401 - options of a recipe
        """Return the whole recipe of a cycle with some options, so that cached results name every default.

        All weights learn unless a plan says otherwise: what a benchmark compares should not follow from a probe.
        """
        options = {"form": "weights", "seed": self.seed, **self.plan.cycle, **more}
        return CycleRecipe.of(options).model_dump(mode="json")

    def recipe(self, **more: Any) -> CycleRecipe:  # noqa: ANN401 - options of a recipe
        return CycleRecipe.of(self.cycle(**more))

    def presumed_metrics(self, predictor: Predictor, labels: LabelSpace | None = None) -> DetectionMetrics:
        """Evaluate a predictor on held-out presumed images, in `labels` or the manufacturer's label space."""
        return evaluate(predictor, self.presumed.val, labels or self.known)

    def extract_spec(self, site: BenchSite, recipe: Json) -> Json:
        """For `diredi.knowledge.jobs.extract`."""
        models = {kind: self.made[kind]["weights"] for kind in ("tutor", "student")}
        coreset = self.made["coreset"]["path"] if self.made["coreset"] else None
        labels = site.labels.model_dump()
        return {"data": str(site.path), "coreset": coreset, **models, "labels": labels, "recipe": recipe}

    def _data(self, ref: str, images: tuple[int, int]) -> Path:
        path = resolve(ref, self.plan.folder / "data", self.seed, *images)
        return _rename_classes(path, self.plan) if self.plan.rename else path


def _rename_classes(path: Path, plan: Plan) -> Path:
    """Write a data.yaml for the same files with the tutor's names of classes."""
    data = load(path)
    names = tuple(plan.rename.get(name, name) for name in data.names)
    if names == data.names:
        return path
    folder = plan.folder / "data" / path.parent.name

    def made() -> Json:
        for split in ("train", "val"):
            for kind in ("images", "labels"):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                link = folder / kind / split
                if not link.is_symlink():
                    link.symlink_to((path.parent / kind / split).resolve(), target_is_directory=True)
        (folder / "data.yaml").write_text(yolo.description_text(names), encoding="utf-8")
        return {}

    cached(folder / "renamed.json", {"data": path, "names": names}, made)  # of which several processes make one
    return folder / "data.yaml"


def _short(model: str) -> str:
    """Return an architecture, or the name of a file of weights."""
    return Path(model).stem if Path(model).suffix in (".pt", ".safetensors") else model


def real_plan(tutor: str, student: str, image_size: int, **more: Any) -> Plan | None:  # noqa: ANN401 - fields of a Plan
    """Return a plan with COCO's models and coco128 as presumed data; None without real weights and images."""
    data = REAL / "detection" / "coco128" / "data.yaml"
    if not data.is_file():
        return None
    weights = REAL / "weights"
    return replace(
        Plan(presumed=str(data), tutor=str(weights / tutor), student=str(weights / student), image_size=image_size),
        folder=ROOT / "runs" / "world-real",
        **more,
    )


def describe_plan(plan: Plan) -> Json:
    """Return a plan with every default of its recipes, as `cached` compares it."""
    recipes = {"bootstrap": BootstrapRecipe.of(plan.bootstrap), "cycle": CycleRecipe.of(plan.cycle)}
    return asdict(plan) | {name: recipe.model_dump(mode="json") for name, recipe in recipes.items()}


def run_job(main: Callable[..., Config], folder: Path, spec: Json) -> Json:
    """Run a job, or return its cached result, with the processor seconds that it took."""

    def made() -> Json:
        place = empty_folder(folder / "job")
        began = seconds()
        result = call(main, spec, place, ignore_progress)
        return {**result, "cpu_s": seconds() - began}

    return cached(folder / "result.json", spec, made)


def empty_folder(folder: Path) -> Path:
    """Create an empty folder. In a folder with the state of a job that was killed, the job would resume."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def ignore_progress(progress: Progress) -> None:
    """Print no progress within a job."""
