"""Signatures by the key of a certificate: what was said can be shown later, not only believed while it was heard.

ECDSA with SHA-256 in DER form, as `diredi pki issue` makes keys for. Every signature is over a purpose, a zero byte and
the data, so that one made for a purpose (or by TLS, which uses the same key) never passes for another.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from diredi.errors import InvalidInput, Refused
from diredi.trust.identity import Credentials, Identity, issued_by

_ALGORITHM = ec.ECDSA(hashes.SHA256())


def sign(credentials: Credentials, purpose: str, data: bytes) -> bytes:
    """Raises InvalidInput for a key of another kind."""
    key = serialization.load_pem_private_key(credentials.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"the key of {credentials.identity} cannot sign: issue an ECDSA one with `diredi pki issue`")
    return key.sign(_said(purpose, data), _ALGORITHM)


def check(certificate: bytes, purpose: str, data: bytes, signature: bytes) -> None:
    """Raises Refused unless the key of `certificate` (PEM) made `signature`; whom it names, the caller judges."""
    holder = x509.load_pem_x509_certificate(certificate)
    key = holder.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, _said(purpose, data), _ALGORITHM)
    except InvalidSignature:
        raise Refused(
            f"the signature is not by the key of {Identity.from_certificate(certificate)} over what was sent: "
            "sign it again with the key that the connection uses"
        ) from None


def holder_of(certificate: bytes, authority: bytes) -> Identity:
    """Whom a certificate on record names (both PEM), expired or not: what was signed while it held stays signed.

    Raises Refused when the authority did not issue it: anybody can make a key and a certificate with any name.
    """
    found, trusted = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificates(authority)
    if not any(issued_by(found, one) for one in trusted):
        raise Refused("the certificate beside the signature is not of this authority: believe nothing that it signed")
    return Identity.from_certificate(certificate)


def _said(purpose: str, data: bytes) -> bytes:
    return purpose.encode("ascii") + b"\0" + data
