"""A branch: a neck and a head for some classes, beside what a detector knows, on the one backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import diredi
from diredi.detectors import registry
from diredi.detectors.base import Detector, Targets
from diredi.detectors.onnx import OnnxPredictor
from diredi.errors import InvalidInput
from diredi.store.weights import WeightMap

pytestmark = pytest.mark.slow


def moved(detector: Detector, sections: tuple[str, ...], by: float = 0.02) -> Detector:
    """A copy in which the weights of some sections are others."""
    copy = detector.expand_classes(detector.spec.labels)
    weights = detector.weights()
    copy.load_weights(
        weights.mapped(lambda name, a: a + np.float32(by) if detector.section_of(name) in sections else a)
    )
    return copy


def taught(detector: Detector, *new: str) -> Detector:
    return moved(detector.expand_classes(detector.spec.labels.expand(new)), ("neck", "head"))


@pytest.fixture(scope="module")
def branch(small: Detector) -> Detector:
    """What learned dogs, which `small` knew, and forklifts, which it did not."""
    return taught(small, "forklift")


@pytest.fixture(scope="module")
def branched(small: Detector, branch: Detector) -> Detector:
    """It has that branch. Tests do not change it."""
    return small.with_branch(branch, [2, 3])


def logits(detector: Detector) -> torch.Tensor:
    with torch.no_grad():
        return detector.forward(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).class_logits


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal but for the order of sums, which follows from how many rows a head has."""
    return torch.allclose(one, other, rtol=0, atol=1e-4)


def test_what_the_branch_does_not_speak_for_stays_what_it_was(
    small: Detector, branch: Detector, branched: Detector
) -> None:
    before, after = logits(small), logits(branched)
    anchors = before.shape[1]
    assert after.shape == (2, 2 * anchors, 4)
    assert same(after[:, :anchors, :2], before[..., :2])
    assert same(after[:, anchors:, 2:], logits(branch)[..., 2:])
    nobody = torch.cat([after[:, anchors:, :2].flatten(), after[:, :anchors, 2:].flatten()])
    assert nobody.sigmoid().max() < 1e-9


def test_it_is_one_file_that_comes_back_as_it_was(branched: Detector, tmp_path: Path) -> None:
    digest = branched.save(tmp_path / "model.safetensors")
    again = diredi.load(tmp_path / "model.safetensors", device="cpu")
    assert again.spec.branches == ((2, 3),)
    assert again.digest == digest == branched.digest
    assert same(logits(again), logits(branched))


def test_an_edge_node_finds_what_the_detector_finds(
    branched: Detector, images: list[np.ndarray], tmp_path: Path
) -> None:
    diredi.export(branched, tmp_path / "model.onnx")
    for mine, theirs in zip(
        branched.predict(images), OnnxPredictor(tmp_path / "model.onnx").predict(images), strict=True
    ):
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-5)
        assert len(mine.boxes) == len(theirs.boxes)


def test_its_parts_are_detectors_of_their_own(small: Detector, branch: Detector, branched: Detector) -> None:
    main, part = branched.parts()
    assert not main.spec.branches and not part.spec.branches
    assert same(logits(main)[..., :3], logits(small))
    assert same(logits(part), logits(branch))


def test_a_later_branch_takes_the_word_from_an_earlier_one(branched: Detector) -> None:
    last = branched.with_branch(moved(branched.parts()[0], ("neck", "head"), 0.05), [2])
    assert last.spec.branches == ((2, 3), (2,))
    assert last.spec.speakers() == [0, 0, 2, 1]
    anchors = logits(last).shape[1] // 3
    assert same(logits(last)[:, : 2 * anchors, 3], logits(branched)[..., 3])
    assert logits(last)[:, : 2 * anchors, 2].sigmoid().max() < 1e-9


def test_its_heads_grow_together(branched: Detector) -> None:
    grown = branched.expand_classes(branched.spec.labels.expand(["crane"]))
    assert grown.spec.branches == branched.spec.branches
    assert same(logits(grown)[..., :4], logits(branched))
    assert set(grown.class_rows()) == {name for name in grown.weights() if name in branched.class_rows()}


def test_it_can_go_on_learning_each_part_what_it_speaks_for(branched: Detector) -> None:
    box = torch.tensor([[0.5, 0.5, 0.4, 0.4]])
    learner = branched.expand_classes(branched.spec.labels)
    learner.module.train()
    outputs = learner.forward(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    known, new = (
        learner.detection_loss(outputs, Targets(torch.tensor([0]), torch.tensor([kind]), box)) for kind in (0, 3)
    )
    assert torch.isfinite(known + new)
    (known + new).backward()
    touched = {n.split(".")[0] for n, p in learner.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert "branches" in touched and len(touched) > 1


@pytest.mark.parametrize("sections", [("backbone",), ("backbone", "neck", "head")])
def test_a_branch_on_another_backbone_is_refused(small: Detector, sections: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput, match="another backbone"):
        small.with_branch(moved(small, sections), [0])


def test_a_branch_of_another_architecture_or_for_an_unknown_class_is_refused(small: Detector) -> None:
    other = registry.create("yolov8-w0.0625", 64, small.spec.labels, 0, "cpu")
    with pytest.raises(InvalidInput, match="cannot come from"):
        small.with_branch(other, [0])
    with pytest.raises(InvalidInput, match="label space"):
        small.with_branch(taught(small), [7])


def test_a_detector_without_branches_has_the_file_that_it_always_had(small: Detector, tmp_path: Path) -> None:
    assert "branches" not in next(iter(small.spec.to_metadata().values()))
    small.save(tmp_path / "model.safetensors")
    assert not any("branches" in name for name in WeightMap.load(tmp_path / "model.safetensors"))
