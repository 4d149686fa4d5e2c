"""Lets a new release detect beside the one that runs, on some live frames, before it takes over.

Nobody has labelled these frames, so nobody knows which of the two is right. But a release that finds something else
everywhere is a wrong one for this camera, and the frames on which the two disagree are worth a label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from diredi.boxes import box_iou
from diredi.data.sample_reason import SampleReason
from diredi.detectors.predictor import Detections
from diredi.errors import InvalidInput
from diredi.labels import LabelSpace, matching_ids
from edge_node.active_model import RunningModel
from edge_node.inference import Broadcast, Result, only
from edge_node.sources.reference import SourceSettings

SURE: Final = 0.5
"""Boxes with this confidence or a higher one are compared, ..."""
SAME_IOU: Final = 0.5
"""... and the other release must have reported one of the same class that overlaps so much."""
LEAST_BOXES: Final = 50
"""With fewer boxes to compare, nothing is decided."""

Suggest = Callable[[Result, list[SampleReason], float], None]
"""Suggests a frame to be labelled, with the reasons and the doubt."""


class TooDifferent(InvalidInput):
    """A release finds other objects than the one that runs, on too many frames."""


@dataclass
class Tally:
    """Count what was compared."""

    version: int = 0
    """Of the candidate; 0: none was compared since the start."""
    frames: int = 0
    boxes: int = 0
    differing: int = 0
    """Boxes of either release that the other one has not found."""

    @property
    def share(self) -> float:
        """Share of the boxes that differ, 0 to 1."""
        return self.differing / self.boxes if self.boxes else 0.0


class ShadowRun:
    """Compare a candidate with the release that runs."""

    def __init__(
        self,
        broadcast: Broadcast,
        suggest: Suggest | None,
        settings: Mapping[str, SourceSettings],
        *,
        seconds: float,
        share: float,
        max_differing: float,
        confidence: float,
        random: Random,
    ) -> None:
        """Make it.

        Args:
            broadcast: Gives the frames, with what the release that runs has found.
            suggest: Takes the frames on which the two disagree; None keeps none.
            settings: Settings of each camera by its name.
            seconds: How long the candidate runs beside, by the clock.
            share: On which share of the frames, 0 to 1.
            max_differing: The largest share of boxes that may differ, 0 to 1.
            confidence: Detections below it are left out, unless a camera has another limit.
            random: Draws the frames.
        """
        self._broadcast = broadcast
        self._suggest = suggest
        self._settings = settings
        self._seconds = seconds
        self._share = share
        self._max_differing = max_differing
        self._confidence = confidence
        self._random = random
        self.tally = Tally()
        """What the last run has counted, also while it goes on."""

    async def run(self, candidate: RunningModel, is_wanted: Callable[[], bool]) -> None:
        """Compare a candidate for its time, or until it is no longer wanted or there are no more frames.

        Raises:
            TooDifferent: Too many boxes differ.
        """
        log, self.tally = structlog.get_logger(), Tally(candidate.release.version)
        log.info("shadow_run_started", version=candidate.release.version, seconds=self._seconds)
        try:
            async with asyncio.timeout(self._seconds):
                async for result in self._broadcast.results():
                    if not is_wanted():
                        return
                    if self._random.random() < self._share and result.model.release != candidate.release:
                        await self._compare(candidate, result)
        except TimeoutError:
            pass
        tally = self.tally
        log.info(
            "shadow_run_ended", version=candidate.release.version, frames=tally.frames, boxes=tally.boxes,
            differing=tally.differing,
        )  # fmt: skip
        if tally.boxes >= LEAST_BOXES and tally.share > self._max_differing:
            raise TooDifferent(
                f"release {candidate.release.version} finds other objects than the one that runs: {tally.differing} "
                f"of {tally.boxes} boxes differ on {tally.frames} frames, more than {100 * self._max_differing:.0f} %"
            )

    async def _compare(self, candidate: RunningModel, result: Result) -> None:
        settings = self._settings[result.camera]
        confidence = settings.confidence or self._confidence
        found = (await asyncio.to_thread(candidate.predictor.predict, [result.image], confidence))[0]
        found = only(found, candidate.release.labels, settings.classes)
        boxes, doubts = compare(result.detections, result.model.release.labels, found, candidate.release.labels)
        self.tally.frames += 1
        self.tally.boxes += boxes
        self.tally.differing += len(doubts)
        if doubts and self._suggest is not None:
            self._suggest(result, [SampleReason.DISAGREEMENT], max(doubts))


def compare(
    old: Detections, old_labels: LabelSpace, new: Detections, new_labels: LabelSpace
) -> tuple[int, list[float]]:
    """Compare what two releases have found in a frame, as far as both know the classes.

    Args:
        old: What the release that runs has found.
        old_labels: Its label space.
        new: What the other one has found.
        new_labels: Its label space.

    Returns:
        How many boxes were compared, and the confidence of each that the other release has not found.
    """
    new = new.with_ids(np.array(matching_ids(new_labels.names, old_labels.names)))
    old = old.with_ids(np.where(np.isin(old_labels.names, new_labels.names), np.arange(len(old_labels)), -1))
    compared, alone = 0, list[float]()
    for boxes, others in ((old, new), (new, old)):
        sure = boxes.scores >= SURE
        compared += int(sure.sum())
        alone += [float(score) for score in boxes.scores[sure & ~_have_partner(boxes, others)]]
    return compared, alone


def _have_partner(boxes: Detections, others: Detections) -> NDArray[np.bool_]:
    return np.array(
        [
            bool(((box_iou(box, others.boxes) >= SAME_IOU) & (others.classes == class_id)).any())
            for box, class_id in zip(boxes.boxes, boxes.classes, strict=True)
        ],
        np.bool_,
    )
