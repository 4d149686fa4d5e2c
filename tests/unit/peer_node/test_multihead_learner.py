"""The learner that comes with DiReDi, without a wire between the peers."""

from __future__ import annotations

import pytest

from diredi.errors import InvalidInput
from peer_node.learner import LearnerContext, Predictions, load_factory
from peer_node.multihead_learner import MultiheadLearner, create_learner

DATA = {"set": "digits", "private": 300, "public": 200, "partition": {"kind": "skew", "gamma": 100}}
OPTIONS = {"multihead": {"auxiliary": 2}, "training": {"epochs": 3, "batch": 16}}


def three(rounds: int, seed: int = 1) -> list[MultiheadLearner]:
    peers = [create_learner(LearnerContext(number, 3, rounds, seed, DATA, OPTIONS)) for number in range(3)]
    for number in range(1, rounds + 1):
        for peer in peers:
            peer.fit(number)
        said = {f"peer-{index}": peer.compute_update(number) for index, peer in enumerate(peers)}
        for index, peer in enumerate(peers):
            peer.learn(number, {name: one for name, one in said.items() if name != f"peer-{index}"})
    return peers


@pytest.mark.slow
def test_peers_learn_from_each_other_what_their_own_labels_do_not_show() -> None:
    """On average over three peers in three draws: a head that saw no private label knows more than the one that did."""
    last = [peer.fit(9) for seed in range(3) for peer in three(8, seed)]
    assert sum(one["last head"] - one["main head"] for one in last) / 9 > 0.02


def test_what_is_said_is_sound_and_of_the_outline() -> None:
    peer = three(1)[0]
    said, spec = peer.compute_update(2), peer.payload_spec
    assert said.validation_error() == ""
    assert said.probabilities.shape == (spec.heads, spec.samples, spec.classes)
    assert said.embeddings is not None
    assert said.embeddings.shape == (spec.samples, spec.embedding)


def test_peers_hold_one_public_set_and_other_settings_another() -> None:
    digests = {
        create_learner(LearnerContext(number, 3, 1, 1, DATA, OPTIONS)).payload_spec.public_set for number in range(3)
    }
    assert len(digests) == 1
    other = create_learner(LearnerContext(0, 3, 1, 1, {**DATA, "public": 100}, OPTIONS))
    assert other.payload_spec.public_set not in digests


def test_a_round_in_which_nobody_answered_is_learned_alone() -> None:
    peer = create_learner(LearnerContext(0, 3, 1, 1, DATA, OPTIONS))
    answers: dict[str, Predictions] = {}
    assert peer.learn(1, answers)["main head"] > 0.2


@pytest.mark.parametrize(
    ("data", "options", "wrong"),
    [
        ({"set": "letters"}, {}, "digits"),
        ({"private": 5000}, {}, "images"),
        ({"colour": "red"}, {}, "colour"),
        ({}, {"training": {"epochs": -1}}, "training.epochs"),
        ({}, {"network": {"backbone": "vgg"}}, "resnet18"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(data: dict[str, object], options: dict[str, object], wrong: str) -> None:
    with pytest.raises(InvalidInput, match=wrong):
        load_factory("peer_node.multihead_learner:create_learner")(LearnerContext(0, 3, 1, 0, data, options))
