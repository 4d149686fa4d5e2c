"""`python floor.py FOLDER`: the same bytes through bare gRPC streams of 1 MiB messages, without TLS, checks or a mean.

A server process and one process a client. In a round every client fetches all bytes and sends them back; the next
begins when the last is done.
"""

# ruff: noqa: ANN401  (gRPC gives its contexts no type of their own)

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

CHUNK = 2**20
SERVICE = "bench.Floor"


class Floor:
    def __init__(self, data: bytes, clients: int) -> None:
        self._chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
        self._clients, self._there = clients, 0
        self._round = asyncio.Condition()
        self.ended: list[float] = []

    async def fetch(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """When all clients ask for this round."""
        number = int(request)
        async with self._round:
            self._there += 1
            self._round.notify_all()
            await self._round.wait_for(lambda: self._there >= self._clients * (number + 1))
        for chunk in self._chunks:
            yield chunk

    async def send(self, chunks: AsyncIterator[bytes], context: Any) -> bytes:
        received = [chunk async for chunk in chunks]
        assert sum(map(len, received)) == sum(map(len, self._chunks))
        self.ended.append(time.time())
        return b""


async def serve(folder: Path, spec: dict[str, Any]) -> None:
    floor = Floor((folder / "weights.safetensors").read_bytes(), spec["clients"])
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 2 * CHUNK)])
    handlers = {
        "Fetch": grpc.unary_stream_rpc_method_handler(floor.fetch),
        "Send": grpc.stream_unary_rpc_method_handler(floor.send),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    command = [sys.executable, __file__, str(folder), str(port)]
    clients = [await asyncio.create_subprocess_exec(*command) for _ in range(spec["clients"])]
    codes = await asyncio.gather(*(client.wait() for client in clients))
    await server.stop(0)
    if any(codes):
        raise RuntimeError(f"clients ended with {codes}")
    last_of_rounds = sorted(floor.ended)[spec["clients"] - 1 :: spec["clients"]]
    (folder / "found.json").write_text(json.dumps({"ended": last_of_rounds}))


async def take_part(port: str, rounds: int) -> None:
    options = [("grpc.max_receive_message_length", 2 * CHUNK)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        fetch = channel.unary_stream(f"/{SERVICE}/Fetch", bytes, bytes)
        send = channel.stream_unary(f"/{SERVICE}/Send", bytes, bytes)
        for number in range(rounds):
            chunks = [chunk async for chunk in fetch(str(number).encode())]
            await send(iter(chunks))


if __name__ == "__main__":
    folder, *port = sys.argv[1:]
    spec = json.loads((Path(folder) / "spec.json").read_text())
    asyncio.run(take_part(port[0], spec["rounds"]) if port else serve(Path(folder), spec))
