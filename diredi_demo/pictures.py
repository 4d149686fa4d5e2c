"""A few held-out images with the boxes of each release."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from diredi_demo.html_report import SHOWN_CONFIDENCE
from diredi_demo.report import Box, Picture

if TYPE_CHECKING:
    from diredi.data.dataset import Sample
    from diredi.detectors.predictor import Detections, Predictor
    from diredi.labels import LabelSpace

_LONGEST_SIDE = 640


def choose(samples: Sequence[Sample], labels: LabelSpace, wanted: Sequence[str], count: int) -> list[Sample]:
    """Those with most boxes of the wanted classes, then with most boxes; the order of the set decides a tie."""
    ids = {labels.names.index(name) for name in wanted}

    def worth(sample: Sample) -> tuple[int, int]:
        classes = [int(row[0]) for row in sample.boxes]
        return (min(sum(c in ids for c in classes), 2), min(len(set(classes)), 4))

    return sorted(samples, key=worth, reverse=True)[:count]


def picture(
    sample: Sample, origin: Literal["presumed", "site"], labels: LabelSpace, before: Predictor, after: Predictor
) -> Picture:
    """The image as JPEG, small enough for a page, with labelled boxes and both releases' detections."""
    import cv2

    from diredi.data.images import encode_jpeg, read_image

    image = read_image(sample.image)
    seen = [_boxes(predictor.predict([image], SHOWN_CONFIDENCE)[0], predictor.labels) for predictor in (before, after)]
    height, width = image.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(height, width))
    size = (round(width * scale), round(height * scale))
    small = image if scale == 1.0 else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Picture(
        origin=origin,
        jpeg_base64=base64.b64encode(encode_jpeg(small, 82)).decode(),
        width=size[0],
        height=size[1],
        truth=tuple(_labelled(sample, labels, size)),
        before=tuple(_scaled(box, scale) for box in seen[0]),
        after=tuple(_scaled(box, scale) for box in seen[1]),
    )


def _boxes(found: Detections, labels: LabelSpace) -> list[Box]:
    return [
        Box(box=(float(b[0]), float(b[1]), float(b[2]), float(b[3])), name=labels.names[int(c)], confidence=float(s))
        for b, c, s in zip(found.boxes, found.classes, found.scores, strict=True)
    ]


def _scaled(box: Box, scale: float) -> Box:
    x1, y1, x2, y2 = (scale * value for value in box.box)
    return box.model_copy(update={"box": (x1, y1, x2, y2)})


def _labelled(sample: Sample, labels: LabelSpace, size: tuple[int, int]) -> list[Box]:
    result = []
    for row in sample.boxes:
        class_id, x, y, w, h = (float(value) for value in row)
        corners = ((x - w / 2) * size[0], (y - h / 2) * size[1], (x + w / 2) * size[0], (y + h / 2) * size[1])
        result.append(Box(box=corners, name=labels.names[int(class_id)]))
    return result
