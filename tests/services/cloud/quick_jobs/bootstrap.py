from __future__ import annotations

from pathlib import Path

import yaml

from diredi.labels import LabelSpace
from tests.services.cloud.quick_jobs import toy


def main(spec, folder, report):
    report("tutor", 0.5, "half")
    labels = LabelSpace(names=tuple(yaml.safe_load(Path(spec["presumed"]).read_text())["names"]))
    tutor, student = toy.weights(labels), toy.weights(labels, 0.7, size=8)
    coreset = folder / "coreset.zip"
    coreset.write_bytes(b"a zip of presumed pictures")
    return {
        "teacher": None,
        "tutor": {
            **toy.kept(tutor, labels, folder / "tutor.safetensors"),
            "architecture": toy.ARCHITECTURE,
            "figures": toy.figures(tutor, labels),
        },
        "student": {
            **toy.kept(student, labels, folder / "student.safetensors"),
            "architecture": toy.ARCHITECTURE,
            "onnx": toy.kept_onnx(student, folder / "student.onnx"),
            "figures": toy.figures(student, labels),
        },
        "coreset": {"path": str(coreset), **toy.described(coreset)},
        "seconds": {},
    }
