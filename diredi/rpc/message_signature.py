"""Signatures on messages that are kept: made by who says it, checked by the cloud, and later by whoever asks the cloud.

A site signs the manifests of its gaps, and a device its reports of installations.
"""

from __future__ import annotations

from copy import deepcopy

from diredi.errors import InvalidInput
from diredi.rpc.v1.cycles_pb2 import GapManifest
from diredi.rpc.v1.fleet_pb2 import ReportInstallRequest
from diredi.trust import signatures
from diredi.trust.identity import Credentials, Identity

SignedMessage = GapManifest | ReportInstallRequest
"""What has a field `signature`, which signs all its other fields."""


def sign_message(message: SignedMessage, credentials: Credentials) -> None:
    """Sign a message in place; nothing in it may change afterwards.

    Args:
        message: The message whose `signature` is set.
        credentials: Certificate and key of who says it.
    """
    message.signature = signatures.sign(credentials, message.DESCRIPTOR.full_name, _canonical(message))


def check_message(message: SignedMessage, certificate: bytes) -> None:
    """Check that the holder of a certificate signed a message.

    Args:
        message: The message with its signature.
        certificate: Certificate in PEM form.

    Raises:
        InvalidInput: The message carries no signature.
        Refused: The signature is not by the key of the certificate.
    """
    if not message.signature:
        name = message.DESCRIPTOR.name
        raise InvalidInput(f"the {name} is not signed: sign it with your own key, both sides need the same version")
    signatures.check(certificate, message.DESCRIPTOR.full_name, _canonical(message), message.signature)


def signer_of(message: SignedMessage, certificate: bytes, authority: bytes) -> Identity:
    """Return who signed a recorded message, judged by the fleet's authority alone.

    Whoever can write to a database can put a message, a signature and a certificate of his own into it, so the
    certificate must be of the authority.

    Args:
        message: The message with its signature.
        certificate: The recorded certificate in PEM form.
        authority: The `ca.pem` of the fleet.

    Returns:
        The identity of the signer.

    Raises:
        InvalidInput: The message carries no signature.
        Refused: The signature or the certificate is not genuine.
    """
    check_message(message, certificate)
    return signatures.holder_of(certificate, authority)


def _canonical(message: SignedMessage) -> bytes:
    """The one form of what the message says, as the contract has it."""
    unsigned = deepcopy(message)
    unsigned.ClearField("signature")
    return unsigned.SerializeToString(deterministic=True)
