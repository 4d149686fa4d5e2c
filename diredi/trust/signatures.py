"""Signatures by the key of a certificate, so that a statement can be proved later to others.

ECDSA with SHA-256 in DER form, for the keys that `diredi pki issue` makes. Every signature is over a purpose, a zero
byte and the data, so that one made for one purpose (or by TLS, which uses the same key) is never valid for another.
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
    """Sign data for a purpose.

    Args:
        credentials: Certificate and key of the signer.
        purpose: What the signature is for, in ASCII.
        data: The bytes to sign.

    Returns:
        The signature.

    Raises:
        InvalidInput: The key is of a kind that cannot sign.
    """
    key = serialization.load_pem_private_key(credentials.key, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"the key of {credentials.identity} cannot sign: issue an ECDSA one with `diredi pki issue`")
    return key.sign(_said(purpose, data), _ALGORITHM)


def check(certificate: bytes, purpose: str, data: bytes, signature: bytes) -> None:
    """Check that the key of a certificate signed data for a purpose.

    Whom the certificate names is for the caller to judge.

    Args:
        certificate: The signer's certificate in PEM form.
        purpose: What the signature is for, in ASCII.
        data: The bytes that were signed.
        signature: The signature.

    Raises:
        Refused: The signature is not by that key, over these bytes, for this purpose.
    """
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
    """Return whom a recorded certificate names.

    It may have expired, since what was signed while it was valid stays signed.

    Args:
        certificate: The certificate in PEM form.
        authority: The authority's certificates in PEM form.

    Returns:
        The identity in the certificate.

    Raises:
        Refused: The authority did not issue it. Anybody can make a certificate with any name.
    """
    found, trusted = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificates(authority)
    if not any(issued_by(found, one) for one in trusted):
        raise Refused("the certificate beside the signature is not of this authority: believe nothing that it signed")
    return Identity.from_certificate(certificate)


def _said(purpose: str, data: bytes) -> bytes:
    return purpose.encode("ascii") + b"\0" + data
