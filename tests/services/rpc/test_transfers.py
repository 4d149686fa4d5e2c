import asyncio
import hashlib
import os
import shutil
import subprocess

import pytest

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
from diredi.rpc.blobs import DOWNLOAD_CHUNK_BYTES, UPLOAD_CHUNK_BYTES, BlobServicer, download, upload
from diredi.rpc.byte_counter import IngressMeter
from diredi.rpc.client import call, connect
from diredi.rpc.retry import Backoff
from diredi.rpc.v1 import registry_pb2 as pb
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import Blob, BlobStore
from diredi.trust.identity import Role
from tests.support.waiting import PATIENCE_S

MIB = 2**20


def quick():
    return Backoff(first_s=0.02, longest_s=0.05)


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def files_of(store):
    return {str(p.relative_to(store.root)): p.stat().st_size for p in store.root.rglob("*") if p.is_file()}


@pytest.fixture
def content():
    return os.urandom(5 * MIB + 12_345)


@pytest.fixture
def source(tmp_path, content):
    (tmp_path / "gap").write_bytes(content)
    return tmp_path / "gap"


@pytest.fixture
def store(tmp_path):
    return BlobStore(tmp_path / "blobs")


class Held(BlobServicer):
    """Notes what it is asked; holds the call that reaches `hold_at` until the server is stopped."""

    def __init__(self, store, hold_at=None, **more):
        super().__init__(store, **more)
        self.hold_at = hold_at
        self.held = asyncio.Event()
        self.put_offsets = []
        self.get_offsets = []

    async def PutChunk(self, request, context):
        self.put_offsets.append(request.offset)
        if self.hold_at is not None and request.offset >= self.hold_at:
            await self._hold()
        return await super().PutChunk(request, context)

    async def GetBlob(self, request, context):
        self.get_offsets.append(request.offset)
        async for chunk in super().GetBlob(request, context):
            if self.hold_at is not None and chunk.offset >= self.hold_at:
                await self._hold()
            yield chunk

    async def _hold(self):
        self.held.set()
        await asyncio.Event().wait()


async def test_a_file_arrives_and_comes_back_with_progress(serve, site, store, source, content, tmp_path):
    server = await serve(BlobServicer(store))
    sent, got = [], []
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        blob = await upload(stub, source, on_bytes=lambda done, total: sent.append((done, total)))
        path = await download(stub, blob, tmp_path / "in" / "gap", on_bytes=lambda done, _: got.append(done))

    assert blob == Blob(digest_of(content), len(content))
    assert path.read_bytes() == store.path(blob.digest).read_bytes() == content
    assert sent[0] == (0, len(content))
    assert sent[-1] == (len(content), len(content))
    assert got == sorted(got)
    assert got[-1] == len(content)
    assert [p.name for p in path.parent.iterdir()] == ["gap"]


async def test_what_is_there_already_does_not_travel_again(serve, site, store, source, tmp_path):
    servicer = Held(store)
    server = await serve(servicer)
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        blob = await upload(stub, source)
        await download(stub, blob, tmp_path / "again")
        servicer.put_offsets.clear()
        servicer.get_offsets.clear()
        await upload(stub, source)
        await download(stub, blob, tmp_path / "again")

    assert servicer.put_offsets == servicer.get_offsets == []


async def test_an_upload_goes_on_where_it_was_when_the_server_restarts_in_mid_upload(
    serve, site, store, source, content
):
    first = Held(store, hold_at=3 * MIB)
    server = await serve(first)
    async with connect(server.address, site) as channel:
        uploading = asyncio.create_task(upload(BlobServiceStub(channel), source, attempts=100, backoff=quick()))
        await first.held.wait()
        await server.stop(0)
        second = Held(BlobStore(store.root))
        await serve(second, listen=server.address)
        blob = await uploading

    assert first.put_offsets[-1] >= 3 * MIB
    assert second.put_offsets[0] == first.put_offsets[-1]
    assert store.path(blob.digest).read_bytes() == content


