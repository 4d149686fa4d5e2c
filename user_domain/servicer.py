"""LocalService: what a user domain serves inside its own site, and to nobody else."""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from diredi.consent import SignedEntry
from diredi.errors import InvalidInput
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.caller import require
from diredi.rpc.v1 import local_pb2 as pb
from diredi.rpc.v1 import local_pb2_grpc as stubs
from diredi.trust.identity import Role
from user_domain.cloud import CloudClient
from user_domain.consent import Consent
from user_domain.private_data import PrivateData
from user_domain.samples import SampleStore, Sighting
from user_domain.task_worker import TaskWorker


@dataclass(frozen=True)
class SiteParts:
    """Hold the parts of a user domain that its service reads; `site.py` makes them."""

    site: str
    data: Callable[[], PrivateData]
    samples: SampleStore
    cloud: CloudClient
    worker: TaskWorker
    meter: EgressMeter
    consent: Consent


class LocalServicer(stubs.LocalServiceServicer):
    """Take frames of the site's edge nodes, and serve the status of the site."""

    def __init__(self, parts: SiteParts) -> None:
        self._parts = parts

    async def HandSample(self, request: pb.HandSampleRequest, context: Any) -> pb.HandSampleResponse:
        require(context, Role.DEVICE, name=request.device, site=self._parts.site)
        if not 0 <= request.lowest_confidence <= 1:
            raise InvalidInput(f"confidence {request.lowest_confidence} is not within 0 and 1")
        sighting = Sighting(request.device, tuple(request.class_ids), request.lowest_confidence)
        return pb.HandSampleResponse(stored=await asyncio.to_thread(self._parts.samples.add, request.image, sighting))

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Any) -> pb.ListRequestsResponse:
        require(context, Role.SITE, site=self._parts.site)
        consent = self._parts.consent
        return pb.ListRequestsResponse(
            requests=[
                pb.ConsentRequest(
                    cycle_id=task.cycle_id,
                    what=json.dumps(consent.describe(task)),
                    explanation=[pb.Explained(subject=s, text=text) for s, text in consent.explain(task)],
                )
                for task in self._parts.worker.waiting
            ]
        )

    async def Decide(self, request: pb.DecideRequest, context: Any) -> pb.DecideResponse:
        require(context, Role.SITE, site=self._parts.site)
        signed = SignedEntry(request.entry, request.signature)
        entry = self._parts.consent.decide(signed, self._parts.worker.waiting)
        structlog.get_logger().info("consent_recorded", cycle=entry.cycle_id, decision=entry.event, by=entry.by)
        self._parts.worker.decision_recorded()
        return pb.DecideResponse()

    async def GetSiteStatus(self, request: pb.GetSiteStatusRequest, context: Any) -> pb.GetSiteStatusResponse:
        require(context, Role.SITE, Role.DEVICE, site=self._parts.site)
        parts, data = self._parts, self._parts.data()
        known = parts.worker.known
        return pb.GetSiteStatusResponse(
            site=parts.site,
            cloud_online=parts.cloud.online,
            train_images=data.train_images,
            held_out_images=data.held_out_images,
            samples=len(parts.samples),
            private_bytes=data.bytes,
            cycle_id=parts.worker.cycle_id,
            sent_bytes=parts.meter.totals(),
            last_error=parts.worker.last_error or parts.meter.problem,
            class_proposals={} if known is None else known.proposals(data.names, data.distinct),
        )
