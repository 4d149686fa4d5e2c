from __future__ import annotations

from pathlib import Path

import yaml

from diredi.knowledge.jobs.specs import BootstrapResult, BootstrapSpec, File, FirstModel
from diredi.labels import LabelSpace
from diredi.progress import OnProgress, report
from tests.services.cloud.quick_jobs import toy


def main(spec: BootstrapSpec, folder: Path, on_progress: OnProgress) -> BootstrapResult:
    report(on_progress, "tutor", 0.5, "half")
    labels = LabelSpace(names=tuple(yaml.safe_load(spec.presumed.read_text())["names"]))
    tutor, student = toy.weights(labels), toy.weights(labels, 0.7, size=8)
    coreset = folder / "coreset.zip"
    coreset.write_bytes(b"a zip of presumed pictures")
    return BootstrapResult(
        teacher=None,
        tutor=FirstModel(
            **toy.kept(tutor, labels, folder / "tutor.safetensors"),
            architecture=toy.ARCHITECTURE,
            metrics=toy.metrics(tutor, labels),
        ),
        student=FirstModel(
            **toy.kept(student, labels, folder / "student.safetensors"),
            architecture=toy.ARCHITECTURE,
            onnx=toy.kept_onnx(student, folder / "student.onnx"),
            metrics=toy.metrics(student, labels),
        ),
        coreset=File(path=coreset, **toy.described(coreset)),
        seconds={},
    )
