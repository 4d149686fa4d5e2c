"""One neighbour, asked. What it says is believed in nothing: not the sizes, not the numbers, not that it ends."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from diredi.errors import CorruptData, InvalidInput, NoRoom
from diredi.rpc.client import Channel, call
from diredi.rpc.meter import IngressMeter
from diredi.rpc.streams import messages_of
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1.peers_pb2_grpc import PeerServiceStub
from diredi.trust.identity import Identity
from edge_node.peers.learner import Floats, Outline, Predictions, Question

Heard = TypeVar("Heard", pb.DescribePeerResponse, pb.PredictResponse)


class Neighbour:
    """`received` counts what it answers, under its identity."""

    def __init__(self, identity: Identity, channel: Channel, outline: Outline, received: IngressMeter) -> None:
        self.identity = identity
        self._channel = channel
        self._stub = PeerServiceStub(channel)
        self._outline = outline
        self._received = received

    async def greet(self) -> None:
        """Returns when it has answered and can be learned from. Raises Unreachable; InvalidInput when it differs."""
        said = await call(self._stub.DescribePeer, pb.DescribePeerRequest(), deadline_s=5)
        self._heard(said)
        theirs, ours = (said.public_set, said.samples, said.classes), self._outline
        if theirs != (ours.public_set, ours.samples, ours.classes):
            raise InvalidInput(
                f"{self.identity} has the public set {said.public_set[:80]!r} of {said.samples} samples and "
                f"{said.classes} classes, this peer {ours.public_set!r} of {ours.samples} and {ours.classes}: "
                "give both the same"
            )

    async def gone(self) -> None:
        """Returns when there is no connection to it, or no longer: it has ended, or cannot be reached."""
        await self._channel.lost()

    async def predictions(self, round_: int, question: Question, deadline_s: float) -> Predictions:
        """float32, as they left it, bit for bit: probabilities [heads, samples, classes] in the order of `question`.

        Raises CorruptData that names it for anything else than was asked for; what it refuses with; Unreachable.
        """
        request = pb.PredictRequest(
            public_set=self._outline.public_set,
            round=round_,
            samples=() if question.samples is None else question.samples.tolist(),
            heads=question.heads,
            embeddings=question.embeddings,
            temperature=question.temperature,
        )
        answer = _Answer(question, self._outline)
        try:
            async for chunk in messages_of(self._stub.Predict(request, timeout=deadline_s), silence_s=deadline_s):
                answer.add(self._heard(chunk))
            return answer.whole()
        except (_Wrong, NoRoom) as wrong:  # NoRoom: gRPC took a message for too large to receive
            raise CorruptData(f"{self.identity} answered round {round_} with {wrong}: it was left out") from None

    def _heard(self, message: Heard | None) -> Heard:
        """Counts it. Raises CorruptData where bytes came that are no message, of which gRPC makes None."""
        if message is None:
            raise CorruptData(f"{self.identity} answered with bytes that are no message: it was left out")
        self._received.count(str(self.identity), message.DESCRIPTOR.full_name, message.ByteSize())
        return message


class _Wrong(Exception):
    """What is wrong with an answer."""


class _Answer:
    """What has come of it so far. Takes no more memory than what was asked for."""

    def __init__(self, question: Question, outline: Outline) -> None:
        self._samples = outline.samples if question.samples is None else len(question.samples)
        self._columns = [outline.classes] * len(question.heads) + [outline.embedding] * question.embeddings
        self._arrays = [np.empty((self._samples, columns), np.float32) for columns in self._columns]
        self._heads = len(question.heads)
        self._rows = 0
        # Twice the payload is more than any chunking makes of it; a stream of junk ends there.
        self._bytes_left = 2 * sum(array.nbytes for array in self._arrays) + 64 * 1024

    def add(self, chunk: pb.PredictResponse) -> None:
        """Raises _Wrong."""
        self._bytes_left -= chunk.ByteSize()
        if self._bytes_left < 0:
            raise _Wrong("more bytes than the answer takes")
        matrices = [*chunk.probabilities, *([chunk.embeddings] if chunk.HasField("embeddings") else [])]
        if len(chunk.probabilities) != self._heads or len(matrices) != len(self._columns):
            raise _Wrong(f"{len(matrices)} matrices where {len(self._columns)} were asked for")
        rows = matrices[0].rows
        if chunk.first != self._rows or not 0 < rows <= self._samples - self._rows:
            raise _Wrong(f"{rows} rows from row {chunk.first} on where row {self._rows} of {self._samples} comes next")
        for array, matrix, columns in zip(self._arrays, matrices, self._columns, strict=True):
            array[self._rows : self._rows + rows] = _values(matrix, rows, columns)
        self._rows += rows

    def whole(self) -> Predictions:
        """Raises _Wrong."""
        if self._rows < self._samples:
            raise _Wrong(f"{self._rows} rows where {self._samples} were asked for")
        predictions = Predictions(np.stack(self._arrays[: self._heads]), *self._arrays[self._heads :])
        if flaw := predictions.flaw():
            raise _Wrong(flaw)
        return predictions


def _values(matrix: pb.Rows, rows: int, columns: int) -> Floats:
    if (matrix.rows, matrix.columns) != (rows, columns):
        raise _Wrong(f"a matrix of {matrix.rows} x {matrix.columns} where {rows} x {columns} is due")
    if len(matrix.data) != 4 * rows * columns:
        raise _Wrong(f"{len(matrix.data)} bytes for a matrix of {rows} x {columns}")
    return np.frombuffer(matrix.data, "<f4").reshape(rows, columns)
