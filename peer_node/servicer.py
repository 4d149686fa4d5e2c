"""PeerService: neighbours read the round store, and nobody else does. It sees neither the learner nor any data."""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from diredi.errors import DirediError, InvalidInput, NotFound, Refused
from diredi.rpc.caller import caller_identity
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1 import peers_pb2_grpc as stubs
from diredi.trust.identity import Identity
from peer_node.detections import BOX_BYTES, DetectionsSpec, PublicDetections
from peer_node.learner import (
    Floats,
    PayloadSpec,
    PredictionRequest,
    Predictions,
    PredictionSpec,
    WeightsFile,
    WeightsSpec,
)
from peer_node.round_store import RoundStore

CHUNK_BYTES = 256 * 1024
FILE_CHUNK_BYTES = 1024 * 1024


class PeerServicer(stubs.PeerServiceServicer):
    """Serve a peer's published updates to its neighbours."""

    def __init__(self, own: Identity, store: RoundStore, neighbours: Collection[Identity]) -> None:
        """Make the service.

        Args:
            own: This peer's identity.
            store: The updates that it has published.
            neighbours: Who may call.
        """
        self._own = own
        self._store = store
        self._neighbours = frozenset(neighbours)

    async def DescribePeer(self, request: pb.DescribePeerRequest, context: Any) -> pb.DescribePeerResponse:
        self._require_neighbour(context)
        spec, store = self._store.payload_spec, self._store
        description = pb.DescribePeerResponse(
            name=self._own.name, site=self._own.site, rounds=store.rounds, ready=store.ready
        )
        if isinstance(spec, WeightsSpec):
            description.schema = spec.schema
        elif isinstance(spec, DetectionsSpec):
            description.public_set, description.samples = spec.public_set, spec.samples
            description.class_names.extend(spec.names)
            description.max_boxes = spec.max_boxes
        else:
            description.public_set, description.samples, description.classes = (
                spec.public_set,
                spec.samples,
                spec.classes,
            )
            description.heads, description.embedding = spec.heads, spec.embedding
        return description

    async def Predict(self, request: pb.PredictRequest, context: Any) -> AsyncIterator[pb.PredictResponse]:
        with self._marked_as_served(request.round, context):
            wanted = parse_request(request, self._store.payload_spec)
            predictions = await self._store.get(request.round)
            assert isinstance(predictions, Predictions)
            for chunk in prediction_chunks(predictions, wanted):
                yield chunk

    async def GetWeights(self, request: pb.GetWeightsRequest, context: Any) -> AsyncIterator[pb.GetWeightsResponse]:
        with self._marked_as_served(request.round, context):
            if not isinstance(self._store.payload_spec, WeightsSpec):
                raise _other_kind(self._store.payload_spec, "weights")
            weights = await self._store.get(request.round)
            assert isinstance(weights, WeightsFile)
            for chunk in weights_chunks(weights):
                yield chunk

    async def Detect(self, request: pb.DetectRequest, context: Any) -> AsyncIterator[pb.DetectResponse]:
        with self._marked_as_served(request.round, context):
            spec = self._store.payload_spec
            if not isinstance(spec, DetectionsSpec):
                raise _other_kind(spec, "detections")
            _check_public_set(request.public_set, spec)
            detections = await self._store.get(request.round)
            assert isinstance(detections, PublicDetections)
            for chunk in detection_chunks(detections):
                yield chunk

    @contextmanager
    def _marked_as_served(self, round_: int, context: Any) -> Iterator[None]:
        """Tell the store once the call is over that its caller was answered, or refused with an error.

        A peer that has answered all its neighbours about its last round may stop at once.
        """
        caller = self._require_neighbour(context)

        def mark(_: Any) -> None:
            self._store.mark_served(round_, caller)

        try:
            yield
        except DirediError:
            context.add_done_callback(mark)
            raise
        context.add_done_callback(mark)

    def _require_neighbour(self, context: Any) -> Identity:
        """Return the caller's identity; raise Refused for anyone but a neighbour."""
        caller = caller_identity(context)
        if caller not in self._neighbours:
            raise Refused(f"{caller} is not a neighbour of {self._own}: name it in that peer's configuration")
        return caller


