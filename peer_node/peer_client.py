"""One neighbour, asked. What it says is believed in nothing: not the sizes, not the numbers, not that it ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from diredi.errors import CorruptData, InvalidInput, NoRoom
from diredi.rpc.client import Channel, call
from diredi.rpc.streams import messages_of
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1.peers_pb2_grpc import PeerServiceStub
from diredi.store.weights import WeightMap
from diredi.trust.identity import Identity
from peer_node.learner import (
    Floats,
    PayloadSpec,
    PredictionRequest,
    Predictions,
    PredictionSpec,
    Update,
    Weights,
    WeightsSpec,
)

Response = TypeVar("Response", pb.DescribePeerResponse, pb.PredictResponse, pb.GetWeightsResponse)
MAX_SAMPLES = 2**40
"""That a neighbour can have learned from; more would make everybody else's share of a mean 0."""
MIN_MESSAGE_BYTES = 1024
"""That a message of a file counts for, so that a stream of empty ones ends, too."""


class PeerClient:
    def __init__(self, identity: Identity, channel: Channel, spec: PayloadSpec) -> None:
        """`spec` is our own."""
        self.identity = identity
        self._channel = channel
        self._stub = PeerServiceStub(channel)
        self._spec = spec
        self._alike: bool | None = None

    async def greet(self) -> None:
        """Returns when it has answered and can be learned from. Raises Unreachable; InvalidInput when it differs."""
        said = await call(self._stub.DescribePeer, pb.DescribePeerRequest(), deadline_s=5)
        self._require_message(said)
        if isinstance(self._spec, WeightsSpec):
            self._check_schema(said, self._spec)
        else:
            self._check_public_set(said, self._spec)
            self._alike = said.embedding == self._spec.embedding

    async def wait_until_disconnected(self) -> None:
        """Returns when there is no connection to it, or no longer: it has ended, or cannot be reached."""
        await self._channel.lost()

    async def fetch(self, round_: int, request: PredictionRequest | None, deadline_s: float) -> Update:
        """What it says in a round: predictions as asked for, or weights where there is no request.

        Raises CorruptData that names it for anything else than was asked for; what it refuses with; Unreachable.
        """
        try:
            return await (
                self.fetch_weights(round_, deadline_s)
                if request is None
                else self.fetch_predictions(round_, request, deadline_s)
            )
        except (_InvalidAnswer, NoRoom) as wrong:  # NoRoom: gRPC took a message for too large to receive
            raise CorruptData(f"{self.identity} answered round {round_} with {wrong}: it was left out") from None

    async def fetch_predictions(self, round_: int, request: PredictionRequest, deadline_s: float) -> Predictions:
        """float32, as they left it, bit for bit: probabilities [heads, samples, classes] in the order of `request`.

        One whose embeddings have another size is not asked for them: nothing could be learned from these.
        """
        spec = self._spec
        assert isinstance(spec, PredictionSpec)
        if request.embeddings and self._alike is None:
            await self.greet()
        asked = request if self._alike else replace(request, embeddings=False)
        message = pb.PredictRequest(
            public_set=spec.public_set,
            round=round_,
            samples=() if asked.samples is None else asked.samples.tolist(),
            heads=asked.heads,
            embeddings=asked.embeddings,
            temperature=asked.temperature,
        )
        answer = _PredictionsBuffer(asked, spec)
        async for chunk in messages_of(self._stub.Predict(message, timeout=deadline_s), silence_s=deadline_s):
            answer.add(self._require_message(chunk))
        return answer.result()

    async def fetch_weights(self, round_: int, deadline_s: float) -> Weights:
        """As they left it, bit for bit, of our own schema and finite."""
        spec = self._spec
        assert isinstance(spec, WeightsSpec)
        file, request = _WeightsBuffer(spec), pb.GetWeightsRequest(round=round_)
        async for chunk in messages_of(self._stub.GetWeights(request, timeout=deadline_s), silence_s=deadline_s):
            file.add(self._require_message(chunk))
        return file.result()

    def _check_public_set(self, said: pb.DescribePeerResponse, ours: PredictionSpec) -> None:
        if (said.public_set, said.samples, said.classes) != (ours.public_set, ours.samples, ours.classes):
            raise InvalidInput(
                f"{self.identity} has the public set {said.public_set[:80]!r} of {said.samples} samples and "
                f"{said.classes} classes, this peer {ours.public_set!r} of {ours.samples} and {ours.classes}: "
                "give both the same"
            )

    def _check_schema(self, said: pb.DescribePeerResponse, ours: WeightsSpec) -> None:
        if said.schema != ours.schema:
            raise InvalidInput(
                f"{self.identity} shares {f'weights of the schema {said.schema[:80]!r}' if said.schema else 'none'}, "
                f"this peer weights of {ours.schema!r}: give both the same learner and network"
            )

    def _require_message(self, message: Response | None) -> Response:
        """Raises CorruptData where bytes came that are no message, of which gRPC makes None."""
        if message is None:
            raise CorruptData(f"{self.identity} answered with bytes that are no message: it was left out")
        return message


