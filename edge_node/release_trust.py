"""Believes of a release what the cloud's signed metadata say, and keeps the proof of each release that is installed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

import structlog

from diredi.errors import DirediError, InvalidInput, Unreachable, Untrusted
from diredi.store.blobs import Blob
from diredi.store.files import atomic_write
from diredi.trust.release_client import Fetch, ProvenRelease, ReleaseClient, read_proof
from diredi.trust.release_keys import read_root
from diredi.trust.release_repository import labels_digest, site_digest
from diredi.trust.second_repository import SecondRepository
from edge_node.update_states import InstallableRelease

_FLEET = "fleet"
_FRESH_S, _AGAIN_S = 6 * 3600.0, 300.0
"""Metadata hold for a week. So a device asks often enough, and ten thousand of them do not ask too often."""


class ReleaseTrust(Protocol):
    """Decide whether a release may run."""

    async def prove(self, release: InstallableRelease) -> None:
        """Raise Untrusted where the newest signed metadata do not list this release for this device."""

    def check(self, release: InstallableRelease) -> None:
        """Raise Untrusted where this release was never proven here, without asking anybody."""

    def recall(self, release: InstallableRelease) -> InstallableRelease:
        """Add to a release, of which only the file is known, what its proof says; Untrusted where there is none."""

    def forget_others(self, releases: set[str]) -> None:
        """Delete the proofs of all releases but these, which are named by their files."""


class SignedMetadata(ReleaseTrust):
    """Trust what is signed by the keys that the root names, and nothing else.

    The root is in the identity folder. One that was used once is remembered, so a node whose folder is gone goes on. A
    node that never had one runs what is installed there from before releases were signed, and installs no other.
    """

    def __init__(
        self, folder: Path, identity: Path, site: str, fetch: Fetch, second: SecondRepository | None = None
    ) -> None:
        """Use a folder for the metadata and the proofs.

        Args:
            folder: The folder; it is made.
            identity: The identity folder of this device.
            site: The site of this device.
            fetch: Asks the cloud for a file of the metadata.
            second: A repository of somebody else that has to list what is installed, too; None requires none.
        """
        self._second = second
        self._proofs = folder / "proofs"
        self._proofs.mkdir(parents=True, exist_ok=True)
        self._metadata = folder / "metadata"
        self._identity, self._site, self._fetch = identity, site, fetch
        self._missing = ""
        self._asking = threading.Lock()
        self.problem = ""
        """What keeps this device from new releases, in one sentence; empty for nothing."""

    async def prove(self, release: InstallableRelease) -> None:
        """Ask for the newest metadata, check the release against them and keep the proof.

        Raises:
            Untrusted: It is not what is signed; the message says in which way.
            Unreachable: The cloud does not answer.
            NoRoom: The disk is full.
        """
        await asyncio.to_thread(self._prove, release)

    def _prove(self, release: InstallableRelease) -> None:
        with self._asking:
            self._ask_for_proof(release)
        if self._second is not None:
            self._second.require(Blob(release.digest, release.bytes))

    def _ask_for_proof(self, release: InstallableRelease) -> None:
        client = self._client()
        if client is None:
            raise Untrusted(f"release {release.version} cannot be verified: {self._missing}")
        proof = client.prove(release.target)
        proven = client.check(proof)
        if proven.claims.log is None:
            raise Untrusted(
                f"release {release.version} is in no log of decisions: update the cloud, whose version signs without it"
            )
        self._compare(proven, release)
        atomic_write(self._path(release), proof.model_dump_json())

    def check(self, release: InstallableRelease) -> None:
        """Check the proof that was kept.

        Raises:
            Untrusted: There is none, or it does not hold.
        """
        if (client := self._client()) is not None:
            self._compare(client.check(read_proof(self._path(release))), release)

    def recall(self, release: InstallableRelease) -> InstallableRelease:
        """Add what the proof says; raises Untrusted where there is none that holds."""
        if (client := self._client()) is None:
            return release
        proof = read_proof(self._path(release))
        scope = client.check(proof).claims.scope
        return release.model_copy(update={"scope": scope, "target": proof.path})

    def forget_others(self, releases: set[str]) -> None:
        """Delete the proofs of all releases but these."""
        for path in self._proofs.glob("*.json"):
            if path.name.removesuffix(".json") not in releases:
                path.unlink(missing_ok=True)

    async def keep_fresh(self, installed: Callable[[], InstallableRelease | None], every_s: float = _FRESH_S) -> None:
        """Ask for newer metadata again and again, and say when none come that hold.

        Args:
            installed: Returns the release that is installed, whose proof is renewed: a key may have been replaced.
            every_s: Seconds between two questions.
        """
        log = structlog.get_logger()
        while True:
            problem = await asyncio.to_thread(self.refresh, installed())
            if problem != self.problem:
                log.warning("updates_stalled", problem=problem) if problem else log.info("updates_possible")
            self.problem = problem
            await asyncio.sleep(min(every_s, _AGAIN_S) if problem else every_s)

    def refresh(self, installed: InstallableRelease | None, now: datetime | None = None) -> str:
        """Ask for newer metadata, and say what keeps this device from new releases; empty for nothing."""
        with self._asking:
            return self._refresh(installed, now)

    def _refresh(self, installed: InstallableRelease | None, now: datetime | None) -> str:
        client = self._client()
        if client is None:
            return self._missing
        with suppress(Unreachable):  # which is no problem as long as the metadata of before hold
            try:
                client.refresh()
            except Untrusted as error:  # a cloud that has published nothing yet has no metadata
                return "" if client.expires is None else str(error)
            if installed is not None and installed.target:
                with suppress(DirediError):  # it may have been followed by another one
                    self._ask_for_proof(installed)
        return client.find_freeze(now)

    def _client(self) -> ReleaseClient | None:
        """Return a client with the root of this device; None where it never had one."""
        try:
            root = read_root(self._identity)
        except InvalidInput as error:
            known = ReleaseClient.first_root(self._metadata)
            if known is None:
                if str(error) != self._missing:
                    structlog.get_logger().error("release_root_missing", error=str(error))
                self._missing = str(error)
                return None
            root = known
        return ReleaseClient(self._metadata, root, self._fetch)

    def _compare(self, proven: ProvenRelease, release: InstallableRelease) -> None:
        claims, what = proven.claims, f"release {release.version}"
        facts = {
            "version": (claims.version, release.version),
            "digest": (proven.file.digest, release.digest),
            "length": (proven.file.bytes, release.bytes),
            "class names": (claims.labels, labels_digest(release.labels)),
            "image size": (claims.image_size, release.image_size),
            "scope": (claims.scope, release.scope),
        }
        for name, (signed, told) in facts.items():
            if signed != told:
                raise Untrusted(f"{what} was signed with another {name} ({signed}) than the cloud tells ({told})")
        scope, site = claims.scope, self._site
        if scope not in {_FLEET, f"site:{site}"} and site_digest(scope, site) not in claims.sites:
            raise Untrusted(f"{what} was signed for {scope}, and this device belongs to site {site}")

    def _path(self, release: InstallableRelease) -> Path:
        return self._proofs / f"{release.file_name}.json"
