"""How samples are dealt to peers: a contract over every partition, and what each one promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from diredi.data.dataset import Dataset, Sample
from diredi.decentralized.partitions import PARTITIONS, PartitionRecipe, label_distribution, partition_labels
from diredi.decentralized.partitions.labels import primary_labels
from diredi.decentralized.partitions.sites import partition_sites
from diredi.errors import InvalidInput

LABELS = np.random.default_rng([1]).integers(0, 10, 4000)
kinds = pytest.mark.parametrize("kind", sorted(PARTITIONS))


def recipe(kind: str) -> PartitionRecipe:
    return PartitionRecipe(kind=kind, gamma=20, concentration=0.8)


def table(labels: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    """peers x classes: how many samples of every label everybody has."""
    return np.stack([np.bincount(labels[part], minlength=labels.max() + 1) for part in parts])


def unlikeness(labels: np.ndarray, parts: list[np.ndarray]) -> float:
    """Half the distance between a peer's own distribution and that of all, 0 to 1, mean over peers."""
    classes = labels.max() + 1
    whole = label_distribution(labels, classes)
    return float(np.mean([np.abs(label_distribution(labels[part], classes) - whole).sum() / 2 for part in parts]))


def assert_partition(labels: np.ndarray, parts: list[np.ndarray], peers: int) -> None:
    assert len(parts) == peers
    assert all(len(part) > 0 for part in parts), "nobody is empty"
    assert all((np.diff(part) > 0).all() for part in parts), "rising"
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels))), "disjoint, and all of them"


@kinds
@pytest.mark.parametrize("peers", [1, 2, 7, 30])
def test_every_sample_is_somebodys_and_nobody_has_none(kind: str, peers: int) -> None:
    assert_partition(LABELS, partition_labels(LABELS, peers, recipe(kind), seed=0), peers)


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(sorted(PARTITIONS)),
    labels=st.lists(st.integers(-3, 9) | st.just(2**40), min_size=0, max_size=80),
    peers=st.integers(0, 12),
    gamma=st.sampled_from([0, 1, 1000, 1e9]),
    primary=st.none() | st.integers(1, 8),
    concentration=st.sampled_from([1e-300, 0.05, 1, 1e9]),
    seed=st.integers(-1, 2**63),
)
def test_whatever_is_asked_for_comes_out_whole_or_is_refused_in_a_sentence(
    kind: str, labels: list[int], peers: int, gamma: float, primary: int | None, concentration: float, seed: int
) -> None:
    asked = PartitionRecipe(kind=kind, gamma=gamma, primary=primary, concentration=concentration)
    array = np.array(labels, np.int64)
    try:
        parts = partition_labels(array, peers, asked, seed)
    except InvalidInput as error:
        assert ": " in str(error)
        certain = kind in ("iid", "quantity") and 0 < peers <= len(labels) and seed >= 0
        assert not certain, "these can always be dealt"
    else:
        assert_partition(array, parts, peers)


@kinds
def test_the_same_arguments_give_the_same_answer_and_another_seed_another(kind: str) -> None:
    first, same, other = (partition_labels(LABELS, 5, recipe(kind), seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@kinds
def test_labels_are_left_as_they_were_and_one_peer_has_all(kind: str) -> None:
    labels = LABELS.copy()
    assert partition_labels(labels, 1, recipe(kind), 0)[0].tolist() == list(range(len(labels)))
    assert np.array_equal(labels, LABELS)


@kinds
@pytest.mark.parametrize("peers", [0, -1, 4001])
def test_fewer_samples_than_peers_are_refused(kind: str, peers: int) -> None:
    with pytest.raises(InvalidInput, match=f"4000 samples cannot be dealt to {peers} peers"):
        partition_labels(LABELS, peers, recipe(kind), seed=0)


def test_an_unknown_partition_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"'shards'.*dirichlet, iid, quantity, skew"):
        partition_labels(LABELS, 2, PartitionRecipe(kind="shards"), seed=0)


@kinds
def test_a_seed_below_zero_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInput, match="seed cannot be -1"):
        partition_labels(LABELS, 2, recipe(kind), seed=-1)


@pytest.mark.parametrize("wrong", [{"gamma": -0.1}, {"primary": 0}, {"concentration": 0}, {"gama": 1}, {"camera": "("}])
def test_a_recipe_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PartitionRecipe(**wrong)


@kinds
def test_a_million_samples_are_dealt_to_a_thousand_peers(kind: str) -> None:
    labels = np.random.default_rng([2]).integers(0, 100, 1_000_000)
    assert_partition(labels, partition_labels(labels, 1000, recipe(kind), seed=0), 1000)


