"""The deny list: the certificates that an authority has revoked, as an X.509 CRL that it has signed.

Each server has its copy beside its own certificate, in `crl.pem`. Whoever can write there cannot forge one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from cryptography import x509

from diredi.errors import InvalidInput

CRL_FILE: Final = "crl.pem"


@dataclass(frozen=True)
class DenyList:
    """Serial numbers of revoked certificates.

    Attributes:
        number: Rises with every list that the authority signs.
        serials: The serial numbers.
    """

    number: int = 0
    serials: frozenset[int] = frozenset()

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
            crl = x509.load_pem_x509_crl(pem)
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except (ValueError, x509.ExtensionNotFound):
            raise InvalidInput(f"{path} is not a deny list: copy {CRL_FILE} of the authority there again") from None
        authorities = (certificate.public_key() for certificate in x509.load_pem_x509_certificates(ca))
        if not any(crl.is_signature_valid(key) for key in authorities):  # type: ignore[arg-type]
            raise InvalidInput(f"{path} is not signed by our authority: copy {CRL_FILE} of the authority there again")
        return cls(number, frozenset(entry.serial_number for entry in crl))
