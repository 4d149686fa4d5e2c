"""The cloud's side of The Update Framework: signed metadata that say which releases there are, in a folder of files.

    N.root.json        which keys count, handed out with the certificates
    N.targets.json     one delegated role for each scope, so that a device reads nothing of other scopes
    N.<role>.json      the releases that devices of a scope may be told to run: digest, length, claims
    N.snapshot.json    which of these belong together
    timestamp.json     that this is the newest; written last, so a cloud that dies on the way has published nothing
    waiting-*.json     what is published as soon as enough keys have signed it, with the signatures so far

Every device sees the names of all roles, so these are codes made of the scopes. The scope is written within a role.

The Update Framework, https://theupdateframework.github.io/specification/latest/
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization import DeserializationError

from diredi.errors import CorruptData, InvalidInput, NotFound, Untrusted, WrongState
from diredi.labels import LabelSpace
from diredi.store.blobs import Blob, hex_of
from diredi.store.files import atomic_write, make_folder, read_state
from diredi.trust import release_keys
from diredi.trust.log_head import LOG_HEAD_FILE, LogHead, read_head, sign_head
from diredi.trust.merkle import root_after

S = TypeVar("S", Root, Snapshot, Targets, Timestamp)
TARGETS_LIFETIME: Final = timedelta(days=365)
SNAPSHOT_LIFETIME: Final = timedelta(days=30)
TIMESTAMP_LIFETIME: Final = timedelta(days=7)
"""A device that hears nothing newer for so long knows that it is kept from updates, and says so."""
_RESIGN_TIMESTAMP_EVERY: Final = timedelta(hours=6)
_FILE: Final = re.compile(r"(?:(\d{1,12})\.)?([a-z0-9]{1,32})\.json")
_CUSTOM: Final = "custom"
_RESTORED_FILE: Final = "restored-at.json"
_AHEAD_S: Final = 3600
"""How far a restored repository goes ahead of the clock: what was lost may have counted more than one a second."""
_READS: Final = 20
_WAITING: Final = "waiting-"
_SCOPE: Final = "x-diredi-scope"


class LogProof(BaseModel):
    """What proves that a release is in the log of decisions (`diredi.trust.merkle`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(ge=0)
    entry: str
    """The entry of the log: a line of JSON with version, scope and digest of the file."""
    peaks: tuple[str, ...]
    """The log before the entry, in hex."""
    root: str
    """The root of the log with the entry, in hex; with the release, it is signed by the targets key."""

    def holds_for(self, version: int, scope: str, file: str) -> bool:
        """Return whether the entry is about a release, and the root follows from it."""
        try:
            peaks = [bytes.fromhex(peak) for peak in self.peaks]
            said = json.loads(self.entry)
            is_about = (said["version"], said["scope"], said["file"]) == (version, scope, file)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        is_whole = len(peaks) == self.index.bit_count() and root_after(self.entry.encode(), peaks).hex() == self.root
        return is_about and is_whole


class ReleaseClaims(BaseModel):
    """What is signed of a release beside the digest and length of its file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = Field(ge=1, lt=10**9)
    scope: str
    sites: tuple[str, ...] = ()
    """For a group: digests of the names of the sites that are in it (`site_digest`)."""
    architecture: str
    labels: str
    """The digest of the class names (`labels_digest`)."""
    image_size: int
    student: str
    cycle: str = ""
    created: str = ""
    gate: dict[str, str] = Field(default_factory=dict)
    """Figures on the manufacturer's held-out images, as text: signed JSON has no fractions."""
    log: LogProof | None = None
    """Its place in the log of decisions; None in releases of before there was a log."""


class ReleaseTarget(BaseModel):
    """A release as it is to be published."""

    model_config = ConfigDict(frozen=True)

    file: Blob
    claims: ReleaseClaims


@dataclass(frozen=True)
class Unsigned:
    """Metadata that wait for signatures."""

    name: str
    metadata: Metadata[Targets]
    threshold: int
    """How many signatures they need."""
    keyids: tuple[str, ...]
    """Whose signatures count."""


@dataclass(frozen=True)
class SignaturesAdded:
    """What has come of signatures that somebody has handed in."""

    keyids: tuple[str, ...]
    """The keys whose signatures count."""
    published: bool


def labels_digest(labels: LabelSpace) -> str:
    """Return the digest of class names in their order."""
    return "sha256:" + hashlib.sha256(json.dumps(labels.names).encode()).hexdigest()


def site_digest(scope: str, site: str) -> str:
    """Return what a group's release says of a site in it: the sites of a group do not read each other's names."""
    return hashlib.sha256(f"{scope}\n{site}".encode()).hexdigest()


def possession_of(challenge: bytes, file: Iterable[bytes]) -> bytes:
    """Return the proof that somebody has a file.

    Args:
        challenge: What the cloud has told this device.
        file: The bytes of the file, in pieces.
    """
    digest = hashlib.sha256(challenge)
    for data in file:
        digest.update(data)
    return digest.digest()


class ReleaseRepository:
    """Sign what is published, and keep it in a folder. One process owns it."""

    def __init__(self, folder: Path, identity: Path, targets_keys: Path | None = None) -> None:
        """Open a repository, which is empty at first.

        Args:
            folder: Where the metadata are.
            identity: The cloud's identity folder, with the roots and the online key.
            targets_keys: The folder of the targets key, which need not hold one; None for the identity folder.

        Raises:
            InvalidInput: The identity folder has no root or no online key that the root names.
        """
        make_folder(folder)
        self._folder = folder
        self._lock = threading.RLock()
        chain = sorted(identity.glob(f"*.{release_keys.ROOT_FILE}"), key=lambda path: _number(path.name))
        newest = release_keys.read_root(identity)
        for path in chain:
            if not (folder / path.name).exists():
                atomic_write(folder / path.name, path.read_bytes())
        later = sorted(folder.glob(f"*.{release_keys.ROOT_FILE}"), key=lambda path: _number(path.name))
        self._root_metadata = release_keys.newest_root([newest, *(path.read_bytes() for path in later)])
        self._identity = identity
        self._restored = _read_restored(folder)
        self._online = self._load_online(self._root)
        self._role_names = release_keys.read_key(identity / release_keys.ROLE_NAMES_FILE)
        targets_key = (targets_keys or identity) / release_keys.TARGETS_KEY_FILE
        self._targets_signer = release_keys.load_signer(targets_key) if targets_key.exists() else None

    @property
    def _root(self) -> Root:
        return self._root_metadata.signed

    def _load_online(self, root: Root) -> CryptoSigner:
        path = self._identity / release_keys.ONLINE_KEY_FILE
        signer = release_keys.load_signer(path)
        if signer.public_key.keyid not in root.roles[Timestamp.type].keyids:
            raise InvalidInput(f"{path} is not the key that the newest root names: issue the cloud's identity again")
        return signer

    @property
    def is_unattended(self) -> bool:
        """Whether the keys that are here suffice to publish a release."""
        role = self._root.roles[Targets.type]
        return (
            role.threshold == 1
            and self._targets_signer is not None
            and self._targets_signer.public_key.keyid in role.keyids
        )

    def read(self, name: str) -> bytes:
        """Return a file of the repository.

        Raises:
            NotFound: There is none of that name.
        """
        if not _FILE.fullmatch(name):
            raise NotFound(f"there are no metadata {name[:80]!r}")
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"there are no metadata {name!r}") from None

    def scope_of(self, name: str) -> str | None:
        """Return the scope of a file; None for one that everybody may read."""
        match = _FILE.fullmatch(name)
        if match is None or match[2] in {Root.type, Targets.type, Snapshot.type, Timestamp.type}:
            return None
        role = self._current(match[2])
        return None if role is None else str(role.signed.unrecognized_fields.get(_SCOPE, ""))

    def published(self) -> dict[int, str]:
        """Return the path of each published release, by version."""
        paths: dict[int, str] = {}
        for name in self._scope_roles():
            role = self._current(name)
            assert role is not None
            for path, target in role.signed.targets.items():
                paths[ReleaseClaims.model_validate(target.unrecognized_fields[_CUSTOM]).version] = path
        return paths

    def publish(self, wanted: Sequence[ReleaseTarget], now: datetime, scopes: Iterable[str] = ()) -> dict[int, str]:
        """Make the signed metadata say what is wanted, where they say something else or soon end.

        Args:
            wanted: All releases that devices may be told to run.
            now: The current time.
            scopes: The scopes that ever had a release: a role never vanishes, or devices refuse all that follows.

        Returns:
            The path of each release that is published, by version: those wanted, or what was published before where
            signatures are missing. What is missing waits in `unsigned`.
        """
        with self._lock:
            changed = self.plan(wanted, now, scopes)
            before = self._read_waiting()
            for name, metadata in changed.items():
                if name in before and self._still_holds(before[name], metadata, now):
                    changed[name] = before[name]  # others may have signed it
                if self._targets_signer is not None:
                    changed[name].sign(self._targets_signer, append=True)
            self._publish_or_wait(changed, now)
            self.refresh(now)
            return self.published()

    def sign_head(self, size: int, root: bytes, now: datetime) -> None:
        """Sign how far the log of decisions is, where that is not signed yet."""
        try:
            known = read_state(self._folder / LOG_HEAD_FILE, lambda data: read_head(data, self._root))
        except Untrusted:  # signed by an online key that has been replaced since
            known = None
        if known is None or (known.size, known.root) != (size, root.hex()):
            head = LogHead(size=size, root=root.hex(), at=now)
            atomic_write(self._folder / LOG_HEAD_FILE, sign_head(head, self._online))

    def _publish_or_wait(self, changed: Mapping[str, Metadata[Targets]], now: datetime) -> bool:
        """Publish roles that all are signed by enough keys, and else keep them; return whether they are published."""
        is_signed = bool(changed) and all(self._is_signed(Targets.type, metadata) for metadata in changed.values())
        if is_signed:
            self.accept(changed, now)
        for name, metadata in changed.items():
            if not is_signed:
                atomic_write(self._folder / f"{_WAITING}{name}.json", metadata.to_bytes())
        for path in self._folder.glob(f"{_WAITING}*.json"):
            if is_signed or _waiting_name(path) not in changed:
                path.unlink(missing_ok=True)
        return is_signed

    def _read_waiting(self) -> dict[str, Metadata[Targets]]:
        found = {_waiting_name(path): _read(path, Targets) for path in self._folder.glob(f"{_WAITING}*.json")}
        return {name: metadata for name, metadata in found.items() if metadata is not None}

    def _still_holds(self, waiting: Metadata[Targets], wanted: Metadata[Targets], now: datetime) -> bool:
        """Return whether what waits says the same as what is wanted now, and may be published yet."""
        old, new = waiting.signed, wanted.signed
        said = (old.targets, old.delegations, old.unrecognized_fields)
        is_young = old.expires - now > TARGETS_LIFETIME / 2 and old.version >= self._restored
        return said == (new.targets, new.delegations, new.unrecognized_fields) and is_young

    def unsigned(self) -> list[Unsigned]:
        """Return the roles that wait for signatures, by name, with those that they have."""
        role = self._root.roles[Targets.type]
        with self._lock:
            return [
                Unsigned(name, metadata, role.threshold, tuple(role.keyids))
                for name, metadata in sorted(self._read_waiting().items())
            ]

    def add_signatures(self, name: str, data: bytes, now: datetime) -> SignaturesAdded:
        """Add the signatures of somebody to a role that waits for them, and publish when all have enough.

        Args:
            name: The role; "root" for the next root.
            data: The signed metadata.
            now: The current time.

        Returns:
            Whose signatures count, and whether something was published by them.

        Raises:
            InvalidInput: These are no metadata, or no key has signed them that the root names for the role.
            WrongState: They are not what waits.
        """
        with self._lock:
            if name == Root.type:
                root = _parse(data, Root)
                self._add_root(root)
                return SignaturesAdded(tuple(root.signatures), True)
            signed = _parse(data, Targets)
            waiting = self._read_waiting()
            if name not in waiting or waiting[name].signed_bytes != signed.signed_bytes:
                raise WrongState(
                    f"the metadata {name[:40]!r} are not what waits for a signature: fetch what waits again"
                )
            known = self._root.get_verification_result(Targets.type, signed.signed_bytes, signed.signatures).signed
            if not known:
                raise InvalidInput(f"no key that the root names for releases has signed the metadata {name}")
            for keyid in known:
                waiting[name].signatures[keyid] = signed.signatures[keyid]
            is_published = self._publish_or_wait(waiting, now)
            self.refresh(now)
            return SignaturesAdded(tuple(known), is_published)

    def _add_root(self, root: Metadata[Root]) -> None:
        """Put the next root in force, which is signed by enough."""
        number = self._root.version + 1
        if root.signed.version != number:
            raise WrongState(f"root {root.signed.version} does not follow: the cloud has root {number - 1}")
        if not release_keys.is_complete(self._root_metadata, root):
            raise InvalidInput(f"root {number} is not signed by enough keys of root {number - 1} and of its own")
        self._online = self._load_online(root.signed)
        atomic_write(self._folder / f"{number}.{release_keys.ROOT_FILE}", root.to_bytes())
        self._root_metadata = root

    def plan(
        self, wanted: Iterable[ReleaseTarget], now: datetime, scopes: Iterable[str] = ()
    ) -> dict[str, Metadata[Targets]]:
        """Return the roles that the targets key has to sign for what is wanted, by name; empty where nothing is new."""
        by_scope: dict[str, list[ReleaseTarget]] = {}
        for target in wanted:
            by_scope.setdefault(target.claims.scope, []).append(target)
        roles = self._scope_roles()
        names = {scope: name for name, scope in roles.items()}
        names |= {scope: self._role_name(scope) for scope in {*by_scope, *scopes} - set(names)}
        changed = {}
        for scope, name in names.items():
            targets = {}
            for target in by_scope.get(scope, []):
                file = _target_file(f"{name}/{target.claims.version}.onnx", target)
                targets[file.path] = file
            current = self._current(name)
            if current is None or current.signed.targets != targets or self._is_outdated(current, now):
                version, expires = self._next(current, now, TARGETS_LIFETIME)
                fresh = Targets(version=version, expires=expires, targets=targets, unrecognized_fields={_SCOPE: scope})
                changed[name] = Metadata(fresh)
        top = self._current(Targets.type)
        wanted_delegations = self._delegations(sorted(names.values()))
        if names and (top is None or top.signed.delegations != wanted_delegations or self._is_outdated(top, now)):
            version, expires = self._next(top, now, TARGETS_LIFETIME)
            changed[Targets.type] = Metadata(Targets(version=version, expires=expires, delegations=wanted_delegations))
        return changed

    def accept(self, signed: Mapping[str, Metadata[Targets]], now: datetime) -> None:
        """Publish roles that the targets key has signed.

        Raises:
            InvalidInput: The signatures are not those that the root asks for.
        """
        for name, metadata in signed.items():
            if not self._is_signed(Targets.type, metadata):
                raise InvalidInput(f"the metadata {name} are not signed by enough of the keys that the root names")
        with self._lock:
            self._publish(signed, now)

    def _publish(self, signed: Mapping[str, Metadata[Targets]], now: datetime) -> None:
        for name, metadata in signed.items():
            self._write(f"{metadata.signed.version}.{name}.json", metadata)
        snapshot = self._load(Snapshot, self._timestamp_meta())
        meta = dict(snapshot.signed.meta) if snapshot else {}
        meta |= {f"{name}.json": MetaFile(version=metadata.signed.version) for name, metadata in signed.items()}
        self._sign_snapshot(meta, now)
        self._forget_old(meta)

    def refresh(self, now: datetime) -> None:
        """Sign the timestamp again where it is some hours old, and the snapshot where half of its time has passed."""
        with self._lock:
            self._refresh(now)

    def _refresh(self, now: datetime) -> None:
        timestamp = self._timestamp()
        snapshot = self._load(Snapshot, self._timestamp_meta())
        if timestamp is None or snapshot is None:
            return
        signed = self._is_signed(Snapshot.type, snapshot) and self._is_signed(Timestamp.type, timestamp)
        is_restored = snapshot.signed.version < self._restored
        if snapshot.signed.expires - now < SNAPSHOT_LIFETIME / 2 or not signed or is_restored:
            self._sign_snapshot(dict(snapshot.signed.meta), now)
        elif timestamp.signed.expires - now < TIMESTAMP_LIFETIME - _RESIGN_TIMESTAMP_EVERY:
            self._sign_timestamp(snapshot.signed.version, now)

    def _sign_snapshot(self, meta: dict[str, MetaFile], now: datetime) -> None:
        current = self._load(Snapshot, self._timestamp_meta())
        version, expires = self._next(current, now, SNAPSHOT_LIFETIME)
        metadata = Metadata(Snapshot(version=version, expires=expires, meta=meta))
        metadata.sign(self._online)
        self._write(f"{version}.{Snapshot.type}.json", metadata)
        self._sign_timestamp(version, now)

    def _sign_timestamp(self, snapshot_version: int, now: datetime) -> None:
        version, expires = self._next(self._timestamp(), now, TIMESTAMP_LIFETIME)
        timestamp = Timestamp(version=version, expires=expires, snapshot_meta=MetaFile(version=snapshot_version))
        metadata = Metadata(timestamp)
        metadata.sign(self._online)
        self._write(f"{Timestamp.type}.json", metadata)

    def _next(self, current: Metadata[Any] | None, now: datetime, lifetime: timedelta) -> tuple[int, datetime]:
        """Return the next version and its end. The clock counts along: who has lost this folder still only rises."""
        last = 0 if current is None else current.signed.version
        return max(last + 1, int(now.timestamp()), self._restored), now.astimezone(UTC).replace(
            microsecond=0
        ) + lifetime

    def challenge(self, device: str, version: int) -> bytes:
        """Return what a device has to hash together with the file of a release, to show that it has the file."""
        return hmac.new(self._role_names, f"challenge\n{device}\n{version}".encode(), hashlib.sha256).digest()

    def _role_name(self, scope: str) -> str:
        return hmac.new(self._role_names, scope.encode(), hashlib.sha256).hexdigest()[:16]

    def _is_outdated(self, metadata: Metadata[Targets], now: datetime) -> bool:
        """Return whether a role is to be signed again: it ends soon, its key was replaced, or a backup brought it."""
        ends_soon = metadata.signed.expires - now < TARGETS_LIFETIME / 2
        return ends_soon or metadata.signed.version < self._restored or not self._is_signed(Targets.type, metadata)

    def _is_signed(self, role: str, metadata: Metadata[Any]) -> bool:
        return bool(self._root.get_verification_result(role, metadata.signed_bytes, metadata.signatures))

    def _delegations(self, names: Sequence[str]) -> Delegations:
        role = self._root.roles[Targets.type]
        return Delegations(
            keys={keyid: self._root.keys[keyid] for keyid in role.keyids},
            roles={
                name: DelegatedRole(name, list(role.keyids), role.threshold, terminating=True, paths=[f"{name}/*"])
                for name in names
            },
        )

    def _scope_roles(self) -> dict[str, str]:
        """Return the scope of each role that is published."""
        top = self._current(Targets.type)
        names = [] if top is None or top.signed.delegations is None else list(top.signed.delegations.roles or ())
        return {name: self.scope_of(f"{name}.json") or "" for name in names}

    def _current(self, role: str) -> Metadata[Targets] | None:
        """Return the published version of a targets role; None where it has none."""
        snapshot = self._load(Snapshot, self._timestamp_meta())
        return None if snapshot is None else self._load(Targets, snapshot.signed.meta.get(f"{role}.json"), role)

    def _timestamp(self) -> Metadata[Timestamp] | None:
        return _read(self._folder / f"{Timestamp.type}.json", Timestamp)

    def _timestamp_meta(self) -> MetaFile | None:
        timestamp = self._timestamp()
        return None if timestamp is None else timestamp.signed.snapshot_meta

    def _load(self, kind: type[S], meta: MetaFile | None, role: str = "") -> Metadata[S] | None:
        return None if meta is None else _read(self._folder / f"{meta.version}.{role or kind.type}.json", kind)

    def _write(self, name: str, metadata: Metadata[Any]) -> None:
        atomic_write(self._folder / name, metadata.to_bytes())

    def _forget_old(self, meta: Mapping[str, MetaFile]) -> None:
        """Delete what no snapshot names any more; a version before the current one stays for who is just reading."""
        for path in self._folder.glob("*.json"):
            number, _, rest = path.name.partition(".")
            if not number.isdigit() or rest == release_keys.ROOT_FILE:
                continue
            same = sorted((_number(other.name) for other in self._folder.glob(f"*.{rest}")), reverse=True)
            if int(number) not in same[:2]:
                path.unlink(missing_ok=True)


