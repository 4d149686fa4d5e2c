"""Enrolment: a token that works once, for whom the authority signs a certificate without ever seeing the key.

A token holds a certificate with the role `enrolment` and its key, the authority's certificate and the cloud's address.
So enrolment needs no door without mutual TLS: the handshake proves the token, and ends it when its time is over. That a
token was used is in the authority's register.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from diredi.errors import InvalidInput, NoRoom, NotFound, Refused
from diredi.store.files import atomic_write, make_folder
from diredi.trust import ca
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    PEOPLE,
    Credentials,
    Identity,
    Role,
    hosts_in,
)
from diredi.trust.register import Register
from diredi.trust.release_keys import ROOT_FILE

LIFETIME: Final = timedelta(days=90)
"""For so long a certificate of the cloud's is valid; it is renewed when half of that is over."""
MAX_SIGNED_A_DAY: Final = 10
"""Certificates that the cloud signs for one identity within a day."""
LONGEST_TOKEN: Final = timedelta(days=30)
_PREFIX: Final = "diredi-enrol-"
_MAX_TOKEN_CHARACTERS: Final = 8192


@dataclass(frozen=True)
class Token:
    """What a device or a site needs to enrol. Whoever has it can enrol in its place, once.

    Attributes:
        cloud: The cloud's host:port.
        credentials: The one-time certificate and key, and the authority.
        generation: That of the cloud's certificate, so that one who was revoked before cannot answer in its place.
    """

    cloud: str
    credentials: Credentials
    generation: int = 0

    def encode(self) -> str:
        """Return the token as one word that can be sent, typed into a command, or shown as a QR code."""
        credentials = self.credentials
        pems = (text.decode() for text in (credentials.ca, credentials.certificate, credentials.key))
        parts = [self.cloud, *pems, *([self.generation] if self.generation else [])]
        return _PREFIX + base64.urlsafe_b64encode(zlib.compress(json.dumps(parts).encode(), 9)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read a token.

        Raises:
            InvalidInput: The text is no token, or was cut.
        """
        body = text.strip().removeprefix(_PREFIX)
        try:
            if not text.strip().startswith(_PREFIX) or len(body) > _MAX_TOKEN_CHARACTERS:
                raise ValueError("no token")
            packed = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
            unpacked = zlib.decompressobj()
            cloud, *pems, generation = [*json.loads(unpacked.decompress(packed, 4 * _MAX_TOKEN_CHARACTERS)), 0][:5]
            if not unpacked.eof or unpacked.unused_data:
                raise ValueError("cut, or more than a token")
            authority, certificate, key = (pem.encode() for pem in pems)
            return cls(cloud, Credentials.parse(authority, certificate, key), int(generation))
        except (ValueError, TypeError, AttributeError, binascii.Error, zlib.error, RecursionError):
            raise InvalidInput(
                "that is no enrolment token, or not all of it: copy it again, or ask for another"
            ) from None


def create_token(
    folder: Path, identity: Identity, hosts: Sequence[str], valid: timedelta, now: datetime | None = None
) -> Credentials:
    """Make the one-time credentials of a token.

    Args:
        folder: The folder of the authority.
        identity: Who may enrol with it.
        hosts: DNS names and IP addresses at which that one will answer.
        valid: For how long.
        now: The time to count from; None takes the clock.

    Returns:
        The credentials, whose certificate has the role `enrolment`.

    Raises:
        InvalidInput: The identity cannot enrol, `valid` is too long, or a host is none or is another identity's.
    """
    if identity.role in {Role.CLOUD, Role.ENROLMENT}:
        raise InvalidInput(f"{identity} cannot enrol: that is for sites, devices and persons")
    if not timedelta(0) < valid <= LONGEST_TOKEN:
        raise InvalidInput(f"a token is valid for some time, and for {LONGEST_TOKEN.days} days at most: check --valid")
    now = now or datetime.now(UTC)
    ca.check_hosts(folder, identity, hosts, now)
    key, request = ca.new_request()
    token = Identity(Role.ENROLMENT, secrets.token_hex(8))
    certificate = ca.sign_request(
        folder, request, token, (), valid, now, enrols=str(identity), enrols_hosts=tuple(hosts)
    )
    return Credentials.parse((folder / CA_FILE).read_bytes(), certificate, key)


def redeem(folder: Path, token: Identity, signing_request: bytes, now: datetime | None = None) -> bytes:
    """Sign the certificate for which a token is.

    Args:
        folder: The folder of the authority.
        token: The identity in the token's certificate.
        signing_request: The request with the public key, in PEM form.
        now: The time to count from; None takes the clock.

    Returns:
        The certificate in PEM form.

    Raises:
        InvalidInput: The request is none.
        Refused: The token has been used with another key.
        NotFound: The authority knows no such token.
        NoRoom: So many certificates were signed for this identity already today.
    """
    request = _request_in(signing_request)
    key = _digest_of_key(request)
    ca.load(folder)
    with Register.opened(folder) as register:
        made = next((entry for entry in register.issued if entry.identity == str(token) and entry.enrols), None)
        if made is None:
            raise NotFound(f"no token {token.name} is known here: ask for another one")
        used = [entry for entry in register.issued if entry.token == token.name]
        if any(entry.key != key for entry in used):
            raise Refused("this token has been used: ask for another one, and for whom used it if that was not you")
        identity = Identity.from_uri(f"diredi://{made.enrols}")
        _check_quota(register, identity, now)
        authority = ca.load_signer(folder, identity)
        return ca.sign_into(
            register, authority, request, identity, made.enrols_hosts, LIFETIME, now, token=token.name, key=key
        )


def renew(folder: Path, certificate: bytes, signing_request: bytes, now: datetime | None = None) -> bytes:
    """Sign a new certificate for the holder of one that still holds: same identity, same hosts.

    Args:
        folder: The folder of the authority.
        certificate: The certificate of the connection, in PEM form.
        signing_request: The request with the public key, in PEM form.
        now: The time to count from; None takes the clock.

    Returns:
        The certificate in PEM form.

    Raises:
        InvalidInput: The request is none.
        Refused: The holder is a token, or the certificate was revoked.
        NoRoom: So many were signed for this identity already today.
    """
    identity = Identity.from_certificate(certificate)
    if identity.role is Role.ENROLMENT:
        raise Refused(f"{identity} is a token, which is not renewed: ask for another one")
    denied = DenyList.read(folder / CRL_FILE, (folder / CA_FILE).read_bytes())
    if x509.load_pem_x509_certificate(certificate).serial_number in denied.serials:
        raise Refused(f"the certificate of {identity} was revoked, and is not renewed: have another one issued")
    request, authority = _request_in(signing_request), ca.load_signer(folder, identity)
    with Register.opened(folder) as register:
        _check_quota(register, identity, now)
        return ca.sign_into(register, authority, request, identity, hosts_in(certificate), LIFETIME, now)


def retire(folder: Path, wanted: Identity, by: Identity | None = None) -> list[Identity]:
    """Revoke all that the authority has signed for a device; for a site with its devices; or for a person in all roles.

    Args:
        folder: The folder of the authority.
        wanted: Who retires.
        by: Who asks for it, and cannot retire by it.

    Returns:
        The identities that have been retired.

    Raises:
        InvalidInput: That is a cloud, or who asks.
        NotFound: The authority has signed nothing for it.
    """
    if wanted.role in {Role.CLOUD, Role.ENROLMENT}:
        raise InvalidInput(f"{wanted} cannot be retired: that is for sites, devices and persons")
    with Register.opened(folder) as register:
        names = {entry.enrols or entry.identity for entry in register.issued}
    known = [Identity.from_uri(f"diredi://{name}") for name in sorted(names)]
    retired = [identity for identity in known if _retires_with(identity, wanted)]
    if not retired:
        raise NotFound(f"this authority has signed nothing for {wanted}: `diredi pki list` shows whom it knows")
    if by in retired:
        raise InvalidInput(f"{by} would retire by this, and that is who asks: ask another admin")
    ca.revoke(folder, retired)
    return retired


def _retires_with(holder: Identity, wanted: Identity) -> bool:
    if wanted.role in PEOPLE:
        return holder.role in PEOPLE and holder.name == wanted.name
    return holder == wanted or (wanted.role is Role.SITE and holder.site == wanted.name)


def take_deny_list(folder: Path, authority: bytes, pem: bytes) -> bool:
    """Put a deny list into an identity folder if it is newer than the one there.

    Args:
        folder: The identity folder.
        authority: The authority's certificates in PEM form.
        pem: The list in PEM form.

    Returns:
        Whether it is newer.

    Raises:
        InvalidInput: The authority has not signed it, or it is older than the one there, so that somebody who was
            revoked would be let in again.
    """
    path = folder / CRL_FILE
    offered = DenyList.parse(pem, authority)
    try:
        known = DenyList.read(path, authority).number
    except InvalidInput:  # a damaged one is replaced
        known = 0
    if offered.number < known:
        raise InvalidInput(f"the deny list that came is number {offered.number}, older than {known} in {path}")
    if offered.number > known:
        atomic_write(path, pem)
    return offered.number > known


def _check_quota(register: Register, identity: Identity, now: datetime | None) -> None:
    """Bound what one identity can make the register grow. Raises NoRoom."""
    end = ((now or datetime.now(UTC)) + LIFETIME).timestamp()  # of one that is signed now
    day = timedelta(days=1).total_seconds()
    count = sum(entry.identity == str(identity) and end - day < entry.expires <= end for entry in register.issued)
    if count >= MAX_SIGNED_A_DAY:
        raise NoRoom(f"{identity} has had {count} certificates signed within a day, which is all: try tomorrow")


def write_credentials(
    folder: Path,
    authority: bytes,
    certificate: bytes,
    key: bytes,
    deny_list: bytes = b"",
    owner: Identity | None = None,
    root: bytes = b"",
) -> Credentials:
    """Put credentials into an identity folder, made for its owner alone, and return them as read from there.

    Args:
        folder: The identity folder.
        authority: The authority's certificates in PEM form, as they were trusted before: who signs is no reason to
            trust another one.
        certificate: The new certificate in PEM form.
        key: Its private key in PEM form.
        deny_list: The deny list in PEM form; empty for none.
        owner: Whose certificate it must be; None for anybody's.
        root: The root of releases, which comes with the first certificate alone: later a device follows signed roots.

    Raises:
        InvalidInput: The authority has not signed the certificate or the list, or the certificate is of another.
    """
    made = Credentials.parse(authority, certificate, key)
    if owner not in (None, made.identity):
        raise InvalidInput(f"the certificate that came is of {made.identity}, not of {owner}: ask the cloud's operator")
    path = folder / CRL_FILE
    newer = deny_list and DenyList.parse(deny_list, authority).number > DenyList.read(path, authority).number
    if not folder.exists():
        make_folder(folder)
        folder.chmod(0o700)
    atomic_write(folder / CA_FILE, authority)
    atomic_write(folder / KEY_FILE, key, mode=0o600)
    if newer:
        atomic_write(path, deny_list)
    if root:
        atomic_write(folder / ROOT_FILE, root)
    atomic_write(folder / CERTIFICATE_FILE, certificate)
    return Credentials.load(folder)


def _request_in(pem: bytes) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(pem)
        request.public_key()
    except (ValueError, TypeError):
        raise InvalidInput("that is no signing request in PEM form: make it again") from None
    return request


def _digest_of_key(request: x509.CertificateSigningRequest) -> str:
    spki = request.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()
