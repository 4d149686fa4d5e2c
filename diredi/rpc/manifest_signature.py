"""Signatures on the manifests of gaps: made by the site, checked by the cloud, and later by whoever asks the cloud."""

from __future__ import annotations

from diredi.errors import InvalidInput
from diredi.rpc.v1.cycles_pb2 import GapManifest
from diredi.trust import signatures
from diredi.trust.identity import Credentials, Identity

_PURPOSE = GapManifest.DESCRIPTOR.full_name


def sign_manifest(manifest: GapManifest, credentials: Credentials) -> None:
    """Sign a manifest in place; nothing in it may change afterwards.

    Args:
        manifest: The manifest whose `signature` is set.
        credentials: Certificate and key of the site.
    """
    manifest.signature = signatures.sign(credentials, _PURPOSE, _canonical(manifest))


def check_manifest(manifest: GapManifest, certificate: bytes) -> None:
    """Check that the holder of a certificate signed a manifest.

    Args:
        manifest: The manifest with its signature.
        certificate: Certificate in PEM form.

    Raises:
        InvalidInput: The manifest carries no signature.
        Refused: The signature is not by the key of the certificate.
    """
    if not manifest.signature:
        raise InvalidInput("the manifest is not signed: sign it with the site's key, both sides need the same version")
    signatures.check(certificate, _PURPOSE, _canonical(manifest), manifest.signature)


def signer_of(manifest: GapManifest, certificate: bytes, authority: bytes) -> Identity:
    """Return the site that signed a recorded manifest, judged by the fleet's authority alone.

    Whoever can write to a database can put a manifest, a signature and a certificate of his own into it, so the
    certificate must be of the authority.

    Args:
        manifest: The manifest with its signature.
        certificate: The recorded certificate in PEM form.
        authority: The `ca.pem` of the fleet.

    Returns:
        The identity of the signer.

    Raises:
        InvalidInput: The manifest carries no signature.
        Refused: The signature or the certificate is not genuine.
    """
    check_manifest(manifest, certificate)
    return signatures.holder_of(certificate, authority)


def _canonical(manifest: GapManifest) -> bytes:
    """The one form of what the manifest says, as the contract has it."""
    unsigned = GapManifest()
    unsigned.CopyFrom(manifest)
    unsigned.ClearField("signature")
    return unsigned.SerializeToString(deterministic=True)