def read_published(folder: Path) -> dict[str, bytes]:
    """Read all metadata that belong together, while a cloud may be publishing others; empty where none are published.

    Args:
        folder: The folder of a repository.

    Returns:
        The bytes of each file, by name.

    Raises:
        CorruptData: A file that others name is not there, or is damaged.
    """
    missing = ""
    for _ in range(_READS):
        try:
            return _read_once(folder)
        except FileNotFoundError as error:  # or something newer was published meanwhile
            missing = str(error.filename)
        except (DeserializationError, KeyError, AttributeError, ValueError) as error:
            raise CorruptData(
                f"the signed metadata in {folder} are damaged ({' '.join(str(error).split())[:120]}): the cloud signs "
                "them again when it starts"
            ) from None
    raise CorruptData(f"the signed metadata lack {missing}: the cloud signs them again when it starts")


def _read_once(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in sorted(folder.glob(f"*.{release_keys.ROOT_FILE}"))}
    head = folder / LOG_HEAD_FILE
    if head.exists():
        files[head.name] = head.read_bytes()
    first = folder / f"{Timestamp.type}.json"
    if not first.exists():
        return files
    timestamp = first.read_bytes()
    name = f"{Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta.version}.{Snapshot.type}.json"
    files[name] = (folder / name).read_bytes()
    for role, meta in Metadata[Snapshot].from_bytes(files[name]).signed.meta.items():
        files[f"{meta.version}.{role}"] = (folder / f"{meta.version}.{role}").read_bytes()
    return files | {first.name: timestamp}


