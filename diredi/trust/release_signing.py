"""What a person who signs releases sees, checks and signs: metadata that wait, in a file that can be carried about.

The one who signs does not trust the cloud. What is said about a release is read from the very bytes that are signed,
and compared with what is published, which the root proves.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets
from tuf.api.serialization import DeserializationError

from diredi.errors import CorruptData, InvalidInput, NotFound, Untrusted
from diredi.store.files import atomic_write
from diredi.trust.release_keys import ROOT, TARGETS
from diredi.trust.release_repository import TARGETS_LIFETIME, ReleaseClaims

_SCOPE: Final = "x-diredi-scope"


class Bundle(BaseModel):
    """Metadata that wait for signatures, with what is needed to judge them, as text in a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    roots: tuple[str, ...] = ()
    """The roots that there are; the signer follows them from the one that he trusts."""
    waiting: dict[str, str] = Field(default_factory=dict)
    """The metadata by the name of their role; "root" for the next root."""
    published: dict[str, str] = Field(default_factory=dict)
    """What is in force now of the same roles."""

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Read a file.

        Raises:
            NotFound: There is none.
            CorruptData: It is no such file.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise NotFound(f"there is no file {path}: make it with `diredi release pending --out`") from None
        except (ValidationError, OSError):
            raise CorruptData(f"{path} is no file of `diredi release pending --out`: make another one") from None

    def write(self, path: Path) -> None:
        """Write a file, whole or not at all."""
        atomic_write(path, self.model_dump_json(indent=1))


