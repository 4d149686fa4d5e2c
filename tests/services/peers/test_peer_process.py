"""`python -m peer_node` as processes: one is killed and the others go on; they stop when told to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from peer_network import ROOT, PeerProcess, configs_of, read_summary

pytestmark = pytest.mark.usefixtures("quick_processes")


@pytest.fixture
async def start(tmp_path):
    """start(config) -> a PeerProcess that is gone after the test."""
    started = []

    async def one(config):
        started.append(await PeerProcess.start(tmp_path, config))
        return started[-1]

    yield one
    for process in started:
        await process.kill()


def stalling_in(round_, config, tmp_path):
    """Its learner waits in that round, for what never comes."""
    os.mkfifo(tmp_path / "fifo")
    return {**config, "options": {"stalls_in": round_, "fifo": str(tmp_path / "fifo")}}


async def test_one_of_three_is_killed_in_mid_round_and_the_others_finish(tmp_path, pki, start):
    configs = configs_of(tmp_path, pki, ["a", "b", "victim"])
    configs[2] = stalling_in(2, configs[2], tmp_path)
    a, b, victim = [await start(config) for config in configs]
    for survivor in (a, b):
        await survivor.logged("update_published", round=2)  # and now waits for the victim
    await victim.logged("round_started", round=2)
    victim.process.send_signal(signal.SIGKILL)
    assert [await a.ended(), await b.ended()] == [0, 0]

    for config, other in ((configs[0], "b"), (configs[1], "a")):
        rounds = read_summary(config)["rounds"]
        assert read_summary(config)["ended"]
        assert rounds[0]["answered"] == [other, "victim"]
        assert [r["answered"] for r in rounds[1:]] == [[other], [other]]
        assert {r["missing"]["victim"]["kind"] for r in rounds[1:]} == {"away"}
        assert all(r["learned"]["accuracy"] > 0.9 for r in rounds)
    event = await a.logged("neighbour_left_out", round=2)
    assert (event["neighbour"], event["kind"]) == ("victim", "away")
    assert not read_summary(configs[2])["ended"]
    assert len(read_summary(configs[2])["rounds"]) == 1, "what it had done is on its disk"


async def test_a_peer_that_is_through_stays_for_one_that_was_late(tmp_path, pki, start):
    quick, slow = configs_of(tmp_path, pki, ["quick", "slow"], rounds=2)
    slow = stalling_in(2, slow, tmp_path)
    quick["deadline_s"] = 4
    first, second = await start(quick), await start(slow)
    late = await first.logged("neighbour_left_out", round=2)
    await first.logged("round_ended", round=2)
    (tmp_path / "fifo").write_bytes(b"go on")
    assert [await second.ended(), await first.ended()] == [0, 0]

    assert (late["neighbour"], late["kind"]) == ("slow", "late")
    assert [r["answered"] for r in read_summary(slow)["rounds"]] == [["quick"], ["quick"]]
    assert not [line for line in first.events + second.events if line["event"] == "last_calls_missed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_in_the_middle_of_learning(tmp_path, pki, start, number):
    config = stalling_in(1, configs_of(tmp_path, pki, ["a"])[0], tmp_path)
    process = await start(config)
    await process.logged("round_started", round=1)
    process.process.send_signal(number)

    assert await process.ended() == 0


async def test_it_stops_while_it_waits_for_a_neighbour(tmp_path, pki, start):
    config = configs_of(tmp_path, pki, ["a", "never"])[0]
    process = await start(config)
    await process.logged("service_started")
    process.process.send_signal(signal.SIGTERM)

    assert await process.ended() == 0


@pytest.mark.parametrize(
    ("wrong", "code", "sentence"),
    [
        ({"learner": "no_such_module:learner"}, 2, "no_such_module"),
        ({"identity": "/nowhere"}, 2, "diredi pki issue"),
        ({"deadline_s": -1}, 2, "deadline_s"),
        ({"typo": 1}, 2, "typo"),
    ],
)
async def test_what_cannot_be_used_is_one_sentence_and_its_exit_code(tmp_path, pki, start, wrong, code, sentence):
    process = await start({**configs_of(tmp_path, pki, ["a"])[0], **wrong})

    assert await process.ended() == code
    assert process.last_line.startswith("peer_node: ")
    assert sentence in process.last_line


async def test_a_port_in_use_is_one_sentence_and_exit_code_6(tmp_path, pki, start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        process = await start({**configs_of(tmp_path, pki, ["a"])[0], "listen": listen})
        assert await process.ended() == 6
    assert listen in process.last_line


def test_a_peer_starts_without_torch():
    program = "import sys; sys.modules['torch'] = None; import peer_node.node, peer_node.__main__"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
