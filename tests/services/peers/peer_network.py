"""Peers that talk over real gRPC and TLS: an authority, served round stores, and processes whose log is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import yaml

from diredi.rpc.byte_counter import IngressMeter
from diredi.rpc.client import connect
from diredi.rpc.server import start_server
from diredi.rpc.v1.peers_pb2_grpc import PeerServiceStub
from diredi.trust.identity import Identity, Role
from peer_node.learner import Predictions, PredictionSpec
from peer_node.peer_client import PeerClient
from peer_node.round_store import RoundStore
from peer_node.servicer import PeerServicer
from tests.support.net import free_ports
from tests.support.waiting import PATIENCE_S

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SITE = "site-1"
SPEC = PredictionSpec("sha256:" + "a" * 64, samples=50, classes=4, heads=3, embedding=5)


def identity(name):
    return Identity(Role.DEVICE, name, SITE)


def predictions(spec=SPEC, seed=0):
    """Random ones, every value another."""
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(spec.classes), (spec.heads, spec.samples)).astype(np.float32)
    embeddings = random.normal(size=(spec.samples, spec.embedding)).astype(np.float32)
    return Predictions(probabilities, embeddings if spec.embedding else None)


class PeerNetwork:
    """Servers, channels and listeners of one test; `close` ends all of them."""

    def __init__(self, pki):
        self.pki = pki
        self.received = IngressMeter()
        self.names = {}  # address to the name of the peer that was served there
        self.stack = contextlib.AsyncExitStack()

    async def store(self, name, spec=SPEC, rounds=3, keep=2, neighbours=("asker",), sent=None):
        """A peer that has published nothing yet, and its address."""
        store = RoundStore(spec, rounds, keep)
        servicer = PeerServicer(identity(name), store, [identity(n) for n in neighbours])
        return store, await self.served(name, servicer, sent)

    async def served(self, name, servicer, sent=None):
        server = await start_server(self.pki.credentials("device", name, SITE), "127.0.0.1:0", [servicer], sent=sent)
        self.stack.push_async_callback(server.stop, 0)
        self.names[server.address] = name
        return server.address

    async def channel(self, address, name="asker", meter=None, heard=None, role="device", site=SITE, server=""):
        expected = identity(server or self.names[address])
        credentials = self.pki.credentials(role, name, site if role == "device" else "")
        return await self.stack.enter_async_context(connect(address, credentials, meter, heard, server=expected))

    async def client(self, name, address, spec=SPEC):
        """As "asker" sees it."""
        heard = partial(self.received.count, str(identity(name)))
        return PeerClient(identity(name), await self.channel(address, heard=heard, server=name), spec)

    async def ask_as(self, name, config, method, request):
        """Ask a peer for one of its updates as one that takes part does, and wait for the answer."""
        channel = await self.channel(config["listen"], name, server=config["name"])
        call = getattr(PeerServiceStub(channel), method)(request, timeout=PATIENCE_S, wait_for_ready=True)
        return [message async for message in call]

    async def close(self):
        await self.stack.aclose()


class PeerProcess:
    """`python -m peer_node`, and its log as it comes."""

    def __init__(self, process):
        self.process = process
        self.events = []
        self.last_line = ""
        self._grown = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, folder, config):
        file = folder / f"{config['name']}.yaml"
        file.write_text(yaml.safe_dump(config))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "peer_node", "--config", str(file),
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(HERE)}, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return cls(process)

    async def _read(self):
        async for line in self.process.stderr:
            async with self._grown:
                self.last_line = line.decode().strip()
                with contextlib.suppress(ValueError):
                    self.events.append(json.loads(line))
                self._grown.notify_all()

    async def logged(self, event, **values):
        """Return the first line of its log with this event and these values."""

        def first_match():
            expected = {"event": event, **values}.items()
            return next((line for line in self.events if expected <= line.items()), None)

        async with asyncio.timeout(PATIENCE_S), self._grown:
            return await self._grown.wait_for(first_match)

    async def ended(self):
        """Its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            await self._reading
            return await self.process.wait()

    async def kill(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()


def configs_of(folder, pki, names, **more):
    """Every one of `names` with all others as neighbours."""
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    return [
        {
            "name": name,
            "site": SITE,
            "identity": str(pki.issue("device", name, SITE)),
            "listen": f"127.0.0.1:{ports[name]}",
            "neighbours": {other: f"127.0.0.1:{ports[other]}" for other in names if other != name},
            "rounds": 3,
            "deadline_s": 30,
            "summary": str(folder / f"{name}.json"),
            "learner": "peer_softmax:learner",
            "peer": index,
            "peers": len(names),
            **more,
        }
        for index, name in enumerate(names)
    ]


def read_summary(config):
    return json.loads(Path(config["summary"]).read_text())
