"""The keys that sign releases, and the root that says which keys these are: TUF roles in a folder beside the authority.

    root-key.pem      signs root.json, which names all other keys; used at set-up and when a key is replaced
    targets-key.pem   signs which releases there are; whoever holds it decides what cameras run
    online-key.pem    signs snapshot and timestamp: that this is the newest; the cloud's process holds it
    role-names.key    makes the names of roles, which every device sees, out of scopes, which it must not
    root.json         what every other part is given with its certificate, and trusts from then on
    N.root.json       each root that there ever was, so that a device that was away can follow

The Update Framework, https://theupdateframework.github.io/specification/latest/, sections 4 and 6.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from diredi.errors import InvalidInput
from diredi.store.files import atomic_write, make_folder

FOLDER: Final = "releases"
"""The folder of the keys, within that of the authority."""
ROOT_FILE: Final = "root.json"
ROOT_KEY_FILE: Final = "root-key.pem"
TARGETS_KEY_FILE: Final = "targets-key.pem"
ONLINE_KEY_FILE: Final = "online-key.pem"
ROLE_NAMES_FILE: Final = "role-names.key"
ROOT_LIFETIME: Final = timedelta(days=3650)
_ROLES: Final = (
    (Root.type, ROOT_KEY_FILE),
    (Targets.type, TARGETS_KEY_FILE),
    (Snapshot.type, ONLINE_KEY_FILE),
    (Timestamp.type, ONLINE_KEY_FILE),
)


def init(folder: Path, now: datetime | None = None) -> None:
    """Make the keys and the first root in a folder; one that has a root is left as it is.

    Args:
        folder: Where the keys go.
        now: The time to count from; None takes the clock.
    """
    if (folder / ROOT_FILE).exists():
        return
    make_folder(folder)
    signers = {name: CryptoSigner.generate_ed25519() for name in (ROOT_KEY_FILE, TARGETS_KEY_FILE, ONLINE_KEY_FILE)}
    root = Root(expires=_whole_second(now) + ROOT_LIFETIME, consistent_snapshot=True)
    for role, name in _ROLES:
        root.add_key(signers[name].public_key, role)
    metadata = Metadata(root)
    metadata.sign(signers[ROOT_KEY_FILE])
    data = metadata.to_bytes()
    for name, signer in signers.items():
        atomic_write(folder / name, signer.private_bytes, mode=0o600)
    atomic_write(folder / ROLE_NAMES_FILE, secrets.token_bytes(32), mode=0o600)
    atomic_write(folder / f"{root.version}.{ROOT_FILE}", data)
    atomic_write(folder / ROOT_FILE, data)  # last: with it the folder is complete


def rotate(folder: Path, *names: str, now: datetime | None = None) -> None:
    """Replace keys, and sign a new root that says so with the old root key and the new one.

    The cloud's identity is issued again afterwards (`hand_out`). A device follows by itself, however many roots it has
    missed, and forgets what a stolen key has signed.

    Args:
        folder: The folder of the keys.
        names: The files of the keys to be replaced, such as TARGETS_KEY_FILE.
        now: The time to count from; None takes the clock.

    Raises:
        InvalidInput: The folder holds no root, or not its key.
    """
    metadata = Metadata[Root].from_bytes(read_root(folder))
    root, old_root_key = metadata.signed, load_signer(folder / ROOT_KEY_FILE)
    fresh = {name: CryptoSigner.generate_ed25519() for name in names}
    for role, name in _ROLES:
        if name in fresh:
            for keyid in list(root.roles[role].keyids):
                root.revoke_key(keyid, role)
            root.add_key(fresh[name].public_key, role)
    root.version, root.expires = root.version + 1, _whole_second(now) + ROOT_LIFETIME
    metadata.sign(old_root_key)
    if ROOT_KEY_FILE in fresh:
        metadata.sign(fresh[ROOT_KEY_FILE], append=True)
    data = metadata.to_bytes()
    for name, signer in fresh.items():
        atomic_write(folder / name, signer.private_bytes, mode=0o600)
    atomic_write(folder / f"{root.version}.{ROOT_FILE}", data)
    atomic_write(folder / ROOT_FILE, data)


def hand_out(folder: Path, out: Path, *, to_cloud: bool) -> None:
    """Give an identity folder what its owner needs of releases; what is there and the same stays.

    Everybody gets the root. The cloud also gets all earlier roots and the keys with which it publishes. An
    operator who wants to sign elsewhere removes targets-key.pem from the cloud's folder.

    Args:
        folder: The folder of the keys; nothing is given where it has no root.
        out: The identity folder.
        to_cloud: Whether that is the cloud's.
    """
    if not (folder / ROOT_FILE).exists():
        return
    wanted = [folder / ROOT_FILE]
    if to_cloud:
        secret = (ONLINE_KEY_FILE, TARGETS_KEY_FILE, ROLE_NAMES_FILE)
        wanted += [*sorted(folder.glob(f"*.{ROOT_FILE}")), *(folder / name for name in secret)]
    for source in wanted:
        target, data = out / source.name, source.read_bytes()
        if not target.exists() or target.read_bytes() != data:
            atomic_write(target, data, mode=0o666 if source.suffix == ".json" else 0o600)


def load_signer(path: Path) -> CryptoSigner:
    """Load a key that signs metadata.

    Raises:
        InvalidInput: The file cannot be read, or is no such key.
    """
    try:
        return CryptoSigner(load_pem_private_key(read_key(path), password=None))
    except (ValueError, TypeError, SigningError):
        raise InvalidInput(f"{path} is not a private key in PEM form without a password: put the right one") from None


def read_key(path: Path) -> bytes:
    """Read the file of a key. Raises InvalidInput where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}): issue the cloud's identity again") from None


def read_root(folder: Path) -> bytes:
    """Read the root of an identity folder.

    Raises:
        InvalidInput: There is none, or it is no root.
    """
    path = folder / ROOT_FILE
    try:
        data = path.read_bytes()
        Metadata[Root].from_bytes(data)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}): copy it from the authority's folder {FOLDER}/, "
            "or issue the identity again"
        ) from None
    except (DeserializationError, RepositoryError, ValueError):
        raise InvalidInput(f"{path} is no root of releases: copy it from the authority's folder {FOLDER}/") from None
    return data


def newest_root(roots: Sequence[bytes]) -> Metadata[Root]:
    """Follow a chain of roots from one that is trusted; a root that the one before did not sign ends it.

    Args:
        roots: The trusted root, then those that may follow, in order.
    """
    trusted = Metadata[Root].from_bytes(roots[0])
    for data in roots[1:]:
        try:
            following = Metadata[Root].from_bytes(data)
            if following.signed.version <= trusted.signed.version:
                continue
            trusted.signed.verify_delegate(Root.type, following.signed_bytes, following.signatures)
            following.signed.verify_delegate(Root.type, following.signed_bytes, following.signatures)
        except (DeserializationError, RepositoryError, ValueError):
            break
        trusted = following
    return trusted


def _whole_second(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)
