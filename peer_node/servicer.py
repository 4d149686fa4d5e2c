"""PeerService: neighbours read the store, and nobody else does. It knows no learner and no data, private or public."""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from diredi.errors import DirediError, InvalidInput, NotFound, Refused
from diredi.rpc.caller import peer_identity
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1 import peers_pb2_grpc as stubs
from diredi.trust.identity import Identity
from peer_node.learner import Floats, PayloadSpec, PredictionRequest, Predictions, WeightsFile, WeightsSpec
from peer_node.round_store import RoundStore

CHUNK_BYTES = 256 * 1024
FILE_CHUNK_BYTES = 1024 * 1024


class PeerServicer(stubs.PeerServiceServicer):
    def __init__(self, own: Identity, store: RoundStore, neighbours: Collection[Identity]) -> None:
        self._own = own
        self._store = store
        self._neighbours = frozenset(neighbours)

    async def DescribePeer(self, request: pb.DescribePeerRequest, context: Any) -> pb.DescribePeerResponse:
        self._caller(context)
        spec, store = self._store.payload_spec, self._store
        about = pb.DescribePeerResponse(
            name=self._own.name, site=self._own.site, rounds=store.rounds, ready=store.ready
        )
        if isinstance(spec, WeightsSpec):
            about.schema = spec.schema
        else:
            about.public_set, about.samples, about.classes = spec.public_set, spec.samples, spec.classes
            about.heads, about.embedding = spec.heads, spec.embedding
        return about

    async def Predict(self, request: pb.PredictRequest, context: Any) -> AsyncIterator[pb.PredictResponse]:
        with self._told(request.round, context):
            asked = parse_request(request, self._store.payload_spec)
            said = await self._store.get(request.round)
            assert isinstance(said, Predictions)
            for chunk in prediction_chunks(said, asked):
                yield chunk

    async def GetWeights(self, request: pb.GetWeightsRequest, context: Any) -> AsyncIterator[pb.GetWeightsResponse]:
        with self._told(request.round, context):
            if not isinstance(self._store.payload_spec, WeightsSpec):
                raise InvalidInput("this peer shares predictions and no weights: give both peers one kind of learner")
            said = await self._store.get(request.round)
            assert isinstance(said, WeightsFile)
            for chunk in weights_chunks(said):
                yield chunk

    @contextmanager
    def _told(self, round_: int, context: Any) -> Iterator[None]:
        """An answer to a neighbour, or a refusal, of which the store is told once the call is over: a peer that has
        told all its neighbours of its last round may stop at once."""
        caller = self._caller(context)
        try:
            yield
        except DirediError:
            self._note_told(round_, caller, context)
            raise
        self._note_told(round_, caller, context)

    def _note_told(self, round_: int, caller: Identity, context: Any) -> None:
        context.add_done_callback(lambda _: self._store.mark_served(round_, caller))

    def _caller(self, context: Any) -> Identity:
        """Raises Refused for anyone but a neighbour."""
        caller = peer_identity(context)
        if caller not in self._neighbours:
            raise Refused(f"{caller} is not a neighbour of {self._own}: name it in that peer's configuration")
        return caller


def parse_request(request: pb.PredictRequest, spec: PayloadSpec) -> PredictionRequest:
    """Raises NotFound for another public set, InvalidInput for what a peer of this spec cannot answer."""
    if isinstance(spec, WeightsSpec):
        raise InvalidInput("this peer shares weights and no predictions: give both peers one kind of learner")
    if request.public_set != spec.public_set:
        raise NotFound(
            f"this peer's public set is {spec.public_set}, not {request.public_set[:80]!r}: give both the same one"
        )
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
    """The answer in messages of about CHUNK_BYTES; at least one row in each."""
    _, available, classes = predictions.probabilities.shape
    samples = np.arange(available) if request.samples is None else request.samples
    embeddings = predictions.embeddings if request.embeddings else None
    columns = len(request.heads) * classes + (0 if embeddings is None else embeddings.shape[1])
    rows = max(1, CHUNK_BYTES // (4 * columns))
    for first in range(0, len(samples), rows):
        some = samples[first : first + rows]
        asked = predictions.probabilities[np.array(request.heads)[:, None], some]
        yield pb.PredictResponse(
            first=first,
            probabilities=[_rows(matrix) for matrix in soften(asked, request.temperature)],
            embeddings=None if embeddings is None else _rows(embeddings[some]),
        )


def weights_chunks(said: WeightsFile) -> Iterator[pb.GetWeightsResponse]:
    """The file in messages of FILE_CHUNK_BYTES, and with the first one what it is."""
    file = memoryview(said.data)
    yield pb.GetWeightsResponse(data=bytes(file[:FILE_CHUNK_BYTES]), samples=said.samples)
    for start in range(FILE_CHUNK_BYTES, len(file), FILE_CHUNK_BYTES):
        yield pb.GetWeightsResponse(data=bytes(file[start : start + FILE_CHUNK_BYTES]))


def soften(probabilities: Floats, temperature: float) -> Floats:
    """Distributions [..., classes] with their logits divided by `temperature`; at 1 the very same bits."""
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
