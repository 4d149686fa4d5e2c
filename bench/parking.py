"""Students of fixed cameras, taught without one label: `python bench/parking.py [--seeds 0 1 2]`.

After Molo, Carlini, Ciampi, Gennaro, Vadicamo, "Teacher-Student Models for AI Vision at the Edge: A Car Parking Case
Study", VISAPP 2024. One teacher has learned general scenes; for each fixed camera a small student, which begins as the
general one that the teacher has taught, learns what this camera sees; one more learns all cameras together.

    teacher   as shipped
    looks     what it says after several larger looks, plain and mirrored: too slow for a device, and no student
    student   as shipped
    paper     hard pseudo-labels of the teacher (0.45, suppression 0.60), backbone frozen, no labels: alpha 0
    ours      the boxes of the looks for labels, every layer free, no labels
    labels    alpha 1

All students learn from the same images for the same number of steps, and the last weights are judged: nothing is chosen
by labels on the way, every figure counts answers from a confidence of 0.001, and a teacher that finds nothing is a
teacher all the same. The authors' code does otherwise in all three.

Built-in cameras: nine of "scenes:car-park", whose teacher and student know "scenes:presumed", of which they have seen
four times as many images as in the other benches: a teacher of general scenes has to know them. Real ones, where there
are any: six traffic cameras, COCO's YOLOv8s and YOLOv8n (a parking camera with labels of bays, empty or occupied, is
no use here: COCO knows neither).

The recipe of `ours` was chosen on seed 11. What is finished is kept in `runs/parking`: delete it after a change of the
code. `QUICK=1` runs through all of it with tiny models that learn next to nothing; `FULL=gpu` is a larger plan for a
machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from environment import GPU, QUICK, REAL, ROOT, Environment
from environment import Plan as WorldPlan
from harness import folder_of, measure_concurrently, parser_of, report_results
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from report import COMMIT, Json, cached, target

from diredi.data.dataset import Dataset, Sample, load
from diredi.data.sources import resolve
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.predictor import Predictor
from diredi.distillation.ensemble import TTAPredictor, pseudo_label
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.evaluation.detection import evaluate

Numbers = NDArray[np.float64]
ALL = "all cameras"
FORMS = ("teacher", "looks", "student", "paper", "ours", "labels")
PAPER: Json = {"label_weight": 0.0, "losses": {"pseudo_labels": 1.0}, "train_only": ("neck", "head")}
BRISK: Json = {"precision": "bf16", "learning_rate": 3e-3, "batch": 8}
GENTLE: Json = {
    "precision": "bf16",
    "learning_rate": 2e-4,
    "batch": 8,
    "batch_norm": "frozen",
    "train_only": ("neck", "head"),
}
"""For what COCO has taught: a few dozen images must not undo it."""
WORK = folder_of("parking")


@dataclass(frozen=True)
class OracleTraining:
    """How long and on what the students of a family of cameras learn."""

    steps: int
    """For one camera; `all_steps` for all together."""
    all_steps: int
    sizes: tuple[int, ...]
    """Pixels of the teacher's looks."""
    confidence: float = 0.25
    """Of what several looks say, from which it is a label."""
    training: Json = field(default_factory=lambda: BRISK)


@dataclass(frozen=True)
class Plan:
    folder: Path = WORK
    general: WorldPlan | None = None
    """What the built-in teacher and student have learned before; None: what those of all benches have."""
    images: tuple[int, int] = (1800, 450)
    """Of the built-in car park, for learning and held out."""
    built_in: OracleTraining = OracleTraining(steps=1200, all_steps=1600, sizes=(128, 192))
    real_size: int = 320
    real: OracleTraining = OracleTraining(steps=24, all_steps=72, sizes=(480, 640), training=GENTLE)


def choose_plan() -> Plan:
    if QUICK:
        few = OracleTraining(steps=2, all_steps=3, sizes=(64, 96))
        return Plan(images=(72, 72), built_in=few, real_size=64, real=few)
    if GPU:
        built_in = OracleTraining(steps=1000, all_steps=4000, sizes=(320, 448, 640))
        real = OracleTraining(steps=200, all_steps=800, sizes=(640, 896), training=GENTLE)
        return Plan(images=(9000, 2250), built_in=built_in, real_size=640, real=real)
    return Plan(general=replace(WorldPlan(), folder=ROOT / "runs" / "world-general", presumed_images=(1800, 150)))


