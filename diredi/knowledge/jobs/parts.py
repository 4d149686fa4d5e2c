"""What the jobs share: reading what a specification names, and writing what a result names."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diredi.data.dataset import Dataset
from diredi.data.images import read_image
from diredi.detectors.base import Detector
from diredi.detectors.export import export_onnx
from diredi.detectors.golden import CANDIDATES, add_golden_frames
from diredi.detectors.onnx import OnnxPredictor
from diredi.knowledge.gap import Gap
from diredi.knowledge.jobs.specs import File, SiteGap, WeightsFile
from diredi.knowledge.merging import Contribution, merge_gaps
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.weight_kinds import kind_of
from diredi.store.blobs import digest_of_file


def trainings_in(folder: Path) -> Path:
    """Return where each training of a job keeps what a second run of the killed job goes on from."""
    return folder / "training"


def forget_trainings(folder: Path) -> None:
    """Delete what trainings have kept, when the job ends: one that is killed in its last step repeats none of them."""
    shutil.rmtree(trainings_in(folder), ignore_errors=True)


def contributions_of(gaps: Sequence[SiteGap]) -> list[Contribution]:
    """Read the gaps of a cycle's sites. Raises CorruptData and InvalidInput."""
    return [Contribution(one.site, Gap.from_bytes(one.path.read_bytes(), one.codec), one.images) for one in gaps]


def merged_of(gaps: Sequence[SiteGap], base: Detector, recipe: CycleRecipe) -> tuple[Gap, CycleRecipe]:
    """Return the gaps of a cycle's sites as one, and the recipe for that one.

    Where weights and statistics are of several sites, no site has statistics for the mean of these weights, so they are
    measured again.

    Raises:
        CorruptData: A gap cannot be decoded.
        InvalidInput: A gap does not fit the base or the others.
    """
    gap = merge_gaps(contributions_of(gaps), base.weights(), recipe.merge)
    mixed = len(gaps) > 1 and any(
        array.any() for name, array in gap.weights.items() if kind_of(name, str(array.dtype)).is_statistic
    )
    again = mixed and recipe.batch_norm == "gap" and recipe.merge.batch_norm == "re-estimate"
    return gap, recipe.model_copy(update={"batch_norm": "re-estimate"}) if again else recipe


def write_weights(detector: Detector, path: Path) -> WeightsFile:
    """Write the weights of a detector."""
    detector.save(path)
    file = described(path)
    return WeightsFile(weights=path, digest=file.digest, bytes=file.bytes)


def write_onnx(detector: Detector, path: Path, golden: Dataset | None = None) -> tuple[File, OnnxPredictor]:
    """Write the file that edge nodes run, and load it: what is measured is what is shipped.

    Args:
        detector: The model.
        path: Where the file goes.
        golden: Images that may leave with it: the first that are fit become its golden frames.
    """
    export_onnx(detector, path)
    if golden is not None:
        add_golden_frames(path, (read_image(sample.image) for sample in golden.train))
    return described(path), OnnxPredictor(path)


def golden_images(presumed: Dataset, coreset_images: int, seed: int) -> Dataset:
    """Return images that may become golden frames, drawn as a coreset is; none where no coreset is shipped."""
    coreset = presumed.sample(coreset_images, seed)
    return replace(coreset, train=coreset.train[:CANDIDATES], val=[])


def described(path: Path) -> File:
    """Return digest and size of a file."""
    blob = digest_of_file(path)
    return File(path=path, digest=blob.digest, bytes=blob.bytes)
