"""The learner for detectors, without a wire between the peers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from diredi.errors import InvalidInput
from peer_node.detection_learner import DetectionLearner, create_learner
from peer_node.detections import PublicDetections
from peer_node.learner import LearnerContext
from tests.support.squares import write_squares

OPTIONS = {
    "models": ["yolo11-w0.125", "yolov8-w0.125-d0.33"],
    "image_sizes": [64, 96],
    "recipe": {"steps": 1, "batch": 4},
    "public_share": 0.9,
}
IMAGES = 6
LEFT, RIGHT = (0.0, 0.0, 0.4, 0.4), (0.6, 0.6, 1.0, 1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("squares")
    own = [write_squares(folder / f"own-{n}", names, 4, n) for n, names in enumerate((["car"], ["person", "car"]))]
    public = write_squares(folder / "public", ["car"], IMAGES, 9, labelled=False)
    return {"own": [str(path) for path in own], "public": str(public.parent / "images" / "train")}


def peer(data: Mapping[str, Any], number: int = 0, **options: object) -> DetectionLearner:
    return create_learner(LearnerContext(number, 2, 3, 1, data, {**OPTIONS, **options}))


def says(name: str, box: tuple[float, ...], score: float = 0.9, **qualities: float) -> PublicDetections:
    """The same box on every image."""
    kind = list(qualities).index(name)
    return PublicDetections(
        np.ones(IMAGES, np.int64),
        np.tile(np.array(box, np.float32), (IMAGES, 1)),
        np.full(IMAGES, score, np.float32),
        np.full(IMAGES, kind, np.int64),
        qualities,
    )


def test_peers_of_other_classes_sizes_and_architectures_hold_one_public_set(data: dict[str, Any]) -> None:
    one, other = (peer(data, number) for number in range(2))
    assert one.payload_spec.names == ("car",)
    assert other.payload_spec.names == ("person", "car")
    assert one.payload_spec.public_set == other.payload_spec.public_set
    for learner in (one, other):
        learner.fit(1)
        assert learner.payload_spec.validation_error(learner.compute_update(1)) == ""


def test_a_peer_reads_the_labels_of_the_classes_that_it_is_given(data: dict[str, Any]) -> None:
    assert peer({**data, "own": data["own"][1:], "classes": [["car"]]}).payload_spec.names == ("car",)


def test_a_public_set_is_known_by_its_images_whatever_they_are_called(data: dict[str, Any], tmp_path: Path) -> None:
    for number, path in enumerate(sorted(Path(data["public"]).iterdir())):
        shutil.copy(path, tmp_path / f"renamed-{-number}.png")
    digest = peer(data).payload_spec.public_set
    assert peer({**data, "public": str(tmp_path)}).payload_spec.public_set == digest
    next(tmp_path.iterdir()).unlink()
    assert peer({**data, "public": str(tmp_path)}).payload_spec.public_set != digest


def test_a_detector_that_finds_nothing_well_says_nothing(data: dict[str, Any]) -> None:
    update = peer(data).compute_update(1)
    assert update.qualities == {"car": 0.0}
    assert len(update.scores) == 0


@pytest.mark.slow
def test_what_two_neighbours_see_is_learned_and_what_one_makes_up_is_not(data: dict[str, Any]) -> None:
    honest = says("car", LEFT, car=0.5)
    liar = says("car", RIGHT, 1.0, car=1.0)
    assert peer(data).learn(1, {"a": honest, "b": honest, "liar": liar})["boxes"] == IMAGES
    assert peer(data).learn(1, {"a": honest, "liar": liar})["boxes"] == 0
    assert peer(data).learn(1, {"a": says("car", LEFT, car=0.5)})["boxes"] == IMAGES, "nobody else speaks for it"


def test_the_silence_of_one_who_knows_other_classes_says_nothing(data: dict[str, Any]) -> None:
    honest, stranger = says("car", LEFT, car=0.5), says("tram", RIGHT, tram=0.9)
    with capture_logs() as events:
        assert peer(data).learn(1, {"a": honest, "b": honest, "c": stranger})["boxes"] == IMAGES
    left_out = {"event": "classes_left_out", "log_level": "info", "round": 1, "neighbour": "c", "classes": ["tram"]}
    assert left_out in events

    knows = peer(data, learns=["tram"])
    assert knows.payload_spec.names == ("car", "tram")
    assert knows.learn(1, {"a": honest, "b": honest, "c": stranger})["boxes"] == 2 * IMAGES


def test_public_images_are_no_more_than_their_share_and_others_in_each_round(data: dict[str, Any]) -> None:
    one, own = peer(data, public_share=0.5), 4
    drawn = [{sample.image for sample in one.draw_public(number)} for number in range(1, 6)]
    assert {len(images) for images in drawn} == {own}
    assert len(frozenset().union(*drawn)) == IMAGES, "each has its turn"
    honest = says("car", LEFT, car=0.5)
    assert one.learn(1, {"a": honest, "b": honest})["boxes"] == own


def test_a_round_in_which_nobody_answered_is_learned_alone(data: dict[str, Any]) -> None:
    assert peer(data).learn(1, {})["boxes"] == 0


@pytest.mark.parametrize(
    ("changes", "options", "wrong"),
    [
        ({"public": "/nowhere"}, {}, "does not exist"),
        ({"own": []}, {}, "own"),
        ({"classes": [["plane"]]}, {}, "no class 'plane'"),
        ({"classes": []}, {}, "classes"),
        ({"colour": "red"}, {}, "colour"),
        ({}, {"own_ema": 1}, "own_ema"),
        ({}, {"models": ["vgg"]}, "vgg"),
        ({}, {"image_sizes": [50]}, "50"),
        ({}, {"learns": ["Car"]}, "two ways"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    data: dict[str, Any], changes: dict[str, object], options: dict[str, object], wrong: str
) -> None:
    with pytest.raises(InvalidInput, match=wrong):
        peer({**data, **changes}, **options)