class Scenario:
    """A family of fixed cameras, with a teacher and a general student that have never seen them."""

    def __init__(
        self, name: str, folder: Path, data: Dataset, teacher: Detector, student: Detector, lesson: OracleTraining
    ) -> None:
        """Class ids of `data` are those of both models; what is made goes to `folder`."""
        self.name, self.folder, self.lesson = name, folder, lesson
        self.teacher, self.student = teacher, student
        self.cameras = data.by_camera()

    def cell(self, camera: str, seed: int) -> Json:
        """The figures of every form for a camera, or for ALL together."""
        file = self.folder / f"seed-{seed}" / f"{camera}.json"
        return cached(file, self._made_from(seed), lambda: self._cell(camera, seed))

    def _cell(self, camera: str, seed: int) -> Json:
        cameras = self.cameras if camera == ALL else {camera: self.cameras[camera]}
        labelled = [sample for one in cameras.values() for sample in one.train]
        bare = [replace(sample, boxes=sample.boxes[:0]) for sample in labelled]
        seen = [sample for name in cameras for sample in self._seen(name)]
        steps = self.lesson.all_steps if camera == ALL else self.lesson.steps
        recipe = TrainRecipe(seed=seed, steps=steps, **self.lesson.training)
        judged: dict[str, Predictor] = {
            "teacher": self.teacher,
            "looks": self._oracle,
            "student": self.student,
            "paper": learned(self.student, bare, recipe.model_copy(update=PAPER), self.teacher),
            "ours": learned(self.student, seen, recipe),
            "labels": learned(self.student, labelled, recipe),
        }
        val = [sample for one in cameras.values() for sample in one.val]
        return {"commit": COMMIT, "forms": {form: self._metrics(judged[form], val) for form in FORMS}}

    def _made_from(self, seed: int) -> Json:
        images = {name: (len(one.train), len(one.val)) for name, one in self.cameras.items()}
        pixels = self.teacher.spec.image_size
        return {**asdict(self.lesson), "seed": seed, "images": images, "pixels": pixels}

    def _seen(self, camera: str) -> list[Sample]:
        """A camera's images with what the teacher's looks find for labels; its own labels are not read."""
        samples = self.cameras[camera].train
        made_from = {"sizes": self.lesson.sizes, "confidence": self.lesson.confidence, "images": len(samples)}
        found = cached(self.folder / "looks" / f"{camera}.json", made_from, lambda: self._looked(samples))
        boxes = [np.array(rows, np.float32).reshape(-1, 5) for rows in found["boxes"]]
        return [replace(sample, boxes=rows) for sample, rows in zip(samples, boxes, strict=True)]

    def _looked(self, samples: Sequence[Sample]) -> Json:
        seen = pseudo_label(self._oracle, samples, self.student.spec.labels, self.lesson.confidence)
        return {"boxes": [sample.boxes.tolist() for sample in seen]}

    @cached_property
    def _oracle(self) -> TTAPredictor:
        return TTAPredictor.of(self.teacher, self.lesson.sizes)

    def _metrics(self, predictor: Predictor, val: Sequence[Sample]) -> dict[str, float]:
        found = evaluate(predictor, val, self.student.spec.labels)
        named = {"precision": found.precision, "recall": found.recall, "mAP50": found.map50, "mAP50-95": found.map50_95}
        return {column: 100 * value for column, value in named.items()}


def learned(
    start: Detector, samples: Sequence[Sample], recipe: TrainRecipe, teacher: Detector | None = None
) -> Detector:
    """A copy of `start`, trained."""
    detector = registry.from_weights(start.spec, start.weights(), start.device)
    train(detector, samples, recipe, teacher=teacher)
    return detector


def car_park(plan: Plan, seed: int) -> Dataset:
    return load(resolve("scenes:car-park", plan.folder / "data", seed, *plan.images))


def roads() -> Dataset | None:
    """The six traffic cameras, where they are. Their "bike" is COCO's motorcycle."""
    path = REAL / "detection" / "traffic_cams" / "data.yaml"
    if not path.is_file():
        return None
    data = load(path)
    return replace(data, names=tuple("motorcycle" if name == "bike" else name for name in data.names))


def scenarios_of(plan: Plan, seed: int) -> list[Scenario]:
    """Built-in cameras and, where there are any, real ones."""
    environment = Environment(seed, plan.general)
    data, folder = car_park(plan, seed).with_labels(environment.known), plan.folder / f"built-in-{seed}"
    grounds = [Scenario("built-in", folder, data, environment.tutor, environment.student, plan.built_in)]
    if (real := roads()) is not None:
        teacher, student = (
            registry.load(REAL / "weights" / f"yolov8{size}.pt", image_size=plan.real_size) for size in ("s", "n")
        )
        mapped = real.with_labels(student.spec.labels)
        grounds.append(Scenario("real", plan.folder / "real", mapped, teacher, student, plan.real))
    return grounds


