"""Manifests with a signature: made by a site, checked by the cloud, and by whoever asks the cloud later."""

from __future__ import annotations

from diredi.errors import InvalidInput
from diredi.rpc.v1.cycles_pb2 import GapManifest
from diredi.trust import signatures
from diredi.trust.identity import Credentials, Identity

_PURPOSE = GapManifest.DESCRIPTOR.full_name


def sign_manifest(manifest: GapManifest, credentials: Credentials) -> None:
    """Sets `signature`; nothing may change afterwards."""
    manifest.signature = signatures.sign(credentials, _PURPOSE, _canonical(manifest))


def check_manifest(manifest: GapManifest, certificate: bytes) -> None:
    """Raises InvalidInput when there is no signature, Refused when it is not by the key of `certificate` (PEM)."""
    if not manifest.signature:
        raise InvalidInput("the manifest is not signed: sign it with the site's key, both sides need the same version")
    signatures.check(certificate, _PURPOSE, _canonical(manifest), manifest.signature)


def signer_of(manifest: GapManifest, certificate: bytes, authority: bytes) -> Identity:
    """Which site signed a manifest that is on record, by the `ca.pem` of the fleet (PEM) and nobody's word.

    Raises as `check_manifest` does, and Refused when the certificate is not of that authority: whoever can write to a
    database can put a manifest, a signature and a certificate of his own into it.
    """
    check_manifest(manifest, certificate)
    return signatures.holder_of(certificate, authority)


def _canonical(manifest: GapManifest) -> bytes:
    """The one form of what the manifest says, as the contract has it."""
    unsigned = GapManifest()
    unsigned.CopyFrom(manifest)
    unsigned.ClearField("signature")
    return unsigned.SerializeToString(deterministic=True)
