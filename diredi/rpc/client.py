"""Clients: channels with mutual TLS, and calls that have a deadline and end in a DirediError.

There is no way to open a channel without certificates. A process that has a channel must never fork.
"""

# ruff: noqa: ANN401  (gRPC gives its handlers, contexts and serializers no types of their own)

from __future__ import annotations

import asyncio
import ipaddress
import random
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import structlog
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from diredi.errors import NotFound, RateLimited, Unreachable
from diredi.rpc.byte_counter import EgressMeter, count_sent
from diredi.rpc.limits import MAX_MESSAGE_BYTES
from diredi.rpc.retry import Backoff, retry
from diredi.rpc.server import FLOW_OPTIONS
from diredi.rpc.status import error_of, retry_after_s
from diredi.trust.deny_list import DenyListFile
from diredi.trust.identity import Credentials, Role, ServerIdentity, server_name

Request = TypeVar("Request")
Response = TypeVar("Response")

_OPTIONS = [
    ("grpc.keepalive_time_ms", 5000),  # a server that vanished is noticed within 7 s
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.http2.ping_timeout_ms", 2000),  # what grpcio 1.85 really waits; 60 s by default
    *FLOW_OPTIONS,
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 2000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_retries", 0),  # retries are ours, so that each attempt is counted
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
]

_LOOK_EVERY_S = 1.0
RENEWED = "the connection was renewed while this went on: try again"

Method = grpc.aio.UnaryUnaryMultiCallable
"""A call of a stub that asks once and is answered once; for annotations, so that callers need no gRPC of their own."""


OnAnswer = Callable[[str, int], None]
"""on_answer(message type, its bytes before framing), of each message that came and is one."""


class Channel(grpc.aio.Channel):
    """A channel for the generated stubs that counts each message as it is serialized and each answer as it arrives.

    Examples:
        >>> async with connect("cloud:7070", credentials) as channel:          # doctest: +SKIP
        ...     await call(RegistryServiceStub(channel).ListModels, ListModelsRequest(), deadline_s=10)
    """

    def __init__(
        self,
        address: str,
        open_: Callable[[Credentials], grpc.aio.Channel],
        credentials: Credentials,
        meter: EgressMeter | None,
        on_answer: OnAnswer | None = None,
        is_revoked: Callable[[Credentials], bool] | None = None,
    ) -> None:
        self.address = address
        self._open = open_
        self._credentials = credentials
        self._channel: Any = open_(credentials)
        self._closing: set[asyncio.Task[None]] = set()
        self._looking = None if is_revoked is None else asyncio.create_task(self._look(is_revoked))
        self._meter, self._on_answer = meter, on_answer

    def renew(self, credentials: Credentials, grace_s: float = 30.0) -> None:
        """Make all further calls of this channel and its stubs with other credentials.

        Calls under way go on for some time. Those that then remain, such as streams, end with Unreachable.

        Args:
            credentials: A renewed certificate, or another key or authority.
            grace_s: Seconds that calls under way may take.
        """
        self._credentials = credentials
        old, self._channel = self._channel, self._open(credentials)
        closing = asyncio.create_task(old.close(grace_s))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _look(self, is_revoked: Callable[[Credentials], bool]) -> None:
        """End all that is under way as soon as the server's certificate is revoked, and ask for its next one."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            if is_revoked(self._credentials):
                structlog.get_logger().warning("server_revoked", address=self.address)
                self.renew(self._credentials, grace_s=0)

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **named: Any
    ) -> Any:
        """Return a multi-callable whose messages are counted."""
        return self._callable("unary_unary", method, request_serializer, response_deserializer, named)

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **named: Any
    ) -> Any:
        """Return a multi-callable whose messages are counted."""
        return self._callable("unary_stream", method, request_serializer, response_deserializer, named)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **named: Any
    ) -> Any:
        """Return a multi-callable whose messages are counted."""
        return self._callable("stream_unary", method, request_serializer, response_deserializer, named)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, **named: Any
    ) -> Any:
        """Return a multi-callable whose messages are counted."""
        return self._callable("stream_stream", method, request_serializer, response_deserializer, named)

    def _callable(self, kind: str, method: str, serializer: Any, deserializer: Any, named: dict[str, Any]) -> _Callable:
        coders = count_sent(serializer, self._meter), self._count_received(deserializer)
        return _Callable(self, method, lambda channel: getattr(channel, kind)(method, *coders, **named))

    def _count_received(self, deserializer: Any) -> Any:
        on_answer = self._on_answer
        if on_answer is None:
            return deserializer

        def received(data: bytes) -> Message:
            message: Message = deserializer(data)
            on_answer(message.DESCRIPTOR.full_name, len(data))
            return message

        return received

    async def close(self, grace: float | None = None) -> None:
        """Close the channel."""
        for closing in self._closing:
            closing.cancel()
        if self._looking is not None:
            self._looking.cancel()
        await self._channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connection."""
        state: grpc.ChannelConnectivity = self._channel.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the connection has another state."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait until the channel is connected."""
        await self._channel.channel_ready()

    async def lost(self) -> None:
        """Wait until the channel has no connection."""
        while (state := self.get_state()) is grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Callable:
    """A multi-callable of whichever channel is in use when it is called."""

    def __init__(self, channel: Channel, method: str, make: Callable[[Any], Any]) -> None:
        self._channel, self._method, self._make = channel, method, make
        self._made_for: Any = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        current = self._channel._channel
        if self._made_for is not current:
            self._made_for, self._made = current, self._make(current)
        return self._made(*arguments, **named)


