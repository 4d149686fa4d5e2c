"""A router: how a branch knows images of its own place.

A camera that hangs where it hangs sees one scene. What a branch has learned there about classes that the detector knows
already may be wrong elsewhere, and need not be said there. So it is heard for these classes on images of its own place
alone, and nothing is forgotten. The router is a logistic regression on what the backbone sees, between the site's
images and the coreset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diredi.data.dataset import Sample
from diredi.detectors.base import Detector, Router
from diredi.distillation.batches import Batches, Pool
from diredi.distillation.recipe import Augment, TrainRecipe
from diredi.knowledge.reverse import SiteData

VIEWS: Final = 2
"""How often an image is looked at, each time varied otherwise."""
BATCH: Final = 16
PENALTY: Final = 1e-3
"""Of the squared weights, on features of variance 1."""
CONFIDENT: Final = 10.0
"""The logit of an image in the middle of either side: far above what a detector says of a box."""
FEWEST: Final = 3
"""Held-back images of each side, without which nobody knows whether a router is right."""
RECOGNISED: Final = 0.9
"""The share of the site's held-back images that a router must know..."""
MISTAKEN: Final = 0.1
"""... and of the coreset's that it may take for the site's. There the branch is heard where it should not be; what that
costs, the cloud measures on its own images."""


@dataclass(frozen=True)
class RouterTrial:
    """A router, and how it did on held-back images."""

    router: Router
    recognised: float
    """The share of the site's images that it knows, 0 to 1."""
    mistaken: float
    """The share of the coreset's that it takes for the site's."""
    said: str
    """The same in words."""

    @property
    def good(self) -> bool:
        """Return whether a branch may rely on it."""
        return self.recognised >= RECOGNISED and self.mistaken <= MISTAKEN


def try_router(
    model: Detector, learned: SiteData, held: SiteData, classes: Sequence[int], *, seed: int
) -> RouterTrial | None:
    """Fit a router and judge it on held-back images.

    Args:
        model: Whose backbone it reads. It is not changed.
        learned: The images of the site and the coreset that it learns from.
        held: Those that are held back.
        classes: Ids of the classes for which it will decide.
        seed: How the images are varied.

    Returns:
        The router and how it did; None where there are too few images to know.
    """
    here, elsewhere = _of_site(learned), learned.coreset.samples
    judges = _of_site(held), held.coreset.samples
    if not classes or min(len(here), len(elsewhere), *map(len, judges)) < FEWEST:
        return None
    router = _fitted(_scenes(model, here, VIEWS, seed), _scenes(model, elsewhere, VIEWS, seed), tuple(sorted(classes)))
    site, others = (_scenes(model, images, 1, None) @ router.weight + router.bias > 0 for images in judges)
    recognised, mistaken = float(site.double().mean()), float(others.double().mean())
    said = (
        f"the router knows {int(site.sum())} of {len(site)} held-back images of the site, and takes "
        f"{int(others.sum())} of {len(others)} of the coreset for such"
    )
    return RouterTrial(router, recognised, mistaken, said)


def _of_site(data: SiteData) -> list[Sample]:
    return [*data.private.samples, *data.filled_in.samples]


def _scenes(model: Detector, images: Sequence[Sample], views: int, seed: int | None) -> Tensor:
    """What a router reads of each image: images x channels. Without a seed they are not varied."""
    still = Augment(mirror=0, scale=0, shift=0, brightness=0, contrast=0, saturation=0, noise=0)
    pool = Pool([Sample(image=one.image, boxes=one.boxes[:0]) for one in images] * views)
    steps = -(-len(pool.samples) // BATCH)
    recipe = TrainRecipe(steps=steps, batch=BATCH, augment=still if seed is None else Augment(), seed=seed or 0)
    found = []
    with torch.no_grad():
        for batch in Batches([pool], recipe, model.spec.image_size, len(model.spec.labels)):
            found.append(model.scene(batch.images.to(model.device)).cpu())
    return torch.cat(found)[: len(pool.samples)]


def _fitted(here: Tensor, elsewhere: Tensor, classes: tuple[int, ...]) -> Router:
    """The logistic regression in which both sides weigh the same, scaled so that it is sure of what it knows."""
    both = torch.cat([here, elsewhere]).double()
    middle, spread = both.mean(0), both.std(0) + 1e-3 * both.std()
    features, wanted = (both - middle) / spread, torch.arange(len(both)) < len(here)
    share = torch.where(wanted, 0.5 / len(here), 0.5 / len(elsewhere)).double()
    weight = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        each = F.binary_cross_entropy_with_logits(features @ weight + bias, wanted.double(), reduction="none")
        total = (share * each).sum() + PENALTY * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        logits = features @ weight + bias
        sure = min(logits[wanted].median().abs(), logits[~wanted].median().abs())
        scale = CONFIDENT / max(float(sure), 1e-3)
        flat = scale * weight / spread
        moved = scale * bias - (flat * middle).sum()
    return Router(classes, torch.from_numpy(np.asarray(flat, np.float32)), moved.float())
