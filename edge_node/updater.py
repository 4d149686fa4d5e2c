"""Installs the release that the cloud names, and survives being killed at any step of it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import structlog

from diredi.detectors.predictor import Image
from diredi.errors import CorruptData, DirediError, InvalidInput, NoRoom, NotFound, Unreachable
from diredi.store.blobs import digest_of_file, hex_of
from edge_node.active_model import ModelSlot, Running
from edge_node.update_states import MAY_BE_ABANDONED, RELEASE_FILE, InstallableRelease, Record, State
from edge_node.update_store import RecordFile
from edge_node.warm_up import LoadedModel, warm_up

FIRST_FRAME_S = 5.0
"""How long a swapped model has to meet a live frame; where none comes by, its warm-up must do."""

Fetch = Callable[[InstallableRelease, Path], Awaitable[None]]
"""Downloads a release to a path, going on where it stopped. Raises Unreachable, CorruptData, NotFound or NoRoom."""
Tell = Callable[[int, bool, str], Awaitable[None]]
"""Tells the cloud about a version: installed or not, and why not. Raises Unreachable when it is away."""
Load = Callable[[Path], LoadedModel]

REASONS: dict[type[DirediError], str] = {
    CorruptData: "the bytes do not match the digest",
    NoRoom: "no room on the device's disk",
    NotFound: "the cloud does not have the file",
    InvalidInput: "the file is not the detector that the release says it is",
}
"""What the cloud hears; the node's own log has every detail."""


