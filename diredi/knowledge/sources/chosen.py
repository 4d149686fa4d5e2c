"""Public images about which the updated tutor has most to say that the deployed student does not know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.detectors.base import Detector
from diredi.detectors.postprocess import prepare
from diredi.distillation.batches import Pool
from diredi.knowledge.sources.base import Stock, drawn
from diredi.knowledge.sources.owned import unlabelled

SHARE = 0.25
"""Of the pool, the best; more of them where more images are asked for than that."""
_ANCHORS, _BATCH = 20, 32


def chosen(stock: Stock, count: int) -> Pool:
    pool = stock.pool()
    most = max(round(SHARE * len(pool)), min(count, len(pool) // 2), 1)
    best = np.argsort(-news(stock.tutor, stock.old, pool), kind="stable")[:most]
    return unlabelled(drawn([pool[i] for i in sorted(best)], count, stock.random("chosen")))


def news(tutor: Detector, old: Detector, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """A number for each image: how far the two are apart in the class scores of the anchors where they differ most.

    A class that `old` lacks counts with the tutor's whole score. Both must look at the same grid.
    """
    shared = [name for name in old.spec.labels.names if name in tutor.spec.labels.names]
    theirs, mine = tutor.spec.labels.ids_of(shared), old.spec.labels.ids_of(shared)
    found: list[float] = []
    for start in range(0, len(samples), _BATCH):
        images = [read_image(sample.image) for sample in samples[start : start + _BATCH]]
        batch = torch.from_numpy(prepare(images, tutor.spec.image_size)[0]).to(tutor.device)
        with torch.no_grad():
            apart = tutor.forward(batch).class_logits.float().sigmoid()
            apart[..., theirs] -= old.forward(batch).class_logits.float().sigmoid()[..., mine]
        most = apart.abs().amax(-1)
        found += most.topk(min(_ANCHORS, most.shape[-1]), dim=-1).values.mean(-1).tolist()
    return np.asarray(found)
