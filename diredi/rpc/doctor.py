"""What is wrong with an installation of a service, before it runs or while it does: one finding a check, with a remedy.

Nothing is asked of any machine but those that the service dials and the name servers, and nothing is changed.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import ipaddress
import json
import os
import platform
import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from cryptography import x509

from diredi import __version__
from diredi.errors import DirediError, InvalidInput, Unauthenticated
from diredi.rpc.client import connect, is_serving
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    Credentials,
    Identity,
    Role,
    ServerIdentity,
    hosts_in,
    server_name,
)
from diredi.trust.live import ENDS_SOON

CONNECT_S: Final = 4.0
LOW_BYTES: Final = 2**30
FULL_BYTES: Final = 64 * 2**20
_PACKAGES: Final = ("grpcio", "cryptography", "onnxruntime", "torch", "ultralytics")


_Address = tuple[int, tuple[str | int, ...]]
"""An address family, and an address as sockets take it."""


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Attributes:
        check: The name of the check, such as "certificate".
        level: How bad it is.
        found: What was found, in one sentence or a list of values.
        remedy: What to do; empty where there is nothing to do.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Installation:
    """What a service is configured to use.

    Attributes:
        identity: The identity folder.
        owner: Whose certificate it must be; None: any cloud's.
        listen: The address that the service listens on.
        state_dir: The folder of its state.
        dials: Each server that it connects to: what it is called, host:port, and whose it must be.
        notes: What else leaves or is kept here, in a sentence each.
    """

    identity: Path
    owner: Identity | None
    listen: str
    state_dir: Path
    dials: Sequence[tuple[str, str, ServerIdentity]] = ()
    notes: Sequence[str] = field(default=())


async def examine(installation: Installation, now: datetime | None = None) -> list[Finding]:
    """Make all checks of an installation.

    Args:
        installation: What the service uses.
        now: The time; None for this machine's clock.

    Returns:
        The findings, in the order of the checks.
    """
    now = now or datetime.now(UTC)
    credentials, findings = _read_identity(installation, now)
    findings += _check_clock(installation, credentials, now)
    findings += _check_port(installation.listen)
    for called, address, server in installation.dials:
        findings += await _check_server(called, address, server, installation.identity, credentials)
    findings += _check_disk(installation.state_dir)
    findings += _check_versions()
    findings += _check_egress(installation)
    return findings


def _read_identity(installation: Installation, now: datetime) -> tuple[Credentials | None, list[Finding]]:
    folder = installation.identity
    try:
        credentials = Credentials.read(folder, owner=installation.owner)
    except InvalidInput as error:
        return None, [_finding("certificate", Level.ERROR, str(error))]
    return credentials, [*_about_certificate(credentials, folder, now), *_about_names(installation, credentials)]


def _about_certificate(credentials: Credentials, folder: Path, now: datetime) -> Iterator[Finding]:
    ends = f"of {credentials.identity}, ends on {credentials.expires:%Y-%m-%d}"
    if problem := credentials.time_problem(folder, now):
        yield _finding("certificate", Level.ERROR, problem)
    elif credentials.expires - now < ENDS_SOON:
        remedy = "let the cloud renew it (its log says why it does not), or issue it again with `diredi pki issue`"
        yield Finding("certificate", Level.WARNING, ends, remedy)
    else:
        yield Finding("certificate", Level.OK, ends)
    try:
        denied = DenyList.read(folder / CRL_FILE, credentials.ca)
    except InvalidInput as error:
        yield _finding("deny list", Level.ERROR, str(error))
        return
    if x509.load_pem_x509_certificate(credentials.certificate).serial_number in denied.serials:
        yield Finding("deny list", Level.ERROR, "this certificate was revoked", "enrol again, or have another issued")
    else:
        yield Finding("deny list", Level.OK, f"{len(denied.serials)} certificates are revoked")


def _about_names(installation: Installation, credentials: Credentials) -> Iterator[Finding]:
    """Whether others can reach this service under the names in its certificate."""
    if installation.owner is None and credentials.identity.role is not Role.CLOUD:
        remedy = "name another folder with --identity, or issue one with `diredi pki issue cloud NAME --host HOST`"
        yield Finding("role", Level.ERROR, f"the certificate is of {credentials.identity}, not of a cloud", remedy)
    try:
        credentials.require_server()
    except InvalidInput as error:
        yield _finding("names", Level.ERROR, str(error))
        return
    hosts = hosts_in(credentials.certificate)
    unknown = [host for host in hosts if not _resolve(host)]
    if unknown:
        remedy = "that is well where other machines know them; else add them to the DNS, or issue with another --host"
        yield Finding("names", Level.WARNING, f"not known on this machine: {', '.join(unknown)}", remedy)
    else:
        yield Finding("names", Level.OK, f"serves as {', '.join(hosts)}")


def _check_clock(installation: Installation, credentials: Credentials | None, now: datetime) -> Iterator[Finding]:
    """Compare the clock with what cannot lie in the future: the authority's beginning, and files of this machine."""
    remedy = "set this machine's clock, e.g. with `timedatectl set-ntp true`, or let it ask a time server of the site"
    newest = max((path.stat().st_mtime for path in _files_of(installation.state_dir)), default=0.0)
    if credentials is not None:
        begins = x509.load_pem_x509_certificates(credentials.ca)[0].not_valid_before_utc
        if now < begins:
            found = f"it is {now:%Y-%m-%d %H:%M} UTC here, and the authority was made on {begins:%Y-%m-%d %H:%M}"
            yield Finding("clock", Level.ERROR, found, remedy)
            return
    if newest > now.timestamp() + 300:
        moment = datetime.fromtimestamp(newest, UTC)
        found = f"it is {now:%Y-%m-%d %H:%M} UTC here, and a file of the service is of {moment:%Y-%m-%d %H:%M}"
        yield Finding("clock", Level.WARNING, found, remedy)
    else:
        yield Finding("clock", Level.OK, f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _files_of(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file())


def _check_port(listen: str) -> Iterator[Finding]:
    host, _, port = listen.rpartition(":")
    if not port.isdigit() or not host:
        yield Finding("port", Level.ERROR, f"{listen!r} is not an address to listen on", "write --listen HOST:PORT")
        return
    try:
        family, *_, address = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        remedy = "that is well if the service runs now; else stop the other program, or name another port"
        yield Finding("port", Level.WARNING, f"{listen}: {error.strerror or error}", remedy)
        return
    reach = "" if not _is_loopback(host) else ", which only this machine reaches"
    yield Finding("port", Level.OK, f"{listen} is free{reach}")


async def _check_server(
    called: str, address: str, server: ServerIdentity, folder: Path, credentials: Credentials | None
) -> list[Finding]:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or not host:
        return [Finding(called, Level.ERROR, f"{address!r} is not an address", "write it as HOST:PORT")]
    findings, proxy = [], "" if _is_loopback(host) else _proxy_for(host)
    if proxy:
        findings.append(Finding(f"{called}: proxy", Level.OK, f"{proxy}, as the environment says"))
    else:
        reached, found = await asyncio.to_thread(lambda: _try_addresses(called, host, int(port)))
        findings += found
        if not reached:
            return findings
        if credentials is not None:
            findings += await asyncio.to_thread(lambda: list(_handshake(called, reached, host, server, folder)))
    if credentials is not None and not any(finding.level is Level.ERROR for finding in findings):
        findings.append(await _ask(called, address, server, credentials, folder))
    return findings


def _try_addresses(called: str, host: str, port: int) -> tuple[_Address | None, list[Finding]]:
    """Connect over IPv4 and IPv6, and return an address that answers."""
    addresses = _resolve(host, port)
    if not addresses:
        remedy = "check the name, this machine's DNS (/etc/resolv.conf) and the network"
        return None, [Finding(f"{called}: name", Level.ERROR, f"{host} is not known here", remedy)]
    answers, silent, reached = [], [], None
    for family, address in addresses:
        kind = "IPv6" if family == socket.AF_INET6 else "IPv4"
        try:
            with socket.socket(family) as probe:
                probe.settimeout(CONNECT_S)
                probe.connect(address)
            answers.append(f"{kind} {address[0]}")
            reached = reached or (family, address)
        except OSError as error:
            silent.append(f"{kind} {address[0]} ({error.strerror or 'no answer in time'})")
    if reached is None:
        remedy = f"start the other side, and let firewalls pass TCP to port {port} from here"
        return None, [Finding(f"{called}: address", Level.ERROR, f"no answer from {', '.join(silent)}", remedy)]
    if silent:
        remedy = "take the address that does not answer out of the DNS, or open it: some connections wait for it"
        found = f"{', '.join(answers)} answers, {', '.join(silent)} does not"
        return reached, [Finding(f"{called}: address", Level.WARNING, found, remedy)]
    return reached, [Finding(f"{called}: address", Level.OK, ", ".join(answers))]


def _handshake(called: str, reached: _Address, host: str, server: ServerIdentity, folder: Path) -> Iterator[Finding]:
    """Look at the certificate that is shown there."""
    expected = f"the {server}" if not isinstance(server, Identity) else str(server)
    try:
        generation = DenyList.read(folder / CRL_FILE, (folder / CA_FILE).read_bytes()).generation_of(server)
        certificate = _shown(reached, server_name(server, host, generation), folder)
        yield Finding(f"{called}: certificate", Level.OK, f"proves to be {expected}, ends on {_end_of(certificate)}")
    except ssl.SSLCertVerificationError as error:
        yield _impostor(called, reached, host, expected, folder, error)
    except OSError as error:
        remedy = "see the log of the other side; a program that speaks no TLS may listen there"
        yield Finding(f"{called}: certificate", Level.ERROR, f"the handshake failed: {error}", remedy)


def _impostor(
    called: str, reached: _Address, host: str, expected: str, folder: Path, error: ssl.SSLCertVerificationError
) -> Finding:
    try:
        shown = _shown(reached, None, folder)
        identity, hosts = Identity.from_certificate(shown.encode()), hosts_in(shown.encode())
        denied = DenyList.read(folder / CRL_FILE, (folder / CA_FILE).read_bytes())
    except (OSError, DirediError):
        remedy = f"compare {folder / CA_FILE} with that of the other side, and both clocks"
        return Finding(f"{called}: certificate", Level.ERROR, f"is not believed: {error.verify_message}", remedy)
    if x509.load_pem_x509_certificate(shown.encode()).serial_number in denied.serials:
        remedy = f"find out who answers there; {expected} itself needs a new certificate: `diredi pki issue`"
        return Finding(f"{called}: certificate", Level.ERROR, f"that of {identity} there was revoked", remedy)
    found = f"{identity} answers there, with a certificate for {', '.join(hosts) or 'no host'}"
    remedy = f"check the address: it must be {expected} with a certificate that names {host}"
    return Finding(f"{called}: certificate", Level.ERROR, found, remedy)


def _shown(reached: _Address, name: str | None, folder: Path) -> str:
    """Return the certificate in PEM form that a server shows; without a name, any of our authority's is taken."""
    family, address = reached
    context = ssl.create_default_context(cafile=str(folder / CA_FILE))
    context.check_hostname = name is not None
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE)
    with socket.socket(family) as plain:
        plain.settimeout(CONNECT_S)
        plain.connect(address)
        with context.wrap_socket(plain, server_hostname=name) as secure:
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"")


