"""`diredi eval`: how good a model is on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from diredi_cli.options import AsJson
from diredi_cli.output import emit, facts, heard_by, notes, percent, progress, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diredi.detectors.predictor import Predictor
    from diredi.evaluation.metrics import DetectionMetrics


def evaluate_model(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A .safetensors, .onnx or Ultralytics .pt file.")],
    data: Annotated[Path, typer.Option("--data", metavar="DATA.YAML", help="The set to measure on.")],
    split: Annotated[
        Literal["val", "train"], typer.Option("--split", help="Held-out images, or those to train on.")
    ] = "val",
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=32, max=2048, help="Pixels; by default the model's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure mAP, precision, recall and F1 of a model on a data set."""
    from diredi.data.dataset import load
    from diredi.evaluation.detection import evaluate

    dataset = load(data, (split,))
    notes(dataset)
    predictor = open_predictor(model, image_size)
    with progress(as_json) as bar:
        metrics = evaluate(predictor, dataset, split=split, on_progress=heard_by(bar, f"Measuring {model.name}"))
    found = {"model": str(model), "data": str(data), "split": split, **metrics.model_dump(mode="json")}
    emit(found, as_json, *render_metrics(metrics))


def open_predictor(path: Path, image_size: int | None = None) -> Predictor:
    """Open any model file as a predictor.

    Args:
        path: A checkpoint, safetensors weights or an ONNX file.
        image_size: Side of the input in pixels; None takes the model's own.

    Returns:
        The predictor.

    Raises:
        CorruptData: The file holds no model.
        NotFound: There is no such file.
    """
    from diredi.errors import NotFound

    if not path.exists():
        raise NotFound(f"model {path} does not exist: check the path")
    if path.suffix == ".onnx":
        from diredi.detectors.onnx import OnnxPredictor

        return OnnxPredictor(path)
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
