"""A mail server and a web server, each of a few lines, that remember what they are sent."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass
class Received:
    """What has come in so far, and where the server is."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)
    posts: list[bytes] = field(default_factory=list)
    refuses: bool = False


@asynccontextmanager
async def mail_server() -> AsyncIterator[Received]:
    """Speak as much of SMTP (RFC 5321) as a client needs that delivers one mail."""
    received = Received()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        while line := (await reader.readline()).upper():
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                data = await reader.readuntil(b"\r\n.\r\n")
                mail = email.message_from_bytes(data[:-3], policy=email.policy.default)
                received.mails.append(mail)
            writer.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 test\r\n")
            if line.startswith(b"QUIT"):
                break
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    received.port = server.sockets[0].getsockname()[1]
    async with server:
        yield received


@asynccontextmanager
async def web_hook() -> AsyncIterator[Received]:
    """Take posts, or answer 503 while `refuses` is set."""
    received = Received()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-l")
        )
        body = await reader.readexactly(size)
        if not received.refuses:
            received.posts.append(body)
        status = b"503 Later" if received.refuses else b"204 Taken"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    received.port = server.sockets[0].getsockname()[1]
    async with server:
        yield received
