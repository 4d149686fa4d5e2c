"""Streams that survive a broken connection."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

import grpc

from diredi.errors import RateLimited, Unreachable
from diredi.rpc.client import RENEWED, error_from, is_cancelled
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
    """Yield the messages of a server's stream; open it again whenever it breaks or is silent for too long.

    After a reconnect the server begins anew, so receiving a message twice must do no harm. Cancelling the task or
    closing the iterator cancels the call.

    Args:
        open_stream: Opens the stream; called for each connection.
        silence_s: Seconds without a message after which the connection counts as dead.
        ends: Whether an end by the server is the end (as of a cycle), and no reason to open the stream again (as of
            tasks).
        give_up_after_s: Seconds without a message after which to stop trying; None tries for ever.
        backoff: Pauses between connections.
        on_online: Called with (True, "") at the first message of a connection and with (False, reason) when it breaks.

    Yields:
        The messages of the server.

    Raises:
        Unreachable: There was no message for `give_up_after_s`.
        DirediError: An error that no reconnect cures, such as Refused, InvalidInput or NotFound.

    Examples:
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
    """Yield the messages of one streaming call.

    Args:
        stream: The call.
        silence_s: Seconds without a message after which the connection counts as dead.

    Yields:
        The messages of the server.

    Raises:
        Unreachable: Nothing came for `silence_s`, or the connection broke.
        DirediError: The error that the server ended the call with.
    """
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
        failure = error_from(error)
        if isinstance(failure, RateLimited):  # whoever opens the stream again does so after the pause
            await asyncio.sleep(min(failure.retry_after_s, silence_s))
        raise failure from None
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        raise Unreachable(RENEWED) from None
    finally:
        stream.cancel()
