"""One update cycle in the deployment, while containers of every kind are killed on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from diredi.rpc.v1.cycles_pb2 import Cycle
from diredi_cli.connection import open_channel
from diredi_cli.watch import cycle_changes, state_of
from diredi_scenes import PRESUMED, SITES
from tests.containers.deployment import EDGES, Deployment
from tests.containers.probes import DETECT
from tests.support.waiting import eventually

(NEW,) = set(SITES["site-1"].names) - set(PRESUMED)
NEVER_KILLED = "edge-3"
BOOTSTRAP_S = 600
CYCLE_S = 1200
KILLS = {
    "EXTRACTING": ("edge-2", "gateway", "user-domain"),
    "UPLOADED": ("cloud",),
    "GATED": ("cloud",),
    "CANARY": ("edge-1",),
}
"""State of the cycle to the containers that are killed, and started again, while it lasts."""


@pytest.mark.timeout(BOOTSTRAP_S + CYCLE_S)
async def test_a_cycle_ends_released_though_every_container_is_killed_on_the_way(deployment: Deployment) -> None:
    eventually("release 1 on every edge", lambda: deployment.releases() == dict.fromkeys(EDGES, 1), BOOTSTRAP_S)
    before = {edge: detections_through(deployment, edge) for edge in EDGES}
    assert [b["found"] for b in before.values()] == [0, 0, 0], "its maker never trained it on this class"

    cycle_id = deployment.cli("cycle", "start", "--site", "site-1")["id"]
    kills = await killing_on_the_way(deployment, cycle_id)

    cycle = deployment.cli("cycle", "show", cycle_id)
    assert cycle["state"] == "RELEASED", json.dumps(cycle, indent=1)
    assert kills == [(state, service) for state, services in KILLS.items() for service in services]
    version = cycle["release_version"]
    assert version > 1
    eventually("it runs on every edge", lambda: deployment.releases() == dict.fromkeys(EDGES, version), 120)
    after = {edge: detections_through(deployment, edge) for edge in EDGES}
    for edge in EDGES:
        assert after[edge]["release"] == version
        assert after[edge]["dropped"] == 0
        assert NEW in after[edge]["classes"]
        assert after[edge]["found"] >= after[edge]["boxes"] / 4, f"{edge} must find {NEW}: {after[edge]}"
    assert after[NEVER_KILLED]["frames"] > before[NEVER_KILLED]["frames"], "it never stopped looking"
    assert {m["kind"] for m in deployment.cli("model", "list")} >= {"TUTOR", "STUDENT"}


async def killing_on_the_way(deployment: Deployment, cycle_id: str) -> list[tuple[str, str]]:
    """Follows the cycle to its end; what was killed, in order, with the state of the cycle at that moment."""
    kills: list[tuple[str, str]] = []
    async with open_channel(deployment.address, deployment.identity) as channel:
        async for cycle in cycle_changes(channel, cycle_id):
            for service in KILLS.get(state_of(cycle), ()):
                if (state_of(cycle), service) not in kills and _is_at_work(service, cycle):
                    deployment.kill_and_start(service)
                    kills.append((state_of(cycle), service))
    return kills


def _is_at_work(service: str, cycle: Cycle) -> bool:
    """A site is killed in the middle of its training, not before it."""
    return service != "user-domain" or (cycle.progress.step != "" and cycle.progress.fraction > 0.1)


def detections_through(deployment: Deployment, edge: str) -> dict[str, Any]:
    """What an edge node finds of the new class in the site's held-out images, asked through its own gRPC service."""
    return dict(json.loads(deployment.python("user-domain", DETECT, f"{edge}:8445", NEW)))
