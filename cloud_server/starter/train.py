"""`python -m cloud_server.starter.train`: trains the starter release; with `--check` compares it with the one shipped.

It is the cloud's own bootstrap with its default recipe, on the built-in scenes, with a fixed seed and one thread, so
that a processor always makes the same weights. Another kind of processor rounds other last bits, which a training
carries on: its weights differ, and its figures by a few points.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cloud_server.starter import FOLDER, KINDS, Kind, StarterModel, StarterRelease, read_release
from diredi.config import Config
from diredi.errors import DirediError
from diredi.knowledge.jobs.specs import BootstrapSpec, FirstModel
from diredi.knowledge.recipe import BootstrapRecipe
from diredi.progress import Progress

if TYPE_CHECKING:
    from diredi.data.dataset import Dataset

Json = dict[str, Any]

ROUNDING_POINTS = 0.1
"""How many points of mAP50 half precision may cost."""
CHECK_POINTS = 6.0
"""How many points of mAP50 two kinds of processor may differ by."""
_THREADS = 1
_EVERY = 0.1


class Plan(Config):
    """What is trained, and on what; the defaults are the release that is shipped."""

    presumed: str = "scenes:presumed"
    site: str = "scenes:site-1"
    """A site's scenes: they are only measured on."""
    train_images: int | None = None
    held_out_images: int | None = None
    """None: as many images as the scenes usually have."""
    tutor: str = "yolo11n"
    student: str = "yolo11-w0.125"
    image_size: int = 160
    recipe: BootstrapRecipe = Field(default_factory=lambda: BootstrapRecipe.of(None))


