"""Identities in certificates, and the folder that holds one's own credentials.

A certificate carries its identity as a URI in its subject alternative names: `diredi://cloud/cloud`,
`diredi://site/site-1`, for a person `diredi://operator/alice` (or `viewer`, `admin`), and for a device, which belongs
to a site, `diredi://device/site-1/camera-1`. Host names and addresses stand beside it, and for each of them a server
name, by which clients know whose server it is (`server_name`).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from diredi.errors import InvalidInput

CA_FILE, CERTIFICATE_FILE, KEY_FILE = "ca.pem", "cert.pem", "key.pem"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.IGNORECASE)
_SCHEME = "diredi://"
_SERVERS = "diredi.internal"
_REMEDY = "make one with `diredi pki issue`"


class Role(StrEnum):
    """The role of a certificate's holder."""

    CLOUD = "cloud"
    SITE = "site"
    DEVICE = "device"
    VIEWER = "viewer"
    """Of a person who may look at the fleet and changes nothing."""
    OPERATOR = "operator"
    """Of a person who may also start cycles, group sites and read weights."""
    ADMIN = "admin"
    """Of a person who may also say who belongs to the fleet."""
    ENROLMENT = "enrolment"
    """Of a token, whose holder may get a certificate with it and nothing else (`diredi.trust.enrolment`)."""

    def includes(self, other: Role) -> bool:
        """Return whether this role of a person includes another: an admin is an operator, and an operator a viewer."""
        return other in PEOPLE and self in PEOPLE[PEOPLE.index(other) :]


PEOPLE: Final = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
"""The roles of persons; each includes those before it."""


