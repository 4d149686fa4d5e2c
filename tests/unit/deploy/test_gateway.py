"""The way out of a site's network: what it carries, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from deploy import gateway
from tests.support.net import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
DEADLINE_S = 60


@asynccontextmanager
async def through_a_gateway(handler: Handler) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through a gateway to a server that does what `handler` does."""
    target = await asyncio.start_server(handler, "127.0.0.1", 0)
    listen = ("127.0.0.1", free_port())
    forwarding = asyncio.create_task(gateway.forward(listen, target.sockets[0].getsockname()))
    reader, writer = await connected(listen)
    try:
        yield reader, writer
    finally:
        forwarding.cancel()
        writer.close()
        target.close()
        await asyncio.gather(forwarding, return_exceptions=True)


async def connected(address: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return await asyncio.open_connection(*address)
            except ConnectionRefusedError:
                await asyncio.sleep(0)  # it is about to listen


async def test_bytes_arrive_as_they_were_in_both_directions_and_so_does_the_end() -> None:
    sent = bytes(range(256)) * 4096

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read())[::-1])  # only after our end has arrived
        writer.close()

    async with asyncio.timeout(DEADLINE_S), through_a_gateway(echo) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == sent[::-1]


async def test_a_connection_that_the_far_side_drops_is_dropped() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with asyncio.timeout(DEADLINE_S), through_a_gateway(drop) as (reader, _):
        assert await reader.read() == b""


async def test_a_cloud_that_is_away_closes_the_connection_and_the_gateway_lives_on() -> None:
    listen, nobody = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    forwarding = asyncio.create_task(gateway.forward(listen, nobody))
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            reader, writer = await connected(listen)
            assert await reader.read() == b""
            writer.close()
    forwarding.cancel()
    await asyncio.gather(forwarding, return_exceptions=True)


def test_an_address_may_be_a_name() -> None:
    assert gateway.address("cloud.wan:8443") == ("cloud.wan", 8443)
