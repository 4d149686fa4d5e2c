"""The one interceptor of our servers: errors become status codes, received bytes are counted, streams end at a stop.

A handler is an `async def` or an async generator. It raises a DirediError for whatever it foresees; anything else that
it raises becomes INTERNAL with a reference number, and only the log says what it was.
"""

# ruff: noqa: ANN401  (gRPC gives its handlers, contexts and serializers no types of their own)

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import structlog

from diredi.errors import DirediError
from diredi.rpc.byte_counter import EgressMeter, IngressMeter, count_sent
from diredi.rpc.caller import caller_identity
from diredi.rpc.status import code_of

_log = structlog.get_logger(__name__)
_END = object()
_LONGEST = 1000  # characters of a message; a status travels in headers, which are limited
Unary = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncIterator[Any]]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The interceptor before every handler of the contract; health and reflection stay as their libraries wrote them.

    It turns errors into status codes, counts received bytes and ends open streams when the server stops.
    """

    def __init__(self, meter: IngressMeter | None = None, sent: EgressMeter | None = None) -> None:
        self._meter, self._sent = meter, sent
        self._stopping = asyncio.Event()

    def end_streams(self) -> None:
        """End all open streams with UNAVAILABLE, so that clients connect again instead of delaying the stop."""
        self._stopping.set()

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one call, as gRPC asks for it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/diredi."):
            return handler
        coders = (handler.request_deserializer, count_sent(handler.response_serializer, self._sent))
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), *coders)
        if handler.unary_stream is not None and inspect.isasyncgenfunction(handler.unary_stream):
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), *coders)
        raise TypeError(f"{method}: a handler is an async function or an async generator with one request")

    def _unary(self, method: str, handler: Unary) -> Unary:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                self._count(request, context)
                return await handler(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # the boundary: nothing may leave it but a status code
                await _abort(method, context, error)

        return guarded

    def _stream(self, method: str, handler: Stream) -> Stream:
        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                self._count(request, context)
                async for message in _until(self._stopping, handler(request, context)):
                    yield message
            except grpc.aio.AbortError:
                raise
            except _Stopping:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this server is stopping: connect again")
            except Exception as error:  # the boundary: nothing may leave it but a status code
                await _abort(method, context, error)

        return guarded

    def _count(self, request: Any, context: Any) -> None:
        if self._meter is not None:
            self._meter.count(str(caller_identity(context)), request.DESCRIPTOR.full_name, request.ByteSize())


class _Stopping(Exception):
    """The server stops while a stream is open."""


async def _until(stopping: asyncio.Event, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages, until there are no more. Raises _Stopping as soon as `stopping` is set."""
    stop = asyncio.ensure_future(stopping.wait())
    upcoming: asyncio.Future[Any] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(_next(messages))
            await asyncio.wait({upcoming, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                raise _Stopping
            message = upcoming.result()
            if message is _END:
                return
            yield message
    finally:
        stop.cancel()
        if upcoming is not None and not upcoming.done():
            upcoming.cancel()
            await asyncio.wait({upcoming})
        await messages.aclose()  # type: ignore[attr-defined]  # an async generator, checked above


async def _next(messages: AsyncIterator[Any]) -> Any:
    return await anext(messages, _END)


async def _abort(method: str, context: Any, error: Exception) -> NoReturn:
    if isinstance(error, DirediError):
        _log.info("call_refused", method=method, error=type(error).__name__, message=str(error))
        await context.abort(code_of(error), str(error)[:_LONGEST])
    reference = secrets.token_hex(4)
    _log.error("handler_failed", method=method, reference=reference, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, f"internal error {reference}: look for it in the server's log")
    raise AssertionError("abort always raises")