def read_claims(files: Mapping[str, bytes]) -> list[ReleaseClaims]:
    """Return what is signed of each release that metadata list, as `read_published` has read them."""
    return [
        ReleaseClaims.model_validate(target.unrecognized_fields[_CUSTOM])
        for role in _target_roles(files)
        for target in role.targets.values()
    ]


def list_paths(files: Mapping[str, bytes]) -> list[str]:
    """Return the path of each release that metadata list, as `read_published` has read them."""
    return sorted(path for role in _target_roles(files) for path in role.targets)


def _target_roles(files: Mapping[str, bytes]) -> list[Targets]:
    others = {Root.type, Snapshot.type, Timestamp.type, LOG_HEAD_FILE.removesuffix(".json")}
    return [
        Metadata[Targets].from_bytes(data).signed for name, data in files.items() if name.split(".")[-2] not in others
    ]


def mark_restored(folder: Path, now: datetime) -> None:
    """Record that a backup has brought these metadata: all are signed again, as devices may know newer ones."""
    make_folder(folder)
    atomic_write(folder / _RESTORED_FILE, json.dumps({"at": int(now.timestamp()) + _AHEAD_S}))


def _read_restored(folder: Path) -> int:
    return read_state(folder / _RESTORED_FILE, lambda data: int(json.loads(data)["at"])) or 0


