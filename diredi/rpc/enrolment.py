"""The side of enrolment that makes the key: where the certificate will be used."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from diredi.errors import WrongState
from diredi.rpc.client import call, connect
from diredi.rpc.v1.enrolment_pb2 import EnrolRequest
from diredi.rpc.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from diredi.store.files import atomic_write, make_folder
from diredi.trust import ca
from diredi.trust.enrolment import Token, write_credentials
from diredi.trust.identity import CERTIFICATE_FILE, Credentials, check_private

PENDING_KEY_FILE = "key.pem.new"


async def enrol(token: Token, folder: Path) -> Credentials:
    """Get a certificate with a token.

    The key is on disk before it is used, so that a try whose answer was lost is continued with the same one.

    Args:
        token: The token.
        folder: The identity folder to make.

    Returns:
        The credentials, which are in the folder.

    Raises:
        WrongState: The folder has a certificate already.
        Refused: The token was used, with another key.
        Unreachable: The cloud does not answer, or the token has expired.
    """
    if (folder / CERTIFICATE_FILE).exists():
        raise WrongState(f"{folder} has a certificate already: name another folder, or delete that one first")
    key = await asyncio.to_thread(_pending_key, folder)
    request = EnrolRequest(signing_request=ca.request_for(key).public_bytes(serialization.Encoding.PEM))
    async with connect(token.cloud, token.credentials) as channel:
        answer = await call(EnrolmentServiceStub(channel).Enrol, request, deadline_s=10, attempts=4)
    trusted = token.credentials.ca
    made = await asyncio.to_thread(
        lambda: write_credentials(folder, trusted, answer.certificate, key, answer.deny_list, root=answer.root)
    )
    (folder / PENDING_KEY_FILE).unlink()
    return made


def _pending_key(folder: Path) -> bytes:
    path = folder / PENDING_KEY_FILE
    if not folder.exists():
        make_folder(folder)
        folder.chmod(0o700)
    if not path.exists():
        atomic_write(path, ca.new_request()[0], mode=0o600)
    check_private(path)
    return path.read_bytes()