class Request(BaseModel):
    """One thing to sign, verified as far as that is possible without knowing what the manufacturer wants."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    metadata: Metadata[Any]
    role: str
    """Whose signatures count: ROOT or TARGETS."""
    keyids: tuple[str, ...]
    threshold: int
    words: tuple[str, ...]
    """What it means, a line each."""

    @property
    def signatures(self) -> int:
        """How many signatures it has that count."""
        return len(set(self.metadata.signatures) & set(self.keyids))

    def sign(self, signer: CryptoSigner) -> None:
        """Add a signature.

        Raises:
            InvalidInput: The root does not name this key for it.
        """
        keyid = signer.public_key.keyid
        if keyid not in self.keyids:
            raise InvalidInput(
                f"the key {keyid[:12]} does not count for {self.name}: the root names {_short(self.keyids)} for it"
            )
        self.metadata.sign(signer, append=True)


def examine(bundle: Bundle, root: Metadata[Root], now: datetime | None = None) -> list[Request]:
    """Verify all that waits, and say what it means.

    Args:
        bundle: What waits.
        root: The newest root that the signer trusts.
        now: The time; None takes the clock.

    Raises:
        Untrusted: Something is not what a cloud would publish; the message says what.
    """
    now = now or datetime.now(UTC)
    requests = []
    for name, text in sorted(bundle.waiting.items()):
        try:
            if name == Root.type:
                requests.append(_examine_root(Metadata[Root].from_bytes(text.encode()), root))
            else:
                before = _read_published(name, bundle, root)
                requests.append(_examine_role(name, Metadata[Targets].from_bytes(text.encode()), before, root, now))
        except (DeserializationError, RepositoryError, ValidationError, AttributeError, KeyError) as error:
            why = " ".join(str(error).split())[:160]
            raise Untrusted(f"{name} cannot be signed: it is not what a cloud publishes ({why})") from None
    return requests


def _examine_role(
    name: str, metadata: Metadata[Targets], before: Metadata[Targets] | None, root: Metadata[Root], now: datetime
) -> Request:
    signed, role = metadata.signed, root.signed.roles[Targets.type]
    last = 0 if before is None else before.signed.version
    if not isinstance(signed, Targets):
        raise Untrusted(f"{name} cannot be signed: it is of another kind")
    if signed.version <= last:
        raise Untrusted(f"{name} cannot be signed: version {signed.version} does not follow {last}, which is published")
    if signed.expires > now + TARGETS_LIFETIME + timedelta(days=1):
        raise Untrusted(f"{name} cannot be signed: it would hold until {signed.expires:%Y-%m-%d}")
    if name == Targets.type:
        words = _describe_delegations(metadata, before, root)
    else:
        words = _describe_releases(name, metadata, before)
    words.append(f"holds until {signed.expires:%Y-%m-%d}")
    return Request(
        name=name, metadata=metadata, role=TARGETS, keyids=tuple(role.keyids), threshold=role.threshold,
        words=tuple(words),
    )  # fmt: skip


def _describe_delegations(
    metadata: Metadata[Targets], before: Metadata[Targets] | None, root: Metadata[Root]
) -> list[str]:
    """Say for how many scopes there are releases. Raises Untrusted where other keys would sign for one."""
    delegations, role = metadata.signed.delegations, root.signed.roles[Targets.type]
    if metadata.signed.targets or delegations is None or delegations.roles is None:
        raise Untrusted("targets cannot be signed: it lists files, or no scopes")
    for name, delegated in delegations.roles.items():
        if set(delegated.keyids) != set(role.keyids) or delegated.threshold != role.threshold:
            raise Untrusted(f"targets cannot be signed: it lets other keys sign for the scope {name}")
        if delegated.paths != [f"{name}/*"]:
            raise Untrusted(f"targets cannot be signed: the scope {name} would list files of others")
    had = 0 if before is None or before.signed.delegations is None else len(before.signed.delegations.roles or ())
    return [f"the list of scopes: {len(delegations.roles)}, and {had} before"]


def _describe_releases(name: str, metadata: Metadata[Targets], before: Metadata[Targets] | None) -> list[str]:
    if metadata.signed.delegations is not None:
        raise Untrusted(f"{name} cannot be signed: it lets others sign in its place")
    scope = str(metadata.signed.unrecognized_fields.get(_SCOPE, ""))
    new, old = _releases(name, metadata, scope), {} if before is None else _releases(name, before, scope)
    words = [f"releases for {scope}"]
    for version, (claims, digest, length) in sorted(new.items()):
        what = "stays" if old.get(version) == (claims, digest, length) else "NEW"
        gate = ", ".join(f"{figure} {value}" for figure, value in claims.gate.items())
        words.append(
            f"{what}: release {version}, {claims.architecture} at {claims.image_size} px, {length} bytes, {digest}; "
            f"student {claims.student.removeprefix('sha256:')[:12]} of {claims.cycle or 'the first training'}; "
            f"gate: {gate or 'none'}"
        )
    words += [f"gone: release {version}" for version in sorted(set(old) - set(new))]
    return words


def _releases(name: str, metadata: Metadata[Targets], scope: str) -> dict[int, tuple[ReleaseClaims, str, int]]:
    found = {}
    for path, file in metadata.signed.targets.items():
        claims = ReleaseClaims.model_validate(file.unrecognized_fields["custom"])
        if path != f"{name}/{claims.version}.onnx" or claims.scope != scope:
            raise Untrusted(f"{name} cannot be signed: {path} is not the path of release {claims.version} of {scope}")
        found[claims.version] = (claims, file.hashes["sha256"], file.length)
    return found


def _examine_root(following: Metadata[Root], root: Metadata[Root]) -> Request:
    new, old = following.signed, root.signed
    if new.version != old.version + 1:
        raise Untrusted(
            f"root {new.version} cannot be signed: it does not follow root {old.version}, which is in force"
        )
    words = [f"root {new.version}, which holds until {new.expires:%Y-%m-%d}"]
    for role, now, before in ((name, new.roles[name], old.roles[name]) for name in sorted(new.roles)):
        is_same = (set(now.keyids), now.threshold) == (set(before.keyids), before.threshold)
        said = f"{now.threshold} of {_short(now.keyids)} sign for {role}"
        words.append(
            f"stays: {said}" if is_same else f"NEW: {said}; until now {before.threshold} of {_short(before.keyids)}"
        )
    keyids = (*old.roles[Root.type].keyids, *new.roles[Root.type].keyids)
    threshold = max(old.roles[Root.type].threshold, new.roles[Root.type].threshold)
    return Request(
        name=Root.type, metadata=following, role=ROOT, keyids=tuple(dict.fromkeys(keyids)), threshold=threshold,
        words=tuple(words),
    )  # fmt: skip


def _read_published(name: str, bundle: Bundle, root: Metadata[Root]) -> Metadata[Targets] | None:
    """Return what is published of a role; None for what the keys that count now have not signed."""
    if name not in bundle.published:
        return None
    metadata = Metadata[Targets].from_bytes(bundle.published[name].encode())
    role = root.signed.get_verification_result(Targets.type, metadata.signed_bytes, metadata.signatures)
    return metadata if role else None


def _short(keyids: Iterable[str]) -> str:
    return ", ".join(keyid[:12] for keyid in sorted(keyids))


def describe_keys(root: Metadata[Root]) -> list[tuple[str, int, list[str]]]:
    """Return role, threshold and key ids of each role that a root names."""
    roles = root.signed.roles
    return [(name, roles[name].threshold, sorted(roles[name].keyids)) for name in sorted(roles)]