@dataclass(frozen=True)
class Identity:
    """A role and a name.

    Attributes:
        role: What the holder may do.
        name: The name of the holder.
        site: The site that a device belongs to, a site's own name, or empty.

    Examples:
        >>> str(Identity(Role.DEVICE, "camera-1", "site-1"))
        'device/site-1/camera-1'
    """

    role: Role
    name: str
    site: str = ""

    def __post_init__(self) -> None:
        if self.role is Role.SITE and not self.site:
            object.__setattr__(self, "site", self.name)
        for part in (self.name, self.site) if self.site else (self.name,):
            if not _NAME.fullmatch(part):
                raise InvalidInput(
                    f"{part[:80]!r} cannot be a name: use 1 to 63 letters, digits, '.', '_', '-', no sign first"
                )
        if (self.role is Role.DEVICE) != (bool(self.site) and self.role is not Role.SITE):
            raise InvalidInput(f"a {self.role} {'needs' if self.role is Role.DEVICE else 'has no'} site: check --site")

    def __str__(self) -> str:
        return f"{self.role}/{self.site}/{self.name}" if self.role is Role.DEVICE else f"{self.role}/{self.name}"

    @property
    def uri(self) -> str:
        """Return the form in which a certificate carries this identity."""
        return _SCHEME + str(self)

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Read an identity from the form in which a certificate carries it.

        Raises:
            InvalidInput: The text is no identity.
        """
        role, *names = uri.removeprefix(_SCHEME).split("/")
        if not uri.startswith(_SCHEME) or role not in set(Role) or len(names) != (2 if role == Role.DEVICE else 1):
            raise InvalidInput(f"{uri[:120]!r} is not an identity of DiReDi's: {_REMEDY}")
        return cls(Role(role), names[-1], names[0] if role == Role.DEVICE else "")

    @classmethod
    def from_certificate(cls, pem: bytes) -> Self:
        """Read the identity in a certificate in PEM form.

        Raises:
            InvalidInput: The certificate carries none, or more than one.
        """
        return cls._of(x509.load_pem_x509_certificate(pem))

    @classmethod
    def _of(cls, certificate: x509.Certificate) -> Self:
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            raise InvalidInput(f"the certificate carries no names at all: {_REMEDY}") from None
        uris = [uri for uri in names.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(_SCHEME)]
        if len(uris) != 1:
            raise InvalidInput(f"the certificate carries {len(uris)} identities of DiReDi's, not one: {_REMEDY}")
        return cls.from_uri(uris[0])


ServerIdentity = Identity | Literal[Role.CLOUD]
"""Whose server a client will talk to: one identity, or the cloud, whatever its name."""


def server_key(server: ServerIdentity) -> str:
    """Return a DNS label for a server: a digest, since names differ in case and may be longer than a label."""
    return hashlib.sha256(server.uri.encode()).hexdigest()[:32] if isinstance(server, Identity) else str(server)


def server_name(server: ServerIdentity, host: str, generation: int = 0) -> str:
    """Return the DNS name that only the certificate of this server at this host carries.

    TLS libraries compare DNS names and know nothing of identities. A client that has its library ask for this name,
    instead of the host alone, refuses every other identity in the handshake, before it sends anything.

    Args:
        server: Whose server it must be.
        host: The DNS name or the IP address that is dialled.
        generation: How often certificates of this server were revoked (`diredi.trust.deny_list`). One that was revoked
            lacks the names of the generations that came after it.

    Returns:
        A name below `diredi.internal`, which no resolver is ever asked for.
    """
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        place = str(address) if address.version == 4 else address.exploded.replace(":", "-")
    except ValueError:
        place = host.lower().rstrip(".")
    key = server_key(server)
    return f"{place}.{key}.{generation}.{_SERVERS}" if generation else f"{place}.{key}.{_SERVERS}"


@dataclass(frozen=True)
class Credentials:
    """What a service shows to others, and by what it knows them. Never holds the authority's key."""

    identity: Identity
    expires: datetime
    ca: bytes
    certificate: bytes
    key: bytes = field(repr=False)

    @classmethod
    def load(cls, folder: Path, now: datetime | None = None, *, owner: Identity | None = None) -> Self:
        """Read `ca.pem`, `cert.pem` and `key.pem`, and check that the certificate is valid at the time.

        Args:
            folder: Where the files are.
            now: The time; None for this machine's clock.
            owner: Whose certificate it must be; None for anybody's.

        Returns:
            The credentials.

        Raises:
            InvalidInput: `read` refuses the folder, or the certificate is expired or not valid yet; the message names
                the file and the remedy.
        """
        credentials = cls.read(folder, owner=owner)
        if problem := credentials.time_problem(folder, now):
            raise InvalidInput(problem)
        return credentials

    @classmethod
    def read(cls, folder: Path, *, owner: Identity | None = None) -> Self:
        """Read `ca.pem`, `cert.pem` and `key.pem`, whatever this machine's clock says.

        Args:
            folder: Where the files are.
            owner: Whose certificate it must be; None for anybody's.

        Returns:
            The credentials.

        Raises:
            InvalidInput: A file is missing or cannot be read, others can read the key, the key is not the
                certificate's, or the certificate is of another authority or another owner; the message names the file
                and the remedy.
        """
        ca, pem, key = (_read(folder / name) for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE))
        check_private(folder / KEY_FILE)
        credentials = cls.parse(ca, pem, key, folder)
        if owner not in (None, credentials.identity):
            raise InvalidInput(
                f"the certificate in {folder} is for {credentials.identity}, not for {owner}: "
                "name another folder, or issue one with `diredi pki issue`"
            )
        return credentials

    @classmethod
    def parse(cls, ca: bytes, certificate: bytes, key: bytes, folder: Path = Path()) -> Self:
        """Make credentials of what the three files hold, whatever this machine's clock says.

        Args:
            ca: The authority's certificates in PEM form.
            certificate: The certificate in PEM form.
            key: The private key in PEM form.
            folder: Where they are from, for messages.

        Returns:
            The credentials.

        Raises:
            InvalidInput: One of them cannot be read, the key is not the certificate's, or the certificate is of another
                authority.
        """
        parsed, authorities = _parsed(folder / CERTIFICATE_FILE, certificate)[0], _parsed(folder / CA_FILE, ca)
        _check_key(folder / KEY_FILE, key, parsed)
        if not any(issued_by(parsed, authority) for authority in authorities):
            raise InvalidInput(
                f"{folder / CERTIFICATE_FILE} was not issued by the authority in {folder / CA_FILE}: {_REMEDY}"
            )
        return cls(Identity._of(parsed), parsed.not_valid_after_utc, ca, certificate, key)

    def require_server(self) -> Self:
        """Return these credentials if a server may show them.

        Raises:
            InvalidInput: The certificate names no host, so that every client would refuse the server.
        """
        extensions = x509.load_pem_x509_certificate(self.certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        known = any(name.endswith(_SERVERS) for name in names.get_values_for_type(x509.DNSName))
        if ExtendedKeyUsageOID.SERVER_AUTH not in uses or not known:
            raise InvalidInput(
                f"the certificate of {self.identity} names no host at which it serves: "
                "issue it again with `diredi pki issue --host HOST`"
            )
        return self

    def time_problem(self, folder: Path, now: datetime | None = None) -> str:
        """Say why the certificate does not hold now; empty where it does. `folder` is where it came from."""
        now, certificate = now or datetime.now(UTC), x509.load_pem_x509_certificate(self.certificate)
        path = folder / CERTIFICATE_FILE
        if now > self.expires:
            return f"{path} expired on {self.expires:%Y-%m-%d}: issue it again with `diredi pki issue`"
        if now < certificate.not_valid_before_utc:
            return (
                f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
                f"and it is {now:%Y-%m-%d %H:%M} here: check this clock"
            )
        return ""


def has_generation(credentials: Credentials, generation: int) -> bool:
    """Return whether a certificate names a generation of the cloud's servers (`diredi.trust.deny_list`)."""
    if not generation:
        return True
    names = x509.load_pem_x509_certificate(credentials.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    ending = f".{Role.CLOUD}.{generation}.{_SERVERS}"
    return any(name.endswith(ending) for name in names.value.get_values_for_type(x509.DNSName))


def hosts_in(certificate: bytes) -> list[str]:
    """Return the DNS names and IP addresses that a certificate in PEM form names, without the server names."""
    extensions = x509.load_pem_x509_certificate(certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [name for name in names.get_values_for_type(x509.DNSName) if not name.endswith(f".{_SERVERS}")]
    return [*hosts, *(str(address) for address in names.get_values_for_type(x509.IPAddress))]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): name an identity folder, or {_REMEDY}") from None


def _parsed(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidInput(f"{path} is not a certificate in PEM form: {_REMEDY}") from None


def check_private(key: Path) -> None:
    """Refuse a private key, or another secret, that others on this machine can read or replace.

    Args:
        key: Its file.

    Raises:
        InvalidInput: The permissions of the file or of its folder let others in; the message has the command to run.
    """
    if stat.S_IMODE(key.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidInput(f"others on this machine may use {key}, which is secret: run `chmod 600 {key}`")
    if stat.S_IMODE(key.parent.stat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(
            f"others on this machine may replace the files in {key.parent}, of which one is secret: "
            f"run `chmod 700 {key.parent}`"
        )


def _check_key(path: Path, pem: bytes, certificate: x509.Certificate) -> None:
    try:
        public = serialization.load_pem_private_key(pem, password=None).public_key()
    except (ValueError, TypeError):
        raise InvalidInput(f"{path} is not a private key in PEM form without a password: {_REMEDY}") from None
    if public != certificate.public_key():
        raise InvalidInput(f"{path} is not the key of the certificate beside it: {_REMEDY}")


def issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Return whether an authority signed a certificate."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
