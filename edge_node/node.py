"""Puts an edge node together, and starts and stops its parts in order."""

from __future__ import annotations

import asyncio
import threading
import zlib
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Any

import cv2
import structlog

from diredi import process
from diredi.cores import usable_cores
from diredi.detectors.onnx import OnnxPredictor
from diredi.errors import DirediError, InvalidInput
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.client import connect
from diredi.rpc.enrolment import enrol_with_file
from diredi.rpc.renewal import DenyListFollower, keep_renewed
from diredi.rpc.retry import Backoff
from diredi.rpc.server import start_server
from diredi.store.files import make_folder
from diredi.trust.deny_list import CRL_FILE, DenyList
from diredi.trust.identity import Credentials, Identity, Role
from diredi.trust.second_repository import SecondRepository
from edge_node.active_model import ActiveModel
from edge_node.camera import Camera
from edge_node.cloud import CloudClient
from edge_node.config import EdgeConfig
from edge_node.drift import DriftWatch
from edge_node.hard_samples import HardSampleSender
from edge_node.identity import IdentityFolder
from edge_node.inference import Broadcast, InferenceLoop
from edge_node.outputs.make import make_outputs
from edge_node.overlay import OverlayUpdater
from edge_node.release_trust import SignedMetadata
from edge_node.runtime_trial import find_runtimes, measure_runtime
from edge_node.runtimes import RuntimeChooser
from edge_node.sample_picker import SamplePicker
from edge_node.servicer import EdgeServicer, NodeParts
from edge_node.shadow import ShadowRun
from edge_node.site_rules import SiteRules
from edge_node.sources import SourceOptions, SourceSettings, check_source, open_source
from edge_node.telemetry import Telemetry
from edge_node.trial import try_release
from edge_node.update_store import UpdateStore
from edge_node.updater import TryRelease, Updater

STOP_S = 0.5
MEASUREMENT_S = 120.0
"""How long a runtime may take to be measured where `trial_s` is 0, in seconds."""


async def serve(config: EdgeConfig, stop: asyncio.Event) -> None:
    """Run an edge node until `stop` is set.

    A device that has a release detects, whatever is wrong with its clock or its certificate.

    Raises:
        DirediError: Something that the configuration names cannot be used.
    """
    if config.hand_samples_per_minute > 0 and config.user_domain is None:
        raise InvalidInput("hand_samples_per_minute is set and user_domain is not: name its host:port")
    if config.overlay and config.user_domain is None:
        raise InvalidInput("overlay is set and user_domain is not: name its host:port")
    identity = IdentityFolder(config)
    credentials = await identity.look()
    make_folder(config.state_dir)
    meter = EgressMeter(config.state_dir / "egress.json")
    threads = min(config.threads or usable_cores(), usable_cores())
    cv2.setNumThreads(threads)
    active, telemetry = ActiveModel(), Telemetry()
    broadcast = Broadcast(asyncio.get_running_loop())
    cloud = CloudClient(config.device, config.site, heartbeat_s=config.heartbeat_s, silence_s=config.silence_s)
    second = None
    if config.second_repository is not None and config.second_root is not None:
        known = config.state_dir / "trust" / "second"
        second = SecondRepository(config.second_repository, config.second_root, known)
    trust = SignedMetadata(config.state_dir / "trust", config.identity, config.site, cloud.fetch_metadata, second)
    rules = SiteRules(
        config.state_dir / "site-rules.json", every_s=config.heartbeat_s, has_site=config.user_domain is not None
    )
    picker = _sample_picker(config)
    settings = {name: check_source(reference).settings for name, reference in config.references.items()}
    shadow = ShadowRun(
        broadcast, picker.suggest if picker else None, settings, seconds=config.shadow_s, share=config.shadow_share,
        max_differing=config.shadow_max_differing, confidence=config.confidence, random=Random(),
    )  # fmt: skip
    updater = Updater(
        config.state_dir / "releases", UpdateStore(config.state_dir / "update.json"), active, trust=trust,
        fetch=cloud.fetch, report_install=cloud.report_install, load=partial(OnnxPredictor, threads=threads),
        frame=lambda: inference.last_image, retry_failed_s=config.retry_failed_s,
        try_release=_trial(config, threads), shadow=shadow.run if config.shadow_s else None, wait_for=rules.wait_for,
    )  # fmt: skip
    rules.on_change = updater.reconsider
    await asyncio.to_thread(updater.start_from_disk)
    overlays = OverlayUpdater(
        config.state_dir / "overlays", active, load=partial(OnnxPredictor, threads=threads),
        load_release=updater.load_verified, frame=lambda: inference.last_image, every_s=config.overlay_every_s,
        quantised=config.quantised,
    )  # fmt: skip
    if config.overlay:
        await asyncio.to_thread(overlays.start_from_disk)
    chooser = _chooser(config, active, threads)
    await asyncio.to_thread(chooser.start_from_disk)
    if credentials is None and active.current is None and config.token is None:
        raise InvalidInput(identity.problem)
    drift = DriftWatch(config.state_dir / "drift.json", doubtful_below=config.uncertain_below)
    await asyncio.to_thread(drift.start_from_disk)
    stopped, changed = threading.Event(), threading.Condition()
    inference = InferenceLoop(
        _cameras(config, settings, stopped, changed), active, telemetry, broadcast.publish,
        confidence=config.confidence, stopped=stopped, changed=changed,
    )  # fmt: skip
    parts = NodeParts(
        config.device, config.site, config.confidence,
        active, telemetry, broadcast, inference, updater, cloud, meter, identity, trust, chooser, drift,
        shadow, picker,
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, meter.close)
        stack.callback(chooser.close)
        stack.callback(drift.save)
        stack.callback(inference.stop, STOP_S)
        inference.start()
        running = [
            _keep_connected(config, parts, overlays, rules),
            chooser.run(broadcast),
            *make_outputs(config, parts),
        ]
        if config.drift:
            running.append(drift.run(broadcast))
        await process.run_all(running, stop)


