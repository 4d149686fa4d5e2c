"""What the jobs share: reading what a spec names, writing what a result names, and taking the time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diredi.data.dataset import load as load_dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.detectors.onnx import OnnxPredictor
from diredi.jobs import Report
from diredi.knowledge.gap import Gap
from diredi.knowledge.gap_application import Presumed
from diredi.knowledge.merging import Contribution, merged
from diredi.knowledge.recipe import CycleRecipe
from diredi.labels import LabelSpace
from diredi.store.blobs import digest_of_file
from diredi.store.files import atomic_write

Json = dict[str, Any]


class Clock:
    """Seconds by step, in the order in which the steps began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 2)


def trainings_in(folder: Path) -> Path:
    """Where the trainings of a job keep what a second run of the killed job goes on from, each under its own name."""
    return folder / "training"


def forget_trainings(folder: Path) -> None:
    """At the end of the job, not of a training: a job that is killed in its last step repeats none of them."""
    shutil.rmtree(trainings_in(folder), ignore_errors=True)


def part_of(report: Report, step: str) -> Callable[[float, str], None]:
    return lambda fraction, message: report(step, fraction, message)


def labels_of(spec: Json) -> LabelSpace:
    return LabelSpace.model_validate(spec["labels"])


def presumed_of(spec: Json, labels: LabelSpace) -> Presumed:
    data = load_dataset(Path(spec["presumed"])).with_labels(labels)
    return Presumed(labels, data.train, data.val)


def contributions_of(listed: list[Json]) -> list[Contribution]:
    """The gaps of a cycle's sites, each {"path", "codec", "site", "images"}. Raises CorruptData and InvalidInput."""
    return [
        Contribution(one["site"], Gap.from_bytes(Path(one["path"]).read_bytes(), one["codec"]), one["images"])
        for one in listed
    ]


def merged_of(listed: list[Json], base: Detector, recipe: CycleRecipe) -> tuple[Gap, CycleRecipe]:
    """The gaps of a cycle's sites as one, and the recipe for that one: where weights are of several sites no site has
    statistics for them. Raises CorruptData and InvalidInput."""
    gap = merged(contributions_of(listed), base.weights(), recipe.merge)
    again = len(listed) > 1 and recipe.batch_norm == "gap" and recipe.merge.batch_norm == "re-estimate"
    return gap, recipe.model_copy(update={"batch_norm": "re-estimate"}) if again else recipe


def write_weights(detector: Detector, path: Path) -> Json:
    registry.save(detector, path)
    return {"weights": str(path), **described(path)}


def write_onnx(detector: Detector, path: Path) -> tuple[Json, OnnxPredictor]:
    """The file that edge nodes run, and that file loaded: what is measured is what is shipped."""
    from diredi.detectors.export import export_onnx

    export_onnx(detector, path)
    return {"path": str(path), **described(path)}, OnnxPredictor(path)


def write_gap(gap: Gap, codec: str, path: Path, fp32_bytes: int) -> Json:
    atomic_write(path, gap.to_bytes(codec))
    said = {"codec": codec, "fp32_bytes": fp32_bytes, "schema_digest": gap.weights.schema_digest()}
    return {"path": str(path), **described(path), **said}


def described(path: Path) -> Json:
    blob = digest_of_file(path)
    return {"digest": blob.digest, "bytes": blob.bytes}
