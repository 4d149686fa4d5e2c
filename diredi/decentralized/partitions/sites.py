"""Assign images with boxes to peers, by the classes that they show or by their camera."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from diredi.data.dataset import Dataset, Sample
from diredi.decentralized.partitions import partition_labels
from diredi.decentralized.partitions.base import Indices, PartitionRecipe, Shares, assign_by_counts, random_generator
from diredi.errors import InvalidInput

CAMERA = "camera"


def partition_sites(dataset: Dataset, peers: int, recipe: PartitionRecipe, seed: int) -> list[Dataset]:
    """Split a data set into one data set for each peer.

    "camera" gives every peer whole cameras, in numbers that differ by one at most. Any other kind takes the class of
    most of an image's boxes as its label; images without boxes are split evenly. Images of `val` follow those of
    `train` with the same label, in the same proportions, so that a peer is measured on what it sees.

    Args:
        dataset: The whole set.
        peers: Number of peers.
        recipe: Kind and numbers of the partition; the kind is "camera" or a name in PARTITIONS.
        seed: Equal arguments give equal partitions.

    Returns:
        A data set for each peer, with the class names of the whole. None is without images in `train`; some may be
        without images in `val`.

    Raises:
        InvalidInput: There are too few images or cameras for the peers; an image does not name its camera; and what
            `partition_labels` raises.
    """
    return (_by_camera if recipe.kind == CAMERA else _by_label)(dataset, peers, recipe, seed)


def _by_camera(dataset: Dataset, peers: int, recipe: PartitionRecipe, seed: int) -> list[Dataset]:
    cameras = list(dataset.by_camera(recipe.camera).values())
    learning = sum(bool(camera.train) for camera in cameras)
    if not 1 <= peers <= learning:
        raise InvalidInput(f"{learning} cameras with images to learn from cannot be dealt to {peers} peers")
    order = random_generator(seed, peers).permutation(len(cameras))
    # Cameras with training images are assigned first, so that each peer gets one of them.
    deck = sorted((cameras[index] for index in order), key=lambda camera: not camera.train)
    return [
        replace(dataset, train=_all(c.train for c in deck[peer::peers]), val=_all(c.val for c in deck[peer::peers]))
        for peer in range(peers)
    ]


def _all(parts: Iterable[Sequence[Sample]]) -> list[Sample]:
    return [sample for part in parts for sample in part]


def _by_label(dataset: Dataset, peers: int, recipe: PartitionRecipe, seed: int) -> list[Dataset]:
    random = random_generator(seed, peers, 1)
    train, val = (np.array([_label(sample) for sample in split], np.int64) for split in (dataset.train, dataset.val))
    with_boxes, without = np.flatnonzero(train), np.flatnonzero(train == 0)
    labelled = partition_labels(train[with_boxes], peers, recipe, seed)
    empty = np.array_split(random.permutation(without), peers)
    own = [np.sort(np.concatenate([with_boxes[a], b])) for a, b in zip(labelled, empty, strict=True)]
    shares = _shares([train[indices] for indices in own], 1 + len(dataset.names))
    sizes = np.bincount(val, minlength=len(shares))
    measured = assign_by_counts(val, random.multinomial(sizes, shares), random)
    return [
        replace(dataset, train=[dataset.train[i] for i in a], val=[dataset.val[i] for i in b])
        for a, b in zip(own, measured, strict=True)
    ]


def _label(sample: Sample) -> int:
    """Return 1 + the class of most boxes, the first of equals; 0 without a box."""
    return 1 + int(np.bincount(sample.boxes[:, 0].astype(np.int64)).argmax()) if len(sample.boxes) else 0


def _shares(labels: Sequence[Indices], kinds: int) -> Shares:
    """Compute each peer's share of every kind, [kinds, peers]; shares of a kind that no peer has are equal."""
    counts = np.stack([np.bincount(own, minlength=kinds) for own in labels], axis=1).astype(np.float64)
    counts[~counts.any(axis=1)] = 1
    shares: Shares = counts / counts.sum(axis=1, keepdims=True)
    return shares
