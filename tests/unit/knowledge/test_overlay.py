"""Batch-norm statistics of a site over a release: measured without training, used only where they help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapes import KNOWN, World, tiny

from diredi.data.dataset import Dataset
from diredi.detectors import registry
from diredi.detectors.base import Detector
from diredi.errors import CorruptData, InvalidInput
from diredi.evaluation.detection import evaluate
from diredi.knowledge.overlay import Overlay, choose_overlay, fit_overlay, measure_statistics


def shifted(detector: Detector) -> Detector:
    """A release whose statistics are of other images: all its layers see more contrast than they expect."""
    copy = registry.from_weights(detector.spec, detector.weights(), "cpu")
    copy.load_weights(copy.weights().mapped(lambda name, array: array * 4 if name.endswith("running_var") else array))
    return copy


@pytest.fixture(scope="module")
def site(world: World) -> Dataset:
    """Few images, which is enough."""
    return world.site.sample(24, val=24)


@pytest.fixture(scope="module")
def release(world: World) -> Detector:
    return shifted(world.tutor_2())


@pytest.mark.slow
def test_an_overlay_helps_a_release_that_expects_other_images_and_moves_no_weight(
    site: Dataset, release: Detector, tmp_path: Path
) -> None:
    before = release.weights()
    fitted = fit_overlay(release, site, shares=(0.5, 1.0))
    assert fitted.overlay is not None
    assert fitted.after.map50 > fitted.before.map50 + 0.05
    applied = fitted.overlay.apply(release)
    assert applied.spec == release.spec
    for name, array in applied.weights().items():
        moved = name.endswith(("running_mean", "running_var"))
        assert moved is (name in fitted.overlay.statistics)
        assert moved or np.array_equal(array, before[name]), name
    assert dict(release.weights()).keys() == dict(before).keys()
    assert all(np.array_equal(array, before[name]) for name, array in release.weights().items())

    digest = fitted.overlay.save(tmp_path / "site.overlay")
    assert (tmp_path / "site.overlay").stat().st_size < 0.1 * sum(array.nbytes for array in before.values())
    again = Overlay.load(tmp_path / "site.overlay")
    assert again.note == fitted.overlay.note
    assert again.save(tmp_path / "twice") == digest
    assert evaluate(again.apply(release), site).map50 == fitted.after.map50


def test_an_overlay_is_for_one_release(world: World, site: Dataset, release: Detector) -> None:
    overlay = choose_overlay(release, site, shares=(1.0,))
    assert overlay is not None
    with pytest.raises(InvalidInput, match="measure it again"):
        overlay.apply(world.detector())


def test_no_overlay_is_better_than_one_that_does_not_help(world: World, site: Dataset) -> None:
    assert fit_overlay(world.tutor_2(), site, shares=()).overlay is None
    without = registry.create("yolo11-w0.125-gn", 64, KNOWN, device="cpu")
    assert len(measure_statistics(without, site.train[:2])) == 0
    assert choose_overlay(without, site) is None


def test_what_is_no_overlay_is_refused(tmp_path: Path) -> None:
    tiny().save(tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("overlay")
    for name in ("model.safetensors", "text"):
        with pytest.raises(CorruptData, match=name):
            Overlay.load(tmp_path / name)
