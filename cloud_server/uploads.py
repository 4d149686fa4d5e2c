"""Which uploads the cloud takes, of whom, and what becomes of those that nothing refers to.

A site may send files only for a cycle whose task it works on, as many and as large as a gap can be. Each file has an
owner in the database before its first byte is stored. Once the site's task is over, what no model and no accepted gap
refers to is deleted. A kill at any point leaves at most a file or an entry more, which the next collection deletes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import structlog

from cloud_server.context import CloudContext
from cloud_server.entities import Cycle
from cloud_server.notifier import site_topic
from cloud_server.states import State
from cloud_server.store import Repository
from diredi.errors import NoRoom, Refused, Unreachable, WrongState
from diredi.store.blobs import BlobStore, hex_of
from diredi.trust.identity import Identity, Role

_COLLECT_EVERY_S: Final = 600.0
_VERIFY_EVERY_S: Final = 86_400.0
_log = structlog.get_logger()


class Uploads:
    """Admits uploads, and collects what nothing refers to."""

    def __init__(self, context: CloudContext, blobs: BlobStore, keep_unreferenced_s: float) -> None:
        """Create the desk of uploads.

        Args:
            context: What the services share.
            blobs: Where uploads are stored.
            keep_unreferenced_s: How long a file is kept to which nothing refers and which is no site's upload.
        """
        self._context = context
        self._blobs = blobs
        self._keep_unreferenced_s = keep_unreferenced_s
        self._admitted: dict[str, tuple[int, dict[str, tuple[int, bool]]]] = {}
        """By site the version of its tasks, and what was admitted since: by digest its size, and whether it is here."""

    async def admit(self, caller: Identity, digest: str, total_bytes: int) -> bool:
        """Refuse an upload that nothing wants, before a byte of it is stored.

        A site must not find out whether another one has put a blob, so it sends all of it, whatever is here.

        Returns:
            Whether the caller may know what is here: an operator may, and a site that has sent all of it.

        Raises:
            InvalidInput: That is not a digest.
            Refused: The caller is neither a site nor an operator.
            WrongState: The site has no task that wants an upload, or the operator's file is none that is missing here.
            NoRoom: The site has sent too much for its cycle.
        """
        hex_of(digest)
        if caller.role.includes(Role.OPERATOR):
            await self._admit_repair(digest, total_bytes)
            return True
        if caller.role is not Role.SITE:
            raise Refused(f"{caller} may not put blobs: sites may, and operators where one is damaged")
        version = self._context.notifier.version(site_topic(caller.name))
        seen, admitted = self._admitted.get(caller.name, (-1, {}))
        if seen != version:
            admitted = {}
            self._admitted[caller.name] = version, admitted
        size, complete = admitted.get(digest, (-1, False))
        if size != total_bytes:
            # Whoever has no task is refused without a turn of the one writer, which others wait for.
            await self._context.read(lambda r: _find_cycle(r, caller.name))
            complete = await self._context.write(lambda r, now: self._record(r, caller.name, digest, total_bytes))
            admitted[digest] = total_bytes, complete
        return complete

    async def complete(self, caller: Identity, digest: str) -> None:
        """Record that a site has sent all of an upload."""
        await self._context.write(lambda r, now: r.uploads.complete(digest, caller.name))
        self._admitted.pop(caller.name, None)

    async def forget(self, caller: Identity, digest: str) -> None:
        """Forget an upload of which nothing is stored, because its first chunk was refused."""
        if await asyncio.to_thread(self._blobs.received, digest, str(caller)):
            return
        self._admitted.pop(caller.name, None)
        await self._context.write(lambda r, now: r.uploads.remove(digest, caller.name))

    async def run(self) -> None:
        """Collect now and every ten minutes until cancelled."""
        while True:
            try:
                await self.collect()
            except (Unreachable, NoRoom, OSError) as error:
                _log.warning("blobs_not_collected", error=str(error))
            await asyncio.sleep(_COLLECT_EVERY_S)

    async def keep_verified(self) -> None:
        """Read all files that something refers to, now and every day, and say which are not whole, until cancelled."""
        while True:
            try:
                await self.verify()
            except (Unreachable, OSError) as error:
                _log.warning("blobs_not_verified", error=str(error))
            await asyncio.sleep(_VERIFY_EVERY_S)

    async def verify(self) -> int:
        """Read all files that something refers to, and return how many are not whole; a damaged one is set aside."""
        damaged = 0
        for reference in await self._context.read(lambda r: r.uploads.references()):
            begun = time.monotonic()
            if not await asyncio.to_thread(self._blobs.verify, reference.digest):
                damaged += 1
                _log.error("blob_not_whole", digest=reference.digest, needed_by=list(reference.needed_by))
            await asyncio.sleep(time.monotonic() - begun)  # at least half of the disk is for others
        return damaged

    async def collect(self) -> int:
        """Delete what nothing refers to, and return how many files that were."""
        since = time.monotonic()
        ended = set(await self._context.write(lambda r, now: r.uploads.remove_ended()))
        keep = await self._context.read(_list_kept)
        if keep is None:
            return 0
        collected = await asyncio.to_thread(self._blobs.collect, keep, ended, self._keep_unreferenced_s, since)
        if collected:
            _log.info("blobs_collected", count=len(collected), bytes=sum(blob.bytes for blob in collected))
        return len(collected)

    def _record(self, r: Repository, site: str, digest: str, total_bytes: int) -> bool:
        cycle = _find_cycle(r, site)
        usage = r.uploads.usage(site, cycle.id, but=digest)
        bases = r.models.get(cycle.base_tutor_id), r.models.get(cycle.base_student_id)
        self._context.quotas.check_upload(site, bases, usage.blobs + 1, usage.bytes + total_bytes)
        return r.uploads.add(digest, site, cycle.id, total_bytes)

    async def _admit_repair(self, digest: str, total_bytes: int) -> None:
        known = await self._context.read(lambda r: r.uploads.referenced())
        if known.get(digest) != total_bytes:
            raise WrongState(
                f"nothing here refers to blob {digest} of {total_bytes} bytes: put a file that the cloud had"
            )


def _find_cycle(r: Repository, site: str) -> Cycle:
    """Return the cycle for which a site may upload. Raises WrongState where there is none."""
    for cycle in r.cycles.unfinished(site):
        part = cycle.part(site)
        if part.state is State.EXTRACTING or (part.state is State.OFFERED and part.approved):
            return cycle
    raise WrongState(f"site {site!r} has no task that wants an upload: upload only while a cycle is EXTRACTING")


def _list_kept(r: Repository) -> set[str] | None:
    """Return the digests to keep; None where the database knows no model, so that it may be the wrong one."""
    referenced = r.uploads.referenced()
    return set(referenced) | r.uploads.open() if referenced else None
