from __future__ import annotations

from pathlib import Path

from diredi.detectors.spec import DetectorSpec
from diredi.knowledge.gap import apply
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap
from tests.services.cloud.quick_jobs import toy


def main(spec, folder, report):
    report("apply", 0.0, "begin")
    base, labels = WeightMap.load(Path(spec["tutor"])), LabelSpace.model_validate(spec["labels"])
    after = apply(base, toy.merged_gap(spec["gaps"], base), spec["recipe"]["lam"] or 1.0)
    report("apply", 1.0, "end")
    known = DetectorSpec.of_file(Path(spec["tutor"])).labels
    return {
        **toy.kept(after, labels, folder / "tutor.safetensors"),
        "lam": {"known": 1.0},
        "before": toy.figures(base, known),
        "after": toy.figures(after, labels),
        "scores": spec["scores"],
        "seconds": {"apply": 0.1},
    }
