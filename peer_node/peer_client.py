"""The client of one neighbour. It trusts nothing in an answer: neither sizes nor numbers, nor that the answer ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import numpy as np

from diredi.errors import CorruptData, InvalidInput, NoRoom
from diredi.rpc.client import Channel, call
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1.peers_pb2_grpc import PeerServiceStub
from diredi.store.weights import WeightMap
from diredi.trust.identity import Identity
from peer_node.detections import BOX_BYTES, MAX_CLASSES, DetectionsSpec, PublicDetections
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

Response = TypeVar("Response", pb.DescribePeerResponse, pb.PredictResponse, pb.GetWeightsResponse, pb.DetectResponse)
MAX_SAMPLES = 2**40
"""Samples that a neighbour can have learned from; with more, everybody else's share of a mean would be 0."""
MIN_MESSAGE_BYTES = 1024
"""What every message of a file counts for at least, so that a stream of empty messages ends, too."""


class PeerClient:
    """Ask one neighbour for its updates, and check what it answers."""

    def __init__(self, identity: Identity, channel: Channel, spec: PayloadSpec) -> None:
        """Make a client; it connects when it is used.

        Args:
            identity: The neighbour's.
            channel: The connection to it.
            spec: The payload spec of this peer, which the neighbour's must match.
        """
        self.identity = identity
        self._channel = channel
        self._stub = PeerServiceStub(channel)
        self._spec = spec
        self._has_same_embedding: bool | None = None

    async def greet(self) -> None:
        """Ask the neighbour to describe itself.

        Raises:
            Unreachable: There is no connection.
            InvalidInput: Its public set or its weights differ from this peer's, or it shares something else.
        """
        description = await call(self._stub.DescribePeer, pb.DescribePeerRequest(), deadline_s=5)
        self._require_message(description)
        if isinstance(self._spec, WeightsSpec):
            self._check_schema(description, self._spec)
        elif isinstance(self._spec, DetectionsSpec):
            self._check_detects(description, self._spec)
        else:
            self._check_public_set(description, self._spec)
            self._has_same_embedding = description.embedding == self._spec.embedding

    async def wait_until_disconnected(self) -> None:
        """Return once there is no connection: the neighbour has ended, or cannot be reached."""
        await self._channel.lost()

    async def fetch(self, round_: int, request: PredictionRequest | None, deadline_s: float) -> Update:
        """Return the neighbour's update of a round.

        Args:
            round_: Number of the round, from 1.
            request: The predictions to ask for; None for weights and for detections.
            deadline_s: Deadline of the call in seconds.

        Raises:
            CorruptData: The answer is not what was asked for; the message names the neighbour.
            Unreachable: There is no connection, or it broke.
            DirediError: The neighbour refused.
        """
        try:
            if isinstance(self._spec, DetectionsSpec):
                return await self.fetch_detections(round_, deadline_s)
            if request is None:
                return await self.fetch_weights(round_, deadline_s)
            return await self.fetch_predictions(round_, request, deadline_s)
        except (_InvalidAnswer, NoRoom) as error:  # NoRoom: gRPC took a message for too large to receive
            raise CorruptData(f"{self.identity} answered round {round_} with {error}: it was left out") from None

    async def fetch_predictions(self, round_: int, request: PredictionRequest, deadline_s: float) -> Predictions:
        """Return float32 predictions, bit for bit as they were sent.

        A neighbour whose embeddings have another size is not asked for them: nothing could be learned from these.

        Returns:
            Probabilities [heads, samples, classes] in the order of the request.
        """
        spec = self._spec
        assert isinstance(spec, PredictionSpec)
        if request.embeddings and self._has_same_embedding is None:
            with suppress(InvalidInput):  # It is asked all the same: it refuses, and knows that nobody will ask again.
                await self.greet()
        if not self._has_same_embedding:
            request = replace(request, embeddings=False)
        message = pb.PredictRequest(
            public_set=spec.public_set,
            round=round_,
            samples=() if request.samples is None else request.samples.tolist(),
            heads=request.heads,
            embeddings=request.embeddings,
            temperature=request.temperature,
        )
        buffer = _PredictionsBuffer(request, spec)
        async for chunk in read_messages(self._stub.Predict(message, timeout=deadline_s), silence_s=deadline_s):
            buffer.add(self._require_message(chunk))
        return buffer.result()

    async def fetch_weights(self, round_: int, deadline_s: float) -> Weights:
        """Return finite weights of this peer's schema, bit for bit as they were sent."""
        spec = self._spec
        assert isinstance(spec, WeightsSpec)
        buffer, message = _WeightsBuffer(spec), pb.GetWeightsRequest(round=round_)
        async for chunk in read_messages(self._stub.GetWeights(message, timeout=deadline_s), silence_s=deadline_s):
            buffer.add(self._require_message(chunk))
        return buffer.result()

    async def fetch_detections(self, round_: int, deadline_s: float) -> PublicDetections:
        """Return detections for the whole public set, bit for bit as they were sent."""
        spec = self._spec
        assert isinstance(spec, DetectionsSpec)
        buffer, message = _DetectionsBuffer(spec), pb.DetectRequest(public_set=spec.public_set, round=round_)
        async for chunk in read_messages(self._stub.Detect(message, timeout=deadline_s), silence_s=deadline_s):
            buffer.add(self._require_message(chunk))
        return buffer.result()

    def _check_detects(self, theirs: pb.DescribePeerResponse, ours: DetectionsSpec) -> None:
        if not theirs.class_names or len(theirs.class_names) > MAX_CLASSES:
            raise InvalidInput(
                f"{self.identity} names {len(theirs.class_names)} classes that its detector finds, which must be 1 to "
                f"{MAX_CLASSES}: give both peers a learner of detectors"
            )
        if (theirs.public_set, theirs.samples) != (ours.public_set, ours.samples):
            raise InvalidInput(
                f"{self.identity} has the public set {theirs.public_set[:80]!r} of {theirs.samples} images, this peer "
                f"{ours.public_set!r} of {ours.samples}: give both the same images"
            )
        if theirs.max_boxes > ours.max_boxes:
            raise InvalidInput(
                f"{self.identity} gives up to {theirs.max_boxes} boxes for an image, this peer takes {ours.max_boxes}: "
                "give both the same max_boxes"
            )

    def _check_public_set(self, theirs: pb.DescribePeerResponse, ours: PredictionSpec) -> None:
        if (theirs.public_set, theirs.samples, theirs.classes) != (ours.public_set, ours.samples, ours.classes):
            raise InvalidInput(
                f"{self.identity} has the public set {theirs.public_set[:80]!r} of {theirs.samples} samples and "
                f"{theirs.classes} classes, this peer {ours.public_set!r} of {ours.samples} and {ours.classes}: "
                "give both the same"
            )

    def _check_schema(self, theirs: pb.DescribePeerResponse, ours: WeightsSpec) -> None:
        if theirs.schema != ours.schema:
            shared = f"weights of the schema {theirs.schema[:80]!r}" if theirs.schema else "none"
            raise InvalidInput(
                f"{self.identity} shares {shared}, this peer weights of {ours.schema!r}: "
                "give both the same learner and network"
            )

    def _require_message(self, message: Response | None) -> Response:
        """Refuse bytes that are no message, of which gRPC makes None."""
        if message is None:
            raise CorruptData(f"{self.identity} answered with bytes that are no message: it was left out")
        return message


