"""The deny list: the certificates that an authority has revoked, as an X.509 CRL that it has signed.

Each service has its copy beside its own certificate, in `crl.pem`. Whoever can write there cannot forge one.

A server looks up the serial number of its caller. A client cannot: gRPC shows it nothing of the server's certificate.
So the list also says how often certificates of each server were revoked, its generation. A certificate names all
generations up to that in which it was issued, and a client has its TLS library ask for the newest one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

import structlog
from cryptography import x509

from diredi.errors import InvalidInput
from diredi.trust.identity import ServerIdentity, server_key

CRL_FILE: Final = "crl.pem"
_GENERATIONS: Final = x509.ObjectIdentifier("2.25.214373928160462718560982134786512390417")
"""The extension of the list that holds the generations: an object identifier made from a UUID."""


@dataclass(frozen=True)
class DenyList:
    """Serial numbers of revoked certificates.

    Attributes:
        number: Rises with every list that the authority signs.
        serials: The serial numbers.
        generations: How often certificates of a server were revoked, by `server_key`. Others: never.
    """

    number: int = 0
    serials: frozenset[int] = frozenset()
    generations: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    def generation_of(self, server: ServerIdentity) -> int:
        """Return the generation of a server, of which its certificate has to be."""
        return self.generations.get(server_key(server), 0)

    @classmethod
    def read(cls, path: Path, ca: bytes) -> Self:
        """Read a list; where there is no file, nothing is revoked.

        Args:
            path: The file in PEM form.
            ca: The authority's certificates in PEM form.

        Raises:
            InvalidInput: The file cannot be read, or is not a list that the authority has signed.
        """
        try:
            pem = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise InvalidInput(f"{path} cannot be read ({error.strerror}): make this user its owner") from None
        return cls.parse(pem, ca, path)

    @classmethod
    def parse(cls, pem: bytes, ca: bytes, path: Path = Path(CRL_FILE)) -> Self:
        """Read a list in PEM form, which came from `path`. Raises InvalidInput as `read` does."""
        try:
            crl, number, generations = _parsed(pem)
        except (ValueError, TypeError, AttributeError, x509.ExtensionNotFound):
            raise InvalidInput(f"{path} is not a deny list: copy {CRL_FILE} of the authority there again") from None
        authorities = (certificate.public_key() for certificate in x509.load_pem_x509_certificates(ca))
        if not any(crl.is_signature_valid(key) for key in authorities):  # type: ignore[arg-type]
            raise InvalidInput(f"{path} is not signed by our authority: copy {CRL_FILE} of the authority there again")
        return cls(number, _serials_in(pem), generations)


@lru_cache(maxsize=4)
def _parsed(pem: bytes) -> tuple[x509.CertificateRevocationList, int, Mapping[str, int]]:
    crl = x509.load_pem_x509_crl(pem)
    return crl, crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number, _generations_in(crl)


@lru_cache(maxsize=4)
def _serials_in(pem: bytes) -> frozenset[int]:
    return frozenset(entry.serial_number for entry in _parsed(pem)[0])


def generations_extension(generations: Mapping[str, int]) -> x509.UnrecognizedExtension:
    """Return the extension by which a list says the generations."""
    return x509.UnrecognizedExtension(_GENERATIONS, json.dumps(dict(sorted(generations.items()))).encode())


def _generations_in(crl: x509.CertificateRevocationList) -> Mapping[str, int]:
    try:
        value = crl.extensions.get_extension_for_oid(_GENERATIONS).value
    except x509.ExtensionNotFound:  # of before there were any
        return MappingProxyType({})
    assert isinstance(value, x509.UnrecognizedExtension)
    return MappingProxyType({str(key): int(count) for key, count in json.loads(value.value).items()})


class DenyListFile:
    """The deny list in an identity folder, read again when the file changes. What is damaged or older changes nothing.

    Attributes:
        newest: The newest list that was there.
    """

    def __init__(self, folder: Path) -> None:
        """Read the list of a folder."""
        self.newest = DenyList()
        self._folder = folder
        self._seen: object = None

    def refresh(self, authority: bytes) -> DenyList:
        """Return the newest list that an authority has signed.

        Args:
            authority: The authority's certificates in PEM form.
        """
        path = self._folder / CRL_FILE
        try:
            status = path.stat()
            state = (status.st_mtime_ns, status.st_ino, status.st_size)
        except OSError:
            state = None
        if state != self._seen:
            self._seen = state
            try:
                self.newest = max(self.newest, DenyList.read(path, authority), key=lambda one: one.number)
            except InvalidInput as error:
                structlog.get_logger().warning("deny_list_not_read", problem=str(error))
        return self.newest