async def test_a_download_goes_on_where_it_was_when_the_server_restarts(serve, site, store, source, content, tmp_path):
    blob = store.add_file(source)
    first = Held(store, hold_at=3 * MIB)
    server = await serve(first)
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        getting = asyncio.create_task(download(stub, blob, tmp_path / "in", attempts=100, backoff=quick()))
        await first.held.wait()
        await server.stop(0)
        second = Held(BlobStore(store.root))
        await serve(second, listen=server.address)
        path = await getting

    assert first.get_offsets == [0]
    assert second.get_offsets == [3 * MIB]
    assert path.read_bytes() == content


async def test_a_download_goes_on_after_its_own_process_died(serve, site, store, source, content, tmp_path):
    blob = store.add_file(source)
    first = Held(store, hold_at=2 * MIB)
    server = await serve(first)
    async with connect(server.address, site) as channel:
        getting = asyncio.create_task(download(BlobServiceStub(channel), blob, tmp_path / "in"))
        await first.held.wait()
        getting.cancel()
        await asyncio.wait({getting})
        first.hold_at = None
        assert not (tmp_path / "in").exists()
        await download(BlobServiceStub(channel), blob, tmp_path / "in")

    assert first.get_offsets[0] == 0
    assert 0 < first.get_offsets[1] <= 2 * MIB
    assert (tmp_path / "in").read_bytes() == content


async def test_a_cut_connection_costs_only_the_chunk_under_way(serve, site, store, source, content, proxy):
    first = Held(store, hold_at=2 * MIB)
    server = await serve(first)
    between = await proxy(server.address)
    async with connect(between.address, site) as channel:
        uploading = asyncio.create_task(upload(BlobServiceStub(channel), source, attempts=100, backoff=quick()))
        await first.held.wait()
        first.hold_at = None
        between.cut()
        blob = await uploading

    again = [offset for number, offset in enumerate(first.put_offsets) if offset in first.put_offsets[:number]]
    assert first.put_offsets == sorted(first.put_offsets)
    assert len(again) == 1
    assert again[0] >= 2 * MIB
    assert store.path(blob.digest).read_bytes() == content


async def test_a_slow_link_is_no_dead_link(serve, site, store, proxy, tmp_path):
    """Half a Mbit/s upwards: a chunk must not fill the link until keepalive believes that nobody is there."""
    source = tmp_path / "gap"
    source.write_bytes(os.urandom(600_000))
    servicer = Held(store)
    between = await proxy((await serve(servicer)).address)
    between.bytes_per_s = 64_000
    async with connect(between.address, site) as channel:
        blob = await upload(BlobServiceStub(channel), source, attempts=1)

    assert blob.digest in store
    assert between.connections == 1
    assert len(servicer.put_offsets) == len(set(servicer.put_offsets))


async def test_a_cloud_that_stays_away_ends_an_upload_after_so_many_attempts(serve, site, store, source):
    server = await serve(BlobServicer(store))
    await server.stop(0)
    async with connect(server.address, site) as channel:
        with pytest.raises(Unreachable, match=f"{server.address} cannot be reached"):
            await upload(BlobServiceStub(channel), source, attempts=3, backoff=quick())
    assert files_of(store) == {}


async def test_bytes_with_the_wrong_digest_are_delivered_and_dropped(serve, site, store, content):
    meter = IngressMeter()
    server = await serve(BlobServicer(store), meter=meter)
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        lie = digest_of(b"something else")
        with pytest.raises(CorruptData, match=digest_of(content)):
            for offset in range(0, len(content), MIB):
                piece = content[offset : offset + MIB]
                request = pb.PutChunkRequest(digest=lie, total_bytes=len(content), offset=offset, data=piece)
                await call(stub.PutChunk, request, deadline_s=PATIENCE_S)
        state = await call(stub.StatBlob, pb.StatBlobRequest(digest=lie), deadline_s=PATIENCE_S)

    assert meter.totals("site/site-1")["diredi.v1.PutChunkRequest"] > len(content)
    assert (state.complete, state.received_bytes) == (False, 0)
    assert files_of(store) == {}


