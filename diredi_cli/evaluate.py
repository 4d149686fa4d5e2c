"""`diredi eval`: how good a model is on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diredi.text import percent
from diredi_cli.options import AsJson, ImageSize
from diredi_cli.output import emit, facts, heard_by, note, notes, progress, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from diredi.data.dataset import Dataset, Split
    from diredi.detectors.base import Detector
    from diredi.detectors.onnx import OnnxPredictor
    from diredi.evaluation.metrics import DetectionMetrics
    from diredi.labels import LabelSpace


def evaluate_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .safetensors, .onnx or Ultralytics .pt file.")],
    data: Annotated[Path, typer.Option("--data", metavar="DATA.YAML", help="The set to measure on.")],
    split: Annotated[
        Literal["val", "train"], typer.Option("--split", help="Held-out images, or those to train on.")
    ] = "val",
    image_size: ImageSize = None,
    as_json: AsJson = False,
) -> None:
    """Measure mAP, precision, recall and F1 of a model on a data set."""
    from diredi.data.dataset import load
    from diredi.evaluation.detection import evaluate

    dataset = load(data, (split,))
    notes(dataset)
    predictor = open_predictor(model)
    own = predictor.spec.image_size
    if image_size not in (None, own):
        predictor = open_predictor(model, image_size)
    check_classes(predictor.labels, dataset, (split,))
    with progress(as_json) as bar:
        metrics = evaluate(predictor, dataset, split=split, on_progress=heard_by(bar, f"Measuring {model.name}"))
    size = predictor.spec.image_size
    named = {"model": str(model), "data": str(data), "split": split, "image_size": size}
    about = f"{size} px, " + ("the model's own" if size == own else f"and the model's own is {own}")
    emit({**named, **metrics.model_dump(mode="json")}, as_json, facts({"image size": about}), *render_metrics(metrics))


def check_classes(labels: LabelSpace, dataset: Dataset, splits: Sequence[Split]) -> None:
    """Tell of class names that do not fit a model before they become a figure of 0: names say what is of which class.

    Args:
        labels: The model's label space.
        dataset: The data.
        splits: The splits that the model will see.

    Raises:
        InvalidInput: No class is in common, or one is spelled in another way.
    """
    shown = list(dict.fromkeys(name for split in splits for name, boxes in dataset.counts(split).items() if boxes))
    labels.check_shares(shown or dataset.names, "the model", "the data")
    labels.expand(dataset.names)
    for name, meant in labels.resembling(shown).items():
        note(f"the model does not know the class {name!r} and never finds it; if it is {meant!r}, say so in data.yaml")


def open_predictor(path: Path, image_size: int | None = None) -> Detector | OnnxPredictor:
    """Open any model file as a predictor.

    Args:
        path: A checkpoint, safetensors weights or an ONNX file.
        image_size: Side of the input in pixels; None takes the model's own.

    Returns:
        The predictor.

    Raises:
        CorruptData: The file holds no model.
        NotFound: There is no such file.
        InvalidInput: The model takes images of another size alone.
    """
    from diredi.errors import InvalidInput, NotFound

    if not path.exists():
        raise NotFound(f"model {path} does not exist: check the path")
    if path.suffix == ".onnx":
        from diredi.detectors.onnx import OnnxPredictor

        exported = OnnxPredictor(path)
        if image_size not in (None, exported.spec.image_size):
            raise InvalidInput(
                f"{path} is an exported detector and takes images of {exported.spec.image_size} pixels alone: omit "
                "--image-size, or name the weights that it was exported from"
            )
        return exported
    from diredi.detectors.registry import load

    return load(path, image_size=image_size)


def render_metrics(metrics: DetectionMetrics) -> list[RenderableType]:
    """For people: the means, and a row for each class."""
    means = {
        "images": metrics.images,
        "mAP50": percent(metrics.map50),
        "mAP50-95": percent(metrics.map50_95),
        "precision": percent(metrics.precision),
        "recall": percent(metrics.recall),
        "F1": percent(metrics.f1),
    }
    rows = [
        (name, percent(found.ap50), percent(found.ap50_95), found.boxes) for name, found in metrics.per_class.items()
    ]
    columns = ("class", "AP50", "AP50-95", "boxes")
    return [facts(means), table(columns, rows, right=columns[1:])]
