"""Runs several peers on this machine: makes keys, ports and a configuration for each, and starts and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from diredi.child_process import ChildProcess
from diredi.config import ServiceConfig
from diredi.decentralized.topologies import TopologyRecipe, graph, neighbours
from diredi.trust import ca

HOST = "127.0.0.1"
_STOP_S = 3.0
"""A peer ends within two seconds of SIGTERM."""
_LOOK_EVERY_S = 0.1


class PeersFile(ServiceConfig):
    """Configure several peers on one machine; `diredi peers run --config FILE` reads it."""

    model_config = SettingsConfigDict(env_prefix="DIREDI_PEERS_")
    program: ClassVar[str] = "diredi peers run"

    peers: int = Field(ge=1)
    """How many peers to start. Their names are peer-1, peer-2 and so on."""
    rounds: int = Field(10, ge=1)
    """How many rounds each peer learns."""
    topology: TopologyRecipe = TopologyRecipe()
    """Which peers are neighbours. Nodes are counted from 0, so node 0 is peer-1."""
    seed: int = Field(0, ge=0)
    """The seed of the topology and of the learners."""
    site: str = "peers"
    """The name of the site in the certificates."""
    deadline_s: float = Field(60.0, gt=0)
    """How long a round waits for neighbours, in seconds."""
    start_s: float = Field(60.0, ge=0)
    """How long the first round waits for neighbours that have not started yet, in seconds."""
    learner: str
    """The function that makes the learners, as `package.module:function`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The options of the learners."""
    data: dict[str, Any] = Field(default_factory=dict)
    """What the learners learn from, and which part of it each peer has. The learner defines these options, too."""

    @property
    def names(self) -> list[str]:
        """The names of the peers, in order."""
        return [f"peer-{number}" for number in range(1, self.peers + 1)]

    def neighbours_by_round(self) -> list[list[list[str]]]:
        """Return the names of the neighbours that each peer asks, as [peer][round].

        Raises:
            InvalidInput: There is no such topology.
        """
        graphs = [graph(self.topology, self.peers, round_, self.seed) for round_ in range(1, self.rounds + 1)]
        return [[[self.names[i] for i in neighbours(edges, peer)] for edges in graphs] for peer in range(self.peers)]


@dataclass
class PeerStatus:
    """Say how far a peer is, by its own log."""

    name: str
    round: int = 0
    doing: str = "starting"
    answered: list[str] = field(default_factory=list)
    """Neighbours that answered in the round under way, or in the last one."""
    missing: dict[str, str] = field(default_factory=dict)
    """Neighbour to why it is missing in the same round."""
    metrics: dict[str, float] = field(default_factory=dict)
    sent_bytes: int = 0
    ended: str = ""
    """"done", "stopped", or what else became of it."""

    def apply(self, event: dict[str, Any]) -> bool:
        """Update this status by one line of the peer's log; return whether that changed anything."""
        match event.get("event"):
            case "service_started":
                self.doing = "waiting for neighbours"
            case "round_started":
                self.round, self.doing, self.answered, self.missing = event["round"], "learning", [], {}
            case "update_published":
                self.doing = "asking its neighbours"
            case "neighbour_left_out":
                self.missing[event["neighbour"]] = event["kind"]
            case "updates_collected":
                self.doing, self.answered = "learning from them", event["answered"]
            case "round_ended":
                self.doing, self.metrics, self.sent_bytes = "round done", event["metrics"], event["sent_bytes"]
            case "rounds_completed":
                self.doing = self.ended = "done"
            case _:
                return False
        return True


OnChange = Callable[[PeerStatus], None]


