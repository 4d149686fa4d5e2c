"""A star of real peers over gRPC is McMahan's FedAvg, and a client that hangs takes no round from the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from peer_network import configs_of
from test_peer_collect import Described
from test_peer_rounds import run_peers
from test_peer_weights import DATA, OPTIONS

from diredi.data import classification
from diredi.decentralized.partitions import PartitionRecipe, partition_labels
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.store.weights import WeightMap


def star(folder, pki, names, **more):
    """The first of `names` is the hub."""
    options = {**OPTIONS, "hub": 0, "folder": str(folder)}
    configs = configs_of(folder, pki, names, learner="peer_recorder:learner", data=DATA, options=options, **more)
    for config in configs[1:]:
        config["neighbours"] = {names[0]: config["neighbours"][names[0]]}
    return configs


def saved_weights(folder, peer, round_, when):
    return WeightMap.load(Path(folder) / f"{peer}-{round_}-{when}.safetensors")


@pytest.mark.slow
async def test_all_of_a_star_go_on_from_the_mean_worked_out_by_hand(tmp_path, pki):
    summaries = await run_peers(star(tmp_path, pki, ["hub", "a", "b"], rounds=2))
    assert all(r["missing"] == {} for summary in summaries for r in summary["rounds"])
    labels = classification.load(DATA["set"], None).train.labels[: DATA["private"]]
    images = [len(shard) for shard in partition_labels(labels, 3, PartitionRecipe(**DATA["partition"]), seed=0)]
    for round_ in (1, 2):
        fitted, learned = (
            [saved_weights(tmp_path, p, round_, when) for p in range(3)] for when in ("fitted", "learned")
        )
        assert learned[0].to_bytes() == learned[1].to_bytes() == learned[2].to_bytes()
        shares = np.array(images) / sum(images)
        for name, array in learned[0].items():
            if np.issubdtype(array.dtype, np.floating):
                by_hand = sum(s * run[name].astype(np.float64) for s, run in zip(shares, fitted, strict=True))
                np.testing.assert_allclose(array, by_hand, atol=1e-6)
            else:
                assert array == fitted[0][name]


class Silent(Described):
    """Takes every question and never says a word."""

    async def GetWeights(self, request, context):
        await asyncio.Event().wait()
        yield pb.GetWeightsResponse()


@pytest.mark.slow
async def test_a_client_that_hangs_does_not_take_the_round_from_the_others(tmp_path, network, pki):
    configs = star(tmp_path, pki, ["hub", "a", "b", "hangs"], rounds=2, deadline_s=8, start_s=120)
    configs[0]["neighbours"]["hangs"] = await network.served("hangs", Silent())
    last = pb.GetWeightsRequest(round=2)  # of the one that hangs: else the hub waits for it at the end
    (hub, *others), _ = await asyncio.gather(
        run_peers(configs[:3]), network.ask_as("hangs", configs[0], "GetWeights", last)
    )

    assert [r["missing"]["hangs"]["kind"] for r in hub["rounds"]] == ["late", "late"]
    assert [r["answered"] for r in hub["rounds"]] == [["a", "b"]] * 2
    assert [[r["answered"] for r in run["rounds"]] for run in others] == [[["hub"]] * 2] * 2