async def test_a_truncated_blob_is_kept_as_what_it_is_and_cannot_be_read(serve, site, store, content, tmp_path):
    meter = IngressMeter()
    server = await serve(BlobServicer(store), meter=meter)
    blob = Blob(digest_of(content), len(content))
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        request = pb.PutChunkRequest(digest=blob.digest, total_bytes=blob.bytes, data=content[:MIB])
        await call(stub.PutChunk, request, deadline_s=PATIENCE_S)
        state = await call(stub.StatBlob, pb.StatBlobRequest(digest=blob.digest), deadline_s=PATIENCE_S)
        with pytest.raises(NotFound, match="not complete"):
            await download(stub, blob, tmp_path / "in")

    assert meter.totals("site/site-1")["diredi.v1.PutChunkRequest"] > MIB
    assert (state.complete, state.received_bytes) == (False, MIB)
    assert blob.digest not in store
    assert not (tmp_path / "in").exists()


async def test_a_partial_that_was_damaged_at_rest_is_sent_again_from_the_start(serve, site, store, source, content):
    servicer = Held(store)
    server = await serve(servicer)
    damaged = store.root / "partial" / digest_of(content).removeprefix("sha256:")
    damaged.write_bytes(bytes(2 * MIB))  # what a power cut may leave
    async with connect(server.address, site) as channel:
        blob = await upload(BlobServiceStub(channel), source)

    assert servicer.put_offsets[0] == 2 * MIB
    assert 0 in servicer.put_offsets
    assert store.path(blob.digest).read_bytes() == content


async def test_a_file_that_changes_while_it_is_sent_is_refused(serve, site, store, source, content):
    server = await serve(BlobServicer(store))

    def change(done, total):
        if done > 0:
            source.write_bytes(bytes(len(content)))

    async with connect(server.address, site) as channel:
        with pytest.raises(CorruptData):
            await upload(BlobServiceStub(channel), source, on_bytes=change)
    assert files_of(store) == {}


class Lying(BlobServicer):
    """Gives out other bytes, too few or too many."""

    def __init__(self, store, content):
        super().__init__(store)
        self.content = content

    async def GetBlob(self, request, context):
        for offset in range(request.offset, len(self.content), DOWNLOAD_CHUNK_BYTES):
            yield pb.GetBlobResponse(offset=offset, data=self.content[offset : offset + DOWNLOAD_CHUNK_BYTES])


@pytest.mark.parametrize(
    ("lie", "error", "delivered"),
    [
        (lambda right: bytes([right[0] ^ 1]) + right[1:], CorruptData, 1.0),
        (lambda right: right[:MIB], Unreachable, 0.1),
        (lambda right: right + b"x" * MIB, CorruptData, 0.9),
    ],
    ids=["other bytes", "too few", "too many"],
)
async def test_what_does_not_match_its_digest_is_never_installed(
    serve, site, store, content, tmp_path, lie, error, delivered
):
    server = await serve(Lying(store, lie(content)))
    progress = []
    async with connect(server.address, site) as channel:
        with pytest.raises(error):
            await download(
                BlobServiceStub(channel), Blob(digest_of(content), len(content)), tmp_path / "in",
                on_bytes=lambda done, _: progress.append(done), attempts=3, backoff=quick(),
            )  # fmt: skip

    assert max(progress) >= delivered * len(content)
    assert not (tmp_path / "in").exists()


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (pb.PutChunkRequest(digest="../../etc/passwd", total_bytes=1, data=b"x"), InvalidInput),
        (pb.PutChunkRequest(digest=digest_of(b"a"), total_bytes=2 * MIB, data=bytes(MIB + 1)), InvalidInput),
        (pb.PutChunkRequest(digest=digest_of(b"a"), total_bytes=1, data=b"xy"), InvalidInput),
        (pb.PutChunkRequest(digest=digest_of(b"a"), total_bytes=9, offset=3, data=b"xy"), OffsetBeyondEnd),
        (pb.PutChunkRequest(digest=digest_of(b"a"), total_bytes=2**60, data=b"xy"), NoRoom),
        (pb.StatBlobRequest(digest="sha256:short"), InvalidInput),
    ],
    ids=["no digest", "chunk too large", "beyond the total", "bytes skipped", "blob too large", "stat of no digest"],
)
async def test_a_bad_request_gets_its_status_and_leaves_the_store_as_it_was(serve, site, store, request_, error):
    server = await serve(BlobServicer(store))
    async with connect(server.address, site) as channel:
        stub = BlobServiceStub(channel)
        method = stub.StatBlob if isinstance(request_, pb.StatBlobRequest) else stub.PutChunk
        with pytest.raises(DirediError) as caught:
            await call(method, request_, deadline_s=30)
    assert type(caught.value) is error
    assert files_of(store) == {}


