"""What stands where a site or a device looks for its cloud."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diredi.rpc.byte_counter import IngressMeter
from diredi.rpc.server import Server, start_server
from diredi.trust.identity import Credentials
from tests.support.net import free_port


class StubCloud:
    """A cloud of a test's own: starts, stops, and starts again at the same address with what its servicers know."""

    def __init__(self, credentials: Credentials, servicers: Sequence[Any]) -> None:
        self.port = free_port()
        self.received = IngressMeter()
        self.identity: Path | None = None
        """The folder of its identity, from which a renewed certificate and a deny list are taken."""
        self._credentials, self._servicers = credentials, servicers
        self._server: Server | None = None

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    async def start(self) -> None:
        listen = f"127.0.0.1:{self.port}"
        self._server = await start_server(
            self._credentials, listen, self._servicers, meter=self.received, identity=self.identity
        )

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
        self._server = None
