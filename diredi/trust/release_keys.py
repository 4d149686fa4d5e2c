"""The keys that sign releases, and the root that says which keys these are: TUF roles in a folder beside the authority.

    root-key.pem      signs root.json, which names all other keys; used at set-up and when a key is replaced
    targets-key.pem   signs which releases there are; whoever holds it decides what cameras run
    online-key.pem    signs snapshot and timestamp: that this is the newest; the cloud's process holds it
    role-names.key    makes the names of roles, which every device sees, out of scopes, which it must not
    root.json         what every other part is given with its certificate, and trusts from then on
    N.root.json       each root that there ever was, so that a device that was away can follow
    next.root.json    the root that is to follow, while signatures are missing; *.next are keys that it names

The root key and the targets key may lie behind a passphrase, or be keys of persons that are in no folder here: then
nobody who takes the cloud's machine can sign a release.

The Update Framework, https://theupdateframework.github.io/specification/latest/, sections 4 and 6.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from diredi.errors import InvalidInput, WrongState
from diredi.store.files import atomic_write, make_folder
from diredi.trust.passphrase import read_passphrase

FOLDER: Final = "releases"
"""The folder of the keys, within that of the authority."""
ROOT_FILE: Final = "root.json"
ROOT_KEY_FILE: Final = "root-key.pem"
TARGETS_KEY_FILE: Final = "targets-key.pem"
ONLINE_KEY_FILE: Final = "online-key.pem"
ROLE_NAMES_FILE: Final = "role-names.key"
ROOT_LIFETIME: Final = timedelta(days=3650)
PASSPHRASE_FILE: Final = "DIREDI_RELEASE_PASSPHRASE_FILE"
"""The variable of the environment that names the file with the passphrase of the keys that sign releases."""
NEXT_ROOT_FILE: Final = "next.root.json"
ROOT, TARGETS, ONLINE = "root", "targets", "online"
KEY_FILES: Final = MappingProxyType({ROOT: ROOT_KEY_FILE, TARGETS: TARGETS_KEY_FILE, ONLINE: ONLINE_KEY_FILE})
"""The file of the key that is made at set-up, by role."""
_TUF_ROLES: Final = MappingProxyType(
    {ROOT: (Root.type,), TARGETS: (Targets.type,), ONLINE: (Snapshot.type, Timestamp.type)}
)
_NEXT: Final = ".next"


def init(folder: Path, now: datetime | None = None) -> None:
    """Make the keys and the first root in a folder; one that has a root is left as it is.

    The root key and the targets key are behind the passphrase of DIREDI_RELEASE_PASSPHRASE_FILE, where that is set.

    Args:
        folder: Where the keys go.
        now: The time to count from; None takes the clock.
    """
    if (folder / ROOT_FILE).exists():
        return
    make_folder(folder)
    keys = {name: Ed25519PrivateKey.generate() for name in (ROOT_KEY_FILE, TARGETS_KEY_FILE, ONLINE_KEY_FILE)}
    root = Root(expires=_whole_second(now) + ROOT_LIFETIME, consistent_snapshot=True)
    for role, names in KEY_FILES.items():
        for tuf_role in _TUF_ROLES[role]:
            root.add_key(CryptoSigner(keys[names]).public_key, tuf_role)
    metadata = Metadata(root)
    metadata.sign(CryptoSigner(keys[ROOT_KEY_FILE]))
    data = metadata.to_bytes()
    for name, key in keys.items():
        atomic_write(folder / name, _to_pem(key, name), mode=0o600)
    atomic_write(folder / ROLE_NAMES_FILE, secrets.token_bytes(32), mode=0o600)
    atomic_write(folder / f"{root.version}.{ROOT_FILE}", data)
    atomic_write(folder / ROOT_FILE, data)  # last: with it the folder is complete


def make_key(path: Path, secret: bytes) -> Key:
    """Make a key with which a person signs: the key behind a passphrase in `path`, its public part in `path`.pub.

    Args:
        path: The file; it must not be there yet.
        secret: The passphrase.

    Returns:
        The public part.

    Raises:
        WrongState: The file is there already.
        InvalidInput: The passphrase is empty.
    """
    if path.exists():
        raise WrongState(f"{path} is there already: name another file")
    if not secret:
        raise InvalidInput(f"the key needs a passphrase: name a file that holds it in {PASSPHRASE_FILE}")
    key = Ed25519PrivateKey.generate()
    make_folder(path.parent)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    atomic_write(
        path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret)), mode=0o600
    )
    atomic_write(path.with_name(f"{path.name}.pub"), public)
    return CryptoSigner(key).public_key


def load_public(path: Path) -> Key:
    """Load the public part of a key.

    Raises:
        InvalidInput: The file cannot be read, or is no public key.
    """
    try:
        return SSlibKey.from_crypto(load_pem_public_key(read_key(path)))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidInput(f"{path} is no public key in PEM form: name the file that ends with .pub") from None


def rotate(folder: Path, *names: str, now: datetime | None = None) -> Metadata[Root]:
    """Replace keys by new ones that are made here, and sign a root that says so with the old root key and the new one.

    The cloud's identity is given the new root afterwards (`hand_out`). A device follows by itself, however many roots
    it has missed, and forgets what a stolen key has signed.

    Args:
        folder: The folder of the keys.
        names: The files of the keys to be replaced, such as TARGETS_KEY_FILE.
        now: The time to count from; None takes the clock.

    Returns:
        The new root; it is in force where it `is_complete`.

    Raises:
        InvalidInput: The folder holds no root.
    """
    finish(folder)
    _own_root_signer(folder, Metadata[Root].from_bytes(read_root(folder)).signed)  # a missing passphrase is said first
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    for name, key in keys.items():
        atomic_write(folder / f"{name}{_NEXT}", _to_pem(key, name), mode=0o600)
    roles = {role: name for role, name in KEY_FILES.items() if name in keys}
    return _propose(
        folder,
        {role: ([CryptoSigner(keys[name]).public_key], 1) for role, name in roles.items()},
        [CryptoSigner(key) for name, key in keys.items() if name == ROOT_KEY_FILE],
        now,
    )


def entrust(
    folder: Path, role: str, keys: Sequence[Key], threshold: int, now: datetime | None = None
) -> Metadata[Root]:
    """Let others sign for a role, and sign a root that says so with the root key.

    Args:
        folder: The folder of the keys.
        role: ROOT or TARGETS.
        keys: The public parts of their keys; no other counts for the role from then on.
        threshold: How many of them have to sign.
        now: The time to count from; None takes the clock.

    Returns:
        The new root; it is in force where it `is_complete`, and otherwise waits for others to sign it.

    Raises:
        InvalidInput: The folder holds no root, or the threshold cannot be reached.
    """
    if not 1 <= threshold <= len({key.keyid for key in keys}):
        raise InvalidInput(f"a threshold of {threshold} cannot be reached with {len(keys)} keys: name more keys")
    finish(folder)
    return _propose(folder, {role: (keys, threshold)}, (), now)


def _propose(
    folder: Path,
    roles: Mapping[str, tuple[Sequence[Key], int]],
    signers: Sequence[CryptoSigner],
    now: datetime | None,
) -> Metadata[Root]:
    """Write the next root, sign it with all root keys that are here, and put it in force where that is enough."""
    metadata = Metadata[Root].from_bytes(read_root(folder))
    root = metadata.signed
    old = _own_root_signer(folder, root)
    for role, (keys, threshold) in roles.items():
        for tuf_role in _TUF_ROLES[role]:
            for keyid in list(root.roles[tuf_role].keyids):
                root.revoke_key(keyid, tuf_role)
            for key in keys:
                root.add_key(key, tuf_role)
            root.roles[tuf_role].threshold = threshold
    root.version, root.expires = root.version + 1, _whole_second(now) + ROOT_LIFETIME
    metadata.signatures.clear()
    for signer in (*(() if old is None else (old,)), *signers):
        metadata.sign(signer, append=True)
    atomic_write(folder / NEXT_ROOT_FILE, metadata.to_bytes())
    finish(folder)
    return metadata


def is_complete(previous: Metadata[Root], root: Metadata[Root]) -> bool:
    """Return whether a root is signed by enough keys of the one before and by enough of its own."""
    return bool(root.signed.get_root_verification_result(previous.signed, root.signed_bytes, root.signatures))


def finish(folder: Path, proposed: bytes = b"") -> None:
    """Put the next root in force where it is signed by enough. It goes on with what was interrupted.

    Args:
        folder: The folder of the keys.
        proposed: The next root with signatures from elsewhere; empty for none.

    Raises:
        InvalidInput: The folder holds no root.
    """
    current = Metadata[Root].from_bytes(read_root(folder))
    path = folder / NEXT_ROOT_FILE
    data = proposed or (path.read_bytes() if path.exists() else b"")
    if data:
        try:
            following = Metadata[Root].from_bytes(data)
        except DeserializationError:
            raise InvalidInput("the next root is no root: name the next.root.json that others have signed") from None
        if following.signed.version == current.signed.version + 1 and is_complete(current, following):
            atomic_write(folder / f"{following.signed.version}.{ROOT_FILE}", data)
            atomic_write(folder / ROOT_FILE, data)
            current = following
        elif following.signed.version > current.signed.version:
            return
    for name in KEY_FILES.values():
        fresh = folder / f"{name}{_NEXT}"
        if fresh.exists():
            named = load_signer(fresh).public_key.keyid in current.signed.keys
            fresh.replace(folder / name) if named else fresh.unlink()
    path.unlink(missing_ok=True)


def _own_root_signer(folder: Path, root: Root) -> CryptoSigner | None:
    """Return the root key of a folder; None where it has none that the root names."""
    if not (folder / ROOT_KEY_FILE).exists():
        return None
    signer = load_signer(folder / ROOT_KEY_FILE)
    return signer if signer.public_key.keyid in root.roles[Root.type].keyids else None


def _to_pem(key: Ed25519PrivateKey, name: str) -> bytes:
    """Return a key as it is stored: behind the passphrase, but for the online key, which the cloud uses unattended."""
    secret = b"" if name == ONLINE_KEY_FILE else read_passphrase(PASSPHRASE_FILE)
    encryption = BestAvailableEncryption(secret) if secret else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def hand_out(folder: Path, out: Path, *, to_cloud: bool) -> None:
    """Give an identity folder what its owner needs of releases; what is there and the same stays.

    Everybody gets the root. The cloud also gets all earlier roots and the keys with which it publishes: the online key,
    and the targets key where it is not behind a passphrase. An operator who wants to sign elsewhere puts it behind one.

    Args:
        folder: The folder of the keys; nothing is given where it has no root.
        out: The identity folder.
        to_cloud: Whether that is the cloud's.
    """
    if not (folder / ROOT_FILE).exists():
        return
    wanted = [folder / ROOT_FILE]
    if to_cloud:
        wanted += [*sorted(folder.glob(f"[0-9]*.{ROOT_FILE}")), folder / ONLINE_KEY_FILE, folder / ROLE_NAMES_FILE]
        targets = folder / TARGETS_KEY_FILE
        if targets.exists() and b"ENCRYPTED" not in targets.read_bytes():
            wanted.append(targets)
    for source in wanted:
        target, data = out / source.name, source.read_bytes()
        if not target.exists() or target.read_bytes() != data:
            atomic_write(target, data, mode=0o666 if source.suffix == ".json" else 0o600)


def load_signer(path: Path, secret: bytes | None = None) -> CryptoSigner:
    """Load a key that signs metadata.

    Args:
        path: The file.
        secret: Its passphrase; None: that of DIREDI_RELEASE_PASSPHRASE_FILE, where the key is behind one.

    Raises:
        InvalidInput: The file cannot be read, or is no such key, or the passphrase is wrong or missing.
    """
    pem = read_key(path)
    if b"ENCRYPTED" not in pem:
        secret = None
    elif not secret:
        secret = read_passphrase(PASSPHRASE_FILE) or None
    try:
        return CryptoSigner(load_pem_private_key(pem, secret))
    except TypeError:
        raise InvalidInput(f"{path} is behind a passphrase: name the file that holds it in {PASSPHRASE_FILE}") from None
    except (ValueError, SigningError):
        why = "the passphrase is wrong, or it" if secret else "it"
        raise InvalidInput(f"{path} cannot be used: {why} is no private key in PEM form, put the right one") from None


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
