"""A router: a branch is heard for some of its classes in its own place alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import diredi
from diredi.detectors.base import Detector, Router
from diredi.detectors.families import FAMILIES, family_of
from diredi.detectors.onnx import OnnxPredictor
from diredi.store.weights import WeightMap

HERE, ELSEWHERE = 0, 1
"""The two images of `PAIR`."""
PAIR = torch.stack([torch.full((3, 64, 64), 0.9), torch.full((3, 64, 64), 0.1)])


def moved(detector: Detector, by: float) -> Detector:
    """A copy whose neck and head are others."""
    copy = detector.expand_classes(detector.spec.labels)
    weights = detector.weights()
    copy.load_weights(
        weights.mapped(lambda name, a: a + np.float32(by) if detector.section_of(name) in ("neck", "head") else a)
    )
    return copy


def router_for(detector: Detector, place: int, *classes: int) -> Router:
    """One that knows an image of the pair from the other."""
    with torch.no_grad():
        scenes = detector.scene(PAIR)
    weight = scenes[place] - scenes[1 - place]
    middle = (scenes.mean(0) * weight).sum()
    scale = 60 / (weight * weight).sum()
    return Router(classes, scale * weight, -scale * middle)


def logits(detector: Detector) -> torch.Tensor:
    with torch.no_grad():
        return detector.forward(PAIR).class_logits


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for the order of sums; and nobody is surer than a router is."""
    return torch.allclose(one.clamp(max=20), other.clamp(max=20), rtol=0, atol=1e-4)


def silent(said: torch.Tensor) -> bool:
    return bool(said.sigmoid().max() < 1e-9)


@pytest.fixture(scope="module")
def branch(small: Detector) -> Detector:
    """What learned dogs, which `small` knew, and forklifts, which it did not."""
    return moved(small.expand_classes(small.spec.labels.expand(["forklift"])), 0.02)


@pytest.fixture(scope="module")
def routed(small: Detector, branch: Detector) -> Detector:
    """It finds forklifts by that branch everywhere, and dogs by it in its own place alone. Tests do not change it."""
    return small.with_branch(branch, [2, 3], router_for(small, HERE, 2))


def test_elsewhere_a_known_class_is_found_as_before_and_a_new_one_by_the_branch(
    small: Detector, branch: Detector, routed: Detector
) -> None:
    before, taught, after = logits(small), logits(branch), logits(routed)
    anchors = before.shape[1]
    main, own = after[:, :anchors], after[:, anchors:]
    assert same(main[..., :2], before[..., :2])
    assert same(main[ELSEWHERE, :, 2], before[ELSEWHERE, :, 2]) and silent(own[ELSEWHERE, :, 2])
    assert same(own[HERE, :, 2], taught[HERE, :, 2]) and silent(main[HERE, :, 2])
    assert same(own[..., 3], taught[..., 3]) and silent(main[..., 3])


def test_each_of_two_places_has_its_own_branch(small: Detector, routed: Detector) -> None:
    other = moved(routed.parts()[0], 0.05)
    both = routed.with_branch(other, [2], router_for(small, ELSEWHERE, 2))
    assert both.spec.branches == ((2, 3), (2,)) and both.spec.routed == ((2,), (2,))
    first, second, main = logits(routed), logits(other), logits(small)
    anchors, after = main.shape[1], logits(both)
    assert same(after[HERE, anchors : 2 * anchors, 2], first[HERE, anchors:, 2])
    assert same(after[ELSEWHERE, 2 * anchors :, 2], second[ELSEWHERE, :, 2])
    assert silent(after[ELSEWHERE, anchors : 2 * anchors, 2]) and silent(after[HERE, 2 * anchors :, 2])
    assert silent(after[:, :anchors, 2])


def test_it_is_one_file_that_comes_back_as_it_was(routed: Detector, tmp_path: Path) -> None:
    digest = routed.save(tmp_path / "model.safetensors")
    again = diredi.load(tmp_path / "model.safetensors", device="cpu")
    assert again.spec == routed.spec and again.digest == digest == routed.digest
    assert same(logits(again), logits(routed))
    (router,) = again.routers()
    assert router is not None and router.classes == (2,)


@pytest.mark.slow
def test_an_edge_node_hears_the_same_part_on_each_image_of_a_batch(routed: Detector, tmp_path: Path) -> None:
    diredi.export(routed, tmp_path / "model.onnx")
    images = [np.full((64, 64, 3), shade, np.uint8) for shade in (230, 25)]
    for mine, theirs in zip(
        routed.predict(images), OnnxPredictor(tmp_path / "model.onnx").predict(images), strict=True
    ):
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)
        np.testing.assert_array_equal(mine.classes, theirs.classes)


def test_its_heads_grow_and_its_router_stays(routed: Detector) -> None:
    grown = routed.expand_classes(routed.spec.labels.expand(["crane"]))
    assert grown.spec.routed == routed.spec.routed
    assert same(logits(grown)[..., :4], logits(routed))


def test_its_parts_are_detectors_without_a_router(branch: Detector, routed: Detector) -> None:
    main, part = routed.parts()
    assert not main.spec.routed and not part.spec.routed
    assert same(logits(part), logits(branch))


def test_a_branch_without_a_router_has_the_file_that_it_always_had(
    small: Detector, branch: Detector, tmp_path: Path
) -> None:
    plain = small.with_branch(branch, [2, 3])
    assert plain.routers() == [None]
    assert "routed" not in next(iter(plain.spec.to_metadata().values()))
    plain.save(tmp_path / "model.safetensors")
    assert not any("router" in name for name in WeightMap.load(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("wrong", [((0,),), ((2, 2),), ((3, 2),), ((), ()), ((9,),)])
def test_a_router_for_what_its_branch_has_not_is_no_specification(
    routed: Detector, wrong: tuple[tuple[int, ...], ...]
) -> None:
    with pytest.raises(ValidationError):
        type(routed.spec).model_validate({**dict(routed.spec), "routed": wrong})


def test_a_branch_that_goes_on_learning_leaves_its_router_in_place(routed: Detector) -> None:
    router = routed.routers()[0]
    assert router is not None
    again = routed.parts()[0].with_branch(routed.parts()[1], [2, 3], replace(router, classes=(2,)))
    assert same(logits(again), logits(routed))


@pytest.mark.parametrize("name", ["yolov8-w0.0625", "yolo11-w0.125", "yolo26-w0.0625", "libreyolo9-w0.125"])
def test_every_family_says_how_many_channels_a_router_reads(name: str) -> None:
    if name.startswith("libreyolo"):
        pytest.importorskip("libreyolo")
    detector = diredi.create(name, 64, ["box"], device="cpu")
    channels = detector.scene(torch.zeros(1, 3, 64, 64)).shape[1]
    assert len(detector.weights()[family_of(name).last_map]) == channels


def test_all_families_were_asked() -> None:
    assert len(FAMILIES) == 4
