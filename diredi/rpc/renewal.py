"""Renews a certificate over the connection that it opens, long before it ends. The key stays where it is."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from diredi.errors import DirediError
from diredi.rpc.client import Channel, call
from diredi.rpc.v1.enrolment_pb2 import RenewCertificateRequest
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from diredi.trust import ca
from diredi.trust.enrolment import write_credentials
from diredi.trust.identity import Credentials

LOOK_EVERY_S: Final = 600.0


def is_due(credentials: Credentials, now: datetime | None = None) -> bool:
    """Return whether half of a certificate's time is over."""
    begins = x509.load_pem_x509_certificate(credentials.certificate).not_valid_before_utc
    return (now or datetime.now(UTC)) > begins + (credentials.expires - begins) / 2


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


async def keep_renewed(channel: Channel, credentials: Credentials, folder: Path) -> None:
    """Renew a certificate as soon as half of its time is over, and return then; whoever watches the folder uses it."""
    logged = ""
    while True:
        if is_due(credentials):
            try:
                renewed = await renew(channel, credentials, folder)
                structlog.get_logger().info("certificate_renewed", ends=renewed.expires.isoformat())
                return
            except (DirediError, OSError) as error:
                if str(error) != logged:
                    structlog.get_logger().warning("certificate_not_renewed", why=str(error))
                logged = str(error)
        await asyncio.sleep(LOOK_EVERY_S)