async def test_only_those_who_may_put_put(serve, pki, site, store, source):
    server = await serve(BlobServicer(store, putters=[Role.SITE]))
    async with connect(server.address, pki.credentials("device", "camera-1", "site-1")) as channel:
        with pytest.raises(Refused, match="device/site-1/camera-1 may not put blobs"):
            await upload(BlobServiceStub(channel), source)
    assert files_of(store) == {}


async def test_a_reader_may_be_refused_a_blob(serve, pki, site, store, source, tmp_path):
    blob = store.add_file(source)

    def may_read(caller, digest):
        if caller.role is Role.DEVICE:
            raise Refused(f"{caller} may not read {digest}: ask for a release")

    server = await serve(BlobServicer(store, may_read=may_read))
    async with connect(server.address, pki.credentials("device", "camera-1", "site-1")) as channel:
        with pytest.raises(Refused, match="ask for a release"):
            await download(BlobServiceStub(channel), blob, tmp_path / "in")
    async with connect(server.address, site) as channel:
        await download(BlobServiceStub(channel), blob, tmp_path / "in")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"mounting a small disk takes root: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


async def test_an_upload_to_a_full_disk_is_refused_and_nothing_stays(serve, site, small_disk, source, tmp_path):
    store = BlobStore(small_disk / "blobs")
    small = tmp_path / "small"
    small.write_bytes(bytes(MIB))
    kept = store.add_file(small)
    before = files_of(store)
    server = await serve(BlobServicer(store))
    async with connect(server.address, site) as channel:
        with pytest.raises(NoRoom, match=r"no room on the disk of .*blobs"):
            await upload(BlobServiceStub(channel), source)
        await download(BlobServiceStub(channel), kept, tmp_path / "still readable")

    assert files_of(store) == before


async def test_a_disk_that_fills_up_during_an_upload_keeps_what_fitted(serve, site, small_disk, tmp_path):
    store = BlobStore(small_disk / "blobs")
    source = tmp_path / "gap"
    source.write_bytes(os.urandom(3 * MIB))
    server = await serve(BlobServicer(store))

    filler = small_disk / "something else"

    def fill(done, total):
        if done >= MIB and not filler.exists():
            filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - MIB // 4))

    async with connect(server.address, site) as channel:
        with pytest.raises(NoRoom):
            await upload(BlobServiceStub(channel), source, on_bytes=fill)
        assert len(files_of(store)) == 1
        assert MIB <= sum(files_of(store).values()) < 3 * MIB
        filler.unlink()
        blob = await upload(BlobServiceStub(channel), source)
    assert store.path(blob.digest).read_bytes() == source.read_bytes()


async def test_a_download_to_a_full_disk_says_so_and_leaves_no_part(serve, site, small_disk, store, source):
    blob = store.add_file(source)
    server = await serve(BlobServicer(store))
    async with connect(server.address, site) as channel:
        with pytest.raises(NoRoom, match="disk"):
            await download(BlobServiceStub(channel), blob, small_disk / "gap")
    assert list(small_disk.iterdir()) == []


async def test_uploads_of_the_same_blob_by_two_sites_at_once_give_one_blob(serve, pki, store, source, content):
    server = await serve(BlobServicer(store))
    async with (
        connect(server.address, pki.credentials("site", "a")) as a,
        connect(server.address, pki.credentials("site", "b")) as b,
    ):
        blobs = await asyncio.gather(*(upload(BlobServiceStub(channel), source) for channel in (a, b)))

    assert blobs[0] == blobs[1]
    assert list(files_of(store).values()) == [len(content)]
    assert len(content) > UPLOAD_CHUNK_BYTES
