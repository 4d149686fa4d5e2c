"""Installs the release that the cloud names. It may be killed at any step and goes on at the next start."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import structlog

from diredi.detectors.predictor import Image
from diredi.errors import (
    CorruptData,
    DirediError,
    InvalidInput,
    NoRoom,
    NotFound,
    Refused,
    RemoteFailure,
    Unreachable,
    Untrusted,
    WrongState,
)
from diredi.store.blobs import digest_of_file, hex_of
from diredi.store.files import make_folder
from diredi.trust.release_repository import possession_of
from edge_node.active_model import FAILURES_IN_A_ROW, ActiveModel, LoadedModel, ModelFile, RunningModel, warm_up
from edge_node.release_trust import ReleaseTrust
from edge_node.shadow import TooDifferent
from edge_node.site_rules import UpdateWait
from edge_node.trial import OtherBoxes
from edge_node.update_states import CANCELLABLE, MAX_STARTS, RELEASE_FILE, InstallableRelease, State, UpdateRecord
from edge_node.update_store import UpdateStore

WINDOW_LOOK_S = 10.0
"""How often a release that is here looks whether the site's window has opened."""
FIRST_FRAME_S = 5.0
"""How long to wait for a live frame after a swap; where none comes, the warm-up is all the proof there is."""

Fetch = Callable[[InstallableRelease, Path], Awaitable[None]]
"""Downloads a release to a path, going on where it stopped; may raise Unreachable, CorruptData, NotFound or NoRoom."""
ReportInstall = Callable[[int, str, bool, str, bytes], Awaitable[None]]
"""Reports a version to the cloud: whether it was installed, if not, why, else the proof of the file; may raise
Unreachable."""
Load = Callable[[Path], LoadedModel]
TryRelease = Callable[[Path, Image | None], Awaitable[None]]
"""Tries a model file on a frame; raises InvalidInput where it is not fit to run."""

Shadow = Callable[[RunningModel, Callable[[], bool]], Awaitable[None]]
"""Runs a candidate beside the release that runs, as long as it is wanted; raises TooDifferent."""

REASONS: dict[type[DirediError], str] = {
    CorruptData: "the bytes do not match the digest",
    NoRoom: "no room on the device's disk",
    NotFound: "the cloud does not have the file",
    TooDifferent: "beside the release that runs, it finds other objects on too many frames",
    OtherBoxes: "on the golden frames of the release, this device finds other boxes than the cloud",
    InvalidInput: "the file is not the detector that the release says it is",
}
"""What the cloud is told of an error; the details are in the node's own log."""


