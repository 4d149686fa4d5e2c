"""Whole peers in one process: rounds are run_peers, kept, waited for, and hold nothing private."""

from __future__ import annotations

import asyncio

import pytest
from peer_network import configs_of, identity, read_summary
from peer_softmax import SoftmaxLearner
from structlog.testing import capture_logs

from diredi.errors import InvalidInput
from diredi.rpc.v1 import peers_pb2 as pb
from peer_node.config import PeerConfig
from peer_node.node import serve
from peer_node.round_store import RoundStore
from peer_node.servicer import PeerServicer
from tests.support.waiting import PATIENCE_S

MESSAGES = [
    f"diredi.v1.{name}" for name in ("DescribePeerRequest", "DescribePeerResponse", "PredictRequest", "PredictResponse")
]


async def run_peers(configs):
    """Runs them to their ends; their summaries."""
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(serve(PeerConfig(**config), asyncio.Event()) for config in configs))
    return [read_summary(config) for config in configs]


async def test_peers_learn_classes_that_they_have_no_sample_of(tmp_path, pki):
    for index, summary in enumerate(await run_peers(configs_of(tmp_path, pki, ["a", "b", "c"]))):
        last = summary["rounds"][-1]
        assert summary["ended"] and [r["round"] for r in summary["rounds"]] == [1, 2, 3]
        assert sorted(last["answered"]) == sorted({"a", "b", "c"} - {"abc"[index]})
        assert last["missing"] == {}
        assert last["fitted"]["accuracy"] < 0.8
        assert last["learned"]["accuracy"] > 0.95


async def test_every_byte_that_left_is_a_byte_that_arrived(tmp_path, pki):
    summaries = await run_peers(configs_of(tmp_path, pki, ["a", "b", "c"], rounds=2))

    assert {name for s in summaries for name in s["sent_bytes"]} == set(MESSAGES)
    for name in MESSAGES[1:]:  # a greeting may be sent before there is somebody to hear it
        arrived = [by_kind.get(name, 0) for s in summaries for by_kind in s["received_bytes"].values()]
        assert sum(s["sent_bytes"][name] for s in summaries) == sum(arrived) > 0


async def test_each_round_asks_the_neighbours_of_that_round(tmp_path, pki):
    configs = configs_of(tmp_path, pki, ["a", "b", "c"], rounds=2)
    for config, asks in zip(configs, ([["b"], ["c"]], [["a"], []], [[], ["a"]]), strict=True):
        config["asks"] = asks
    summaries = await run_peers(configs)

    assert [[r["answered"] for r in s["rounds"]] for s in summaries] == [[["b"], ["c"]], [["a"], []], [[], ["a"]]]


async def test_peers_with_different_public_sets_learn_alone_and_say_why(tmp_path, pki):
    configs = configs_of(tmp_path, pki, ["a", "b"], rounds=1)
    configs[1]["data"] = {"public_seed": 1}
    with capture_logs() as logged:
        first, second = await run_peers(configs)

    for summary, other in ((first, "b"), (second, "a")):
        absence = summary["rounds"][0]["missing"][other]
        assert absence["kind"] == "refused"
        assert "give both the same" in absence["why"]
        assert summary["ended"]
    assert "last_calls_missed" not in {line["event"] for line in logged}, "neither waits for the other at the end"


async def test_a_neighbour_that_never_was_costs_the_start_and_not_the_rounds(tmp_path, pki):
    configs = configs_of(tmp_path, pki, ["a", "b", "never"], rounds=2, start_s=0.5)
    for summary in await run_peers(configs[:2]):
        assert [r["missing"]["never"]["kind"] for r in summary["rounds"]] == ["away", "away"]
        assert all(len(r["answered"]) == 1 for r in summary["rounds"])


class Spy(PeerServicer):
    """A neighbour that keeps what it is sent."""

    requests: list[bytes]

    async def Predict(self, request, context):
        self.requests.append(request.SerializeToString())
        async for message in super().Predict(request, context):
            yield message


