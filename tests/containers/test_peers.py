"""Three peers in containers, without a cloud: they hear each other over TLS, and go on when one of them is killed."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers.deployment import Project
from tests.containers.probes import CONFINEMENT, WAYS_OUT

PEERS = ("peer-1", "peer-2", "peer-3")
KILLED = "peer-3"
LEFT = ("peer-1", "peer-2")
ROUNDS = 20
"""A few tenths of a second each: one that is killed in its second round is killed long before the last."""
END_S = 600


class Peers(Project):
    def start(self) -> None:
        """As `make up-peers` does, with new keys and empty volumes."""
        self.stop()
        self.compose("--profile", "peers", "up", "--detach", *PEERS)

    def exit_code(self, peer: str) -> int:
        """When its container has ended."""
        return int(self.container(peer).wait(timeout=END_S)["StatusCode"])

    def summary(self, peer: str) -> dict[str, Any]:
        """Out of its volume, which outlives the process."""
        chunks, _ = self.container(peer).get_archive("/var/lib/diredi/summary.json")
        with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
            file = archive.extractfile("summary.json")
            assert file is not None
            return dict(json.load(file))

    def events(self, peer: str) -> Iterator[dict[str, Any]]:
        """Its log, from its start to its end, as it comes."""
        pending = b""
        for chunk in self.container(peer).logs(stream=True, follow=True):
            *lines, pending = (pending + chunk).split(b"\n")
            yield from map(json.loads, lines)

    def tried(self, peer: str, code: str) -> str:
        """What Python code printed in a container like the peer's."""
        run = ("--profile", "peers", "run", "--rm", "--no-deps", "--no-TTY", peer)
        return self.compose(*run, "python", "-c", code).strip()


@pytest.fixture(scope="module")
def peers(images: None) -> Iterator[Peers]:
    """Nothing started."""
    peers = Peers("diredi-test-peers", DIREDI_PEER_ROUNDS=str(ROUNDS))
    try:
        yield peers
    finally:
        peers.stop()


def test_peers_end_their_rounds_and_everyone_has_heard_everyone(peers: Peers) -> None:
    peers.start()

    assert {peer: peers.exit_code(peer) for peer in PEERS} == dict.fromkeys(PEERS, 0), peers.logs()
    assert peers.services() == {"pki", *PEERS}
    for peer in PEERS:
        summary, others = peers.summary(peer), sorted(set(PEERS) - {peer})
        heard = [(r["round"], sorted(r["answered"]), r["missing"]) for r in summary["rounds"]]
        assert summary["ended"]
        assert heard == [(number, others, {}) for number in range(1, ROUNDS + 1)]
        assert all(summary["received_bytes"][other]["diredi.v1.PredictResponse"] > 0 for other in others)


def test_peers_go_on_without_one_that_is_killed_and_say_who_was_missing_and_why(peers: Peers) -> None:
    peers.start()
    next(event for event in peers.events(KILLED) if event["event"] == "round_started" and event["round"] == 2)
    peers.container(KILLED).kill()

    assert {peer: peers.exit_code(peer) for peer in PEERS} == {**dict.fromkeys(LEFT, 0), KILLED: 137}, peers.logs()
    for peer, other in (LEFT, reversed(LEFT)):
        summary = peers.summary(peer)
        rounds = summary["rounds"]
        assert summary["ended"] and len(rounds) == ROUNDS
        assert all(other in r["answered"] for r in rounds)
        assert KILLED in rounds[0]["answered"]
        without = [r for r in rounds if KILLED not in r["answered"]]
        assert without == rounds[-len(without) :], "nobody starts it again"
        assert all(r["missing"].keys() == {KILLED} and r["missing"][KILLED]["kind"] == "away" for r in without)
        logged = [e for e in peers.events(peer) if e["event"] == "neighbour_left_out"]
        assert [(e["round"], e["neighbour"], e["why"]) for e in logged] == [
            (r["round"], KILLED, r["missing"][KILLED]["why"]) for r in without
        ]
        assert all(e["why"] for e in logged)


def test_a_peer_is_nobody_has_its_own_identity_alone_and_no_way_out(peers: Peers) -> None:
    assert json.loads(peers.tried("peer-1", CONFINEMENT)) == {
        "uid": 10001,
        "writes": [],
        "capabilities": 0,
        "no_new_privileges": True,
    }
    assert peers.tried("peer-1", WAYS_OUT) == "0"
    peers.compose("--profile", "peers", "up", "--no-start", *PEERS)
    for peer in PEERS:
        attributes = peers.container(peer).attrs
        volumes = {m["Name"].partition("_")[2] for m in attributes["Mounts"]}
        assert volumes == {peer, f"identity-{peer}"}
        assert attributes["HostConfig"]["ReadonlyRootfs"]
        assert attributes["HostConfig"]["RestartPolicy"]["Name"] == "no"
        assert attributes["NetworkSettings"]["Networks"].keys() == {"diredi-test-peers_peers"}
        assert not attributes["HostConfig"]["PortBindings"]


def test_what_make_up_starts_has_no_peers(peers: Peers) -> None:
    assert not set(PEERS) & set(peers.compose("config", "--services").split())