def _read(path: Path, kind: type[S]) -> Metadata[S] | None:
    """Return the metadata of a file; None where there is none, or the disk has damaged it: then it is signed anew."""

    def parse(data: bytes) -> Metadata[S]:
        try:
            metadata = Metadata[S].from_bytes(data)
        except DeserializationError as error:
            raise ValueError(str(error)) from None
        if not isinstance(metadata.signed, kind):
            raise ValueError(f"these are the metadata of {metadata.signed.type}")
        return metadata

    return read_state(path, parse)


def _parse(data: bytes, kind: type[S]) -> Metadata[S]:
    try:
        metadata = Metadata[S].from_bytes(data)
    except (DeserializationError, RecursionError):
        raise InvalidInput("these are no metadata of releases: send what waits, and signatures with it") from None
    if not isinstance(metadata.signed, kind):
        raise InvalidInput(f"these are the metadata of {metadata.signed.type}: send what waits, and signatures with it")
    return metadata


def _target_file(path: str, target: ReleaseTarget) -> TargetFile:
    return TargetFile(
        length=target.file.bytes,
        hashes={"sha256": hex_of(target.file.digest)},
        path=path,
        unrecognized_fields={_CUSTOM: target.claims.model_dump(mode="json", exclude_none=True)},
    )


def _waiting_name(path: Path) -> str:
    return path.name.removeprefix(_WAITING).removesuffix(".json")


def _number(name: str) -> int:
    number = name.partition(".")[0]
    return int(number) if number.isdigit() else 0
