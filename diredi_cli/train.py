"""`diredi train`: one detector, alone or taught by another."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diredi.text import bytes_text
from diredi_cli.options import AsJson, ImageSize, Seed, Threads, parse_options
from diredi_cli.output import emit, facts, heard_by, note, notes, progress, seconds_text

if TYPE_CHECKING:
    from diredi.data.dataset import Dataset
    from diredi.detectors.base import Detector
    from diredi.distillation.recipe import TrainRecipe

app = typer.Typer(
    help="Train one detector, alone or taught by another. A training that was interrupted goes on from its last epoch "
    "when the same command is given again.",
    no_args_is_help=True,
)

DataFile = Annotated[
    str, typer.Option("--data", metavar="DATA.YAML", help="A data set, or scenes:SITE for a built-in one.")
]
UNTRAINED_IMAGE_SIZE = 320
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the weights go (.safetensors).")]
Architecture = Annotated[str, typer.Option("--architecture", help="E.g. yolo11n, yolo26s, yolov8m, yolo11-w0.125.")]
Start = Annotated[
    Path | None, typer.Option("--start", metavar="FILE", help="Weights to start from: ours, or an Ultralytics .pt.")
]
Teacher = Annotated[Path | None, typer.Option("--teacher", metavar="FILE", help="The model that teaches this one.")]
Epochs = Annotated[float, typer.Option("--epochs", min=0.01, help="Times through the training images.")]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option", "-o", metavar="NAME=VALUE", help="Any other value of the training recipe; repeat for more."
    ),
]


@app.command("teacher")
def teacher(
    data: DataFile,
    out: Out,
    architecture: Architecture = "yolo11s",
    start: Start = None,
    image_size: ImageSize = None,
    epochs: Epochs = 12,
    option: Option = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Train the large detector of the cloud on labels."""
    _train(data, out, architecture, start, None, image_size, epochs, option, seed, threads, as_json)


@app.command("tutor")
def tutor(
    data: DataFile,
    out: Out,
    architecture: Architecture = "yolo11n",
    start: Start = None,
    teacher: Teacher = None,
    image_size: ImageSize = None,
    epochs: Epochs = 12,
    option: Option = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Train the detector at whose architecture knowledge is exchanged, best taught by a teacher."""
    _train(data, out, architecture, start, teacher, image_size, epochs, option, seed, threads, as_json)


@app.command("student")
def student(
    data: DataFile,
    out: Out,
    architecture: Architecture = "yolo11-w0.125",
    start: Start = None,
    teacher: Teacher = None,
    image_size: ImageSize = None,
    epochs: Epochs = 12,
    option: Option = None,
    seed: Seed = 0,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Train the small detector that devices run, best taught by the tutor; an ONNX file is written beside it."""
    _train(data, out, architecture, start, teacher, image_size, epochs, option, seed, threads, as_json, with_onnx=True)


def _train(
    data: str,
    out: Path,
    architecture: str,
    start: Path | None,
    teacher: Path | None,
    image_size: int | None,
    epochs: float,
    option: list[str] | None,
    seed: int,
    threads: int,
    as_json: bool,
    with_onnx: bool = False,
) -> None:
    from diredi_cli.evaluate import render_metrics

    recipe = _recipe({"epochs": epochs, "seed": seed, **parse_options(option or [])})
    _check_out(out)
    with progress(as_json) as bar:
        bar.step("Loading PyTorch")
        import torch

        if threads:
            torch.set_num_threads(threads)
        from diredi.detectors import registry
        from diredi.distillation.trainer import check_losses, check_pair, train
        from diredi.evaluation.detection import evaluate

        check_losses(recipe)
        first, instructor = (registry.load(path) if path else None for path in (start, teacher))
        size, why = _image_size(image_size, {"weights to start from": first, "teacher": instructor})
        first = _at_size(first, start, size) or registry.create(architecture, size, ["anything"], seed)
        instructor = _at_size(instructor, teacher, size)
        bar.step("Reading data")
        dataset = _load_data(data, seed)
    notes(dataset)
    detector, dataset = _detector(first, start is None, dataset, seed)
    if instructor is not None:
        instructor.labels.check_shares(dataset.names, "the teacher", "the data")
        check_pair(detector, instructor)
    with progress(as_json) as bar:
        report = train(
            detector,
            dataset.train,
            recipe,
            teacher=instructor,
            on_progress=heard_by(bar, "Training"),
            checkpoint=out.with_suffix(".training"),
        )
        metrics = evaluate(detector, dataset, on_progress=heard_by(bar, "Measuring"))
        digest = detector.save(out)
        onnx = _export(detector, out) if with_onnx else None
        shutil.rmtree(out.with_suffix(".training"), ignore_errors=True)
    found: dict[str, Any] = {
        "weights": str(out),
        "digest": digest,
        "onnx": onnx,
        "architecture": detector.spec.architecture,
        "image_size": size,
        "seconds": round(report.seconds, 3),
        "epochs": report.epochs,
        "steps": report.steps,
        "metrics": metrics.model_dump(mode="json"),
    }
    shown = {
        "weights": f"{out} ({bytes_text(out.stat().st_size)})",
        **({"ONNX": onnx} if onnx else {}),
        "digest": digest,
        "image size": f"{size} px, {why}",
        "trained": f"{report.epochs:g} epochs in {seconds_text(report.seconds)}",
    }
    emit(found, as_json, facts(shown), *render_metrics(metrics))


def _recipe(values: dict[str, object]) -> TrainRecipe:
    from pydantic import ValidationError

    from diredi.distillation.recipe import TrainRecipe
    from diredi.errors import InvalidInput

    try:
        return TrainRecipe.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"recipe option {name!r}: {first['msg']}: see docs/reference/configuration.md for the options"
        ) from None


