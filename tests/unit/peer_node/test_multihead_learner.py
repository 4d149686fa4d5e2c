"""The learner that comes with DiReDi, without a wire between the peers."""

from __future__ import annotations

import pytest

from diredi.errors import InvalidInput
from peer_node.learner import Predictions, Setting, factory_named
from peer_node.multihead_learner import MultiHeadedLearner, multiheaded

DATA = {"set": "digits", "private": 300, "public": 200, "partition": {"kind": "skew", "gamma": 100}}
OPTIONS = {"multihead": {"auxiliary": 2}, "training": {"epochs": 3, "batch": 16}}


def three(rounds: int, seed: int = 1) -> list[MultiHeadedLearner]:
    peers = [multiheaded(Setting(number, 3, rounds, seed, DATA, OPTIONS)) for number in range(3)]
    for number in range(1, rounds + 1):
        for peer in peers:
            peer.fit(number)
        said = {f"peer-{index}": peer.says(number) for index, peer in enumerate(peers)}
        for index, peer in enumerate(peers):
            peer.learn(number, {name: one for name, one in said.items() if name != f"peer-{index}"})
    return peers


def test_peers_learn_from_each_other_what_their_own_labels_do_not_show() -> None:
    """On average over three peers in three draws: a head that saw no private label knows more than the one that did."""
    last = [peer.fit(9) for seed in range(3) for peer in three(8, seed)]
    assert sum(one["last head"] - one["main head"] for one in last) / 9 > 0.02


def test_what_is_said_is_sound_and_of_the_outline() -> None:
    peer = three(1)[0]
    said, outline = peer.says(2), peer.outline
    assert said.flaw() == ""
    assert said.probabilities.shape == (outline.heads, outline.samples, outline.classes)
    assert said.embeddings is not None
    assert said.embeddings.shape == (outline.samples, outline.embedding)


def test_peers_hold_one_public_set_and_other_settings_another() -> None:
    digests = {multiheaded(Setting(number, 3, 1, 1, DATA, OPTIONS)).outline.public_set for number in range(3)}
    assert len(digests) == 1
    other = multiheaded(Setting(0, 3, 1, 1, {**DATA, "public": 100}, OPTIONS))
    assert other.outline.public_set not in digests


def test_a_round_in_which_nobody_answered_is_learned_alone() -> None:
    peer = multiheaded(Setting(0, 3, 1, 1, DATA, OPTIONS))
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
        factory_named("peer_node.multihead_learner:multiheaded")(Setting(0, 3, 1, 0, data, options))
