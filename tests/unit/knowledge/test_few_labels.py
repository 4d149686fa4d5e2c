"""A site that has labelled ten images, and only its new class: what is not labelled is not taught to be absent."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapes import GROWN, KNOWN, LEARN, World

from diredi.boxes import box_iou
from diredi.data.archive import pack
from diredi.data.dataset import Dataset, load
from diredi.evaluation.detection import evaluate
from diredi.knowledge.adaptation import hold_back
from diredi.knowledge.extraction import extract_gap
from diredi.knowledge.gap_application import apply
from diredi.knowledge.jobs import extract, filling, validate
from diredi.knowledge.jobs.specs import ExtractSpec, OracleSpec, ValidateSpec
from diredi.knowledge.recipe import CycleRecipe
from diredi.knowledge.reverse import SiteData

DISC = GROWN.id_of("disc")
FEW = 10
QUICK = {"steps": 2, "batch": 4}


@pytest.fixture
def few(world: World, tmp_path: Path) -> Path:
    """The site with labels of discs alone, on ten of the images to learn from, and on half of those held out."""
    folder = tmp_path / "few"
    shutil.copytree(world.site_yaml.parent, folder)
    for split, images in (("train", FEW), ("val", 16)):
        chosen = 0
        for label in sorted((folder / "labels" / split).iterdir()):
            discs = [line for line in label.read_text().splitlines() if line.startswith(f"{DISC} ")]
            if discs and chosen < images:
                label.write_text("\n".join(discs))
                chosen += 1
            else:
                label.unlink()
    description = (folder / "data.yaml").read_text().replace(str(world.site_yaml.parent), str(folder))
    (folder / "data.yaml").write_text(description)
    return folder / "data.yaml"


def oracle_of(world: World, tmp_path: Path) -> OracleSpec:
    kept = tmp_path / "oracle.json"
    return OracleSpec(detector=world.model, labels=KNOWN, looks=(1.0,), confidence=0.25, kept=kept)


def filled(world: World, few: Path, tmp_path: Path) -> tuple[Dataset, Dataset, str]:
    site, unlabelled = filling.without_label_file(load(few))
    shown, (decision,) = filling.fill_in(site, unlabelled, oracle_of(world, tmp_path), who="the cloud's tutor")
    assert shown is not None
    return site, shown, f"{decision.subject}: {decision.choice}, because {decision.because}"


def test_images_without_a_label_file_are_neither_background_nor_measured_on(few: Path) -> None:
    whole = load(few)
    site, unlabelled = filling.without_label_file(whole)
    assert (len(site.train), len(site.val)) == (FEW, 16)
    assert len(unlabelled) == len(whole.train) - FEW
    assert all(len(sample.boxes) for sample in site.train)


def test_an_empty_label_file_says_that_an_image_shows_nothing(few: Path) -> None:
    (few.parent / "labels" / "train" / f"{load(few).train[-1].image.stem}.txt").write_text("")
    site, unlabelled = filling.without_label_file(load(few))
    assert len(site.train) == FEW + 1
    assert not {sample.image for sample in site.train} & {sample.image for sample in unlabelled}


def test_classes_that_a_site_names_and_never_labels_are_not_taught_to_be_absent(world: World, few: Path) -> None:
    data = SiteData.of(load(few), world.presumed, GROWN, presumed_shows_new=False)
    assert data.private.classes == frozenset({DISC})
    assert SiteData.of(world.site, None, GROWN, presumed_shows_new=False).private.classes is None


def test_an_oracle_fills_in_known_classes_beside_the_labels_of_the_site(
    world: World, few: Path, tmp_path: Path
) -> None:
    site, shown, said = filled(world, few, tmp_path)
    assert shown.names == KNOWN.names, "of new classes these images say nothing"
    looked_at = {sample.image for sample in shown.train}
    assert looked_at & {sample.image for sample in site.train}, "images with labels of new classes alone, too"
    assert looked_at - {sample.image for sample in site.train}
    assert all(len(sample.boxes) for sample in shown.train)
    labels = {sample.image: sample.boxes for sample in site.train}
    for sample in shown.train:
        for label in labels.get(sample.image, np.zeros((0, 5), np.float32)):
            overlap = box_iou(corners(label), np.array([corners(box) for box in sample.boxes]))
            assert (overlap < filling.SAME).all(), "an object with a label is what its label says"
    assert "38 images without a label file" in said and "no label of a known class" in said and "box" in said


def corners(box: np.ndarray) -> np.ndarray:
    return np.concatenate([box[1:3] - box[3:5] / 2, box[1:3] + box[3:5] / 2])


def test_a_site_that_labels_known_classes_everywhere_is_left_alone(world: World, tmp_path: Path) -> None:
    site, unlabelled = filling.without_label_file(world.site)
    assert filling.fill_in(site, unlabelled, oracle_of(world, tmp_path), who="") == (None, ())


def test_few_images_are_seen_more_often_and_none_is_held_back_from_a_new_class(
    world: World, few: Path, tmp_path: Path
) -> None:
    site, shown, _ = filled(world, few, tmp_path)
    data = SiteData.of(site, world.presumed, GROWN, False, shown)
    assert data.repeats > 2
    shown = sum(len(pool.samples) for pool in data.pools[1:])
    assert 0.4 < len(data.pools[0].samples) / (len(data.pools[0].samples) + shown) < 0.6
    learned, held = hold_back(data, CycleRecipe())
    assert len(learned.private.samples) == FEW and held.filled_in.samples
    assert SiteData.of(world.site, None, GROWN, False).repeats == 1


@pytest.mark.slow
def test_the_job_says_in_the_manifest_what_it_filled_in(world: World, few: Path, tmp_path: Path) -> None:
    pack(world.presumed.sample(20), tmp_path / "coreset.zip")
    spec = ExtractSpec(
        data=few,
        tutor=world.model,
        student=world.model,
        coreset=tmp_path / "coreset.zip",
        labels=GROWN,
        recipe=CycleRecipe.of({"form": "weights", "tutor": QUICK, "student": QUICK}),
        filling=oracle_of(world, tmp_path),
        no_label_file="unlabelled",
    )
    result = extract.main(spec, tmp_path, lambda _: None)
    said = {decision.subject: decision for decision in result.decisions}
    assert "box" in said["known classes filled in"].choice
    assert said["labels"].choice == "say nothing of box, bar"
    assert (result.train_images, result.held_out_images) == (FEW, 16)
    assert result.boxes["disc"] >= FEW and not result.boxes["box"], "counts are of the site's own labels"


@pytest.mark.slow
def test_a_release_is_measured_on_images_with_labels_alone(world: World, few: Path, tmp_path: Path) -> None:
    from diredi.detectors.export import export_onnx

    onnx = tmp_path / "student.onnx"
    export_onnx(world.detector().expand_classes(GROWN), onnx)
    spec = {"data": few, "onnx": onnx, "labels": GROWN}
    images = [
        validate.main(ValidateSpec(**spec, no_label_file=rule), tmp_path, lambda _: None).metrics.images
        for rule in ("unlabelled", "background")
    ]
    assert images == [16, len(load(few).val)]


@pytest.mark.slow
def test_ten_images_teach_a_new_class_and_cost_no_known_one(world: World, few: Path, tmp_path: Path) -> None:
    site, shown, _ = filled(world, few, tmp_path)
    learn = LEARN.model_dump() | {"steps": 60, "learning_rate": 4e-3}
    recipe: dict[str, Any] = {"form": "weights", "tutor": learn, "student_gap": False, "lam": 1.0}
    gaps = extract_gap(world.detector(), world.detector(), site, coreset=world.presumed, recipe=recipe, filled_in=shown)
    tutor_2 = world.detector().expand_classes(GROWN)
    tutor_2.load_weights(apply(tutor_2.weights(), gaps.tutor.weights, 1.0))
    truth = replace(world.site, train=[])
    before, after = (evaluate(model, truth).per_class for model in (world.detector(), tutor_2))
    assert after["disc"].ap50 > 0.4
    for name in KNOWN.names:
        assert after[name].ap50 > before[name].ap50 - 0.1, f"{name} is everywhere at the site and nowhere labelled"
