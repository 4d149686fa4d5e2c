"""The figures of a node in the format of Prometheus, made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

import diredi
from diredi.data.sample_reason import SampleReason
from edge_node.camera import SourceState
from edge_node.drift import DriftSignal
from edge_node.servicer import NodeParts
from edge_node.telemetry import LATENCY_BOUNDS_S

Family = CounterMetricFamily | GaugeMetricFamily

THERMAL = Path("/sys/class/thermal")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class NodeMetrics:
    """Collect the figures of a node."""

    def __init__(self, node: NodeParts, thermal: Path = THERMAL) -> None:
        """Make a collector.

        Args:
            node: The parts of the node.
            thermal: Where Linux shows temperatures.
        """
        self._node, self._thermal = node, thermal
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the families of metrics, as prometheus-client asks for them."""
        node, rates = self._node, self._node.telemetry.rates()
        model, wanted = node.active.current, node.updater.wanted
        yield _labelled(
            GaugeMetricFamily, "info", "What this node is; always 1.", ("device", "site", "version"),
            {(node.device, node.site, diredi.__version__): 1},
        )  # fmt: skip
        yield _plain(
            GaugeMetricFamily, "release", "Release that detects; 0 for none.", model.release.version if model else 0
        )
        yield _plain(
            GaugeMetricFamily, "latest_release", "Release that the cloud has named last; 0 for none.",
            wanted.version if wanted else 0,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "updates", "Installations that have ended.", ("outcome",),
            {(outcome,): node.updater.outcomes[outcome] for outcome in ("installed", "failed")},
        )  # fmt: skip
        yield _plain(GaugeMetricFamily, "cloud_online", "Whether the cloud has answered last.", int(node.cloud.online))
        yield _plain(
            GaugeMetricFamily, "problem", "Whether anything is wrong; the status says what.", int(bool(node.last_error))
        )
        yield from self._cameras()
        drifts = node.drift.drifts
        yield _labelled(
            GaugeMetricFamily, "drift", "Whether a camera no longer sees what it used to see.", ("camera", "signal"),
            {
                (camera.name, signal.value): int(camera.name in drifts and drifts[camera.name].signal is signal)
                for camera in node.inference.cameras
                for signal in DriftSignal
            },
        )  # fmt: skip
        tally = node.shadow.tally
        yield _plain(GaugeMetricFamily, "shadow_frames", "Frames of the last shadow run.", tally.frames)
        yield _plain(
            GaugeMetricFamily, "shadow_differing_ratio", "Share of its boxes that the other release has not found.",
            tally.share,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "samples", "Frames that the user domain has taken, by why they were picked.",
            ("reason",), {(reason.value,): node.handed[reason.value] for reason in SampleReason},
        )  # fmt: skip
        yield _plain(CounterMetricFamily, "frames_dropped", "Frames on which no release could detect.", rates.dropped)
        yield _plain(
            CounterMetricFamily, "frames_failed", "Frames on which a release has failed; the one before detects them.",
            node.active.failed_frames,
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "sent_bytes", "Bytes that have left this node, since it was set up.", ("type",),
            {(kind,): count for kind, count in node.meter.totals().items()},
        )  # fmt: skip
        yield _plain(
            CounterMetricFamily, "results_skipped", "Results that a slow reader has missed.", node.broadcast.skipped
        )
        for output in node.outputs:
            yield from output.metrics()
        yield _labelled(
            GaugeMetricFamily,
            "temperature_celsius",
            "Temperatures that Linux shows.",
            ("sensor",),
            self._temperatures(),
        )

    def _cameras(self) -> Iterator[Metric]:
        by_camera = self._node.telemetry.by_camera()
        cameras = self._node.inference.cameras
        yield _labelled(
            GaugeMetricFamily, "camera_up", "Whether a camera gives frames.", ("camera",),
            {(camera.name,): int(camera.state is SourceState.OK) for camera in cameras},
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "frames", "Frames that were looked at.", ("camera",),
            {(name,): sum(counts.latencies) for name, counts in by_camera.items()},
        )  # fmt: skip
        yield _labelled(
            CounterMetricFamily, "detections", "Boxes that were found, by class.", ("camera", "class"),
            {(name, label): n for name, counts in by_camera.items() for label, n in counts.detections.items()},
        )  # fmt: skip
        latency = HistogramMetricFamily(
            "diredi_edge_detection_seconds", "Time from a frame to its detections.", labels=("camera",)
        )
        bounds = [*(str(bound) for bound in LATENCY_BOUNDS_S), "+Inf"]
        for name, counts in by_camera.items():
            latency.add_metric(
                [name], list(zip(bounds, accumulate(counts.latencies), strict=True)), counts.latency_sum_s
            )
        yield latency

    def _temperatures(self) -> dict[tuple[str, ...], float]:
        """Return degrees by sensor; one that cannot be read is left out."""
        found: dict[tuple[str, ...], float] = {}
        for zone in sorted(self._thermal.glob("thermal_zone*")):
            try:
                kind, value = (zone / "type").read_text().strip(), int((zone / "temp").read_text()) / 1000
            except (OSError, ValueError):
                continue
            found[(f"{zone.name.removeprefix('thermal_zone')}-{kind}",)] = value
        return found


def _plain(family: type[Family], name: str, text: str, value: float) -> Metric:
    return family(f"diredi_edge_{name}", text, value=value)


def _labelled(
    family: type[Family],
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: dict[tuple[str, ...], float],
) -> Metric:
    found = family(f"diredi_edge_{name}", text, labels=labels)
    for key, value in values.items():
        found.add_metric(list(key), value)
    return found