def parse_request(request: pb.PredictRequest, spec: PayloadSpec) -> PredictionRequest:
    """Turn a message into a request that a peer of this spec can answer.

    Raises:
        NotFound: The message is about another public set.
        InvalidInput: This peer cannot answer it.
    """
    if not isinstance(spec, PredictionSpec):
        raise _other_kind(spec, "predictions")
    _check_public_set(request.public_set, spec)
    samples, heads = np.array(request.samples, dtype=np.int64), tuple(request.heads)
    if len(samples) > spec.samples or samples.max(initial=0) >= spec.samples:
        raise InvalidInput(f"the public set has {spec.samples} samples: ask for indices below that, each once")
    if not heads or max(heads) >= spec.heads or len(set(heads)) < len(heads):
        raise InvalidInput(f"heads {list(heads[:16])} cannot be asked: this peer has 0 to {spec.heads - 1}, each once")
    if request.embeddings and not spec.embedding:
        raise InvalidInput("this peer gives no embeddings: ask for probabilities alone")
    if not (math.isfinite(request.temperature) and request.temperature >= 0):
        raise InvalidInput(f"a temperature of {request.temperature} cannot be: ask for one above 0")
    return PredictionRequest(samples if len(samples) else None, heads, request.embeddings, request.temperature or 1.0)


def prediction_chunks(predictions: Predictions, request: PredictionRequest) -> Iterator[pb.PredictResponse]:
    """Yield the answer to a request in messages of about CHUNK_BYTES, with at least one row in each."""
    _, available, classes = predictions.probabilities.shape
    samples = np.arange(available) if request.samples is None else request.samples
    embeddings = predictions.embeddings if request.embeddings else None
    columns = len(request.heads) * classes + (0 if embeddings is None else embeddings.shape[1])
    rows = max(1, CHUNK_BYTES // (4 * columns))
    for first in range(0, len(samples), rows):
        part = samples[first : first + rows]
        probabilities = predictions.probabilities[np.array(request.heads)[:, None], part]
        yield pb.PredictResponse(
            first=first,
            probabilities=[_rows(matrix) for matrix in soften(probabilities, request.temperature)],
            embeddings=None if embeddings is None else _rows(embeddings[part]),
        )


def weights_chunks(weights: WeightsFile) -> Iterator[pb.GetWeightsResponse]:
    """Yield a weights file in messages of FILE_CHUNK_BYTES; the first one also has the number of samples."""
    file = memoryview(weights.data)
    yield pb.GetWeightsResponse(data=bytes(file[:FILE_CHUNK_BYTES]), samples=weights.samples)
    for start in range(FILE_CHUNK_BYTES, len(file), FILE_CHUNK_BYTES):
        yield pb.GetWeightsResponse(data=bytes(file[start : start + FILE_CHUNK_BYTES]))


def detection_chunks(detections: PublicDetections) -> Iterator[pb.DetectResponse]:
    """Yield detections in messages of about CHUNK_BYTES, with at least one sample in each.

    The first message also has the classes and their qualities.
    """
    ends = np.cumsum(detections.counts)
    starts, samples = ends - detections.counts, len(detections.counts)
    qualities = [pb.ClassQuality(name=name, ap50=ap50) for name, ap50 in detections.qualities.items()]
    first = 0
    while first < samples:
        room = int(starts[first]) + CHUNK_BYTES // BOX_BYTES
        last = max(first + 1, min(int(np.searchsorted(ends, room, "right")), first + CHUNK_BYTES // BOX_BYTES))
        part = slice(int(starts[first]), int(ends[last - 1]))
        yield pb.DetectResponse(
            first=first,
            counts=detections.counts[first:last].tolist(),
            boxes=detections.boxes[part].astype("<f4", copy=False).tobytes(),
            scores=detections.scores[part].astype("<f4", copy=False).tobytes(),
            classes=detections.classes[part].tolist(),
            qualities=qualities if first == 0 else (),
        )
        first = last


def _other_kind(spec: PayloadSpec, wanted: str) -> InvalidInput:
    kinds = {WeightsSpec: "weights", DetectionsSpec: "detections", PredictionSpec: "predictions"}
    return InvalidInput(f"this peer shares {kinds[type(spec)]} and no {wanted}: give both peers one kind of learner")


def _check_public_set(theirs: str, spec: PredictionSpec | DetectionsSpec) -> None:
    if theirs != spec.public_set:
        raise NotFound(f"this peer's public set is {spec.public_set}, not {theirs[:80]!r}: give both the same one")


def soften(probabilities: Floats, temperature: float) -> Floats:
    """Divide the logits of distributions by a temperature.

    Args:
        probabilities: [..., classes], float32.
        temperature: Above 0; at 1 the very same bits are returned.
    """
    if temperature == 1:
        return probabilities
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities.astype(np.float64)) / temperature
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    softer: Floats = (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
    return softer


def _rows(matrix: Floats) -> pb.Rows:
    rows, columns = matrix.shape
    return pb.Rows(rows=rows, columns=columns, data=matrix.astype("<f4", copy=False).tobytes())
