import asyncio

import grpc
import pytest
import structlog
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from diredi import errors
from diredi.rpc.client import call, connect, is_serving
from diredi.rpc.v1 import edge_pb2 as pb
from diredi.rpc.v1.edge_pb2_grpc import EdgeServiceServicer, EdgeServiceStub
from tests.support.waiting import PATIENCE_S

SECRET = "password of /root/secret"


class Edge(EdgeServiceServicer):
    """Raises what it was made with; streams until cancelled."""

    def __init__(self, error=None, at_frame=0):
        self.error = error
        self.at_frame = at_frame
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def GetStatus(self, request, context):
        if self.error is not None:
            raise self.error
        return pb.GetStatusResponse(device="camera-1")

    async def DetectImage(self, request, context):
        self.begun.set()
        await asyncio.Event().wait()

    async def DetectStream(self, request, context):
        try:
            for frame in range(10**9):
                if self.error is not None and frame == self.at_frame:
                    raise self.error
                yield pb.DetectStreamResponse(frame=frame)
                self.begun.set()
                await asyncio.sleep(0.005)
        finally:
            self.ended.set()


async def status_of(server, credentials):
    async with connect(server.address, credentials) as channel:
        return await call(EdgeServiceStub(channel).GetStatus, pb.GetStatusRequest(), deadline_s=30)