class Updater:
    """Run the updater's states: download, verify, warm up, swap and report one release after the other."""

    def __init__(
        self,
        releases: Path,
        file: UpdateStore,
        active: ActiveModel,
        *,
        trust: ReleaseTrust,
        fetch: Fetch,
        report_install: ReportInstall,
        load: Load,
        frame: Callable[[], Image | None],
        try_release: TryRelease | None = None,
        shadow: Shadow | None = None,
        retry_failed_s: float = 60.0,
        away_s: float = 1.0,
        wait_for: Callable[[int], UpdateWait] = lambda version: UpdateWait.NONE,
    ) -> None:
        """Make an updater from the record on disk.

        Args:
            releases: Folder of the downloaded releases.
            file: Where the record is stored.
            active: The model that is swapped.
            trust: Decides whether a release may run.
            fetch: Downloads a release.
            report_install: Reports an outcome to the cloud.
            load: Loads a model file.
            frame: Returns the last live frame; None if there was none.
            try_release: Tries a file where it can do no harm, before it is loaded; None loads it at once.
            shadow: Runs a candidate beside the release that runs; None swaps it in at once.
            retry_failed_s: Pause before a passing failure is tried again; doubled each time.
            away_s: Pause while the cloud is away or the disk is full.
            wait_for: Returns why the site wants a version to wait.
        """
        make_folder(releases)
        self._releases = releases
        self._file = file
        self._record = file.read()
        self._active = active
        self._trust = trust
        self._fetch = fetch
        self._report_install = report_install
        self._load = load
        self._frame = frame
        self._try_release = try_release
        self._shadow = shadow
        self._failing: tuple[RunningModel, str] | None = None
        self._retry_failed_s = retry_failed_s
        self._away_s = away_s
        self._wait_for = wait_for
        self._failed_at = 0.0
        self._wanted: InstallableRelease | None = self._record.target
        self._changed = asyncio.Event()
        self.last_error = ""
        self.outcomes: Counter[str] = Counter()
        """How many installations have ended since the start, by "installed" and "failed"."""
        self._log = structlog.get_logger()

        self._candidate: RunningModel | None = None

    @property
    def record(self) -> UpdateRecord:
        """The record as it was stored last."""
        return self._record

    @property
    def wanted(self) -> InstallableRelease | None:
        """The release that the cloud has named last; None where it has named none since the start."""
        return self._wanted

    def start_from_disk(self) -> None:
        """Activate the installed release, or the previous one if its file is damaged; this needs no cloud."""
        known = (self._record.installed, self._record.previous)
        for release in known if self._record != UpdateRecord() else self._releases_on_disk():
            if release is not None and self._activate(release):
                return
        if self._record.installed is not None:
            self._save_if_room(self._record.model_copy(update={"installed": None, "previous": None}))

    def _releases_on_disk(self) -> Iterator[InstallableRelease]:
        """Yield the releases whose files are sound, newest first; used where the record was damaged and set aside."""
        named = [(RELEASE_FILE.fullmatch(path.name), path) for path in self._releases.iterdir()]
        for match, path in sorted(((m, p) for m, p in named if m), key=lambda pair: -int(pair[0][1])):
            blob = digest_of_file(path)
            if hex_of(blob.digest).startswith(match[2]):
                try:
                    spec = self._load(path).spec
                except DirediError as error:
                    self._log_problem("release_on_disk_rejected", error, path=str(path))
                    continue
                found = InstallableRelease(
                    version=int(match[1]), digest=blob.digest, bytes=blob.bytes, labels=spec.labels,
                    image_size=spec.image_size,
                )  # fmt: skip
                try:
                    yield self._trust.recall(found)
                except Untrusted as error:
                    self._log_problem("release_on_disk_rejected", error, path=str(path))

    def _activate(self, release: InstallableRelease) -> bool:
        try:
            running = self.load_verified(release)
        except DirediError as error:
            self._log_problem("installed_release_rejected", error, version=release.version)
            return False
        self._active.swap(running)
        self._active.accept()
        self._log.info("release_loaded_from_disk", version=release.version)
        if release != self._record.installed:
            self._save_if_room(self._record.model_copy(update={"installed": release, "previous": None}))
        return True

    @property
    def waits(self) -> UpdateWait:
        """Why the release that the cloud names is not installed now, if the site wants that."""
        wanted = self._wanted
        if wanted is None or not self._record.should_install(wanted):
            return UpdateWait.NONE
        return self._wait_for(wanted.version)

    def reconsider(self) -> None:
        """Look again at what is requested, because the site has said something else."""
        self._changed.set()

    def request(self, release: InstallableRelease) -> None:
        """Ask for a release that the cloud named; the last request counts."""
        self._wanted = release
        self._changed.set()

    async def run(self) -> None:
        """Finish what a restart interrupted, then install what is requested, for ever."""
        self._loop = asyncio.get_running_loop()
        self._active.on_failing = self._note_failing
        await self._save_when_possible(self._record.resume())
        while True:
            await self._run_until_idle()
            if self._failing is not None:
                await self._take_back(*self._failing)
                continue
            wanted = self._wanted
            if wanted is not None and self._may_begin(wanted):
                await self._save_when_possible(self._record.begin(wanted))
                continue
            self._changed.clear()
            await self._changed.wait()

    def _may_begin(self, wanted: InstallableRelease) -> bool:
        if self._wait_for(wanted.version) is UpdateWait.HELD:
            return False
        return self._record.should_install(wanted) and self._is_due(wanted)

    async def _run_until_idle(self) -> None:
        """Perform one state after the other until the updater is idle."""
        while self._record.state is not State.IDLE:
            if self._record.state in CANCELLABLE and self._wanted != self._record.target:
                self._log.info("install_cancelled", version=self._target.version)
                await self._save_when_possible(self._record.finish())
                return
            try:
                following = await self._perform(self._record)
            except Unreachable as error:
                self._log_problem("update_paused_without_cloud", error, state=str(self._record.state))
                await self._wait_for_change(self._away_s)
            except DirediError as error:
                await self._save_when_possible(self._failed(error))
            else:
                await self._save_when_possible(following)

    async def _perform(self, record: UpdateRecord) -> UpdateRecord:
        """Return the next record; raise Unreachable to be called again, any other DirediError to reject the release."""
        match record.state:
            case State.DOWNLOADING:
                if not await self._download() or not await self._wait_for_window():
                    return record
                return record.advance(State.VERIFYING)
            case State.VERIFYING:
                return await self._verify(record)
            case State.WARMING:
                await asyncio.to_thread(warm_up, self._next.predictor, self._frame())
                if self._shadow is not None and self._active.current is not None:
                    await self._shadow(self._next, lambda: self._wanted == self._target)
                    if self._wanted != self._target or not await self._wait_for_window():
                        return record
                return record.advance(State.SWAPPING)
            case State.SWAPPING:
                await self._swap()
                return record.finish_swap()
            case State.REPORTING:
                await self._report(self._target.version, True, "")
                return record.finish()
            case _:
                assert record.failure is not None
                await self._report(record.failure.version, False, record.failure.reason)
                return record.finish()

    def _note_failing(self, model: RunningModel, error: Exception) -> None:
        """Note, in whichever thread, that the model that runs fails on frames."""
        self._failing = (model, f"running: it failed on {FAILURES_IN_A_ROW} frames in a row ({type(error).__name__})")
        with suppress(RuntimeError):  # the node is ending
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _take_back(self, failing: RunningModel, reason: str) -> None:
        """Go back to the previous release, because the installed one fails on frames; without one nothing changes."""
        self._failing = None
        previous = self._record.previous
        if failing.release != self._record.installed or previous is None:
            return
        if self._active.current is failing:  # none stood by: the node has been started since
            try:
                model = await asyncio.to_thread(self.load_verified, previous)
            except DirediError as error:
                self._log_problem("installed_release_rejected", error, version=previous.version)
                return
            self._active.swap(model)
            self._active.accept()
        self._log.error("release_taken_back", version=failing.release.version, to=previous.version, why=reason)
        self._failed_at = time.monotonic()
        await self._save_when_possible(self._record.take_back(reason))

    async def _download(self) -> bool:
        """Download the target; return False if another release was requested meanwhile. What has come is kept."""
        path = self._path(self._target)
        if refusal := self._record.explain_refusal(self._target):
            raise Untrusted(refusal)
        await self._trust.prove(self._target)
        await asyncio.to_thread(self._reuse_bytes, path)
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

    async def _wait_for_window(self) -> bool:
        """Wait until the site lets the target be installed; return False if another one was requested meanwhile."""
        logged = UpdateWait.NONE
        while (why := self._wait_for(self._target.version)) is not UpdateWait.NONE:
            if why is not logged:
                self._log.info("update_waits", version=self._target.version, why=str(why))
                logged = why
            await self._wait_for_change(WINDOW_LOOK_S)
            if self._wanted != self._target:
                return False
        return True

    def _reuse_bytes(self, path: Path) -> None:
        """Give a file of another release with the same bytes this name, too: going back needs no download."""
        *_, digits = path.name.split("-")
        same = next((other for other in self._releases.glob(f"release-*-{digits}") if other != path), None)
        if same is not None and not path.exists():
            with suppress(OSError):
                path.hardlink_to(same)

    async def _verify(self, record: UpdateRecord) -> UpdateRecord:
        """Check the digest, the format, and that the file is the detector that the release says it is."""
        if record.has_crashed_too_often:
            raise InvalidInput(
                f"release {self._target.version} crashed the process more than {MAX_STARTS} times and was rejected"
            )
        if self._try_release is not None:
            await self._try_release(self._path(self._target), self._frame())
        self._candidate = await asyncio.to_thread(self.load_verified, self._target)
        return record.advance(State.WARMING)

    def load_verified(self, release: InstallableRelease) -> RunningModel:
        """Load a release that has been downloaded.

        Raises:
            CorruptData: Its file does not match the digest, and is deleted.
            InvalidInput: The file is not the detector that the release says it is.
        """
        self._trust.check(release)
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
        expected, actual = release.image_size, model.spec.image_size
        if expected != actual:
            raise InvalidInput(
                f"release {release.version} says {expected} px and its file {actual} px: publish it again"
            )
        return RunningModel(release, model, file=ModelFile(path, release.digest))

    async def _swap(self) -> None:
        """Swap the model; raise InvalidInput if it fails on its first live frame, when the previous one is back."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Exception | None] = loop.create_future()

        def on_outcome(error: Exception | None) -> None:
            loop.call_soon_threadsafe(_resolve, outcome, error)

        self._active.swap(self._next, on_outcome)
        try:
            error = await asyncio.wait_for(outcome, FIRST_FRAME_S)
        except TimeoutError:
            self._active.accept()
            error = None
        if error is not None:
            raise InvalidInput(f"release {self._target.version} failed on its first frame ({type(error).__name__})")
        self.outcomes["installed"] += 1
        self._log.info("release_swapped", version=self._target.version)

    def _failed(self, error: DirediError) -> UpdateRecord:
        """Return the record of a failure; the node goes on with the release that runs."""
        self.outcomes["failed"] += 1
        self._log_problem("install_failed", error, version=self._target.version, state=str(self._record.state))
        self._failed_at = time.monotonic()
        described = REASONS.get(type(error), "an error that the log of the device describes")
        reason = f"{self._record.state.lower()}: {error if isinstance(error, Untrusted) else described}"
        return self._record.fail(reason, lasting=isinstance(error, InvalidInput))

    async def _report(self, version: int, installed: bool, reason: str) -> None:
        """Report an outcome; an answer about this very report is final and only logged, any other error is raised."""
        possession = await asyncio.to_thread(self._find_possession) if installed else b""
        try:
            await self._report_install(version, self._target.digest, installed, reason, possession)
        except (WrongState, NotFound, Refused, InvalidInput) as error:
            self._log_problem("report_refused", error, version=version)
        except Unreachable:
            raise
        except DirediError as error:
            raise RemoteFailure(str(error)) from error
        self._delete_other_releases()
        if installed:
            self.last_error = ""

    def _find_possession(self) -> bytes:
        """Return the proof that this device has the file of the target; empty where the file is gone."""
        try:
            return possession_of(bytes.fromhex(self._target.challenge), [self._path(self._target).read_bytes()])
        except OSError:
            return b""

    def _is_due(self, wanted: InstallableRelease) -> bool:
        """Return whether a release that failed for a passing reason may be tried again."""
        wait_s = self._record.wait_before(wanted, self._retry_failed_s)
        return time.monotonic() - self._failed_at >= wait_s

    async def _wait_for_change(self, seconds: float) -> None:
        """Wait for another request, for so many seconds at the longest."""
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
    def _next(self) -> RunningModel:
        assert self._candidate is not None
        return self._candidate

    async def _save_when_possible(self, record: UpdateRecord) -> None:
        """Return once the record is on disk, however long the disk stays full: only then is the state performed."""
        while True:
            try:
                return self._save(record)
            except NoRoom as error:
                self._log_problem("update_paused_without_disk_space", error)
                await asyncio.sleep(self._away_s)

    def _save(self, record: UpdateRecord) -> None:
        if record != self._record:
            self._file.write(record)
            self._log.info(
                "update_state_changed", state=str(record.state), version=record.target and record.target.version
            )
        self._record = record

    def _save_if_room(self, record: UpdateRecord) -> None:
        """Store the record at the start. A full disk does not keep the node from detecting."""
        try:
            self._save(record)
        except NoRoom as error:
            self._log_problem("record_not_written", error)
            self._record = record

    def _delete_other_releases(self) -> None:
        """Delete the files of all releases but the installed and the previous one."""
        known = {release.file_name for release in (self._record.installed, self._record.previous) if release}
        for path in self._releases.iterdir():
            if path.name not in known:
                path.unlink()
        self._trust.forget_others(known)

    def _log_problem(self, event: str, error: DirediError, **more: object) -> None:
        if str(error) != self.last_error:
            self._log.warning(event, error=str(error), **more)
        self.last_error = str(error)


def _resolve(outcome: asyncio.Future[Exception | None], error: Exception | None) -> None:
    if not outcome.done():
        outcome.set_result(error)


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and digest_of_file(path).digest == digest
