"""Events by HTTP POST to one address, in order, each until it is taken."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import structlog
from prometheus_client.core import CounterMetricFamily, Metric

from diredi.errors import DirediError, Refused, Unreachable
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.retry import Backoff
from edge_node.outputs.events import Event, EventFeed
from edge_node.outputs.failures import explain
from edge_node.sources.credentials import with_credentials

ANSWER_S = 10.0
LATER = frozenset({408, 425, 429})
"""What a server answers to what it may take later; other answers from 400 to 499 refuse this event for good."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follow nobody to another address: it would get what is meant for this one."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401 - the library's own signature
        return None


class WebhookOutput:
    """Post events; while the other side is away they wait, and the oldest beyond `queue` are dropped."""

    def __init__(
        self, url: str, credentials: Path | None, meter: EgressMeter, feed: EventFeed, *, queue: int, backoff: Backoff
    ) -> None:
        """Make an output; `run` starts it.

        Args:
            url: Where events go; `{NAME}` stands for a variable of the environment.
            credentials: A netrc file with the user name and password for that host; None for none.
            meter: Counts what leaves.
            feed: Gives the events.
            queue: How many events are kept.
            backoff: Pauses between tries.
        """
        self._url, self._credentials, self._meter, self._backoff = url, credentials, meter, backoff
        parts = urlsplit(url)
        self._name = f"webhook {parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
        self._events: deque[Event] = deque()
        self._queue = queue
        self._waiting = asyncio.Event()
        self.dropped = 0
        """Events that were dropped or refused since the start."""
        self.problem = ""
        """Why events are not taken; empty for nothing."""
        feed.on_event.append(self._take)

    def metrics(self) -> list[Metric]:
        """Return how many events were dropped."""
        text = "Events that the webhook did not get."
        return [CounterMetricFamily("diredi_edge_webhook_events_dropped", text, value=self.dropped)]

    def _take(self, event: Event) -> None:
        if len(self._events) == self._queue:
            self._events.popleft()
            self.dropped += 1
        self._events.append(event)
        self._waiting.set()

    async def run(self) -> None:
        """Post events, for ever."""
        while True:
            await self._waiting.wait()
            if not self._events:
                self._waiting.clear()
                continue
            event = self._events[0]
            try:
                await asyncio.to_thread(self._post, event)
            except Refused as error:
                self._fail(error)
                self.dropped += 1
            except DirediError as error:
                self._fail(error)
                await asyncio.sleep(self._backoff.next_s())
                continue
            else:
                self.problem = ""
                self._backoff.reset()
            if self._events and self._events[0] is event:  # else it was dropped meanwhile
                self._events.popleft()

    def _post(self, event: Event) -> None:
        body = json.dumps(event.to_json(), ensure_ascii=False).encode()
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            request = self._request(body)
            request.add_header("Idempotency-Key", f"{event.id}-{event.type}-{event.seen_s:.3f}")
            self._meter.count("webhook/event", len(body))
            with opener.open(request, timeout=ANSWER_S):
                return
        except urllib.error.HTTPError as error:
            error.close()
            said = f"{self._name} answers {error.code} {error.reason}"
            if 400 <= error.code < 500 and error.code not in LATER:
                raise Refused(f"{said}: check the address, and the user and password if it wants any") from None
            remedy = "give the address that it leads to" if error.code < 400 else "look at its log"
            raise Unreachable(f"{said}: {remedy}") from None
        except urllib.error.URLError as error:
            reason = error.reason if isinstance(error.reason, Exception) else error
            raise explain(reason, self._name, "the variable SSL_CERT_FILE") from None
        except Exception as error:
            raise explain(error, self._name, "the variable SSL_CERT_FILE") from None

    def _request(self, body: bytes) -> urllib.request.Request:
        parts = urlsplit(with_credentials(self._url, self._credentials))
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method="POST")
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_header("Authorization", "Basic " + base64.b64encode(pair.encode()).decode())
        return request

    def _fail(self, error: DirediError) -> None:
        if str(error) != self.problem:
            structlog.get_logger().warning("webhook_failed", error=str(error))
        self.problem = str(error)
