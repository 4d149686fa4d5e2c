"""The register of an authority: every certificate that it has issued, one JSON line each, in `issued.jsonl`.

It answers which certificates of an identity there are, so that they can be revoked, and whose a host is.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import json
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Self, TypedDict, Unpack

from cryptography import x509
from pydantic import TypeAdapter

from diredi.errors import InvalidInput
from diredi.store.files import no_room_at, sync_folder
from diredi.trust.identity import Identity

REGISTER_FILE: Final = "issued.jsonl"


class Noted(TypedDict, total=False):
    """What only some entries say, see `Issued`."""

    enrols: str
    enrols_hosts: tuple[str, ...]
    token: str
    key: str
    signer: str


@dataclass(frozen=True)
class Issued:
    """One certificate.

    Attributes:
        serial: Its serial number, as hexadecimal text.
        identity: Whom it is for.
        hosts: The hosts that it names.
        expires: When it ends, in seconds since 1970.
        enrols: Of the certificate in a token: who may enrol with it.
        enrols_hosts: Of the certificate in a token: the hosts that this one will have.
        token: Of a certificate that was signed for a token: the name of the token.
        key: Of a certificate that was signed for a token: the SHA-256 of its public key, as hexadecimal text.
        signer: Serial number of the authority's own certificate, as hexadecimal text; empty in entries from before
            authorities could be rotated.
    """

    serial: str
    identity: str
    hosts: tuple[str, ...]
    expires: float
    enrols: str = ""
    enrols_hosts: tuple[str, ...] = ()
    token: str = ""
    key: str = ""
    signer: str = ""

    @classmethod
    def of(cls, certificate: bytes, identity: Identity, hosts: Sequence[str], **noted: Unpack[Noted]) -> Self:
        """Make the entry of a certificate in PEM form."""
        found = x509.load_pem_x509_certificate(certificate)
        expires = found.not_valid_after_utc.timestamp()
        return cls(f"{found.serial_number:x}", str(identity), tuple(_plain(host) for host in hosts), expires, **noted)


_ENTRY = TypeAdapter(Issued)


class Register:
    """The entries of a register that is open; no other process can add to it meanwhile."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Read an open file; use `opened`."""
        self._file, self._path, self.folder = file, path, path.parent
        data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a kill or a power cut has cut it, so what it would sign was never handed out
            file.truncate(len(whole))
        lines = whole.splitlines()
        self.issued = [_parsed(line, path, number) for number, line in enumerate(lines, start=1)]

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Self]:
        """Open the register in the folder of an authority for a block; there need not be one yet."""
        path = folder / REGISTER_FILE
        is_new = not path.exists()
        with no_room_at(path), path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if is_new:
                sync_folder(folder)
            file.seek(0)
            yield cls(file, path)

    def check_hosts(
        self, identity: Identity, hosts: Sequence[str], now: datetime, revoked: Collection[int] = ()
    ) -> None:
        """Refuse hosts at which somebody else answers.

        `localhost` and the addresses that mean it are nobody's own: each machine calls itself so.

        Raises:
            InvalidInput: A certificate that is valid and not revoked names the host for another identity.
        """
        wanted = {_plain(host) for host in hosts if not _is_loopback(host)}
        for entry in self.issued:
            taken = wanted.intersection(entry.hosts)
            holds = entry.expires > now.timestamp() and int(entry.serial, 16) not in revoked
            if taken and entry.identity != str(identity) and holds:
                until = datetime.fromtimestamp(entry.expires, UTC)
                raise InvalidInput(
                    f"{min(taken)} is the host of {entry.identity} until {until:%Y-%m-%d}, and one host serves one "
                    "identity: name another with --host, or revoke that one with `diredi pki revoke`"
                )

    def add(self, entry: Issued) -> None:
        """Append an entry; it is on disk on return."""
        size = self._file.seek(0, os.SEEK_END)
        line = json.dumps(asdict(entry)).encode() + b"\n"
        with no_room_at(self._path):
            try:
                if os.write(self._file.fileno(), line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
            except OSError:
                os.ftruncate(self._file.fileno(), size)
                raise
        self.issued.append(entry)


def _parsed(line: bytes, path: Path, number: int) -> Issued:
    try:
        return _ENTRY.validate_json(line)
    except ValueError:
        raise InvalidInput(
            f"{path}, line {number}: this is no entry of a register; take the file from a backup, or remove that line "
            "and know that its certificate cannot be revoked by name"
        ) from None


def _plain(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return host.lower().rstrip(".")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return _plain(host) == "localhost" or _plain(host).endswith(".localhost")