def _cameras(
    config: EdgeConfig,
    settings: Mapping[str, SourceSettings],
    stopped: threading.Event,
    changed: threading.Condition,
) -> list[Camera]:
    options = SourceOptions(
        config.state_dir / "scenes", config.repeat, zlib.crc32(config.device.encode()), config.credentials,
        stopped=stopped,
    )  # fmt: skip
    return [
        Camera(
            name, partial(open_source, reference, options), settings[name],
            frames_per_second=settings[name].rate or config.frames_per_second,
            pauses=Backoff(config.reconnect_s, 30 * config.reconnect_s),
            stopped=stopped, changed=changed,
        )
        for name, reference in config.references.items()
    ]  # fmt: skip


def _trial(config: EdgeConfig, threads: int) -> TryRelease | None:
    if not config.trial_s:
        return None
    limits: Any = {"threads": threads, "time_s": config.trial_s, "memory_mib": config.trial_memory_mib}
    return partial(try_release, **limits)


def _chooser(config: EdgeConfig, active: ActiveModel, threads: int) -> RuntimeChooser:
    time_s = config.trial_s or MEASUREMENT_S
    return RuntimeChooser(
        config.state_dir / "runtime.json", active, asked=config.runtime, threads=threads,
        load=partial(OnnxPredictor, threads=threads), find_runtimes=partial(find_runtimes, time_s=time_s),
        measure=partial(
            measure_runtime, threads=threads, confidence=config.confidence, measure_s=config.measure_s,
            time_s=time_s, memory_mib=config.trial_memory_mib,
        ),
    )  # fmt: skip


async def _keep_connected(config: EdgeConfig, parts: NodeParts, overlays: OverlayUpdater, rules: SiteRules) -> None:
    """Run all that needs a certificate, for ever; begin it anew when the one in the folder is replaced."""
    listen = config.listen
    await _enrol(config, parts)
    picker = parts.picker
    while True:
        credentials = await parts.identity.usable()
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(
                connect(config.cloud, credentials, parts.meter, identity=config.identity)
            )
            parts.cloud.use(channel, credentials)
            if address := await _serve_site(config, listen, credentials, parts, stack):
                listen = address
            version, replaced = partial(running_version, parts.active), asyncio.Event()
            deny_list = DenyListFollower(config.identity)
            tasks = [
                parts.cloud.watch_releases(parts.updater.request, deny_list.announce),
                deny_list.run(channel),
                parts.cloud.heartbeat(parts.telemetry, version, parts.inference.cameras, parts.update_health),
                parts.trust.keep_fresh(lambda: parts.updater.record.installed),
                parts.updater.run(),
                keep_renewed(channel, credentials, config.identity),
                _set_when_done(parts.identity.replaced(credentials), replaced),
            ]
            if config.user_domain is not None:
                site = await stack.enter_async_context(
                    connect(
                        config.user_domain, credentials,
                        server=Identity(Role.SITE, config.site), identity=config.identity,
                    )
                )  # fmt: skip
                tasks.append(rules.run(site))
                tasks += [overlays.run(site)] if config.overlay else []
                if picker is not None:
                    tasks.append(HardSampleSender(site, config.device, picker, parts.handed).run(parts.broadcast))
            process.announce(address or "none", device=config.device, site=config.site, release=version())
            await process.run_all(tasks, replaced)


async def _enrol(config: EdgeConfig, parts: NodeParts) -> None:
    """Get the first certificate with the token that the configuration names; one that fails ends no detection."""
    if config.token is None:
        return
    owner = Identity(Role.DEVICE, config.device, config.site)
    try:
        await enrol_with_file(config.token, config.cloud, config.identity, owner, parts.meter)
    except DirediError as error:
        if parts.active.current is None:
            raise
        structlog.get_logger().warning("enrolment_failed", why=str(error))


async def _serve_site(
    config: EdgeConfig, listen: str, credentials: Credentials, parts: NodeParts, stack: AsyncExitStack
) -> str:
    """Answer the site, and return the address; empty where nobody may be answered, and the log says why."""
    try:
        credentials.require_server()
        DenyList.read(config.identity / CRL_FILE, credentials.ca)
    except InvalidInput as error:  # no reason for a camera to miss its updates
        structlog.get_logger().warning("edge_service_left_out", problem=str(error))
        return ""
    server = await start_server(credentials, listen, [EdgeServicer(parts)], identity=config.identity)
    stack.push_async_callback(server.stop, STOP_S)
    return server.address


async def _set_when_done(waiting: Coroutine[Any, Any, None], event: asyncio.Event) -> None:
    await waiting
    event.set()


def running_version(active: ActiveModel) -> int:
    """Return the version of the release that runs; 0 for none."""
    return 0 if active.current is None else active.current.release.version


def _sample_picker(config: EdgeConfig) -> SamplePicker | None:
    if not config.hand_samples_per_minute:
        return None
    return SamplePicker(
        interval_s=60 / config.hand_samples_per_minute,
        uncertain_below=config.uncertain_below,
        random_share=config.samples_random_share,
        random=Random(),
    )
