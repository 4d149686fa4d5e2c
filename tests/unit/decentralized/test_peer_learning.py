"""Peers that learn their labels and from each other, on a task small enough for a test."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diredi.data.classification.base import LabelledImages
from diredi.decentralized import multihead
from diredi.decentralized.backbones import BACKBONES
from diredi.decentralized.distillation import distance
from diredi.decentralized.early_stopping import StoppingRecipe, StopReason
from diredi.decentralized.network import MAIN, create_network
from diredi.decentralized.peer import Peer
from diredi.decentralized.recipe import DistillationRecipe, MultiHeadRecipe, NetworkRecipe, TrainingRecipe
from diredi.decentralized.rounds import AUXILIARY, EarlyStopping, distil
from diredi.errors import InvalidInput

pytestmark = pytest.mark.slow

CLASSES, SHAPE = 4, (1, 8, 8)
TRAINING = TrainingRecipe(epochs=6, batch=16)
EVERYBODY = {0: [1, 2], 1: [0, 2], 2: [0, 1]}


def task(images: int, seed: int, classes: tuple[int, ...] = tuple(range(CLASSES))) -> LabelledImages:
    """A bright quarter of the image, in noise, is the class."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, images)
    pixels = rng.integers(0, 180, (images, *SHAPE))
    for row, label in zip(pixels, labels, strict=True):
        row[0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 75
    return LabelledImages(pixels.astype(np.uint8), labels.astype(np.int64))


TEST = task(400, 99)


def peer(number: int, data: LabelledImages, auxiliary: int = 1, backbone: str = "mlp") -> Peer:
    network = create_network(NetworkRecipe(backbone=backbone, auxiliary=auxiliary), SHAPE, CLASSES, number)
    return Peer(f"peer-{number}", network, data, number)


def accuracy(one: Peer, head: int, test: LabelledImages = TEST) -> float:
    said = one.predict_logits(torch.from_numpy(test.images), head).argmax(-1).numpy()
    return float(np.mean(said == test.labels))


def skewed(auxiliary: int = 1) -> list[Peer]:
    """Three peers, each of which sees two of the four classes and has learned them."""
    peers = [peer(number, task(120, number, pair), auxiliary) for number, pair in enumerate([(0, 1), (1, 2), (2, 3)])]
    for one in peers:
        one.learn_labels(TRAINING)
    return peers


@pytest.mark.parametrize(("backbone", "images"), [("mlp", 200), ("cnn", 200), ("resnet18", 64)])
def test_a_peer_of_any_backbone_learns_its_labels(backbone: str, images: int) -> None:
    own = task(images, 1)
    one = peer(0, own, backbone=backbone)
    before = accuracy(one, MAIN, own)
    one.learn_labels(TRAINING)
    assert accuracy(one, MAIN, own) > before + 0.3


def test_there_is_no_backbone_without_a_test() -> None:
    assert set(BACKBONES) == {"mlp", "cnn", "resnet18"}


def test_an_unknown_backbone_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match="resnet18"):
        create_network(NetworkRecipe(backbone="vgg"), SHAPE, CLASSES, 0)


@pytest.mark.parametrize("measure", ["kl", "td"])
@pytest.mark.parametrize("mode", ["paper", "reference_code", "matched"])
def test_a_peer_that_listens_says_what_its_neighbours_say(measure: str, mode: str) -> None:
    images = skewed()[0].images
    found = {}
    for alpha in (1.0, 0.2):
        peers = skewed()
        theirs = torch.stack([other.predict_logits(images, MAIN) for other in peers[1:]])
        recipe = DistillationRecipe.model_validate({"measure": measure, "alpha": alpha, "mode": mode})
        distil(peers, [EVERYBODY], recipe, TRAINING)
        found[alpha] = distance(
            peers[0].predict_logits(images, AUXILIARY), theirs, DistillationRecipe(measure="kl")
        ).item()
    assert found[0.2] < 0.7 * found[1.0]


def test_the_order_of_peers_is_of_no_matter_and_neighbours_are_as_they_were_before_the_round() -> None:
    recipe = DistillationRecipe(alpha=0.2)
    forwards, backwards = skewed(), skewed()[::-1]
    distil(forwards, [{0: [1], 1: [0, 2], 2: [1]}] * 2, recipe, TRAINING)
    distil(backwards, [{2: [1], 1: [2, 0], 0: [1]}] * 2, recipe, TRAINING)
    for one, other in zip(forwards, backwards[::-1], strict=True):
        images = torch.from_numpy(TEST.images)
        torch.testing.assert_close(one.predict_logits(images, AUXILIARY), other.predict_logits(images, AUXILIARY))


def test_peers_of_different_architectures_learn_from_each_other() -> None:
    peers = [peer(0, task(120, 0, (0, 1))), peer(1, task(200, 1, (1, 2)), backbone="cnn")]
    for one in peers:
        one.learn_labels(TRAINING)
    theirs = peers[1].predict_logits(peers[0].images, MAIN)[None]
    kl = DistillationRecipe(measure="kl")
    before = distance(peers[0].predict_logits(peers[0].images, MAIN), theirs, kl)
    distil(peers, [{0: [1], 1: []}], DistillationRecipe(alpha=0.2), TRAINING)
    assert distance(peers[0].predict_logits(peers[0].images, AUXILIARY), theirs, kl) < 0.7 * before


