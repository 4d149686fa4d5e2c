"""Puts a user domain together, and starts and stops its parts in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from diredi import process
from diredi.errors import DirediError, InvalidInput, NoLabels
from diredi.jobs import LocalExecutor
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.client import Channel, connect
from diredi.rpc.enrolment import enrol_with_file
from diredi.rpc.pages import PageServicer
from diredi.rpc.renewal import DenyListFollower, keep_renewed
from diredi.rpc.retry import Backoff
from diredi.rpc.server import start_server
from diredi.store.files import make_folder
from diredi.trust.identity import Identity, Role
from diredi.trust.live import LiveIdentity, wait_for_valid
from user_domain.cloud import CloudClient
from user_domain.config import UserDomainConfig
from user_domain.consent import Consent, ConsentJournal
from user_domain.deletion import Deletion
from user_domain.journal import Journal
from user_domain.labelled_samples import join_samples
from user_domain.manifest import ManifestStore
from user_domain.overlays import OverlayMaker, OverlayServicer, overlay_blobs
from user_domain.policy import Policy
from user_domain.private_data import SAMPLES, WITH_ORACLE, PrivateData, no_data, read_private_data
from user_domain.samples import SampleStore
from user_domain.servicer import LocalServicer, SiteParts
from user_domain.task_handlers import SiteContext
from user_domain.task_worker import TaskWorker
from user_domain.update_rules import UpdateRules

if TYPE_CHECKING:
    from diredi.web.app import WebApp
    from diredi.web.metrics import MetricsServer

STOP_S = 0.5
JOINED = "labelled"
"""Folder of the data sets in which labelled samples are joined with the private one."""


class _Data:
    """Hold the private data set as it was read last."""

    def __init__(self, config: UserDomainConfig, samples: SampleStore) -> None:
        self._config = config
        self._samples = samples
        self._logged: tuple[str, ...] = ()
        try:
            self.last = self.read(config.labelled)
        except NoLabels:
            if config.data != SAMPLES:
                raise
            self.last = no_data()

    def read(self, labels: bool) -> PrivateData:
        """Read the data set again, with its labels or without. Raises DatasetError that names file and line."""
        config = self._config
        if labels and not config.labelled:
            raise NoLabels(f"this site has no labels (labelled is false): start the cycle with {WITH_ORACLE}")
        self.last = read_private_data(
            config.data,
            config.state_dir / "scenes",
            read_labels=labels,
            class_names=config.class_names,
            no_label_file=config.no_label_file,
            seed=config.seed,
            train=config.scenes_train,
            val=config.scenes_val,
            join=self._join,
        )
        if self.last.notes != self._logged:
            structlog.get_logger().warning("private_data_noted", notes=list(self.last.notes))
            self._logged = self.last.notes
        return self.last

    def read_again(self) -> None:
        """Read the data set again, after labelled samples were deleted. Raises DatasetError as `read` does."""
        try:
            self.read(self._config.labelled)
        except NoLabels:
            self.last = no_data()

    def _join(self, private: Path | None) -> Path | None:
        config = self._config
        return join_samples(self._samples, config.state_dir / JOINED, config.samples_held_out, private)


async def serve(config: UserDomainConfig, stop: asyncio.Event) -> None:
    """Run a user domain until `stop` is set.

    Raises:
        DirediError: Something that the configuration names cannot be used.
    """
    if config.oracle is not None and not config.oracle.is_file():
        raise InvalidInput(f"oracle {config.oracle} does not exist: name the file of a detector, or leave it out")
    for wish in _forms(config) if not config.labelled else ():
        raise InvalidInput(f"{wish} needs labels, which judge whether it is better: leave it out, or label the images")
    if config.data == SAMPLES and not config.labelled:
        raise InvalidInput("data is samples and labelled is false: samples teach by their labels, so leave it out")
    make_folder(config.state_dir)
    meter = EgressMeter(config.state_dir / "egress.json", by_day=True)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, meter.close)
        owner = Identity(Role.SITE, config.site)
        if config.token is not None:
            await enrol_with_file(config.token, config.cloud, config.identity, owner, meter)
        credentials = await wait_for_valid(config.identity, stop, owner=owner, longest_s=config.retry_longest_s)
        if credentials is None:
            return
        credentials.require_server()
        samples = await asyncio.to_thread(_open_samples, config)
        journal = ConsentJournal(config.state_dir / "consent.jsonl", credentials)
        deletion = Deletion(
            samples, journal, config.state_dir / JOINED, config.state_dir / "jobs",
            working_on=lambda: site.latest.cycle_id, read_again=lambda: data.read_again(),  # noqa: PLW0108  (it is made below)
        )  # fmt: skip
        await asyncio.to_thread(deletion.finish)
        data = await asyncio.to_thread(_Data, config, samples)
        channel = await stack.enter_async_context(connect(config.cloud, credentials, meter, identity=config.identity))
        cloud = CloudClient(channel, config.state_dir / "downloads", credentials)
        policy = Policy(config.approval, config.bounds, config.site, config.external_validation)
        consent = Consent(journal, policy, lambda: data.last, publish_style=config.publish_style)
        site = SiteContext(
            cloud=cloud,
            executor=LocalExecutor(),
            journal=Journal(config.state_dir / "journal.json", config.keep_cycles),
            jobs=config.state_dir / "jobs",
            consent=consent,
            policy=policy,
            read_data=data.read,
            progress_every_s=config.progress_every_s,
            publish_style=config.publish_style,
            min_held_out=config.min_held_out,
            audit_images=config.audit_images,
            manifests=ManifestStore(config.state_dir / "manifests"),
            oracle=config.oracle and config.oracle.absolute(),
        )
        rules = UpdateRules(journal, config.update_windows, config.time_zone)
        worker = TaskWorker(site, Backoff(0.5, config.retry_longest_s))
        parts = SiteParts(config.site, lambda: data.last, samples, cloud, worker, meter, consent, rules, deletion)
        overlays = _overlay_maker(config, cloud, data) if _forms(config) else None
        shown = EgressMeter(config.state_dir / "shown.json") if config.pages.listen or config.metrics else EgressMeter()
        stack.push_async_callback(asyncio.to_thread, shown.close)
        pages = _pages(config, parts, site, shown)
        servicers = [
            LocalServicer(parts),
            OverlayServicer(config.site, overlays),
            PageServicer(pages.link if pages else None, lambda caller: caller == owner, f"the holder of {owner}'s key"),
        ]
        more = [overlay_blobs(config.site, overlays)] if overlays else []
        server = await start_server(credentials, config.listen, [*servicers, *more], identity=config.identity)
        stack.push_async_callback(server.stop, STOP_S)
        if pages:
            pages.sessions.admits = server.admits
        process.announce(server.address, site=config.site, train_images=data.last.train_images)
        deny_list = DenyListFollower(config.identity)
        following = _follow_identity(server.identity, channel, cloud, journal, config.identity)
        measuring = [overlays.run()] if overlays else []
        fetching = deny_list.run(channel)
        working = [_watch_tasks(config, cloud, worker, deny_list), worker.run(), following, fetching]
        serving = [pages.run()] if pages else []
        if config.metrics:
            serving.append(_metrics(config, parts, site, shown).run())
        await process.run_all([*working, *measuring, *serving], stop)


def _pages(config: UserDomainConfig, parts: SiteParts, site: SiteContext, shown: EgressMeter) -> WebApp | None:
    """Return the site's web pages; None where there are to be none."""
    if not config.pages.listen:
        return None
    from user_domain.pages.site_pages import make_pages  # only here: whoever has no pages needs no FastAPI

    return make_pages(config, parts, site, shown)


