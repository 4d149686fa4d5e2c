import asyncio
import contextlib

import pytest

from diredi.errors import NotFound, RemoteFailure, Unreachable
from diredi.rpc.client import connect
from diredi.rpc.release_metadata import fetch_metadata
from diredi.rpc.retry import Backoff
from diredi.rpc.streams import watch_stream
from diredi.rpc.v1 import fleet_pb2 as pb
from diredi.rpc.v1.fleet_pb2_grpc import FleetServiceServicer, FleetServiceStub
from tests.support.waiting import PATIENCE_S


def quick():
    return Backoff(first_s=0.02, longest_s=0.05)


class Fleet(FleetServiceServicer):
    """Tells of release 1, 2, ... up to `last`, then keeps quiet or ends."""

    def __init__(self, last=3, ends=False, error=None):
        self.last = last
        self.ends = ends
        self.error = error
        self.opened = 0
        self.closed = asyncio.Event()

    async def WatchReleases(self, request, context):
        self.opened += 1
        try:
            if self.error is not None:
                raise self.error
            for version in range(1, self.last + 1):
                yield pb.WatchReleasesResponse(release=pb.Release(version=version))
            if not self.ends:
                await asyncio.Event().wait()
        finally:
            self.closed.set()


class Log:
    """Each time a watcher went online or offline, and why."""

    def __init__(self):
        self.said = []

    def __call__(self, online, why):
        if not self.said or self.said[-1][0] is not online:
            self.said.append((online, why))


@contextlib.asynccontextmanager
async def watcher(address, credentials, **more):
    async with connect(address, credentials) as channel:
        stub = FleetServiceStub(channel)
        stream = watch_stream(lambda: stub.WatchReleases(pb.WatchReleasesRequest()), **{"backoff": quick(), **more})
        async with contextlib.aclosing(stream):
            yield stream


async def versions(stream, count):
    async with asyncio.timeout(PATIENCE_S):
        return [(await anext(stream)).release.version for _ in range(count)]


async def test_a_watch_goes_on_when_the_server_restarts(serve, site):
    log = Log()
    server = await serve(Fleet(3))
    async with watcher(server.address, site, on_online=log) as stream:
        assert await versions(stream, 3) == [1, 2, 3]
        upcoming = asyncio.create_task(versions(stream, 2))
        await asyncio.sleep(0)
        await server.stop(0)
        await serve(Fleet(2), listen=server.address)
        assert await upcoming == [1, 2]

    assert [online for online, _ in log.said] == [True, False, True]
    assert "stopping" in log.said[1][1] or "cannot be reached" in log.said[1][1]


async def test_a_watch_goes_on_after_a_cut_connection(serve, site, proxy):
    servicer = Fleet(2)
    between = await proxy((await serve(servicer)).address)
    async with watcher(between.address, site) as stream:
        assert await versions(stream, 2) == [1, 2]
        between.cut()
        assert await versions(stream, 2) == [1, 2]
    assert servicer.opened == 2


async def test_a_watch_begun_before_the_server_finds_it(serve, site):
    server = await serve()
    await server.stop(0)
    async with watcher(server.address, site) as stream:
        first = asyncio.create_task(versions(stream, 1))
        await asyncio.sleep(0)
        await serve(Fleet(), listen=server.address)
        assert await first == [1]


async def test_silence_means_that_the_connection_is_dead(serve, site):
    log = Log()
    servicer = Fleet(1)
    server = await serve(servicer)
    async with watcher(server.address, site, silence_s=0.2, on_online=log) as stream:
        assert await versions(stream, 3) == [1, 1, 1]

    assert servicer.opened >= 3
    assert (False, "nothing came for 0.2 s: the connection is dead") in log.said


async def test_a_server_that_vanished_is_noticed_by_keepalive_long_before_silence_would_tell(serve, site, proxy):
    log = Log()
    between = await proxy((await serve(Fleet(1))).address)
    async with watcher(between.address, site, silence_s=300, on_online=log, give_up_after_s=0) as stream:
        assert await versions(stream, 1) == [1]
        between.fall_silent()
        started = asyncio.get_running_loop().time()
        with pytest.raises(Unreachable):
            await versions(stream, 1)

    assert asyncio.get_running_loop().time() - started < 12
    assert [online for online, _ in log.said] == [True, False]


async def test_a_stream_that_may_end_ends(serve, site):
    servicer = Fleet(3, ends=True)
    server = await serve(servicer)
    async with watcher(server.address, site, ends=True) as stream:
        assert [message.release.version async for message in stream] == [1, 2, 3]
    assert servicer.opened == 1


async def test_a_stream_that_must_not_end_is_opened_again(serve, site):
    server = await serve(Fleet(2, ends=True))
    async with watcher(server.address, site) as stream:
        assert await versions(stream, 4) == [1, 2, 1, 2]


async def test_what_no_reconnect_cures_is_raised_at_once(serve, site):
    servicer = Fleet(error=NotFound("device 'camera-1' is not known: register it"))
    server = await serve(servicer)
    async with watcher(server.address, site) as stream:
        with pytest.raises(NotFound, match="register it"):
            await versions(stream, 1)
    assert servicer.opened == 1


async def test_a_watch_may_give_up(serve, site):
    server = await serve()
    await server.stop(0)
    async with watcher(server.address, site, give_up_after_s=0.2) as stream:
        with pytest.raises(Unreachable, match="cannot be reached"):
            await versions(stream, 1)


async def test_cancelling_a_watch_ends_the_call_on_the_server(serve, site):
    servicer = Fleet(1)
    server = await serve(servicer)

    async def watch_for_ever(begun):
        async with watcher(server.address, site) as stream:
            async for _ in stream:
                begun.set()

    begun = asyncio.Event()
    task = asyncio.create_task(watch_for_ever(begun))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(PATIENCE_S):
        await servicer.closed.wait()


async def test_a_watch_outlives_a_defect_of_the_server_and_gives_up_on_one_that_stays(serve, site):
    log = Log()
    servicer = Fleet(2, error=RuntimeError("a defect"))
    server = await serve(servicer)
    async with watcher(server.address, site, on_online=log) as stream:
        upcoming = asyncio.create_task(versions(stream, 2))
        async with asyncio.timeout(PATIENCE_S):
            while servicer.opened < 3:
                await asyncio.sleep(0.01)
        servicer.error = None
        assert await upcoming == [1, 2]
    assert "internal error" in log.said[0][1]

    servicer.error = RuntimeError("a defect")
    async with watcher(server.address, site, give_up_after_s=0.3) as stream:
        with pytest.raises(RemoteFailure, match="internal error"):
            await versions(stream, 1)


class Trickle(FleetServiceServicer):
    """Sends metadata a byte at a time, for ever, and never falls silent."""

    async def GetReleaseMetadata(self, request, context):
        while True:
            yield pb.GetReleaseMetadataResponse(data=b"{")
            await asyncio.sleep(0.01)


async def test_metadata_that_trickle_are_given_up(serve, site):
    server = await serve(Trickle())
    async with connect(server.address, site) as channel:
        with pytest.raises(Unreachable, match="timestamp did not come within 1 s"):
            await fetch_metadata(FleetServiceStub(channel), "timestamp", longest_s=1.0)
