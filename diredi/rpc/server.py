"""Servers: grpc.aio with mutual TLS, health and reflection. There is no way to start one without certificates.

A process that has started a server or opened a channel must never fork; it may start programs.
"""

# ruff: noqa: ANN401  (grpc_health has no types)

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from diredi.errors import InvalidInput, WrongState
from diredi.rpc.admission import Admission
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.rpc.interceptor import Interceptor
from diredi.rpc.limits import MAX_MESSAGE_BYTES, ConnectionGuard, Limits, raise_file_limit
from diredi.rpc.services import service_of
from diredi.trust.identity import Credentials
from diredi.trust.live import LiveIdentity

UNHEARD_S = 2.0
"""How long a server that stops waits, after its grace, to hear that it has ended."""
FLOW_OPTIONS = [
    # Bandwidth probes are off: they are pings too, hold back the keepalive ping while they are under way, and open the
    # window until the buffers of a slow link are full. 1 MiB is the most that is under way to a reader.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2**20),
]
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # else a second server would share the port in silence
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),  # clients ping every 5 s, and on a loaded machine many pings arrive at once
    ("grpc.keepalive_time_ms", 10_000),  # a client that vanished is noticed within 15 s
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.http2.ping_timeout_ms", 5000),
    *FLOW_OPTIONS,
]


class Server:
    """A running server.

    Attributes:
        address: Where it listens, with the port that the system chose if 0 was asked for.
    """

    def __init__(
        self,
        server: grpc.aio.Server,
        address: str,
        guard: Interceptor,
        status: Any,
        limits: Limits,
        admission: Admission,
    ) -> None:
        self.address = address
        self._server = server
        self.interceptor = guard
        self._status = status
        self._admission = admission
        self.connections = ConnectionGuard(self.port, limits)
        self._guarding = [asyncio.create_task(guard.run()) for guard in (self.connections, admission)]

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        return int(self.address.rpartition(":")[2])

    @property
    def identity(self) -> LiveIdentity:
        """Return the identity that the server shows, as its folder has it now."""
        return self._admission.identity

    def admits(self, certificate: bytes) -> bool:
        """Return whether the server would admit the holder of a certificate, in PEM form, now."""
        return self._admission.admits(certificate)

    async def set_serving(self, service: str, serving: bool) -> None:
        """Set the health of a service.

        Args:
            service: Full name such as "diredi.v1.CycleService"; empty for the server as a whole.
            serving: Whether it is ready.
        """
        statuses = health_pb2.HealthCheckResponse
        await self._status.set(service, statuses.SERVING if serving else statuses.NOT_SERVING)

    async def stop(self, grace_s: float = 1.0) -> None:
        """Take no new calls, end open streams with UNAVAILABLE, and give other calls some time to finish.

        Args:
            grace_s: Seconds that calls under way may take.
        """
        await self._status.enter_graceful_shutdown()
        self.interceptor.end_streams()
        for guarding in self._guarding:
            guarding.cancel()
        # grpcio waits without a limit for word from its core that the server has ended, and was seen to wait for ever.
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s + UNHEARD_S):
                await self._server.stop(grace_s)


async def start_server(
    credentials: Credentials,
    listen: str,
    servicers: Sequence[object],
    *,
    meter: IngressMeter | None = None,
    sent: EgressMeter | None = None,
    limits: Limits | None = None,
    identity: Path | None = None,
) -> Server:
    """Start a server with mutual TLS; only a caller with a certificate of our authority reaches a handler.

    A caller whose certificate expires, or is revoked, loses what it has open within seconds.

    The health of every service begins as SERVING.

    Args:
        credentials: The server's own certificate and key, and the authority of its callers.
        listen: Where to listen, as host:port; with port 0 the system chooses a free port.
        servicers: Implementations of the services of the contract.
        meter: Counts the bytes that callers send.
        sent: Counts the bytes that are answered.
        limits: What one party may hold at once; None takes the defaults.
        identity: The folder that the credentials are from. A renewed certificate, another authority and a deny list
            that are put there later are used from then on. None: the credentials stay as they are, nobody is denied.

    Returns:
        The running server.

    Raises:
        WrongState: The port is taken.
        InvalidInput: `listen` is not an address, or the folder has a deny list that cannot be used.
    """
    if not listen.rpartition(":")[2].isdigit() or not listen.rpartition(":")[0]:
        raise InvalidInput(f"{listen!r} is not an address to listen on: write host:port, for example 0.0.0.0:7070")
    limits = limits or Limits()
    raise_file_limit()
    admission = Admission(LiveIdentity(credentials, identity))
    interceptor = Interceptor(admission, meter, sent, limits)
    options = [
        *_OPTIONS,
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.server_handshake_timeout_ms", round(limits.handshake_s * 1000)),
        ("grpc.max_concurrent_streams", limits.streams + limits.downloads + limits.calls),
    ]
    server = grpc.aio.server(interceptors=[interceptor], options=options)
    status = health.aio.HealthServicer()  # type: ignore[attr-defined]
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    names = [health.SERVICE_NAME, reflection.SERVICE_NAME]
    for servicer in servicers:
        service = service_of(servicer)
        service.add(servicer, server)
        names.append(service.name)
        await status.set(service.name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(names, server)
    port = _bind(server, listen, admission.identity)
    await server.start()
    return Server(server, f"{listen.rpartition(':')[0]}:{port}", interceptor, status, limits, admission)


def _bind(server: grpc.aio.Server, listen: str, identity: LiveIdentity) -> int:
    used = identity.credentials

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """Called in a thread of gRPC's before each handshake; None: as before."""
        nonlocal used
        if identity.credentials is used:
            return None
        used = identity.credentials
        return _certificates(used)

    tls = grpc.dynamic_ssl_server_credentials(
        _certificates(used),
        renewed,  # type: ignore[arg-type]  # None is allowed, and missing from its types
        require_client_authentication=True,
    )
    try:
        return server.add_secure_port(listen, tls)
    except RuntimeError:
        raise WrongState(
            f"{listen} cannot be listened on: another program has that port, or this machine has no such address; "
            "stop the program or choose another port"
        ) from None


def _certificates(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(credentials.key, credentials.certificate)], root_certificates=credentials.ca
    )
