"""The device's side of The Update Framework: what is told of a release is believed only as far as it is signed.

A device trusts the root that it was given at set-up. `ReleaseClient.prove` asks for the newest metadata and returns the
proof of one release: the signed roles that list it. `check_proof` checks such a proof again, without a
network and whatever the clock says, so that a camera starts with what it once has verified.

The Update Framework, https://theupdateframework.github.io/specification/latest/, section 5
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError
from tuf.api import exceptions as tuf
from tuf.api.metadata import Metadata, Root, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from diredi.errors import DirediError, NotFound, Untrusted
from diredi.store.blobs import Blob
from diredi.store.files import make_folder
from diredi.trust.release_keys import ROOT_FILE, newest_root
from diredi.trust.release_repository import ReleaseClaims

LONGEST_BYTES: Final = 5_000_000
"""No metadata file is longer; reading stops there."""
_BASE: Final = "metadata:///"

Fetch = Callable[[str], bytes]
"""Returns a file of the repository, at most a little more than LONGEST_BYTES; raises NotFound where there is none."""


class Proof(BaseModel):
    """What proves a release: the signed roles in which it is listed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """The release's path; its first part is the role that lists it."""
    targets: str
    role: str


class ProvenRelease(BaseModel):
    """A release as it was signed."""

    model_config = ConfigDict(frozen=True)

    file: Blob
    claims: ReleaseClaims


class _Fetcher(FetcherInterface):
    def __init__(self, fetch: Fetch) -> None:
        self._fetch_file = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            return iter([self._fetch_file(url.removeprefix(_BASE))])
        except NotFound as error:
            raise tuf.DownloadHTTPError(str(error), 404) from error


class ReleaseClient:
    """Ask for metadata, verify them, and remember them in a folder, so that they can only become newer."""

    def __init__(self, folder: Path, root: bytes, fetch: Fetch) -> None:
        """Open the folder of the metadata.

        Args:
            folder: Where they are remembered.
            root: The root that the device was given at set-up.
            fetch: Asks the cloud for a file.
        """
        make_folder(folder)
        self._folder = folder
        self._root = root
        self._fetch = fetch

    def prove(self, path: str) -> Proof:
        """Return the proof of a release, from metadata that are verified and the newest.

        Args:
            path: The path that the release has in the metadata.

        Raises:
            Untrusted: The metadata or the release are not what the root vouches for; the message says in which way.
            Unreachable: The cloud does not answer.
        """
        try:
            if self._updater().get_targetinfo(path) is None:
                raise Untrusted(f"the release {path[:80]!r} is not in the signed metadata: it may have been withdrawn")
        except (tuf.RepositoryError, tuf.DownloadError, ValueError) as error:
            raise _explain(error) from error
        role = path.partition("/")[0]
        return Proof(path=path, targets=self._read(Targets.type), role=self._read(role))

    def refresh(self) -> None:
        """Ask for the newest metadata and verify them; raises what `prove` raises."""
        try:
            self._updater().refresh()
        except (tuf.RepositoryError, tuf.DownloadError, ValueError) as error:
            raise _explain(error) from error

    def _updater(self) -> Updater:
        return Updater(
            str(self._folder), _BASE, fetcher=_Fetcher(self._fetch), bootstrap=self._root,
            config=UpdaterConfig(max_delegations=4, targets_max_length=LONGEST_BYTES),
        )  # fmt: skip

    def check(self, proof: Proof) -> ProvenRelease:
        """Check a proof against the newest root that this device knows; nothing is asked, and no clock read.

        Raises:
            Untrusted: The proof does not hold.
        """
        return check_proof(proof, self._newest_root())

    @property
    def expires(self) -> datetime | None:
        """When the newest metadata that were verified end; None where there are none."""
        try:
            return Metadata[Timestamp].from_bytes((self._folder / f"{Timestamp.type}.json").read_bytes()).signed.expires
        except (DeserializationError, OSError):
            return None

    def find_freeze(self, now: datetime | None = None) -> str:
        """Say that the cloud has said nothing new for too long; empty where it has, or never was heard at all."""
        expires = self.expires
        if expires is None or (now or datetime.now(UTC)) <= expires:
            return ""
        return (
            f"the newest metadata of releases ended on {expires:%Y-%m-%d %H:%M} UTC and no newer ones came: "
            "check the connection to the cloud, the cloud itself, and this clock"
        )

    @staticmethod
    def first_root(folder: Path) -> bytes | None:
        """Return the first root that was used with a folder of metadata; None where it never was."""
        known = _roots_in(folder)
        return known[0].read_bytes() if known else None

    def _newest_root(self) -> Metadata[Root]:
        return newest_root([self._root, *(path.read_bytes() for path in _roots_in(self._folder))])

    def _read(self, role: str) -> str:
        return (self._folder / f"{role}.json").read_text()


def _roots_in(folder: Path) -> list[Path]:
    return sorted((folder / "root_history").glob(f"*.{ROOT_FILE}"), key=lambda path: int(path.name.partition(".")[0]))


def check_proof(proof: Proof, root: Metadata[Root]) -> ProvenRelease:
    """Check a proof from the root to the release.

    Raises:
        Untrusted: A signature is missing, or the release is not listed.
    """
    name = proof.path.partition("/")[0]
    try:
        targets, role = (Metadata[Targets].from_bytes(text.encode()) for text in (proof.targets, proof.role))
        root.signed.verify_delegate(Targets.type, targets.signed_bytes, targets.signatures)
        targets.signed.verify_delegate(name, role.signed_bytes, role.signatures)
        file = role.signed.targets[proof.path]
        claims = ReleaseClaims.model_validate(file.unrecognized_fields["custom"])
        blob = Blob(f"sha256:{file.hashes['sha256']}", file.length)
        if claims.log is not None and not claims.log.holds_for(claims.version, claims.scope, blob.digest):
            raise ValueError("its place in the log of decisions does not prove it")
        return ProvenRelease(file=blob, claims=claims)
    except (tuf.RepositoryError, ValidationError, KeyError, ValueError, AttributeError) as error:
        raise Untrusted(f"the proof of release {proof.path[:80]!r} does not hold ({error}): get it again") from None


def read_proof(path: Path) -> Proof:
    """Read a proof from a file.

    Raises:
        Untrusted: There is none, or it is damaged.
    """
    try:
        return Proof.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        raise Untrusted(f"there is no proof at {path} that can be read: the release is verified again") from None


def _explain(error: Exception) -> DirediError:
    """Return the error that says in our words what is wrong; that of the connection where it is one."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DirediError) and not isinstance(error, tuf.DownloadHTTPError):
            return cause
        cause = cause.__cause__
    for kinds, sentence in _REASONS:
        if isinstance(error, kinds):
            return Untrusted(f"{sentence} ({' '.join(str(error).split())[:200]})")
    return Untrusted(f"the metadata of releases cannot be used ({' '.join(str(error).split())[:200]})")


_REASONS: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...]] = (
    (tuf.ExpiredMetadataError, "the metadata of releases have expired, and the cloud offers no newer ones"),
    (tuf.BadVersionNumberError, "the metadata of releases go back to an older version"),
    (
        tuf.UnsignedMetadataError,
        "the metadata of releases are not signed by enough keys that this device trusts",
    ),
    (tuf.DownloadLengthMismatchError, "the metadata of releases are longer than they may be"),
    (tuf.LengthOrHashMismatchError, "the metadata of releases are other bytes than those that were signed"),
    (tuf.DownloadHTTPError, "the cloud does not have the metadata of releases that it names"),
)