def test_partitions_are_there_without_torch_and_without_opencv() -> None:
    program = "import diredi.decentralized.partitions, sys; sys.exit(bool({'torch', 'cv2'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Each one's promise. Counts are binomial, and 5 standard errors are allowed where so many are looked at at once: one
# count strays as far once in 1.7 million draws, so a few hundred of them hardly ever raise a false alarm.


def strays(counts: np.ndarray, n: np.ndarray | int, share: np.ndarray | float) -> np.ndarray:
    """How many standard errors the counts are from what `n` draws of probability `share` give on average."""
    return np.abs(counts - n * share) / np.sqrt(n * share * (1 - share))


@kinds
def test_which_samples_of_a_label_somebody_gets_is_up_to_chance(kind: str) -> None:
    """Places drawn evenly from 0..1 have a standard deviation of sqrt(1 / 12), wherever in the set a label stands."""
    for part in partition_labels(np.zeros(10_000, np.int64), 4, recipe(kind), seed=0):
        assert abs(part.mean() / 10_000 - 0.5) < 5 * np.sqrt(1 / 12 / len(part))


def test_iid_peers_have_as_many_samples_give_or_take_one_and_see_alike() -> None:
    parts = partition_labels(LABELS, 7, PartitionRecipe(), seed=0)
    assert {len(part) for part in parts} == {571, 572}
    assert (strays(table(LABELS, parts), np.bincount(LABELS), 1 / 7) < 5).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 15.0, 100.0])
@pytest.mark.parametrize(("peers", "primary", "holders"), [(10, None, 1), (20, 3, 6), (5, 4, 2)])
def test_a_sample_is_one_plus_gamma_times_likelier_to_go_to_a_peer_with_its_label_as_primary(
    gamma: float, peers: int, primary: int | None, holders: int
) -> None:
    """Each of 100 000 samples of a label is an independent draw, so every count of the table is binomial: of shares
    (1 + gamma) / s and 1 / s, where s is the sum of the weights of all peers."""
    labels = np.repeat(np.arange(10), 100_000)
    counts = table(
        labels, partition_labels(labels, peers, PartitionRecipe(kind="skew", gamma=gamma, primary=primary), 0)
    )
    total = holders * (1 + gamma) + (peers - holders)
    ordered = np.sort(counts, axis=0)
    others, holding = ordered[:-holders], ordered[-holders:]
    assert (strays(holding, 100_000, (1 + gamma) / total) < 5).all()
    assert (strays(others, 100_000, 1 / total) < 5).all()
    # A ratio of two such counts errs by the root of the sum of their squared relative errors.
    ratio, error = holding.mean() / others.mean(), np.sqrt(1 / holding.sum() + 1 / others.sum())
    assert ratio == pytest.approx(1 + gamma, rel=5 * error)


