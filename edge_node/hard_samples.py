"""Sends uncertain frames to the site's user domain, where the site asked for that, and to nobody else."""

from __future__ import annotations

import asyncio

import structlog

from diredi.data.images import encode_jpeg
from diredi.errors import DirediError
from diredi.rpc.client import Channel, call
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
                class_ids=[int(class_id) for class_id in result.detections.classes],
                lowest_confidence=float(result.detections.scores.min()),
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
