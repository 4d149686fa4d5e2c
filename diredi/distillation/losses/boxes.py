"""Boxes in a lesson: what a detector has found, and which cells of a map a box covers."""

from __future__ import annotations

import torch
from torch import Tensor

from diredi.detectors.base import Outputs, Targets
from diredi.detectors.postprocess import suppress

MOST_CANDIDATES = 8000  # of a batch, best first: a broken teacher that sees objects everywhere must not stop a training
SMALLEST_SIDE = 1.0  # pixels; what is smaller is no object


def expected_distances(box_logits: Tensor) -> Tensor:
    """... x r logits as ... distances in strides: the mean of the distribution, or the number itself if r is 1."""
    bins = box_logits.shape[-1]
    if bins == 1:
        return box_logits[..., 0]
    return box_logits.softmax(-1) @ torch.arange(bins, dtype=box_logits.dtype, device=box_logits.device)


@torch.no_grad()
def found(outputs: Outputs, ids: Tensor, confidence: float, overlap: float) -> Targets:
    """What is left of the outputs' boxes of the classes `ids` after non-maximum suppression; none at all is fine.

    A box' class is its place in `ids`. `confidence` is the least score, `overlap` the IoU from which the weaker of two
    boxes of one class on one image goes.
    """
    scores = outputs.class_logits.index_select(-1, ids).sigmoid()
    candidates = (scores >= confidence).nonzero()
    values = scores[tuple(candidates.T)]
    if len(values) > MOST_CANDIDATES:
        values, best = values.topk(MOST_CANDIDATES)
        candidates = candidates[best]
    image, anchor, kind = candidates.T
    size = (outputs.anchors.amax(-1) + outputs.strides / 2).amax()
    distances = expected_distances(outputs.box_logits[image, anchor]) * outputs.strides[anchor, None]
    low = (outputs.anchors[anchor] - distances[:, :2]).clamp(min=0)
    high = torch.minimum(outputs.anchors[anchor] + distances[:, 2:], size)
    apart = image * len(ids) + kind  # boxes of two images, or of two classes, never suppress each other
    corners = torch.cat([low, high], 1)
    kept = suppress(corners.cpu().numpy(), values.cpu().numpy(), apart.cpu().numpy(), overlap)
    chosen = torch.from_numpy(kept).to(image.device)
    chosen = chosen[((high - low)[chosen] >= SMALLEST_SIDE).all(1)]
    boxes = torch.cat([low + high, 2 * (high - low)], 1)[chosen] / (2 * size)
    return Targets(image[chosen], kind[chosen], boxes)


def cells(boxes: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The cells of a map under boxes as in `Targets`: first and one after the last, each n x 2 (x, y) of int64.

    A box covers every cell that it touches, and at least one.
    """
    size = torch.tensor([width, height], device=boxes.device)
    low = ((boxes[:, :2] - boxes[:, 2:] / 2) * size).floor().clamp(min=0).minimum(size - 1)
    high = ((boxes[:, :2] + boxes[:, 2:] / 2) * size).ceil().minimum(size).maximum(low + 1)
    return low.long(), high.long()
