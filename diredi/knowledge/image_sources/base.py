"""What the cloud has to teach a student with, and what a source of images makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np

from diredi.data.dataset import Sample
from diredi.data.style import SiteStyle
from diredi.detectors.base import Detector
from diredi.distillation.batches import Pool
from diredi.errors import InvalidInput


@dataclass(frozen=True)
class Stock:
    """All that a source may use. No private image is in it."""

    tutor: Detector
    """The updated one, whose label space is that of the boxes below."""
    old: Detector
    """The student that is deployed."""
    presumed: Sequence[Sample]
    public: Sequence[Sample]
    """A public pool; its boxes, if it has any, are not looked at. Empty: this cloud has none."""
    styles: Sequence[SiteStyle]
    """Of the sites that have published theirs."""
    presumed_shows_new: bool
    """Whether presumed images may show, unlabelled, a class that only a site has labelled."""
    folder: Path
    """Where images may be made."""
    seed: int

    @property
    def new_ids(self) -> list[int]:
        """Classes that the deployed student does not know."""
        labels = self.tutor.spec.labels
        return labels.ids_of(labels.new_since(self.old.spec.labels))

    @property
    def labelled(self) -> frozenset[int] | None:
        """Classes of which a label on a presumed image, or its absence, says something; None: all.

        A class that the models know and that is nowhere labelled may be anywhere: not all that COCO taught is labelled
        on a manufacturer's images.
        """
        every = frozenset(range(len(self.tutor.spec.labels)))
        shown = frozenset(int(kind) for sample in self.presumed for kind in sample.boxes[:, 0])
        said = shown if self.presumed_shows_new else shown.union(self.new_ids)
        return None if said >= every else said

    def pool(self) -> Sequence[Sample]:
        """Raises InvalidInput where the cloud has no public pool."""
        if not self.public:
            raise InvalidInput(
                "the recipe teaches on a public pool, but this cloud has none: name one in its configuration (pool), "
                "or use redistil_images=presumed"
            )
        return self.public

    def random(self, source: str) -> np.random.Generator:
        """Equal stocks make equal images, whatever else is in the mix."""
        return np.random.default_rng([self.seed, *source.encode()])


Source = Callable[[Stock, int], Pool]
"""source(stock, count): `count` images, or none at all where the stock has nothing of the kind."""


def drawn(samples: Sequence[Sample], count: int, random: np.random.Generator) -> list[Sample]:
    """`count` of them, none twice before each was taken once."""
    orders = chain.from_iterable(random.permutation(len(samples)).tolist() for _ in repeat(None))
    return [samples[i] for i in islice(orders, count)] if samples else []
