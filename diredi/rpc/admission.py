"""Whom a server still answers: a certificate may expire or be revoked while its connection is open.

TLS looks at certificates in the handshake alone. So each call is checked when it begins, and all that are open every
second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import structlog
from cryptography import x509

from diredi.errors import DirediError, Unauthenticated, Unreachable
from diredi.rpc.caller import Context, caller_certificate
from diredi.trust.live import LiveIdentity

LOOK_EVERY_S: Final = 1.0
_Validity = tuple[int, float]


class Admission:
    """Admits callers whose certificate holds. It belongs to one event loop and needs no lock."""

    def __init__(self, identity: LiveIdentity) -> None:
        """Admit callers to a server with this identity, which knows what was revoked."""
        self.identity = identity
        self._open: dict[asyncio.Future[None], _Validity] = {}

    @contextmanager
    def hold(self, context: Context) -> Iterator[asyncio.Future[None]]:
        """Admit a caller for one call.

        Args:
            context: The servicer's context of this call.

        Yields:
            A future that fails as soon as the call must end.

        Raises:
            Unauthenticated: The caller's certificate has expired or was revoked.
            Unreachable: This server's own certificate has expired or was revoked.
        """
        validity = _validity(caller_certificate(context))
        if error := self._error_of(validity, time.time()):
            raise error
        must_end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open[must_end] = validity
        try:
            yield must_end
        finally:
            del self._open[must_end]
            must_end.cancel()

    def admits(self, certificate: bytes) -> bool:
        """Return whether the holder of a certificate, in PEM form, would be admitted now."""
        return self._error_of(_validity(certificate), time.time()) is None

    async def run(self) -> None:
        """Look every second until cancelled: at the folder of the identity, and at all calls that are open."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await asyncio.to_thread(self.identity.refresh)
                self.identity.warn_if_ending()
            except Exception as error:  # whatever lies in that folder: calls are ended all the same
                structlog.get_logger().error("identity_folder_not_read", exc_info=error)
            self.end_calls()

    def end_calls(self) -> None:
        """End the open calls of callers who are not admitted any more."""
        now = time.time()
        for must_end, validity in self._open.items():
            if not must_end.done() and (error := self._error_of(validity, now)):
                must_end.set_exception(error)
                must_end.exception()  # retrieved: whoever waits raises it

    def _error_of(self, validity: _Validity, now: float) -> DirediError | None:
        if now > (own := self.identity.credentials).expires.timestamp():
            return Unreachable(f"the certificate of {own.identity} has expired: it answers when that is renewed")
        denied = self.identity.deny_list.serials
        if denied and _validity(own.certificate)[0] in denied:
            return Unreachable(f"the certificate of {own.identity} was revoked: it answers when it has another one")
        serial, expires = validity
        if now > expires:
            ended = datetime.fromtimestamp(expires, UTC)
            return Unauthenticated(f"your certificate expired on {ended:%Y-%m-%d}: renew it")
        if serial in denied:
            return Unauthenticated(f"your certificate {serial:x} was revoked: ask for a new one")
        return None


@lru_cache(maxsize=16_384)
def _validity(pem: bytes) -> _Validity:
    """Return the serial number of a certificate and when it ends, in seconds since 1970."""
    certificate = x509.load_pem_x509_certificate(pem)
    return certificate.serial_number, certificate.not_valid_after_utc.timestamp()
