"""Sends frames that are worth a label to the site's user domain, where the site asked for that, and to nobody else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
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
from edge_node.sample_picker import Pick, SamplePicker


class HardSampleSender:
    """Send frames that are worth a label; while the user domain is away or full, they are dropped."""

    def __init__(self, channel: Channel, device: str, picker: SamplePicker, handed: Counter[str]) -> None:
        """Make a sender.

        Args:
            channel: The connection to the user domain.
            device: Name of this device.
            picker: Decides what is sent.
            handed: Counts what was stored, by reason.
        """
        self._local = LocalServiceStub(channel)
        self._device = device
        self._picker = picker
        self._handed = handed
        self._log = structlog.get_logger()
        self._last_error = ""

    async def run(self, broadcast: Broadcast) -> None:
        """Send frames until the source ends."""
        async for result in broadcast.results():
            self._picker.look_at(result)
            if (pick := self._picker.take(time.monotonic())) is not None:
                await self._send(pick)

    async def _send(self, pick: Pick) -> None:
        request = await asyncio.to_thread(self._request, pick)
        try:
            response = await call(self._local.HandSample, request, deadline_s=10)
            self._last_error = ""
            if response.stored:
                self._handed.update(reason.value for reason in pick.reasons)
        except DirediError as error:
            if str(error) != self._last_error:
                self._log.warning("sample_rejected", error=str(error))
            self._last_error = str(error)

    def _request(self, pick: Pick) -> pb.HandSampleRequest:
        result = pick.result
        return pb.HandSampleRequest(
            device=self._device,
            image=encode_jpeg(result.image),
            camera=result.camera,
            captured=time_to(datetime.fromtimestamp(result.captured_s, UTC)),
            detections=sample_boxes(result),
            release_version=result.model.release.version,
            reasons=[pb.SampleReason.Value(f"SAMPLE_REASON_{reason.name}") for reason in pick.reasons],
            doubt=pick.doubt,
        )


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
