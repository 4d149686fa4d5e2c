"""One peer put together, and its rounds: learn, publish, ask the neighbours, learn from them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from diredi import process
from diredi.errors import DirediError, InvalidInput, Unreachable
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.rpc.client import connect
from diredi.rpc.retry import Backoff
from diredi.rpc.server import start_server
from diredi.trust.identity import Credentials
from peer_node.collect import Absence, Collected, collect
from peer_node.config import PeerConfig
from peer_node.learner import Learner, LearnerContext, Metrics, load_factory
from peer_node.peer_client import PeerClient
from peer_node.round_store import RoundStore
from peer_node.servicer import PeerServicer

STOP_S = 0.5


@dataclass(frozen=True)
class Round:
    """What became of one round."""

    round: int
    fitted: Metrics
    learned: Metrics
    answered: list[str]
    missing: dict[str, Absence]
    seconds: float


@dataclass
class Summary:
    """What became of a peer so far: counts and figures, never contents. Bytes are as counted on the wire."""

    peer: str
    ended: bool = False
    """Whether all rounds were run_peers."""
    rounds: list[Round] = field(default_factory=list)
    sent_bytes: dict[str, int] = field(default_factory=dict)
    """Message type to bytes."""
    received_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    """PeerClient to message type to bytes: what it answered and what it asked."""

    def write(self, path: Path) -> None:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(asdict(self), indent=1))
        part.replace(path)


async def serve(config: PeerConfig, stop: asyncio.Event) -> None:
    """Conducts all rounds, or as many as there are before `stop`.

    Raises a DirediError when something that the configuration names cannot be used.
    """
    credentials = own_credentials(config)
    config.summary.parent.mkdir(parents=True, exist_ok=True)
    context = LearnerContext(config.peer, config.peers, config.rounds, config.seed, config.data, config.options)
    learner = await asyncio.to_thread(lambda: load_factory(config.learner)(context))
    store = RoundStore(learner.payload_spec, config.rounds, config.keep_rounds)
    sent, received = EgressMeter(), IngressMeter()
    identities = {name: config.identity_of(name) for name in config.neighbours}
    async with AsyncExitStack() as stack:
        servicer = PeerServicer(config.own, store, identities.values())
        server = await start_server(credentials, config.listen, [servicer], meter=received, sent=sent)
        stack.push_async_callback(server.stop, STOP_S)
        clients = {}
        for name, address in config.neighbours.items():
            heard = partial(received.count, str(identities[name]))
            channel = await stack.enter_async_context(connect(address, credentials, sent, heard))
            clients[name] = PeerClient(identities[name], channel, learner.payload_spec)
        process.ready(server.address, peer=config.name, site=config.site, neighbours=list(clients))
        node = PeerNode(config, learner, store, clients, sent, received)
        await _either(node.run(), stop.wait())


def own_credentials(config: PeerConfig) -> Credentials:
    """Raises InvalidInput when the folder holds no certificate of this very peer."""
    credentials = Credentials.load(config.identity)
    if credentials.identity != config.own:
        raise InvalidInput(
            f"the certificate in {config.identity} is for {credentials.identity}, not for {config.own}: "
            "name another folder, or issue one with `diredi pki issue`"
        )
    return credentials


class PeerNode:
    """The rounds. Learning is done in threads, so that neighbours are answered meanwhile."""

    def __init__(
        self,
        config: PeerConfig,
        learner: Learner,
        store: RoundStore,
        clients: Mapping[str, PeerClient],
        sent: EgressMeter,
        received: IngressMeter,
    ) -> None:
        self._config = config
        self._learner = learner
        self._store = store
        self._clients = clients
        self._sent = sent
        self._received = received
        self._summary = Summary(config.name)
        self._log = structlog.get_logger()

    async def run(self) -> None:
        await self._greet()
        for number in range(1, self._config.rounds + 1):
            self._summary.rounds.append(await self._round(number))
            self._write()
        await self._linger()
        self._summary.ended = True
        self._write()
        self._log.info("done", rounds=self._config.rounds, sent_bytes=self._sent.total_bytes)

    async def _greet(self) -> None:
        """Waits until every neighbour is up, or `start_s` are over: peers need not start in one instant."""
        met = await asyncio.gather(*(self._met(name) for name in self._clients))
        self._log.info("greeted", neighbours=[name for name in met if name])

    async def _met(self, name: str) -> str:
        backoff, why = Backoff(longest_s=2.0), "it was not asked"
        try:
            async with asyncio.timeout(self._config.start_s):
                while True:
                    try:
                        await self._clients[name].greet()
                    except Unreachable as error:
                        why = str(error)
                        await asyncio.sleep(backoff.next_s())
                    else:
                        return name
        except TimeoutError:
            self._log.warning("neighbour_not_met", neighbour=name, why=why)
        except DirediError as error:
            self._log.warning("neighbour_not_met", neighbour=name, why=str(error))
        return ""

    async def _round(self, number: int) -> Round:
        began = time.monotonic()
        log = self._log.bind(round=number)
        log.info("round_began")
        fitted = await asyncio.to_thread(self._learner.fit, number)
        if not self._learner.collects_first:
            await self._publish(number, fitted)
        collected = await self._collect(number)
        learned = await asyncio.to_thread(self._learner.learn, number, collected.answers)
        if self._learner.collects_first:
            await self._publish(number, learned)
        seconds = round(time.monotonic() - began, 3)
        log.info("round_ended", figures=dict(learned), seconds=seconds, sent_bytes=self._sent.total_bytes)
        return Round(number, dict(fitted), dict(learned), list(collected.answers), collected.missing, seconds)

    async def _publish(self, number: int, figures: Metrics) -> None:
        checked = await asyncio.to_thread(lambda: self._store.validate(number, self._learner.compute_update(number)))
        self._store.publish(number, checked)
        self._log.info("published", round=number, figures=dict(figures))

    async def _collect(self, number: int) -> Collected:
        """Of this round's neighbours."""
        request, log = await asyncio.to_thread(self._learner.build_request, number), self._log.bind(round=number)
        asked = {name: self._clients[name] for name in self._config.asked_in(number)}
        deadline_s = self._config.deadline_s
        if self._learner.collects_first:
            deadline_s /= 2  # those that it listens to wait meanwhile, as long as deadline_s, for what it makes of that
        collected = await collect(asked, number, request, deadline_s=deadline_s, attempts=self._config.attempts)
        for name, absence in collected.missing.items():
            log.warning("neighbour_missing", neighbour=name, kind=absence.kind, why=absence.why)
        log.info("collected", answered=list(collected.answers), missing=list(collected.missing))
        return collected

    async def _linger(self) -> None:
        """Stays for neighbours that have not had their answer about the last round yet, as long as they are there."""
        last = self._config.rounds
        asked = [self._clients[name] for name in self._config.asked_in(last)]
        try:
            async with asyncio.timeout(self._config.deadline_s):
                await asyncio.gather(*(self._served_or_gone(client) for client in asked))
        except TimeoutError:
            self._log.warning("not_heard_by_all", round=last, waited_s=self._config.deadline_s)

    async def _served_or_gone(self, client: PeerClient) -> None:
        served = self._store.wait_until_served(self._config.rounds, client.identity)
        await _either(served, client.wait_until_disconnected())

    def _write(self) -> None:
        self._summary.sent_bytes = self._sent.totals()
        self._summary.received_bytes = {
            name: self._received.totals(str(client.identity)) for name, client in self._clients.items()
        }
        self._summary.write(self._config.summary)


async def _either(one: Coroutine[Any, Any, object], other: Coroutine[Any, Any, object]) -> None:
    """Returns when one of them is over, and cancels the other. Raises what that one raises."""
    tasks = [asyncio.create_task(one), asyncio.create_task(other)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
