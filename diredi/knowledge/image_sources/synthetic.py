"""Images that the cloud makes of its own: in the style of a site, or with public crops of a new class."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from diredi.data.dataset import Sample
from diredi.data.images import encode_jpeg, read_image
from diredi.data.paste import Crop, cut_out, paste
from diredi.data.style import restyle
from diredi.detectors.predictor import Image
from diredi.distillation.batches import Pool
from diredi.knowledge.image_sources.base import Stock, drawn

SURE = 0.5
"""A box of the tutor's with a lower score is no crop: what it shows might be something else."""
MOST_CROPS = 500
_BATCH, _JPEG = 32, 95


def styled(stock: Stock, count: int) -> Pool:
    """Presumed images as the sites' cameras might have taken them; none where no site has published a style."""
    if not stock.styles:
        return Pool([], stock.labelled)
    folder, random = _fresh(stock.folder / "styled"), stock.random("styled")
    samples = []
    for number, sample in enumerate(drawn(stock.presumed, count, random)):
        image = _restyled(stock, read_image(sample.image), number, random)
        samples.append(_written(image, sample.boxes, folder, number))
    return Pool(samples, stock.labelled)


def with_crops(stock: Stock, count: int) -> Pool:
    """Presumed images, in a site's style if there is one, on which public crops of new classes were pasted.

    None where the tutor is sure of no new class on any image of the pool.
    """
    crops = [crop for _, crop in zip(range(MOST_CROPS), _crops(stock), strict=False)]
    if not crops:
        return Pool([], stock.labelled)
    folder, random = _fresh(stock.folder / "pasted"), stock.random("pasted")
    samples = []
    for number, sample in enumerate(drawn(stock.presumed, count, random)):
        image, boxes = paste(read_image(sample.image), sample.boxes, crops[random.integers(len(crops))], random)
        if stock.presumed_shows_new:  # one forklift with a label beside one without teaches nothing: the tutor speaks
            boxes = boxes[~np.isin(boxes[:, 0], stock.new_ids)]
        samples.append(_written(_restyled(stock, image, number, random), boxes, folder, number))
    return Pool(samples, stock.labelled)


def _crops(stock: Stock) -> Iterator[Crop]:
    pool = drawn(stock.pool(), len(stock.public), stock.random("crops"))
    for start in range(0, len(pool), _BATCH) if stock.new_ids else ():
        images = [read_image(sample.image) for sample in pool[start : start + _BATCH]]
        for image, found in zip(images, stock.tutor.predict(images, SURE), strict=True):
            for box, kind in zip(found.boxes, found.classes, strict=True):
                crop = cut_out(image, box, int(kind)) if kind in stock.new_ids else None
                if crop is not None:
                    yield crop


def _restyled(stock: Stock, image: Image, number: int, random: np.random.Generator) -> Image:
    return restyle(image, stock.styles[number % len(stock.styles)], random) if stock.styles else image


def _fresh(folder: Path) -> Path:
    """What a run that was killed left is made again."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _written(image: Image, boxes: np.ndarray, folder: Path, number: int) -> Sample:
    path = folder / f"{number:06}.jpg"
    path.write_bytes(encode_jpeg(image, _JPEG))
    return Sample(path, boxes)
