"""Rotating an authority: another one takes its place while the fleet runs.

1. `begin` makes the next authority. Its certificate is signed twice, by its own key and by that of the one before, so
   whoever trusts that one has a proof of it, whoever hands it on. Both are trusted. The number of the deny list rises,
   so the cloud tells all sites and devices at once. They take the proof and renew their certificates, which the next
   one signs; the cloud's own stays with the old one, which all know.
2. `finish`, when all have renewed, revokes the old authority in a deny list that the next one signs, with every
   certificate of it that is left but for the cloud's. The cloud renews its own, and everybody forgets the old one.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from diredi.errors import InvalidInput, WrongState
from diredi.store.files import atomic_write, make_folder
from diredi.trust import ca, enrolment
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.identity import CA_FILE, CERTIFICATE_FILE, Credentials, Role, has_generation, issued_by
from diredi.trust.register import Issued, Register

PROOF_FILE = "proof.pem"
"""In the folder of the next authority: its certificate as it signs it itself, and as the one before signs it."""


def is_under_way(folder: Path) -> bool:
    """Return whether the authority of a folder is being rotated."""
    return (folder / ca.NEXT_FOLDER / ca.CA_KEY_FILE).exists()


def begin(folder: Path, now: datetime | None = None) -> None:
    """Make the next authority; one that was begun before is completed.

    Args:
        folder: The folder of the authority.
        now: The time; None takes the clock.

    Raises:
        InvalidInput: There is no authority that can sign.
    """
    old, now, following = ca.load(folder), now or datetime.now(UTC), folder / ca.NEXT_FOLDER
    if not is_under_way(folder):
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"DiReDi authority {now:%Y-%m-%d} {x509.random_serial_number():x}"[:42]
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        own = ca.certify_authority(key.public_key(), name, key, subject, now)
        proof = ca.certify_authority(key.public_key(), name, old.key, old.certificate.subject, now)
        make_folder(following)
        following.chmod(0o700)
        atomic_write(following / CA_FILE, _pem(own))
        atomic_write(following / PROOF_FILE, _pem(own) + _pem(proof))
        ca.write_key(following, key, old.passphrase)  # last: with it the next one signs
    with Register.opened(folder):
        bundle = (folder / CA_FILE).read_bytes()
        added = (following / CA_FILE).read_bytes()
        if added not in bundle:
            atomic_write(folder / CA_FILE, bundle + added)
        ca.write_deny_list(folder, old, (), now)


def waiting(folder: Path, now: datetime | None = None) -> list[str]:
    """Return the identities that have certificates of the old authority alone, but for the cloud's."""
    following = ca.load(folder / ca.NEXT_FOLDER)
    with Register.opened(folder) as register:
        left = _left_of_old(register, f"{following.certificate.serial_number:x}", folder, now or datetime.now(UTC))
        renewed = {entry.identity for entry in register.issued if entry not in left}
    kept = (f"{Role.CLOUD}/", f"{Role.ENROLMENT}/")
    names = {entry.identity for entry in left if not entry.identity.startswith(kept)}
    return sorted(names - renewed)


def finish(folder: Path, *, leave_out: bool = False, now: datetime | None = None) -> list[str]:
    """Drop the old authority. It can be called again after it was interrupted.

    Args:
        folder: The folder of the authority.
        leave_out: Whether to go on although some have not renewed; these have to enrol anew.
        now: The time; None takes the clock.

    Returns:
        The identities that were left out.

    Raises:
        WrongState: It was not begun, or some have not renewed yet.
    """
    if not is_under_way(folder):
        raise WrongState(f"the authority in {folder} is not being rotated: begin with `diredi pki rotate`")
    left_out, now = waiting(folder, now), now or datetime.now(UTC)
    if left_out and not leave_out:
        raise WrongState(
            f"{len(left_out)} have not renewed yet ({', '.join(left_out[:5])}): wait until they have been online, or "
            "leave them out with --leave-out, and they have to enrol again"
        )
    following = folder / ca.NEXT_FOLDER
    new = ca.load(following)
    with Register.opened(folder) as register:
        left = _left_of_old(register, f"{new.certificate.serial_number:x}", folder, now)
        trusted = x509.load_pem_x509_certificates((folder / CA_FILE).read_bytes())
        dropped = [certificate.serial_number for certificate in trusted if certificate != new.certificate]
        ca.write_key(folder, new.key, new.passphrase)
        serials = [int(entry.serial, 16) for entry in left if not entry.identity.startswith(f"{Role.CLOUD}/")]
        ca.write_deny_list(folder, new, [*dropped, *serials], now)  # the cloud renews its own, see `follow`
        atomic_write(folder / CA_FILE, _pem(new.certificate))
    shutil.rmtree(following)
    return left_out


