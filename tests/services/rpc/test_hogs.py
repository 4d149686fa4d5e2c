"""Floods of one party, beside an honest one that is served: each test counts that the flood has arrived."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diredi.errors import NoRoom, RateLimited
from diredi.rpc.blobs import BlobServicer, download
from diredi.rpc.caller import caller_identity
from diredi.rpc.client import call, connect
from diredi.rpc.limits import CallRate, Limits
from diredi.rpc.server import start_server
from diredi.rpc.status import retry_after_s
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import edge_pb2, registry_pb2
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceServicer, EdgeServiceStub
from diredi.rpc.v1.registry_pb2_grpc import BlobServiceStub
from diredi.store.blobs import BlobStore
from tests.support.waiting import PATIENCE_S, until


class Edge(EdgeServiceServicer):
    """Answers GetStatus at once; DetectImage and DetectStream last until they are let go."""

    def __init__(self):
        self.let_go = asyncio.Event()
        self.begun = 0

    async def GetStatus(self, request, context):
        return edge_pb2.GetStatusResponse(device="camera-1")

    async def DetectImage(self, request, context):
        self.begun += 1
        await self.let_go.wait()
        return edge_pb2.DetectImageResponse()

    async def DetectStream(self, request, context):
        self.begun += 1
        yield edge_pb2.DetectStreamResponse()
        await self.let_go.wait()


@pytest.fixture
def honest(pki):
    return pki.credentials("site", "site-2")


@pytest.fixture
async def serve_within(cloud):
    """serve_within(servicer, downloads=..., ...) -> a server with these limits."""
    async with AsyncExitStack() as stack:

        async def start(*servicers, **limits):
            server = await start_server(cloud, "127.0.0.1:0", servicers, limits=Limits(**limits))
            stack.push_async_callback(server.stop, 0)
            return server

        yield start


async def status(channel):
    return (await call(EdgeServiceStub(channel).GetStatus, edge_pb2.GetStatusRequest(), deadline_s=PATIENCE_S)).device


async def outcomes(calls):
    """How many calls ended with each status; OK for those that were answered."""
    ended = await asyncio.gather(*(one.code() for one in calls))
    return {code: ended.count(code) for code in set(ended)}


async def test_downloads_that_one_never_reads_are_refused_beyond_its_share_and_another_downloads(
    serve_within, site, honest, tmp_path
):
    store = BlobStore(tmp_path / "blobs")
    blob = store.add_bytes(bytes(4 * 2**20))
    server = await serve_within(BlobServicer(store), downloads=16)
    async with connect(server.address, site) as hog, connect(server.address, honest) as channel:
        request = registry_pb2.GetBlobRequest(digest=blob.digest)
        flood = [BlobServiceStub(hog).GetBlob(request) for _ in range(300)]
        await until(lambda: sum(one.done() for one in flood) == 284)
        path = await download(BlobServiceStub(channel), blob, tmp_path / "model")
        assert path.stat().st_size == blob.bytes
        refused = [one for one in flood if one.done()]
        assert await outcomes(refused) == {grpc.StatusCode.RESOURCE_EXHAUSTED: 284}
        assert "16 downloads under way" in await refused[0].details()
        for one in flood:
            one.cancel()


async def test_streams_and_calls_beyond_an_identitys_share_are_refused_until_one_ends(serve_within, site, honest):
    servicer = Edge()
    server = await serve_within(servicer, streams=5, calls=7)
    async with connect(server.address, site) as hog, connect(server.address, honest) as channel:
        stub = EdgeServiceStub(hog)
        flood = [stub.DetectStream(edge_pb2.DetectStreamRequest()) for _ in range(5)]
        for stream in flood:
            await stream.read()
        calls = [stub.DetectImage(edge_pb2.DetectImageRequest()) for _ in range(7)]
        await until(lambda: servicer.begun == 12)

        for more in (stub.DetectStream(edge_pb2.DetectStreamRequest()), stub.GetStatus(edge_pb2.GetStatusRequest())):
            assert await more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert servicer.begun == 12
        assert await status(channel) == "camera-1"

        servicer.let_go.set()
        assert await outcomes([*flood, *calls]) == {grpc.StatusCode.OK: 12}
        assert await status(hog) == "camera-1"


async def test_watchers_of_health_count_as_streams(serve_within, site, honest):
    server = await serve_within(Edge(), streams=5)
    async with connect(server.address, site) as hog, connect(server.address, honest) as channel:
        watch = health_pb2_grpc.HealthStub(hog).Watch
        flood = [watch(health_pb2.HealthCheckRequest()) for _ in range(5)]
        for stream in flood:
            await stream.read()
        more = watch(health_pb2.HealthCheckRequest())
        assert await more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await status(channel) == "camera-1"
        with pytest.raises(NoRoom, match="5 streams"):
            await anext(aiter_of(EdgeServiceStub(hog).DetectStream(edge_pb2.DetectStreamRequest())))
        for stream in flood:
            stream.cancel()


def aiter_of(stream):
    return read_messages(stream, PATIENCE_S)


async def test_connections_that_never_finish_their_handshake_are_closed_at_the_deadline(serve_within, honest):
    server = await serve_within(Edge(), handshake_s=1.0)
    with ExitStack() as stack:
        mute = [stack.enter_context(connected(server.port)) for _ in range(200)]
        async with connect(server.address, honest) as channel:
            assert await status(channel) == "camera-1"
            for one in mute:
                assert await closed_by_server(one)
            assert await status(channel) == "camera-1"


async def test_an_address_with_too_many_connections_loses_the_newest_and_others_are_served(serve_within, honest):
    server = await serve_within(Edge(), connections=10, handshake_s=600)
    with ExitStack() as stack:
        first = [stack.enter_context(connected(server.port, "127.0.0.2")) for _ in range(10)]
        await until(lambda: server.connections.count("127.0.0.2") == 10)
        flood = [stack.enter_context(connected(server.port, "127.0.0.2")) for _ in range(60)]
        async with connect(server.address, honest) as channel:
            for one in flood:
                assert await closed_by_server(one)
            assert await status(channel) == "camera-1"
        await until(lambda: server.connections.count("127.0.0.2") == 10)
        for one in first:
            one.setblocking(False)
            with pytest.raises(BlockingIOError):  # is still open, and was told nothing
                one.recv(1)


def connected(port, source="127.0.0.1"):
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S, source_address=(source, 0))
    connection.setblocking(False)
    return connection


async def closed_by_server(connection):
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await asyncio.get_running_loop().sock_recv(connection, 100) == b""
        except ConnectionResetError:
            return True


async def test_refused_calls_without_end_do_not_fill_the_log(serve_within, site, tmp_path):
    server = await serve_within(BlobServicer(BlobStore(tmp_path / "blobs")))
    with structlog.testing.capture_logs() as logs:
        async with connect(server.address, site) as hog:
            request = registry_pb2.PutChunkRequest(digest="none", total_bytes=1, data=b"x")
            for _ in range(5):
                flood = [BlobServiceStub(hog).PutChunk(request) for _ in range(60)]
                assert await outcomes(flood) == {grpc.StatusCode.INVALID_ARGUMENT: 60}
    assert sum(line["event"] == "call_refused" for line in logs) == 100


class Counted(Edge):
    """Counts the calls of each caller that reach a handler."""

    def __init__(self):
        super().__init__()
        self.reached = Counter()

    async def GetStatus(self, request, context):
        self.reached[str(caller_identity(context))] += 1
        return await super().GetStatus(request, context)


async def test_a_device_that_calls_without_end_is_slowed_down_and_twenty_honest_ones_are_answered(serve_within, pki):
    servicer = Counted()
    server = await serve_within(servicer, calls=64, calls_per_s=20)
    hog = pki.credentials("device", "hog", "site-1")
    fleet = [pki.credentials("device", f"camera-{number}", "site-1") for number in range(20)]
    codes, took = Counter(), []
    over, began = asyncio.Event(), time.monotonic()
    async with AsyncExitStack() as stack:
        flood = EdgeServiceStub(await stack.enter_async_context(connect(server.address, hog)))

        async def call_without_end():
            while not over.is_set():
                codes[await flood.GetStatus(edge_pb2.GetStatusRequest()).code()] += 1

        async def call_as_others_do(credentials):
            async with connect(server.address, credentials) as channel:
                await status(channel)  # the handshakes of all are not what is measured
                for _ in range(6):
                    at = time.monotonic()
                    await status(channel)
                    took.append(time.monotonic() - at)
                    await asyncio.sleep(0.1)

        flooding = [asyncio.create_task(call_without_end()) for _ in range(60)]
        await until(lambda: codes[grpc.StatusCode.RESOURCE_EXHAUSTED] > 60)
        await asyncio.gather(*map(call_as_others_do, fleet))
        over.set()
        await asyncio.gather(*flooding)
    lasted = time.monotonic() - began
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert servicer.reached["device/site-1/hog"] <= 40 + 20 * lasted + 1
    assert codes[grpc.StatusCode.RESOURCE_EXHAUSTED] <= 60 * (lasted / 0.1 + 1), "a refusal costs the flood time, too"
    assert all(servicer.reached[str(one.identity)] == 7 for one in fleet)
    assert sorted(took)[int(0.99 * len(took))] < 2.0


async def test_a_client_of_ours_waits_as_it_is_asked_and_none_of_its_calls_is_lost(serve_within, site):
    servicer = Counted()
    server = await serve_within(servicer, calls=64, calls_per_s=20)
    async with connect(server.address, site) as channel:
        assert await asyncio.gather(*(status(channel) for _ in range(50))) == ["camera-1"] * 50
        flood = [EdgeServiceStub(channel).GetStatus(edge_pb2.GetStatusRequest()) for _ in range(45)]
        await outcomes(flood)
        refused = [one for one in flood if await one.code() is grpc.StatusCode.RESOURCE_EXHAUSTED].pop()
        assert "more than 20 calls a second" in await refused.details()
        assert 0 < retry_after_s(await refused.trailing_metadata()) <= 0.05 + 0.001


async def test_a_stream_that_came_too_early_is_away_and_not_full(serve_within, site):
    """A download that took it for a full disk would give up."""
    server = await serve_within(Counted(), calls=64, calls_per_s=1)
    async with connect(server.address, site) as channel:
        await asyncio.gather(status(channel), status(channel))
        began = time.monotonic()
        with pytest.raises(RateLimited) as refused:
            await anext(aiter_of(EdgeServiceStub(channel).DetectStream(edge_pb2.DetectStreamRequest())))
        assert 0 < refused.value.retry_after_s <= 1
        assert time.monotonic() - began > refused.value.retry_after_s, "whoever opens it again has waited"


def test_a_bucket_fills_with_time_and_who_is_full_is_forgotten():
    now = [0.0]
    rate = CallRate(Limits(calls_per_s=10), clock=lambda: now[0])
    for _ in range(20):
        rate.take("a")
    with pytest.raises(RateLimited) as refused:
        rate.take("a")
    assert refused.value.retry_after_s == pytest.approx(0.1)
    now[0] += 0.1
    rate.take("a")
    with pytest.raises(RateLimited):
        rate.take("a")
    for number in range(5000):
        now[0] += 0.01
        rate.take(f"device-{number}")
    assert len(rate._buckets) < 2000


class Sore(Edge):
    """Fails as soon as a caller has left."""

    async def DetectImage(self, request, context):
        self.begun += 1
        try:
            await self.let_go.wait()
        finally:
            raise NoRoom("left")

    async def DetectStream(self, request, context):
        self.begun += 1
        yield edge_pb2.DetectStreamResponse()
        try:
            await self.let_go.wait()
        finally:
            raise NoRoom("left")


async def test_calls_that_are_left_while_they_fail_write_nothing_to_the_log(serve_within, site, caplog):
    """A caller could fill the disk with them, a traceback for each."""
    servicer = Sore()
    server = await serve_within(servicer, calls=64, streams=64)
    async with connect(server.address, site) as hog:
        stub = EdgeServiceStub(hog)
        streams = [stub.DetectStream(edge_pb2.DetectStreamRequest()) for _ in range(20)]
        for stream in streams:
            await stream.read()
        calls = [stub.DetectImage(edge_pb2.DetectImageRequest()) for _ in range(20)]
        await until(lambda: servicer.begun == 40)
        for one in (*streams, *calls):
            one.cancel()
        del one, streams, calls
        await until(lambda: not server.interceptor._quota._under_way)
    gc.collect()
    assert "never retrieved" not in caplog.text
