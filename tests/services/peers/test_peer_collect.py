"""A round with honest neighbours and others: a silent, slow, lying or dead one costs a bounded wait, not the round."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest
from peer_network import SITE, SPEC, identity, predictions

from diredi.rpc.byte_counter import EgressMeter
from diredi.rpc.v1 import peers_pb2 as pb
from diredi.rpc.v1.peers_pb2_grpc import PeerServiceServicer
from peer_node.collect import AbsenceKind, collect
from peer_node.learner import PredictionRequest, Predictions, PredictionSpec
from peer_node.servicer import prediction_chunks
from tests.support.net import free_port

EMBEDDINGS = predictions().embeddings
PROBABILITIES = PredictionRequest(None, (0, 1, 2))
ALL = PredictionRequest(None, (0, 1, 2), embeddings=True)


class Described(PeerServiceServicer):
    """What it says of itself is sound."""

    async def DescribePeer(self, request, context):
        spec = {name: getattr(SPEC, name) for name in ("public_set", "samples", "classes", "heads", "embedding")}
        return pb.DescribePeerResponse(**spec)


class Scripted(Described):
    """Answers with what it is told to."""

    def __init__(self, messages):
        self.messages = messages
        self.asked = 0

    async def Predict(self, request, context):
        self.asked += 1
        for message in self.messages:
            yield message


class Slow(Described):
    """Answers as it should, except that it stops before its last row until it is told to go on."""

    def __init__(self):
        self.stopped, self.go_on = asyncio.Event(), asyncio.Event()

    async def Predict(self, request, context):
        heads = list(request.heads)
        said = predictions().probabilities[heads]
        yield pb.PredictResponse(first=0, probabilities=[rows_of(matrix[:-1]) for matrix in said])
        self.stopped.set()
        await self.go_on.wait()
        yield pb.PredictResponse(first=len(said[0]) - 1, probabilities=[rows_of(matrix[-1:]) for matrix in said])


def rows_of(matrix):
    rows, columns = matrix.shape
    return pb.Rows(rows=rows, columns=columns, data=matrix.astype("<f4").tobytes())


def answer(change=lambda said: said, embeddings=EMBEDDINGS, **more):
    """One message with a changed copy of sound predictions."""
    said = change(predictions().probabilities.copy())
    shown = None if embeddings is None else rows_of(embeddings)
    return pb.PredictResponse(**{"first": 0, "probabilities": [rows_of(m) for m in said], "embeddings": shown, **more})


def spoilt(value):
    def change(said):
        said[1, 7, 2] = value
        return said

    return change


def with_data(message, data):
    message.probabilities[0].data = data
    return message


LIES = {
    "not a number": ([answer(spoilt(np.nan))], "not a finite number"),
    "infinite": ([answer(spoilt(np.inf))], "not a finite number"),
    "not on the simplex": ([answer(spoilt(5.0))], "not a distribution"),
    "negative": ([answer(lambda s: np.concatenate([s[..., :2] - 1, s[..., 2:] + 1], -1))], "not a distribution"),
    "logits": ([answer(np.log)], "not a distribution"),
    "embeddings not finite": ([answer(embeddings=EMBEDDINGS * np.inf)], "embedding that is not finite"),
    "one class too few": ([answer(lambda s: s[..., :3])], "50 x 3 where 50 x 4 is due"),
    "another embedding": ([answer(embeddings=EMBEDDINGS[:, :4])], "50 x 4 where 50 x 5 is due"),
    "no embeddings": ([answer(embeddings=None)], "3 matrices where 4 were asked for"),
    "one head too few": ([answer(lambda s: s[:2])], "3 matrices where 4"),
    "more heads": ([answer(lambda s: s[[0, 0, 1, 2]])], "5 matrices where 4"),
    "too many rows": ([answer(lambda s: np.tile(s, (1, 2, 1)))], "100 rows from row 0"),
    "twice": ([answer(), answer()], "50 rows from row 0 on where row 50 of 50 comes next"),
    "too few rows": ([answer(lambda s: s[:, :20], EMBEDDINGS[:20])], "20 rows where 50 were asked for"),
    "nothing": ([], "0 rows where 50"),
    "no rows for ever": ([answer(lambda s: s[:, :0], EMBEDDINGS[:0])] * 9, "0 rows from row 0"),
    "a gap": ([answer(first=10)], "50 rows from row 10 on where row 0"),
    "too few bytes": ([with_data(answer(), b"12")], "2 bytes for a matrix of 50 x 4"),
    "too many bytes": ([with_data(answer(), bytes(2**20))], "more bytes than the answer takes"),
    "a giant message": ([with_data(answer(), bytes(12 * 2**20))], "larger than max"),
    "an empty message": ([pb.PredictResponse()], "0 matrices where 4"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lying_peer_is_named_and_left_out(network, lie):
    messages, wrong = LIES[lie]
    honest, address = await network.store("honest")
    honest.put(1, predictions(seed=3))
    liar = Scripted(messages)
    neighbours = {
        "liar": await network.client("liar", await network.served("liar", liar)),
        "honest": await network.client("honest", address),
    }
    collected = await collect(neighbours, 1, ALL, deadline_s=30, attempts=3)

    assert list(collected.answers) == ["honest"]
    assert collected.answers["honest"].probabilities.tobytes() == predictions(seed=3).probabilities.tobytes()
    assert collected.missing["liar"].kind is AbsenceKind.WRONG
    assert collected.missing["liar"].why.startswith("device/site-1/liar answered round 1 with ")
    assert wrong in collected.missing["liar"].why
    assert liar.asked == 1, "a lie is not asked for again"


async def test_the_script_of_the_liars_is_believed_where_it_does_not_lie(network):
    """Else every lie above could be refused for something else."""
    address = await network.served("liar", Scripted([answer()]))
    collected = await collect({"liar": await network.client("liar", address)}, 1, ALL, deadline_s=30, attempts=1)

    assert collected.answers["liar"].embeddings.tobytes() == predictions().embeddings.tobytes()


async def test_bytes_that_are_no_message_leave_their_sender_out(network, pki):
    async def garbage(request, context):
        yield b"\xff" * 100

    handler = grpc.unary_stream_rpc_method_handler(garbage)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("diredi.v1.PeerService", {"Predict": handler})]
    )
    own = pki.credentials("device", "liar", SITE)
    port = server.add_secure_port(
        "127.0.0.1:0", grpc.ssl_server_credentials([(own.key, own.certificate)], own.ca, True)
    )
    await server.start()
    neighbour = await network.client("liar", f"127.0.0.1:{port}")
    collected = await collect({"liar": neighbour}, 1, PROBABILITIES, deadline_s=30, attempts=3)
    await server.stop(0)

    assert collected.missing["liar"].kind is AbsenceKind.WRONG
    assert collected.missing["liar"].why.startswith("device/site-1/liar answered with bytes that are no message")


async def with_an_honest_one(network, name, neighbour, deadline_s, attempts=2):
    store, address = await network.store("honest")
    store.put(1, predictions(seed=3))
    neighbours = {name: neighbour, "honest": await network.client("honest", address)}
    async with asyncio.timeout(120):
        collected = await collect(neighbours, 1, PredictionRequest(), deadline_s=deadline_s, attempts=attempts)
    assert list(collected.answers) == ["honest"]
    return collected.missing[name]


async def test_a_peer_that_never_has_the_round_costs_one_deadline(network):
    _, address = await network.store("silent")
    absence = await with_an_honest_one(network, "silent", await network.client("silent", address), 0.5)

    assert absence.kind is AbsenceKind.LATE
    assert absence.why == "device/site-1/silent had not answered round 1 after 0.5 s"


async def test_a_listener_that_accepts_and_never_says_a_word_costs_one_deadline(network):
    accepted = asyncio.Event()
    mute = await asyncio.start_server(lambda reader, writer: accepted.set(), "127.0.0.1", 0)
    neighbour = await network.client("mute", f"127.0.0.1:{mute.sockets[0].getsockname()[1]}")
    absence = await with_an_honest_one(network, "mute", neighbour, 0.5)
    mute.close()

    assert accepted.is_set()
    assert absence.kind is AbsenceKind.LATE


async def test_a_peer_that_stops_in_the_middle_of_its_answer_costs_one_deadline(network):
    slow = Slow()
    neighbour = await network.client("slow", await network.served("slow", slow))
    absence = await with_an_honest_one(network, "slow", neighbour, 0.5)

    assert slow.stopped.is_set()
    assert absence.kind is AbsenceKind.LATE


async def test_a_slow_peer_that_makes_it_in_time_is_heard(network):
    slow = Slow()
    neighbour = await network.client("slow", await network.served("slow", slow))
    collecting = asyncio.create_task(collect({"slow": neighbour}, 1, PredictionRequest(), deadline_s=30, attempts=1))
    await slow.stopped.wait()
    assert not collecting.done()
    slow.go_on.set()
    collected = await collecting

    assert collected.answers["slow"].probabilities.tobytes() == predictions().probabilities[:1].tobytes()


async def test_nobody_listening_is_away_after_bounded_attempts(network):
    neighbour = await network.client("gone", f"127.0.0.1:{free_port()}")
    absence = await with_an_honest_one(network, "gone", neighbour, 30)

    assert absence.kind is AbsenceKind.AWAY
    assert "nothing listens there" in absence.why


async def test_a_peer_that_comes_up_while_it_is_asked_again_is_heard(network):
    class Starting(Scripted):
        async def Predict(self, request, context):
            self.asked += 1
            if self.asked < 3:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
            for message in self.messages:
                yield message

    peer = Starting([answer()])
    neighbour = await network.client("starting", await network.served("starting", peer))
    collected = await collect({"starting": neighbour}, 1, ALL, deadline_s=30, attempts=3)

    assert (list(collected.answers), peer.asked) == (["starting"], 3)


async def test_a_neighbour_that_does_not_know_us_has_refused(network):
    store, address = await network.store("aloof", neighbours=("somebody",))
    store.put(1, predictions())
    absence = await with_an_honest_one(network, "aloof", await network.client("aloof", address), 30)

    assert absence.kind is AbsenceKind.REFUSED
    assert "device/site-1/asker is not a neighbour of device/site-1/aloof" in absence.why


async def test_a_neighbour_with_another_public_set_has_refused(network):
    other = PredictionSpec("sha256:" + "f" * 64, 50, 4, 3, 5)
    store, address = await network.store("other", other)
    store.put(1, predictions(other))
    absence = await with_an_honest_one(network, "other", await network.client("other", address), 30)

    assert absence.kind is AbsenceKind.REFUSED
    assert "give both the same" in absence.why


async def test_no_neighbours_are_no_answers(network):
    collected = await collect({}, 1, PredictionRequest(), deadline_s=1, attempts=1)

    assert (collected.answers, collected.missing) == ({}, {})


async def test_bytes_are_counted_as_they_were_serialized(network, pki):
    """Three counts of an answer: as serialized here, as its sender counted it, as its receiver did; and raw ones."""
    sent = EgressMeter()
    store, address = await network.store("a", sent=sent)
    store.put(1, predictions())
    expected = sum(len(chunk.SerializeToString()) + 5 for chunk in prediction_chunks(predictions(), PROBABILITIES))
    await (await network.client("a", address)).fetch_predictions(1, PROBABILITIES, 10)

    assert sent.totals() == {"diredi.v1.PredictResponse": expected}
    assert network.received.totals(str(identity("a"))) == sent.totals()

    request = pb.PredictRequest(public_set=SPEC.public_set, round=1, heads=PROBABILITIES.heads)
    channel = await network.channel(address, meter=(asked := EgressMeter()))
    raw = channel.unary_stream("/diredi.v1.PeerService/Predict", pb.PredictRequest.SerializeToString)
    travelled = [len(data) + 5 async for data in raw(request, timeout=10)]
    assert sum(travelled) == expected
    assert asked.totals() == {"diredi.v1.PredictRequest": len(request.SerializeToString()) + 5}


def test_values_are_judged_as_they_came():
    """A sum that is off by rounding is no lie."""
    rounded = predictions().probabilities + np.float32(1e-5)
    assert Predictions(rounded).validation_error() == ""
