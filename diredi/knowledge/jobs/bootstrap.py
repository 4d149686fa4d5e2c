"""Cloud job: the first models. A teacher learns the presumed data, teaches a tutor, which teaches a student."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from diredi.data.archive import pack
from diredi.data.dataset import Dataset
from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.distillation.distil import distil
from diredi.errors import InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.jobs.parts import (
    described,
    forget_trainings,
    golden_images,
    trainings_in,
    write_onnx,
    write_weights,
)
from diredi.knowledge.jobs.specs import UNTRAINED_IMAGE_SIZE, BootstrapResult, BootstrapSpec, File, FirstModel
from diredi.knowledge.recipe import BootstrapRecipe
from diredi.knowledge.reverse import seeded
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, renamed, report
from diredi.store.weights import WeightMap, read_metadata
from diredi.timing import Clock

TUTOR, STUDENT = "yolo11n", "yolo11-w0.125"
FILE_SUFFIXES = (*registry.CHECKPOINT_SUFFIXES, ".safetensors", ".onnx")


def main(spec: BootstrapSpec, folder: Path, on_progress: OnProgress) -> BootstrapResult:
    """Train what is not given and write the models and the coreset.

    Raises:
        InvalidInput: The classes of models and data do not go together.
    """
    clock, recipe = Clock(), spec.recipe
    with clock.step("read"):
        report(on_progress, "read", 0.0, "reading the presumed data")
        data = load_dataset(spec.presumed, decode=True)
        for note in data.notes:
            report(on_progress, "read", 0.0, note)
        named = {"teacher": spec.teacher, "tutor": spec.tutor or TUTOR, "student": spec.student or STUDENT}
        given, image_size, why = read_models(named, spec.image_size)
        report(on_progress, "read", 0.0, why)
        labels = shared_labels(data, given)
        presumed = data.with_labels(labels)
        golden = golden_images(data, recipe.coreset_images, recipe.seed)
    made: dict[str, FirstModel | None] = {"teacher": None}
    taught_by: Detector | None = None
    for kind, training in (("teacher", recipe.teacher), ("tutor", recipe.tutor), ("student", recipe.student)):
        name, model = named[kind], given[kind]
        if name is None:
            continue
        with clock.step(kind):
            if model is None:
                model = distil(
                    registry.create(name, image_size, labels, recipe.seed),
                    presumed,
                    teacher=taught_by,
                    recipe=seeded(training, recipe.seed),
                    labels=labels,
                    checkpoint=trainings_in(folder) / kind,
                    on_progress=renamed(on_progress, kind),
                )
            made[kind] = _kept(model, kind, presumed, golden, folder)
        taught_by = model
    made["tutor"] = _told_apart(made["tutor"], made["student"])
    with clock.step("coreset"):
        coreset = _coreset(data, recipe, folder)
    forget_trainings(folder)
    return BootstrapResult.model_validate({**made, "coreset": coreset, "seconds": clock.seconds})


def read_models(named: Mapping[str, str | None], image_size: int | None) -> tuple[dict[str, Detector | None], int, str]:
    """Read the models that are given as files, all at one image size, since one teaches the other.

    Args:
        named: Of each kind an architecture, the path of weights, the name of an official checkpoint, or nothing.
        image_size: Side of the square input in pixels; None: the model's own, the student's before the tutor's.

    Returns:
        The models by kind, None for one that is still to be trained; the image size; a sentence about it.

    Raises:
        DirediError: A file is missing, cannot be downloaded or is not a model that can be used.
    """
    given = {kind: registry.load(name) if name and is_file_name(name) else None for kind, name in named.items()}
    own = {kind: model.spec.image_size for kind, model in given.items() if model is not None}
    size, why = _image_size(image_size, own)
    for kind, name in named.items():
        if name and own.get(kind, size) != size:
            given[kind] = registry.load(name, image_size=size)
    return given, size, why


def is_file_name(model: str) -> bool:
    """Return whether a model is named by a file and not by its architecture; the file may be missing."""
    path = Path(model)
    return path.suffix in FILE_SUFFIXES or "/" in model or path.is_file()


def _image_size(wanted: int | None, own: Mapping[str, int]) -> tuple[int, str]:
    """The size of all models of a cycle, and a sentence that says why."""
    first = next((kind for kind in ("student", "tutor", "teacher") if kind in own), None)
    if wanted is not None:
        size, why = wanted, "as image_size says"
    elif first is None:
        size, why = UNTRAINED_IMAGE_SIZE, "the default of models that are trained from nothing (see image_size)"
    else:
        size = own[first]
        why = f"the {first}'s own" + (" because devices run it" if first == "student" else "") + " (see image_size)"
    others = [f"the {kind} was trained at {pixels}" for kind, pixels in own.items() if pixels != size]
    return size, f"all models take images of {size} pixels, {why}{''.join(f'; {other}' for other in others)}"


def shared_labels(data: Dataset, given: Mapping[str, Detector | None]) -> LabelSpace:
    """Find the label space of the first models.

    Args:
        data: The presumed data.
        given: The models that are not trained here, by kind; None for one that is.

    Returns:
        The label space of tutor and student where one is given, else that of the data.

    Raises:
        InvalidInput: Tutor and student have different classes, or the data has none of them, or spells one otherwise.
    """
    spaces = {kind: model.spec.labels for kind, model in given.items() if model is not None and kind != "teacher"}
    if not spaces:
        return LabelSpace(names=data.names)
    (kind, first), *others = spaces.items()
    if any(other.names != first.names for _, other in others):
        raise InvalidInput("tutor and student have different classes: give weights that were trained for the same ones")
    first.check_shares(data.names, f"the {kind}", "the presumed data")
    first.expand(data.names)
    return LabelSpace(names=first.names)


def _kept(model: Detector, kind: str, presumed: Dataset, golden: Dataset, folder: Path) -> FirstModel:
    weights = write_weights(model, folder / f"{kind}.safetensors").model_dump()
    onnx, predictor = write_onnx(model, folder / "student.onnx", golden) if kind == "student" else (None, model)
    metrics = evaluate(predictor, presumed)
    return FirstModel(**weights, architecture=model.spec.architecture, metrics=metrics, onnx=onnx)


def _told_apart(tutor: FirstModel | None, student: FirstModel | None) -> FirstModel | None:
    """Give a tutor that has the student's very weights another file: a model is known by the digest of its file."""
    if tutor is None or student is None or tutor.digest != student.digest:
        return tutor
    WeightMap.load(tutor.weights).save(tutor.weights, {**read_metadata(tutor.weights), "kind": "tutor"})
    file = described(tutor.weights)
    return tutor.model_copy(update={"digest": file.digest, "bytes": file.bytes})


def _coreset(data: Dataset, recipe: BootstrapRecipe, folder: Path) -> File | None:
    """Drawn from the training half alone: what a site learns must not be what the gate asks."""
    if recipe.coreset_images == 0:
        return None
    path = folder / "coreset.zip"
    pack(data.sample(recipe.coreset_images, recipe.seed), path)
    return described(path)
