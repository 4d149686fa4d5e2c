"""Puts a peer together and runs its rounds: fit, publish, collect from the neighbours, learn from them."""

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
from diredi.errors import DirediError, Unreachable
from diredi.rpc.byte_counter import EgressMeter, IngressMeter
from diredi.rpc.client import connect
from diredi.rpc.retry import Backoff
from diredi.rpc.server import start_server
from diredi.store.files import atomic_write, make_folder
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
    """Record what became of one round."""

    round: int
    fitted: Metrics
    """Metrics after learning from private data."""
    learned: Metrics
    """Metrics after learning from the neighbours."""
    answered: list[str]
    missing: dict[str, Absence]
    seconds: float


@dataclass
class Summary:
    """Record what became of a peer so far: counts and metrics, never contents. Bytes are as counted on the wire."""

    peer: str
    ended: bool = False
    """Whether all rounds are over."""
    rounds: list[Round] = field(default_factory=list)
    sent_bytes: dict[str, int] = field(default_factory=dict)
    """Message type to bytes."""
    received_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Neighbour to message type to bytes: what it answered and what it asked."""

    def write(self, path: Path) -> None:
        """Replace the JSON file at a path with this summary."""
        atomic_write(path, json.dumps(asdict(self), indent=1))


async def serve(config: PeerConfig, stop: asyncio.Event) -> None:
    """Run all rounds, or as many as there are before `stop` is set.

    Raises:
        DirediError: Something that the configuration names cannot be used.
    """
    credentials = Credentials.load(config.identity, owner=config.own).require_server()
    for path in (config.summary, config.model):
        if path is not None:
            make_folder(path.parent)
    context = LearnerContext(config.peer, config.peers, config.rounds, config.seed, config.data, config.options)
    learner = await asyncio.to_thread(lambda: load_factory(config.learner)(context))
    store = RoundStore(learner.payload_spec, config.rounds, config.keep_rounds)
    sent, received = EgressMeter(), IngressMeter()
    identities = {name: config.identity_of(name) for name in config.neighbours}
    async with AsyncExitStack() as stack:
        servicer = PeerServicer(config.own, store, identities.values())
        server = await start_server(
            credentials, config.listen, [servicer], meter=received, sent=sent, identity=config.identity
        )
        stack.push_async_callback(server.stop, STOP_S)
        clients = {}
        for name, address in config.neighbours.items():
            count = partial(received.count, str(identities[name]))
            channel = await stack.enter_async_context(
                connect(address, credentials, sent, count, server=identities[name], identity=config.identity)
            )
            clients[name] = PeerClient(identities[name], channel, learner.payload_spec)
        process.announce(server.address, peer=config.name, site=config.site, neighbours=list(clients))
        node = PeerNode(config, learner, store, clients, sent, received)
        await _first_completed(node.run(), stop.wait())


class PeerNode:
    """Run the rounds of one peer. Learning is done in threads, so that neighbours are answered meanwhile."""

    def __init__(
        self,
        config: PeerConfig,
        learner: Learner,
        store: RoundStore,
        clients: Mapping[str, PeerClient],
        sent: EgressMeter,
        received: IngressMeter,
    ) -> None:
        """Make a node.

        Args:
            config: Rounds, deadlines and the path of the summary.
            learner: The model and the private data.
            store: Where updates are published.
            clients: Name of a neighbour to its client.
            sent: Counts the bytes that leave.
            received: Counts the bytes that arrive.
        """
        self._config = config
        self._learner = learner
        self._store = store
        self._clients = clients
        self._sent = sent
        self._received = received
        self._summary = Summary(config.name)
        self._log = structlog.get_logger()

    async def run(self) -> None:
        """Greet the neighbours, run all rounds, and wait until the neighbours have the last update."""
        await self._greet_all()
        for number in range(1, self._config.rounds + 1):
            self._summary.rounds.append(await self._run_round(number))
            self._write_summary()
        await self._wait_for_last_calls()
        self._summary.ended = True
        self._write_summary()
        self._log.info("rounds_completed", rounds=self._config.rounds, sent_bytes=self._sent.total_bytes)

    async def _greet_all(self) -> None:
        """Wait until every neighbour is up, or `start_s` are over: peers need not start in one instant."""
        greeted = await asyncio.gather(*(self._greet(name) for name in self._clients))
        names = [name for name, answered in zip(self._clients, greeted, strict=True) if answered]
        self._log.info("neighbours_greeted", neighbours=names)

    async def _greet(self, name: str) -> bool:
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
                        return True
        except TimeoutError:
            pass
        except DirediError as error:
            why = str(error)
        self._log.warning("neighbour_not_greeted", neighbour=name, why=why)
        return False

    async def _run_round(self, number: int) -> Round:
        started = time.monotonic()
        log = self._log.bind(round=number)
        log.info("round_started")
        fitted = await asyncio.to_thread(self._learner.fit, number)
        if not self._learner.collects_first:
            await self._publish(number, fitted)
        collected = await self._collect(number)
        learned = await asyncio.to_thread(self._learner.learn, number, collected.answers)
        if self._learner.collects_first:
            await self._publish(number, learned)
        if self._config.model is not None:
            await asyncio.to_thread(self._learner.save, self._config.model)
        seconds = round(time.monotonic() - started, 3)
        log.info("round_ended", metrics=dict(learned), seconds=seconds, sent_bytes=self._sent.total_bytes)
        return Round(number, dict(fitted), dict(learned), list(collected.answers), collected.missing, seconds)

    async def _publish(self, number: int, metrics: Metrics) -> None:
        snapshot = await asyncio.to_thread(lambda: self._store.validate(number, self._learner.compute_update(number)))
        self._store.publish(number, snapshot)
        self._log.info("update_published", round=number, metrics=dict(metrics))

    async def _collect(self, number: int) -> Collected:
        """Ask the neighbours of this round."""
        request, log = await asyncio.to_thread(self._learner.build_request, number), self._log.bind(round=number)
        clients = {name: self._clients[name] for name in self._config.asked_in(number)}
        deadline_s = self._config.deadline_s
        if self._learner.collects_first:
            deadline_s /= 2  # its neighbours wait meanwhile, for deadline_s, for the update that it makes of theirs
        collected = await collect(clients, number, request, deadline_s=deadline_s, attempts=self._config.attempts)
        for name, absence in collected.missing.items():
            log.warning("neighbour_left_out", neighbour=name, kind=absence.kind, why=absence.why)
        log.info("updates_collected", answered=list(collected.answers), missing=list(collected.missing))
        return collected

    async def _wait_for_last_calls(self) -> None:
        """Wait until each neighbour has called about the last round or is gone, for `deadline_s` at the longest."""
        last = self._config.rounds
        try:
            async with asyncio.timeout(self._config.deadline_s):
                await asyncio.gather(
                    *(
                        _first_completed(
                            self._store.wait_until_served(last, client.identity), client.wait_until_disconnected()
                        )
                        for client in (self._clients[name] for name in self._config.asked_in(last))
                    )
                )
        except TimeoutError:
            self._log.warning("last_calls_missed", round=last, waited_s=self._config.deadline_s)

    def _write_summary(self) -> None:
        self._summary.sent_bytes = self._sent.totals()
        self._summary.received_bytes = {
            name: self._received.totals(str(client.identity)) for name, client in self._clients.items()
        }
        self._summary.write(self._config.summary)


async def _first_completed(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Return when one of them is over, cancel the others, and raise what that one raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