def connect(
    address: str,
    credentials: Credentials,
    meter: EgressMeter | None = None,
    on_answer: OnAnswer | None = None,
    *,
    server: ServerIdentity = Role.CLOUD,
    identity: Path | None = None,
    generation: int = 0,
) -> Channel:
    """Return a channel to a server; it connects at the first call and again whenever the connection is lost.

    The handshake fails unless the server's certificate is that of `server` at the host of `address`, so nothing is ever
    sent to anybody else, not even to one with a certificate of the same authority.

    The channel uses the proxy that https_proxy or http_proxy names, except for hosts in no_proxy and for this machine.
    TLS is end to end: a proxy sees only the address and the sizes.

    Args:
        address: The server as host:port.
        credentials: Own certificate and key, and the authority that the server's certificate must come from.
        meter: Counts the bytes that are sent.
        on_answer: Called with the message type and the bytes of each answer.
        server: Whose server it must be: an identity, or by default the cloud.
        identity: The folder that the credentials are from. A server whose certificate the deny list there revokes, also
            one that is put there later, is refused in the handshake, and a connection that is open to it is closed
            within seconds. None: nobody is denied.
        generation: The least generation of the server's certificate (`diredi.trust.deny_list`).

    Returns:
        A channel to be closed after use, or to be used in `async with`.
    """
    denied = None if identity is None else DenyListFile(identity)
    expected = generation

    def newest_generation(used: Credentials) -> int:
        return generation if denied is None else max(generation, denied.refresh(used.ca).generation_of(server))

    def open_(used: Credentials) -> grpc.aio.Channel:
        nonlocal expected
        expected = newest_generation(used)
        options = [
            *_OPTIONS,
            ("grpc.ssl_target_name_override", server_name(server, _host_of(address), expected)),
            ("grpc.enable_http_proxy", int(not _is_this_machine(address))),
        ]
        tls = grpc.ssl_channel_credentials(
            root_certificates=used.ca, private_key=used.key, certificate_chain=used.certificate
        )
        return grpc.aio.secure_channel(address, tls, options=options)

    is_revoked = None if denied is None else lambda used: newest_generation(used) > expected
    return Channel(address, open_, credentials, meter, on_answer, is_revoked)


def _host_of(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_this_machine(address: str) -> bool:
    host = _host_of(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def call(
    method: Method[Request, Response],
    request: Request,
    *,
    deadline_s: float,
    attempts: int = 1,
    backoff: Backoff | None = None,
) -> Response:
    """Make one unary call; again within its deadline where the server asks to wait because of too many calls.

    Args:
        method: Method of a stub.
        request: The message to send.
        deadline_s: Seconds to wait for the answer.
        attempts: How often to try while the other side is away; above 1 the call must be idempotent.
        backoff: Pauses between attempts.

    Returns:
        The answer.

    Raises:
        DirediError: The error that the server raised.
        Unreachable: There was no answer in time.
    """

    async def once() -> Response:
        ends = time.monotonic() + deadline_s
        while True:
            try:
                return await method(request, timeout=max(0.001, ends - time.monotonic()))
            except grpc.aio.AioRpcError as error:
                failure = error_from(error, _name_of(method))
                if not isinstance(failure, RateLimited) or time.monotonic() + failure.retry_after_s > ends:
                    raise failure from None
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                raise Unreachable(RENEWED) from None
            await asyncio.sleep(failure.retry_after_s * (1 + random.random()))  # others wait for the same moment

    return await retry(once, attempts=attempts, backoff=backoff)


def is_cancelled() -> bool:
    """Return whether the present task is cancelled; if not, gRPC has cancelled a call of a channel that was closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def error_from(error: grpc.aio.AioRpcError, method: str = "") -> Exception:
    """Return the DirediError that a gRPC status stands for."""
    if (after_s := retry_after_s(error.trailing_metadata())) is not None:
        return RateLimited(error.details() or "too many calls: slow down", after_s)
    return error_of(error.code(), error.details() or "", method)


async def is_serving(channel: grpc.aio.Channel, service: str = "", deadline_s: float = 5.0) -> bool:
    """Ask a server's standard health service whether a service is ready.

    Args:
        channel: Channel to the server.
        service: Full name of the service; empty for the server as a whole.
        deadline_s: Seconds to wait for the answer.

    Returns:
        Whether it serves; False for an unknown service.

    Raises:
        Unreachable: The server did not answer.
    """
    check = health_pb2_grpc.HealthStub(channel).Check
    try:
        answer = await call(check, health_pb2.HealthCheckRequest(service=service), deadline_s=deadline_s)
    except NotFound:
        return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _name_of(method: object) -> str:
    name = getattr(method, "_method", b"")
    return name.decode() if isinstance(name, bytes) else str(name)
