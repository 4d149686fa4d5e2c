"""Errors across the wire: a DirediError becomes a status code on one side and the same error on the other."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import grpc

from diredi import errors

RETRY_AFTER_MS = "grpc-retry-pushback-ms"
"""The trailing metadata of a refused call that says how many milliseconds to wait (gRFC A6)."""
_CODES: dict[type[errors.DirediError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.CorruptData: grpc.StatusCode.DATA_LOSS,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Refused: grpc.StatusCode.PERMISSION_DENIED,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NoRoom: grpc.StatusCode.RESOURCE_EXHAUSTED,  # what a client takes it for where nothing says when to retry
    errors.OffsetBeyondEnd: grpc.StatusCode.OUT_OF_RANGE,
    errors.RemoteFailure: grpc.StatusCode.INTERNAL,
    errors.Unreachable: grpc.StatusCode.UNAVAILABLE,
}
_ERRORS: dict[grpc.StatusCode, type[errors.DirediError]] = {
    **{code: error for error, code in _CODES.items()},
    grpc.StatusCode.ALREADY_EXISTS: errors.WrongState,
    # The other side went away in mid-call: it stopped, or its process died.
    grpc.StatusCode.CANCELLED: errors.Unreachable,
    grpc.StatusCode.ABORTED: errors.Unreachable,
    grpc.StatusCode.UNKNOWN: errors.RemoteFailure,
}


def code_of(error: errors.DirediError) -> grpc.StatusCode:
    """Return the status code that a server answers with for an error."""
    return next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def retry_after_s(metadata: Iterable[Any] | None) -> float | None:
    """Return how many seconds a server asks to wait before the next try; None where it does not ask."""
    for key, value in metadata or ():
        if key == RETRY_AFTER_MS:
            try:
                after_s = int(value) / 1000
            except ValueError:
                return None
            return after_s if after_s >= 0 else None
    return None


def error_of(code: grpc.StatusCode, details: str, method: str = "") -> errors.DirediError:
    """Return the error that a client raises for a status; it keeps the server's own sentence if there is one.

    Args:
        code: Status of the call.
        details: Sentence of the server, or gRPC's own words about a connection.
        method: Name of the method, for the message.

    Returns:
        The error to raise.
    """
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return errors.Unreachable(f"no answer in time to {method or 'a call'}: check the network, then try again")
    if code is grpc.StatusCode.UNAVAILABLE:
        return errors.Unreachable(_explained(details))
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return errors.DirediError(f"the other side does not know {method or 'this call'}: update it")
    details = details or f"the other side answered {code.name} to {method or 'a call'}: see its log"
    return _ERRORS.get(code, errors.DirediError)(details)


_ADDRESS = re.compile(r"ipv[46]:(\[[^]]*\]:\d+|[\d.]+:\d+)")
_SOMEBODY_ELSE = (
    "it is somebody else, its certificate was revoked, or that does not name this address: check who answers there, "
    "or issue its certificate again with --host"
)
_CONNECTION_SIGNS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is of another authority or expired: compare the ca.pem of both sides",
    "Hostname Verification Check failed": _SOMEBODY_ELSE,
    "Peer name": _SOMEBODY_ELSE,
    "handshake failed": "it does not accept our certificate: issue one from its authority with `diredi pki issue`",
    "keepalive": "the connection went dead: check the network",
    "ping_timeout": "the connection went dead: check the network",
    "Cancelling all calls": "it is stopping: try again in a moment",
    "Socket closed": "it closed the connection: it is stopping, or it does not accept our certificate",
    "recvmsg:": "it closed the connection: it is stopping, or it does not accept our certificate",
    "HTTP proxy": "that proxy does not let us through: have it allow CONNECT to the port, or name the host in no_proxy",
    "Connection refused": "nothing listens there: start it, or check the address",
    "DNS resolution failed": "the host name is not known: check the address",
}


def _explained(details: str) -> str:
    """A sentence of gRPC's own about a connection, made short and given a remedy; a server's own sentence as it is."""
    for sign, meaning in _CONNECTION_SIGNS.items():
        if sign in details:
            return f"the other side{_address_in(details)} cannot be reached: {meaning}"
    return details or "the other side cannot be reached: check that it runs and the address"


def _address_in(details: str) -> str:
    found = _ADDRESS.search(unquote(details))
    return f" at {found[1]}" if found else ""
