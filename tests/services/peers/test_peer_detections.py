"""Detections between peers: they arrive bit for bit, a liar's are left out, and classes may differ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from peer_network import identity, predictions
from test_peer_collect import Scripted

from diredi.errors import InvalidInput, NotFound
from diredi.rpc.v1 import peers_pb2 as pb
from peer_node.collect import AbsenceKind, collect
from peer_node.detections import BOX_BYTES, DetectionsSpec, PublicDetections
from peer_node.servicer import CHUNK_BYTES, detection_chunks

SPEC = DetectionsSpec("sha256:" + "d" * 64, samples=40, names=("car", "person"), max_boxes=10)
MANY = replace(SPEC, samples=3000, max_boxes=20)


def detections(spec=SPEC, seed=0):
    """Random ones, on some images none."""
    random = np.random.default_rng(seed)
    counts = random.integers(0, spec.max_boxes + 1, spec.samples)
    low = random.uniform(0, 0.5, (counts.sum(), 2))
    high = low + random.uniform(0.1, 0.5, low.shape)
    return PublicDetections(
        counts,
        np.concatenate([low, high], 1).astype(np.float32),
        random.uniform(0, 1, len(low)).astype(np.float32),
        random.integers(0, len(spec.names), len(low)),
        dict.fromkeys(spec.names, 0.5),
    )


def messages(said, **changes):
    """As a peer sends them, with something of the first one changed."""
    first, *rest = detection_chunks(said)
    for field, value in changes.items():
        if isinstance(value, list):
            del getattr(first, field)[:]
            getattr(first, field).extend(value)
        else:
            setattr(first, field, value)
    return [first, *rest]


class Detecting(Scripted):
    """Answers with what it is told to."""

    async def DescribePeer(self, request, context):
        return pb.DescribePeerResponse(
            public_set=SPEC.public_set, samples=SPEC.samples, class_names=SPEC.names, max_boxes=SPEC.max_boxes
        )

    async def Detect(self, request, context):
        self.asked += 1
        for message in self.messages:
            yield message


def spoilt(field, row, value):
    array = getattr(detections(), field).copy()
    array[row] = value
    return messages(replace(detections(), **{field: array}))


SAID = detections()
NAMED = [pb.ClassQuality(name=name, ap50=0.5) for name in SPEC.names]
LIES = {
    "not a number": (spoilt("boxes", (3, 1), np.nan), "not a finite number"),
    "out of range": (spoilt("boxes", (3, 2), 640), "a box outside its image"),
    "inside out": (spoilt("boxes", 3, (0.5, 0.5, 0.2, 0.9)), "a box without an area"),
    "surer than sure": (spoilt("scores", 3, 1.5), "a score that is not from 0 to 1"),
    "a class beyond": (spoilt("classes", 3, 2), "a class beyond its 2"),
    "another number of boxes": (messages(SAID, scores=b""), "classes for"),
    "more boxes than an image has": (messages(SAID, counts=[11, *SAID.counts[1:].tolist()]), "11 boxes on one image"),
    "another first image": (messages(SAID, first=4), "from image 4 on where image 0"),
    "more images": (messages(SAID, counts=[0] * 41), "41 images from image 0"),
    "no quality": (messages(SAID, qualities=[]), "0 classes"),
    "better than all": (messages(SAID, qualities=[NAMED[0], pb.ClassQuality(name="person", ap50=9)]), "precision"),
    "of no quality": (messages(SAID, qualities=[NAMED[0], pb.ClassQuality(name="b", ap50=np.nan)]), "precision"),
    "no name": (messages(SAID, qualities=[NAMED[0], pb.ClassQuality(ap50=0.5)]), "a name that cannot be one"),
    "one name twice": (messages(SAID, qualities=[NAMED[0]] * 2), "a class that it names twice"),
    "all the words": (messages(SAID, qualities=[pb.ClassQuality(name=f"{n}") for n in range(1001)]), "1001 classes"),
    "nothing": ([], "0 images"),
    "nothing for ever": ([pb.DetectResponse()] * 10_000, "0 images from image 0 on"),
    "without end": ([pb.DetectResponse(counts=[0], boxes=b"\0" * 2**20)] * 50, "more bytes than the answer takes"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
async def test_a_liars_detections_are_left_out_and_honest_ones_are_not(network, lie):
    said, why = LIES[lie]
    liar = Detecting(said)
    store, address = await network.store("honest", SPEC)
    store.put(1, detections())
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


@pytest.mark.parametrize("spec", [SPEC, MANY, replace(SPEC, samples=1)])
async def test_detections_arrive_bit_for_bit_in_chunks(network, spec):
    store, address = await network.store("a", spec)
    mine = detections(spec)
    store.put(1, mine)
    mine.boxes[:] = 0  # what its learner does afterwards is its own affair
    neighbour = await network.client("a", address, spec)
    await neighbour.greet()
    got, sent = await neighbour.fetch(1, None, 30), detections(spec)

    for field in ("counts", "boxes", "scores", "classes"):
        assert getattr(got, field).tobytes() == getattr(sent, field).tobytes()
    assert got.qualities == sent.qualities
    chunks = list(detection_chunks(sent))
    assert max(chunk.ByteSize() for chunk in chunks) < 1.5 * CHUNK_BYTES
    assert len(chunks) >= len(sent.scores) * BOX_BYTES // CHUNK_BYTES


async def test_peers_with_other_classes_understand_each_other(network):
    theirs = replace(SPEC, names=("tram", "car", "bus"))
    store, address = await network.store("a", theirs)
    store.put(1, detections(theirs))
    neighbour = await network.client("a", address, SPEC)
    await neighbour.greet()
    got = await neighbour.fetch(1, None, 30)
    assert list(got.qualities) == ["tram", "car", "bus"]


async def test_another_public_set_is_told_by_both_sides(network):
    other = replace(SPEC, public_set="sha256:" + "e" * 64)
    store, address = await network.store("a", other)
    store.put(1, detections())
    neighbour = await network.client("a", address, SPEC)
    with pytest.raises(InvalidInput, match=f"{identity('a')} has the public set .*give both the same images"):
        await neighbour.greet()
    with pytest.raises(NotFound, match="this peer's public set is sha256:eee"):
        await neighbour.fetch(1, None, 30)


async def test_one_who_predicts_has_no_detections_to_give_and_the_other_way_round(network):
    predicting, address = await network.store("a")
    predicting.put(1, predictions())
    asked = await network.client("a", address, SPEC)
    with pytest.raises(InvalidInput, match="give both peers a learner of detectors"):
        await asked.greet()
    with pytest.raises(InvalidInput, match="this peer shares predictions and no detections: give both"):
        await asked.fetch(1, None, 30)
    detecting, address = await network.store("b", SPEC)
    detecting.put(1, detections())
    with pytest.raises(InvalidInput, match="give both the same"):
        await (await network.client("b", address)).greet()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"boxes": np.full_like(SAID.boxes, 2)}, "a box outside its image"),
        ({"qualities": {"car": 0.5, "tram": 0.5}}, "classes other than the promised car, person"),
        ({"counts": np.full(40, 11)}, "11 boxes on one image"),
    ],
)
async def test_what_a_learner_must_not_share_is_not_published(network, changes, why):
    store, _ = await network.store("a", SPEC)
    with pytest.raises(InvalidInput, match=f"{why}.*nothing of it was published"):
        store.put(1, replace(SAID, **changes))
    assert store.ready == []