def _metrics(config: UserDomainConfig, parts: SiteParts, site: SiteContext, shown: EgressMeter) -> MetricsServer:
    from diredi.web.metrics import MetricsServer  # only here: whoever has no metrics needs no web server
    from user_domain.metrics import collector_of

    return MetricsServer(config.metrics, collector_of(parts, site.latest, config.state_dir), shown)


def _open_samples(config: UserDomainConfig) -> SampleStore:
    return SampleStore(
        config.state_dir / "samples", config.max_samples, max_bytes=config.max_samples_mib * 2**20,
        max_age=timedelta(days=config.max_sample_days),
    )  # fmt: skip


async def _follow_identity(
    identity: LiveIdentity, channel: Channel, cloud: CloudClient, journal: ConsentJournal, folder: Path
) -> None:
    """Have the certificate renewed, and use a renewed one as soon as it is in the folder, for ever."""
    while True:
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(keep_renewed(channel, cloud.credentials, folder))
            while identity.credentials is cloud.credentials:
                await asyncio.sleep(1.0)
            renewing.cancel()
        channel.renew(identity.credentials)
        cloud.credentials = journal.credentials = identity.credentials


def _forms(config: UserDomainConfig) -> list[str]:
    """Return what this site wants releases to have in its own form, by the names of the options."""
    return [name for name in ("overlay", "fit_input", "quantise") if getattr(config, name)]


def _overlay_maker(config: UserDomainConfig, cloud: CloudClient, data: _Data) -> OverlayMaker:
    backoff = Backoff(0.5, config.retry_longest_s)
    return OverlayMaker(
        cloud, LocalExecutor(), config.state_dir / "overlays", lambda: data.last, backoff,
        overlay=config.overlay, fit_input=config.fit_input, quantise=config.quantise,
        confidence=config.quantise_confidence,
    )  # fmt: skip


async def _watch_tasks(
    config: UserDomainConfig, cloud: CloudClient, worker: TaskWorker, deny_list: DenyListFollower
) -> None:
    """Hand tasks to the worker for ever. After a refusal it tries again: an operator may correct that while we run."""
    while True:
        try:
            async for message in cloud.watch_tasks(
                config.site,
                auto_approve=config.approval == "always",
                publish_style=config.publish_style,
                validates_external=config.external_validation != "never" and config.approval != "never",
                silence_s=config.silence_s,
                longest_s=config.retry_longest_s,
                on_break=worker.forget_waiting,
                on_deny_list=deny_list.announce,
            ):
                await worker.accept(message)
        except DirediError as error:
            structlog.get_logger().error("task_stream_refused", error=str(error))
            cloud.set_online(False, str(error))
        await asyncio.sleep(config.retry_longest_s)