class _InvalidAnswer(Exception):
    """What is wrong with an answer; `PeerClient.fetch` adds whose answer it is."""


class _WeightsBuffer:
    """Gather the chunks of a weights file, with a bound on memory: what our own weights would take."""

    def __init__(self, spec: WeightsSpec) -> None:
        self._spec = spec
        self._chunks: list[bytes] = []
        self._bytes_left = spec.max_bytes
        self._samples = 0

    def add(self, chunk: pb.GetWeightsResponse) -> None:
        if not self._chunks:
            self._samples = chunk.samples
        self._bytes_left -= max(len(chunk.data), MIN_MESSAGE_BYTES)
        if self._bytes_left < 0:
            raise _InvalidAnswer("more bytes than such weights take")
        self._chunks.append(chunk.data)

    def result(self) -> Weights:
        if not 0 < self._samples <= MAX_SAMPLES:
            raise _InvalidAnswer(f"weights of {self._samples} samples")
        try:
            weights = Weights(WeightMap.from_bytes(b"".join(self._chunks)), self._samples)
        except CorruptData as error:
            raise _InvalidAnswer(str(error)) from None
        if problem := self._spec.validation_error(weights):
            raise _InvalidAnswer(problem)
        return weights


class _DetectionsBuffer:
    """Gather detections, with a bound on memory: what the largest honest answer takes."""

    def __init__(self, spec: DetectionsSpec) -> None:
        self._spec = spec
        self._counts: list[int] = []
        self._boxes: list[bytes] = []
        self._scores: list[bytes] = []
        self._classes: list[int] = []
        self._qualities: dict[str, float] = {}
        # Twice the payload is more than any chunking makes of it; a stream of junk ends there.
        self._bytes_left = 2 * spec.samples * (spec.max_boxes * BOX_BYTES + 8) + 512 * MAX_CLASSES

    def add(self, chunk: pb.DetectResponse) -> None:
        self._bytes_left -= chunk.ByteSize()
        if self._bytes_left < 0:
            raise _InvalidAnswer("more bytes than the answer takes")
        if not self._counts:
            self._take_qualities(chunk)
        done, samples = len(self._counts), len(chunk.counts)
        if chunk.first != done or not 0 < samples <= self._spec.samples - done:
            raise _InvalidAnswer(
                f"{samples} images from image {chunk.first} on where image {done} of {self._spec.samples} comes next"
            )
        boxes = sum(chunk.counts)
        if max(chunk.counts) > self._spec.max_boxes:
            raise _InvalidAnswer(f"{max(chunk.counts)} boxes on one image, of {self._spec.max_boxes} at most")
        if (len(chunk.boxes), len(chunk.scores), len(chunk.classes)) != (16 * boxes, 4 * boxes, boxes):
            raise _InvalidAnswer(
                f"{len(chunk.boxes)} and {len(chunk.scores)} bytes and {len(chunk.classes)} classes for {boxes} boxes"
            )
        self._counts.extend(chunk.counts)
        self._boxes.append(chunk.boxes)
        self._scores.append(chunk.scores)
        self._classes.extend(chunk.classes)

    def _take_qualities(self, chunk: pb.DetectResponse) -> None:
        self._qualities = {quality.name: quality.ap50 for quality in chunk.qualities}
        if len(self._qualities) < len(chunk.qualities):
            raise _InvalidAnswer("a class that it names twice")

    def result(self) -> PublicDetections:
        detections = PublicDetections(
            np.array(self._counts, np.int64),
            np.frombuffer(b"".join(self._boxes), "<f4").reshape(-1, 4),
            np.frombuffer(b"".join(self._scores), "<f4"),
            np.array(self._classes, np.int64),
            self._qualities,
        )
        if problem := self._spec.answer_error(detections):
            raise _InvalidAnswer(problem)
        return detections


