"""Serves the figures of a service in the text format of Prometheus, at a port of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from diredi.rpc.byte_counter import EgressMeter
from diredi.web.hosts import REFUSAL, is_local_name
from diredi.web.server import listen, serve, url_of

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
CONNECTIONS: Final = 16
Collect = Callable[[], Awaitable[Iterable[Metric]]]
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


def metric(family: type[Family], name: str, text: str, value: float) -> Metric:
    """Return a figure without labels.

    Args:
        family: Whether it can fall (gauge) or only grow (counter).
        name: With its prefix, such as `diredi_site_`; a counter without `_total`.
        text: What it is, for people.
        value: The figure.
    """
    return family(name, text, value=value)


def metrics_by(
    family: type[Family], name: str, text: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> Metric:
    """Return a figure for each of several things, which labels tell apart; arguments as of `metric`."""
    found = family(name, text, labels=labels)
    for key, value in values.items():
        found.add_metric(list(key), value)
    return found


class MetricsServer:
    """Answers GET /metrics, to anybody who reaches the port: it has figures alone, and changes nothing."""

    def __init__(self, address: str, collect: Collect, meter: EgressMeter) -> None:
        """Make a server; `run` starts it.

        Args:
            address: The host:port to listen at.
            collect: Returns the figures of the service.
            meter: Counts what is answered.
        """
        self._address, self._collect, self._meter = address, collect, meter
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        self._app = Starlette(routes=[Route("/metrics", self._answer)])

    async def run(self) -> None:
        """Serve until this task is cancelled. Raises WrongState where the address cannot be had."""
        host, _, port = self._address.rpartition(":")
        with listen(host.strip("[]"), int(port), "metrics") as listening:
            structlog.get_logger().info("metrics_server_started", url=f"{url_of(listening)}metrics")
            await serve(self._app, listening, CONNECTIONS)

    async def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        registry = CollectorRegistry()
        registry.register(_Collected(await self._collect()))
        return generate_latest(registry) + generate_latest(self._process)

    async def _answer(self, request: Request) -> Response:
        if not is_local_name(request.headers.get("host", "")):
            return PlainTextResponse(REFUSAL, 421)
        body = await self.text()
        self._meter.count("metrics", len(body))
        return Response(body, media_type=CONTENT_TYPE, headers={"cache-control": "no-store"})


class _Collected:
    """Figures that were collected before prometheus-client asks for them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics
