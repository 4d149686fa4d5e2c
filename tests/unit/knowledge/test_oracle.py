"""A site without labels: an oracle says what is on its images, the student learns it, and all figures are estimates."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from shapes import GROWN, KNOWN, World, tiny

from diredi.data.dataset import load
from diredi.distillation.ensemble import TTAPredictor, pseudo_label
from diredi.errors import CorruptData, DatasetError, InvalidInput, NotFound
from diredi.evaluation.detection import evaluate
from diredi.knowledge.extraction import extract_gap
from diredi.knowledge.jobs import extract, oracle, validate
from diredi.knowledge.jobs.specs import ExtractSpec, OracleSpec, ValidateSpec
from diredi.labels import LabelSpace
from diredi.progress import Progress

QUICK = {"steps": 2, "batch": 4}
CYCLE: dict[str, Any] = {"labels": "oracle", "form": "weights", "tutor": QUICK, "student": QUICK}


def quiet(progress: Progress) -> None:
    assert 0 <= progress.fraction <= 1


@pytest.fixture
def frames(world: World, tmp_path: Path) -> Path:
    """The images of the site alone: no label file, and a data.yaml without names."""
    folder = tmp_path / "frames"
    shutil.copytree(world.site_yaml.parent / "images", folder / "images")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\n")
    return folder / "data.yaml"


def spec_of(world: World, tmp_path: Path, **changes: Any) -> OracleSpec:
    values = {"looks": (1.0, 1.5), "confidence": 0.25, "kept": tmp_path / "kept" / "oracle.json"}
    return OracleSpec(**{"detector": world.model, "labels": KNOWN, **values, **changes})


@pytest.mark.slow
def test_an_oracle_labels_both_splits_with_what_its_looks_agree_on(world: World, frames: Path, tmp_path: Path) -> None:
    site = load(frames, read_labels=False)
    assert (site.names, site.judged_by) == ((), "labels")
    labelled = oracle.label(site, spec_of(world, tmp_path), on_progress=quiet)
    assert (labelled.names, labelled.judged_by) == (KNOWN.names, "oracle")
    by_hand = pseudo_label(TTAPredictor.of(world.detector(), (64, 96)), site, splits=("train", "val"))
    for split in ("train", "val"):
        for ours, theirs in zip(labelled.split(split), by_hand.split(split), strict=True):
            assert np.array_equal(ours.boxes, theirs.boxes)
    truth = world.site
    quality = evaluate(world.detector(), truth).per_class["box"].ap50
    assert quality > 0.3, "the oracle knows boxes"
    assert labelled.counts("train")["box"] > 0.5 * truth.counts("train")["box"]


@pytest.mark.slow
def test_an_image_is_looked_at_once_unless_it_or_the_oracle_has_changed(
    world: World, frames: Path, tmp_path: Path
) -> None:
    looked: list[str] = []

    def heard(progress: Progress) -> None:
        looked.append(progress.message)

    spec = spec_of(world, tmp_path)
    site = load(frames, read_labels=False)
    oracle.label(site, spec, on_progress=heard)
    assert looked[-1] == f"{len(site.train) + len(site.val)} of {len(site.train) + len(site.val)} images"
    looked.clear()
    again = oracle.label(site, spec, ("val",), on_progress=heard)
    assert looked == [], "the oracle is not even read"
    assert again.counts("val")["box"] > 0
    cv2.imwrite(str(site.val[0].image), np.full((70, 70, 3), 90, np.uint8))
    assert len(oracle.label(site, spec, ("val",), on_progress=heard).val[0].boxes) == 0
    assert looked == ["reading 32 images", "32 of 32 images"]
    looked.clear()
    oracle.label(site, spec_of(world, tmp_path, confidence=0.3), ("val",), on_progress=heard)
    assert looked, "asked for something else it looks again"


def test_answers_that_were_damaged_are_made_again(world: World, frames: Path, tmp_path: Path) -> None:
    spec, site = spec_of(world, tmp_path), load(frames, read_labels=False)
    first = oracle.label(site, spec, ("val",))
    spec.kept.write_text('{"made_from": ')
    second = oracle.label(site, spec, ("val",))
    assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(first.val, second.val, strict=True))


def test_an_oracle_is_silent_on_classes_that_it_does_not_know(world: World, frames: Path, tmp_path: Path) -> None:
    labels = LabelSpace.of(["cat", "bar"])
    labelled = oracle.label(load(frames, read_labels=False), spec_of(world, tmp_path, labels=labels))
    assert labelled.names == ("bar",), "cats may be there or not: nobody has looked for them"


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"detector": Path("gone.pt")}, NotFound, r"gone\.pt"),
        ({"labels": LabelSpace.of(["cat", "dog"])}, InvalidInput, r"oracle \(box, bar\).*tutor \(cat, dog\)"),
        ({"confidence": 0.999}, DatasetError, r"finds none of box, bar in 48 images of `train`.*0\.999"),
    ],
)
def test_an_oracle_that_cannot_help_is_told_with_the_remedy(
    world: World, frames: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        oracle.label(load(frames, read_labels=False), spec_of(world, tmp_path, **changes))


def test_an_oracle_that_is_no_detector_is_refused(world: World, frames: Path, tmp_path: Path) -> None:
    (tmp_path / "large.safetensors").write_bytes(b"not a model")
    with pytest.raises(CorruptData, match=r"large\.safetensors"):
        oracle.label(load(frames, read_labels=False), spec_of(world, tmp_path, detector=tmp_path / "large.safetensors"))


@pytest.mark.slow
def test_how_far_an_estimate_is_off_is_told_from_images_whose_labels_are_known(world: World, tmp_path: Path) -> None:
    student, coreset = world.detector(), world.presumed
    told = oracle.check_estimate(student, coreset, spec_of(world, tmp_path), seed=0)
    assert told is not None
    few = coreset.sample(60).train
    looks = TTAPredictor.of(world.detector(), (64, 96))
    by_labels = 100 * evaluate(student, few, KNOWN).map50
    by_oracle = 100 * evaluate(student, pseudo_label(looks, few), KNOWN).map50
    assert told.subject == "estimates"
    assert told.choice.startswith(f"about {abs(by_oracle - by_labels):.0f} points too ")
    assert f"60 images of the coreset is {by_labels:.1f} by labels and {by_oracle:.1f} by the oracle" in told.because
    assert oracle.check_estimate(student, coreset, spec_of(world, tmp_path, confidence=0.999), seed=0) is None


@pytest.mark.slow
def test_a_site_without_labels_gives_gaps_whose_figures_are_estimates(
    world: World, frames: Path, tmp_path: Path
) -> None:
    models = {"tutor": world.model, "student": world.model}
    own = tmp_path / "own.safetensors"
    shutil.copy(world.model, own)
    by = spec_of(world, tmp_path, detector=own)
    spec = ExtractSpec.of({"data": frames, **models, "labels": KNOWN, "recipe": CYCLE, "oracle": by})
    result = extract.main(spec, tmp_path / "extract", quiet)
    for metrics in (result.student_before, result.tutor_after, result.student_after):
        assert metrics is not None and metrics.estimated
        assert str(metrics).endswith("estimated by an oracle's answers")
    said = result.decisions[0]
    assert (said.subject, said.choice) == ("labels", "oracle")
    assert said.because.startswith("the recipe says so; a detector of the site found b")
    assert "of 48 images to learn from" in said.because and "of 32 images held out" in said.because
    assert str(tmp_path) not in result.model_dump_json(include={"decisions"})
    kept = json.loads(by.kept.read_text())
    assert len(kept["boxes"]) == 48 + 32

    from diredi.detectors.export import export_onnx

    export_onnx(world.detector(), tmp_path / "student.onnx")
    candidate = ValidateSpec(data=frames, onnx=tmp_path / "student.onnx", labels=KNOWN, oracle=by)
    steps: list[str] = []
    validated = validate.main(candidate, tmp_path, lambda progress: steps.append(progress.step)).metrics
    assert set(steps) == {"validate"}, "the oracle has looked at these images before"
    assert validated.estimated and validated.images == 32
    assert validated.map50 == pytest.approx(result.student_before.map50, abs=0.02), "the same model by the same answers"
    by.kept.unlink()
    assert validate.main(candidate, tmp_path, quiet).metrics == validated, "made again, they are the same"


def test_a_recipe_that_wants_an_oracle_takes_no_other_labels(world: World) -> None:
    with pytest.raises(InvalidInput, match=r"pseudo_label\(\.\.\., splits="):
        extract_gap(tiny(GROWN), tiny(GROWN), world.site, recipe={"labels": "oracle"})


def test_models_that_do_not_go_together_are_told_before_the_oracle_looks(
    world: World, frames: Path, tmp_path: Path
) -> None:
    by = spec_of(world, tmp_path)
    models = {"tutor": world.model, "student": world.model}
    recipe = CYCLE | {"student": {"losses": {"no_such_loss": 1.0}}}
    spec = ExtractSpec.of({"data": frames, **models, "labels": KNOWN, "recipe": recipe, "oracle": by})
    with pytest.raises(InvalidInput, match="no_such_loss"):
        extract.main(spec, tmp_path / "extract", quiet)
    assert not by.kept.exists()
