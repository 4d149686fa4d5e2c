"""The toy detector: a head with a row a class, and a body. Its quality is what its body says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diredi.detectors.spec import DetectorSpec
from diredi.evaluation.metrics import ClassMetrics, DetectionMetrics
from diredi.knowledge.gap import Gap
from diredi.knowledge.jobs.specs import File, SiteGap
from diredi.knowledge.merging import Contribution, MergeRecipe, merge_gaps
from diredi.labels import LabelSpace
from diredi.store.blobs import digest_of_file
from diredi.store.weights import WeightMap

ARCHITECTURE, IMAGE_SIZE = "yolo11-w0.125", 64
ROWS = "model.23.cv3.0.2.weight"
"""What this architecture calls a weight that has a row for each class."""


def weights(labels: LabelSpace, quality: float = 0.8, size: int = 16) -> WeightMap:
    rows = np.arange(len(labels) * 4, dtype=np.float32).reshape(len(labels), 4)
    return WeightMap(
        {
            "body.weight": np.full((size, size), quality, np.float32),
            ROWS: rows,
            "norm.running_var": np.ones(4, np.float32),
            "norm.num_batches_tracked": np.array(3, np.int64),
        }
    )


def quality(toy: WeightMap) -> float:
    return float(toy["body.weight"].mean())


def metrics(toy: WeightMap, labels: LabelSpace) -> DetectionMetrics:
    value = quality(toy)
    per_class = {name: ClassMetrics(ap50=value, ap50_95=value, boxes=1) for name in labels.names}
    return DetectionMetrics(
        map50=value, map50_95=value, precision=value, recall=value, f1=value, per_class=per_class, images=2
    )


def kept(toy: WeightMap, labels: LabelSpace, path: Path) -> dict[str, Any]:
    toy.save(path, DetectorSpec(architecture=ARCHITECTURE, image_size=IMAGE_SIZE, labels=labels).to_metadata())
    return {"weights": path, **described(path)}


def kept_onnx(toy: WeightMap, path: Path) -> File:
    """Some bytes that stand for an ONNX file: the cloud never opens one."""
    path.write_bytes(b"onnx of " + toy.to_bytes())
    return File(path=path, **described(path))


def described(path: Path) -> dict[str, Any]:
    blob = digest_of_file(path)
    return {"digest": blob.digest, "bytes": blob.bytes}


def merged_gap(gaps: Sequence[SiteGap], base: WeightMap) -> Gap:
    """As the real jobs do it, without the torch that they import; figures to foretell."""
    ours = [Contribution(one.site, Gap.from_bytes(one.path.read_bytes(), one.codec), one.images) for one in gaps]
    return merge_gaps(ours, base, MergeRecipe(method="mean"))
