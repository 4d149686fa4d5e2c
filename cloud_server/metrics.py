"""The figures of a cloud for Prometheus: the fleet, its cycles, its releases, and what sites have sent."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric

import diredi
from cloud_server.context import CloudContext
from cloud_server.fleet.service import FleetService
from cloud_server.states import State
from cloud_server.store import Repository
from cloud_server.store.fleet import Trouble
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.web.metrics import Collect, metric, metrics_by


@dataclass(frozen=True)
class _Numbers:
    """What the database says, read in one transaction."""

    devices: dict[str, int]
    troubles: dict[Trouble, int]
    running: dict[int, int]
    sites: list[str]
    cycles: dict[State, int]
    releases: dict[str, int]
    log_entries: int


def collector_of(
    context: CloudContext, fleet: FleetService, meter: IngressMeter, state_dir: Path, expires: Callable[[], datetime],
    sent: EgressMeter,
) -> Collect:  # fmt: skip
    """Return a function that collects the figures of a cloud.

    Args:
        context: The database and who is connected.
        fleet: Writes what devices have told in the last seconds.
        meter: What sites have sent.
        state_dir: Where the cloud keeps its state.
        expires: Returns when the cloud's certificate ends.
        sent: What the cloud has sent beside what was asked of it.
    """

    async def collect() -> Iterable[Metric]:
        await fleet.flush()
        now = context.now()
        numbers = await context.read(lambda r: _read(r, now))
        leaving = metrics_by(
            Counter, "diredi_cloud_sent_bytes", "Bytes of alarms, pages and metrics that have left.", ("type",),
            {(kind,): count for kind, count in sent.totals().items()},
        )  # fmt: skip
        service = _of_the_service(numbers, meter, state_dir, expires())
        return [*_of_the_fleet(numbers, context), *service, leaving]

    return collect


def _read(r: Repository, now: datetime) -> _Numbers:
    scopes = r.releases.scopes()
    current = {scope: r.releases.current((scope,)) for scope in scopes}
    return _Numbers(
        devices=r.devices.count_by_site(),
        troubles=r.devices.count_troubles(now)[1],
        running=r.devices.known_values()[1],
        sites=[site.name for site in r.sites.all()],
        cycles=r.cycles.count_by_state(),
        releases={scope: release.version for scope, release in current.items() if release},
        log_entries=r.log.frontier().size,
    )


def _of_the_fleet(numbers: _Numbers, context: CloudContext) -> Iterable[Metric]:
    yield metrics_by(
        Gauge, "diredi_cloud_devices", "Devices of each site.", ("site",),
        {(site,): count for site, count in numbers.devices.items()},
    )  # fmt: skip
    yield metrics_by(
        Gauge, "diredi_cloud_devices_in_trouble", "Devices that somebody should look at, by why; one may have several.",
        ("trouble",), {(trouble.value,): count for trouble, count in numbers.troubles.items()},
    )  # fmt: skip
    yield metrics_by(
        Gauge, "diredi_cloud_devices_running", "Devices that run each release; 0 is none.", ("release",),
        {(str(release),): count for release, count in numbers.running.items()},
    )  # fmt: skip
    yield metrics_by(
        Gauge, "diredi_cloud_latest_release", "Release that devices of each scope should run.", ("scope",),
        {(scope,): version for scope, version in numbers.releases.items()},
    )  # fmt: skip
    yield metrics_by(
        Gauge, "diredi_cloud_site_online", "Whether the user domain of each site is connected.", ("site",),
        {(site,): int(context.open_streams[f"site/{site}"] > 0) for site in numbers.sites},
    )  # fmt: skip
    yield metrics_by(
        Gauge, "diredi_cloud_cycles", "Update cycles in each state, those of the past included.", ("state",),
        {(state.value,): numbers.cycles.get(state, 0) for state in State},
    )  # fmt: skip


def _of_the_service(numbers: _Numbers, meter: IngressMeter, state_dir: Path, expires: datetime) -> Iterable[Metric]:
    yield metrics_by(
        Gauge, "diredi_cloud_info", "What this cloud is; always 1.", ("version",), {(diredi.__version__,): 1}
    )
    yield metrics_by(
        Counter, "diredi_cloud_received_bytes", "Bytes that each site has sent, as the cloud counts them.", ("site",),
        {(site,): sum(meter.totals(f"site/{site}").values()) for site in numbers.sites},
    )  # fmt: skip
    yield metric(Gauge, "diredi_cloud_log_entries", "Entries of the log of decisions.", numbers.log_entries)
    yield metric(
        Gauge, "diredi_cloud_certificate_expires_timestamp_seconds", "When the cloud's certificate ends.",
        expires.timestamp(),
    )  # fmt: skip
    yield metric(
        Gauge, "diredi_cloud_disk_free_bytes", "Room on the disk with the state.", shutil.disk_usage(state_dir).free
    )