@settings(deadline=None)
@given(classes=st.integers(1, 12), peers=st.integers(1, 15), data=st.data(), seed=st.integers(0, 2**31))
def test_primary_labels_are_dealt_evenly(classes: int, peers: int, data: st.DataObject, seed: int) -> None:
    primary = data.draw(st.none() | st.integers(1, classes), "primary")
    each = -(-classes // peers) if primary is None else primary
    found = primary_labels(classes, peers, primary, np.random.default_rng([seed]))
    assert (found.sum(axis=1) == each).all(), "all peers have equally many"
    assert np.ptp(found.sum(axis=0)) <= 1, "and so have all labels, give or take one"
    assert found.any(axis=0).sum() == min(classes, peers * each), "every label is primary somewhere if there is room"


def test_two_splits_with_the_same_labels_and_seed_have_the_same_primary_labels() -> None:
    asked = PartitionRecipe(kind="skew", gamma=1000)
    train, test = np.arange(5000) % 10, np.arange(1000) % 10

    def primary_labels(labels: np.ndarray, seed: int) -> np.ndarray:
        counts = table(labels, partition_labels(labels, 5, asked, seed))
        return counts > counts.sum(axis=0) / 2  # one of five has each label, and of such a gamma nearly all of it

    assert np.array_equal(primary_labels(train, 8), primary_labels(test, 8))
    assert not np.array_equal(primary_labels(train, 8), primary_labels(train, 9))


def test_without_gamma_skew_is_iid() -> None:
    labels = np.repeat(np.arange(10), 10_000)
    counts = table(labels, partition_labels(labels, 8, PartitionRecipe(kind="skew", gamma=0, primary=2), seed=0))
    assert (strays(counts, 10_000, 1 / 8) < 5).all()


def test_the_larger_gamma_the_less_alike_are_peers() -> None:
    found = [
        unlikeness(LABELS, partition_labels(LABELS, 10, PartitionRecipe(kind="skew", gamma=g), 0)) for g in (0, 5, 100)
    ]
    assert found[0] < 0.1 < found[1] < 0.5 < found[2]


def test_more_primary_labels_than_there_are_labels_are_refused() -> None:
    with pytest.raises(InvalidInput, match="11 primary labels of 10"):
        partition_labels(LABELS, 3, PartitionRecipe(kind="skew", primary=11), seed=0)


def test_a_small_concentration_makes_peers_see_less_alike_than_a_large_one() -> None:
    def found(concentration: float) -> float:
        return unlikeness(
            LABELS, partition_labels(LABELS, 8, PartitionRecipe(kind="dirichlet", concentration=concentration), 0)
        )

    assert found(0.1) > found(1) > found(100)
    assert found(1e9) < 0.1


def test_shares_of_a_label_vary_as_a_dirichlet_distribution_does() -> None:
    """Of p peers at concentration a, a share has the mean 1 / p and the variance (1 / p) (1 - 1 / p) / (a p + 1), to
    which dealing n samples adds what a binomial adds. The variance of 10 000 shares is known to sqrt(3 / 10 000) of it
    or so: 0.1 is more than five such errors."""
    a, p, n, k = 2.0, 5, 500, 2000
    labels = np.repeat(np.arange(k), n)
    shares = table(labels, partition_labels(labels, p, PartitionRecipe(kind="dirichlet", concentration=a), 0)) / n
    spread = (1 / p) * (1 - 1 / p) / (a * p + 1)
    expected = spread + ((1 / p) * (1 - 1 / p) - spread) / n
    assert shares.mean(axis=1) == pytest.approx(np.full(p, 1 / p), abs=5 * np.sqrt(expected / k))
    assert shares.var() == pytest.approx(expected, rel=0.1)


def test_a_concentration_at_which_somebody_always_goes_without_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"dirichlet partition one of 30 peers always went without.*concentration"):
        partition_labels(LABELS, 30, PartitionRecipe(kind="dirichlet", concentration=1e-4), seed=0)


def test_quantity_makes_sizes_unlike_and_labels_alike() -> None:
    labels = np.repeat(np.arange(10), 10_000)
    sizes = {}
    for concentration in (0.2, 1000.0):
        parts = partition_labels(labels, 8, PartitionRecipe(kind="quantity", concentration=concentration), seed=0)
        sizes[concentration] = np.array([len(part) for part in parts])
        assert (strays(table(labels, parts), sizes[concentration][:, None], 0.1) < 5).all()
    assert np.ptp(sizes[0.2]) > 10 * np.ptp(sizes[1000.0])


def test_a_peers_own_distribution_is_the_shares_of_its_labels() -> None:
    assert label_distribution(np.array([2, 0, 2, 2]), 4).tolist() == [0.25, 0, 0.75, 0]
    assert label_distribution(np.array([1]), 2).dtype == np.float64
    for wrong in ([], [4], [-1]):
        with pytest.raises(InvalidInput, match="4 classes"):
            label_distribution(np.array(wrong, np.int64), 4)


# Images with boxes.


def sample(name: str, *classes: int) -> Sample:
    return Sample(Path(f"{name}.jpg"), np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in classes], np.float32).reshape(-1, 5))


def detection_set(train: int = 900, val: int = 300) -> Dataset:
    """Of three images in a row one is mostly of cars, one mostly of people, one without a box; six cameras."""
    shown = [(0, 0, 1), (1, 0, 1, 2), ()]
    splits = [
        [sample(f"cam{i % 6}_{i + offset:04}", *shown[i % 3]) for i in range(n)]
        for n, offset in ((train, 0), (val, 5000))
    ]
    return Dataset(Path("root"), ("car", "person", "bus"), *splits)


def images(samples: list[Sample]) -> list[Path]:
    return [one.image for one in samples]


def shares_of(samples: list[Sample], whole: list[Sample]) -> list[float]:
    """Of images of cars, of people, and without a box: the share of all that is among `samples`."""
    found = [[len(one.boxes) for one in split] for split in (samples, whole)]
    return [found[0].count(boxes) / found[1].count(boxes) for boxes in (3, 4, 0)]


