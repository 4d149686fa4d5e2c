"""`diredi peers run`: several peers as processes of this machine, through the command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE

import pytest
import yaml
from peer_network import HERE, ROOT

from diredi.trust.identity import Credentials
from peer_node.processes import PeersFile, write_configs
from tests.support.waiting import PATIENCE_S

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_processes")]


class Command:
    """A `diredi peers run` under way."""

    def __init__(self, process):
        self.process = process

    @classmethod
    async def start(cls, folder, *flags, **values):
        file = folder / "peers.yaml"
        file.write_text(yaml.safe_dump({"peers": 3, "rounds": 3, "learner": "peer_softmax:learner", **values}))
        arguments = ["peers", "run", "--config", str(file), *flags]
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}"}
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, "-m", "diredi_cli", *arguments, cwd=folder, env=environment, stdout=PIPE, stderr=PIPE
            )
        )

    async def ended(self):
        """Exit code, standard output, standard error."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
async def start(tmp_path):
    """start(*flags, **values of the file) -> a Command that is gone after the test."""
    started = []

    async def start_command(*flags, **values):
        started.append(await Command.start(tmp_path, *flags, **values))
        return started[-1]

    yield start_command
    for command in started:
        if command.process.returncode is None:
            command.process.kill()
        await command.process.wait()


async def test_peers_of_a_ring_learn_from_each_other(start, tmp_path):
    code, out, err = await (await start("--json", peers=4, topology={"kind": "ring"})).ended()
    peers = json.loads(out)["peers"]

    assert (code, err) == (0, "")
    assert [peer["name"] for peer in peers] == ["peer-1", "peer-2", "peer-3", "peer-4"]
    assert {peer["ended"] for peer in peers} == {"done"}
    assert peers[0]["rounds"][2]["answered"] == ["peer-2", "peer-4"]
    assert all(peer["rounds"][2]["learned"]["accuracy"] > 0.95 for peer in peers)
    assert [path.name for path in tmp_path.iterdir()] == ["peers.yaml"], "nothing is left that was not asked for"


async def test_the_death_of_one_peer_is_told_and_the_others_end(start, tmp_path):
    code, out, err = await (await start("--out", "kept", options={"killed": {1: 2}})).ended()
    summaries = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "kept").glob("*.json")}

    assert code == 0
    assert "peer-2 killed by SIGKILL in round 2" in err
    assert "killed by SIGKILL in round 2" in out
    assert "peer-1 round 2 of 3: heard 1, missing peer-2 (away); accuracy" in err
    assert {name: (summary["ended"], len(summary["rounds"])) for name, summary in summaries.items()} == {
        "peer-1": (True, 3), "peer-2": (False, 1), "peer-3": (True, 3),
    }  # fmt: skip
    assert {path.stem for path in (tmp_path / "kept").glob("*.safetensors")} == {"peer-1", "peer-2", "peer-3"}
    events = [json.loads(line) for line in (tmp_path / "kept" / "peer-3.log").read_text().splitlines()]
    missing = [event for event in events if event["event"] == "neighbour_left_out" and event["round"] > 1]
    assert [(event["round"], event["neighbour"], event["kind"]) for event in missing] == [
        (2, "peer-2", "away"), (3, "peer-2", "away"),
    ]  # fmt: skip


async def listens_no_longer(address):
    """A connection is at its end when the process behind it is, and reset where it had not been accepted yet."""
    host, _, port = address.rpartition(":")
    while True:
        with contextlib.suppress(ConnectionResetError):
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                return
            with contextlib.closing(writer):
                await reader.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_no_peer_outlives_the_command(start, tmp_path, number):
    """However it ends: by Ctrl-C in order, else because the kernel tells the peers."""
    os.mkfifo(tmp_path / "fifo")
    command = await start("--out", "kept", options={"stalls_in": 2, "fifo": str(tmp_path / "fifo")})
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(3):
            assert b"round 1 of 3" in await command.process.stderr.readline()
    configs = [yaml.safe_load(path.read_text()) for path in (tmp_path / "kept").glob("*.yaml")]
    for config in configs:
        _, writer = await asyncio.open_connection(*config["listen"].split(":"))
        writer.close()
    command.process.send_signal(number)
    code, _, err = await command.ended()

    assert code == (130 if number is signal.SIGINT else -number)
    assert "Traceback" not in err
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(listens_no_longer(config["listen"]) for config in configs))


@pytest.mark.parametrize(
    ("values", "code", "sentence"),
    [
        ({"peers": 0}, 2, "peers: "),
        ({"typo": 1}, 2, "typo"),
        ({"topology": {"kind": "spiral"}}, 2, "no topology 'spiral'"),
        ({"learner": None}, 2, "learner"),
        ({"learner": "no_such_module:learner", "peers": 1}, 1, "no peer got to its end: .*'no_such_module:learner'"),
    ],
)
async def test_what_cannot_be_run_is_one_sentence(start, values, code, sentence):
    ended, out, err = await (await start("--json", **values)).ended()

    assert (ended, out) == (code, "")
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")
    assert re.search(sentence, err)


def test_each_peer_gets_an_identity_a_port_and_its_neighbours(tmp_path):
    file = PeersFile(peers=5, rounds=2, topology={"kind": "ring"}, learner="m:f", data={"set": "digits"}, seed=3)
    configs = [yaml.safe_load(path.read_text()) for path in write_configs(file, tmp_path)]

    for index, config in enumerate(configs):
        identity = Credentials.load(tmp_path / "pki" / config["name"]).identity
        assert str(identity) == f"device/peers/peer-{index + 1}"
        assert (config["peer"], config["peers"], config["seed"], config["data"]) == (index, 5, 3, {"set": "digits"})
    assert set(configs[0]["neighbours"]) == {"peer-2", "peer-5"}
    assert configs[0]["neighbours"]["peer-5"] == configs[4]["listen"]
    assert len({config["listen"] for config in configs}) == 5


def test_a_topology_that_changes_is_written_round_by_round(tmp_path):
    file = PeersFile(peers=6, rounds=8, topology={"kind": "ring", "changes": True}, learner="m:f")
    configs = {c["name"]: c for c in (yaml.safe_load(path.read_text()) for path in write_configs(file, tmp_path))}

    assert len({tuple(names) for names in configs["peer-1"]["asks"]}) > 1
    for round_ in range(8):
        for name, config in configs.items():
            assert len(config["asks"][round_]) == 2
            assert all(name in configs[other]["asks"][round_] for other in config["asks"][round_]), "both ways"


def test_the_same_folder_can_be_used_again(tmp_path):
    file = PeersFile(peers=2, learner="m:f")
    write_configs(file, tmp_path)
    first = Credentials.load(tmp_path / "pki" / "peer-1")
    write_configs(file, tmp_path)

    assert Credentials.load(tmp_path / "pki" / "peer-1").ca == first.ca
