"""Reads the identity folder of this device, again and again while the node runs.

A camera must go on detecting when its clock is wrong, its certificate has expired or its folder is gone. What needs the
network waits for a folder that can be used; everything else does not.
"""

from __future__ import annotations

import asyncio

import structlog

from diredi.errors import InvalidInput
from diredi.rpc.retry import Backoff
from diredi.trust.identity import Credentials, Identity, Role
from edge_node.config import EdgeConfig


class IdentityFolder:
    """Watch the identity folder; `problem` says what was wrong with it last, in one sentence, empty for nothing."""

    def __init__(self, config: EdgeConfig) -> None:
        """Watch the folder that the configuration names."""
        self._config = config
        self.problem = ""

    async def look(self) -> Credentials | None:
        """Read the folder once, and log it if that changed.

        Returns:
            Its credentials, even if they are expired or not valid yet; None if they cannot be used at all.
        """
        credentials, problem = await asyncio.to_thread(self._read)
        if problem != self.problem:
            log = structlog.get_logger()
            log.warning("identity_rejected", problem=problem) if problem else log.info("identity_accepted")
        self.problem = problem
        return credentials

    async def usable(self) -> Credentials:
        """Wait until the folder holds a certificate of this device and its key, and return them."""
        backoff = Backoff(min(1.0, self._config.heartbeat_s), 30.0)
        while (credentials := await self.look()) is None:
            await asyncio.sleep(backoff.next_s())
        return credentials

    async def replaced(self, credentials: Credentials) -> None:
        """Wait until the folder holds other credentials than these, which can be used."""
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            current = await self.look()
            if current is not None and current != credentials:
                return

    def _read(self) -> tuple[Credentials | None, str]:
        folder = self._config.identity
        try:
            owner = Identity(Role.DEVICE, self._config.device, self._config.site)
            credentials = Credentials.read(folder, owner=owner)
        except InvalidInput as error:
            return None, str(error)
        return credentials, credentials.time_problem(folder)