def _end_of(pem: str) -> str:
    return f"{x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc:%Y-%m-%d}"


async def _ask(called: str, address: str, server: ServerIdentity, credentials: Credentials, folder: Path) -> Finding:
    async with connect(address, credentials, server=server, identity=folder) as channel:
        try:
            serves = await is_serving(channel, deadline_s=10)
        except Unauthenticated as error:
            return _finding(f"{called}: answer", Level.ERROR, str(error))
        except DirediError as error:
            return _finding(f"{called}: answer", Level.ERROR, str(error))
    if not serves:
        return Finding(f"{called}: answer", Level.WARNING, "it is there and does not serve yet", "see its log")
    return Finding(f"{called}: answer", Level.OK, "it takes our certificate and serves")


def _check_disk(folder: Path) -> Iterator[Finding]:
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 2**30:.1f} GiB free at {place}"
    if not os.access(place, os.W_OK):
        yield Finding(
            "disk", Level.ERROR, f"{place} cannot be written", "make this user its owner, or mount it writable"
        )
    elif free < LOW_BYTES:
        level = Level.ERROR if free < FULL_BYTES else Level.WARNING
        yield Finding("disk", level, found, "free some room, or move --state-dir to a larger disk")
    else:
        yield Finding("disk", Level.OK, found)


