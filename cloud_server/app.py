"""The cloud, put together: its state on disk, its services and servicers, and the work that drives cycles on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import structlog
from cryptography.hazmat.primitives import serialization

from cloud_server.alarms import Alarm, AlarmNotifier, find_alarms
from cloud_server.blob_access import BlobAccess
from cloud_server.bootstrap import make_first_release
from cloud_server.config import CloudConfig
from cloud_server.context import KEEP_ALIVE_S, CloudContext
from cloud_server.cycles.gap_validation import GapValidator
from cloud_server.cycles.pipeline import CyclePipeline
from cloud_server.cycles.reconciler import CycleReconciler
from cloud_server.cycles.service import CycleService
from cloud_server.enrolment import EnrolmentService
from cloud_server.fleet.service import FleetService
from cloud_server.jobs.runner import JOBS, JobRunner
from cloud_server.ledger import Ledger
from cloud_server.servicers import (
    CycleServicer,
    EnrolmentServicer,
    FleetServicer,
    RegistryServicer,
    ReleaseServicer,
    SiteServicer,
)
from cloud_server.sites.service import SiteService
from cloud_server.store.database import Database
from cloud_server.uploads import Uploads
from diredi import process
from diredi.errors import DirediError, InvalidInput
from diredi.jobs import Executor, LocalExecutor
from diredi.rpc.blobs import BlobServicer
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.rpc.pages import PageServicer
from diredi.rpc.renewal import LOOK_EVERY_S, is_due
from diredi.rpc.server import Server, start_server
from diredi.store.blobs import BlobStore
from diredi.store.files import make_folder
from diredi.trust import ca, enrolment, rotation
from diredi.trust.deny_list import CRL_FILE
from diredi.trust.identity import CA_FILE, PEOPLE, Credentials, Role
from diredi.trust.live import wait_for_valid
from diredi.trust.release_repository import ReleaseRepository

if TYPE_CHECKING:
    from diredi.web.app import WebApp
    from diredi.web.metrics import MetricsServer

_FOLLOW_EVERY_S: Final = 1.0
CYCLE_SERVICE: Final = "diredi.v1.CycleService"
_log = structlog.get_logger()


class Cloud:
    """A running cloud: `async with Cloud(config) as cloud:` answers at `cloud.address` until the block ends.

    `work` is the task that makes the first release and drives the cycles. It ends only with an error.
    """

    def __init__(
        self,
        config: CloudConfig,
        *,
        executor: Executor | None = None,
        jobs: str = JOBS,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        """Create a cloud that is not started yet.

        Args:
            config: The configuration.
            executor: Runs the jobs; by default each is a process on this machine.
            jobs: Name of the package whose modules are the jobs.
            keep_alive_s: No stream is silent for longer.
        """
        self.config = config
        self._executor = executor or LocalExecutor()
        self._jobs = jobs
        self._keep_alive_s = keep_alive_s
        self._deny_list_seen = 0

    async def start(self) -> Self:
        """Open the state, begin to answer, and begin to work.

        Raises:
            InvalidInput: The identity or the database's address is not usable.
            WrongState: The port is in use, the database is of a newer version, or it has lost what devices know.
            Unreachable: The database does not answer.
        """
        config = self.config
        credentials = Credentials.load(config.identity).require_server()
        if credentials.identity.role is not Role.CLOUD:
            raise InvalidInput(
                f"the certificate in {config.identity} is for {credentials.identity}, and no client takes that for the "
                "cloud: name another folder, or issue one with `diredi pki issue cloud NAME --host HOST`"
            )
        if config.authority is not None:
            ca.load(config.authority)
        make_folder(config.state_dir)
        database = await asyncio.to_thread(Database, config.effective_database_url)
        self.context = CloudContext(database, keep_alive_s=self._keep_alive_s, quotas=config.quotas)
        self.blobs = BlobStore(
            config.state_dir / "blobs", config.max_blob_mib * 2**20, reserve_bytes=config.disk_reserve_mib * 2**20
        )
        self.uploads = Uploads(self.context, self.blobs, config.keep_unreferenced_s)
        try:
            self._repository = ReleaseRepository(config.state_dir / "releases", config.identity, config.release_keys)
            if self._repository.is_unattended:
                _log.info("releases_signed_unattended")
            self.context.ledger = await asyncio.to_thread(self._check_past)
            self._server = await self._serve(credentials)
        except BaseException:
            database.close()
            raise
        self.work = asyncio.create_task(self._work())
        return self

    def _check_past(self) -> Ledger:
        config = self.config
        ledger = Ledger(config.release_keys or config.state_dir)
        published = max(self._repository.published(), default=0)
        self.context.database.transact(lambda r: r.log.record_existing(), writes=True)
        self.context.database.transact(
            lambda r: ledger.check(r, published=published, accept_lost_past=config.accept_lost_past), writes=True
        )
        return ledger

    async def _serve(self, credentials: Credentials) -> Server:
        config, context = self.config, self.context
        job_runner = JobRunner(config, self.blobs, self._executor, self._jobs)
        pipeline = CyclePipeline(
            context,
            job_runner,
            max_harm=config.max_harm,
            canary_devices=config.canary_devices,
            rollout_steps=config.rollout_steps,
            external_validations=config.external_validations,
        )
        self._fleet = FleetService(context, self._repository, self.blobs, config.rollout_rules.bounds)
        self._reconciler = CycleReconciler(
            context,
            pipeline,
            progress_deadline_s=config.progress_deadline_s,
            straggler_deadline_s=config.straggler_deadline_s,
            canary_deadline_s=config.canary_deadline_s,
            is_published=self._fleet.is_published,
            rollout_rules=config.rollout_rules,
        )
        self._job_runner = job_runner
        self._access = BlobAccess(context)
        self._meter = meter = IngressMeter(config.state_dir / "ingress")
        self._sent = EgressMeter(config.state_dir / "sent.json")
        cycles = CycleService(context, config.cycle_recipe)
        sites = SiteService(context, GapValidator(self.blobs))
        enrolling = EnrolmentService(config.authority, config.identity)
        self._console = self._make_console(cycles, sites, enrolling)
        putters = (Role.SITE, Role.OPERATOR, Role.ADMIN)
        servicers = [
            RegistryServicer(context),
            BlobServicer(self.blobs, putters, may_read=self._access.check, admission=self.uploads),
            CycleServicer(cycles),
            SiteServicer(sites, meter),
            FleetServicer(self._fleet),
            ReleaseServicer(self._fleet),
            EnrolmentServicer(enrolling, config.authority, config.identity),
            PageServicer(
                self._console.link if self._console else None,
                lambda caller: caller.role in PEOPLE,
                "persons with the role viewer or operator or admin",
            ),
        ]
        server = await start_server(
            credentials, config.listen, servicers, meter=meter, identity=config.identity, limits=config.limits
        )
        if self._console:
            self._console.sessions.admits = server.admits
        await server.set_serving(CYCLE_SERVICE, False)
        await server.set_serving("", True)
        return server

    def _make_console(self, cycles: CycleService, sites: SiteService, enrolling: EnrolmentService) -> WebApp | None:
        """Return the operator's console; None where there is to be none."""
        if not self.config.pages.listen:
            return None
        from cloud_server.pages.console import make_console  # only here: whoever has no pages needs no FastAPI
        from cloud_server.pages.parts import ConsoleParts

        parts = ConsoleParts(
            self.config, self.context, cycles, self._fleet, sites, enrolling, self._meter, self.blobs, self._sent
        )
        return make_console(parts)

    def _make_notifier(self) -> AlarmNotifier:
        async def find() -> list[Alarm]:
            await self._fleet.flush()
            online = {caller for caller, streams in self.context.open_streams.items() if streams}
            return await self.context.read(lambda r: find_alarms(r, self.context.now(), online))

        return AlarmNotifier(self.config.alarms, find, self._sent, self.config.state_dir / "alarms.json")

    def _make_metrics(self) -> MetricsServer:
        from cloud_server.metrics import collector_of  # only here: whoever has no metrics needs no web server
        from diredi.web.metrics import MetricsServer

        collect = collector_of(
            self.context, self._fleet, self._meter, self.config.state_dir,
            lambda: self._server.identity.credentials.expires, self._sent,
        )  # fmt: skip
        return MetricsServer(self.config.metrics, collect, self._sent)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._console:
                group.create_task(self._console.run())
            group.create_task(self._make_notifier().run())
            if self.config.metrics:
                group.create_task(self._make_metrics().run())
            group.create_task(self._fleet.run())
            group.create_task(self.uploads.run())
            group.create_task(self.uploads.keep_verified())
            group.create_task(self._keep_renewed())
            group.create_task(self._follow_deny_list())
            await asyncio.to_thread(self._job_runner.check_pool)
            release = await make_first_release(self.context, self._job_runner)
            await self._server.set_serving(CYCLE_SERVICE, True)
            _log.info("cycles_enabled", release=release.version)
            group.create_task(self._reconciler.run())

    async def _follow_deny_list(self) -> None:
        """Use the authority's newest deny list within a second, and tell all sites and devices that there is one."""
        logged = ""
        while True:
            try:
                await asyncio.to_thread(self._copy_deny_list)
                logged = ""
            except (DirediError, OSError) as error:
                if str(error) != logged:
                    _log.warning("deny_list_not_copied", why=str(error))
                logged = str(error)
            self.context.announce_deny_list(self._server.identity.deny_list.number)
            await asyncio.sleep(_FOLLOW_EVERY_S)

    def _copy_deny_list(self) -> None:
        if self.config.authority:
            rotation.follow(self.config.authority, self.config.identity)
        source = self.config.authority and self.config.authority / CRL_FILE
        if source and source.exists() and source.stat().st_mtime_ns != self._deny_list_seen:
            seen = source.stat().st_mtime_ns
            trusted = (self.config.identity / CA_FILE).read_bytes()
            enrolment.take_deny_list(self.config.identity, trusted, source.read_bytes())
            self._deny_list_seen = seen

    async def _keep_renewed(self) -> None:
        """Sign a new certificate for the cloud itself when half of the time of the old one is over."""
        folder, authority = self.config.identity, self.config.authority
        while authority is not None:
            own = self._server.identity.credentials
            if is_due(own):
                request = ca.request_for(own.key).public_bytes(serialization.Encoding.PEM)
                try:
                    certificate = await asyncio.to_thread(enrolment.renew, authority, own.certificate, request)
                    await asyncio.to_thread(enrolment.write_credentials, folder, own.ca, certificate, own.key, b"")
                    _log.info("certificate_renewed")
                except (DirediError, OSError) as error:
                    _log.warning("certificate_not_renewed", why=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    @property
    def address(self) -> str:
        """host:port where the cloud answers."""
        return self._server.address

    async def stop(self, grace_s: float = 1.0) -> None:
        """Stop answering and working. A job that is running is ended, and continues at the next start.

        Args:
            grace_s: How long calls may take to finish. Streams end at once.
        """
        await self._server.stop(grace_s)
        self.work.cancel()
        with suppress(asyncio.CancelledError, BaseExceptionGroup):
            await self.work
        with suppress(Exception):  # heartbeats of the last seconds are no reason not to stop
            await self._fleet.flush()
        await asyncio.to_thread(self._meter.close)
        await asyncio.to_thread(self._sent.close)
        self.context.database.close()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def serve(config: CloudConfig, stop: asyncio.Event, jobs: str = JOBS) -> None:
    """Run a cloud until `stop` is set.

    Raises:
        DirediError: What ended the cloud's work, or kept it from starting.
    """
    if await wait_for_valid(config.identity, stop) is None:
        return
    async with Cloud(config, jobs=jobs) as cloud:
        process.announce(cloud.address)
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({stopped, cloud.work}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if cloud.work.done():
            error = cloud.work.exception()
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            raise error or RuntimeError("the cloud's work ended without a reason")
