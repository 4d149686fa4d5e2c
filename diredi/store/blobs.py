"""Content-addressed bytes on disk: the digest is the name, and what is under a name has that digest.

    ROOT/sha256/ab/<62 hex>     complete blobs: verified, synced to disk, never changed
    ROOT/partial/<64 hex>       uploads under way: the file's size is what has been received
    ROOT/partial/<64 hex>.<16>  ... of one who must not learn what others have put: he sends all of it himself
    ROOT/partial/add-*          files being added from this machine
    ROOT/damaged/<64 hex>       what was under a name and had another digest when it was read

A blob is verified when it is first read after a start. A damaged one is set aside, said, and taken again when somebody
puts the good bytes.

Policy on `fsync`: a blob is synced, file and folder, before its name appears. A partial is not: after a power cut its
tail may be wrong, the digest then says so at the end, the partial is dropped and the upload begins again.

One process owns a store; its threads may share a `BlobStore`. Nothing here holds more than one chunk in memory.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import structlog

from diredi.errors import CorruptData, InvalidInput, NoRoom, NotFound, OffsetBeyondEnd
from diredi.store.files import check_room, make_folder, no_room_at, publish

READ_BYTES = 256 * 1024
MAX_BLOB_BYTES = 8 * 2**30
_SETTLING_S = 3600.0
"""A blob that was just put may be referred to in a moment."""
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Blob:
    """Digest and size of some bytes.

    Attributes:
        digest: "sha256:" and 64 lower-case hex digits.
        bytes: The size in bytes.
    """

    digest: str
    bytes: int


@dataclass(frozen=True)
class BlobState:
    """How much of a blob the store has.

    Attributes:
        complete: Whether the blob is here and its digest was verified.
        received_bytes: How many bytes are here, counted from the beginning without a hole.
    """

    complete: bool
    received_bytes: int


def hex_of(digest: str) -> str:
    """Return the 64 hex digits of a digest, which are safe to use in a path.

    Raises:
        InvalidInput: The text is not a digest.
    """
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidInput(f"{digest[:80]!r} is not a digest: it must be 'sha256:' and 64 lower-case hex digits")
    return match[1]


def digest_of(data: bytes) -> str:
    """Return the digest "sha256:..." of some bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> Blob:
    """Compute digest and size of a file, reading it in pieces."""
    with path.open("rb") as file:
        return digest_of_stream(file)


def digest_of_stream(file: IO[bytes]) -> Blob:
    """Compute digest and size of all that can be read from a stream, reading it in pieces."""
    sha, size = hashlib.sha256(), 0
    while data := file.read(READ_BYTES):
        sha.update(data)
        size += len(data)
    return Blob("sha256:" + sha.hexdigest(), size)


def blob_path(root: Path, digest: str) -> Path:
    """Return where the store in the folder `root` has a blob, for who reads it beside the process that owns it."""
    name = hex_of(digest)
    return root / "sha256" / name[:2] / name[2:]


