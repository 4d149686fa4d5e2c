"""The one way out of a site's network: what connects to LISTEN is carried, byte for byte, to TARGET.

    python gateway.py LISTEN_HOST:PORT TARGET_HOST:PORT

It stands where a site's firewall and NAT stand. TLS goes through it end to end, so it reads nothing and holds no key.
It listens on the site's side alone: LISTEN_HOST is a name that only the site's network knows, hence nothing that is
outside can use it to reach in. Standard library only.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

CONNECT_TIMEOUT_S = 10
CHUNK_BYTES = 64 * 1024


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One direction, until its end; the end is passed on."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()  # a broken half breaks the whole


async def forward(listen: tuple[str, int], target: tuple[str, int]) -> None:
    """Serves until cancelled."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.wait_for(asyncio.open_connection(*target), CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError):
            writer.close()  # the client sees a closed connection and tries again
            return
        await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))
        for end in (writer, far_writer):
            end.close()
            with suppress(OSError):
                await end.wait_closed()

    server = await asyncio.start_server(connected, *listen)
    print(f"gateway: {listen[0]}:{listen[1]} -> {target[0]}:{target[1]}", file=sys.stderr, flush=True)
    async with server:
        await server.serve_forever()


def address(text: str) -> tuple[str, int]:
    """`host:port` as a pair."""
    host, _, port = text.rpartition(":")
    return host, int(port)


async def main(listen: str, target: str) -> None:
    """Until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(forward(address(listen), address(target)))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    with suppress(asyncio.CancelledError):
        await serving


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
