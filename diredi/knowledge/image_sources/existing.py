"""Images as the cloud has them: presumed ones with their labels, and public ones without.

Public ones are drawn from the whole pool, or from those about which the updated tutor has most to say that the deployed
student does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from diredi.data.dataset import Sample
from diredi.data.images import read_image
from diredi.detectors.base import Detector
from diredi.detectors.postprocess import prepare
from diredi.distillation.batches import Pool
from diredi.knowledge.image_sources.base import Stock, drawn

SHARE = 0.25
"""Of the pool, the best are chosen; more of them where more images are asked for than that."""
_ANCHORS, _BATCH = 20, 32


def presumed(stock: Stock, count: int) -> Pool:
    """Draw presumed images with their labels."""
    return Pool(drawn(stock.presumed, count, stock.random("presumed")), stock.labelled)


def public(stock: Stock, count: int) -> Pool:
    """The teacher alone speaks about these."""
    return _unlabelled(drawn(stock.pool(), count, stock.random("pool")))


def chosen(stock: Stock, count: int) -> Pool:
    """Draw from the public images of which the tutor has most to say that the old student does not know."""
    pool = stock.pool()
    most = max(round(SHARE * len(pool)), min(count, len(pool) // 2), 1)
    best = np.argsort(-news(stock.tutor, stock.old, pool), kind="stable")[:most]
    return _unlabelled(drawn([pool[i] for i in sorted(best)], count, stock.random("chosen")))


def news(tutor: Detector, old: Detector, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return for each image how much the tutor has to say that the old student does not know.

    That is the tutor's best score for a class that `old` lacks, and how far the two are apart in the other classes,
    where they differ most. Both must look at the same grid.
    """
    labels = tutor.spec.labels
    new, shared = labels.ids_of(labels.new_since(old.spec.labels)), old.spec.labels.names
    theirs, mine = labels.ids_of(shared), old.spec.labels.ids_of(shared)
    found: list[float] = []
    for start in range(0, len(samples), _BATCH):
        images = [read_image(sample.image) for sample in samples[start : start + _BATCH]]
        batch = torch.from_numpy(prepare(images, tutor.spec.image_size)[0]).to(tutor.device)
        with torch.no_grad():
            said, before = (model.forward(batch).class_logits.float().sigmoid() for model in (tutor, old))
        apart = (said[..., theirs] - before[..., mine]).abs().amax(-1)
        scores = apart.topk(min(_ANCHORS, apart.shape[-1]), dim=-1).values.mean(-1)
        found += (scores + said[..., new].flatten(1).amax(-1) if new else scores).tolist()
    return np.asarray(found)


def _unlabelled(samples: Sequence[Sample]) -> Pool:
    """Return a pool of images whose labels say nothing, so that only a teacher does."""
    nothing = np.zeros((0, 5), np.float32)
    return Pool([replace(sample, boxes=nothing) for sample in samples], frozenset())
