"""LocalService: what a user domain serves inside its own site, and to nobody else."""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from pydantic import ValidationError

from diredi.consent import SignedEntry
from diredi.data.sample_reason import SampleReason
from diredi.errors import InvalidInput
from diredi.rpc import convert
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.caller import require
from diredi.rpc.v1 import local_pb2 as pb
from diredi.rpc.v1 import local_pb2_grpc as stubs
from diredi.trust.identity import Role
from user_domain.cloud import CloudClient
from user_domain.consent import Consent
from user_domain.deletion import Deletion
from user_domain.private_data import PrivateData
from user_domain.samples import DetectedBox, SampleStore, Sighting
from user_domain.task_worker import TaskWorker
from user_domain.update_rules import ALL, UpdateRules


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
    rules: UpdateRules
    deletion: Deletion


def sighting_from(request: pb.HandSampleRequest) -> Sighting:
    """Convert what a node says of a frame. Raises InvalidInput for what cannot be."""
    known = [reason for reason in request.reasons if reason in pb.SampleReason.values() and reason]
    try:
        return Sighting(
            device=request.device,
            camera=request.camera or request.device,
            captured=convert.time_from(request.captured) if request.HasField("captured") else None,
            detections=tuple(
                DetectedBox(
                    name=box.class_name, x=box.x, y=box.y, width=box.width, height=box.height, confidence=box.confidence
                )
                for box in request.detections
            ),
            release=request.release_version,
            reasons=tuple(
                SampleReason(pb.SampleReason.Name(reason).removeprefix("SAMPLE_REASON_").lower()) for reason in known
            ),
            doubt=request.doubt,
        )
    except ValidationError as error:
        raise InvalidInput(f"what the node says of this frame cannot be: {convert.first_problem(error)}") from None


class LocalServicer(stubs.LocalServiceServicer):
    """Take frames of the site's edge nodes, and serve the status of the site."""

    def __init__(self, parts: SiteParts) -> None:
        self._parts = parts

    async def HandSample(self, request: pb.HandSampleRequest, context: Any) -> pb.HandSampleResponse:
        require(context, Role.DEVICE, name=request.device, site=self._parts.site)
        sighting = sighting_from(request)
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

    async def HoldRelease(self, request: pb.HoldReleaseRequest, context: Any) -> pb.HoldReleaseResponse:
        require(context, Role.SITE, site=self._parts.site)
        entry = self._parts.rules.decide(SignedEntry(request.entry, request.signature))
        release = entry.what["release"] or "all"
        structlog.get_logger().info("hold_recorded", release=release, decision=entry.event, by=entry.by)
        return pb.HoldReleaseResponse()

    async def GetUpdateRules(self, request: pb.GetUpdateRulesRequest, context: Any) -> pb.GetUpdateRulesResponse:
        require(context, Role.SITE, Role.DEVICE, site=self._parts.site)
        rules, now = self._parts.rules, datetime.now(UTC)
        held = rules.held()
        return pb.GetUpdateRulesResponse(
            held=sorted(held - {ALL}),
            all_held=ALL in held,
            has_windows=bool(rules.windows),
            windows=[
                pb.TimeSpan(begins=convert.time_to(begins), ends=convert.time_to(ends))
                for begins, ends in rules.spans(now)
            ],
            words=rules.words,
        )

    async def GetSiteStatus(self, request: pb.GetSiteStatusRequest, context: Any) -> pb.GetSiteStatusResponse:
        require(context, Role.SITE, Role.DEVICE, site=self._parts.site)
        parts, data = self._parts, self._parts.data()
        known = parts.worker.known
        return pb.GetSiteStatusResponse(
            site=parts.site,
            cloud_online=parts.cloud.online,
            train_images=data.train_images,
            held_out_images=data.held_out_images,
            samples=parts.samples.count(labelled=False),
            private_bytes=data.bytes,
            cycle_id=parts.worker.cycle_id,
            sent_bytes=parts.meter.totals(),
            last_error=parts.worker.last_error or parts.meter.problem,
            class_proposals={} if known is None else known.proposals(data.names, data.distinct),
        )