def _check_versions() -> Iterator[Finding]:
    found = {"diredi": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    yield Finding("versions", Level.OK, ", ".join(f"{name} {version}" for name, version in found.items()))


def _check_egress(installation: Installation) -> Iterator[Finding]:
    dialled = ", ".join(f"{called} at {address}" for called, address, _ in installation.dials)
    where = (
        f"this service dials {dialled} and nobody else by gRPC" if dialled else "this service dials nobody, it answers"
    )
    yield Finding("what leaves", Level.OK, "; ".join((where, *installation.notes)))
    path = installation.state_dir / "egress.json"
    if not path.exists():
        return
    try:
        sent = {str(name): int(count) for name, count in json.loads(path.read_bytes())["bytes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield Finding(
            "bytes sent", Level.WARNING, f"{path} cannot be read", "the service sets it aside at its next start"
        )
        return
    names = ", ".join(f"{name.removeprefix('diredi.v1.')} {count}" for name, count in sorted(sent.items()))
    yield Finding("bytes sent", Level.OK, f"{sum(sent.values())} in all: {names}")


def _resolve(host: str, port: int = 0) -> list[_Address]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    known = {
        (int(family), tuple(part for part in address if isinstance(part, (str, int)))) for family, *_, address in found
    }
    return sorted(known)


def _proxy_for(host: str) -> str:
    """Return the proxy that gRPC takes for a host, without its password; empty for none."""
    from urllib.parse import urlsplit

    proxy = next((os.environ[name] for name in ("grpc_proxy", "https_proxy", "http_proxy") if os.environ.get(name)), "")
    spared = next((os.environ[name] for name in ("no_grpc_proxy", "no_proxy") if os.environ.get(name)), "")
    if not proxy or any(end.strip() and host.endswith(end.strip().lstrip("*")) for end in spared.split(",")):
        return ""
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _finding(check: str, level: Level, sentence: str) -> Finding:
    """Return a finding of one of our errors, whose sentence ends with the remedy."""
    found, _, remedy = sentence.rpartition(": ")
    return Finding(check, level, found or sentence, remedy if found else "")
