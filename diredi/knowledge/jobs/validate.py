"""Site job: the candidate release, as the very file that edge nodes run, on the site's held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from diredi.data.dataset import Dataset, Sample
from diredi.data.dataset import load as load_dataset
from diredi.detectors.onnx import OnnxPredictor
from diredi.errors import CorruptData
from diredi.evaluation.disclosure import evaluate_for_disclosure
from diredi.knowledge.jobs import filling, oracle
from diredi.knowledge.jobs.specs import ValidateResult, ValidateSpec
from diredi.progress import OnProgress, renamed, report
from diredi.timing import Clock

STEP = "validate"


def main(spec: ValidateSpec, folder: Path, on_progress: OnProgress) -> ValidateResult:
    """Measure the candidate.

    Raises:
        InvalidInput: The site has a class that the label space lacks.
        DatasetError: The site's data set cannot be used, or the oracle finds nothing in it.
        NotFound: There is no such oracle.
        CorruptData: The candidate is no exported detector, or not the one that the task describes, or the oracle is no
            detector.
    """
    clock = Clock()
    with clock.step(STEP):
        report(on_progress, STEP, 0.0, "measuring the candidate on held-out images")
        if spec.oracle is None:
            held_out, _ = filling.load_site(spec)
        else:
            held_out = load_dataset(spec.data, ("val",), read_labels=False)
            held_out = oracle.label(held_out, spec.oracle, ("val",), on_progress=on_progress)
        if spec.classes is not None:
            held_out = _restrict(held_out, spec.classes)
        held_out = held_out.with_labels(spec.labels)
        candidate = OnnxPredictor(spec.onnx)
        _check_interface(candidate, spec)
        metrics = evaluate_for_disclosure(
            candidate, held_out, least_images=spec.least_images, on_progress=renamed(on_progress, STEP)
        )
    return ValidateResult(metrics=metrics, seconds=clock.seconds)


def _restrict(data: Dataset, names: Sequence[str]) -> Dataset:
    """Return the held-out images with the boxes of these classes alone; no name of another one is left in it."""
    shared = tuple(name for name in data.names if name in names)
    ids = np.array([shared.index(name) if name in shared else -1 for name in data.names], np.float32)

    def restrict(sample: Sample) -> Sample:
        boxes = sample.boxes.copy()
        boxes[:, 0] = ids[boxes[:, 0].astype(np.int64)]
        return replace(sample, boxes=boxes[boxes[:, 0] >= 0])

    return replace(data, names=shared, train=[], val=[restrict(sample) for sample in data.val])


def _check_interface(candidate: OnnxPredictor, spec: ValidateSpec) -> None:
    """The file itself has to be what the task says of it, which the site has judged."""
    found = candidate.spec
    if found.labels.names != spec.labels.names or spec.image_size not in (0, found.image_size):
        raise CorruptData(
            f"the candidate has {len(found.labels)} classes at {found.image_size} px, the task names "
            f"{len(spec.labels)} at {spec.image_size} px: believe neither"
        )
