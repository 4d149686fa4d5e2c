"""How a command reaches the cloud: dial, work, hang up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from diredi.rpc.client import Channel, Method

_T = TypeVar("_T")
Request = TypeVar("Request")
Response = TypeVar("Response")


@asynccontextmanager
async def dialled(address: str, identity: Path) -> AsyncIterator[Channel]:
    """A channel to `address` as the identity in a folder. Raises InvalidInput for a folder that holds none."""
    from diredi.rpc.client import connect
    from diredi.trust.identity import Credentials

    channel = connect(address, Credentials.load(identity))
    try:
        yield channel
    finally:
        await channel.close()


def with_cloud(address: str, identity: Path, work: Callable[[Channel], Awaitable[_T]]) -> _T:
    """Runs `work` on a channel to the cloud and returns what it returns."""

    async def run() -> _T:
        async with dialled(address, identity) as channel:
            return await work(channel)

    return asyncio.run(run())


def ask(
    address: str,
    identity: Path,
    method: Callable[[Channel], Method[Request, Response]],
    request: Request,
    deadline_s: float = 10.0,
) -> Response:
    """One call: `ask(cloud, identity, lambda channel: SiteServiceStub(channel).ListSites, request)`."""
    from diredi.rpc.client import call

    return with_cloud(address, identity, lambda channel: call(method(channel), request, deadline_s=deadline_s))
