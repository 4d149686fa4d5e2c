"""Large files over gRPC: resumable from any offset, verified by digest, with one chunk in memory at a time.

Uploads are unary calls with one chunk each, because a client-streaming call does not keep its deadline when the other
side falls silent. Downloads are server streams. Both continue after a broken connection and give up after a number of
attempts without progress.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from diredi.errors import (
    CorruptData,
    DirediError,
    InvalidInput,
    NoRoom,
    NotFound,
    OffsetBeyondEnd,
    Refused,
    Unreachable,
)
from diredi.rpc.caller import caller_identity
from diredi.rpc.client import call
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import registry_pb2 as pb
from diredi.rpc.v1 import registry_pb2_grpc as stubs
from diredi.store.blobs import Blob, BlobStore, digest_of_file, hex_of
from diredi.store.files import check_room, make_folder, no_room_at, publish
from diredi.trust.identity import Identity, Role

if TYPE_CHECKING:
    from diredi.rpc.v1.registry_pb2_grpc import BlobServiceAsyncStub

UPLOAD_CHUNK_BYTES = 2**20
DOWNLOAD_CHUNK_BYTES = 256 * 1024
OnBytes = Callable[[int, int], None]
"""on_bytes(bytes done, bytes in all)."""


async def upload(
    stub: BlobServiceAsyncStub,
    path: Path,
    *,
    on_bytes: OnBytes | None = None,
    attempts: int = 8,
    backoff: Backoff | None = None,
) -> Blob:
    """Upload a file; continue where an earlier attempt ended, and send nothing if the server has it already.

    Args:
        stub: Client of the blob service.
        path: The file to send.
        on_bytes: Called with the bytes sent and the bytes in all.
        attempts: How many attempts in a row may make no progress.
        backoff: Pauses between attempts.

    Returns:
        Digest and size of the file.

    Raises:
        Unreachable: The attempts are used up.
        CorruptData: The file changed while it was sent.
        NoRoom: The server has no room for it.
        Refused: The server does not take uploads from this caller.
    """
    blob = await asyncio.to_thread(digest_of_file, path)
    backoff = backoff or Backoff()
    pace = Pace()
    offset: int | None = None
    furthest, begun_again = 0, False
    with path.open("rb") as file:
        while True:
            try:
                offset, complete = await _put_next(stub, file, blob, offset, pace)
                _tell(on_bytes, offset, blob.bytes)
                if complete:
                    return blob
                if offset > furthest:
                    furthest = offset
                    backoff.reset()
            except (Unreachable, OffsetBeyondEnd):  # away, or it lost a partial: it says where to go on
                offset = None
                pace.slow_down()
                pause_s = backoff.next_s()
                if backoff.failures >= attempts:
                    raise
                await asyncio.sleep(pause_s)
            except CorruptData:  # its partial may have been damaged before this upload went on with it
                if begun_again:
                    raise
                offset, begun_again = None, True


async def _put_next(
    stub: BlobServiceAsyncStub, file: BinaryIO, blob: Blob, offset: int | None, pace: Pace
) -> tuple[int, bool]:
    """Puts the chunk at `offset`, or asks where to begin; returns where to go on, and whether the blob is complete."""
    if offset is None:
        state = await call(stub.StatBlob, pb.StatBlobRequest(digest=blob.digest), deadline_s=10)
        return state.received_bytes, state.complete
    file.seek(offset)
    data = file.read(min(pace.chunk_bytes, blob.bytes - offset))
    if not data and blob.bytes > offset:
        raise CorruptData(f"{file.name} became shorter while it was sent: send it again")
    request = pb.PutChunkRequest(digest=blob.digest, total_bytes=blob.bytes, offset=offset, data=data)
    begun = time.monotonic()
    answer = await call(stub.PutChunk, request, deadline_s=30)
    pace.took(time.monotonic() - begun)
    return answer.received_bytes, answer.complete


class Pace:
    """The size of the next chunk: what the connection carries in well under a second, from 16 KiB to 1 MiB.

    A chunk that fills a slow connection for many seconds would delay keepalive pings, and costs as much again if it is
    lost.
    """

    def __init__(self) -> None:
        self.chunk_bytes = 64 * 1024

    def took(self, seconds: float) -> None:
        """Adapt to a chunk that was acknowledged.

        Args:
            seconds: Time from sending it to its acknowledgement.
        """
        if seconds < 0.25:
            self.chunk_bytes = min(UPLOAD_CHUNK_BYTES, self.chunk_bytes * 2)
        elif seconds > 1:
            self.slow_down()

    def slow_down(self) -> None:
        """Halve the next chunk, after one that was slow or lost."""
        self.chunk_bytes = max(16 * 1024, self.chunk_bytes // 2)


async def download(
    stub: BlobServiceAsyncStub,
    blob: Blob,
    path: Path,
    *,
    on_bytes: OnBytes | None = None,
    attempts: int = 8,
    backoff: Backoff | None = None,
    silence_s: float = 30.0,
) -> Path:
    """Download a blob into a file, complete and verified or not at all; continue where an earlier attempt ended.

    Bytes received so far rest in `.<64 hex>.part` beside the file.

    Args:
        stub: Client of the blob service.
        blob: Digest and size of what to get.
        path: The file to write.
        on_bytes: Called with the bytes received and the bytes in all.
        attempts: How many attempts in a row may make no progress.
        backoff: Pauses between attempts.
        silence_s: Seconds without a chunk after which the stream counts as broken.

    Returns:
        The path of the file.

    Raises:
        CorruptData: The bytes received do not have the digest.
        Unreachable: The attempts are used up.
        NoRoom: The disk is full.
        NotFound: The server has no such blob, or not for this caller.
    """
    part = path.with_name(f".{hex_of(blob.digest)}.part")
    if path.exists() and await asyncio.to_thread(digest_of_file, path) == blob:
        return path
    make_folder(path.parent)
    resumed = _size(part) > 0
    backoff = backoff or Backoff()
    while True:
        before = _size(part)
        try:
            await _fetch(stub, blob, part, on_bytes, silence_s)
            await asyncio.to_thread(_finish, part, blob, path)
            return path
        except Unreachable:
            if _size(part) > before:
                backoff.reset()
            pause_s = backoff.next_s()
            if backoff.failures >= attempts:
                raise
            await asyncio.sleep(pause_s)
        except CorruptData:  # what rested here may have been damaged before this download went on with it
            if not resumed:
                raise
            resumed = False


async def _fetch(
    stub: BlobServiceAsyncStub, blob: Blob, part: Path, on_bytes: OnBytes | None, silence_s: float
) -> None:
    """Appends to `part` until it has all bytes. Raises Unreachable when the stream ends before.

    A full disk leaves no part behind: what came would only keep the disk full.
    """
    try:
        await _append(stub, blob, part, on_bytes, silence_s)
    except NoRoom:
        part.unlink(missing_ok=True)
        raise


async def _append(
    stub: BlobServiceAsyncStub, blob: Blob, part: Path, on_bytes: OnBytes | None, silence_s: float
) -> None:
    with no_room_at(part.parent), part.open("ab") as file:
        offset = file.tell()
        if offset > blob.bytes:
            file.truncate(0)
            offset = 0
        _tell(on_bytes, offset, blob.bytes)
        if offset == blob.bytes:
            return
        check_room(part.parent, blob.bytes - offset)
        request = pb.GetBlobRequest(digest=blob.digest, offset=offset)
        async for chunk in read_messages(stub.GetBlob(request), silence_s):
            if chunk.offset != offset or offset + len(chunk.data) > blob.bytes:
                part.unlink()
                raise CorruptData(f"blob {blob.digest} came with other bytes than asked for: get it again")
            file.write(chunk.data)
            file.flush()
            offset += len(chunk.data)
            _tell(on_bytes, offset, blob.bytes)
    if offset < blob.bytes:
        raise Unreachable(f"blob {blob.digest} ended after {offset} of {blob.bytes} bytes: get the rest")


def _finish(part: Path, blob: Blob, path: Path) -> None:
    found = digest_of_file(part)
    if found != blob:
        part.unlink()
        raise CorruptData(f"the bytes that came as blob {blob.digest} are {found.digest}: get it again")
    publish(part, path)


def _tell(on_bytes: OnBytes | None, done: int, total: int) -> None:
    if on_bytes is not None:
        on_bytes(done, total)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


Access = Callable[[Identity, str], None]
"""access(caller, digest) raises Refused when the caller may not read that blob."""


class Admission(Protocol):
    """Decides whether an upload is wanted before a byte of it is stored."""

    async def admit(self, caller: Identity, digest: str, total_bytes: int) -> bool:
        """Refuse an upload that is not wanted, by raising a DirediError.

        Returns:
            Whether the caller may know what is here of the blob, because he has sent all of it before, or reads all.
        """
        ...

    async def complete(self, caller: Identity, digest: str) -> None:
        """Record that a caller has sent all of an upload."""
        ...

    async def forget(self, caller: Identity, digest: str) -> None:
        """Forget an upload that was admitted and could not be stored."""
        ...


class BlobServicer(stubs.BlobServiceServicer):
    """Serve a blob store: callers with one of the given roles may upload, and all others read what they are allowed to.

    Args:
        store: The blobs to serve.
        putters: Roles that may upload.
        may_read: Raises an error if a caller may not read a digest; None lets everybody read everything.
        admission: Decides whether an upload is wanted; None takes every upload of the putters.
    """

    def __init__(
        self,
        store: BlobStore,
        putters: Collection[Role] = (Role.SITE,),
        may_read: Access | None = None,
        admission: Admission | None = None,
    ) -> None:
        self._store = store
        self._admission = admission
        self._putters = frozenset(putters)
        self._may_read = may_read

    async def StatBlob(self, request: pb.StatBlobRequest, context: Any) -> pb.StatBlobResponse:  # noqa: ANN401
        caller = caller_identity(context)
        if caller.role.includes(Role.OPERATOR):  # about to put a good copy: what was verified may be damaged since
            await asyncio.to_thread(self._store.verify, request.digest)
        if self._may_read is not None:
            try:
                self._may_read(caller, request.digest)
            except (NotFound, Refused):
                # Who may not read it does not learn that it is there. An uploader begins at 0, and the answer to its
                # first chunk says where to go on.
                hex_of(request.digest)
                return pb.StatBlobResponse()
        state = await asyncio.to_thread(self._store.stat, request.digest)
        return pb.StatBlobResponse(complete=state.complete, received_bytes=state.received_bytes)

    async def PutChunk(self, request: pb.PutChunkRequest, context: Any) -> pb.PutChunkResponse:  # noqa: ANN401
        caller = caller_identity(context)
        if caller.role not in self._putters:
            raise Refused(f"{caller} may not put blobs: it takes the role {' or '.join(sorted(self._putters))}")
        if len(request.data) > UPLOAD_CHUNK_BYTES:
            raise InvalidInput(f"a chunk of {len(request.data)} bytes: send at most {UPLOAD_CHUNK_BYTES} at once")
        may_know = True
        if self._admission is not None:
            may_know = await self._admission.admit(caller, request.digest, request.total_bytes)
        owner = "" if may_know else str(caller)
        try:
            state = await asyncio.to_thread(
                self._store.put_chunk, request.digest, request.total_bytes, request.offset, request.data, owner
            )
            if state.complete and self._admission is not None and owner:
                await self._admission.complete(caller, request.digest)
        except DirediError:
            if self._admission is not None:
                await self._admission.forget(caller, request.digest)
            raise
        return pb.PutChunkResponse(received_bytes=state.received_bytes, complete=state.complete)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Any) -> AsyncIterator[pb.GetBlobResponse]:  # noqa: ANN401
        if self._may_read is not None:
            self._may_read(caller_identity(context), request.digest)
        offset = request.offset
        chunks = self._store.chunks(request.digest, offset, DOWNLOAD_CHUNK_BYTES)
        while (data := await asyncio.to_thread(next, chunks, None)) is not None:
            yield pb.GetBlobResponse(offset=offset, data=data)
            offset += len(data)
