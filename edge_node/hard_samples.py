"""Hands uncertain frames to the site's user domain, where the site asked for that; to nobody else."""

from __future__ import annotations

import asyncio

import structlog

from diredi.data.images import encode_jpeg
from diredi.errors import DirediError
from diredi.rpc.client import Channel, call
from diredi.rpc.v1 import local_pb2 as pb
from diredi.rpc.v1.local_pb2_grpc import LocalServiceStub
from edge_node.broadcast import Broadcast
from edge_node.inference import Result


class HardSampleSender:
    """At most `per_minute` frames; a user domain that is away or full costs the node nothing but the frame."""

    def __init__(self, channel: Channel, device: str, *, per_minute: float, uncertain_below: float) -> None:
        self._local = LocalServiceStub(channel)
        self._device = device
        self._pause_s = 60 / per_minute
        self._uncertain_below = uncertain_below
        self._log = structlog.get_logger()
        self._said = ""

    async def run(self, broadcast: Broadcast) -> None:
        """Until the source ends."""
        async for result in broadcast.results():
            if not is_uncertain(result, self._uncertain_below):
                continue
            try:
                await self._hand(result)
                self._said = ""
            except DirediError as error:
                if str(error) != self._said:
                    self._log.warning("sample_not_taken", error=str(error))
                self._said = str(error)
            await asyncio.sleep(self._pause_s)

    async def _hand(self, result: Result) -> None:
        request = pb.HandSampleRequest(
            device=self._device,
            image=await asyncio.to_thread(encode_jpeg, result.image),
            class_ids=[int(c) for c in result.detections.classes],
            lowest_confidence=float(result.detections.scores.min()),
        )
        await call(self._local.HandSample, request, deadline_s=10)


def is_uncertain(result: Result, below: float) -> bool:
    """Whether something was found that the model is not sure of."""
    return len(result.detections) > 0 and float(result.detections.scores.min()) < below
