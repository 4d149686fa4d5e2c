"""What finds boxes, seen without torch: all that evaluation and an edge node need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diredi.errors import InvalidInput
from diredi.labels import LabelSpace

if TYPE_CHECKING:
    from supervision import Detections as SupervisionDetections

Image = NDArray[np.uint8]
"""height x width x 3, uint8, BGR as OpenCV reads it."""


@dataclass(frozen=True)
class Detections:
    """Boxes that a model has found in one image, best first.

    Examples:
        >>> found = Detections.of([[0, 0, 8, 8], [2, 2, 9, 9]], scores=[0.4, 0.9], classes=[1, 0])
        >>> found.classes.tolist()
        [0, 1]
    """

    boxes: NDArray[np.float32]
    """n x 4: x1, y1, x2, y2 in pixels of the image."""
    scores: NDArray[np.float32]
    """n, 0 to 1."""
    classes: NDArray[np.int64]
    """n, ids of the model's label space."""

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def of(cls, boxes: ArrayLike, scores: ArrayLike, classes: ArrayLike) -> Self:
        """Put boxes of any order and type in order.

        Args:
            boxes: n x 4: x1, y1, x2, y2 in pixels of the image.
            scores: n, 0 to 1.
            classes: n, ids of a label space.
        """
        values = np.asarray(scores, np.float32).reshape(-1)
        order = np.argsort(-values, kind="stable")
        table = np.asarray(boxes, np.float32).reshape(-1, 4)
        return cls(table[order], values[order], np.asarray(classes, np.int64).reshape(-1)[order])

    def with_ids(self, ids: NDArray[np.int64]) -> Self:
        """Return the boxes with other class ids.

        Args:
            ids: The new id of each old one; boxes whose new id is below 0 are left out (`labels.matching_ids`).
        """
        classes = ids[self.classes]
        kept = classes >= 0
        return type(self)(self.boxes[kept], self.scores[kept], classes[kept])

    def to_supervision(self, labels: LabelSpace | None = None) -> SupervisionDetections:
        """Return the boxes as the `supervision` package takes them, for its annotators, zones and trackers.

        Args:
            labels: The model's label space, which adds the names of the classes (`data["class_name"]`).

        Raises:
            InvalidInput: supervision is not installed.
        """
        sv = _supervision()
        names = {} if labels is None else {"class_name": np.array([labels.names[i] for i in self.classes], dtype=str)}
        return sv.Detections(xyxy=self.boxes, confidence=self.scores, class_id=self.classes, data=names)

    @classmethod
    def from_supervision(cls, found: SupervisionDetections) -> Self:
        """Return what `supervision` holds as detections.

        Args:
            found: Detections with class ids; a missing confidence counts as 1.

        Raises:
            InvalidInput: There are no class ids.
        """
        if found.class_id is None:
            raise InvalidInput("these detections of supervision have no class ids: set class_id first")
        scores = np.ones(len(found)) if found.confidence is None else found.confidence
        return cls.of(found.xyxy, scores, found.class_id)

    @classmethod
    def from_ultralytics(cls, result: object) -> Self:
        """Return the boxes of one result of an Ultralytics model.

        Args:
            result: One item of what `YOLO(...)(image)` returns, an `ultralytics.engine.results.Results`.

        Raises:
            InvalidInput: It has no boxes, as the results of other tasks than detection.
        """
        boxes = getattr(result, "boxes", None)
        if boxes is None:
            raise InvalidInput("this is no result of a detector of Ultralytics: it has no boxes")
        table = _numpy(boxes.data)
        return cls.of(table[:, :4], table[:, -2], table[:, -1])

    def to_ultralytics(self, image: Image, labels: LabelSpace, path: str = "") -> Any:  # noqa: ANN401 - not typed
        """Return the boxes as Ultralytics' `Results` of one image, for its plots and exports.

        Args:
            image: The image that they were found in.
            labels: The model's label space.
            path: Where the image came from.

        Raises:
            InvalidInput: Ultralytics is not installed.
        """
        columns = (self.boxes, self.scores[:, None], self.classes[:, None])
        table = np.concatenate(columns, axis=1, dtype=np.float32)
        try:
            family = import_module("diredi.detectors.ultralytics_results")
        except ModuleNotFoundError:
            raise InvalidInput("Ultralytics is not installed: run `pip install --no-deps ultralytics`") from None
        return family.results_of(table, image, labels.names, path)


def _supervision() -> Any:  # noqa: ANN401 - an optional package
    try:
        return import_module("supervision")
    except ModuleNotFoundError:
        raise InvalidInput("supervision is not installed: run `pip install supervision`") from None


def _numpy(array: Any) -> NDArray[np.float32]:  # noqa: ANN401 - a tensor on any device, or an array
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array, np.float32)


class Predictor(Protocol):
    """Whatever finds boxes: a torch detector, an exported file, or something of your own."""

    @property
    def labels(self) -> LabelSpace:
        """The label space of the classes that it finds."""
        ...

    def predict(self, images: Sequence[Image], confidence: float = 0.001) -> list[Detections]:
        """Find boxes.

        Args:
            images: height x width x 3, uint8, BGR as OpenCV reads them; sizes may differ.
            confidence: Boxes with a lower score are left out.

        Returns:
            What was found in each image, best first.
        """
        ...