def runs_of(values, length, *kinds):
    """Every so many numbers in a row, in the types that they could travel in."""
    for kind in kinds:
        flat = values.astype(kind).ravel()
        yield from (flat[at : at + length].tobytes() for at in range(len(flat) - length))


async def test_nothing_that_leaves_a_peer_holds_private_samples_or_labels(tmp_path, network, pki):
    """A neighbour asks for all that can be asked, reads raw bytes, and keeps what it is asked."""
    config, own = configs_of(tmp_path, pki, ["a", "asker"], rounds=2)
    private, friend = SoftmaxLearner(0), SoftmaxLearner(1)
    store = RoundStore(friend.payload_spec, 2, 2)
    for round_ in (1, 2):
        store.put(round_, friend.compute_update(round_))
    spy = Spy(identity("asker"), store, [identity("a")])
    spy.requests = []
    config["neighbours"]["asker"] = await network.served("asker", spy)
    learning = asyncio.create_task(serve(PeerConfig(**config), asyncio.Event()))
    channel = await network.channel(config["listen"], server=config["name"])
    assert own["neighbours"]["a"] == config["listen"]
    seen, public_set = [], private.payload_spec.public_set
    predict = [
        ("Predict", pb.PredictRequest(public_set=public_set, round=round_, heads=[0, 1], embeddings=True))
        for round_ in (1, 2)
    ]
    # The last round comes last: a peer ends when it has answered that.
    for method, request in (("DescribePeer", pb.DescribePeerRequest()), *predict):
        raw = channel.unary_stream(f"/diredi.v1.PeerService/{method}", type(request).SerializeToString)
        seen += [data async for data in raw(request, timeout=PATIENCE_S, wait_for_ready=True)]
    await learning

    assert len(spy.requests) == 2 and len(seen) == 3
    travelled = b"".join([*seen, *spy.requests])
    assert (private.public @ private.projection).astype("<f4").tobytes() in travelled, (
        "the spy has seen what may be seen"
    )
    samples = list(runs_of(private.own, 2, "<f4", "<f8"))
    labels = list(runs_of(private.own_labels, 32, "<f4", "<f8", "<i8", "<i4", "u1"))
    assert len(samples) > 1000 and len(labels) > 400
    assert [secret for secret in (*samples, *labels) if secret in travelled] == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"learner": "no_such_module:learner"}, "'no_such_module:learner' cannot be had .*package.module:function"),
        ({"learner": "peer_softmax:nothing"}, "cannot be had"),
        ({"learner": "peer_softmax"}, "cannot be had"),
        ({"name": "b", "neighbours": {}}, "is for device/site-1/a, not for device/site-1/b"),
        ({"neighbours": {"not a name": "localhost:1"}}, "cannot be a name"),
    ],
)
async def test_a_configuration_that_cannot_work_is_one_sentence(tmp_path, pki, wrong, sentence):
    config = {**configs_of(tmp_path, pki, ["a", "b"])[0], **wrong}

    with pytest.raises(InvalidInput, match=sentence):
        await serve(PeerConfig(**config), asyncio.Event())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"asks": [["c"], ["b"], ["b"]]}, "asks names c"),
        ({"asks": [["b"]]}, "asks is of 1 rounds"),
        ({"neighbours": {"a": "localhost:1"}}, "its own neighbour"),
        ({"peer": 2}, "numbered from 0"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(tmp_path, pki, wrong, sentence):
    import yaml

    (tmp_path / "a.yaml").write_text(yaml.safe_dump({**configs_of(tmp_path, pki, ["a", "b"])[0], **wrong}))
    with pytest.raises(InvalidInput, match=sentence):
        PeerConfig.from_command_line(["--config", str(tmp_path / "a.yaml")])


def test_a_neighbour_of_another_site_is_named_with_its_site(tmp_path, pki):
    config = {**configs_of(tmp_path, pki, ["a", "b"])[0], "neighbours": {"b": "localhost:1", "site-2/a": "localhost:2"}}
    neighbours = PeerConfig(**config)

    assert str(neighbours.identity_of("b")) == "device/site-1/b"
    assert str(neighbours.identity_of("site-2/a")) == "device/site-2/a"
