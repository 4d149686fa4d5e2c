"""What may stand between a client and a server."""

from __future__ import annotations

import asyncio
import contextlib


class Proxy:
    """Plain TCP in front of a server: counts the client's bytes; can be slow, fall silent, cut what is open."""

    def __init__(self, target):
        self.host, _, port = target.rpartition(":")
        self.port = int(port)
        self.sent_bytes = 0
        self.connections = 0
        self.bytes_per_s = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.tasks = set()
        self.writers = set()

    async def start(self):
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def _accept(self, reader, writer):
        self.connections += 1
        self.tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there_reader, there_writer = await asyncio.open_connection(self.host, self.port)
            self.writers |= {writer, there_writer}
            await asyncio.gather(self._pump(reader, there_writer, True), self._pump(there_reader, writer, False))

    async def _pump(self, reader, writer, outbound):
        with contextlib.suppress(OSError):
            while data := await reader.read(16384):
                await self.flowing.wait()
                if outbound:
                    self.sent_bytes += len(data)
                    if self.bytes_per_s is not None:
                        await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
            writer.close()

    def fall_silent(self):
        """Connections stay open and nothing travels, as when a cable is pulled."""
        self.flowing.clear()

    def cut(self):
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def close(self):
        self.server.close()
        self.cut()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class HttpProxy(Proxy):
    """Answers CONNECT, for whichever host, and carries all to its target; with another status, nothing."""

    def __init__(self, target, status="200 OK"):
        super().__init__(target)
        self.status = status
        self.asked = []

    async def _accept(self, reader, writer):
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode())
        writer.write(f"HTTP/1.1 {self.status}\r\n\r\n".encode())
        if self.status == "200 OK":
            await super()._accept(reader, writer)
        else:
            writer.close()