class Updater:
    def __init__(
        self,
        releases: Path,
        file: RecordFile,
        slot: ModelSlot,
        *,
        fetch: Fetch,
        tell: Tell,
        load: Load,
        frame: Callable[[], Image | None],
        retry_failed_s: float = 60.0,
        away_s: float = 1.0,
    ) -> None:
        releases.mkdir(parents=True, exist_ok=True)
        self._releases = releases
        self._file = file
        self._record = file.read()
        self._slot = slot
        self._fetch = fetch
        self._tell = tell
        self._load = load
        self._frame = frame
        self._retry_failed_s = retry_failed_s
        self._away_s = away_s
        self._failed_at = 0.0
        self._wanted: InstallableRelease | None = self._record.target
        self._changed = asyncio.Event()
        self.last_error = ""
        self._log = structlog.get_logger()

        self._candidate: Running | None = None

    @property
    def record(self) -> Record:
        return self._record

    def start_from_disk(self) -> None:
        """Puts the installed release in place, or the one before where that one's file is damaged; needs no cloud."""
        known = (self._record.installed, self._record.previous)
        for release in known if self._record != Record() else self._found_on_disk():
            if release is not None and self._starts_with(release):
                return
        if self._record.installed is not None:
            self._write_if_room(self._record.model_copy(update={"installed": None, "previous": None}))

    def _found_on_disk(self) -> Iterator[InstallableRelease]:
        """Without a record (it was damaged, and is set aside), what the files themselves prove, newest first."""
        named = [(RELEASE_FILE.fullmatch(path.name), path) for path in self._releases.iterdir()]
        for match, path in sorted(((m, p) for m, p in named if m), key=lambda one: -int(one[0][1])):
            blob = digest_of_file(path)
            if hex_of(blob.digest).startswith(match[2]):
                try:
                    spec = self._load(path).spec
                except DirediError as error:
                    self._problem("release_on_disk_not_usable", error, path=str(path))
                    continue
                yield InstallableRelease(
                    version=int(match[1]), digest=blob.digest, bytes=blob.bytes, labels=spec.labels,
                    image_size=spec.image_size,
                )  # fmt: skip

    def _starts_with(self, release: InstallableRelease) -> bool:
        try:
            running = Running(release, self._checked(release))
        except DirediError as error:
            self._problem("installed_release_damaged", error, version=release.version)
            return False
        self._slot.swap(running)
        self._slot.accept()
        self._log.info("release_from_disk", version=release.version)
        if release != self._record.installed:
            self._write_if_room(self._record.model_copy(update={"installed": release, "previous": None}))
        return True

    def want(self, release: InstallableRelease) -> None:
        """The cloud names this release: newer, older or the same. The last word counts."""
        self._wanted = release
        self._changed.set()

    async def run(self) -> None:
        """For ever: what a restart left unfinished first, then whatever the cloud wants."""
        await self._store(self._record.resumed())
        while True:
            await self._settle()
            wanted = self._wanted
            if wanted is not None and self._record.should_install(wanted) and self._is_due(wanted):
                await self._store(self._record.beginning(wanted))
                continue
            self._changed.clear()
            await self._changed.wait()

    async def _settle(self) -> None:
        """Acts on states until the updater is idle."""
        while self._record.state is not State.IDLE:
            if self._record.state in MAY_BE_ABANDONED and self._wanted != self._record.target:
                self._log.info("install_abandoned", version=self._target.version)
                await self._store(self._record.idle())
                return
            try:
                after = await self._act(self._record)
            except Unreachable as error:
                self._problem("waiting_for_cloud", error, state=str(self._record.state))
                await self._changed_or(self._away_s)
            except DirediError as error:
                await self._store(self._failed(error))
            else:
                await self._store(after)

    async def _act(self, record: Record) -> Record:
        """The next record. Raises Unreachable to be called again, any other DirediError to give the release up."""
        match record.state:
            case State.DOWNLOADING:
                return record.going(State.VERIFYING) if await self._download() else record
            case State.VERIFYING:
                return await self._verify(record)
            case State.WARMING:
                await asyncio.to_thread(warm_up, self._next.predictor, self._frame())
                return record.going(State.SWAPPING)
            case State.SWAPPING:
                await self._swap()
                return record.swapped()
            case State.REPORTING:
                await self._report(self._target.version, True, "")
                return record.idle()
            case _:
                assert record.failure is not None
                await self._report(record.failure.version, False, record.failure.reason)
                return record.idle()

    async def _download(self) -> bool:
        """False when the cloud named another release meanwhile; what has come so far is kept."""
        path = self._path(self._target)
        if await asyncio.to_thread(_has_digest, path, self._target.digest):
            return True
        fetching = asyncio.ensure_future(self._fetch(self._target, path))
        try:
            while not fetching.done() and self._wanted == self._target:
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait({fetching, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
            if fetching.done():
                await fetching
            return fetching.done()
        finally:
            fetching.cancel()

    async def _verify(self, record: Record) -> Record:
        """Digest, format, and that the file is the detector that the release says it is."""
        if record.gives_up:
            raise InvalidInput(f"release {self._target.version} took the process with it again and again")
        self._candidate = Running(self._target, await asyncio.to_thread(self._checked, self._target))
        return record.going(State.WARMING)

    def _checked(self, release: InstallableRelease) -> LoadedModel:
        path = self._path(release)
        if not _has_digest(path, release.digest):
            path.unlink(missing_ok=True)
            raise CorruptData(f"the file of release {release.version} does not match its digest: it is fetched again")
        try:
            model = self._load(path)
        except CorruptData as error:
            raise InvalidInput(
                f"the file of release {release.version} is no detector ({error}): publish it again"
            ) from error
        if model.labels.names != release.labels.names:
            raise InvalidInput(f"release {release.version} has other classes than its file: publish it again")
        said, found = release.image_size, model.spec.image_size
        if said != found:
            raise InvalidInput(f"release {release.version} says {said} px and its file {found} px: publish it again")
        return model

    async def _swap(self) -> None:
        """Raises InvalidInput when the first live frame shows that the model fails; the old one is back then."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Exception | None] = loop.create_future()

        def hear(error: Exception | None) -> None:
            loop.call_soon_threadsafe(_resolve, outcome, error)

        self._slot.swap(self._next, hear)
        try:
            error = await asyncio.wait_for(outcome, FIRST_FRAME_S)
        except TimeoutError:
            self._slot.accept()
            error = None
        if error is not None:
            raise InvalidInput(f"release {self._target.version} failed on its first frame ({type(error).__name__})")
        self._log.info("release_swapped", version=self._target.version)

    def _failed(self, error: DirediError) -> Record:
        """The node goes on with the release that runs."""
        self._problem("install_failed", error, version=self._target.version, state=str(self._record.state))
        self._failed_at = time.monotonic()
        reason = (
            f"{self._record.state.lower()}: {REASONS.get(type(error), 'an error that the log of the device describes')}"
        )
        return self._record.failed(reason, lasting=isinstance(error, InvalidInput))

    async def _report(self, version: int, installed: bool, reason: str) -> None:
        """Raises Unreachable; any other answer of the cloud's is final and only logged."""
        try:
            await self._tell(version, installed, reason)
        except Unreachable:
            raise
        except DirediError as error:
            self._problem("report_refused", error, version=version)
        self._discard_others()
        if installed:
            self.last_error = ""

    def _is_due(self, wanted: InstallableRelease) -> bool:
        """Whether a release that failed for a passing reason may be tried again; the cloud repeats its name anyway."""
        wait_s = self._record.wait_before(wanted, self._retry_failed_s)
        return time.monotonic() - self._failed_at >= wait_s

    async def _changed_or(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), seconds)
        except TimeoutError:
            return
        self._changed.clear()

    @property
    def _target(self) -> InstallableRelease:
        assert self._record.target is not None
        return self._record.target

    def _path(self, release: InstallableRelease) -> Path:
        return self._releases / release.file_name

    @property
    def _next(self) -> Running:
        assert self._candidate is not None
        return self._candidate

    async def _store(self, record: Record) -> None:
        """Returns once the record is on disk: without that nothing is acted on, however long the disk stays full."""
        while True:
            try:
                return self._write(record)
            except NoRoom as error:
                self._problem("waiting_for_disk_space", error)
                await asyncio.sleep(self._away_s)

    def _write(self, record: Record) -> None:
        if record != self._record:
            self._file.write(record)
            self._log.info("update_state", state=str(record.state), version=record.target and record.target.version)
        self._record = record

    def _write_if_room(self, record: Record) -> None:
        """At the start: a full disk is no reason not to detect, and the next start finds out the same again."""
        try:
            self._write(record)
        except NoRoom as error:
            self._problem("record_not_written", error)
            self._record = record

    def _discard_others(self) -> None:
        """Installed and previous stay; a release that was refused, or is two back, goes."""
        keep = {r.file_name for r in (self._record.installed, self._record.previous) if r}
        for path in self._releases.iterdir():
            if path.name not in keep:
                path.unlink()

    def _problem(self, event: str, error: DirediError, **more: object) -> None:
        if str(error) != self.last_error:
            self._log.warning(event, error=str(error), **more)
        self.last_error = str(error)


def _resolve(outcome: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not outcome.done():
        outcome.set_result(error)


def _has_digest(path: Path, digest: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest() == digest