class BlobStore:
    """A store of blobs in a folder.

    Args:
        root: The folder; it is made if it does not exist.
        max_blob_bytes: The largest blob that the store takes.
        reserve_bytes: How much of the disk uploads leave free for others.
    """

    def __init__(self, root: Path, max_blob_bytes: int = MAX_BLOB_BYTES, reserve_bytes: int = 0) -> None:
        self.root = root
        self.max_blob_bytes = max_blob_bytes
        self.reserve_bytes = reserve_bytes
        self._blobs = root / "sha256"
        self._partials = root / "partial"
        self._damaged = root / "damaged"
        for folder in (self._blobs, self._partials):
            make_folder(folder)
        for left_by_a_kill in self._partials.glob("add-*"):
            left_by_a_kill.unlink(missing_ok=True)
        self._verified: set[str] = set()
        self._touched: dict[str, float] = {}
        """When this process last wrote a blob or was asked for what is here of it, by its own clock."""
        self._locks = [threading.RLock() for _ in range(64)]

    def __contains__(self, digest: str) -> bool:
        return self._final(digest).exists()

    def path(self, digest: str) -> Path:
        """Return the path of a complete blob, which callers may read and must not write.

        Raises:
            NotFound: The blob is not here, or not complete.
            CorruptData: The bytes on the disk are not those that were put.
        """
        with self._locked(digest):
            is_whole = self._is_whole(digest)
        if is_whole:
            return self._final(digest)
        if (self._damaged / hex_of(digest)).exists():
            raise CorruptData(f"blob {digest} was damaged on the disk of {self.root}: put the good bytes again")
        raise NotFound(f"blob {digest} is not here, or not complete: put it first")

    def _is_whole(self, digest: str) -> bool:
        """Return whether a blob is here, and has its digest; a damaged one is set aside."""
        final = self._final(digest)
        if digest in self._verified and final.exists():
            return True
        if not final.exists():
            return False
        found = digest_of_file(final)
        if found.digest == digest:
            self._verified.add(digest)
            return True
        structlog.get_logger().error("blob_damaged", digest=digest, found=found.digest, bytes=found.bytes)
        make_folder(self._damaged)
        final.replace(self._damaged / hex_of(digest))
        self._verified.discard(digest)
        return False

    def verify(self, digest: str) -> bool:
        """Read a blob once more, also one that was verified before; a damaged one is set aside.

        Returns:
            Whether the blob is here and whole.
        """
        with self._locked(digest):
            self._verified.discard(digest)
            return self._is_whole(digest)

    def blob(self, digest: str) -> Blob:
        """Return digest and size of a complete blob.

        Raises:
            NotFound: The blob is not here, or not complete.
        """
        return Blob(digest, self.path(digest).stat().st_size)

    def open(self, digest: str) -> BinaryIO:
        """Open a complete blob for reading.

        Raises:
            NotFound: The blob is not here, or not complete.
        """
        return self.path(digest).open("rb")

    def chunks(self, digest: str, offset: int = 0, chunk_bytes: int = READ_BYTES) -> Iterator[bytes]:
        """Yield the bytes of a blob in pieces.

        Args:
            digest: The blob.
            offset: The first byte to yield.
            chunk_bytes: The size of a piece; only the last may be smaller.

        Yields:
            The bytes from the offset to the end.

        Raises:
            NotFound: The blob is not here, or not complete.
            OffsetBeyondEnd: The blob has fewer bytes than the offset.
        """
        path = self.path(digest)
        size = _size(path)
        if not 0 <= offset <= size:
            raise OffsetBeyondEnd(f"blob {digest} has {size} bytes, not {offset}: start within them")
        while offset < size:
            # Opened for each piece: a reader that takes its time must not hold one of the process's files.
            try:
                with path.open("rb", buffering=0) as file:
                    file.seek(offset)
                    data = file.read(min(chunk_bytes, size - offset))
            except FileNotFoundError:
                raise NotFound(f"blob {digest} was deleted while it was read: nothing refers to it any more") from None
            if not data:
                raise CorruptData(f"blob {digest} ends at {offset} of {size} bytes: put it again")
            yield data
            offset += len(data)

    def stat(self, digest: str) -> BlobState:
        """Return how much of a blob is here, so that an uploader knows where to continue."""
        with self._locked(digest):
            if self._is_whole(digest):
                state = BlobState(True, _size(self._final(digest)))
            else:
                state = BlobState(False, _size(self._partial(digest)))
            if state.received_bytes:
                self._touched[digest] = time.monotonic()
        return state

    def received(self, digest: str, owner: str) -> int:
        """Return how many bytes of a blob one owner has sent and not completed yet."""
        return _size(self._partial(digest, owner))

    def put_chunk(self, digest: str, total_bytes: int, offset: int, data: bytes, owner: str = "") -> BlobState:
        """Take one piece of an upload; a piece that is here already is accepted again.

        Args:
            digest: The blob that the piece belongs to.
            total_bytes: The size of the whole blob.
            offset: Where the piece begins.
            data: The bytes of the piece.
            owner: Who sends it, where nobody may learn from the answers whether others have put the blob: what counts
                then is what this owner has sent. Empty: what is here counts, whoever has put it.

        Returns:
            How much of the blob is here now.

        Raises:
            InvalidInput: The digest is none, the piece ends beyond the total, or the blob has another size.
            OffsetBeyondEnd: Bytes before the offset are missing.
            NoRoom: The disk is full or the blob is too large; the store is as it was before.
            CorruptData: The blob is complete but has another digest; the bytes received were dropped.
        """
        end = offset + len(data)
        if offset < 0 or end > total_bytes:
            raise InvalidInput(f"bytes {offset} to {end} are not within the {total_bytes} of blob {digest}")
        if total_bytes > self.max_blob_bytes:
            raise NoRoom(f"blob {digest} has {total_bytes} bytes, this store takes at most {self.max_blob_bytes}")
        with self._locked(digest):
            state = BlobState(False, _size(self._partial(digest, owner))) if owner else self.stat(digest)
            if state.complete:
                if state.received_bytes != total_bytes:
                    raise InvalidInput(f"blob {digest} is here with {state.received_bytes} bytes, not {total_bytes}")
                return state
            if offset > state.received_bytes:
                raise OffsetBeyondEnd(f"{state.received_bytes} bytes of blob {digest} are here: go on from there")
            partial, more = self._partial(digest, owner), data[state.received_bytes - offset :]
            received = self._append(partial, digest, total_bytes, state.received_bytes, more)
            if received < total_bytes:
                return BlobState(False, received)
            self._complete(partial, digest, total_bytes)
            return BlobState(True, total_bytes)

    def _append(self, partial: Path, digest: str, total_bytes: int, received: int, data: bytes) -> int:
        """Bytes received after `data`. Leaves the partial as it was when the disk is full."""
        if received > total_bytes:
            raise InvalidInput(f"{received} bytes of blob {digest} are here, more than {total_bytes}: check the total")
        with no_room_at(self.root):
            check_room(self.root, total_bytes - received + self.reserve_bytes)
            try:
                self._touched[digest] = time.monotonic()
                with partial.open("ab") as file:
                    file.write(data)
            except OSError:
                if received:
                    os.truncate(partial, received)
                else:
                    partial.unlink(missing_ok=True)
                raise
        return received + len(data)

    def _complete(self, partial: Path, digest: str, total_bytes: int) -> None:
        found = digest_of_file(partial)
        if found != Blob(digest, total_bytes):
            partial.unlink()
            raise CorruptData(f"the {found.bytes} bytes sent as blob {digest} are {found.digest}: send them again")
        self._publish(partial, digest)

    def add_file(self, path: Path) -> Blob:
        """Copy a file of this machine into the store.

        Raises:
            NoRoom: The disk is full; the store is as it was before.
        """
        with path.open("rb") as file:
            return self.add_stream(file)

    def add_stream(self, source: IO[bytes]) -> Blob:
        """Put all that can be read from a stream into the store.

        Raises:
            NoRoom: The disk is full; the store is as it was before.
        """
        with no_room_at(self.root):
            handle, name = tempfile.mkstemp(dir=self._partials, prefix="add-")
            copy = Path(name)
            try:
                with os.fdopen(handle, "wb") as file:
                    shutil.copyfileobj(source, file, READ_BYTES)
                blob = digest_of_file(copy)
                with self._locked(blob.digest):
                    self._touched[blob.digest] = time.monotonic()
                    if not self._is_whole(blob.digest):
                        self._publish(copy, blob.digest)
            finally:
                copy.unlink(missing_ok=True)
        return blob

    def add_bytes(self, data: bytes) -> Blob:
        """Put a few bytes into the store.

        Raises:
            NoRoom: The disk is full; the store is as it was before.
        """
        return self.add_stream(io.BytesIO(data))

    def remove(self, digest: str) -> None:
        """Remove a blob and what was received of it; nothing happens if it is not here."""
        with self._locked(digest):
            partials = self._partials.glob(f"{hex_of(digest)}*")
            for file in (self._final(digest), *partials, self._damaged / hex_of(digest)):
                file.unlink(missing_ok=True)

    def collect(
        self, keep: Collection[str], ended: Collection[str], unreferenced_for_s: float, since: float | None = None
    ) -> list[Blob]:
        """Delete blobs and partials that nobody needs.

        Args:
            keep: Digests that something refers to.
            ended: Digests of uploads that are over; of these, what is not to be kept goes at once.
            unreferenced_for_s: Age in seconds at which any other blob goes that is not to be kept.
            since: Reading of `time.monotonic()` before `keep` was worked out; what was touched later stays. None: now.

        Returns:
            What was deleted.
        """
        since = time.monotonic() if since is None else since
        deleted = self.drop_partials(-math.inf, keep, since)
        for file in self._blobs.glob("??/*"):
            digest = f"sha256:{file.parent.name}{file.name}"
            if digest in keep:
                continue
            with self._locked(digest):
                touched = self._touched.get(digest, -math.inf)
                is_old = time.time() - _modified(file) > unreferenced_for_s and since - touched > _SETTLING_S
                if touched <= since and (digest in ended or is_old):
                    deleted.append(Blob(digest, _size(file)))
                    file.unlink(missing_ok=True)
                    self._verified.discard(digest)
        self._touched = {digest: at for digest, at in list(self._touched.items()) if since - at <= _SETTLING_S}
        return deleted

    def drop_partials(self, older_than_s: float, keep: Collection[str] = (), since: float | None = None) -> list[Blob]:
        """Remove uploads that nobody has continued for some time.

        Args:
            older_than_s: Seconds since the last piece.
            keep: Digests of uploads that stay.
            since: As in `collect`.

        Returns:
            What was received of those that were removed.
        """
        dropped = []
        for partial in self._partials.iterdir():
            digest = f"sha256:{partial.name.partition('.')[0]}"
            if _DIGEST.fullmatch(digest) is None or digest in keep:
                continue
            with self._locked(digest):
                is_new = since is not None and self._touched.get(digest, -math.inf) > since
                if not is_new and time.time() - _modified(partial) > older_than_s:
                    dropped.append(Blob(digest, _size(partial)))
                    partial.unlink(missing_ok=True)
        return dropped

    def _publish(self, file: Path, digest: str) -> None:
        final = self._final(digest)
        with no_room_at(self.root):
            make_folder(final.parent)
            publish(file, final)
        self._verified.add(digest)
        (self._damaged / hex_of(digest)).unlink(missing_ok=True)
        self._partial(digest).unlink(missing_ok=True)  # of an upload that an added file overtook

    def _final(self, digest: str) -> Path:
        return blob_path(self.root, digest)

    def _partial(self, digest: str, owner: str = "") -> Path:
        name = hex_of(digest)
        return self._partials / (f"{name}.{hashlib.sha256(owner.encode()).hexdigest()[:16]}" if owner else name)

    def _locked(self, digest: str) -> threading.RLock:
        return self._locks[int(hex_of(digest)[:8], 16) % len(self._locks)]


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