class _PredictionsBuffer:
    """Gather the rows of predictions, with a bound on memory: what was asked for."""

    def __init__(self, request: PredictionRequest, spec: PredictionSpec) -> None:
        self._samples = spec.samples if request.samples is None else len(request.samples)
        self._columns = [spec.classes] * len(request.heads) + [spec.embedding] * request.embeddings
        self._arrays = [np.empty((self._samples, columns), np.float32) for columns in self._columns]
        self._heads = len(request.heads)
        self._rows = 0
        # Twice the payload is more than any chunking makes of it; a stream of junk ends there.
        self._bytes_left = 2 * sum(array.nbytes for array in self._arrays) + 64 * 1024

    def add(self, chunk: pb.PredictResponse) -> None:
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
        if self._rows < self._samples:
            raise _InvalidAnswer(f"{self._rows} rows where {self._samples} were asked for")
        predictions = Predictions(np.stack(self._arrays[: self._heads]), *self._arrays[self._heads :])
        if problem := predictions.validation_error():
            raise _InvalidAnswer(problem)
        return predictions


def _values(matrix: pb.Rows, rows: int, columns: int) -> Floats:
    if (matrix.rows, matrix.columns) != (rows, columns):
        raise _InvalidAnswer(f"a matrix of {matrix.rows} x {matrix.columns} where {rows} x {columns} is due")
    if len(matrix.data) != 4 * rows * columns:
        raise _InvalidAnswer(f"{len(matrix.data)} bytes for a matrix of {rows} x {columns}")
    return np.frombuffer(matrix.data, "<f4").reshape(rows, columns)
