"""A small certificate authority (ECDSA P-256), which all parts of one fleet trust."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Unpack

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from diredi.errors import InvalidInput, WrongState
from diredi.store.files import atomic_write, make_folder
from diredi.trust import release_keys
from diredi.trust.deny_list import CRL_FILE, DenyList, generations_extension
from diredi.trust.identity import (
    CA_FILE,
    CERTIFICATE_FILE,
    KEY_FILE,
    PEOPLE,
    Credentials,
    Identity,
    Role,
    ServerIdentity,
    check_private,
    issued_by,
    server_key,
    server_name,
)
from diredi.trust.passphrase import ask_passphrase, is_terminal, read_passphrase
from diredi.trust.register import Issued, Noted, Register

CA_KEY_FILE = "ca-key.pem"
NEXT_FOLDER = "next"
"""Below the folder of an authority: the one that follows it, while it is rotated (`diredi.trust.rotation`)."""
CA_LIFETIME = timedelta(days=3650)
LIFETIME = timedelta(days=398)
PASSPHRASE_FILE = "DIREDI_CA_PASSPHRASE_FILE"
"""The variable of the environment that names the file with the passphrase of the authority's key. Without `_FILE` it is
that of the passphrase itself."""
LONGEST_HOST = 190
"""The longest host name, so that the server names made of it are DNS names, too."""
_CLOCK_SKEW = timedelta(hours=1)
_asked: dict[Path, bytes] = {}
"""The passphrases that were typed into this process, by the file of the key: the cloud signs again and again."""


@dataclass(frozen=True)
class Authority:
    """An authority that can sign.

    Attributes:
        certificate: Its own certificate.
        key: Its private key.
        passphrase: What its key is behind on the disk; empty for nothing.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    passphrase: bytes = field(default=b"", repr=False)

    def sign(
        self,
        request: x509.CertificateSigningRequest,
        identity: Identity,
        hosts: Sequence[str] = (),
        lifetime: timedelta = LIFETIME,
        now: datetime | None = None,
        deny_list: DenyList | None = None,
    ) -> bytes:
        """Issue a certificate for the key in a request; names in the request itself are ignored.

        Args:
            request: The request with the public key.
            identity: Whom the certificate is for.
            hosts: DNS names and IP addresses at which the holder answers; without any it cannot serve.
            lifetime: How long the certificate is valid.
            now: The time to count from; None takes the clock.
            deny_list: The newest, which says of which generation the certificate is; None: nobody was revoked.

        Returns:
            The certificate in PEM form.

        Raises:
            InvalidInput: A host is neither a name nor an address.
        """
        if not request.is_signature_valid:
            raise InvalidInput("the signing request is not signed by its own key: make it again")
        now = now or datetime.now(UTC)
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if hosts and identity.role not in PEOPLE:  # who is reached nowhere serves nobody
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            _builder(str(identity), self.certificate.subject, request.public_key(), now, lifetime)
            .add_extension(
                x509.SubjectAlternativeName(_names(identity, hosts, deny_list or DenyList())), critical=False
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def init(
    folder: Path, name: str = "DiReDi", now: datetime | None = None, *, passphrase: bytes | None = None
) -> Authority:
    """Make an authority in a folder.

    Args:
        folder: Where its key and certificate go.
        name: What its certificate is called.
        now: The time to count from; None takes the clock.
        passphrase: What its key is put behind; None takes that of the environment, if there is one.

    Returns:
        The new authority.

    Raises:
        WrongState: The folder holds an authority; replacing it would lock the fleet out.
    """
    if (folder / CA_KEY_FILE).exists() or (folder / CA_FILE).exists():
        raise WrongState(f"{folder} holds an authority already: use it, or name another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    title = f"{name} authority"
    certificate = certify_authority(key.public_key(), title, key, _subject(title), now or datetime.now(UTC))
    secret = read_passphrase(PASSPHRASE_FILE) if passphrase is None else passphrase
    _make_private(folder)
    write_key(folder, key, secret)
    atomic_write(folder / CA_FILE, certificate.public_bytes(serialization.Encoding.PEM))
    release_keys.init(folder / release_keys.FOLDER)
    return Authority(certificate, key, secret)


def certify_authority(
    key: ec.EllipticCurvePublicKey, name: str, by: ec.EllipticCurvePrivateKey, issuer: x509.Name, now: datetime
) -> x509.Certificate:
    """Make a certificate of an authority: by its own key, or by the one before it.

    Args:
        key: The public key of the authority.
        name: What it is called.
        by: The key that signs.
        issuer: What the owner of that key is called.
        now: The time to count from.
    """
    builder = (
        _builder(name, issuer, key, now, CA_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
    )
    return builder.sign(by, hashes.SHA256())


def write_key(folder: Path, key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> None:
    """Put the key of an authority into a folder, behind a passphrase; an empty one is none."""
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    atomic_write(folder / CA_KEY_FILE, pem, mode=0o600)


def change_passphrase(folder: Path, passphrase: bytes) -> list[Path]:
    """Put the key of an authority behind another passphrase, and that of the next one, while it is rotated.

    Args:
        folder: The folder of the authority.
        passphrase: The new one.

    Returns:
        The files of the keys.

    Raises:
        InvalidInput: The folder holds no authority that can sign, or the new passphrase is empty.
    """
    if not passphrase:
        raise InvalidInput("an empty passphrase protects nothing: choose one")
    folders = [one for one in (folder, folder / NEXT_FOLDER) if one == folder or (one / CA_KEY_FILE).exists()]
    with Register.opened(folder):
        for one, authority in [(one, load(one)) for one in folders]:
            write_key(one, authority.key, passphrase)
    return [one / CA_KEY_FILE for one in folders]


def load(folder: Path) -> Authority:
    """Load the authority of a folder. While it is rotated, its certificates are two; this is the one with the key.

    A passphrase comes from the environment (`diredi.trust.passphrase`), or is asked for once in the life of a process.

    Raises:
        InvalidInput: The folder holds no authority that can sign, or the passphrase is wrong or missing.
    """
    path = folder / CA_KEY_FILE
    try:
        certificates = x509.load_pem_x509_certificates((folder / CA_FILE).read_bytes())
        check_private(path)
        pem = path.read_bytes()
        secret = _passphrase_of(path) if b"ENCRYPTED" in pem else b""
        key = _private_key(path, pem, secret)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{folder} holds no authority ({error}): make one with `diredi pki init`") from None
    for certificate in certificates:
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return Authority(certificate, key, secret)
    raise InvalidInput(f"{path} is not the key of {folder / CA_FILE}: put the right one beside it")


def _private_key(path: Path, pem: bytes, secret: bytes) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, secret or None)
    except ValueError:
        _asked.pop(path.resolve(), None)
        if not secret:
            raise
        raise InvalidInput(f"{path} is behind another passphrase: check {PASSPHRASE_FILE}") from None


def _passphrase_of(path: Path) -> bytes:
    """Return the passphrase of a key. Raises InvalidInput where there is none and nobody can be asked."""
    if secret := read_passphrase(PASSPHRASE_FILE) or _asked.get(path.resolve(), b""):
        return secret
    if not is_terminal():
        raise InvalidInput(f"{path} is behind a passphrase: name the file that holds it in {PASSPHRASE_FILE}")
    secret = _asked[path.resolve()] = ask_passphrase(f"Passphrase of {path}", PASSPHRASE_FILE)
    return secret


def load_signer(folder: Path, identity: Identity) -> Authority:
    """Load the authority that signs for an identity: while it is rotated, the next one for all but the cloud.

    Everybody learns of the next one from the cloud, whose certificate therefore is of the one that all know.

    Raises:
        InvalidInput: The folder holds no authority that can sign.
    """
    following = folder / NEXT_FOLDER
    return load(following if identity.role is not Role.CLOUD and (following / CA_KEY_FILE).exists() else folder)


def issue(
    folder: Path,
    role: str,
    name: str,
    hosts: Sequence[str],
    out: Path,
    site: str = "",
    lifetime: timedelta = LIFETIME,
    now: datetime | None = None,
) -> Credentials:
    """Make a key and a certificate signed by an authority; files that are there are replaced.

    Args:
        folder: The folder of the authority.
        role: Role of the holder: cloud, site, device, viewer, operator or admin.
        name: Name of the holder.
        hosts: DNS names and IP addresses at which the holder answers.
        out: The folder for key, certificate, the authority's certificate, and the root of releases.
        site: The site that a device belongs to; empty for other roles.
        lifetime: How long the certificate is valid.
        now: The time to count from; None takes the clock.

    Returns:
        The new credentials.

    Raises:
        InvalidInput: There is no authority, or the role, the name or a host cannot be used.
    """
    roles = [one for one in Role if one is not Role.ENROLMENT]
    if role not in roles:
        raise InvalidInput(f"{role!r} is not a role: use one of {', '.join(roles)}")
    identity = Identity(Role(role), name, site)
    if out.resolve() == folder.resolve():
        raise InvalidInput(f"{out} is the authority's own folder: name another, its key must not lie with a service")
    key, request = new_request()
    certificate = sign_request(folder, request, identity, hosts, lifetime, now)
    _make_private(out)
    atomic_write(out / CA_FILE, (folder / CA_FILE).read_bytes())
    atomic_write(out / KEY_FILE, key, mode=0o600)
    atomic_write(out / CERTIFICATE_FILE, certificate)
    if (folder / CRL_FILE).exists():
        atomic_write(out / CRL_FILE, (folder / CRL_FILE).read_bytes())
    release_keys.init(folder / release_keys.FOLDER)  # for an authority of before there were any
    release_keys.hand_out(folder / release_keys.FOLDER, out, to_cloud=identity.role is Role.CLOUD)
    return Credentials.load(out, now)


def sign_request(
    folder: Path,
    request: x509.CertificateSigningRequest,
    identity: Identity,
    hosts: Sequence[str],
    lifetime: timedelta = LIFETIME,
    now: datetime | None = None,
    **noted: Unpack[Noted],
) -> bytes:
    """Issue a certificate for the key in a request, and note it in the authority's register.

    Args:
        folder: The folder of the authority.
        request: The request with the public key; names in it are ignored.
        identity: Whom the certificate is for.
        hosts: DNS names and IP addresses at which the holder answers.
        lifetime: How long the certificate is valid.
        now: The time to count from; None takes the clock.
        **noted: What else the register has to say of it, as fields of its entry.

    Returns:
        The certificate in PEM form.

    Raises:
        InvalidInput: There is no authority, or a host is none or is another identity's.
    """
    authority = load_signer(folder, identity)
    with Register.opened(folder) as register:
        return sign_into(register, authority, request, identity, hosts, lifetime, now, **noted)


def sign_into(
    register: Register,
    authority: Authority,
    request: x509.CertificateSigningRequest,
    identity: Identity,
    hosts: Sequence[str],
    lifetime: timedelta = LIFETIME,
    now: datetime | None = None,
    **noted: Unpack[Noted],
) -> bytes:
    """Do what `sign_request` does, with a register that is open already."""
    now = now or datetime.now(UTC)
    deny_list = _deny_list(register.folder)
    certificate = authority.sign(request, identity, hosts, lifetime, now, deny_list)
    register.check_hosts(identity, hosts, now, deny_list.serials)
    noted["signer"] = f"{authority.certificate.serial_number:x}"
    register.add(Issued.of(certificate, identity, hosts, **noted))
    return certificate


def check_hosts(folder: Path, identity: Identity, hosts: Sequence[str], now: datetime) -> None:
    """Refuse hosts that an identity cannot have. Raises InvalidInput as `sign_request` does."""
    _names(identity, hosts, DenyList())
    load(folder)
    with Register.opened(folder) as register:
        register.check_hosts(identity, hosts, now, _deny_list(folder).serials)


def _deny_list(folder: Path) -> DenyList:
    return DenyList.read(folder / CRL_FILE, (folder / CA_FILE).read_bytes())


def revoke(
    folder: Path, identities: Sequence[Identity], certificates: Sequence[bytes] = (), now: datetime | None = None
) -> dict[int, str]:
    """Revoke certificates: sign a new deny list, which replaces that in the authority's folder.

    Args:
        folder: The folder of the authority.
        identities: Holders all of whose certificates and tokens are revoked; new ones may be issued to them afterwards.
        certificates: Further certificates in PEM form, such as those that were issued before there was a register.
        now: The time; None takes the clock.

    Returns:
        The serial number of each certificate that is revoked by this call or was before, and whose it is.

    Raises:
        InvalidInput: There is no authority, or it has issued no certificate to one of the identities, or one of the
            certificates is not of this authority.
    """
    authority, now = load(folder), now or datetime.now(UTC)
    with Register.opened(folder) as register:
        wanted: dict[int, str] = {}
        for identity in identities:
            name = str(identity)
            serials = [int(entry.serial, 16) for entry in register.issued if name in (entry.identity, entry.enrols)]
            if not serials:
                raise InvalidInput(
                    f"the register of {folder} has no certificate of {identity}: check the name, or name its cert.pem"
                )
            wanted |= dict.fromkeys(serials, str(identity))
        trusted = x509.load_pem_x509_certificates((folder / CA_FILE).read_bytes())
        wanted |= dict(_holder_of(pem, trusted) for pem in certificates)
        before = _deny_list(folder).serials
        write_deny_list(
            folder, authority, wanted, now, {name for serial, name in wanted.items() if serial not in before}
        )
    return wanted


def _holder_of(pem: bytes, authorities: Iterable[x509.Certificate]) -> tuple[int, str]:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise InvalidInput("a file that is named is not a certificate in PEM form: name the cert.pem") from None
    if not any(issued_by(certificate, authority) for authority in authorities):
        raise InvalidInput("a certificate that is named is of another authority: name that one with --ca")
    return certificate.serial_number, str(Identity.from_certificate(pem))


def write_deny_list(
    folder: Path, authority: Authority, wanted: Iterable[int], now: datetime, renamed: Iterable[str] = ()
) -> None:
    """Sign a deny list with these serial numbers and those of the one before, and a higher number; it replaces that.

    Args:
        folder: The folder of the authority.
        authority: Who signs.
        wanted: Serial numbers of certificates.
        now: The time.
        renamed: The identities of whose servers the next generation begins.
    """
    path, before = folder / CRL_FILE, _deny_list(folder)
    generations = dict(before.generations)
    for holder in renamed:
        for server in _servers_of(Identity.from_uri(f"diredi://{holder}")):
            generations[server_key(server)] = before.generation_of(server) + 1
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - _CLOCK_SKEW)
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(generations_extension(generations), critical=False)
        .add_extension(x509.CRLNumber(max(before.number + 1, int(now.timestamp()))), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for serial in sorted(before.serials.union(wanted)):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(authority.key, hashes.SHA256())
    atomic_write(path, signed.public_bytes(serialization.Encoding.PEM))


def new_request() -> tuple[bytes, x509.CertificateSigningRequest]:
    """Make a private key and a request to sign it, so that the key never leaves the machine that uses it.

    Returns:
        The private key in PEM form, and the request.
    """
    key = _pem(ec.generate_private_key(ec.SECP256R1()))
    return key, request_for(key)


def request_for(key: bytes) -> x509.CertificateSigningRequest:
    """Make a request to sign a certificate for a private key in PEM form."""
    private = serialization.load_pem_private_key(key, password=None)
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject("to be named"))
    return builder.sign(private, hashes.SHA256())  # type: ignore[arg-type]  # a key that TLS has taken can sign


def _builder(
    name: str, issuer: x509.Name, public_key: CertificatePublicKeyTypes, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)  # a camera's clock may be behind
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _make_private(folder: Path) -> None:
    """Make a folder that only its owner may look into; one that is there stays as it is, and may be somebody else's."""
    if not folder.exists():
        make_folder(folder)
        folder.chmod(0o700)


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _servers_of(identity: Identity) -> list[ServerIdentity]:
    """Return as what clients may dial an identity: a cloud also as any cloud, a person not at all."""
    if identity.role in PEOPLE or identity.role is Role.ENROLMENT:
        return []
    return [identity, Role.CLOUD] if identity.role is Role.CLOUD else [identity]


def _names(identity: Identity, hosts: Sequence[str], deny_list: DenyList) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri)]
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
        except ValueError:
            plain = host.replace("-", "").replace(".", "").replace("_", "")
            if not host.isascii() or not plain.isalnum() or len(host) > LONGEST_HOST:
                raise InvalidInput(f"{host[:80]!r} is neither a host name nor an address: check --host") from None
            names.append(x509.DNSName(host))
    for host in dict.fromkeys(hosts):
        for server in _servers_of(identity):
            generations = range(deny_list.generation_of(server) + 1)  # who has an older list asks for an older one
            names.extend(x509.DNSName(server_name(server, host, generation)) for generation in generations)
    return names


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
