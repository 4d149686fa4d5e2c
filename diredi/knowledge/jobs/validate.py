"""Site job: the candidate release, as the very file that edge nodes run, on the site's held-out images.

spec    data (a data.yaml), onnx, labels
result  figures, seconds
"""

from __future__ import annotations

from pathlib import Path

from diredi.data.dataset import load as load_dataset
from diredi.detectors.onnx import OnnxPredictor
from diredi.evaluation.detection import evaluate
from diredi.jobs import Report
from diredi.knowledge.jobs.parts import Clock, Json, labels_of

STEP = "validate"


def main(spec: Json, folder: Path, report: Report) -> Json:
    clock, labels = Clock(), labels_of(spec)
    with clock.step(STEP):
        report(STEP, 0.0, "measuring the candidate on held-out images")
        held_out = load_dataset(Path(spec["data"])).with_labels(labels).val
        figures = evaluate(OnnxPredictor(Path(spec["onnx"])), held_out, labels)
    return {"figures": figures.model_dump(), "seconds": clock.seconds}