@pytest.mark.parametrize("kind", [*sorted(PARTITIONS), "camera"])
def test_every_image_is_at_one_site_in_its_own_split_and_every_site_can_learn(kind: str) -> None:
    whole = detection_set()
    sites = partition_sites(whole, 3, recipe(kind), seed=0)
    assert len(sites) == 3
    assert all(site.train and site.names == whole.names and site.root == whole.root for site in sites)
    for split in ("train", "val"):
        dealt = [image for site in sites for image in images(site.split(split))]
        assert sorted(dealt) == sorted(images(whole.split(split)))
    again, other = (partition_sites(whole, 3, recipe(kind), seed) for seed in (0, 1))
    assert [images(site.train) + images(site.val) for site in again] == [images(s.train) + images(s.val) for s in sites]
    assert [images(site.train) for site in other] != [images(site.train) for site in sites]


def test_sites_are_skewed_by_the_class_of_most_boxes_and_empty_images_are_dealt_evenly() -> None:
    whole = detection_set()
    sites = partition_sites(whole, 2, PartitionRecipe(kind="skew", gamma=1e6), seed=0)
    shares = [shares_of(site.train, whole.train) for site in sites]
    assert sorted(cars > 0.99 for cars, _, _ in shares) == [False, True]
    assert all((cars > 0.99) != (people > 0.99) for cars, people, _ in shares), "one label a peer"
    assert [empty for _, _, empty in shares] == [0.5, 0.5]


@pytest.mark.parametrize("kind", ["iid", "skew", "dirichlet", "quantity"])
def test_a_site_is_measured_on_images_like_those_that_it_learns_from(kind: str) -> None:
    """1000 images of a kind in `val` are dealt by the shares of `train`: binomial, 5 standard errors are allowed."""
    whole = detection_set(3000, 3000)
    for site in partition_sites(whole, 3, recipe(kind), seed=2):
        learned, measured = (np.array(shares_of(site.split(s), whole.split(s))) for s in ("train", "val"))
        assert (np.abs(measured - learned) <= 5 * np.sqrt(learned * (1 - learned) / 1000)).all()


def test_a_class_that_is_in_val_alone_is_dealt_to_all() -> None:
    whole = detection_set(90, 0)
    whole.val.extend(sample(f"cam0_{i}", 2) for i in range(400))
    sizes = [len(site.val) for site in partition_sites(whole, 2, PartitionRecipe(kind="skew", gamma=1e6), seed=0)]
    assert sum(sizes) == 400
    assert min(sizes) > 150  # 5 standard errors below 200


def test_a_set_without_val_is_dealt_too() -> None:
    for kind in ("iid", "camera"):
        assert all(not site.val for site in partition_sites(detection_set(90, 0), 3, recipe(kind), seed=0))


def test_a_camera_is_never_shared_and_peers_have_equally_many() -> None:
    for peers in (1, 2, 3, 6):
        sites = partition_sites(detection_set(), peers, PartitionRecipe(kind="camera"), seed=1)
        cameras = [set(site.by_camera()) for site in sites]
        assert [len(found) for found in cameras] == [6 // peers] * peers
        assert set().union(*cameras) == {f"cam{i}" for i in range(6)}


def test_a_camera_without_images_to_learn_from_is_nobodys_only_one() -> None:
    whole = detection_set(3, 3)
    whole.val.extend(sample(f"watched{i}_1", 0) for i in range(3))
    for seed in range(10):
        sites = partition_sites(whole, 3, PartitionRecipe(kind="camera"), seed)
        assert all(site.train for site in sites)
        assert sum(len(site.val) for site in sites) == 6


def test_images_are_of_the_camera_that_the_pattern_finds() -> None:
    samples = [sample(f"{number:03}@{'north' if number < 4 else 'south'}", 0) for number in range(9)]
    asked = PartitionRecipe(kind="camera", camera=r"\d+@(.+)")
    sites = partition_sites(Dataset(Path(), ("car",), samples, []), 2, asked, seed=0)
    assert sorted(len(site.train) for site in sites) == [4, 5]
    with pytest.raises(ValidationError, match="no group"):
        PartitionRecipe(kind="camera", camera=r"\d+@.+")


@pytest.mark.parametrize(
    ("kind", "peers", "said"),
    [
        ("camera", 7, "6 cameras .* 7 peers"),
        ("camera", 0, "0 peers"),
        ("iid", 601, "600 samples .* 601 peers"),
        ("iid", 0, "0 peers"),
        ("shards", 2, "'shards'"),
    ],
)
def test_sites_that_cannot_be_are_refused(kind: str, peers: int, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        partition_sites(detection_set(), peers, PartitionRecipe(kind=kind), seed=0)
    with pytest.raises(InvalidInput, match="seed"):
        partition_sites(detection_set(), 2, PartitionRecipe(kind="camera"), seed=-1)
