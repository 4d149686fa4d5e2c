"""A proxy between a user domain and its cloud: ends the TLS of one, begins that of the other, keeps every byte between.

The user domain sees a certificate of its authority for the cloud's name; the cloud sees the site's own certificate.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Connection:
    """What went over one connection in plain text."""

    sent: bytearray = field(default_factory=bytearray)
    """From the user domain to the cloud."""
    received: bytearray = field(default_factory=bytearray)


class RecordingProxy:
    def __init__(self, cloud_identity: Path, site_identity: Path, cloud_port: int) -> None:
        self.connections: list[Connection] = []
        self._cloud_port = cloud_port
        self._towards_site = _context(cloud_identity, ssl.PROTOCOL_TLS_SERVER)
        self._towards_cloud = _context(site_identity, ssl.PROTOCOL_TLS_CLIENT)
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def sent(self) -> bytes:
        """Every byte that left the user domain."""
        return b"".join(bytes(connection.sent) for connection in self.connections)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._towards_site)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection()
        self.connections.append(connection)
        onward_reader, onward_writer = await asyncio.open_connection(
            "127.0.0.1", self._cloud_port, ssl=self._towards_cloud, server_hostname="localhost"
        )
        ways = (
            asyncio.create_task(_pipe(reader, onward_writer, connection.sent)),
            asyncio.create_task(_pipe(onward_reader, writer, connection.received)),
        )
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, onward_writer):
            end.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    try:
        while data := await reader.read(65536):
            record += data
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass  # one side hung up: so does this


def _context(identity: Path, protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    context.load_verify_locations(identity / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    return context