def make_release(plan: Plan, target: Path, work: Path) -> StarterRelease:
    """Train tutor and student as the cloud's bootstrap does, and write the release.

    Args:
        plan: What to train.
        target: The folder that gets both files in half precision and `starter.json`.
        work: A folder for scenes and checkpoints: a training that was killed goes on from there.

    Returns:
        What `starter.json` says.

    Raises:
        DirediError: Half precision costs more than `ROUNDING_POINTS`; nothing is written to `target` then.
    """
    import torch

    from diredi.data.dataset import load
    from diredi.data.sources import resolve
    from diredi.knowledge.jobs import bootstrap

    torch.set_num_threads(_THREADS)
    seed, counts = plan.recipe.seed, (plan.train_images, plan.held_out_images)
    presumed = resolve(plan.presumed, work / "data", seed, *counts).resolve()
    site = resolve(plan.site, work / "data", seed, *counts).resolve()
    recipe = plan.recipe.model_copy(update={"coreset_images": 0})  # a cloud draws its own
    spec = BootstrapSpec(
        presumed=presumed, image_size=plan.image_size, tutor=plan.tutor, student=plan.student, recipe=recipe
    )
    trained = bootstrap.main(spec, work, _Printer())
    held_out = {plan.presumed: load(presumed), plan.site: load(site, ("val",))}
    rounded = work / "half"
    models = {kind: _rounded(kind, getattr(trained, kind), rounded, held_out) for kind in KINDS}
    release = StarterRelease(
        command="make starter",
        presumed=plan.presumed,
        train_images=len(held_out[plan.presumed].train),
        seed=seed,
        threads=_THREADS,
        torch=torch.__version__.partition("+")[0],
        image_size=plan.image_size,
        classes=held_out[plan.presumed].names,
        recipe=recipe.model_dump(mode="json"),
        **models,
    )
    target.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        shutil.copyfile(rounded / release.model(kind).file, target / release.model(kind).file)
    (target / "starter.json").write_text(release.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return release


def measure(weights: Path, held_out: dict[str, Dataset]) -> Json:
    """Evaluate an fp32 file on the held-out images of each data set.

    Args:
        weights: A safetensors file of fp32 weights.
        held_out: Data sets by their names.

    Returns:
        Each data set's name with the figures on it. A class that the model does not know counts as never found.
    """
    from diredi.detectors import registry
    from diredi.evaluation.detection import evaluate

    detector = registry.load(weights, device="cpu")
    return {name: evaluate(detector, data) for name, data in held_out.items()}


def _rounded(kind: Kind, trained: FirstModel, folder: Path, held_out: dict[str, Dataset]) -> StarterModel:
    """Writes one model in half precision, and measures what is left of it when it is read again."""
    import numpy as np

    from diredi.detectors.spec import DetectorSpec
    from diredi.store.weights import WeightMap

    source, path = trained.weights, folder / f"{kind}.safetensors"
    half = WeightMap.load(source).mapped(lambda _, array: array.astype(np.float16))
    half.check_finite()
    metadata = DetectorSpec.of_file(source).to_metadata()
    digest = half.save(path, metadata)
    again = folder / "fp32" / path.name
    half.mapped(lambda _, array: array.astype(np.float32)).save(again, metadata)
    exact, metrics = measure(source, held_out), measure(again, held_out)
    for name, before in exact.items():
        points = 100 * abs(before.map50 - metrics[name].map50)
        if points > ROUNDING_POINTS:
            raise DirediError(f"half precision changes the {kind}'s mAP50 on {name} by {points:.2f} points")
    return StarterModel(
        file=path.name,
        digest=digest,
        bytes=path.stat().st_size,
        architecture=trained.architecture,
        metrics=metrics,
    )


def differences(made: StarterRelease, shipped: StarterRelease) -> list[str]:
    """Compare two releases.

    Args:
        made: The release that was trained here.
        shipped: The release that is in the tree.

    Returns:
        A sentence for each difference that a processor's rounding does not explain; empty if there is none.
    """
    said = [
        f"{name} is {getattr(made, name)} here and {getattr(shipped, name)} in starter.json"
        for name in ("presumed", "train_images", "seed", "image_size", "classes", "recipe")
        if getattr(made, name) != getattr(shipped, name)
    ]
    for kind in KINDS:
        ours, theirs = made.model(kind), shipped.model(kind)
        if ours.architecture != theirs.architecture:
            said.append(f"the {kind} is {ours.architecture} here and {theirs.architecture} in starter.json")
        for name in sorted(ours.metrics.keys() & theirs.metrics.keys()):
            points = 100 * (ours.metrics[name].map50 - theirs.metrics[name].map50)
            if abs(points) > CHECK_POINTS:
                said.append(f"the {kind}'s mAP50 on {name} differs by {points:+.1f} points")
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, write and print the release; with `--check` compare it with the one that is shipped.

    Args:
        arguments: The words of the command line; None for those of this process.

    Returns:
        The exit code: 0, or 1 if `--check` found a difference.
    """
    parser = argparse.ArgumentParser(prog="cloud_server.starter.train", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="train elsewhere and compare; the tree stays as it is")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="FOLDER", help="where the release goes")
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="diredi-starter-") as folder:
        target = Path(folder) / "release" if wanted.check else wanted.out
        try:
            release = make_release(Plan(), target, Path(folder) / "work")
        except DirediError as error:
            sys.stderr.write(f"starter: {error}\n")
            return error.exit_code
    _print(release)
    return _check(release, read_release()) if wanted.check else 0


def _check(made: StarterRelease, shipped: StarterRelease) -> int:
    found = differences(made, shipped)
    equal = all(made.model(kind).digest == shipped.model(kind).digest for kind in KINDS)
    agreed = "the same weights, bit for bit" if equal else "other last bits, as of another processor; the figures agree"
    for sentence in found or [agreed]:
        sys.stdout.write(f"check: {sentence}\n")
    return 1 if found else 0


def _print(release: StarterRelease) -> None:
    for kind in KINDS:
        model = release.model(kind)
        sys.stdout.write(f"{kind:8} {model.architecture:14} {model.bytes / 2**20:5.2f} MiB  {model.digest}\n")
        for name, metrics in model.metrics.items():
            sys.stdout.write(f"  {name:16} mAP50 {100 * metrics.map50:5.1f}  mAP50-95 {100 * metrics.map50_95:5.1f}\n")


class _Printer:
    """A line for each tenth of a step."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def __call__(self, progress: Progress) -> None:
        if progress.fraction >= self._told.get(progress.step, 0.0) + _EVERY:
            self._told[progress.step] = progress.fraction
            sys.stderr.write(f"{progress}\n")


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch is imported: another device is another arithmetic
    sys.exit(main())
