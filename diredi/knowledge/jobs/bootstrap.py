"""Cloud job: the first models. A teacher learns the presumed data, teaches a tutor, which teaches a student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diredi.data.archive import pack
from diredi.data.dataset import Dataset
from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.spec import DetectorSpec
from diredi.distillation.distil import distil
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.jobs.parts import described, forget_trainings, trainings_in, write_onnx, write_weights
from diredi.knowledge.jobs.specs import BootstrapResult, BootstrapSpec, File, FirstModel
from diredi.knowledge.recipe import BootstrapRecipe
from diredi.knowledge.reverse import seeded
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, renamed, report
from diredi.timing import Clock

TUTOR, STUDENT = "yolo11n", "yolo11-w0.125"


def main(spec: BootstrapSpec, folder: Path, on_progress: OnProgress) -> BootstrapResult:
    """Train what is not given and write the models and the coreset.

    Raises:
        InvalidInput: The classes of models and data do not go together.
    """
    clock, recipe = Clock(), spec.recipe
    with clock.step("read"):
        report(on_progress, "read", 0.0, "reading the presumed data")
        data = load_dataset(spec.presumed)
        named = {"teacher": spec.teacher, "tutor": spec.tutor or TUTOR, "student": spec.student or STUDENT}
        given = {kind: read_model(name, spec.image_size) for kind, name in named.items()}
        for kind, name in named.items():
            if name and given[kind] is not None and (remark := other_size(Path(name), spec.image_size)):
                report(on_progress, "read", 0.0, f"{kind} {remark}: see image_size")
        labels = shared_labels(data, given)
        presumed = data.with_labels(labels)
    made: dict[str, FirstModel | None] = {"teacher": None}
    taught_by: Detector | None = None
    for kind, training in (("teacher", recipe.teacher), ("tutor", recipe.tutor), ("student", recipe.student)):
        name, model = named[kind], given[kind]
        if name is None:
            continue
        with clock.step(kind):
            if model is None:
                model = distil(
                    registry.create(name, spec.image_size, labels, recipe.seed),
                    presumed,
                    teacher=taught_by,
                    recipe=seeded(training, recipe.seed),
                    labels=labels,
                    checkpoint=trainings_in(folder) / kind,
                    on_progress=renamed(on_progress, kind),
                )
            made[kind] = _kept(model, kind, presumed, folder)
        taught_by = model
    with clock.step("coreset"):
        coreset = _coreset(data, recipe, folder)
    forget_trainings(folder)
    return BootstrapResult.model_validate({**made, "coreset": coreset, "seconds": clock.seconds})


def read_model(name: str | None, image_size: int) -> Detector | None:
    """Read a model that is given as a file.

    Args:
        name: An architecture, the path of weights, the name of an official checkpoint, or nothing.
        image_size: Side of the model's square input, in pixels.

    Returns:
        The model, or None if `name` is no file: an architecture is still to be trained.

    Raises:
        DirediError: The file is missing, cannot be downloaded or is not a model that can be used.
    """
    if not name or Path(name).suffix not in (".pt", ".safetensors"):
        return None
    return registry.load(Path(name), image_size=image_size)


def other_size(path: Path, image_size: int) -> str:
    """Say that a model is to be used at another size than its own.

    Args:
        path: A file of weights.
        image_size: Side of the square input that it is to have, in pixels.

    Returns:
        A sentence without its subject; empty if the sizes are equal.
    """
    ours = path.suffix == ".safetensors"
    own = DetectorSpec.of_file(path).image_size if ours else registry.DEFAULT_IMAGE_SIZE
    if own == image_size:
        return ""
    return f"{'was made' if ours else 'is a checkpoint, usually made'} for {own} pixels and is used at {image_size}"


def shared_labels(data: Dataset, given: Mapping[str, Detector | None]) -> LabelSpace:
    """Find the label space of the first models.

    Args:
        data: The presumed data.
        given: The models that are not trained here, by kind; None for one that is.

    Returns:
        The label space of tutor and student where one is given, else that of the data.

    Raises:
        InvalidInput: Tutor and student have different classes, or the data has none of them.
    """
    spaces = {kind: model.spec.labels for kind, model in given.items() if model is not None and kind != "teacher"}
    if not spaces:
        return LabelSpace(names=data.names)
    first, *others = spaces.values()
    if any(other.names != first.names for other in others):
        raise InvalidInput("tutor and student have different classes: give weights that were trained for the same ones")
    if not set(first.names) & set(data.names):
        raise InvalidInput(
            f"the presumed data ({', '.join(data.names[:8])}) has none of the tutor's classes "
            f"({', '.join(first.names[:8])}): name the data that it was trained for, or {first.respelling(data.names)}"
        )
    return LabelSpace(names=first.names)


def _kept(model: Detector, kind: str, presumed: Dataset, folder: Path) -> FirstModel:
    weights = write_weights(model, folder / f"{kind}.safetensors").model_dump()
    onnx, predictor = write_onnx(model, folder / "student.onnx") if kind == "student" else (None, model)
    metrics = evaluate(predictor, presumed)
    return FirstModel(**weights, architecture=model.spec.architecture, metrics=metrics, onnx=onnx)


def _coreset(data: Dataset, recipe: BootstrapRecipe, folder: Path) -> File | None:
    """Drawn from the training half alone: what a site learns must not be what the gate asks."""
    if recipe.coreset_images == 0:
        return None
    path = folder / "coreset.zip"
    pack(data.sample(recipe.coreset_images, recipe.seed), path)
    return described(path)
