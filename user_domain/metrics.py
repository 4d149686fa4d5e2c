"""The figures of a user domain for Prometheus: numbers of pictures and bytes, never a class or a camera."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import Metric

import diredi
from diredi.web.metrics import Collect, metric, metrics_by
from user_domain.progress import LatestProgress
from user_domain.servicer import SiteParts


def collector_of(parts: SiteParts, latest: LatestProgress, state_dir: Path) -> Collect:
    """Return a function that collects the figures of a site.

    Args:
        parts: Of the user domain.
        latest: What it works on.
        state_dir: Where it keeps its state.
    """

    def figures() -> Iterable[Metric]:
        data, samples, worker = parts.data(), parts.samples, parts.worker
        yield metrics_by(
            Gauge, "diredi_site_info", "What this user domain is; always 1.", ("site", "version"),
            {(parts.site, diredi.__version__): 1},
        )  # fmt: skip
        yield metric(Gauge, "diredi_site_cloud_online", "Whether the cloud has answered last.", int(parts.cloud.online))
        yield metric(
            Gauge, "diredi_site_problem", "Whether anything is wrong; the log says what.",
            int(bool(worker.last_error or parts.meter.problem)),
        )  # fmt: skip
        yield metric(Gauge, "diredi_site_requests_waiting", "Cycles that wait for an answer.", len(worker.waiting))
        yield metric(Gauge, "diredi_site_working", "Whether work for a cycle is under way.", int(bool(latest.cycle_id)))
        yield metrics_by(
            Gauge, "diredi_site_work_done_ratio", "How far the steps of the work under way are, 0 to 1.", ("step",),
            {(step.step,): step.fraction for step in latest.steps},
        )  # fmt: skip
        yield metrics_by(
            Gauge, "diredi_site_private_images", "Images of the private data set.", ("split",),
            {("train",): data.train_images, ("val",): data.held_out_images},
        )  # fmt: skip
        yield metric(Gauge, "diredi_site_private_bytes", "Size of the private data set.", data.bytes)
        yield metrics_by(
            Gauge, "diredi_site_samples", "Frames that edge nodes handed over or that were imported.", ("labelled",),
            {("yes",): samples.count(labelled=True), ("no",): samples.count(labelled=False)},
        )  # fmt: skip
        yield metric(Gauge, "diredi_site_sample_bytes", "Size of these frames.", samples.image_bytes)
        yield metrics_by(
            Counter, "diredi_site_sent_bytes", "Bytes that have left this site, since it was set up.", ("type",),
            {(kind.removeprefix("diredi.v1."),): count for kind, count in parts.meter.totals().items()},
        )  # fmt: skip
        yield metric(
            Gauge, "diredi_site_certificate_expires_timestamp_seconds", "When the site's certificate ends.",
            parts.cloud.credentials.expires.timestamp(),
        )  # fmt: skip
        yield metric(
            Gauge, "diredi_site_disk_free_bytes", "Room on the disk with the state.", shutil.disk_usage(state_dir).free
        )

    async def collect() -> Iterable[Metric]:
        return list(figures())

    return collect
