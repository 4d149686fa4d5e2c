"""Peers that are detectors, over real gRPC: all hear each other, one is killed, one lies, one knows other classes."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from peer_network import PeerProcess, configs_of, read_summary
from test_peer_collect import Scripted
from test_peer_rounds import run_peers

import diredi
from diredi.rpc.v1 import peers_pb2 as pb
from peer_node.detection_learner import create_learner
from peer_node.detections import PublicDetections
from peer_node.learner import LearnerContext
from peer_node.servicer import detection_chunks
from tests.support.squares import write_squares

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_processes")]

IMAGES = 6
OPTIONS = {
    "models": ["yolo11-w0.125"],
    "image_sizes": [64],
    "recipe": {"steps": 1, "batch": 4},
    "public_share": 0.9,
}
NAMES = (["car"], ["person", "car"], ["car", "tram"])
LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 1.0, 1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    own = [write_squares(folder / f"own-{number}", names, 4, number) for number, names in enumerate(NAMES)]
    public = write_squares(folder / "public", ["car"], IMAGES, 9, labelled=False)
    return {"own": [str(path) for path in own], "public": str(public.parent / "images" / "train")}


def configs(folder, pki, names, data, **more):
    factory = "peer_node.detection_learner:create_learner"
    return configs_of(folder, pki, names, **{"learner": factory, "data": data, "options": OPTIONS, **more})


class Neighbour(Scripted):
    """Answers every round with the same."""

    def __init__(self, spec, messages):
        super().__init__(messages)
        self.spec = spec

    async def DescribePeer(self, request, context):
        spec = self.spec
        return pb.DescribePeerResponse(
            public_set=spec.public_set, samples=spec.samples, class_names=["car"], max_boxes=spec.max_boxes
        )

    async def Detect(self, request, context):
        self.asked += 1
        for message in self.messages:
            yield message


def says(box, score=0.9, **qualities):
    """The same box of the first class on every image, as a peer sends it."""
    return list(
        detection_chunks(
            PublicDetections(
                np.ones(IMAGES, np.int64),
                np.tile(np.array(box, np.float32), (IMAGES, 1)),
                np.full(IMAGES, score, np.float32),
                np.zeros(IMAGES, np.int64),
                qualities,
            )
        )
    )


async def test_three_peers_of_different_classes_hear_each_other(tmp_path, pki, data):
    options = {**OPTIONS, "models": ["yolo11-w0.125", "yolov8-w0.125-d0.33"], "image_sizes": [64, 96]}
    files = configs(tmp_path, pki, ["a", "b", "c"], data, rounds=2, options=options)
    summaries = await run_peers([{**one, "model": str(tmp_path / one["name"] / "model.safetensors")} for one in files])

    for number, (name, summary) in enumerate(zip("abc", summaries, strict=True)):
        detector = diredi.load(tmp_path / name / "model.safetensors")
        assert detector.labels.names == tuple(NAMES[number])
        measured = diredi.evaluate(detector, diredi.load_dataset(data["own"][number])).map50
        assert measured == pytest.approx(summary["rounds"][-1]["learned"]["AP50"]), (
            "it is the detector of the last round"
        )
        assert summary["ended"]
        assert [sorted(one["answered"]) for one in summary["rounds"]] == [sorted({"a", "b", "c"} - {name})] * 2
        assert all(0 <= one["learned"]["AP50"] <= 1 for one in summary["rounds"])
        kinds = {kind.removeprefix("diredi.v1.") for kind in summary["sent_bytes"]}
        assert kinds == {"DescribePeerRequest", "DescribePeerResponse", "DetectRequest", "DetectResponse"}


async def test_one_is_killed_and_the_others_end_and_say_who_was_missing(tmp_path, pki, data):
    names = ["a", "b", "victim"]
    options = {**OPTIONS, "killed": {2: 2}}
    files = configs(tmp_path, pki, names, data, rounds=2, options=options, learner="peer_detector:learner")
    processes = [await PeerProcess.start(tmp_path, config) for config in files]
    try:
        assert [await process.ended() for process in processes] == [0, 0, -9]
    finally:
        for process in processes:
            await process.kill()
    for config, other in zip(files[:2], "ba", strict=True):
        first, last = read_summary(config)["rounds"]
        assert (sorted(first["answered"]), last["answered"]) == ([other, "victim"], [other])
        assert last["missing"]["victim"]["kind"] == "away"


async def test_who_lies_is_left_out_or_outvoted_and_who_knows_other_classes_says_nothing_of_ours(
    tmp_path, network, pki, data
):
    """The peer itself has nothing to say yet: its neighbours are four that the test plays."""
    [config] = configs(tmp_path, pki, ["a"], data, rounds=1)
    spec = create_learner(LearnerContext(0, 1, 1, 0, data, OPTIONS)).payload_spec
    played = {
        "honest-1": says(LEFT, car=0.5),
        "honest-2": says(LEFT, car=0.6),
        "plausible": says(RIGHT, 1.0, car=1.0),
        "absurd": says((0, 0, 640, 480), car=1.0),
        "stranger": says(RIGHT, plane=1.0),
    }
    config["neighbours"] = {
        name: await network.served(name, Neighbour(spec, messages)) for name, messages in played.items()
    }
    [summary], *_ = await asyncio.gather(
        run_peers([config]),
        *(
            network.ask_as(name, config, "Detect", pb.DetectRequest(public_set=spec.public_set, round=1))
            for name in played
        ),
    )

    [only] = summary["rounds"]
    assert sorted(only["answered"]) == sorted(played.keys() - {"absurd"})
    assert only["missing"]["absurd"]["kind"] == "wrong"
    assert "a box outside its image" in only["missing"]["absurd"]["why"]
    assert only["learned"]["boxes"] == IMAGES, "where two agree; not what one made up, nor a plane"
