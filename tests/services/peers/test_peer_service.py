"""PeerService over real gRPC and TLS: what neighbours get, and who gets nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import numpy as np
import pytest
from peer_network import SITE, SPEC, identity, predictions

from diredi.errors import DirediError, InvalidInput, NotFound, Refused
from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.client import call, is_serving
from diredi.rpc.streams import read_messages
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1.peers_pb2_grpc import PeerServiceStub
from peer_node.learner import PredictionRequest, Predictions, PredictionSpec
from tests.support.waiting import PATIENCE_S

WIDE = PredictionSpec("sha256:" + "b" * 64, samples=3000, classes=100, heads=2)
DIRECT = [("grpc.enable_http_proxy", 0)]


def same_bits(one, other):
    assert one.dtype == other.dtype == np.float32
    assert one.tobytes() == other.tobytes()


async def asked(network, address, name="asker", **request):
    """What a stub gets for a request of these fields."""
    stub = PeerServiceStub(await network.channel(address, name))
    values = {"public_set": SPEC.public_set, "round": 1, "heads": [0], **request}
    async with asyncio.timeout(PATIENCE_S):
        return [
            chunk
            async for chunk in read_messages(stub.Predict(pb.PredictRequest(**values), timeout=PATIENCE_S), PATIENCE_S)
        ]


async def test_predictions_arrive_bit_for_bit(network):
    store, address = await network.store("a")
    store.put(1, predictions())
    got = await (await network.client("a", address)).fetch_predictions(
        1, PredictionRequest(None, (0, 1, 2), True), PATIENCE_S
    )

    same_bits(got.probabilities, predictions().probabilities)
    same_bits(got.embeddings, predictions().embeddings)


async def test_heads_and_samples_come_in_the_order_asked_for(network):
    store, address = await network.store("a")
    store.put(2, predictions())
    samples = np.array([7, 0, 49, 3])
    got = await (await network.client("a", address)).fetch_predictions(
        2, PredictionRequest(samples, (2, 0)), PATIENCE_S
    )

    same_bits(got.probabilities, predictions().probabilities[[2, 0]][:, samples])
    assert got.embeddings is None


async def test_an_answer_larger_than_a_message_arrives_in_chunks(network):
    store, address = await network.store("a", WIDE)
    store.put(1, predictions(WIDE))
    got = await (await network.client("a", address, WIDE)).fetch_predictions(
        1, PredictionRequest(None, (1, 0)), PATIENCE_S
    )
    chunks = await asked(network, address, public_set=WIDE.public_set, heads=[1, 0])

    same_bits(got.probabilities, predictions(WIDE).probabilities[[1, 0]])
    assert len(chunks) > 5
    assert max(chunk.ByteSize() for chunk in chunks) < 300_000


async def test_a_temperature_softens_what_is_said(network):
    logits = np.random.default_rng(0).normal(size=(3, 50, 4)) * 3
    sharp, soft = (np.exp(logits / t) / np.exp(logits / t).sum(-1, keepdims=True) for t in (1, 4))
    store, address = await network.store("a")
    store.put(1, Predictions(sharp.astype(np.float32), predictions().embeddings))
    got = await (await network.client("a", address)).fetch_predictions(
        1, PredictionRequest(None, (0, 1, 2), temperature=4), PATIENCE_S
    )

    np.testing.assert_allclose(got.probabilities, soft, rtol=1e-5)


async def test_a_probability_of_zero_stays_zero_at_any_temperature(network):
    store, address = await network.store("a")
    sure = np.zeros((3, 50, 4), np.float32)
    sure[..., 1] = 1
    store.put(1, Predictions(sure, predictions().embeddings))
    got = await (await network.client("a", address)).fetch_predictions(1, PredictionRequest(temperature=20), PATIENCE_S)

    same_bits(got.probabilities, sure[:1])


async def test_who_asks_too_early_is_answered_once_the_round_is_there(network):
    store, address = await network.store("a")
    store.put(1, predictions(seed=1))
    neighbour = await network.client("a", address)
    early = asyncio.create_task(neighbour.fetch_predictions(2, PredictionRequest(), PATIENCE_S))
    await neighbour.fetch_predictions(
        1, PredictionRequest(), PATIENCE_S
    )  # on the same connection, so the early call has arrived before it
    assert not early.done()
    store.put(2, predictions(seed=2))

    same_bits((await early).probabilities, predictions(seed=2).probabilities[:1])


async def test_a_peer_says_what_it_is_and_which_rounds_are_ready(network):
    store, address = await network.store("a")
    store.put(1, predictions())
    said = await call(
        PeerServiceStub(await network.channel(address)).DescribePeer, pb.DescribePeerRequest(), deadline_s=PATIENCE_S
    )

    assert said == pb.DescribePeerResponse(
        name="a", site=SITE, public_set=SPEC.public_set,
        samples=50, classes=4, heads=3, embedding=5, rounds=3, ready=[1],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "error", "sentence"),
    [
        ({"public_set": "sha256:" + "c" * 64}, NotFound, r"public set is sha256:aaaa.* not 'sha256:cccc.*same one"),
        ({"round": 0}, InvalidInput, "no round 0 here: ask for 1 to 3"),
        ({"round": 4}, InvalidInput, "no round 4 here: ask for 1 to 3"),
        ({"round": 1}, NotFound, "round 1 is over and its update was dropped: ask for round 3"),
        ({"round": 3, "heads": [3]}, InvalidInput, r"heads \[3\] cannot be asked: this peer has 0 to 2"),
        ({"round": 3, "heads": []}, InvalidInput, "heads"),
        ({"round": 3, "heads": [1, 1]}, InvalidInput, "each once"),
        ({"round": 3, "samples": [50]}, InvalidInput, "50 samples"),
        ({"round": 3, "samples": [0] * 51}, InvalidInput, "50 samples"),
        ({"round": 3, "temperature": -1.0}, InvalidInput, "temperature"),
        ({"round": 3, "temperature": float("nan")}, InvalidInput, "temperature"),
    ],
)
async def test_what_cannot_be_answered_is_refused_in_one_sentence(network, wrong, error, sentence):
    store, address = await network.store("a")
    for round_ in (1, 2, 3):
        store.put(round_, predictions())

    with pytest.raises(error, match=sentence) as caught:
        await asked(network, address, **wrong)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert await asked(network, address, round=3)


async def test_a_peer_without_embeddings_says_so(network):
    store, address = await network.store("a", WIDE)
    store.put(1, predictions(WIDE))

    with pytest.raises(InvalidInput, match="no embeddings"):
        await asked(network, address, public_set=WIDE.public_set, embeddings=True)


async def test_a_peer_that_differs_is_found_out_when_it_is_greeted(network):
    _, address = await network.store("a", WIDE)

    with pytest.raises(InvalidInput, match=r"device/site-1/a has the public set 'sha256:b.*give both the same"):
        await (await network.client("a", address)).greet()


@pytest.mark.parametrize(
    "who",
    [
        {"name": "stranger"},
        {"name": "other", "site": "site-2"},
        {"name": "site-1", "role": "site"},
        {"name": "alice", "role": "operator"},
        {"name": "cloud", "role": "cloud"},
    ],
)
async def test_who_is_not_a_neighbour_is_refused(network, who):
    store, address = await network.store("a")
    store.put(1, predictions())
    stub = PeerServiceStub(await network.channel(address, **who))

    request = pb.PredictRequest(public_set=SPEC.public_set, round=1, heads=[0])
    with pytest.raises(Refused, match="is not a neighbour of device/site-1/a"):
        _ = [chunk async for chunk in read_messages(stub.Predict(request, timeout=PATIENCE_S), PATIENCE_S)]
    with pytest.raises(Refused, match="is not a neighbour of device/site-1/a"):
        await call(stub.DescribePeer, pb.DescribePeerRequest(), deadline_s=PATIENCE_S)


async def test_a_device_of_the_same_name_at_another_site_is_no_neighbour(network, pki):
    store, address = await network.store("a")
    store.put(1, predictions())
    namesake = pki.credentials("device", "asker", "site-2")
    tls = grpc.ssl_channel_credentials(namesake.ca, namesake.key, namesake.certificate)
    async with grpc.aio.secure_channel(address, tls, options=DIRECT) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await PeerServiceStub(channel).DescribePeer(pb.DescribePeerRequest(), timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_who_shows_no_certificate_never_reaches_the_board(network, pki):
    store, address = await network.store("a")
    store.put(1, predictions())
    tls = grpc.ssl_channel_credentials(root_certificates=pki.credentials("device", "asker", SITE).ca)
    async with grpc.aio.secure_channel(address, tls, options=DIRECT) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await PeerServiceStub(channel).DescribePeer(pb.DescribePeerRequest(), timeout=PATIENCE_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert await is_serving(await network.channel(address), "diredi.v1.PeerService")


async def test_it_is_known_who_has_had_an_answer(network):
    store, address = await network.store("a", neighbours=("asker", "b"))
    store.put(1, predictions())
    told = {name: asyncio.create_task(store.wait_until_served(1, identity(name))) for name in ("asker", "b")}
    await asked(network, address)
    async with asyncio.timeout(PATIENCE_S):
        await told["asker"]
    assert not told["b"].done()
    with pytest.raises(InvalidInput):
        await asked(network, address, name="b", heads=[9])

    async with asyncio.timeout(PATIENCE_S):
        await told["b"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (lambda p: Predictions(p.probabilities[:, :-1], p.embeddings), "shape"),
        (lambda p: Predictions(p.probabilities[:2], p.embeddings), "shape"),
        (lambda p: Predictions(p.probabilities * 2, p.embeddings), "distribution"),
        (lambda p: Predictions(p.probabilities * np.float32(np.nan), p.embeddings), "finite"),
        (lambda p: Predictions(p.probabilities), "embeddings"),
        (lambda p: Predictions(p.probabilities, np.tile(p.embeddings, (2, 1))), "embeddings"),
    ],
)
async def test_only_predictions_on_the_whole_public_set_can_be_published(network, bad, why):
    store, _ = await network.store("a")

    with pytest.raises(DirediError, match=f"round 1 has .*{why}.*nothing of it was published"):
        store.put(1, bad(predictions()))
    assert store.ready == []


async def test_what_was_published_does_not_change_when_the_learner_goes_on(network):
    store, address = await network.store("a")
    mine = predictions()
    store.put(1, mine)
    mine.probabilities[:] = 0
    got = await (await network.client("a", address)).fetch_predictions(1, PredictionRequest(), PATIENCE_S)

    same_bits(got.probabilities, predictions().probabilities[:1])


async def test_a_neighbour_with_embeddings_of_another_size_is_heard_without_them(network):
    """As one with another backbone has them; it is asked for what can be learned from, and nothing else travels."""
    theirs = replace(SPEC, embedding=9)
    sent = EgressMeter()
    store, address = await network.store("a", theirs, sent=sent)
    store.put(1, predictions(theirs))
    got = await (await network.client("a", address)).fetch_predictions(
        1, PredictionRequest(None, (0, 1, 2), embeddings=True), 10
    )

    assert got.probabilities.tobytes() == predictions(theirs).probabilities.tobytes()
    assert got.embeddings is None
    assert sent.totals()["diredi.v1.PredictResponse"] < 1.1 * got.probabilities.nbytes
