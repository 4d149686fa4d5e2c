"""Cloud job: the first models. A teacher learns the presumed data, teaches a tutor, which teaches a student.

spec    presumed (a data.yaml); teacher, tutor, student (each an architecture to train, a file of weights, or null:
        for the teacher none, else the default); image_size; recipe
result  teacher or null, tutor, student (weights, digest, bytes, architecture, figures; the student's onnx too),
        coreset or null (path, digest, bytes), seconds
"""

from __future__ import annotations

from pathlib import Path

from diredi.data.archive import pack
from diredi.data.dataset import DataSet, subset
from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.recipe import TrainRecipe
from diredi.distillation.trainer import train
from diredi.errors import InvalidInput
from diredi.jobs import Report
from diredi.knowledge.gap_application import Presumed
from diredi.knowledge.jobs.parts import (
    Clock,
    Json,
    described,
    forget_trainings,
    part_of,
    trainings_in,
    write_onnx,
    write_weights,
)
from diredi.knowledge.recipe import BootstrapRecipe
from diredi.labels import LabelSpace

TUTOR, STUDENT = "yolo11n", "yolo11-w0.125"


def main(spec: Json, folder: Path, report: Report) -> Json:
    """Raises InvalidInput for models and data whose classes do not go together."""
    clock, recipe = Clock(), BootstrapRecipe.of(spec["recipe"])
    with clock.step("read"):
        report("read", 0.0, "reading the presumed data")
        data = load_dataset(Path(spec["presumed"]))
        given = {kind: _given(spec.get(kind), spec["image_size"]) for kind in ("teacher", "tutor", "student")}
        labels = _labels(data, given)
        mapped = data.with_labels(labels)
        presumed = Presumed(labels, mapped.train, mapped.val)
    result: Json = {"teacher": None}
    taught_by: Detector | None = None
    for kind, training in (("teacher", recipe.teacher), ("tutor", recipe.tutor), ("student", recipe.student)):
        model = given[kind]
        if model is None and kind == "teacher" and not spec.get(kind):
            continue
        with clock.step(kind):
            if model is None:
                architecture = spec.get(kind) or {"tutor": TUTOR, "student": STUDENT}[kind]
                model = registry.create(architecture, spec["image_size"], labels, recipe.seed)
                train(
                    model,
                    presumed.train,
                    _seeded(training, recipe),
                    teacher=taught_by,
                    on_progress=part_of(report, kind),
                    checkpoint=trainings_in(folder) / kind,
                )
            result[kind] = _kept(model, kind, presumed, folder)
        taught_by = model
    with clock.step("coreset"):
        result["coreset"] = _coreset(data, recipe, folder)
    forget_trainings(folder)
    return {**result, "seconds": clock.seconds}


def _given(name: str | None, image_size: int) -> Detector | None:
    """The model in a file, or None when `name` is an architecture that is still to be trained."""
    if not name or Path(name).suffix not in (".pt", ".safetensors"):
        return None
    return registry.load(Path(name), image_size=image_size)


def _labels(data: DataSet, given: dict[str, Detector | None]) -> LabelSpace:
    """The label space of the models that are given, which must agree; else the data set's."""
    spaces = {kind: model.spec.labels for kind, model in given.items() if model is not None and kind != "teacher"}
    if not spaces:
        return LabelSpace(names=data.names)
    first, *others = spaces.values()
    if any(other.names != first.names for other in others):
        raise InvalidInput("tutor and student have different classes: give weights that were trained for the same ones")
    if not set(first.names) & set(data.names):
        raise InvalidInput(
            f"the presumed data ({', '.join(data.names[:8])}) has none of the tutor's classes "
            f"({', '.join(first.names[:8])}): name the data that it was trained for"
        )
    return LabelSpace(names=first.names)


def _kept(model: Detector, kind: str, presumed: Presumed, folder: Path) -> Json:
    said = {**write_weights(model, folder / f"{kind}.safetensors"), "architecture": model.spec.architecture}
    if kind != "student":
        return {**said, "figures": presumed.figures(model).model_dump()}
    onnx, predictor = write_onnx(model, folder / "student.onnx")
    return {**said, "onnx": onnx, "figures": presumed.figures(predictor).model_dump()}


def _seeded(training: TrainRecipe, recipe: BootstrapRecipe) -> TrainRecipe:
    return training.model_copy(update={"seed": recipe.seed})


def _coreset(data: DataSet, recipe: BootstrapRecipe, folder: Path) -> Json | None:
    """Drawn from the training half alone: what a site learns must not be what the gate asks."""
    if recipe.coreset_images == 0:
        return None
    path = folder / "coreset.zip"
    pack(subset(data, recipe.coreset_images, recipe.seed, n_val=0), path)
    return {"path": str(path), **described(path)}
