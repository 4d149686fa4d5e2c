"""The side of enrolment that makes the key: where the certificate will be used."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives import serialization

from diredi.errors import InvalidInput, Unreachable, WrongState
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.client import call, connect
from diredi.rpc.retry import Backoff
from diredi.rpc.v1.enrolment_pb2 import EnrolRequest
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from diredi.store.files import atomic_write, make_folder
from diredi.trust import ca
from diredi.trust.enrolment import Token, write_credentials
from diredi.trust.identity import CERTIFICATE_FILE, Credentials, Identity, check_private

PENDING_KEY_FILE = "key.pem.new"


async def enrol(
    token: Token, folder: Path, owner: Identity | None = None, meter: EgressMeter | None = None
) -> Credentials:
    """Get a certificate with a token.

    The key is on disk before it is used, so that a try whose answer was lost is continued with the same one.

    Args:
        token: The token.
        folder: The identity folder to make.
        owner: Whose token it must be; None for anybody's.
        meter: Counts the bytes that are sent.

    Returns:
        The credentials, which are in the folder.

    Raises:
        WrongState: The folder has a certificate already.
        InvalidInput: The token is somebody else's.
        Refused: The token was used, with another key.
        Unreachable: The cloud does not answer, or the token has expired.
    """
    if (folder / CERTIFICATE_FILE).exists():
        raise WrongState(f"{folder} has a certificate already: name another folder, or delete that one first")
    key = await asyncio.to_thread(_pending_key, folder)
    request = EnrolRequest(signing_request=ca.request_for(key).public_bytes(serialization.Encoding.PEM))
    async with connect(token.cloud, token.credentials, meter, generation=token.generation) as channel:
        answer = await call(EnrolmentServiceStub(channel).Enrol, request, deadline_s=10, attempts=4)
    trusted = token.credentials.ca
    made = await asyncio.to_thread(
        lambda: write_credentials(folder, trusted, answer.certificate, key, answer.deny_list, owner, answer.root)
    )
    (folder / PENDING_KEY_FILE).unlink()
    return made


async def enrol_with_file(
    file: Path, cloud: str, folder: Path, owner: Identity, meter: EgressMeter | None = None
) -> None:
    """Get the first certificate of a service with the token in a file, as soon as the cloud answers.

    A folder that has a certificate stays as it is. The file is deleted when its token is used up.

    Args:
        file: The file with the token.
        cloud: The cloud as host:port, which counts more than what the token says.
        folder: The identity folder of the service.
        owner: The identity of the service.
        meter: Counts the bytes that are sent.

    Raises:
        InvalidInput: The file holds no token, one that has ended, or one of somebody else's.
        Refused: The token was used, with another key.
    """
    if (folder / CERTIFICATE_FILE).exists():
        return
    token, pauses, log = await asyncio.to_thread(_read_token, file), Backoff(0.2, 5.0), structlog.get_logger()
    while True:
        try:
            made = await enrol(replace(token, cloud=cloud), folder, owner, meter)
            break
        except Unreachable as error:
            if not pauses.failures:
                log.warning("enrolment_delayed", why=str(error))
            await asyncio.sleep(pauses.next_s())
    with suppress(OSError):  # of a folder that only others may write
        file.unlink()
    log.info("identity_enrolled", identity=str(made.identity), ends=made.expires.isoformat())


def _read_token(file: Path) -> Token:
    try:
        check_private(file)
        token = Token.decode(file.read_text())
    except (OSError, UnicodeDecodeError):
        raise InvalidInput(f"{file} cannot be read: put an enrolment token there, which an admin makes") from None
    if token.credentials.expires < datetime.now(UTC):
        raise InvalidInput(f"the token in {file} ended on {token.credentials.expires:%Y-%m-%d}: ask for another one")
    return token


def _pending_key(folder: Path) -> bytes:
    path = folder / PENDING_KEY_FILE
    if not folder.exists():
        make_folder(folder)
        folder.chmod(0o700)
    if not path.exists():
        atomic_write(path, ca.new_request()[0], mode=0o600)
    check_private(path)
    return path.read_bytes()