KINDS = [
    errors.InvalidInput, errors.CorruptData, errors.NotFound, errors.Refused, errors.WrongState, errors.NoRoom,
    errors.OffsetBeyondEnd, errors.Unreachable, errors.DirediError,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_crosses_the_wire_with_its_kind_and_its_sentence(serve, site, kind):
    server = await serve(Edge(kind("camera-1, line 3: do this; ü")))

    with pytest.raises(errors.DirediError) as caught:
        await status_of(server, site)
    arrives_as = errors.RemoteFailure if kind is errors.DirediError else kind  # the far side failed, which may pass
    assert type(caught.value) is arrives_as
    assert str(caught.value) == "camera-1, line 3: do this; ü"


async def test_an_error_in_mid_stream_crosses_the_wire_after_the_messages_before_it(serve, site):
    from diredi.rpc.streams import read_messages

    server = await serve(Edge(errors.WrongState("no release installed yet: wait"), at_frame=3))
    frames = []
    async with connect(server.address, site) as channel:
        with pytest.raises(errors.WrongState, match="no release installed"):
            async for message in read_messages(EdgeServiceStub(channel).DetectStream(pb.DetectStreamRequest()), 5):
                frames.append(message.frame)
    assert frames == [0, 1, 2]


async def test_what_nobody_foresaw_becomes_internal_and_only_the_log_says_what(serve, site):
    server = await serve(Edge(RuntimeError(SECRET)))

    with structlog.testing.capture_logs() as logs, pytest.raises(errors.DirediError) as caught:
        await status_of(server, site)
    broke = next(line for line in logs if line["event"] == "handler_failed")
    assert "secret" not in str(caught.value)
    assert broke["reference"] in str(caught.value)
    assert broke["exc_info"].args == (SECRET,)
    assert broke["method"] == "/diredi.v1.EdgeService/GetStatus"


async def test_a_message_of_any_length_still_arrives(serve, site):
    server = await serve(Edge(errors.InvalidInput("x" * 100_000)))

    with pytest.raises(errors.InvalidInput, match="xxx"):
        await status_of(server, site)


async def test_a_call_that_the_server_does_not_have_is_named(serve, site):
    server = await serve()

    with pytest.raises(errors.DirediError, match=r"does not know /diredi.v1.EdgeService/GetStatus"):
        await status_of(server, site)


async def test_a_handler_that_hangs_does_not_outlast_the_deadline(serve, site):
    servicer = Edge()
    server = await serve(servicer)
    loop = asyncio.get_running_loop()
    async with connect(server.address, site) as channel:
        started = loop.time()
        with pytest.raises(errors.Unreachable, match=r"no answer in time to /diredi.v1.EdgeService/DetectImage"):
            await call(EdgeServiceStub(channel).DetectImage, pb.DetectImageRequest(), deadline_s=0.5)
    assert servicer.begun.is_set()
    assert loop.time() - started < 2


async def test_a_port_in_use_is_named_with_the_remedy(serve):
    server = await serve()

    with pytest.raises(errors.WrongState, match=rf"{server.address} cannot be listened on.*another port"):
        await serve(listen=server.address)


async def test_an_address_of_another_machine_is_named(serve):
    with pytest.raises(errors.WrongState, match=r"192\.0\.2\.1:0"):
        await serve(listen="192.0.2.1:0")


@pytest.mark.parametrize("listen", ["", "7070", "localhost", "localhost:", ":7070", "host:port"])
async def test_what_is_no_address_is_refused(serve, listen):
    with pytest.raises(errors.InvalidInput, match="host:port"):
        await serve(listen=listen)


async def test_health_is_told_for_the_server_and_for_each_service(serve, site):
    server = await serve(Edge())
    async with connect(server.address, site) as channel:
        assert await is_serving(channel)
        assert await is_serving(channel, "diredi.v1.EdgeService")
        assert not await is_serving(channel, "diredi.v1.CycleService")

        await server.set_serving("diredi.v1.EdgeService", False)
        assert not await is_serving(channel, "diredi.v1.EdgeService")
        assert await is_serving(channel)

        await server.set_serving("diredi.v1.EdgeService", True)
        assert await is_serving(channel, "diredi.v1.EdgeService")


async def test_reflection_lists_what_is_served(serve, site):
    server = await serve(Edge())
    async with connect(server.address, site) as channel:
        asking = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(timeout=PATIENCE_S)
        await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await asking.read()
        await asking.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="diredi.v1.EdgeService"))
        described = await asking.read()
        await asking.done_writing()

    assert {service.name for service in answer.list_services_response.service} == {
        "diredi.v1.EdgeService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert b"DetectImage" in described.file_descriptor_response.file_descriptor_proto[0]


async def test_a_stop_ends_open_streams_at_once_and_tells_clients_to_come_again(serve, site):
    servicer = Edge()
    server = await serve(servicer)
    loop = asyncio.get_running_loop()
    async with connect(server.address, site) as channel:
        stream = EdgeServiceStub(channel).DetectStream(pb.DetectStreamRequest())
        await stream.read()
        started = loop.time()
        stopping = asyncio.create_task(server.stop(grace_s=30))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while True:
                await stream.read()
        await stopping
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert servicer.ended.is_set()
    assert loop.time() - started < 3


async def test_a_stop_lets_a_short_call_finish(serve, site):
    release = asyncio.Event()
    begun = asyncio.Event()

    class Slow(EdgeServiceServicer):
        async def GetStatus(self, request, context):
            begun.set()
            await release.wait()
            return pb.GetStatusResponse(device="camera-1")

    server = await serve(Slow())
    calling = asyncio.create_task(status_of(server, site))
    await begun.wait()
    stopping = asyncio.create_task(server.stop(grace_s=10))
    await asyncio.sleep(0)
    release.set()

    assert (await calling).device == "camera-1"
    await stopping


async def test_a_client_that_leaves_ends_its_stream_on_the_server(serve, site):
    servicer = Edge()
    server = await serve(servicer)
    async with connect(server.address, site) as channel:
        stream = EdgeServiceStub(channel).DetectStream(pb.DetectStreamRequest())
        await stream.read()
    async with asyncio.timeout(PATIENCE_S):
        await servicer.ended.wait()


async def test_a_server_stops_though_grpc_never_says_that_it_has_ended(serve, monkeypatch):
    """A stand-in for grpcio's stop, which was seen to wait for ever under load: a camera would never start anew."""
    server = await serve(Edge())
    ends = server._server.stop

    async def never_says(grace):
        await ends(grace)
        await asyncio.Event().wait()

    monkeypatch.setattr(server._server, "stop", never_says)
    async with asyncio.timeout(PATIENCE_S):
        await server.stop(0.1)
