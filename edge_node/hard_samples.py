"""Sends uncertain frames to the site's user domain, where the site asked for that, and to nobody else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import structlog

from diredi.data.images import encode_jpeg
from diredi.errors import DirediError
from diredi.rpc.client import Channel, call
from diredi.rpc.convert import time_to
from diredi.rpc.v1 import local_pb2 as pb
from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
from edge_node.inference import Broadcast, Result


class HardSampleSender:
    """Send uncertain frames; if the user domain is away or full, the frame is dropped and the node goes on."""

    def __init__(self, channel: Channel, device: str, *, per_minute: float, uncertain_below: float) -> None:
        """Make a sender.

        Args:
            channel: The connection to the user domain.
            device: Name of this device.
            per_minute: The most frames that are sent in a minute.
            uncertain_below: A frame is uncertain when a detection in it is below this confidence.
        """
        self._local = LocalServiceStub(channel)
        self._device = device
        self._pause_s = 60 / per_minute
        self._uncertain_below = uncertain_below
        self._log = structlog.get_logger()
        self._last_error = ""

    async def run(self, broadcast: Broadcast) -> None:
        """Send frames until the source ends."""
        async for result in broadcast.results():
            if not is_uncertain(result, self._uncertain_below):
                continue
            request = pb.HandSampleRequest(
                device=self._device,
                image=await asyncio.to_thread(encode_jpeg, result.image),
                camera=result.camera,
                captured=time_to(datetime.fromtimestamp(result.captured_s, UTC)),
                detections=sample_boxes(result),
                release_version=result.model.release.version,
                reasons=[pb.SAMPLE_REASON_UNCERTAIN],
                doubt=doubt(result),
            )
            try:
                await call(self._local.HandSample, request, deadline_s=10)
                self._last_error = ""
            except DirediError as error:
                if str(error) != self._last_error:
                    self._log.warning("sample_rejected", error=str(error))
                self._last_error = str(error)
            await asyncio.sleep(self._pause_s)


def is_uncertain(result: Result, below: float) -> bool:
    """Return whether a detection of this frame has a confidence below a limit."""
    return len(result.detections) > 0 and float(result.detections.scores.min()) < below


def doubt(result: Result) -> float:
    """Return the entropy of the least certain detection in bits, 0 to 1; 0 where there is none."""
    scores = np.clip(result.detections.scores, 1e-6, 1 - 1e-6)
    entropies = -(scores * np.log2(scores) + (1 - scores) * np.log2(1 - scores))
    return float(np.clip(entropies, 0, 1).max(initial=0.0))


def sample_boxes(result: Result) -> list[pb.SampleBox]:
    """Convert detections to shares of the image, in their order; what is outside of it is cut off."""
    height, width = result.image.shape[:2]
    names, found = result.model.release.labels.names, result.detections
    shares = np.clip(found.boxes / np.array([width, height, width, height], np.float32), 0, 1)
    return [
        pb.SampleBox(
            class_name=names[int(class_id)], x=float(x1 + x2) / 2, y=float(y1 + y2) / 2, width=float(x2 - x1),
            height=float(y2 - y1), confidence=float(score),
        )
        for (x1, y1, x2, y2), score, class_id in zip(shares, found.scores, found.classes, strict=True)
        if x2 > x1 and y2 > y1
    ]  # fmt: skip
