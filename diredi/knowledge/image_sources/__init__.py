"""Images for re-distillation by name, none of them private. A new source is one function here and a line in SOURCES."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from diredi.distillation.batches import Pool
from diredi.knowledge.image_sources.base import Source, Stock
from diredi.knowledge.image_sources.existing import chosen, presumed, public
from diredi.knowledge.image_sources.synthetic import styled, with_crops
from diredi.knowledge.recipe import ImageSource

SOURCES: Final[dict[ImageSource, Source]] = {
    "presumed": presumed,
    "pool": public,
    "chosen": chosen,
    "styled": styled,
    "pasted": with_crops,
}


def images_of(stock: Stock, mix: Mapping[ImageSource, float]) -> dict[ImageSource, Pool]:
    """As many images as there are presumed ones, each source giving its share of them.

    Where one has nothing to give (no site has published a style, the tutor finds no new class in the pool), presumed
    images take its place. Raises InvalidInput where the mix needs a public pool and there is none, DatasetError for an
    unreadable image.
    """
    total = sum(mix.values())
    counts = {name: round(len(stock.presumed) * share / total) for name, share in mix.items() if share > 0}
    pools = {name: SOURCES[name](stock, count) for name, count in counts.items() if name != "presumed"}
    missing = sum(counts[name] for name, pool in pools.items() if not pool.samples)
    given: dict[ImageSource, Pool] = {name: pool for name, pool in pools.items() if pool.samples}
    ours = counts.get("presumed", 0) + missing
    return given | ({"presumed": presumed(stock, ours)} if ours else {})


__all__ = ["SOURCES", "Source", "Stock", "images_of"]