def measure(scenario: Scenario, seed: int) -> Json:
    """Tables of one seed: one a camera, one for all together, and what they come to."""
    cells = {camera: scenario.cell(camera, seed) for camera in (*scenario.cameras, ALL)}
    tables: dict[str, Json] = {f"{scenario.name}: {camera}": cell["forms"] for camera, cell in cells.items()}
    each = [cells[camera]["forms"] for camera in scenario.cameras]
    tables[f"{scenario.name}: in short"] = {
        form: {
            "cameras above the teacher": float(sum(m[form]["mAP50"] > m["teacher"]["mAP50"] for m in each)),
            "above the teacher": float(np.mean([m[form]["mAP50"] - m["teacher"]["mAP50"] for m in each])),
            "below labels": float(np.mean([m["labels"]["mAP50"] - m[form]["mAP50"] for m in each])),
        }
        for form in FORMS[1:]
    }
    return {"commits": sorted({str(cell["commit"]) for cell in cells.values()}), "tables": tables}


def targets_of(rows: list[Json]) -> list[Json]:
    """Judged from the rows alone, on the means over the seeds; points are of mAP50 in percent."""

    def means(scenario: str, form: str) -> Numbers:
        """mAP50 of each camera."""
        mine = [row for row in rows if row["form"] == form and row["table"].startswith(f"{scenario}: ")]
        return np.array([row["mAP50"]["mean"] for row in mine if "mAP50" in row and not row["table"].endswith(ALL)])

    targets = []
    for scenario in dict.fromkeys(row["table"].split(": ")[0] for row in rows):
        teacher, paper, ours, labels = (means(scenario, form) for form in ("teacher", "paper", "ours", "labels"))
        above = f"{scenario}: of {len(ours)} cameras, those whose student is above the teacher"
        targets += [
            target(above, (ours > teacher).sum(), ">", len(ours) - 2),
            target(f"{scenario}: labels minus ours, mean over the cameras, points", (labels - ours).mean(), "<", 2),
            target(f"{scenario}: ours minus paper, mean over the cameras, points", (ours - paper).mean(), ">", 0),
        ]
    return targets


def picture(rows: list[Json], title: str, path: Path) -> None:
    """A panel for each family: for each camera a bar for each form, as high as its mAP50."""
    grounds = list(dict.fromkeys(row["table"].split(": ")[0] for row in rows))
    figure, axes = plt.subplots(len(grounds), 1, figsize=(13, 4.5 * len(grounds)), layout="constrained", squeeze=False)
    width = 0.8 / len(FORMS)
    for axis, scenario in zip(axes[:, 0], grounds, strict=True):
        mine = [row for row in rows if row["table"].startswith(f"{scenario}: ") and "mAP50" in row]
        cameras = list(dict.fromkeys(row["table"].split(": ")[1] for row in mine))
        for number, form in enumerate(FORMS):
            low, middle, high = (
                np.array([row["mAP50"][what] for row in mine if row["form"] == form])
                for what in ("low", "mean", "high")
            )
            reach = np.maximum([middle - low, high - middle], 0)  # a mean of equal numbers may differ in its last bit
            axis.bar(np.arange(len(cameras)) + width * number, middle, width, yerr=reach, label=form, capsize=1)
        axis.set_xticks(np.arange(len(cameras)) + 0.4 - width / 2, cameras)
        axis.set_ylabel("mAP50, percent; whiskers: seeds")
        axis.set_title(scenario)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(FORMS))
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def cell(job: tuple[str, int], folder: Path) -> Json:
    """Of a camera, whichever scenario has it, or of all together, and a seed."""
    camera, seed = job
    grounds = scenarios_of(choose_plan(), seed)
    return {scenario.name: scenario.cell(camera, seed) for scenario in grounds if camera in (*scenario.cameras, ALL)}


def measure_everywhere(seed: int, folder: Path) -> Json:
    made = [measure(scenario, seed) for scenario in scenarios_of(choose_plan(), seed)]
    tables = {table: forms for one in made for table, forms in one["tables"].items()}
    return {"commits": [one for scenario in made for one in scenario["commits"]], "tables": tables}


def jobs(plan: Plan, seeds: Sequence[int]) -> list[tuple[str, int]]:
    """Cameras and seeds: smaller pieces than seeds, of which two cores would make three in the time of four."""
    real = roads()
    if real is None:
        print(f"no real cameras in {REAL}: only the built-in ones are measured; DIREDI_BENCH_DATA may name a folder")
    cameras = [camera for data in (car_park(plan, seeds[0]), real) if data is not None for camera in data.by_camera()]
    return [(camera, seed) for camera in (*cameras, ALL) for seed in seeds]


if __name__ == "__main__":
    seeds = parser_of(__doc__, quick_seeds=(0,)).parse_args().seeds
    measure_concurrently(cell, jobs(choose_plan(), seeds), WORK)
    report_results("parking", seeds, measure_everywhere, targets_of, picture)
