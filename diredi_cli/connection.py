"""Connections of commands to the cloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from diredi.rpc.client import Channel, Method
    from diredi.trust.identity import ServerIdentity

_T = TypeVar("_T")
Request = TypeVar("Request")
Response = TypeVar("Response")


@asynccontextmanager
async def open_channel(address: str, identity: Path, server: ServerIdentity | None = None) -> AsyncIterator[Channel]:
    """Open a channel to a service for a block.

    Args:
        address: The service as host:port.
        identity: Folder with the caller's credentials.
        server: Whose service it must be; None for the cloud's.

    Yields:
        The channel.

    Raises:
        InvalidInput: The folder holds no usable credentials.
    """
    from diredi.rpc.client import connect
    from diredi.trust.deny_list import CRL_FILE, DenyList
    from diredi.trust.identity import Credentials, Role

    credentials = Credentials.load(identity)
    DenyList.read(identity / CRL_FILE, credentials.ca)  # a damaged one is no reason to talk to whoever was revoked
    channel = connect(address, credentials, server=server or Role.CLOUD, identity=identity)
    try:
        yield channel
    finally:
        await channel.close()


def with_cloud(
    address: str, identity: Path, work: Callable[[Channel], Awaitable[_T]], server: ServerIdentity | None = None
) -> _T:
    """Run some work on a channel to the cloud, or to another server that is named, and return its result."""

    async def run() -> _T:
        async with open_channel(address, identity, server) as channel:
            return await work(channel)

    return asyncio.run(run())


def list_all(
    address: str,
    identity: Path,
    method: Callable[[Channel], Method[Request, Response]],
    request: Request,
    field: str,
    most: int | None = None,
) -> Response:
    """Ask for a list page by page, and return the first answer with the items of all pages.

    Args:
        address: The cloud as host:port.
        identity: Folder with the caller's credentials.
        method: Returns the method of a stub, for a channel.
        request: What to ask; it has `page_size` and `page_token`.
        field: The field of the answer that holds the items.
        most: At most so many items; None: all.
    """
    from diredi.rpc.client import call

    page: Any = request

    async def read(channel: Channel) -> Response:
        whole: Any = None
        while True:
            if most is not None:
                page.page_size = most - (0 if whole is None else len(getattr(whole, field)))
            answer: Any = await call(method(channel), page, deadline_s=10.0)
            if whole is None:
                whole = answer
            else:
                getattr(whole, field).extend(getattr(answer, field))
            if not answer.next_page_token or (most is not None and len(getattr(whole, field)) >= most):
                return whole  # type: ignore[no-any-return]
            page.page_token = answer.next_page_token

    return with_cloud(address, identity, read)


def ask(
    address: str,
    identity: Path,
    method: Callable[[Channel], Method[Request, Response]],
    request: Request,
    deadline_s: float = 10.0,
    server: ServerIdentity | None = None,
) -> Response:
    """One call: `ask(cloud, identity, lambda channel: SiteServiceStub(channel).ListSites, request)`."""
    from diredi.rpc.client import call

    return with_cloud(address, identity, lambda channel: call(method(channel), request, deadline_s=deadline_s), server)


def open_pages(address: str, identity: Path, server: ServerIdentity | None = None) -> str:
    """Return a one-time link to the web pages of a service, as `page_link` does."""
    return asyncio.run(page_link(address, identity, server))


async def page_link(address: str, identity: Path, server: ServerIdentity | None = None) -> str:
    """Return a one-time link to the web pages of a service, which is asked for with the caller's key.

    Args:
        address: The service as host:port.
        identity: Folder with the caller's credentials.
        server: Whose service it must be; None for the cloud's.

    Raises:
        WrongState: The service has no pages.
        Refused: They are not for this caller.
    """
    import getpass
    import os
    from urllib.parse import urlsplit

    from diredi.rpc.client import call
    from diredi.rpc.v1.pages_pb2 import OpenPagesRequest
    from diredi.rpc.v1.pages_pb2_grpc import PageServiceStub

    try:
        person = getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        person = f"user {os.getuid()}"
    async with open_channel(address, identity, server) as channel:
        url = (await call(PageServiceStub(channel).OpenPages, OpenPagesRequest(person=person), deadline_s=10.0)).url
    parts = urlsplit(url)
    if parts.hostname in {"0.0.0.0", "::"}:  # every address of that machine, such as the one that was just asked
        return parts._replace(netloc=f"{address.rpartition(':')[0]}:{parts.port}").geturl()
    return url
