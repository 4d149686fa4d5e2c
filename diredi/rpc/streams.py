"""Watching: a stream that outlives its connections."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

import grpc

from diredi.errors import Unreachable
from diredi.rpc.client import error_from
from diredi.rpc.retry import Backoff

Request = TypeVar("Request")
Response = TypeVar("Response")
_EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from its types


async def watch_stream(
    open_stream: Callable[[], grpc.aio.UnaryStreamCall[Request, Response]],
    *,
    silence_s: float = 60.0,
    ends: bool = False,
    give_up_after_s: float | None = None,
    backoff: Backoff | None = None,
    on_online: Callable[[bool, str], None] | None = None,
) -> AsyncIterator[Response]:
    """Messages of a server's stream, opened again whenever it breaks or says nothing for `silence_s`.

    A stream that the server ends in order is over where `ends` is true (a cycle's), and is opened again where it is not
    (a site's tasks). After a reconnect the server begins anew, so taking a message twice must do no harm.
    `on_online(True, "")` is called with the first message of each connection, `on_online(False, why)` when it breaks.

    Cancelling the task, or closing the iterator, cancels the call. Raises whatever no reconnect cures (Refused,
    InvalidInput, NotFound...), and Unreachable after `give_up_after_s` without a message; None tries for ever.

    >>> async for answer in watch_stream(lambda: stub.WatchTasks(request)):     # doctest: +SKIP
    ...     ...
    """
    backoff = backoff or Backoff(first_s=0.2, longest_s=10.0)
    heard = time.monotonic()
    while True:
        why = Unreachable("the other side ended the stream: connecting again")
        try:
            async with contextlib.aclosing(read_messages(open_stream(), silence_s)) as messages:
                async for message in messages:
                    backoff.reset()
                    heard = time.monotonic()
                    if on_online is not None:
                        on_online(True, "")
                    yield message
            if ends:
                return
        except Unreachable as error:
            why = error
        if on_online is not None:
            on_online(False, str(why))
        if give_up_after_s is not None and time.monotonic() - heard > give_up_after_s:
            raise why
        await asyncio.sleep(backoff.next_s())


async def read_messages(
    stream: grpc.aio.UnaryStreamCall[Request, Response], silence_s: float
) -> AsyncGenerator[Response, None]:
    """The messages of one call. Raises the DirediError it ended with; Unreachable after `silence_s` of silence."""
    try:
        while True:
            async with asyncio.timeout(silence_s):
                message = await stream.read()
            if message is _EOF:
                return
            yield message  # type: ignore[misc]
    except TimeoutError:
        raise Unreachable(f"nothing came for {silence_s:g} s: the connection is dead") from None
    except grpc.aio.AioRpcError as error:
        raise error_from(error) from None
    finally:
        stream.cancel()
