from __future__ import annotations

from pathlib import Path

from diredi.detectors.spec import DetectorSpec
from diredi.knowledge.gap import apply
from diredi.labels import LabelSpace
from diredi.store.weights import WeightMap
from tests.services.cloud.quick_jobs import toy


def main(spec, folder, report):
    report("redistil", 0.0, "begin")
    old, labels = WeightMap.load(Path(spec["student"])), LabelSpace.model_validate(spec["labels"])
    if not spec["student_gaps"]:
        tutor = WeightMap.load(Path(spec["tutor"]))
        new = WeightMap({**toy.weights(labels, toy.quality(tutor), size=8)})
    else:
        new = apply(old, toy.merged_gap(spec["student_gaps"], old))
    known = DetectorSpec.of_file(Path(spec["student"])).labels
    return {
        **toy.kept(new, labels, folder / "student.safetensors"),
        "onnx": toy.kept_onnx(new, folder / "student.onnx"),
        "before": toy.figures(old, known),
        "after": toy.figures(new, labels),
        "candidates": {"student_gap": toy.quality(new)},
        "styles": spec["styles"],
        "seconds": {"redistil": 0.1},
    }