def _left_of_old(register: Register, new: str, folder: Path, now: datetime) -> list[Issued]:
    """Return the certificates that hold and that the next authority has not signed."""
    revoked = DenyList.read(folder / CRL_FILE, (folder / CA_FILE).read_bytes()).serials
    return [
        entry
        for entry in register.issued
        if entry.signer != new and entry.expires > now.timestamp() and int(entry.serial, 16) not in revoked
    ]


def follow(folder: Path, identity: Path) -> None:
    """Let the cloud trust what its authority trusts, and renew its certificate where clients will ask for another one.

    That is where the authority that has signed it is dropped, or another cloud's certificate was revoked. If its own
    was revoked, whoever asks may have stolen it, and only `diredi pki issue` helps.

    Args:
        folder: The folder of the authority.
        identity: The identity folder of the cloud.

    Raises:
        InvalidInput: The identity is of another authority.
    """
    bundle, own = (folder / CA_FILE).read_bytes(), Credentials.read(identity)
    certificate = x509.load_pem_x509_certificate(own.certificate)
    denied = DenyList.read(folder / CRL_FILE, bundle)
    is_revoked = certificate.serial_number in denied.serials
    if not is_revoked and not has_generation(own, denied.generation_of(Role.CLOUD)):
        _renew_cloud(folder, identity, own)
    if own.ca == bundle:
        return
    before, trusted = (x509.load_pem_x509_certificates(pem) for pem in (own.ca, bundle))
    if not any(one in trusted for one in before):
        raise InvalidInput(
            f"{identity} is of another authority than {folder}: issue it again with `diredi pki issue cloud`"
        )
    if not is_revoked and not issued_by(certificate, ca.load(folder).certificate):
        _renew_cloud(folder, identity, own)
    atomic_write(identity / CA_FILE, bundle)


def _renew_cloud(folder: Path, identity: Path, own: Credentials) -> None:
    request = ca.request_for(own.key).public_bytes(serialization.Encoding.PEM)
    signed = enrolment.renew(folder, own.certificate, request)
    enrolment.write_credentials(identity, own.ca, signed, own.key, owner=own.identity)


def proof_of_next(folder: Path) -> bytes:
    """Return the proof of the next authority, to be handed to everybody; empty where none is under way."""
    path = folder / ca.NEXT_FOLDER / PROOF_FILE
    return path.read_bytes() if is_under_way(folder) else b""


def take_next(folder: Path, authority: bytes, proof: bytes) -> bytes:
    """Trust the next authority as well, if one that is trusted has signed it.

    Args:
        folder: The identity folder.
        authority: The certificates of the authorities that it trusts, in PEM form.
        proof: What `proof_of_next` gave.

    Returns:
        The certificates that it trusts now.

    Raises:
        InvalidInput: That is no proof, or by an authority that is not trusted.
    """
    try:
        own, signed = x509.load_pem_x509_certificates(proof)
        basics = [one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca for one in (own, signed)]
    except (ValueError, x509.ExtensionNotFound):
        raise InvalidInput("what came as the proof of a next authority is none: ask the cloud's admin") from None
    trusted = x509.load_pem_x509_certificates(authority)
    same = own.public_key() == signed.public_key() and own.subject == signed.subject
    if not all(basics) or not same or not issued_by(own, own) or not any(issued_by(signed, one) for one in trusted):
        raise InvalidInput("a next authority came that ours has not signed: it is not believed; ask the cloud's admin")
    if own in trusted:
        return authority
    atomic_write(folder / CA_FILE, authority + _pem(own))
    return authority + _pem(own)


def drop_revoked(folder: Path, authority: bytes, deny_list: bytes) -> None:
    """Forget the authorities that a deny list revokes, if the newest has signed it and one's own certificate."""
    trusted = x509.load_pem_x509_certificates(authority)
    crl = x509.load_pem_x509_crl(deny_list)
    last = trusted[-1]
    own = x509.load_pem_x509_certificate((folder / CERTIFICATE_FILE).read_bytes())
    if not crl.is_signature_valid(last.public_key()) or not issued_by(own, last):  # type: ignore[arg-type]
        return
    revoked = {entry.serial_number for entry in crl}
    kept = [one for one in trusted if one is last or one.serial_number not in revoked]
    if len(kept) < len(trusted):
        atomic_write(folder / CA_FILE, b"".join(map(_pem, kept)))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