def _check_out(out: Path) -> None:
    from diredi.errors import InvalidInput

    if out.suffix != ".safetensors":
        raise InvalidInput(f"--out {out} must end with .safetensors: nothing else is written")
    out.parent.mkdir(parents=True, exist_ok=True)


def _load_data(data: str, seed: int) -> Dataset:
    import tempfile

    from diredi.data.dataset import load
    from diredi.data.sources import resolve

    return load(resolve(data, Path(tempfile.gettempdir()) / "diredi-scenes", seed), decode=True)


def _image_size(wanted: int | None, models: dict[str, Detector | None]) -> tuple[int, str]:
    """The size that both train at, and why; the first model's own where nobody says another."""
    own = {name: model.spec.image_size for name, model in models.items() if model is not None}
    first = next(iter(own), None)
    if wanted is not None:
        size, why = wanted, "as --image-size says"
    elif first is None:
        size, why = UNTRAINED_IMAGE_SIZE, "the default"
    else:
        size, why = own[first], f"that of the {first}"
    others = [f"; the {name} had {pixels}" for name, pixels in own.items() if pixels != size]
    return size, why + "".join(others)


def _at_size(model: Detector | None, path: Path | None, size: int) -> Detector | None:
    from diredi.detectors import registry

    if model is None or path is None or model.spec.image_size == size:
        return model
    return registry.load(path, image_size=size)


def _detector(first: Detector, untrained: bool, dataset: Dataset, seed: int) -> tuple[Detector, Dataset]:
    """The detector to train, and the data with the ids of its label space."""
    from diredi.detectors import registry

    if untrained:
        spec = first.spec
        return registry.create(spec.architecture, spec.image_size, dataset.label_names, seed), dataset
    labels = first.labels.expand(dataset.names)
    for name, meant in first.labels.resembling(dataset.names).items():
        note(f"{name!r} will be learned as a new class; if it is {meant!r}, write it so in data.yaml")
    return first.expand_classes(labels), dataset.with_labels(labels)


def _export(detector: Detector, out: Path) -> str:
    from diredi.detectors.export import export_onnx

    path = out.with_suffix(".onnx")
    export_onnx(detector, path)
    return str(path)