class _InvalidAnswer(Exception):
    """What is wrong with an answer."""


class _WeightsBuffer:
    """A file of weights, as far as it has come. Takes no more memory than ours would."""

    def __init__(self, spec: WeightsSpec) -> None:
        self._spec = spec
        self._parts: list[bytes] = []
        self._bytes_left = spec.max_bytes
        self._samples = 0

    def add(self, chunk: pb.GetWeightsResponse) -> None:
        """Raises _InvalidAnswer."""
        if not self._parts:
            self._samples = chunk.samples
        self._bytes_left -= max(len(chunk.data), MIN_MESSAGE_BYTES)
        if self._bytes_left < 0:
            raise _InvalidAnswer("more bytes than such weights take")
        self._parts.append(chunk.data)

    def result(self) -> Weights:
        """Raises _InvalidAnswer."""
        if not 0 < self._samples <= MAX_SAMPLES:
            raise _InvalidAnswer(f"weights of {self._samples} samples")
        try:
            said = Weights(WeightMap.from_bytes(b"".join(self._parts)), self._samples)
        except CorruptData as error:
            raise _InvalidAnswer(str(error)) from None
        if flaw := self._spec.validation_error(said):
            raise _InvalidAnswer(flaw)
        return said


class _PredictionsBuffer:
    """What has come of it so far. Takes no more memory than what was asked for."""

    def __init__(self, request: PredictionRequest, spec: PredictionSpec) -> None:
        self._samples = spec.samples if request.samples is None else len(request.samples)
        self._columns = [spec.classes] * len(request.heads) + [spec.embedding] * request.embeddings
        self._arrays = [np.empty((self._samples, columns), np.float32) for columns in self._columns]
        self._heads = len(request.heads)
        self._rows = 0
        # Twice the payload is more than any chunking makes of it; a stream of junk ends there.
        self._bytes_left = 2 * sum(array.nbytes for array in self._arrays) + 64 * 1024

    def add(self, chunk: pb.PredictResponse) -> None:
        """Raises _InvalidAnswer."""
        self._bytes_left -= chunk.ByteSize()
        if self._bytes_left < 0:
            raise _InvalidAnswer("more bytes than the answer takes")
        matrices = [*chunk.probabilities, *([chunk.embeddings] if chunk.HasField("embeddings") else [])]
        if len(chunk.probabilities) != self._heads or len(matrices) != len(self._columns):
            raise _InvalidAnswer(f"{len(matrices)} matrices where {len(self._columns)} were asked for")
        rows = matrices[0].rows
        if chunk.first != self._rows or not 0 < rows <= self._samples - self._rows:
            raise _InvalidAnswer(
                f"{rows} rows from row {chunk.first} on where row {self._rows} of {self._samples} comes next"
            )
        for array, matrix, columns in zip(self._arrays, matrices, self._columns, strict=True):
            array[self._rows : self._rows + rows] = _values(matrix, rows, columns)
        self._rows += rows

    def result(self) -> Predictions:
        """Raises _InvalidAnswer."""
        if self._rows < self._samples:
            raise _InvalidAnswer(f"{self._rows} rows where {self._samples} were asked for")
        predictions = Predictions(np.stack(self._arrays[: self._heads]), *self._arrays[self._heads :])
        if flaw := predictions.validation_error():
            raise _InvalidAnswer(flaw)
        return predictions


def _values(matrix: pb.Rows, rows: int, columns: int) -> Floats:
    if (matrix.rows, matrix.columns) != (rows, columns):
        raise _InvalidAnswer(f"a matrix of {matrix.rows} x {matrix.columns} where {rows} x {columns} is due")
    if len(matrix.data) != 4 * rows * columns:
        raise _InvalidAnswer(f"{len(matrix.data)} bytes for a matrix of {rows} x {columns}")
    return np.frombuffer(matrix.data, "<f4").reshape(rows, columns)
