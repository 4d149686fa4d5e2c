"""EdgeService: what a node serves to its own site, and to nobody else."""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from diredi.data.images import decode_image
from diredi.detectors.predictor import Detections
from diredi.errors import InvalidInput, WrongState
from diredi.labels import LabelSpace
from diredi.rpc import convert
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.caller import require
from diredi.rpc.v1 import edge_pb2 as pb
from diredi.rpc.v1 import edge_pb2_grpc as stubs
from diredi.trust.identity import Role
from edge_node.active_model import ActiveModel, RunningModel
from edge_node.cloud import CloudClient, DetectionHealth, UpdateHealth
from edge_node.drift import DriftWatch
from edge_node.identity import IdentityFolder
from edge_node.inference import Broadcast, InferenceLoop
from edge_node.release_trust import SignedMetadata
from edge_node.runtimes import RuntimeChooser
from edge_node.sample_picker import SamplePicker
from edge_node.shadow import ShadowRun, Tally
from edge_node.telemetry import ReleaseCounts, Telemetry
from edge_node.updater import Updater

MAX_IMAGE_BYTES = 8 * 2**20


class Output(Protocol):
    """Hand on what the node sees, beside gRPC."""

    @property
    def problem(self) -> str:
        """What is wrong with it, in a sentence; empty for nothing."""
        ...

    async def run(self) -> None:
        """Do so for ever."""
        ...

    def metrics(self) -> Iterable[Any]:
        """Return its figures for Prometheus, as families of prometheus-client."""
        ...


@dataclass(frozen=True)
class NodeParts:
    """Hold the parts of a node that its service reads; `node.py` makes them."""

    device: str
    site: str
    confidence: float
    active: ActiveModel
    telemetry: Telemetry
    broadcast: Broadcast
    inference: InferenceLoop
    updater: Updater
    cloud: CloudClient
    meter: EgressMeter
    identity: IdentityFolder
    trust: SignedMetadata
    chooser: RuntimeChooser
    drift: DriftWatch
    shadow: ShadowRun
    picker: SamplePicker | None
    """Picks frames for the user domain; None where it gets none."""
    outputs: list[Output] = field(default_factory=list)
    handed: Counter[str] = field(default_factory=Counter)
    """How many frames the user domain has taken, by the reason for which they were picked."""

    def update_health(self) -> UpdateHealth:
        """Return what the cloud is told of the model and of updates."""
        current = self.active.current
        runtime = current.runtime if current else ""
        drifts = {camera: drift.signal.value for camera, drift in self.drift.drifts.items()}
        return UpdateHealth(
            self.active.failed_frames,
            bool(self.trust.problem),
            runtime,
            drifts,
            self.updater.waits,
            self._detection_health(0 if current is None else current.release.version),
        )

    def _detection_health(self, version: int) -> DetectionHealth:
        previous = self.updater.record.previous
        before = ReleaseCounts() if previous is None else self.telemetry.of_release(previous.version)
        counts = self.telemetry.of_release(version)
        tally = self.shadow.tally if self.shadow.tally.version == version else Tally()
        return DetectionHealth(
            frames=counts.frames, failed_frames=self.active.failures[version], dropped_frames=counts.dropped,
            boxes=counts.boxes, confidence=counts.confidence,
            boxes_before=before.boxes, confidence_before=before.confidence,
            compared_boxes=tally.boxes, differing_boxes=tally.differing,
        )  # fmt: skip

    @property
    def last_error(self) -> str:
        """The last error of any part; empty for none. What is wrong with the identity comes first: the rest follows."""
        return (
            self.identity.problem
            or self.trust.problem
            or self.updater.last_error
            or self.inference.last_error
            or self.cloud.last_error
            or self.meter.problem
            or next((output.problem for output in self.outputs if output.problem), "")
            or self.drift.problem
        )


class EdgeServicer(stubs.EdgeServiceServicer):
    """Serve detections and the status of a node."""

    def __init__(self, node: NodeParts) -> None:
        self._node = node

    async def DetectImage(self, request: pb.DetectImageRequest, context: Any) -> pb.DetectImageResponse:
        self._require_own_site(context)
        started = time.perf_counter()
        model, detections = await asyncio.to_thread(self._detect, request.image, request.confidence)
        return pb.DetectImageResponse(
            detections=detections_to_messages(detections, model.release.labels),
            release_version=model.release.version,
            latency_ms=(time.perf_counter() - started) * 1000,
        )

    def _require_own_site(self, context: Any) -> None:
        """Refuse callers of another site and of the manufacturer: only a site may see what its cameras see."""
        require(context, Role.SITE, Role.DEVICE, site=self._node.site)

    def _detect(self, encoded: bytes, confidence: float) -> tuple[RunningModel, Detections]:
        if self._node.active.current is None:
            raise WrongState("no release is installed on this node yet: wait until the cloud has published one")
        if len(encoded) > MAX_IMAGE_BYTES:
            raise InvalidInput(f"the image has {len(encoded)} bytes, more than {MAX_IMAGE_BYTES}: send it smaller")
        if not 0 <= confidence <= 1:
            raise InvalidInput(f"confidence {confidence} is not within 0 and 1: leave it out for the node's own")
        return self._node.active.detect(decode_image(encoded), confidence or self._node.confidence)

    async def DetectStream(
        self, request: pb.DetectStreamRequest, context: Any
    ) -> AsyncIterator[pb.DetectStreamResponse]:
        self._require_own_site(context)
        async for result in self._node.broadcast.results():
            release = result.model.release
            yield pb.DetectStreamResponse(
                frame=result.number,
                detections=detections_to_messages(result.detections, release.labels),
                release_version=release.version,
                camera=result.camera,
                captured=convert.time_to(datetime.fromtimestamp(result.captured_s, UTC)),
            )

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        self._require_own_site(context)
        node, rates, model = self._node, self._node.telemetry.rates(), self._node.active.current
        return pb.GetStatusResponse(
            device=node.device,
            site=node.site,
            release_version=model.release.version if model else 0,
            labels=convert.labels_to(model.release.labels) if model else None,
            frames=rates.frames,
            dropped_frames=rates.dropped,
            frames_per_second=rates.frames_per_second,
            latency_ms=rates.latency_ms,
            cloud_online=node.cloud.online,
            last_error=node.last_error,
            sent_bytes=node.meter.totals(),
            overlay=model.overlay if model else "",
            runtime=model.runtime if model else "",
            runtime_reason=node.chooser.why,
        )


def detections_to_json(detections: Detections, labels: LabelSpace) -> list[dict[str, object]]:
    """Return detections as JSON has them, in their order: the most confident comes first."""
    return [
        {
            "class": labels.names[int(class_id)],
            "class_id": int(class_id),
            "confidence": round(float(score), 4),
            "box": [round(float(value), 1) for value in box],
        }
        for box, score, class_id in zip(detections.boxes, detections.scores, detections.classes, strict=True)
    ]


def detections_to_messages(detections: Detections, labels: LabelSpace) -> list[pb.Detection]:
    """Convert detections to messages, in their order: the most confident comes first."""
    return [
        pb.Detection(
            class_id=int(class_id),
            class_name=labels.names[int(class_id)],
            confidence=float(score),
            x1=float(box[0]),
            y1=float(box[1]),
            x2=float(box[2]),
            y2=float(box[3]),
        )
        for box, score, class_id in zip(detections.boxes, detections.scores, detections.classes, strict=True)
    ]
