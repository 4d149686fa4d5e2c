"""The identity folder of this device, looked at again and again while the node runs.

A camera must not go blind because its clock is wrong, its certificate has expired or its folder is gone: what needs the
network waits for a folder that can be used, and everything else does not.
"""

from __future__ import annotations

import asyncio

import structlog

from diredi.errors import InvalidInput
from diredi.rpc.retry import Backoff
from diredi.trust.identity import Credentials, Role
from edge_node.config import EdgeConfig


class IdentityFolder:
    """`problem` is one sentence that says what is wrong with the folder as it was seen last; empty for nothing."""

    def __init__(self, config: EdgeConfig) -> None:
        self._config = config
        self.problem = ""

    async def look(self) -> Credentials | None:
        """Return what the folder holds, also outside the time for which it is valid; None where that is no use."""
        credentials, problem = await asyncio.to_thread(self._read)
        if problem != self.problem:
            log = structlog.get_logger()
            log.warning("identity_rejected", problem=problem) if problem else log.info("identity_accepted")
        self.problem = problem
        return credentials

    async def usable(self) -> Credentials:
        """Return what the folder holds as soon as it holds a certificate of this very device and its key."""
        backoff = Backoff(min(1.0, self._config.heartbeat_s), 30.0)
        while (credentials := await self.look()) is None:
            await asyncio.sleep(backoff.next_s())
        return credentials

    async def replaced(self, credentials: Credentials) -> None:
        """Return once the folder holds other credentials than these that can be used."""
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            found = await self.look()
            if found is not None and found != credentials:
                return

    def _read(self) -> tuple[Credentials | None, str]:
        try:
            credentials = self._own()
        except InvalidInput as error:
            return None, str(error)
        return credentials, credentials.time_problem(self._config.identity)

    def _own(self) -> Credentials:
        """Raises InvalidInput when the folder holds no certificate of this very device."""
        config = self._config
        credentials = Credentials.read(config.identity)
        identity = credentials.identity
        if (identity.role, identity.name, identity.site) != (Role.DEVICE, config.device, config.site):
            raise InvalidInput(
                f"the certificate in {config.identity} is for {identity}, not for "
                f"device/{config.site}/{config.device}: name another folder, or issue one with `diredi pki issue`"
            )
        return credentials
