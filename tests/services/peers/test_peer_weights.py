"""Weights between peers: they arrive bit for bit, a liar's are left out, and with a hub all go on from one mean."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from peer_network import configs_of, identity, predictions
from test_peer_collect import Scripted
from test_peer_rounds import run_peers

from diredi.decentralized.averaging import average
from diredi.errors import InvalidInput
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.store.weights import WeightMap
from peer_node.collect import AbsenceKind, collect
from peer_node.fedavg_learner import create_learner
from peer_node.learner import LearnerContext, PredictionRequest, Weights, WeightsSpec
from peer_node.servicer import FILE_CHUNK_BYTES, weights_chunks

SHAPES = {"layer.weight": (700, 600), "layer.bias": (700,)}  # more than one message of a stream


def weights(seed=0, **more):
    random = np.random.default_rng(seed)
    floats = {name: random.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    return WeightMap({**floats, "steps": np.array(seed), **more})


SPEC = WeightsSpec(weights())


def messages(said, **changes):
    """As a peer sends them, with something of the first one changed."""
    first, *rest = weights_chunks(said.snapshot())
    for field, value in changes.items():
        setattr(first, field, value)
    return [first, *rest]


class Sharing(Scripted):
    """Answers with what it is told to."""

    async def DescribePeer(self, request, context):
        return pb.DescribePeerResponse(schema=SPEC.schema)

    async def GetWeights(self, request, context):
        self.asked += 1
        for message in self.messages:
            yield message


def spoilt():
    array = weights()["layer.bias"].copy()
    array[3] = np.nan
    return messages(Weights(weights(**{"layer.bias": array}), 5))


JUNK = b"no file of weights at all"
LIES = {
    "not a number": (spoilt(), "'layer.bias' holds a NaN"),
    "another shape": (messages(Weights(weights(**{"layer.bias": np.zeros(7, np.float32)}), 5)), "'layer.bias'"),
    "another name": (messages(Weights(weights(more=np.zeros(1, np.float32)), 5)), "'more'"),
    "damaged": (messages(Weights(weights(), 5), data=b"\xff" * FILE_CHUNK_BYTES), "not a safetensors file"),
    "cut": (messages(Weights(weights(), 5))[:-1], "not a safetensors file"),
    "nothing": ([], "0 samples"),
    "no file": ([pb.GetWeightsResponse(data=JUNK, samples=5)], "not a safetensors file"),
    "no samples": (messages(Weights(weights(), 0)), "weights of 0 samples"),
    "all the samples of the network": (messages(Weights(weights(), 2**60)), "samples"),
    "nothing for ever": ([pb.GetWeightsResponse()] * 10_000, "more bytes than such weights take"),
    "a byte at a time": ([pb.GetWeightsResponse(data=b"\0")] * 10_000, "more bytes than such weights take"),
    "without end": ([pb.GetWeightsResponse(data=b"\0" * FILE_CHUNK_BYTES)] * 50, "more bytes than such weights take"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_liars_weights_are_left_out_and_honest_ones_are_not(network, lie):
    said, why = LIES[lie]
    liar = Sharing(said)
    store, address = await network.store("honest", SPEC)
    store.put(1, Weights(weights(3), 40))
    neighbours = {
        "liar": await network.client("liar", await network.served("liar", liar), SPEC),
        "honest": await network.client("honest", address, SPEC),
    }
    collected = await collect(neighbours, 1, None, deadline_s=60, attempts=2)

    assert liar.asked == 1, "it was heard, and not asked again"
    assert collected.missing["liar"].kind is AbsenceKind.WRONG
    assert why in collected.missing["liar"].why
    assert collected.missing["liar"].why.startswith("device/site-1/liar answered round 1 with")
    assert list(collected.answers) == ["honest"]


async def test_weights_arrive_bit_for_bit_with_their_samples(network):
    store, address = await network.store("a", SPEC)
    mine = weights(1)
    store.put(1, Weights(mine, 40))
    mine["layer.bias"][:] = 0  # what its learner does afterwards is its own affair
    neighbour = await network.client("a", address, SPEC)
    await neighbour.greet()
    got = await neighbour.fetch_weights(1, 10)

    assert got.samples == 40
    assert got.weights.to_bytes() == weights(1).to_bytes()


async def test_one_who_predicts_has_no_weights_to_give_and_the_other_way_round(network):
    predicting, address = await network.store("a")
    predicting.put(1, predictions())
    sharing, other_address = await network.store("b", SPEC)
    sharing.put(1, Weights(weights(), 5))
    asked = await network.client("a", address, SPEC)
    collected = await collect({"a": asked}, 1, None, deadline_s=30, attempts=1)
    assert collected.missing["a"].kind is AbsenceKind.REFUSED
    assert collected.missing["a"].why.startswith("this peer shares predictions and no weights: give both")
    with pytest.raises(InvalidInput, match=f"{identity('a')} shares none, this peer weights of .*give both the same"):
        await asked.greet()

    collected = await collect(
        {"b": await network.client("b", other_address)}, 1, PredictionRequest(), deadline_s=30, attempts=1
    )
    assert collected.missing["b"].why.startswith("this peer shares weights and no predictions: give both")


async def test_what_a_learner_must_not_share_is_not_published(network):
    store, _ = await network.store("a", SPEC)
    with pytest.raises(InvalidInput, match=r"NaN.*nothing of it was published"):
        store.put(1, Weights(weights(**{"layer.bias": np.full(700, np.nan, np.float32)}), 5))
    assert store.ready == []


@pytest.mark.slow
def test_a_mean_is_weighted_and_counters_are_the_first_ones():
    found = average([weights(1), weights(2), weights(3)], [10, 20, 70])
    by_hand = sum(share * weights(seed)["layer.weight"] for seed, share in ((1, 0.1), (2, 0.2), (3, 0.7)))
    assert found["layer.weight"] == pytest.approx(by_hand, abs=1e-6)
    assert found["steps"] == 1
    assert average([weights(1)] * 3, [1, 2, 3]).to_bytes() == weights(1).to_bytes()


DATA = {"set": "digits", "private": 300, "public": 100, "partition": {"kind": "skew", "gamma": 100}}
OPTIONS = {"network": {"backbone": "mlp"}, "training": {"epochs": 3, "batch": 16}}


@pytest.mark.slow
async def test_with_a_hub_all_go_on_from_one_mean_that_is_better_than_what_each_had(tmp_path, pki):
    configs = configs_of(
        tmp_path, pki, ["hub", "a", "b"], rounds=4, learner="peer_node.fedavg_learner:create_learner", data=DATA,
        options={**OPTIONS, "hub": 0},
    )  # fmt: skip
    for config in configs[1:]:
        config["neighbours"] = {"hub": config["neighbours"]["hub"]}
    summaries = await run_peers(configs)

    rounds = [[one["learned"]["accuracy"] for one in summary["rounds"]] for summary in summaries]
    assert rounds[0] == rounds[1] == rounds[2]
    assert [one["answered"] for one in summaries[0]["rounds"]] == [["a", "b"]] * 4
    alone = np.mean([summary["rounds"][-1]["fitted"]["accuracy"] for summary in summaries])
    assert rounds[0][-1] > alone + 0.1, "the mean knows the labels of all"


async def test_without_a_hub_everybody_averages_for_itself(tmp_path, pki):
    configs = configs_of(
        tmp_path, pki, ["a", "b", "c"], rounds=2, learner="peer_node.fedavg_learner:create_learner", data=DATA,
        options=OPTIONS,
    )  # fmt: skip
    last = [summary["rounds"][-1] for summary in await run_peers(configs)]
    assert last[0]["learned"]["accuracy"] == pytest.approx(last[1]["learned"]["accuracy"], abs=0.01), "up to rounding"
    assert len({one["fitted"]["accuracy"] for one in last}) == 3


@pytest.mark.parametrize("size", [3e38, 1e30])
async def test_weights_that_would_make_the_mean_useless_are_left_out_and_end_nobody(tmp_path, network, pki, size):
    configs = configs_of(
        tmp_path, pki, ["a", "b"], rounds=3, learner="peer_node.fedavg_learner:create_learner", data=DATA,
        options=OPTIONS, peers=3, deadline_s=30,
    )  # fmt: skip
    own = create_learner(LearnerContext(2, 3, 3, 0, DATA, OPTIONS)).compute_update(1).weights
    harm = own.mapped(lambda _, array: np.full_like(array, size))
    liar = Sharing(messages(Weights(harm, 2**30)))
    address = await network.served("liar", liar)
    for config in configs:
        config["neighbours"]["liar"] = address
    last = pb.GetWeightsRequest(round=3)  # of the liar: else all wait for it at the end
    summaries, *_ = await asyncio.gather(
        run_peers(configs), *(network.ask_as("liar", config, "GetWeights", last) for config in configs)
    )

    assert all(summary["ended"] for summary in summaries)
    for one in (round_ for summary in summaries for round_ in summary["rounds"]):
        assert one["missing"]["liar"]["kind"] == "wrong"
        assert f"holds {size:.3g}, more than" in one["missing"]["liar"]["why"]
        assert len(one["answered"]) == 1, "the other one is heard"


@pytest.mark.parametrize("size", [3e38, 1e30])
def test_a_learner_that_was_made_useless_goes_back_to_its_own_weights(size):
    """However it was: such weights do not get past the wire."""
    learner = create_learner(LearnerContext(0, 3, 3, 0, DATA, OPTIONS))
    first = learner.fit(1)
    harm = learner.compute_update(1).weights.mapped(lambda _, array: np.full_like(array, size))
    learner.learn(1, {"liar": Weights(harm, 2**30)})
    assert learner.fit(2) == first