def test_asking_neighbours_leaves_them_as_they_are() -> None:
    peers = [peer(0, task(64, 0), backbone="cnn"), peer(1, task(64, 1), backbone="cnn")]
    before = {name: value.clone() for name, value in peers[1].network.state_dict().items()}
    distil(peers, [{0: [1], 1: []}], DistillationRecipe(mode="reference_code", alpha=0.5), TRAINING)
    shared = [name for name in before if name.startswith("heads.0")]
    assert shared
    for name in shared:
        assert torch.equal(peers[1].network.state_dict()[name], before[name])


def test_equal_seeds_give_equal_weights() -> None:
    first, second = skewed(), skewed()
    for one, other in zip(first, second, strict=True):
        assert all(map(torch.equal, one.network.state_dict().values(), other.network.state_dict().values()))


def test_later_heads_hear_of_peers_that_are_further_away() -> None:
    """In the line 0 - 1 - 2 the peer 0 has no edge to 2, which alone knows the last class."""
    line = {0: [1], 1: [0, 2], 2: [1]}
    peers = [peer(number, task(120, number, pair), 3) for number, pair in enumerate([(0, 1), (1, 2), (2, 3)])]
    public = torch.from_numpy(task(240, 50).images)
    recipe = MultiHeadRecipe(auxiliary=3)
    for number in range(6):
        spoken = [multihead.predict_public(one.network, public) for one in peers]
        for index, one in enumerate(peers):
            multihead.learn(one, public, [spoken[other] for other in line[index]], recipe, TRAINING, number)
    everywhere = [np.mean([accuracy(one, head) for one in peers]) for head in range(4)]
    assert everywhere[1] > everywhere[MAIN] + 0.05
    assert everywhere[3] > everywhere[1]


def test_a_peer_without_neighbours_learns_its_labels_alone() -> None:
    one, other = peer(0, task(120, 0), 2), peer(0, task(120, 0), 2)
    public = torch.from_numpy(task(60, 50).images)
    multihead.learn(one, public, [], MultiHeadRecipe(), TRAINING, 1)
    other.learn_labels(TRAINING, 1)
    assert accuracy(one, MAIN) == accuracy(other, MAIN)


def test_a_peer_that_has_had_enough_learns_no_more_and_goes_on_teaching() -> None:
    """With a tolerance that takes every change for none, and the second round as the one that is too many."""
    still = StoppingRecipe(tolerance=0.99, n_conv=1, patience=9)
    graphs = [{**EVERYBODY, 2: []}] * 4  # the third asks nobody, so it never has neighbours to measure itself by
    stopping = EarlyStopping(still, [task(60, 50 + number) for number in range(3)])
    peers = skewed()
    found = distil(peers, graphs, DistillationRecipe(), TRAINING, stopping)
    assert [one.reason for one in found] == [StopReason.CONVERGED, StopReason.CONVERGED, None]
    assert [one.rounds for one in found] == [2, 2, 4]

    stopped_after_two = skewed()
    distil(stopped_after_two, graphs[:2], DistillationRecipe(), TRAINING)
    said = [one.predict_logits(torch.from_numpy(TEST.images), AUXILIARY) for one in (*peers, *stopped_after_two)]
    assert torch.equal(said[0], said[3])
    assert torch.equal(said[1], said[4])
    assert not torch.equal(said[2], said[5]), "the one that had not had enough went on"


def test_a_peers_losses_for_stopping_are_those_of_its_own_head_on_everybodys_data() -> None:
    peers, validation = skewed(), [task(60, 50 + number) for number in range(3)]
    stopping = EarlyStopping(StoppingRecipe(), validation)
    (first, *_) = distil(peers, [{0: [1, 2], 1: [], 2: []}], DistillationRecipe(), TRAINING, stopping)
    losses = [
        float(
            torch.nn.functional.cross_entropy(
                peers[0].predict_logits(torch.from_numpy(data.images), AUXILIARY), torch.from_numpy(data.labels)
            )
        )
        for data in validation
    ]
    assert first.last == pytest.approx((losses[0], (losses[1] + losses[2]) / 2))


def test_a_backbone_in_bf16_learns_and_its_weights_stay_fp32() -> None:
    own = task(200, 1)
    network = create_network(NetworkRecipe(backbone="cnn", precision="bf16"), SHAPE, CLASSES, 0)
    one = Peer("peer", network, own, 0)
    before = accuracy(one, MAIN, own)
    one.learn_labels(TRAINING)
    assert accuracy(one, MAIN, own) > before + 0.3
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_a_backbone_in_bf16_says_nearly_what_it_says_in_fp32(backbone: str) -> None:
    images, precisions = torch.from_numpy(task(2, 1).images), ("fp32", "bf16")
    networks = [
        create_network(NetworkRecipe(backbone=backbone, precision=one), SHAPE, CLASSES, 0).eval() for one in precisions
    ]
    whole, half = (network.logits(images, MAIN) for network in networks)
    assert half.dtype == torch.float32
    assert not torch.equal(whole, half)
    assert (whole - half).abs().max() < 0.02 * whole.abs().max()
