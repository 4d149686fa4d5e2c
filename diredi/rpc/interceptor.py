"""The one interceptor of our servers: errors become status codes, received bytes are counted, streams end at a stop.

A handler is an `async def` or an async generator. It raises a DirediError for whatever it foresees; anything else that
it raises becomes INTERNAL with a reference number, and only the log says what it was.
"""

# ruff: noqa: ANN401  (gRPC gives its handlers, contexts and serializers no types of their own)

from __future__ import annotations

import asyncio
import inspect
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import structlog
from google.protobuf.message import DecodeError

from diredi.errors import DirediError, InvalidInput, RateLimited, Refused
from diredi.rpc.admission import Admission
from diredi.rpc.byte_counter import EgressMeter, IngressMeter, count_sent
from diredi.rpc.caller import caller_identity
from diredi.rpc.limits import CallQuota, CallRate, Limits
from diredi.rpc.status import RETRY_AFTER_MS, code_of
from diredi.trust.identity import Role

_log = structlog.get_logger(__name__)
_END = object()
_REFUSALS_A_MINUTE = 100
"""Of one method; more are counted and not logged."""
_STOPPING = "this server is stopping: connect again"
_HELD_S = 0.1
_LONGEST_HELD_S = 1.0
_MOST_HELD_BACK = 4096
"""Refusals of calls that came too early which wait at once, in all."""
_LONGEST = 1000  # characters of a message; a status travels in headers, which are limited
Unary = Callable[[Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any], AsyncIterator[Any]]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]
_ENROL = "/diredi.v1.EnrolmentService/Enrol"
_DOWNLOAD = "/diredi.v1.BlobService/GetBlob"


class Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """The interceptor before every handler; health and reflection stay as their libraries wrote them, within limits.

    It turns errors into status codes, counts received bytes, refuses a caller who has too much under way or calls too
    often, ends open streams when the server stops, and all calls of a caller whose certificate does not hold any more.
    """

    def __init__(
        self,
        admission: Admission,
        meter: IngressMeter | None = None,
        sent: EgressMeter | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._admission = admission
        self._meter, self._sent = meter, sent
        self._quota = CallQuota(limits or Limits())
        self._rate = CallRate(limits or Limits())
        self._held_back = 0
        self._refusals = _Refusals()
        self._stopping = asyncio.Event()

    def end_streams(self) -> None:
        """End all open streams with UNAVAILABLE, so that clients connect again instead of delaying the stop."""
        self._stopping.set()

    async def intercept_service(self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one call, as gRPC asks for it."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return handler
        if not method.startswith("/diredi."):
            return self._library_handler(method, handler)
        coders = (_parse(handler.request_deserializer), count_sent(handler.response_serializer, self._sent))
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), *coders)
        if handler.unary_stream is not None and inspect.isasyncgenfunction(handler.unary_stream):
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), *coders)
        raise TypeError(f"{method}: a handler is an async function or an async generator with one request")

    def _unary(self, method: str, handler: Unary) -> Unary:
        async def guarded(request: Any, context: Any) -> Any:
            try:
                with (
                    self._admission.hold(context) as must_end,
                    self._quota.hold(self._count(method, request, context), "call"),
                ):
                    return await _unless(must_end, handler(request, context))
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # the boundary: nothing may leave it but a status code
                await self._abort(method, context, error)

        return guarded

    def _stream(self, method: str, handler: Stream) -> Stream:
        kind = "download" if method == _DOWNLOAD else "stream"

        async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
            try:
                with (
                    self._admission.hold(context) as must_end,
                    self._quota.hold(self._count(method, request, context), kind),
                ):
                    async for message in _until(self._stopping, must_end, handler(request, context)):
                        yield message
            except grpc.aio.AbortError:
                raise
            except _Stopping:
                await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING)
            except Exception as error:  # the boundary: nothing may leave it but a status code
                await self._abort(method, context, error)

        return guarded

    def _library_handler(self, method: str, handler: Any) -> Any:
        """Bound the streams of health and reflection, which a caller may hold open for ever."""
        coders = (handler.request_deserializer, handler.response_serializer)
        admission = self._admission

        async def check(request: Any, context: Any) -> Any:
            try:
                with admission.hold(context):
                    self._rate.take(str(caller_identity(context)))
                    return await handler.unary_unary(request, context)
            except DirediError as error:
                await self._abort(method, context, error)

        async def watch(request: Any, context: Any) -> None:  # health's writes to its context
            try:
                caller = str(caller_identity(context))
                with admission.hold(context) as must_end, self._quota.hold(caller, "stream"):
                    self._rate.take(caller)
                    await _unless(must_end, handler.unary_stream(request, context))
            except DirediError as error:
                await self._abort(method, context, error)

        async def reflect(requests: Any, context: Any) -> AsyncIterator[Any]:
            try:
                caller = str(caller_identity(context))
                with admission.hold(context) as must_end, self._quota.hold(caller, "stream"):
                    self._rate.take(caller)
                    async for message in _until(self._stopping, must_end, handler.stream_stream(requests, context)):
                        yield message
            except _Stopping:
                await context.abort(grpc.StatusCode.UNAVAILABLE, _STOPPING)
            except DirediError as error:
                await self._abort(method, context, error)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(check, *coders)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(watch, *coders)
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(reflect, *coders)
        return handler

    async def _abort(self, method: str, context: Any, error: Exception) -> NoReturn:
        if isinstance(error, DirediError):
            if isinstance(error, RateLimited):
                await self._abort_late(context, error)
            if (left_out := self._refusals.count(method)) is not None:
                more = {"left_out": left_out} if left_out else {}
                _log.info("call_refused", method=method, error=type(error).__name__, message=str(error), **more)
            await context.abort(code_of(error), str(error)[:_LONGEST])
        reference = secrets.token_hex(4)
        _log.error("handler_failed", method=method, reference=reference, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error {reference}: look for it in the server's log")
        raise AssertionError("abort always raises")

    async def _abort_late(self, context: Any, error: RateLimited) -> NoReturn:
        """Refuse a call that came too early, with the time to wait.

        The answer itself waits for a while, too: whoever does not obey gets no more refusals than it may hold calls.
        """
        if self._held_back < _MOST_HELD_BACK:
            self._held_back += 1
            try:
                await asyncio.sleep(min(_LONGEST_HELD_S, error.retry_after_s + _HELD_S))
            finally:
                self._held_back -= 1
        after_ms = max(1, math.ceil(error.retry_after_s * 1000))
        await context.abort(code_of(error), str(error)[:_LONGEST], ((RETRY_AFTER_MS, str(after_ms)),))
        raise AssertionError("abort always raises")

    def _count(self, method: str, request: Any, context: Any) -> str:
        """Count a message and return who sent it; the holder of a token may enrol, and is refused all else.

        Raises:
            RateLimited: The caller makes too many calls.
            Refused: The caller has a token.
            InvalidInput: The request is no message of this call.
        """
        identity = caller_identity(context)
        self._rate.take(str(identity))
        if identity.role is Role.ENROLMENT and method != _ENROL:
            raise Refused(f"{identity} is a token: enrol with it, and use the certificate that you get")
        if isinstance(request, _Unreadable):
            raise InvalidInput("the request is no message of this call: both sides need the same version")
        caller = str(identity)
        if self._meter is not None:
            self._meter.count(caller, request.DESCRIPTOR.full_name, request.ByteSize())
        return caller


class _Unreadable:
    """Stands for bytes that are no message of the call; gRPC would answer them with INTERNAL, which says: try again."""


def _parse(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def parse(data: bytes) -> Any:
        try:
            return deserializer(data)
        except (DecodeError, ValueError, RecursionError):
            return _Unreadable()

    return parse


class _Stopping(Exception):
    """The server stops while a stream is open."""


async def _unless(must_end: asyncio.Future[None], answering: Awaitable[Any]) -> Any:
    """The answer. It is given up as soon as `must_end` fails, and that error is raised."""
    answer = asyncio.ensure_future(answering)
    try:
        await asyncio.wait({answer, must_end}, return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else must_end.result()
    finally:
        await _end(answer)


async def _until(
    stopping: asyncio.Event, must_end: asyncio.Future[None], messages: AsyncIterator[Any]
) -> AsyncIterator[Any]:
    """The messages, until there are no more. Raises _Stopping once `stopping` is set, and how `must_end` fails."""
    stop = asyncio.ensure_future(stopping.wait())
    upcoming: asyncio.Future[Any] | None = None
    try:
        while True:
            upcoming = asyncio.ensure_future(_next(messages))
            await asyncio.wait({upcoming, stop, must_end}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                raise _Stopping
            if must_end.done():
                must_end.result()
            message = upcoming.result()
            if message is _END:
                return
            yield message
    finally:
        stop.cancel()
        if upcoming is not None:
            await _end(upcoming)
        await messages.aclose()  # type: ignore[attr-defined]  # an async generator, checked above


async def _end(task: asyncio.Future[Any]) -> None:
    """End a task that nobody waits for any more. What it raises meanwhile is no line of the log: a caller causes it."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def _next(messages: AsyncIterator[Any]) -> Any:
    return await anext(messages, _END)


class _Refusals:
    """Bounds what refused calls write to the log: a caller could fill the disk with its own refusals."""

    def __init__(self) -> None:
        self._minutes: dict[str, tuple[float, int]] = {}
        """By method when its minute began, and how many refusals there were since."""

    def count(self, method: str) -> int | None:
        """Count a refusal, and return how many were left out of the log before it; None where it is left out, too."""
        now = time.monotonic()
        began, count = self._minutes.get(method, (-math.inf, 0))
        if now - began >= 60:
            self._minutes[method] = now, 1
            return max(0, count - _REFUSALS_A_MINUTE)
        self._minutes[method] = began, count + 1
        return 0 if count < _REFUSALS_A_MINUTE else None
