"""Whether two runtimes find the same boxes with the same file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.detectors.predictor import Detections

BEST = 20
"""So many boxes of each image are compared, however low their scores are, and all that are reported."""
LEAST_IOU = 0.9
MOST_SCORE = 0.05
LEAST_SHARE = 0.95
"""Of the compared boxes. Those that are reported must all have a partner."""


def explain_disagreement(reference: Sequence[Detections], other: Sequence[Detections], confidence: float) -> str:
    """Say why two lists of detections in the same images are not the same for a user.

    A box has a partner if the other list has one of the same class in that image, with an IoU of at least LEAST_IOU
    and a score that differs by MOST_SCORE at most. They agree where each box with a score of at least `confidence` has
    one, and LEAST_SHARE of the BEST boxes of each image, in both directions.

    Args:
        reference: What the one found in each image, down to low scores.
        other: What the other one found in the same images.
        confidence: Boxes with a lower score are not reported; 0 to 1.

    Returns:
        A part of a sentence; empty where they agree.

    Examples:
        >>> one = Detections.of([[0, 0, 8, 8]], [0.9], [0])
        >>> explain_disagreement([one], [one], 0.25)
        ''
        >>> explain_disagreement([one], [one.with_ids(np.array([1]))], 0.25)
        '2 of 2 reported boxes differ'
    """
    reported, compared = np.zeros(2, np.int64), np.zeros(2, np.int64)
    for one, two in zip(reference, other, strict=True):
        for boxes, others in ((one, two), (two, one)):
            alone = ~_have_partner(boxes, others)
            is_reported = boxes.scores >= confidence
            reported += (alone & is_reported).sum(), is_reported.sum()
            compared += alone[:BEST].sum(), len(alone[:BEST])
    if reported[0]:
        return f"{reported[0]} of {reported[1]} reported boxes differ"
    if not compared[1]:
        return f"nothing was found on {len(reference)} frames, so nothing could be compared"
    if compared[0] > (1 - LEAST_SHARE) * compared[1]:
        return f"{compared[0]} of {compared[1]} compared boxes differ"
    return ""


def _have_partner(boxes: Detections, others: Detections) -> NDArray[np.bool_]:
    found = np.zeros(len(boxes), np.bool_)
    for index, (box, score, class_id) in enumerate(zip(boxes.boxes, boxes.scores, boxes.classes, strict=True)):
        near = (others.classes == class_id) & (np.abs(others.scores - score) <= MOST_SCORE)
        found[index] = bool((box_iou(box, others.boxes[near]) >= LEAST_IOU).any())
    return found
