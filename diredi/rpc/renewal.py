"""Renews a certificate over the connection that it opens, and fetches the deny list. The key stays where it is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from diredi.errors import DirediError, InvalidInput
from diredi.rpc.client import Channel, call
from diredi.rpc.retry import Backoff
from diredi.rpc.v1.enrolment_pb2 import GetTrustRequest, GetTrustResponse, RenewCertificateRequest
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from diredi.trust import ca, rotation
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.enrolment import take_deny_list, write_credentials
from diredi.trust.identity import CA_FILE, Credentials, issued_by

LOOK_EVERY_S: Final = 600.0


def is_due(credentials: Credentials, now: datetime | None = None) -> bool:
    """Return whether half of a certificate's time is over."""
    begins = x509.load_pem_x509_certificate(credentials.certificate).not_valid_before_utc
    return (now or datetime.now(UTC)) > begins + (credentials.expires - begins) / 2


def _is_of_older_authority(credentials: Credentials) -> bool:
    """Return whether another authority follows the one that signed a certificate."""
    newest = x509.load_pem_x509_certificates(credentials.ca)[-1]
    return not issued_by(x509.load_pem_x509_certificate(credentials.certificate), newest)


async def renew(channel: grpc.aio.Channel, credentials: Credentials, folder: Path) -> Credentials:
    """Ask the cloud for a new certificate and put it into the folder.

    Args:
        channel: The connection to the cloud, opened with the credentials.
        credentials: Those that end.
        folder: Where they are from.

    Returns:
        The new ones, with the same key.

    Raises:
        DirediError: The cloud did not sign, or the folder cannot be written.
    """
    request = ca.request_for(credentials.key).public_bytes(serialization.Encoding.PEM)
    answer = await call(
        EnrolmentServiceStub(channel).RenewCertificate,
        RenewCertificateRequest(signing_request=request),
        deadline_s=10,
    )
    return await asyncio.to_thread(
        write_credentials,
        folder,
        credentials.ca,
        answer.certificate,
        credentials.key,
        answer.deny_list,
        credentials.identity,
    )


async def renew_now(channel: Channel, folder: Path) -> Credentials:
    """Renew the certificate in a folder, by the authority that the cloud hands out if ours has signed that one.

    Raises what `renew` raises.
    """
    answer = await call(EnrolmentServiceStub(channel).GetTrust, GetTrustRequest(), deadline_s=10)
    if answer.deny_list:
        await asyncio.to_thread(_take, folder, (folder / CA_FILE).read_bytes(), answer)
    return await renew(channel, Credentials.read(folder), folder)


def _take(folder: Path, authority: bytes, answer: GetTrustResponse) -> None:
    if answer.next_authority:
        authority = rotation.take_next(folder, authority, answer.next_authority)
    take_deny_list(folder, authority, answer.deny_list)
    rotation.drop_revoked(folder, authority, answer.deny_list)


class DenyListFollower:
    """Fetches the deny list into an identity folder whenever the cloud says that it has a newer one.

    The servers of the process look at their folder every second, so whoever was revoked is cut off within seconds.
    """

    def __init__(self, folder: Path) -> None:
        """Follow into this identity folder."""
        self._folder = folder
        self._announced = 0
        self._changed = asyncio.Event()

    def announce(self, number: int) -> None:
        """Say which number the newest list has, as the cloud has just said."""
        if number != self._announced:
            self._announced = number
            self._changed.set()

    async def run(self, channel: Channel) -> None:
        """Fetch what is announced over a connection to the cloud, for ever; what cannot be had is tried again."""
        stub, pauses, logged = EnrolmentServiceStub(channel), Backoff(1.0, 60.0), ""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                authority = (self._folder / CA_FILE).read_bytes()
                if self._number(authority) >= self._announced:
                    continue
                answer = await call(stub.GetTrust, GetTrustRequest(), deadline_s=10)
                await asyncio.to_thread(_take, self._folder, authority, answer)
                pauses.reset()
                logged = ""
            except (DirediError, OSError) as error:
                if str(error) != logged:
                    structlog.get_logger().warning("deny_list_not_fetched", why=str(error))
                logged = str(error)
                await asyncio.sleep(pauses.next_s())
                self._changed.set()

    def _number(self, authority: bytes) -> int:
        try:
            return DenyList.read(self._folder / CRL_FILE, authority).number
        except InvalidInput:
            return 0


async def keep_renewed(channel: Channel, credentials: Credentials, folder: Path) -> None:
    """Renew a certificate when half of its time is over, or at once where its authority is followed by another one.

    It returns then; whoever watches the folder uses the new one.
    """
    logged = ""
    while True:
        if is_due(credentials) or _is_of_older_authority(credentials):
            try:
                renewed = await renew(channel, credentials, folder)
                structlog.get_logger().info("certificate_renewed", ends=renewed.expires.isoformat())
                return
            except (DirediError, OSError) as error:
                if str(error) != logged:
                    structlog.get_logger().warning("certificate_not_renewed", why=str(error))
                logged = str(error)
        await asyncio.sleep(LOOK_EVERY_S)
