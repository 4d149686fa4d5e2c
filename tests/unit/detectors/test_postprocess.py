from __future__ import annotations

import numpy as np
import pytest

from diredi.detectors.postprocess import Letterbox, decode, expected_distances, grid, prepare, suppress


@pytest.mark.parametrize(("height", "width"), [(100, 200), (200, 100), (64, 64), (33, 71), (640, 480)])
def test_boxes_come_back_from_the_letterbox_where_they_were(height, width):
    frame = Letterbox.fit(height, width, 64)
    box = np.array([[0.4, 0.5, 0.3, 0.6]], np.float32)
    cx, cy, w, h = (frame.forward(box, 64) * 64)[0]
    there = np.array([[cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]], np.float32)
    scale = np.array([width, height, width, height])
    assert np.allclose(frame.undo(there), np.array([[0.25, 0.2, 0.55, 0.8]]) * scale, atol=1e-3)


@pytest.mark.parametrize(("height", "width"), [(12, 20_000), (20_000, 12), (1, 1), (1, 64), (3, 640)])
def test_an_image_of_any_shape_is_seen_by_the_network(height: int, width: int):
    image = np.full((height, width, 3), 255, np.uint8)
    batch, [frame] = prepare([image], 64)
    assert (batch == 1).any()
    whole = frame.forward(np.array([[0.5, 0.5, 1, 1]], np.float32), 64)
    assert np.isfinite(whole).all()
    assert frame.undo(np.array([[0, 0, 64, 64]], np.float32)).tolist() == [[0, 0, width, height]]


def test_boxes_outside_the_image_are_cut_at_its_edge():
    frame = Letterbox.fit(50, 100, 64)
    assert frame.undo(np.array([[-50, -50, 500, 500]], np.float32)).tolist() == [[0, 0, 100, 50]]


def test_prepared_images_are_rgb_between_0_and_1_on_grey():
    blue = np.zeros((20, 40, 3), np.uint8)
    blue[:, :, 0] = 255
    batch, _ = prepare([blue], 64)
    assert batch.shape == (1, 3, 64, 64)
    assert batch[0, :, 32, 32].tolist() == [0, 0, 1]
    assert batch[0, :, 0, 0] == pytest.approx([114 / 255] * 3)


def test_anchors_stand_in_the_middle_of_their_cells():
    anchors, strides = grid(64, [8, 16, 32])
    assert len(anchors) == 64 + 16 + 4
    assert anchors[0].tolist() == [4, 4]
    assert anchors[1].tolist() == [12, 4], "x runs first"
    assert (anchors[-1].tolist(), strides[-1]) == ([48, 48], 32)


def test_a_distribution_means_its_expected_value():
    logits = np.full((1, 4, 16), -20, np.float32)
    logits[0, :, 3] = logits[0, :, 4] = 5
    assert np.allclose(expected_distances(logits), 3.5, atol=1e-4)
    assert expected_distances(np.array([[[1.5], [2], [3], [4]]], np.float32)).tolist() == [[1.5, 2, 3, 4]]


def one_anchor(classes: list[float], distance: float = 2.0):
    """Logits in which only the anchor at (12, 20) of a 64-pixel input says anything."""
    anchors, strides = grid(64, [8, 16, 32])
    logits = np.full((1, len(anchors), len(classes)), -20, np.float32)
    boxes = np.full((1, len(anchors), 4, 1), distance, np.float32)
    logits[0, 17] = classes
    return logits, boxes, anchors, strides


def test_decoding_finds_the_box_around_the_anchor():
    (found,) = decode(*one_anchor([3.0, -20]), [Letterbox.fit(128, 128, 64)], 0.5)
    assert found.boxes.tolist() == [[0, 8, 56, 72]], "12 ± 2 strides of 8, twice as large, cut at 0"
    assert (found.classes.tolist(), found.scores.tolist()) == ([0], pytest.approx([1 / (1 + np.exp(-3))]))


def test_one_anchor_may_name_two_classes_and_the_confident_one_comes_first():
    (found,) = decode(*one_anchor([0.5, 2.0]), [Letterbox.fit(64, 64, 64)], 0.5)
    assert found.classes.tolist() == [1, 0]


def test_a_floor_above_every_score_finds_nothing():
    (found,) = decode(*one_anchor([0.5, 2.0]), [Letterbox.fit(64, 64, 64)], 0.95)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def slow_suppress(boxes, scores, classes, overlap):
    kept = []
    for i in np.argsort(-scores, kind="stable"):
        clash = False
        for j in kept:
            low, high = np.maximum(boxes[i, :2], boxes[j, :2]), np.minimum(boxes[i, 2:], boxes[j, 2:])
            shared = np.clip(high - low, 0, None).prod()
            union = (boxes[i, 2:] - boxes[i, :2]).prod() + (boxes[j, 2:] - boxes[j, :2]).prod() - shared
            clash |= bool(classes[i] == classes[j] and shared / union > overlap)
        if not clash:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_that_of_a_brute_force_oracle(seed):
    random = np.random.default_rng(seed)
    low = random.uniform(0, 30, (120, 2))
    boxes = np.concatenate([low, low + random.uniform(15, 30, (120, 2))], 1).astype(np.float32)
    scores = random.permutation(np.linspace(0.01, 0.99, 120)).astype(np.float32)
    classes = random.integers(0, 3, 120)
    assert suppress(boxes, scores, classes, 0.6).tolist() == slow_suppress(boxes, scores, classes, 0.6)