def write_configs(file: PeersFile, folder: Path) -> list[Path]:
    """Write a configuration file for each peer, and its key and certificate of an authority in FOLDER/pki/ca.

    Args:
        file: Which peers there are.
        folder: Where everything is written.

    Returns:
        The configuration files, in the order of the peers.
    """
    asks = file.neighbours_by_round()
    authority = folder / "pki" / "ca"
    if not (authority / ca.CA_KEY_FILE).exists():
        ca.init(authority)
    addresses = dict(zip(file.names, (f"{HOST}:{port}" for port in _free_ports(file.peers)), strict=True))
    configs = []
    for index, name in enumerate(file.names):
        identity = folder / "pki" / name
        ca.issue(authority, "device", name, [HOST, "localhost"], identity, site=file.site)
        config = {
            **file.model_dump(
                include={"site", "rounds", "deadline_s", "start_s", "seed", "learner", "options", "data"}
            ),
            "name": name,
            "peer": index,
            "peers": file.peers,
            "identity": str(identity),
            "listen": addresses[name],
            "neighbours": {other: addresses[other] for other in sorted({n for names in asks[index] for n in names})},
            "asks": asks[index] if file.topology.changes else [],
            "summary": str(summary_path(folder, name)),
            "model": str(model_path(folder, name)),
        }
        configs.append(folder / f"{name}.yaml")
        configs[-1].write_text(yaml.safe_dump(config, sort_keys=False))
    return configs


def summary_path(folder: Path, name: str) -> Path:
    """Return where a peer of that name writes its summary."""
    return folder / f"{name}.json"


def model_path(folder: Path, name: str) -> Path:
    """Return where a peer of that name keeps its model."""
    return folder / f"{name}.safetensors"


def _free_ports(count: int) -> list[int]:
    """Return different free ports: all are held until the last is found."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def run_peers(file: PeersFile, folder: Path, on_change: OnChange) -> list[PeerStatus]:
    """Run all peers until the last has ended, however each of them ends. None outlives this call.

    Args:
        file: Which peers there are.
        folder: Where their configurations, logs and summaries are written.
        on_change: Called with the status of a peer whenever that changed.

    Returns:
        The last status of each peer, in their order.
    """
    statuses = [PeerStatus(name) for name in file.names]
    running: list[ChildProcess] = []
    try:
        for status, config in zip(statuses, write_configs(file, folder), strict=True):
            running.append(_start(status.name, config, folder / f"{status.name}.log", file.peers))
        under_way = list(zip(running, statuses, strict=True))
        while under_way:
            time.sleep(_LOOK_EVERY_S)
            under_way = [(child, status) for child, status in under_way if not _follow(child, status, on_change)]
    finally:
        _stop(running)
    return statuses


def _start(name: str, config: Path, log: Path, peers: int) -> ChildProcess:
    """Start a peer. Its log is a file: a pipe would break with us, and a peer that cannot log cannot end in order."""
    threads = str(max(1, (os.cpu_count() or 1) // peers))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIREDI_PEER_")}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "diredi.child_process", "peer_node", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,  # Ctrl-C is for us alone; and what it starts can be ended with it
            env={"OMP_NUM_THREADS": threads, **ours},
        )
    return ChildProcess(name, process, log)


def _follow(child: ChildProcess, status: PeerStatus, on_change: OnChange) -> bool:
    """Read what a peer has logged meanwhile; return whether it has ended."""
    code = child.process.poll()  # before its log is read, so that the last lines of an ended one are not missed
    for event in child.new_events():
        if status.apply(event):
            on_change(status)
    if code is None:
        return False
    if code < 0:
        status.ended = f"killed by {signal.Signals(-code).name} in round {status.round}"
    elif code > 0:
        status.ended = f"failed: {''.join(child.last_lines()[-1:])}"
    else:
        status.ended = status.ended or "stopped"
    status.doing = status.ended
    on_change(status)
    return True


def _stop(running: Sequence[ChildProcess]) -> None:
    """Send SIGTERM to the peers that still run, then SIGKILL to those that do not end and to what they started."""
    for child in running:
        if child.process.poll() is None:
            child.process.terminate()
    deadline = time.monotonic() + _STOP_S
    for child in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
